//! What a shard hands to whoever works for it.

use std::sync::Arc;

use futures_util::FutureExt;
use futures_util::future::{LocalBoxFuture, ready};

use super::load::Load;
use super::ticket::Ticket;
use super::{Cursor, Draft, Form, Message, PAGE_BYTES_MAX, Page, StoreError, Stored, Written};

/// A message that waits to be stored.
#[derive(Debug)]
pub(super) struct Write {
    pub(super) draft: Draft,
    pub(super) ticket: Arc<Ticket<Stored>>,
    /// Its shares of what may wait; given back once it is answered.
    pub(super) loads: [Option<Load>; 2],
}

/// Which page of which room.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) room: Box<str>,
    pub(super) cursor: Cursor,
    pub(super) limit: usize,
}

impl Place {
    pub(super) fn new(room: &str, cursor: Cursor, limit: usize) -> Self {
        Self {
            room: room.into(),
            cursor,
            limit,
        }
    }
}

/// What can be read.
#[derive(Debug)]
pub(super) enum Read {
    History {
        place: Place,
        ticket: Arc<Ticket<Page>>,
    },
    /// The same as text, for everybody who asks for that page: see [`joined`].
    Written {
        place: Place,
        form: Form,
        tickets: Vec<Arc<Ticket<Written>>>,
    },
    Heads {
        rooms: Vec<Box<str>>,
        ticket: Arc<Ticket<Vec<u64>>>,
    },
}

impl Read {
    /// A page as text, for one who asks.
    pub(super) fn written(place: Place, form: Form, ticket: Arc<Ticket<Written>>) -> Self {
        let tickets = vec![ticket];
        Self::Written {
            place,
            form,
            tickets,
        }
    }

    /// Takes the request up. `false`: its time has run out.
    pub(super) fn take(&mut self) -> bool {
        match self {
            Self::History { ticket, .. } => ticket.take(),
            Self::Written { tickets, .. } => {
                tickets.retain(|ticket| ticket.take());
                !tickets.is_empty()
            }
            Self::Heads { ticket, .. } => ticket.take(),
        }
    }

    /// Answers that it cannot be done.
    pub(super) fn refuse(&self, reason: &str) {
        let error = StoreError::Unavailable(reason.into());
        match self {
            Self::History { ticket, .. } => ticket.answer(Err(error)),
            Self::Written { tickets, .. } => answer(tickets, &Err(error)),
            Self::Heads { ticket, .. } => ticket.answer(Err(error)),
        }
    }
}

/// Gives all of them the same answer. Pages share their text.
pub(super) fn answer(tickets: &[Arc<Ticket<Written>>], written: &Result<Written, StoreError>) {
    for ticket in tickets {
        ticket.answer(written.clone());
    }
}

/// Makes one request of those for the same page: when a room's members come back together, all of
/// them ask for its newest. They are few at a time, so each is compared with those before it.
pub(super) fn joined(reads: impl Iterator<Item = Read>) -> Vec<Read> {
    let mut all: Vec<Read> = Vec::new();
    for read in reads {
        let Read::Written { place, tickets, .. } = &read else {
            all.push(read);
            continue;
        };
        let same = all.iter_mut().find_map(|known| match known {
            Read::Written {
                place: other,
                tickets,
                ..
            } if other == place => Some(tickets),
            _ => None,
        });
        match same {
            Some(known) => known.extend_from_slice(tickets),
            None => all.push(read),
        }
    }
    all
}

/// The answer of what was not even begun.
pub(super) fn refused<T: 'static>(reason: &str) -> LocalBoxFuture<'static, Result<T, StoreError>> {
    ready(Err(StoreError::Unavailable(reason.into()))).boxed_local()
}

/// A page on its way: takes messages in the order in which a query gives them, which is newest first
/// unless the cursor goes up.
#[derive(Debug)]
pub(super) struct Gathering {
    page: Page,
    limit: usize,
    bytes: usize,
}

impl Gathering {
    pub(super) fn new(limit: usize) -> Self {
        Self {
            page: Page::default(),
            limit,
            bytes: 0,
        }
    }

    /// Takes the next message. `false`: there is no room for it, so there are more.
    pub(super) fn take(&mut self, message: Message) -> bool {
        let Page { messages, has_more } = &mut self.page;
        self.bytes += message.weight();
        *has_more =
            messages.len() == self.limit || (!messages.is_empty() && self.bytes > PAGE_BYTES_MAX);
        if !*has_more {
            messages.push(message);
        }
        !*has_more
    }

    /// The page, for this cursor.
    pub(super) fn end(mut self, cursor: Cursor) -> Page {
        if !matches!(cursor, Cursor::After(_)) {
            self.page.messages.reverse();
        }
        self.page
    }
}

#[cfg(test)]
mod tests {
    use futures_lite::future::block_on;

    use super::*;
    use crate::store::ticket::Asks;

    type Asked = (&'static str, Cursor, usize);

    /// Requests for these pages, and their tickets.
    fn ask(pages: &[Asked]) -> (Vec<Read>, Vec<Arc<Ticket<Written>>>) {
        let ask = |(room, cursor, limit): &Asked| {
            let ticket = Ticket::new(Asks::ToRead);
            let place = Place::new(room, *cursor, *limit);
            (Read::written(place, |_, _| {}, ticket.clone()), ticket)
        };
        pages.iter().map(ask).unzip()
    }

    #[test]
    fn what_is_asked_for_twice_is_read_once() {
        let (reads, tickets) = ask(&[
            ("a", Cursor::Newest, 50),
            ("b", Cursor::Newest, 50),
            ("a", Cursor::Newest, 50),
            ("a", Cursor::Before(9), 50),
            ("a", Cursor::Newest, 51),
            ("a", Cursor::Newest, 50),
        ]);
        let mut joined = joined(reads.into_iter());
        let counts = joined.iter().map(|read| match read {
            Read::Written { place, tickets, .. } => (&*place.room, place.limit, tickets.len()),
            other => panic!("{other:?}"),
        });
        assert_eq!(
            counts.collect::<Vec<_>>(),
            [("a", 50, 3), ("b", 50, 1), ("a", 50, 1), ("a", 51, 1)]
        );
        // One of them waits no more.
        let late = Err(StoreError::Timeout);
        tickets[2].answer(late.clone());
        assert!(joined[0].take());
        let Read::Written { tickets: taken, .. } = &joined[0] else {
            panic!("it was a page")
        };
        let written = Written {
            text: "{}".into(),
            ..Written::default()
        };
        answer(taken, &Ok(written.clone()));
        let answers = [0, 2, 5].map(|nth| block_on(tickets[nth].wait()));
        assert_eq!(answers, [Ok(written.clone()), late, Ok(written)]);
        joined[1].refuse("the database is down");
        assert!(matches!(
            block_on(tickets[1].wait()),
            Err(StoreError::Unavailable(_))
        ));
    }
}
