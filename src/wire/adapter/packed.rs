//! The JSON text that the hub keeps as MessagePack, with binary data in its places.
//!
//! The text was checked to be JSON when it came in. One pass counts the children of each array and object,
//! which MessagePack says in front, and another writes.

use std::borrow::Cow;

use bytes::Bytes;
use memchr::{memchr, memchr2};

use super::json::integer;
use crate::wire::msgpack::Writer;
use crate::wire::socket_io::Args;

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
