//! Between MessagePack and what the hub keeps: JSON text, with binary data beside it.
//!
//! Either way is linear. What is read may be hostile, and is bounded in depth and in what it becomes;
//! what is written was checked to be JSON when it came in.

use std::borrow::Cow;
use std::io::Write as _;

use bytes::Bytes;
use memchr::{memchr, memchr2};
use serde::Serialize;
use time::OffsetDateTime;
use time::macros::format_description;

use super::Undecodable;
use crate::wire::Text;
use crate::wire::msgpack::{Reader, Token, Writer};
use crate::wire::socket_io::{ATTACHMENTS_MAX, Args, is_plain};

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

/// Writes arguments as the elements of an array, the head of which is made for `before` more in front.
pub(super) fn write_args(writer: &mut Writer, before: &[&str], args: &Args) {
    let json = &**args.list();
    let measured = Measured::of(json, args.attachments().len());
    writer.array(before.len() + measured.elements);
    for text in before {
        writer.string(text);
    }
    measured.write(writer, json, args.attachments());
}

/// Writes one value of a valid JSON text.
pub(super) fn write_value(writer: &mut Writer, json: &str, attachments: &[Bytes]) {
    let measured = Measured::of(json, attachments.len());
    measured.write(writer, json, attachments);
}

/// How many children each array and object of a JSON text has: MessagePack says so in front.
struct Measured {
    /// Those outside of all brackets.
    elements: usize,
    /// In the order in which they open.
    nodes: Vec<Node>,
}

#[derive(Default)]
struct Node {
    children: usize,
    placeholder: Option<Placeholder>,
}

/// An object that stands for an attachment.
struct Placeholder {
    number: usize,
    /// Where it ends.
    end: usize,
    /// The first node behind it.
    next_node: usize,
}

/// An array or object that is open.
#[derive(Default)]
struct Open {
    node: usize,
    is_object: bool,
    /// The next string is a key.
    is_key_next: bool,
    key: Key,
    is_marked: bool,
    number: Option<usize>,
}

/// The key whose value comes next.
#[derive(Default, Clone, Copy, PartialEq)]
enum Key {
    Marker,
    Number,
    #[default]
    Other,
}

impl Measured {
    /// Measures a valid JSON text, or the elements of an array without its brackets. Objects are looked
    /// at as placeholders only where there are attachments.
    fn of(json: &str, attachments: usize) -> Self {
        let mut measured = Self {
            elements: 0,
            nodes: Vec::new(),
        };
        let mut open: Vec<Open> = Vec::new();
        let mut at = 0;
        while let Some(byte) = json.as_bytes().get(at) {
            let start = at;
            at = end_of(json.as_bytes(), at);
            match byte {
                b',' => {
                    if let Some(open) = open.last_mut() {
                        open.is_key_next = open.is_object;
                    }
                }
                b']' | b'}' => {
                    let Some(closed) = open.pop() else { continue };
                    let number = closed.number.filter(|number| *number < attachments);
                    if let (true, Some(number)) = (closed.is_marked, number) {
                        measured.nodes[closed.node].placeholder = Some(Placeholder {
                            number,
                            end: at,
                            next_node: measured.nodes.len(),
                        });
                    }
                }
                b':' | b' ' | b'\n' | b'\r' | b'\t' => {}
                _ => {
                    let token = &json[start..at];
                    let is_value = match open.last_mut() {
                        None => true,
                        Some(open) if attachments == 0 => !std::mem::take(&mut open.is_key_next),
                        Some(open) => open.take(token),
                    };
                    if is_value {
                        match open.last() {
                            Some(open) => measured.nodes[open.node].children += 1,
                            None => measured.elements += 1,
                        }
                    }
                    if matches!(byte, b'[' | b'{') {
                        open.push(Open {
                            node: measured.nodes.len(),
                            is_object: *byte == b'{',
                            is_key_next: *byte == b'{',
                            ..Open::default()
                        });
                        measured.nodes.push(Node::default());
                    }
                }
            }
        }
        measured
    }

