//! How broadcasts and requests travel between shards.
//!
//! [`mesh`] connects the shards of one process; [`directory`] knows which of them have members of
//! which room, and which users are in it; [`usage`] what each user has used up. [`redis`] makes every
//! shard a node of a fleet of hosts, with the mesh as its stand-in.

pub mod directory;
#[cfg(test)]
mod directory_tests;
mod heads;
pub mod mesh;
pub mod redis;
#[cfg(test)]
mod tests;
pub mod usage;
#[cfg(test)]
mod usage_tests;
