//! Finds whole replies in the bytes that a Redis server sends (RESP2 and RESP3).
//!
//! The `redis` crate parses a reply that is all there; this says where one ends. It looks at every byte
//! once, however the bytes arrive, checks what is announced before anything is allocated for it, and
//! takes nothing that `redis::parse_redis_value` would not take in bounded memory and depth. After an
//! error the place in the stream is lost: the connection has to end.

use bytes::{Bytes, BytesMut};

/// Bytes of one reply, unless set otherwise: far above what a fleet publishes.
pub const REPLY_BYTES_MAX: usize = 64 << 20;
/// Elements of one reply, those of nested ones included. The greeting has the most, twenty and some for each
/// module; the crate makes up to 240 bytes of one.
pub const ELEMENTS_MAX: usize = 1_024;
/// How deep replies may be nested. Pub/sub and the few commands in use need three levels.
const DEPTH_MAX: usize = 32;
/// Bytes of a line: a simple string, an error, a number.
const LINE_BYTES_MAX: usize = 64 << 10;
/// What a message push begins with. Most replies are one, so its first two elements are known by sight.
const MESSAGE: &[u8] = b">3\r\n$7\r\nmessage\r\n";

/// Why a stream is none of Redis's. Each of these ends the connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum RespError {
    /// A reply begins with a byte that is no type, or with a type that is never sent unasked.
    #[error("unknown type of reply")]
    Type,
    /// A length or a count that is no number, or a negative one.
    #[error("a length is no number")]
    Length,
    /// The bytes behind a string are no line end.
    #[error("a string does not end where it should")]
    End,
    /// A line is longer than any that Redis sends.
    #[error("a line is too long")]
    Line,
    /// A reply is larger than allowed.
    #[error("a reply is too large")]
    TooLarge,
    /// A reply has more elements than allowed.
    #[error("a reply has too many elements")]
    TooMany,
    /// Replies are nested too deep.
    #[error("a reply is nested too deep")]
    TooDeep,
}

/// Cuts a stream into whole replies.
#[derive(Debug)]
pub struct Replies {
    buffer: BytesMut,
    bytes_max: usize,
    /// Up to here the first reply has been understood.
    at: usize,
    /// From `at` to here there is no line end.
    searched: usize,
    /// How many elements each open aggregate lacks, the outermost first.
    open: Vec<usize>,
    elements: usize,
}

impl Default for Replies {
    fn default() -> Self {
        Self::new(REPLY_BYTES_MAX)
    }
}

impl Replies {
    /// For replies of at most so many bytes each.
    #[must_use]
    pub fn new(bytes_max: usize) -> Self {
        Self {
            buffer: BytesMut::new(),
            bytes_max,
            at: 0,
            searched: 0,
            open: Vec::new(),
            elements: 0,
        }
    }

    /// Takes what was read.
    pub fn push(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }

    /// Bytes that wait for the rest of their reply.
    #[must_use]
    pub fn buffered(&self) -> usize {
        self.buffer.len()
    }

    /// The next whole reply, as `redis::parse_redis_value` wants it; `None` until more is read.
    pub fn next_reply(&mut self) -> Result<Option<Bytes>, RespError> {
        loop {
            if !self.step()? {
                return Ok(None);
            }
            while let Some(left) = self.open.last_mut() {
                *left -= 1;
                if *left > 0 {
                    break;
                }
                self.open.pop();
            }
            if self.open.is_empty() {
                let reply = self.buffer.split_to(self.at).freeze();
                (self.at, self.searched, self.elements) = (0, 0, 0);
                return Ok(Some(reply));
            }
        }
    }

    /// Goes past one scalar or past the empty aggregates and heads in front of one. `false`: more bytes
    /// are needed.
    fn step(&mut self) -> Result<bool, RespError> {
        if self.at == 0 && self.open.is_empty() && self.buffer.starts_with(MESSAGE) {
            self.open.push(2);
            self.elements = 1;
            self.pass(MESSAGE.len());
        }
        loop {
            let Some((kind, number, end)) = self.line()? else {
                return Ok(false);
            };
            if self.elements >= ELEMENTS_MAX {
                return Err(RespError::TooMany);
            }
            let children = match kind {
                b'+' | b'-' | b':' | b'_' | b',' | b'#' | b'(' => 0,
                b'$' | b'!' | b'=' => match self.string_end(kind, number, end)? {
                    Some(end) => {
                        self.pass(end);
                        return Ok(true);
                    }
                    None => return Ok(false),
                },
                b'*' | b'~' if number == Some(-1) => 0,
                b'*' | b'~' | b'>' => count(number)?,
                b'%' => count(number)? * 2,
                // Attributes stand in front of the value that they describe.
                b'|' => count(number)? * 2 + 1,
                _ => return Err(RespError::Type),
            };
            self.pass(end);
            if self.at > self.bytes_max {
                return Err(RespError::TooLarge);
            }
            if children == 0 {
                return Ok(true);
            }
            if self.open.len() >= DEPTH_MAX {
                return Err(RespError::TooDeep);
            }
            self.open.push(children);
        }
    }

