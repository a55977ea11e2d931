//! Message bodies: Content-Length and chunked (RFC 9112 sections 6 and 7), as their bytes come in.

use bytes::{Buf, BytesMut};

use super::{Framing, HttpError, syntax};

/// Bytes of a chunk's size line, its extension and CRLF included.
const CHUNK_LINE_BYTES_MAX: usize = 256;
/// Bytes of a trailer section.
const TRAILERS_BYTES_MAX: usize = 8 * 1024;

/// What a [`BodyDecoder`] found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Body {
    /// The body is not complete: more bytes are needed.
    Partial,
    /// The body is complete; what the buffer still holds is the next request.
    Complete,
}

/// Takes a body out of what comes over a connection.
#[derive(Debug)]
pub struct BodyDecoder {
    state: State,
    /// How much of the input's current line was looked at.
    scanned: usize,
    max: usize,
}

#[derive(Debug, Clone, Copy)]
enum State {
    /// So many bytes of the only part are missing.
    Length(usize),
    ChunkSize,
    ChunkData(usize),
    ChunkEnd,
    /// So many bytes of trailers were seen.
    Trailers(usize),
    Done,
}

impl BodyDecoder {
    /// A decoder for one body of at most `max` bytes. A Content-Length above it is refused here,
    /// before any byte of the body has come.
    pub fn new(framing: Framing, max: usize) -> Result<Self, HttpError> {
        let state = match framing {
            Framing::Chunked => State::ChunkSize,
            Framing::Length(length) => match usize::try_from(length) {
                Ok(length) if length <= max => State::Length(length),
                _ => return Err(HttpError::BodyTooLarge),
            },
        };
        Ok(Self {
            state,
            scanned: 0,
            max,
        })
    }

    /// Moves what belongs to the body from `input` to the end of `body`.
    pub fn decode(&mut self, input: &mut BytesMut, body: &mut Vec<u8>) -> Result<Body, HttpError> {
        loop {
            self.state = match self.state {
                State::Done => return Ok(Body::Complete),
                State::Length(missing) => match take(input, body, missing) {
                    0 => State::Done,
                    missing => {
                        self.state = State::Length(missing);
                        return Ok(Body::Partial);
                    }
                },
                State::ChunkData(missing) => match take(input, body, missing) {
                    0 => State::ChunkEnd,
                    missing => {
                        self.state = State::ChunkData(missing);
                        return Ok(Body::Partial);
                    }
                },
                State::ChunkEnd => match **input {
                    [b'\r', b'\n', ..] => {
                        input.advance(2);
                        State::ChunkSize
                    }
                    [] | [b'\r'] => return Ok(Body::Partial),
                    _ => return Err(HttpError::Chunk),
                },
                State::ChunkSize => {
                    let Some(line) = self.line(input, CHUNK_LINE_BYTES_MAX, HttpError::Chunk)?
                    else {
                        return Ok(Body::Partial);
                    };
                    match chunk_size(&line)? {
                        0 => State::Trailers(0),
                        size => match usize::try_from(size) {
                            Ok(size) if size <= self.max - body.len() => State::ChunkData(size),
                            _ => return Err(HttpError::BodyTooLarge),
                        },
                    }
                }
                State::Trailers(seen) => {
                    let left = TRAILERS_BYTES_MAX - seen;
                    let Some(line) = self.line(input, left, HttpError::TrailersTooLarge)? else {
                        return Ok(Body::Partial);
                    };
                    if line.is_empty() {
                        State::Done
                    } else {
                        syntax::check_field_line(&line)?;
                        State::Trailers(seen + line.len() + 2)
                    }
                }
            };
        }
    }

    /// Takes one line of at most `max` bytes, its CRLF included and not returned.
    fn line(
        &mut self,
        input: &mut BytesMut,
        max: usize,
        too_long: HttpError,
    ) -> Result<Option<BytesMut>, HttpError> {
        let found = syntax::find_line_feed(&input[self.scanned..]);
        let end = found.map_or(input.len(), |length| self.scanned + length + 1);
        if end > max || (found.is_none() && end >= max) {
            return Err(too_long);
        }
        if found.is_none() {
            self.scanned = end;
            return Ok(None);
        }
        self.scanned = 0;
        let mut line = input.split_to(end);
        if !line.ends_with(b"\r\n") {
            return Err(HttpError::LineEnd);
        }
        line.truncate(end - 2);
        Ok(Some(line))
    }
}

