//! The chat: rooms, messages, and who is told.

pub mod event;
