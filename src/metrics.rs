//! The names, units and help of every metric, and the handles that hot paths keep.
