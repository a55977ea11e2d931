//! How broadcasts and requests travel between shards.
//!
//! [`mesh`] connects the shards of one process; [`directory`] knows which of them have members of
//! which room, and which users are in it; [`usage`] what each user has used up.

pub mod directory;
pub mod mesh;
#[cfg(test)]
mod tests;
pub mod usage;
