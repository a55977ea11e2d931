//! What a shard hands to whoever works for it.

use std::sync::Arc;

use futures_util::FutureExt;
use futures_util::future::{LocalBoxFuture, ready};

use super::load::Load;
use super::ticket::Ticket;
use super::{Cursor, Draft, Page, StoreError, Stored};

/// A message that waits to be stored.
#[derive(Debug)]
pub(super) struct Write {
    pub(super) draft: Draft,
    pub(super) ticket: Arc<Ticket<Stored>>,
    /// Its shares of what may wait; given back once it is answered.
    pub(super) loads: [Option<Load>; 2],
}

/// What can be read.
#[derive(Debug)]
pub(super) enum Read {
    History {
        room: Box<str>,
        cursor: Cursor,
        limit: usize,
        ticket: Arc<Ticket<Page>>,
    },
    Heads {
        rooms: Vec<Box<str>>,
        ticket: Arc<Ticket<Vec<u64>>>,
    },
}

impl Read {
    /// Takes the request up. `false`: its time has run out.
    pub(super) fn take(&self) -> bool {
        match self {
            Self::History { ticket, .. } => ticket.take(),
            Self::Heads { ticket, .. } => ticket.take(),
        }
    }

    /// Answers that it cannot be done.
    pub(super) fn refuse(&self, reason: &str) {
        let error = StoreError::Unavailable(reason.into());
        match self {
            Self::History { ticket, .. } => ticket.answer(Err(error)),
            Self::Heads { ticket, .. } => ticket.answer(Err(error)),
        }
    }
}

/// The answer of what was not even begun.
pub(super) fn refused<T: 'static>(reason: &str) -> LocalBoxFuture<'static, Result<T, StoreError>> {
    ready(Err(StoreError::Unavailable(reason.into()))).boxed_local()
}

/// A page out of the rows that a query gave, newest first unless the cursor goes up: one more than
/// `limit` when there are more.
pub(super) fn page(mut rows: Vec<super::Message>, cursor: Cursor, limit: usize) -> Page {
    let has_more = rows.len() > limit;
    rows.truncate(limit);
    if !matches!(cursor, Cursor::After(_)) {
        rows.reverse();
    }
    Page {
        messages: rows,
        has_more,
    }
}
