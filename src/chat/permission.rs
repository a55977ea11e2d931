//! Who may do what in a room: the joint where an installation's own rules come in.
//!
//! Joining, sending and reading history each ask here first, and only here. Today's rule is the
//! `rooms` claim of the token ([`TokenRooms`]). A table of members would be a second implementation:
//!
//! 1. a migration makes the table, and [`Store`](crate::store::Store) gets a method that looks a
//!    user up in it, with the contract test in `tests/store`;
//! 2. a `Members` here holds the shard's store and answers from it. A look-up that fails is
//!    `unavailable` (the trait's [`Denied::Unknown`]), never a yes;
//! 3. `server` gives it to the chat and to the history in the place of [`TokenRooms`].
//!
//! A right is asked for when it is used, so one that is taken away ends sending at once; to end what
//! was joined before, leave the room for the user's sockets (`Hub::of("/")`, `leave`).

use futures_util::future::{LocalBoxFuture, ready};

use super::event::{Code, Failure};
use crate::auth::User;

/// What is to be done in a room.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Act {
    /// Become a member: messages arrive from now on.
    Join,
    /// Send a message.
    Send,
    /// Read what was sent before.
    Read,
}

/// Why it is not done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Denied {
    /// The user has no right to it.
    Forbidden,
    /// That cannot be found out now.
    Unknown,
}

/// The rules of an installation.
pub trait Permissions {
    /// Whether the user may do this in the room.
    fn check<'a>(
        &'a self,
        user: &'a User,
        room: &'a str,
        act: Act,
    ) -> LocalBoxFuture<'a, Result<(), Denied>>;
}

/// What the token's `rooms` claim allows, alike for all acts; without it, every room.
#[derive(Debug, Clone, Copy, Default)]
pub struct TokenRooms;

impl Permissions for TokenRooms {
    fn check<'a>(
        &'a self,
        user: &'a User,
        room: &'a str,
        _act: Act,
    ) -> LocalBoxFuture<'a, Result<(), Denied>> {
        let may = user.may_enter(room);
        Box::pin(ready(may.then_some(()).ok_or(Denied::Forbidden)))
    }
}

impl From<Denied> for Failure {
    fn from(denied: Denied) -> Self {
        match denied {
            Denied::Forbidden => Self::new(Code::Forbidden, "you may not do this in the room"),
            Denied::Unknown => Self::new(
                Code::Unavailable,
                "whether you may do this cannot be found out now",
            ),
        }
    }
}
