//! The formats on the wire: bytes in, values out, and back.
//!
//! A format is a pure file. It does no I/O, reads no clock and never awaits; it asks for more bytes
//! instead, and it says which answer an error earns. What moves through the server is moved as
//! [`Text`] and [`bytes::Bytes`], which share their memory.

pub mod adapter;
pub mod engine_io;
pub mod frame;
pub mod http;
mod msgpack;
pub mod proxy_protocol;
pub mod resp;
pub mod socket_io;
pub mod websocket;

use std::borrow::Borrow;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::ops::{Deref, Range};

use async_tungstenite::tungstenite::{Bytes, Utf8Bytes};

/// A piece of shared UTF-8 text. Cloning and slicing copy nothing.
#[derive(Clone, Default)]
pub struct Text {
    source: Utf8Bytes,
    start: usize,
    end: usize,
}

impl Text {
    /// Text of the program itself: it takes no memory.
    #[must_use]
    pub fn from_static(text: &'static str) -> Self {
        Utf8Bytes::from_static(text).into()
    }

    /// The part of this text between two byte positions.
    ///
    /// # Panics
    /// When the range is out of bounds or cuts a character.
    #[must_use]
    pub fn slice(&self, range: Range<usize>) -> Self {
        assert!(
            self.get(range.clone()).is_some(),
            "the range lies on characters of the text"
        );
        Self {
            source: self.source.clone(),
            start: self.start + range.start,
            end: self.start + range.end,
        }
    }

    /// Checks that `bytes` are UTF-8, and shares them.
    pub fn from_utf8(bytes: Bytes) -> Result<Self, std::str::Utf8Error> {
        Utf8Bytes::try_from(bytes).map(Self::from)
    }

    /// The bytes, shared.
    #[must_use]
    pub fn to_bytes(&self) -> Bytes {
        let all: &Bytes = self.source.as_ref();
        all.slice(self.start..self.end)
    }
}

impl Deref for Text {
    type Target = str;
    fn deref(&self) -> &str {
        &self.source.as_str()[self.start..self.end]
    }
}

impl From<Utf8Bytes> for Text {
    fn from(source: Utf8Bytes) -> Self {
        let end = source.len();
        Self {
            source,
            start: 0,
            end,
        }
    }
}

impl From<&str> for Text {
    fn from(text: &str) -> Self {
        Utf8Bytes::from(text).into()
    }
}

impl From<String> for Text {
    fn from(text: String) -> Self {
        Utf8Bytes::from(text).into()
    }
}

impl fmt::Debug for Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&**self, f)
    }
}

impl PartialEq for Text {
    fn eq(&self, other: &Self) -> bool {
        **self == **other
    }
}

impl Eq for Text {}

impl PartialOrd for Text {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Text {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (**self).cmp(&**other)
    }
}

impl Hash for Text {
    fn hash<H: Hasher>(&self, state: &mut H) {
        (**self).hash(state);
    }
}

impl Borrow<str> for Text {
    fn borrow(&self) -> &str {
        self
    }
}

impl fmt::Display for Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self)
    }
}

/// What an Engine.IO message carries, and what a Socket.IO packet is made of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Content {
    /// UTF-8 text.
    Text(Text),
    /// Bytes.
    Binary(Bytes),
}

impl Content {
    /// Length in bytes.
    #[must_use]
    pub fn len(&self) -> usize {
        match self {
            Self::Text(text) => text.len(),
            Self::Binary(bytes) => bytes.len(),
        }
    }

    /// Whether there is nothing in it.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slices_of_slices_share_the_source() {
        let text = Text::from("4hällo wörld");
        let inner = text.slice(1..text.len()).slice(0..6);
        assert_eq!(&*inner, "hällo");
        assert_eq!(inner.to_bytes(), "hällo".as_bytes());
    }

    #[test]
    #[should_panic(expected = "on characters")]
    fn refuses_to_cut_a_character() {
        let _ = Text::from("ä").slice(0..1);
    }
}
