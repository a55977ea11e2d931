//! A shard's connections.
