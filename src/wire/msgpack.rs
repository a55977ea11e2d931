//! MessagePack's primitives: one token at a time, out of shared bytes or into a buffer.
//!
//! Lengths are checked against the bytes that are there before anything is made of them; strings and
//! binary data are places in the source, so nothing is copied.

use std::ops::Range;

use bytes::Bytes;
use rmp::Marker;

/// Why bytes are not one MessagePack value.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum MsgpackError {
    /// They end in the middle, or a length announces more than is there.
    #[error("truncated")]
    Truncated,
    /// A byte that begins nothing.
    #[error("reserved type")]
    Reserved,
}

/// One value, or the head of one that holds others.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Token {
    Nil,
    Bool(bool),
    /// An integer that is not negative.
    Unsigned(u64),
    /// A negative integer.
    Negative(i64),
    Float(f64),
    /// A place in the source; not checked to be UTF-8.
    String(Range<usize>),
    Binary(Range<usize>),
    /// So many values follow.
    Array(usize),
    /// So many pairs follow.
    Map(usize),
    Extension(i8, Range<usize>),
}

/// Reads tokens.
#[derive(Debug, Clone)]
pub(super) struct Reader<'a> {
    bytes: &'a Bytes,
    at: usize,
}

impl<'a> Reader<'a> {
    pub(super) fn new(bytes: &'a Bytes) -> Self {
        Self { bytes, at: 0 }
    }

    /// Whether everything was read.
    pub(super) fn is_at_end(&self) -> bool {
        self.at == self.bytes.len()
    }

    /// Bytes that were not read yet.
    pub(super) fn left(&self) -> usize {
        self.bytes.len() - self.at
    }

    /// How many bytes were read.
    pub(super) fn at(&self) -> usize {
        self.at
    }

    /// The bytes of a place that a token named.
    pub(super) fn slice(&self, place: Range<usize>) -> &'a [u8] {
        &self.bytes[place]
    }

    /// The same, sharing the source's memory.
    pub(super) fn share(&self, place: Range<usize>) -> Bytes {
        self.bytes.slice(place)
    }

    /// The next token.
    pub(super) fn token(&mut self) -> Result<Token, MsgpackError> {
        let [marker] = self.fixed()?;
        Ok(match Marker::from_u8(marker) {
            Marker::FixPos(value) => Token::Unsigned(value.into()),
            Marker::FixNeg(value) => Token::Negative(value.into()),
            Marker::Null => Token::Nil,
            Marker::True => Token::Bool(true),
            Marker::False => Token::Bool(false),
            Marker::U8 | Marker::U16 | Marker::U32 | Marker::U64 => {
                Token::Unsigned(self.unsigned(1 << (marker - 0xcc))?)
            }
            Marker::I8 => integer(i8::from_be_bytes(self.fixed()?).into()),
            Marker::I16 => integer(i16::from_be_bytes(self.fixed()?).into()),
            Marker::I32 => integer(i32::from_be_bytes(self.fixed()?).into()),
            Marker::I64 => integer(i64::from_be_bytes(self.fixed()?)),
            Marker::F32 => Token::Float(f32::from_be_bytes(self.fixed()?).into()),
            Marker::F64 => Token::Float(f64::from_be_bytes(self.fixed()?)),
            Marker::FixStr(length) => Token::String(self.place(length.into())?),
            Marker::Str8 => Token::String(self.long(1)?),
            Marker::Str16 => Token::String(self.long(2)?),
            Marker::Str32 => Token::String(self.long(4)?),
            Marker::Bin8 => Token::Binary(self.long(1)?),
            Marker::Bin16 => Token::Binary(self.long(2)?),
            Marker::Bin32 => Token::Binary(self.long(4)?),
            Marker::FixArray(count) => Token::Array(self.children(count.into(), 1)?),
            Marker::Array16 => Token::Array(self.many(2, 1)?),
            Marker::Array32 => Token::Array(self.many(4, 1)?),
            Marker::FixMap(count) => Token::Map(self.children(count.into(), 2)?),
            Marker::Map16 => Token::Map(self.many(2, 2)?),
            Marker::Map32 => Token::Map(self.many(4, 2)?),
            Marker::FixExt1
            | Marker::FixExt2
            | Marker::FixExt4
            | Marker::FixExt8
            | Marker::FixExt16 => self.extension(1 << (marker - 0xd4))?,
            Marker::Ext8 | Marker::Ext16 | Marker::Ext32 => {
                let length = self.unsigned(1 << (marker - 0xc7))?;
                self.extension(length)?
            }
            Marker::Reserved => return Err(MsgpackError::Reserved),
        })
    }

    /// Goes past one whole value, however deep.
    pub(super) fn skip(&mut self) -> Result<(), MsgpackError> {
        let first = self.token()?;
        self.skip_inside(&first)
    }

    /// Goes past what a value holds whose own token was read.
    pub(super) fn skip_inside(&mut self, token: &Token) -> Result<(), MsgpackError> {
        let children = |token: &Token| match token {
            Token::Array(count) => *count,
            Token::Map(count) => 2 * count,
            _ => 0,
        };
        let mut left = children(token);
        while left > 0 {
            // However much is announced, the bytes run out first.
            left = (left - 1).saturating_add(children(&self.token()?));
        }
        Ok(())
    }

    fn fixed<const N: usize>(&mut self) -> Result<[u8; N], MsgpackError> {
        let rest = &self.bytes[self.at..];
        let bytes = rest.first_chunk().ok_or(MsgpackError::Truncated)?;
        self.at += N;
        Ok(*bytes)
    }

    /// A number of 1, 2, 4 or 8 bytes.
    fn unsigned(&mut self, width: usize) -> Result<u64, MsgpackError> {
        let place = self.place(width as u64)?;
        let bytes = self.bytes[place].iter();
        Ok(bytes.fold(0, |number, byte| number << 8 | u64::from(*byte)))
    }

    /// The next `length` bytes.
    fn place(&mut self, length: u64) -> Result<Range<usize>, MsgpackError> {
        let left = self.left();
        let length = usize::try_from(length).map_err(|_| MsgpackError::Truncated)?;
        if length > left {
            return Err(MsgpackError::Truncated);
        }
        let start = self.at;
        self.at += length;
        Ok(start..self.at)
    }

    /// What stands behind a length of so many bytes.
    fn long(&mut self, width: usize) -> Result<Range<usize>, MsgpackError> {
        let length = self.unsigned(width)?;
        self.place(length)
    }

    fn many(&mut self, width: usize, each: u64) -> Result<usize, MsgpackError> {
        let count = self.unsigned(width)?;
        self.children(count, each)
    }

    /// A count of children, of which each takes `each` bytes at least.
    fn children(&self, count: u64, each: u64) -> Result<usize, MsgpackError> {
        let left = self.left() as u64;
        if count * each > left {
            return Err(MsgpackError::Truncated);
        }
        usize::try_from(count).map_err(|_| MsgpackError::Truncated)
    }

    fn extension(&mut self, length: u64) -> Result<Token, MsgpackError> {
        let [kind] = self.fixed()?;
        Ok(Token::Extension(
            i8::from_be_bytes([kind]),
            self.place(length)?,
        ))
    }
}

