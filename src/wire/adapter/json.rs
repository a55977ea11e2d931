//! MessagePack as what the hub keeps: JSON text, with binary data beside it ([`super::packed`] goes back).
//!
//! It is linear. What is read may be hostile, and is bounded in depth and in what it becomes.

use std::borrow::Cow;
use std::io::Write as _;

use bytes::Bytes;
use serde::Serialize;
use time::OffsetDateTime;
use time::macros::format_description;

use super::Undecodable;
use crate::wire::Text;
use crate::wire::msgpack::{Reader, Token};
use crate::wire::socket_io::{ATTACHMENTS_MAX, is_plain};

/// How deep values may be nested.
pub(super) const DEPTH_MAX: usize = 128;
/// The greatest integer up to which JavaScript's numbers hold every one.
const INTEGER_MAX: f64 = 9_007_199_254_740_992.0;

/// JSON text that is being made of MessagePack.
#[derive(Debug)]
pub(super) struct Json {
    text: Vec<u8>,
    attachments: Vec<Bytes>,
    bytes_max: usize,
    /// Somebody else's object has the key of a placeholder.
    is_suspect: bool,
}

/// Whether a value was written, or is one that JSON leaves out.
#[derive(PartialEq)]
enum Wrote {
    Value,
    Nothing,
}

impl Json {
    /// Text of at most so many bytes.
    pub(super) fn new(bytes_max: usize) -> Self {
        Self {
            text: Vec::new(),
            attachments: Vec::new(),
            bytes_max,
            is_suspect: false,
        }
    }

    /// Makes room for so many bytes, which are there in another form.
    pub(super) fn reserve(&mut self, bytes: usize) {
        self.text.reserve(bytes.min(self.bytes_max));
    }

    /// Adds the next value of `reader`; what JSON has no form for is `null`.
    pub(super) fn value(&mut self, reader: &mut Reader<'_>) -> Result<(), Undecodable> {
        if self.nested(reader, 0)? == Wrote::Nothing {
            self.push("null")?;
        }
        Ok(())
    }

    /// Adds `count` values with commas between them.
    pub(super) fn list(
        &mut self,
        reader: &mut Reader<'_>,
        count: usize,
    ) -> Result<(), Undecodable> {
        self.elements(reader, count, 1)
    }

    /// The text and the attachments.
    pub(super) fn finish(self) -> Result<(Text, Vec<Bytes>), Undecodable> {
        // Beside attachments it would be taken for a placeholder, and end every client's connection.
        if self.is_suspect && !self.attachments.is_empty() {
            return Err(Undecodable::Placeholder);
        }
        let text = Text::from_utf8(self.text.into()).map_err(|_| Undecodable::Shape)?;
        Ok((text, self.attachments))
    }

    fn nested(&mut self, reader: &mut Reader<'_>, depth: usize) -> Result<Wrote, Undecodable> {
        match reader.token()? {
            Token::Nil => self.push("null")?,
            Token::Bool(true) => self.push("true")?,
            Token::Bool(false) => self.push("false")?,
            Token::Unsigned(value) => self.json(&value),
            Token::Negative(value) => self.json(&value),
            Token::Float(value) => self.float(value),
            Token::String(place) => self.string(reader.slice(place))?,
            Token::Binary(place) => self.binary(reader.share(place))?,
            Token::Array(count) => {
                self.push("[")?;
                self.elements(reader, count, depth + 1)?;
                self.push("]")?;
            }
            Token::Map(count) => self.object(reader, count, depth + 1)?,
            Token::Extension(kind, place) => {
                return self.extension(kind, reader.share(place));
            }
        }
        if self.text.len() > self.bytes_max {
            return Err(Undecodable::TooLarge);
        }
        Ok(Wrote::Value)
    }

    fn elements(
        &mut self,
        reader: &mut Reader<'_>,
        count: usize,
        depth: usize,
    ) -> Result<(), Undecodable> {
        if depth > DEPTH_MAX {
            return Err(Undecodable::TooDeep);
        }
        for nth in 0..count {
            if nth > 0 {
                self.push(",")?;
            }
            if self.nested(reader, depth)? == Wrote::Nothing {
                self.push("null")?;
            }
        }
        Ok(())
    }