    /// The line at `at`: its type, the number in it, and where it ends.
    fn line(&mut self) -> Result<Option<(u8, Option<i64>, usize)>, RespError> {
        let rest = &self.buffer[self.at..];
        let Some(kind) = rest.first() else {
            return Ok(None);
        };
        let from = (self.searched.max(self.at) - self.at).max(1) - 1;
        let Some(length) = line_end(&rest[from..]).map(|at| from + at) else {
            self.searched = self.buffer.len();
            return if rest.len() > LINE_BYTES_MAX {
                Err(RespError::Line)
            } else {
                Ok(None)
            };
        };
        let text = std::str::from_utf8(&rest[1.min(length)..length]).ok();
        let number = text.and_then(|text| text.parse().ok());
        Ok(Some((*kind, number, self.at + length + 2)))
    }

    /// Where the string ends whose head ends at `start`; `None` until it is all there.
    fn string_end(
        &self,
        kind: u8,
        number: Option<i64>,
        start: usize,
    ) -> Result<Option<usize>, RespError> {
        if kind == b'$' && number == Some(-1) {
            return Ok(Some(start));
        }
        let length = natural(number)?;
        let end = start.saturating_add(length).saturating_add(2);
        if end > self.bytes_max {
            return Err(RespError::TooLarge);
        }
        match self.buffer.get(start + length..end) {
            Some(b"\r\n") => Ok(Some(end)),
            Some(_) => Err(RespError::End),
            None => Ok(None),
        }
    }

    fn pass(&mut self, end: usize) {
        self.at = end;
        self.searched = end;
        self.elements += 1;
    }
}

/// Appends the command that publishes `message` on a channel, whose name comes in pieces.
///
/// It is what `redis::Cmd` would write. A command is made for every message, and that one would copy the
/// message twice.
pub fn write_publish(output: &mut Vec<u8>, channel: &[&str], message: &[u8]) {
    const COMMAND: &[u8] = b"*3\r\n$7\r\nPUBLISH\r\n";
    /// Of the two lengths, each with its line end.
    const LENGTHS: usize = 48;
    let length = channel.iter().map(|piece| piece.len()).sum::<usize>();
    output.reserve(COMMAND.len() + length + message.len() + LENGTHS);
    output.extend_from_slice(COMMAND);
    write_length(output, length);
    for piece in channel {
        output.extend_from_slice(piece.as_bytes());
    }
    output.extend_from_slice(b"\r\n");
    write_length(output, message.len());
    output.extend_from_slice(message);
    output.extend_from_slice(b"\r\n");
}

/// The head of a string.
fn write_length(output: &mut Vec<u8>, length: usize) {
    let mut digits = [0; 20];
    let (mut at, mut rest) = (digits.len(), length);
    loop {
        at -= 1;
        digits[at] = b'0' + u8::try_from(rest % 10).expect("a digit is below ten");
        rest /= 10;
        if rest == 0 {
            break;
        }
    }
    output.push(b'$');
    output.extend_from_slice(&digits[at..]);
    output.extend_from_slice(b"\r\n");
}

/// Where the first line ends.
fn line_end(bytes: &[u8]) -> Option<usize> {
    let mut ends = memchr::memchr_iter(b'\r', bytes);
    ends.find(|at| bytes.get(at + 1) == Some(&b'\n'))
}

/// A length as announced.
fn natural(number: Option<i64>) -> Result<usize, RespError> {
    let number = number.ok_or(RespError::Length)?;
    usize::try_from(number).map_err(|_| RespError::Length)
}

