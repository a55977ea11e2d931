//! Where messages are kept: the contract that every store is tested against.
//!
//! A store gives a room's messages their one order: `seq`, dense from 1, allotted in the same
//! transaction that makes the message durable. It knows a sender's `clientMsgId` again, and it
//! answers every request within [`ANSWER_WITHIN`], with what is true: `Unavailable` for a message
//! that will surely never be stored, `Timeout` when it cannot know.

mod health;
mod load;
pub mod memory;
mod migration;
pub mod postgres;
mod request;
pub mod sqlite;
mod ticket;
mod written;

pub use self::migration::Newer;
pub use self::written::{Form, MessageRef, Written};

use std::rc::Rc;
use std::time::Duration;

use futures_util::FutureExt as _;
use futures_util::future::LocalBoxFuture;

/// Every request is answered within this time of being made, whatever the disk or network does.
pub const ANSWER_WITHIN: Duration = Duration::from_secs(5);

/// The most rooms that one call of [`Store::heads`] may ask for.
pub const HEADS_MAX: usize = 1_000;

/// Bytes of one page, as its messages are stored or as text. One message alone may be larger.
pub const PAGE_BYTES_MAX: usize = 1 << 20;

/// A message on its way into the store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Draft {
    /// The room that it goes to.
    pub room: Box<str>,
    /// Who sends it.
    pub user: Box<str>,
    /// Its text, kept byte for byte.
    pub content: Box<str>,
    /// The sender's key against duplicates.
    pub client_msg_id: Option<Box<str>>,
    /// UUIDv7, made by the server that took the message.
    pub id: uuid::Uuid,
    /// Milliseconds since 1970. The store raises it to the room's newest if that is later.
    pub wall_ms: u64,
}

impl Draft {
    /// The bytes that it holds, as the bounds of queues and batches count them.
    #[must_use]
    pub fn weight(&self) -> usize {
        let key = self.client_msg_id.as_ref().map_or(0, |key| key.len());
        size_of::<Self>() + self.room.len() + self.user.len() + self.content.len() + key
    }

    /// The message that it becomes under this number and time.
    #[must_use]
    pub fn numbered(self, seq: u64, wall_ms: u64) -> Message {
        Message {
            room: self.room,
            seq,
            id: self.id,
            user: self.user,
            content: self.content,
            wall_ms,
            client_msg_id: self.client_msg_id,
        }
    }
}

/// A message as stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// The room that it is in.
    pub room: Box<str>,
    /// Its place in the room, dense from 1.
    pub seq: u64,
    /// UUIDv7, as the draft had it.
    pub id: uuid::Uuid,
    /// Who sent it.
    pub user: Box<str>,
    /// Its text.
    pub content: Box<str>,
    /// Milliseconds since 1970, never earlier than the message before it in the room.
    pub wall_ms: u64,
    /// The sender's key against duplicates.
    pub client_msg_id: Option<Box<str>>,
}

impl Message {
    /// The bytes that it holds, as the bound of pages counts them.
    fn weight(&self) -> usize {
        let key = self.client_msg_id.as_ref().map_or(0, |key| key.len());
        self.room.len() + self.user.len() + self.content.len() + key
    }
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
    /// The messages, in `seq` order.
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
    /// Not known whether it was stored. Only `append` answers this.
    #[error("the store did not answer in time")]
    Timeout,
}

/// How the store is, for `/health`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Condition {
    /// The last thing it was asked, it did.
    Ok,
    /// It failed, for this reason, and has not succeeded since.
    Degraded(Box<str>),
}

/// A durable, ordered store of messages. One handle a shard.
pub trait Store {
    /// Stores a message and gives it the room's next `seq`. Resolves once it is durable.
    ///
    /// The call itself hands the draft over, the future only waits: a draft whose future is dropped
    /// may be stored all the same.
    fn append(&self, draft: Draft) -> LocalBoxFuture<'static, Result<Stored, StoreError>>;
    /// Reads a page of at most `limit` messages, and of fewer if they are large ([`PAGE_BYTES_MAX`]).
    /// One that goes back may come from a replica, which holds all that this process has seen, but not
    /// always all that there is.
    fn history(
        &self,
        room: &str,
        cursor: Cursor,
        limit: usize,
    ) -> LocalBoxFuture<'static, Result<Page, StoreError>>;
    /// The page that [`Self::history`] reads, as text in this form, whose bytes count too. It is for who
    /// looks through a room, and may wait while others join, replay and repair. Those who ask for the same page before it
    /// is read may share one reading: the form is the same for all.
    fn history_written(
        &self,
        room: &str,
        cursor: Cursor,
        limit: usize,
        form: Form,
    ) -> LocalBoxFuture<'static, Result<Written, StoreError>> {
        let page = self.history(room, cursor, limit);
        async move { Ok(Written::of(&page.await?, cursor, form)) }.boxed_local()
    }
    /// The newest `seq` of each room, in the order asked; 0 where there is none. At most
    /// [`HEADS_MAX`] rooms.
    fn heads(&self, rooms: Vec<Box<str>>) -> LocalBoxFuture<'static, Result<Vec<u64>, StoreError>>;
    /// How it is now, without asking it.
    fn condition(&self) -> Condition;
    /// A short name for `/health`: `sqlite`, `memory`.
    fn kind(&self) -> &'static str;
}

/// A shard's handle.
pub type SharedStore = Rc<dyn Store>;