    fn object(
        &mut self,
        reader: &mut Reader<'_>,
        count: usize,
        depth: usize,
    ) -> Result<(), Undecodable> {
        if depth > DEPTH_MAX {
            return Err(Undecodable::TooDeep);
        }
        self.push("{")?;
        let mut is_first = true;
        for _ in 0..count {
            let before = self.text.len();
            if !is_first {
                self.push(",")?;
            }
            self.key(reader)?;
            self.push(":")?;
            match self.nested(reader, depth)? {
                Wrote::Value => is_first = false,
                Wrote::Nothing => self.text.truncate(before),
            }
        }
        self.push("}")
    }

    fn key(&mut self, reader: &mut Reader<'_>) -> Result<(), Undecodable> {
        let mut ahead = reader.clone();
        if let Token::String(place) = ahead.token()? {
            *reader = ahead;
            let key = reader.slice(place);
            self.is_suspect |= key == b"_placeholder";
            return self.string(key);
        }
        let number = name(reader)?.ok_or(Undecodable::Shape)?;
        self.string(number.as_bytes())
    }

    /// Appends a piece, if it has room. There is never much more memory than the text may have.
    fn push(&mut self, piece: &str) -> Result<(), Undecodable> {
        if piece.len() > self.bytes_max.saturating_sub(self.text.len()) {
            return Err(Undecodable::TooLarge);
        }
        self.text.extend_from_slice(piece.as_bytes());
        Ok(())
    }

    fn print(&mut self, value: std::fmt::Arguments<'_>) {
        self.text.write_fmt(value).expect("memory takes every byte");
    }

    /// As `JSON.stringify` has it, but for the sign of zero, which stays.
    fn float(&mut self, value: f64) {
        match integer(value) {
            Some(value) => self.json(&value),
            None => self.json(&value),
        }
    }

    /// A string; what of it is no UTF-8 becomes U+FFFD. Nearly all are text, and to see that takes less.
    fn string(&mut self, value: &[u8]) -> Result<(), Undecodable> {
        let text = std::str::from_utf8(value);
        let room = self.bytes_max.saturating_sub(self.text.len());
        if text.is_ok_and(is_plain) && value.len() + 2 <= room {
            self.text.push(b'"');
            self.text.extend_from_slice(value);
            self.text.push(b'"');
            return Ok(());
        }
        self.push("\"")?;
        match text {
            Ok(text) => self.escaped(text)?,
            Err(_) => {
                for chunk in value.utf8_chunks() {
                    self.escaped(chunk.valid())?;
                    if !chunk.invalid().is_empty() {
                        self.push("\u{fffd}")?;
                    }
                }
            }
        }
        self.push("\"")
    }

    /// What stands between a string's quotes.
    fn escaped(&mut self, text: &str) -> Result<(), Undecodable> {
        let is_special = |byte: u8| byte < b' ' || matches!(byte, b'"' | b'\\');
        let mut rest = text;
        while let Some(at) = rest.bytes().position(is_special) {
            let (before, special) = rest.split_at(at);
            self.push(before)?;
            let (special, behind) = special.split_at(1);
            rest = behind;
            match special {
                "\"" => self.push("\\\"")?,
                "\\" => self.push("\\\\")?,
                "\u{8}" => self.push("\\b")?,
                "\t" => self.push("\\t")?,
                "\n" => self.push("\\n")?,
                "\u{c}" => self.push("\\f")?,
                "\r" => self.push("\\r")?,
                other => self.push(&format!("\\u{:04x}", other.as_bytes()[0]))?,
            }
        }
        self.push(rest)
    }

    /// A number: a float that is none is `null`.
    fn json(&mut self, value: &impl Serialize) {
        serde_json::to_writer(&mut self.text, value).expect("memory takes every byte");
    }