/// A number of elements as announced.
fn count(number: Option<i64>) -> Result<usize, RespError> {
    let count = natural(number)?;
    if count > ELEMENTS_MAX {
        return Err(RespError::TooMany);
    }
    Ok(count)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use redis::Value;

    use super::*;

    /// One of each kind of reply, as Redis 7 sends them.
    const SAMPLES: &[&[u8]] = &[
        b"+OK\r\n",
        b"-ERR no such thing\r\n",
        b":42\r\n",
        b"$5\r\na\r\nbc\r\n",
        b"$0\r\n\r\n",
        b"$-1\r\n",
        b"*-1\r\n",
        b"*0\r\n",
        b"*2\r\n$1\r\na\r\n*1\r\n:1\r\n",
        b"_\r\n",
        b"#t\r\n",
        b",1.5\r\n",
        b"(12345678901234567890\r\n",
        b"=8\r\ntxt:some\r\n",
        b"!9\r\nERR wrong\r\n",
        b"~1\r\n+a\r\n",
        b"%1\r\n$1\r\nk\r\n*0\r\n",
        b"|1\r\n+ttl\r\n:5\r\n$1\r\nv\r\n",
        b">3\r\n$9\r\nsubscribe\r\n$12\r\nsocket.io#/#\r\n:1\r\n",
        b">3\r\n$7\r\nmessage\r\n$1\r\nc\r\n$2\r\n\r\n\r\n",
        b"*1\r\n>3\r\n$7\r\nmessage\r\n$1\r\nc\r\n$0\r\n\r\n",
    ];

    fn all(bytes: &[u8], piece: usize) -> Result<Vec<Bytes>, RespError> {
        let (mut replies, mut found) = (Replies::default(), Vec::new());
        for piece in bytes.chunks(piece.max(1)) {
            replies.push(piece);
            while let Some(reply) = replies.next_reply()? {
                found.push(reply);
            }
        }
        Ok(found)
    }

    #[test]
    fn cuts_a_stream_where_the_replies_end_however_it_arrives() {
        let stream = SAMPLES.concat();
        for piece in [1, 2, 3, 7, stream.len()] {
            let found = all(&stream, piece).unwrap();
            assert_eq!(found, SAMPLES, "in pieces of {piece}");
        }
        for reply in SAMPLES {
            redis::parse_redis_value(reply).unwrap();
        }
    }

    #[test]
    fn gives_pushes_as_the_codec_reads_them() {
        let push = b">3\r\n$7\r\nmessage\r\n$4\r\nroom\r\n$3\r\n\x93\r\n\r\n";
        let [reply] = &*all(push, 4).unwrap() else {
            panic!("it is one reply")
        };
        let Value::Push { data, .. } = redis::parse_redis_value(reply).unwrap() else {
            panic!("it is a push")
        };
        let data = data.into_iter().map(|value| match value {
            Value::BulkString(bytes) => bytes,
            other => panic!("{other:?}"),
        });
        assert_eq!(data.collect::<Vec<_>>(), [&b"room"[..], b"\x93\r\n"]);
    }

    #[test]
    fn an_unfinished_reply_waits() {
        for sample in SAMPLES {
            for length in 0..sample.len() {
                assert_eq!(all(&sample[..length], 3), Ok(vec![]), "{sample:?}");
            }
        }
    }

    #[test]
    fn refuses_what_redis_never_sends() {
        let cases: &[(&[u8], RespError)] = &[
            (b"HTTP/1.1 200 OK\r\n", RespError::Type),
            (b"\r\n", RespError::Type),
            (b"$x\r\n", RespError::Length),
            (b"$-2\r\n", RespError::Length),
            (b"$?\r\n", RespError::Length),
            (b"*-2\r\n", RespError::Length),
            (b"%-1\r\n", RespError::Length),
            (b"=-1\r\n", RespError::Length),
            (b"|99999999999999999999\r\n", RespError::Length),
            (b"$1\r\nabc", RespError::End),
            (b"$99999999999\r\n", RespError::TooLarge),
            (b"$9223372036854775807\r\n", RespError::TooLarge),
            (b"*1025\r\n", RespError::TooMany),
            (b"%9223372036854775807\r\n", RespError::TooMany),
        ];
        for (bytes, error) in cases {
            assert_eq!(all(bytes, 2), Err(*error), "{bytes:?}");
        }
        assert_eq!(all(&b"*1\r\n".repeat(64), 64), Err(RespError::TooDeep));
        assert_eq!(all(&b"+".repeat(70_000), 1_000), Err(RespError::Line));
        let many = [b"*1024\r\n".to_vec(), b"*0\r\n".repeat(1_024)].concat();
        assert_eq!(all(&many, 1 << 20), Err(RespError::TooMany));
        let mut small = Replies::new(64);
        small.push(b"*9\r\n");
        small.push(&b"$8\r\n12345678\r\n".repeat(9));
        assert_eq!(small.next_reply(), Err(RespError::TooLarge));
    }

    proptest! {
        #[test]
        fn a_publish_is_written_as_the_codec_writes_it(
            pieces in proptest::collection::vec(".{0,9}", 1..4),
            message in proptest::collection::vec(any::<u8>(), 0..1_200),
        ) {
            let mut written = b"before".to_vec();
            let channel: Vec<&str> = pieces.iter().map(String::as_str).collect();
            write_publish(&mut written, &channel, &message);
            let packed = redis::cmd("PUBLISH").arg(pieces.concat()).arg(message).get_packed_command();
            prop_assert_eq!(&written[6..], &*packed);
        }

        #[test]
        fn any_bytes_are_taken_without_a_panic(
            bytes in proptest::collection::vec(
                prop_oneof![3 => proptest::sample::select(&b"+-:$*%~>|=!_#,(\r\n0123459"[..]), 1 => any::<u8>()],
                0..200,
            ),
            piece in 1_usize..20,
        ) {
            if let Ok(found) = all(&bytes, piece) {
                prop_assert!(found.concat().len() <= bytes.len());
                for reply in found {
                    // Whole by our measure is whole by the codec's: it never asks for more.
                    if let Err(error) = redis::parse_redis_value(&reply) {
                        prop_assert!(!error.is_io_error(), "{reply:?}: {error}");
                    }
                }
                prop_assert_eq!(all(&bytes, piece), all(&bytes, bytes.len()));
            }
        }
    }
}