/// Moves up to `missing` bytes; the result is how many are missing still.
fn take(input: &mut BytesMut, body: &mut Vec<u8>, missing: usize) -> usize {
    let count = missing.min(input.len());
    body.extend_from_slice(&input[..count]);
    input.advance(count);
    missing - count
}

/// `1*HEXDIG`, and perhaps an extension, which is ignored. Only spaces and tabs may stand before it: a CR
/// there ends the line for other readers.
fn chunk_size(line: &[u8]) -> Result<u64, HttpError> {
    let digits = line.iter().take_while(|byte| byte.is_ascii_hexdigit());
    let (digits, extension) = line.split_at(digits.count());
    let blanks = extension.iter().take_while(|byte| b" \t".contains(byte));
    let extension = &extension[blanks.count()..];
    let bad_extension = !matches!(extension, [] | [b';', ..])
        || extension
            .iter()
            .any(|b| b.is_ascii_control() && *b != b'\t');
    if digits.is_empty() || bad_extension {
        return Err(HttpError::Chunk);
    }
    let digits = std::str::from_utf8(digits).expect("hexadecimal digits are ASCII");
    let digits = digits.trim_start_matches('0');
    match digits.len() {
        0 => Ok(0),
        1..=16 => u64::from_str_radix(digits, 16).map_err(|_| HttpError::Chunk),
        _ => Err(HttpError::Chunk),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    type Fed = Result<Option<(Vec<u8>, Vec<u8>)>, HttpError>;

    /// The body, and what is left of the input, when it comes in pieces of `step` bytes.
    fn feed(framing: Framing, max: usize, input: &[u8], step: usize) -> Fed {
        let mut decoder = BodyDecoder::new(framing, max)?;
        let (mut buffer, mut body) = (BytesMut::new(), Vec::new());
        let mut complete = decoder.decode(&mut buffer, &mut body)? == Body::Complete;
        for piece in input.chunks(step) {
            buffer.extend_from_slice(piece);
            if !complete {
                complete = decoder.decode(&mut buffer, &mut body)? == Body::Complete;
            }
        }
        Ok(complete.then(|| (body, buffer.to_vec())))
    }

    fn check(input: &str, expected: Result<Option<(&str, &str)>, HttpError>) {
        let expected = expected.map(|found| {
            found.map(|(body, rest)| (body.as_bytes().to_vec(), rest.as_bytes().to_vec()))
        });
        for step in [1, 2, 7, input.len()] {
            let found = feed(Framing::Chunked, 100, input.as_bytes(), step);
            assert_eq!(found, expected, "{input:?} by {step}");
        }
    }

    #[test]
    fn chunks_are_joined_and_what_follows_is_left() {
        check(
            "4\r\nWiki\r\n7\r\npedia i\r\nB\r\nn \r\nchunks.\r\n0\r\n\r\nGET /",
            Ok(Some(("Wikipedia in \r\nchunks.", "GET /"))),
        );
        check("0\r\n\r\n", Ok(Some(("", ""))));
        check(
            "00000000000000000000000001\r\nx\r\n0\r\n\r\n",
            Ok(Some(("x", ""))),
        );
        check("1;a=b;c=\"d\"\r\nx\r\n0 ;e\r\n\r\n", Ok(Some(("x", ""))));
        check("0\r\nA: b\r\nC: d\r\n\r\nrest", Ok(Some(("", "rest"))));
        check("3\r\nab", Ok(None));
        check("0\r\n", Ok(None));
    }

    #[test]
    fn what_is_no_chunk_is_refused() {
        check("\r\n", Err(HttpError::Chunk));
        check("-1\r\n", Err(HttpError::Chunk));
        check("+1\r\nx\r\n", Err(HttpError::Chunk));
        check("0x1\r\nx\r\n", Err(HttpError::Chunk));
        check(" 1\r\nx\r\n", Err(HttpError::Chunk));
        check("1 x\r\nx\r\n", Err(HttpError::Chunk));
        check("10000000000000000\r\n", Err(HttpError::Chunk));
        check("1\nx\r\n", Err(HttpError::LineEnd));
        check("1;a\rb\r\nx\r\n", Err(HttpError::Chunk));
        check("1\r\r\nx\r\n", Err(HttpError::Chunk));
        check("1 \r;a\r\nx\r\n", Err(HttpError::Chunk));
        check("1\x0c\r\nx\r\n", Err(HttpError::Chunk));
        check("1\r\nxy\r\n", Err(HttpError::Chunk));
        check("1\r\nx\n0\r\n\r\n", Err(HttpError::Chunk));
        check("0\r\nno colon\r\n\r\n", Err(HttpError::FieldLine));
        check("0\r\n folded: x\r\n\r\n", Err(HttpError::FieldLine));
    }

    #[test]
    fn lines_of_chunks_and_trailers_are_bounded() {
        let extension = "e".repeat(CHUNK_LINE_BYTES_MAX - 4);
        check(
            &format!("1;{extension}\r\nx\r\n0\r\n\r\n"),
            Ok(Some(("x", ""))),
        );
        check(&format!("1;{extension}e\r\nx\r\n"), Err(HttpError::Chunk));
        check(&"1".repeat(CHUNK_LINE_BYTES_MAX), Err(HttpError::Chunk));
        let trailer = format!("A: {}\r\n", "x".repeat(1000));
        let many = trailer.repeat(9);
        check(
            &format!("0\r\n{many}\r\n"),
            Err(HttpError::TrailersTooLarge),
        );
        check(
            &format!("0\r\n{}\r\n", trailer.repeat(8)),
            Ok(Some(("", ""))),
        );
    }

    #[test]
    fn a_body_over_its_bound_is_refused_before_it_has_come() {
        assert_eq!(
            BodyDecoder::new(Framing::Length(101), 100).map(|_| ()),
            Err(HttpError::BodyTooLarge)
        );
        assert_eq!(
            BodyDecoder::new(Framing::Length(u64::MAX), 100).map(|_| ()),
            Err(HttpError::BodyTooLarge)
        );
        let exact = "x".repeat(100);
        check(
            &format!("64\r\n{exact}\r\n0\r\n\r\n"),
            Ok(Some((&exact, ""))),
        );
        check("65\r\n", Err(HttpError::BodyTooLarge));
        check(
            &format!("64\r\n{exact}\r\n1\r\n"),
            Err(HttpError::BodyTooLarge),
        );
        check("ffffffffffffffff\r\n", Err(HttpError::BodyTooLarge));
    }

    #[test]
    fn a_length_is_taken_to_the_byte() {
        let found = feed(Framing::Length(3), 3, b"abcdef", 2);
        assert_eq!(found, Ok(Some((b"abc".to_vec(), b"def".to_vec()))));
        assert_eq!(
            feed(Framing::Length(0), 0, b"x", 1),
            Ok(Some((vec![], vec![b'x'])))
        );
        assert_eq!(feed(Framing::Length(3), 3, b"ab", 1), Ok(None));
    }

    proptest! {
        #[test]
        fn any_split_gives_the_same_body(
            parts in prop::collection::vec(prop::collection::vec(any::<u8>(), 1..40), 0..6),
            rest in "[a-z]{0,5}",
            step in 1_usize..50,
        ) {
            let mut input = Vec::new();
            for part in &parts {
                input.extend_from_slice(format!("{:x}\r\n", part.len()).as_bytes());
                input.extend_from_slice(part);
                input.extend_from_slice(b"\r\n");
            }
            input.extend_from_slice(b"0\r\n\r\n");
            input.extend_from_slice(rest.as_bytes());
            let expected = (parts.concat(), rest.into_bytes());
            prop_assert_eq!(feed(Framing::Chunked, 1000, &input, step), Ok(Some(expected)));
        }

        #[test]
        fn any_split_of_any_bytes_gives_the_same_end(
            input in "[0-3a]{0,3}(\r\n|\n|;|x){0,3}[0-3]{0,2}(\r\n){0,3}",
            step in 1_usize..9,
        ) {
            let whole = feed(Framing::Chunked, 100, input.as_bytes(), input.len().max(1));
            prop_assert_eq!(feed(Framing::Chunked, 100, input.as_bytes(), step), whole);
        }
    }
}
