//! A bounded history in memory. Nothing is durable.