    fn binary(&mut self, bytes: Bytes) -> Result<(), Undecodable> {
        let number = self.attachments.len();
        // Socket.IO's clients end their connection over more, and an empty one of two bytes takes sixty here.
        if number >= ATTACHMENTS_MAX {
            return Err(Undecodable::TooLarge);
        }
        self.attachments.push(bytes);
        self.print(format_args!(r#"{{"_placeholder":true,"num":{number}}}"#));
        Ok(())
    }

    /// Types that Node's MessagePack has, now or in earlier versions.
    fn extension(&mut self, kind: i8, data: Bytes) -> Result<Wrote, Undecodable> {
        match (kind, data.len()) {
            // `undefined`
            (0, 1) => return Ok(Wrote::Nothing),
            (-1, _) | (0, 8) => match date(kind, &data).as_deref() {
                Some(moment) => self.string(moment.as_bytes())?,
                None => self.push("null")?,
            },
            // An ArrayBuffer.
            (0, _) => self.binary(data)?,
            (kind, _) => {
                self.print(format_args!("[{kind},"));
                self.binary(data)?;
                self.push("]")?;
            }
        }
        Ok(Wrote::Value)
    }
}

/// Bytes as text; what is none becomes U+FFFD. It takes as much memory as the text has, and no more.
fn lossy(bytes: &[u8]) -> Cow<'_, str> {
    if let Ok(text) = std::str::from_utf8(bytes) {
        return text.into();
    }
    let replaced = |invalid: &[u8]| if invalid.is_empty() { "" } else { "\u{fffd}" };
    let chunks = || bytes.utf8_chunks();
    let length = chunks().map(|chunk| chunk.valid().len() + replaced(chunk.invalid()).len());
    let mut text = String::with_capacity(length.sum());
    for chunk in chunks() {
        text.push_str(chunk.valid());
        text.push_str(replaced(chunk.invalid()));
    }
    text.into()
}

/// A string, or a number as its text: the key of an object, the name of a room, an id. `None`: nil.
pub(super) fn name<'a>(reader: &mut Reader<'a>) -> Result<Option<Cow<'a, str>>, Undecodable> {
    Ok(Some(match reader.token()? {
        Token::Nil => return Ok(None),
        Token::String(place) => lossy(reader.slice(place)),
        Token::Unsigned(value) => value.to_string().into(),
        Token::Negative(value) => value.to_string().into(),
        Token::Float(value) => integer(value)
            .map_or_else(|| value.to_string(), |value| value.to_string())
            .into(),
        _ => return Err(Undecodable::Shape),
    }))
}

/// The integer that a float is, if JavaScript would print it as one and its text keeps the value.
pub(super) fn integer(value: f64) -> Option<i64> {
    let is_integer = value.fract() == 0.0 && value.abs() <= INTEGER_MAX;
    let is_negative_zero = value == 0.0 && value.is_sign_negative();
    #[expect(clippy::cast_possible_truncation, reason = "the range is checked")]
    (is_integer && !is_negative_zero).then_some(value as i64)
}

/// A point in time as JavaScript prints it; `None` if it is out of range.
fn date(kind: i8, data: &[u8]) -> Option<String> {
    let nanos = if kind == 0 {
        // Milliseconds, of earlier versions.
        i128::from(i64::from_be_bytes(data.try_into().ok()?)) * 1_000_000
    } else {
        let (seconds, nanos) = match data.len() {
            4 => (u32::from_be_bytes(data.try_into().ok()?).into(), 0),
            8 => {
                let both = u64::from_be_bytes(data.try_into().ok()?);
                ((both & 0x3_ffff_ffff).cast_signed(), both >> 34)
            }
            12 => {
                let (nanos, seconds) = data.split_first_chunk()?;
                let seconds = i64::from_be_bytes(seconds.try_into().ok()?);
                (seconds, u32::from_be_bytes(*nanos).into())
            }
            _ => return None,
        };
        i128::from(seconds) * 1_000_000_000 + i128::from(nanos)
    };
    let moment = OffsetDateTime::from_unix_timestamp_nanos(nanos).ok()?;
    let form =
        format_description!("[year]-[month]-[day]T[hour]:[minute]:[second].[subsecond digits:3]Z");
    (0..=9_999).contains(&moment.year()).then_some(())?;
    moment.format(form).ok()
}
