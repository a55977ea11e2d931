//! How broadcasts travel between shards.