    fn write(&self, writer: &mut Writer, json: &str, attachments: &[Bytes]) {
        let (mut at, mut node) = (0, 0);
        while let Some(byte) = json.as_bytes().get(at) {
            let start = at;
            at = end_of(json.as_bytes(), at);
            match byte {
                b'[' | b'{' => {
                    let Some(measured) = self.nodes.get(node) else {
                        return;
                    };
                    node += 1;
                    if let Some(placeholder) = &measured.placeholder {
                        writer.binary(&attachments[placeholder.number]);
                        (at, node) = (placeholder.end, placeholder.next_node);
                    } else if *byte == b'[' {
                        writer.array(measured.children);
                    } else {
                        writer.map(measured.children);
                    }
                }
                b'"' => writer.string(&unescaped(&json[start..at])),
                b'n' => writer.nil(),
                b't' => writer.bool(true),
                b'f' => writer.bool(false),
                b'-' | b'0'..=b'9' => write_number(writer, &json[start..at]),
                _ => {}
            }
        }
    }
}

impl Open {
    /// Notes a value or a key. `true`: it is a value.
    fn take(&mut self, token: &str) -> bool {
        if self.is_key_next {
            self.is_key_next = false;
            self.key = match &*unescaped(token) {
                "_placeholder" => Key::Marker,
                "num" => Key::Number,
                _ => Key::Other,
            };
            return false;
        }
        match self.key {
            Key::Marker => self.is_marked = token == "true",
            Key::Number => {
                let number = token.parse::<f64>().ok().and_then(integer);
                self.number = number.and_then(|number| number.try_into().ok());
            }
            Key::Other => {}
        }
        true
    }
}

/// Where the token ends that starts at `start`.
fn end_of(json: &[u8], start: usize) -> usize {
    let rest = &json[start + 1..];
    let length = match json[start] {
        b'"' => {
            let mut at = 0;
            while let Some(found) = memchr2(b'"', b'\\', &rest[at..]) {
                at += found;
                if rest[at] == b'"' {
                    return start + 1 + at + 1;
                }
                at = (at + 2).min(rest.len());
            }
            rest.len()
        }
        b'-' | b'0'..=b'9' | b'a'..=b'z' => {
            let is_more =
                |byte: &&u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'+' | b'-');
            rest.iter().take_while(is_more).count()
        }
        _ => 0,
    };
    start + 1 + length
}

/// An integer as one, up to where JavaScript holds all of them; any other number as a float.
fn write_number(writer: &mut Writer, token: &str) {
    // Shorter than the greatest of those: it needs no look by way of a float.
    if token.len() < 16
        && let Ok(value) = token.parse::<u64>()
    {
        return writer.unsigned(value);
    }
    let value: f64 = token.parse().unwrap_or(f64::NAN);
    match integer(value) {
        Some(value) => writer.signed(value),
        // Too large for JavaScript, which makes `Infinity` of it, and `null` of that.
        None if !value.is_finite() => writer.nil(),
        None => writer.float(value),
    }
}

/// The text of a string with its quotes; what is half of a character becomes U+FFFD.
fn unescaped(token: &str) -> Cow<'_, str> {
    let inner = token.get(1..token.len().max(2) - 1).unwrap_or_default();
    if memchr(b'\\', inner.as_bytes()).is_none() {
        return inner.into();
    }
    let inner = inner.as_bytes();
    let mut text = Vec::with_capacity(inner.len());
    let mut units = Vec::new();
    let mut rest = inner;
    while let Some((byte, after)) = rest.split_first() {
        rest = after;
        let Some((escape, after)) = rest.split_first().filter(|_| *byte == b'\\') else {
            flush(&mut units, &mut text);
            text.push(*byte);
            continue;
        };
        rest = after;
        let plain = match escape {
            b'u' => {
                let digits = rest.get(..4).unwrap_or_default();
                let digits = std::str::from_utf8(digits).unwrap_or_default();
                units.push(u16::from_str_radix(digits, 16).unwrap_or(0xfffd));
                rest = rest.get(4..).unwrap_or_default();
                continue;
            }
            b'b' => 8,
            b'f' => 12,
            b'n' => b'\n',
            b'r' => b'\r',
            b't' => b'\t',
            other => *other,
        };
        flush(&mut units, &mut text);
        text.push(plain);
    }
    flush(&mut units, &mut text);
    String::from_utf8_lossy(&text).into_owned().into()
}

/// Appends UTF-16 to UTF-8.
fn flush(units: &mut Vec<u16>, text: &mut Vec<u8>) {
    let characters = char::decode_utf16(units.drain(..));
    for character in characters.map(|unit| unit.unwrap_or(char::REPLACEMENT_CHARACTER)) {
        text.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes());
    }
}