fn integer(value: i64) -> Token {
    u64::try_from(value).map_or(Token::Negative(value), Token::Unsigned)
}

/// Writes values, each in its shortest form.
#[derive(Debug, Default)]
pub(super) struct Writer(Vec<u8>);

/// Why writing succeeds.
const ROOM: &str = "memory takes every byte";

impl Writer {
    /// Appends to what is there.
    pub(super) fn over(bytes: Vec<u8>) -> Self {
        Self(bytes)
    }

    /// Makes room for so many bytes more.
    pub(super) fn reserve(&mut self, bytes: usize) {
        self.0.reserve(bytes);
    }

    /// Appends values that are written already.
    pub(super) fn written(&mut self, values: &[u8]) {
        self.0.extend_from_slice(values);
    }

    pub(super) fn into_bytes(self) -> Vec<u8> {
        self.0
    }

    pub(super) fn nil(&mut self) {
        rmp::encode::write_nil(&mut self.0).expect(ROOM);
    }

    pub(super) fn bool(&mut self, value: bool) {
        rmp::encode::write_bool(&mut self.0, value).expect(ROOM);
    }

    pub(super) fn unsigned(&mut self, value: u64) {
        rmp::encode::write_uint(&mut self.0, value).expect(ROOM);
    }

    pub(super) fn signed(&mut self, value: i64) {
        rmp::encode::write_sint(&mut self.0, value).expect(ROOM);
    }

    pub(super) fn float(&mut self, value: f64) {
        rmp::encode::write_f64(&mut self.0, value).expect(ROOM);
    }

    pub(super) fn string(&mut self, value: &str) {
        rmp::encode::write_str(&mut self.0, value).expect(ROOM);
    }

    pub(super) fn binary(&mut self, value: &[u8]) {
        rmp::encode::write_bin(&mut self.0, value).expect(ROOM);
    }

    /// The head of an array.
    pub(super) fn array(&mut self, count: usize) {
        rmp::encode::write_array_len(&mut self.0, length(count)).expect(ROOM);
    }

    /// The head of a map.
    pub(super) fn map(&mut self, count: usize) {
        rmp::encode::write_map_len(&mut self.0, length(count)).expect(ROOM);
    }
}

fn length(count: usize) -> u32 {
    u32::try_from(count).expect("a message is far below 4 GiB")
}
