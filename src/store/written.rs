//! A page as text: its messages are written down as they are read, and none of them is kept.
//!
//! How a message looks is not the store's affair: whoever asks brings the function that writes one.

use bytes::Bytes;

use super::{Cursor, Message, PAGE_BYTES_MAX, Page};

/// A message while it is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MessageRef<'a> {
    /// See [`Message::room`].
    pub room: &'a str,
    /// See [`Message::seq`].
    pub seq: u64,
    /// See [`Message::id`].
    pub id: uuid::Uuid,
    /// See [`Message::user`].
    pub user: &'a str,
    /// See [`Message::content`].
    pub content: &'a str,
    /// See [`Message::wall_ms`].
    pub wall_ms: u64,
    /// See [`Message::client_msg_id`].
    pub client_msg_id: Option<&'a str>,
}

impl MessageRef<'_> {
    /// The message, kept.
    #[must_use]
    pub fn keep(&self) -> Message {
        Message {
            room: self.room.into(),
            seq: self.seq,
            id: self.id,
            user: self.user.into(),
            content: self.content.into(),
            wall_ms: self.wall_ms,
            client_msg_id: self.client_msg_id.map(Into::into),
        }
    }
}

impl<'a> From<&'a Message> for MessageRef<'a> {
    fn from(message: &'a Message) -> Self {
        Self {
            room: &message.room,
            seq: message.seq,
            id: message.id,
            user: &message.user,
            content: &message.content,
            wall_ms: message.wall_ms,
            client_msg_id: message.client_msg_id.as_deref(),
        }
    }
}

/// How a message looks: writes one down, at the end of what there is.
pub type Form = fn(&mut Vec<u8>, &MessageRef<'_>);

/// A page whose messages are written down.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Written {
    /// The messages, oldest first, with commas between them.
    pub text: Bytes,
    /// The `seq` of the oldest and of the newest, if there are any.
    pub span: Option<(u64, u64)>,
    /// Whether there are more in the direction of the cursor.
    pub has_more: bool,
}

impl Written {
    /// Writes down a page that was read for this cursor.
    #[must_use]
    pub fn of(page: &Page, cursor: Cursor, form: Form) -> Self {
        let mut writing = Writing::new(cursor, page.messages.len(), form);
        let mut take = |message: &Message| writing.take(&message.into());
        match cursor {
            Cursor::After(_) => page.messages.iter().all(&mut take),
            Cursor::Newest | Cursor::Before(_) => page.messages.iter().rev().all(&mut take),
        };
        let mut written = writing.end();
        written.has_more |= page.has_more;
        written
    }
}

/// A page on its way: takes messages in the order in which a query gives them, which is newest first
/// unless the cursor goes up.
pub(super) struct Writing {
    goes_up: bool,
    limit: usize,
    form: Form,
    text: Vec<u8>,
    /// Where each message ends in the text.
    ends: Vec<usize>,
    /// The first and the last that was taken.
    span: Option<(u64, u64)>,
    has_more: bool,
}

impl Writing {
    pub(super) fn new(cursor: Cursor, limit: usize, form: Form) -> Self {
        Self {
            goes_up: matches!(cursor, Cursor::After(_)),
            limit,
            form,
            text: Vec::new(),
            ends: Vec::new(),
            span: None,
            has_more: false,
        }
    }

    /// Takes the next message. `false`: there is no room for it, so there are more.
    pub(super) fn take(&mut self, message: &MessageRef<'_>) -> bool {
        let before = self.text.len();
        self.has_more = self.ends.len() == self.limit;
        if !self.has_more {
            (self.form)(&mut self.text, message);
            self.has_more = !self.ends.is_empty() && self.text.len() > PAGE_BYTES_MAX;
        }
        if self.has_more {
            self.text.truncate(before);
            return false;
        }
        self.ends.push(self.text.len());
        let first = self.span.map_or(message.seq, |(first, _)| first);
        self.span = Some((first, message.seq));
        true
    }

    pub(super) fn end(self) -> Written {
        let mut text = Vec::with_capacity(self.text.len() + self.ends.len());
        let mut add = |nth: usize| {
            let begin = nth.checked_sub(1).map_or(0, |before| self.ends[before]);
            if !text.is_empty() {
                text.push(b',');
            }
            text.extend_from_slice(&self.text[begin..self.ends[nth]]);
        };
        if self.goes_up {
            (0..self.ends.len()).for_each(&mut add);
        } else {
            (0..self.ends.len()).rev().for_each(&mut add);
        }
        let span = self.span;
        Written {
            text: text.into(),
            span: if self.goes_up {
                span
            } else {
                span.map(|(newest, oldest)| (oldest, newest))
            },
            has_more: self.has_more,
        }
    }
}
