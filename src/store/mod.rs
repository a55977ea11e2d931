//! Where messages are kept: the contract that every store is tested against.
//!
//! A store gives a room's messages their one order: `seq`, dense from 1, allotted in the same
//! transaction that makes the message durable. It knows a sender's `clientMsgId` again.

pub mod memory;
pub mod sqlite;

use std::rc::Rc;

use futures_util::future::LocalBoxFuture;

/// A message on its way into the store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Draft {
    pub room: Box<str>,
    pub user: Box<str>,
    pub content: Box<str>,
    pub client_msg_id: Option<Box<str>>,
    /// UUIDv7, made by the server that took the message.
    pub id: uuid::Uuid,
    /// Milliseconds since 1970. The store raises it to the room's newest if that is later.
    pub wall_ms: u64,
}

/// A message as stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    pub room: Box<str>,
    pub seq: u64,
    pub id: uuid::Uuid,
    pub user: Box<str>,
    pub content: Box<str>,
    pub wall_ms: u64,
    pub client_msg_id: Option<Box<str>>,
}

/// What `append` answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stored {
    /// The message as it is in the store; when not `fresh`, the first one with this key.
    pub message: Message,
    /// Whether this call stored it. `false`: the sender's `clientMsgId` was known in the room.
    pub fresh: bool,
}

/// Which part of a room's history is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cursor {
    /// The newest messages.
    Newest,
    /// The newest messages below this `seq`.
    Before(u64),
    /// The oldest messages above this `seq`.
    After(u64),
}

/// A page of a room's history, oldest first.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Page {
    pub messages: Vec<Message>,
    /// Whether there are more in the direction of the cursor.
    pub has_more: bool,
}

/// Why a store did not do what it was asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// Surely not stored: the queue is full, or the store is down or refuses.
    #[error("the store is unavailable: {0}")]
    Unavailable(Box<str>),
    /// Not known whether it was stored.
    #[error("the store did not answer in time")]
    Timeout,
}

/// How the store is, for `/health`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Condition {
    Ok,
    Degraded(Box<str>),
}

/// A durable, ordered store of messages. One handle a shard.
pub trait Store {
    /// Stores a message and gives it the room's next `seq`. Resolves once it is durable.
    fn append(&self, draft: Draft) -> LocalBoxFuture<'static, Result<Stored, StoreError>>;
    /// Reads a page of at most `limit` messages.
    fn history(
        &self,
        room: &str,
        cursor: Cursor,
        limit: usize,
    ) -> LocalBoxFuture<'static, Result<Page, StoreError>>;
    /// The newest `seq` of each room, in the order asked; 0 where there is none. At most 1,000 rooms.
    fn heads(&self, rooms: Vec<Box<str>>) -> LocalBoxFuture<'static, Result<Vec<u64>, StoreError>>;
    /// How it is now, without asking it.
    fn condition(&self) -> Condition;
    /// A short name for `/health`: `sqlite`, `memory`.
    fn kind(&self) -> &'static str;
}

/// A shard's handle.
pub type SharedStore = Rc<dyn Store>;
