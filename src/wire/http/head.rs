//! Request heads: from the request line to the empty line.
//!
//! [`HeadReader`] looks for the end of the head in what has come so far and remembers where it
//! stopped, so that a head that comes byte by byte is looked at once. Only a complete head is parsed.

use bytes::{Bytes, BytesMut};

use super::{HttpError, Query};

/// Bytes of a request line, its CRLF included.
pub const REQUEST_LINE_BYTES_MAX: usize = 8 * 1024;
/// Bytes of a head's field lines.
pub const FIELDS_BYTES_MAX: usize = 16 * 1024;
/// Bytes of a whole head.
pub const HEAD_BYTES_MAX: usize = REQUEST_LINE_BYTES_MAX + FIELDS_BYTES_MAX;
/// Field lines of a head.
pub const FIELD_LINES_MAX: usize = 100;

/// A request method. RFC 9110 section 9, and PATCH (RFC 5789).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[expect(missing_docs, reason = "the variants are the methods' own names")]
pub enum Method {
    Get,
    Head,
    Post,
    Put,
    Delete,
    Patch,
    Options,
    Trace,
    Connect,
    /// A token that names no method known here.
    Unknown,
}

/// How a request's body is delimited. RFC 9112 section 6.3.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Framing {
    /// So many bytes; none when the head says nothing of a body.
    Length(u64),
    /// Chunked transfer coding.
    Chunked,
}

/// A complete request head. Its text is one shared piece of memory.
#[derive(Debug, Clone)]
pub struct RequestHead {
    method: Method,
    http_1_0: bool,
    keep_alive: bool,
    framing: Framing,
    path: (u16, u16),
    query: (u16, u16),
    raw: Bytes,
    fields: Box<[Span]>,
}

type Span = [u16; 4];

/// One field line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Field<'a> {
    /// As the client wrote it; compare it without regard to case.
    pub name: &'a str,
    /// Without the whitespace around it. Not always UTF-8.
    pub value: &'a [u8],
}

/// Finds the end of a head in a growing buffer.
#[derive(Debug, Default)]
pub struct HeadReader {}

impl HeadReader {
    /// Looks at what `buffer` has got since the last call. A complete head is parsed and taken from
    /// the buffer's front; `None` asks for more bytes.
    pub fn read(&mut self, buffer: &mut BytesMut) -> Result<Option<RequestHead>, HttpError> {
        todo!()
    }

    /// Whether the reader has seen any byte of a head.
    #[must_use]
    pub fn has_begun(&self) -> bool {
        todo!()
    }
}

impl RequestHead {
    /// The method.
    #[must_use]
    pub fn method(&self) -> Method {
        self.method
    }

    /// The target's path, not decoded; `*` for the asterisk-form.
    #[must_use]
    pub fn path(&self) -> &str {
        self.text(self.path)
    }

    /// The target's query, without the question mark; empty when there is none.
    #[must_use]
    pub fn query(&self) -> Query<'_> {
        Query::new(self.text(self.query))
    }

    /// Whether the request came as HTTP/1.0.
    #[must_use]
    pub fn is_http_1_0(&self) -> bool {
        self.http_1_0
    }

    /// Whether the client wants the connection to stay open after the answer.
    #[must_use]
    pub fn keep_alive(&self) -> bool {
        self.keep_alive
    }

    /// How the body is delimited.
    #[must_use]
    pub fn framing(&self) -> Framing {
        self.framing
    }

    /// All field lines, in their order.
    pub fn fields(&self) -> impl Iterator<Item = Field<'_>> {
        self.fields
            .iter()
            .map(|&[name, name_end, value, value_end]| Field {
                name: self.text((name, name_end)),
                value: &self.raw[usize::from(value)..usize::from(value_end)],
            })
    }

    /// The first field line of this name, if its value is text.
    #[must_use]
    pub fn field(&self, name: &str) -> Option<&str> {
        self.fields()
            .filter(|field| field.name.eq_ignore_ascii_case(name))
            .find_map(|field| std::str::from_utf8(field.value).ok())
    }

    /// The values of all field lines of this name that are text.
    pub fn values<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.fields()
            .filter(move |field| field.name.eq_ignore_ascii_case(name))
            .filter_map(|field| std::str::from_utf8(field.value).ok())
    }

    /// Whether `token` is an element of the comma-separated lists in the fields of this name
    /// (RFC 9110 section 5.6.1), without regard to case.
    #[must_use]
    pub fn lists(&self, name: &str, token: &str) -> bool {
        self.values(name)
            .flat_map(|value| value.split(','))
            .any(|item| item.trim_matches([' ', '\t']).eq_ignore_ascii_case(token))
    }

    fn text(&self, (start, end): (u16, u16)) -> &str {
        std::str::from_utf8(&self.raw[usize::from(start)..usize::from(end)])
            .expect("targets and names were checked to be ASCII")
    }
}
