//! Request heads: from the request line to the empty line.
//!
//! [`HeadReader`] looks for the end of the head in what has come so far and remembers where it
//! stopped, so that a head that comes byte by byte is looked at once. Only a complete head is parsed.

use bytes::{Buf, Bytes, BytesMut};

use super::{HttpError, Query, syntax};

/// Bytes of a request line, its CRLF included.
const REQUEST_LINE_BYTES_MAX: usize = 8 * 1024;
/// Bytes of a head's field lines.
const FIELDS_BYTES_MAX: usize = 16 * 1024;
/// Bytes of a whole head.
pub const HEAD_BYTES_MAX: usize = REQUEST_LINE_BYTES_MAX + FIELDS_BYTES_MAX;
/// Field lines of a head.
const FIELD_LINES_MAX: usize = 100;

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
pub struct HeadReader {
    /// Whether the one empty line that may stand before a request was skipped.
    skipped: bool,
    /// Everything before this was looked at.
    scanned: usize,
    /// Where the current line begins.
    line: usize,
    /// Where the field lines begin; 0 within the request line.
    fields: usize,
    lines: usize,
}

impl HeadReader {
    /// Looks at what `buffer` has got since the last call. A complete head is parsed and taken from
    /// the buffer's front, and the reader is ready for the next one; `None` asks for more bytes.
    ///
    /// Nobody else may take bytes from the buffer meanwhile.
    pub fn read(&mut self, buffer: &mut BytesMut) -> Result<Option<RequestHead>, HttpError> {
        if !self.skipped && self.scanned == 0 {
            match **buffer {
                [b'\r'] => return Ok(None),
                [b'\r', b'\n', ..] => {
                    buffer.advance(2);
                    self.skipped = true;
                }
                _ => {}
            }
        }
        if buffer.first().is_some_and(|byte| !syntax::is_token(*byte)) {
            return Err(HttpError::RequestLine);
        }
        while let Some(length) = syntax::find_line_feed(&buffer[self.scanned..]) {
            let end = self.scanned + length;
            self.scanned = end + 1;
            self.check_bounds(end + 1)?;
            let line = buffer[self.line..end]
                .strip_suffix(b"\r")
                .ok_or(HttpError::LineEnd)?;
            self.line = self.scanned;
            if self.fields == 0 {
                check_request_line(line)?;
                self.fields = self.scanned;
            } else if line.is_empty() {
                let raw = buffer.split_to(self.scanned).freeze();
                *self = Self::default();
                return parse(raw).map(Some);
            } else {
                syntax::check_field_line(line)?;
                self.lines += 1;
            }
        }
        self.scanned = buffer.len();
        self.check_bounds(buffer.len())?;
        Ok(None)
    }

    /// Checks the bounds of a head that is at least `length` bytes long.
    fn check_bounds(&self, length: usize) -> Result<(), HttpError> {
        if self.fields == 0 && length > REQUEST_LINE_BYTES_MAX {
            return Err(HttpError::RequestLineTooLong);
        }
        let fields = length.saturating_sub(self.fields);
        if self.fields > 0 && (fields > FIELDS_BYTES_MAX || self.lines > FIELD_LINES_MAX) {
            return Err(HttpError::HeadTooLarge);
        }
        Ok(())
    }
}

/// Refuses a request line as soon as it is there, not only with the rest of its head: a client of
/// HTTP/0.9 or HTTP/2 sends no field lines.
fn check_request_line(line: &[u8]) -> Result<(), HttpError> {
    let mut words = line.split(|byte| *byte == b' ');
    let (Some(method), Some(target), Some(version), None) =
        (words.next(), words.next(), words.next(), words.next())
    else {
        return Err(HttpError::RequestLine);
    };
    if method.is_empty() || !method.iter().all(|byte| syntax::is_token(*byte)) {
        return Err(HttpError::RequestLine);
    }
    if target.is_empty() || !target.iter().all(u8::is_ascii_graphic) {
        return Err(HttpError::Target);
    }
    match version {
        b"HTTP/1.0" | b"HTTP/1.1" => Ok(()),
        [b'H', b'T', b'T', b'P', b'/', major, b'.', minor]
            if major.is_ascii_digit() && minor.is_ascii_digit() =>
        {
            Err(HttpError::Version)
        }
        _ => Err(HttpError::RequestLine),
    }
}

fn parse(raw: Bytes) -> Result<RequestHead, HttpError> {
    let mut storage = [httparse::EMPTY_HEADER; FIELD_LINES_MAX];
    let mut request = httparse::Request::new(&mut storage);
    match request.parse(&raw) {
        Ok(httparse::Status::Complete(length)) if length == raw.len() => {}
        Err(httparse::Error::TooManyHeaders) => return Err(HttpError::HeadTooLarge),
        Ok(_) | Err(_) => return Err(HttpError::FieldLine),
    }
    let at = |part: &[u8]| span(&raw, part);
    let method = method(request.method.unwrap_or_default());
    let (path, query) = split_target(method, request.path.unwrap_or_default())?;
    let (path, query) = (at(path.as_bytes()), at(query.as_bytes()));
    let http_1_0 = request.version == Some(0);
    let fields: Box<[Span]> = request
        .headers
        .iter()
        .map(|field| {
            let (name, value) = (at(field.name.as_bytes()), at(field.value));
            [name.0, name.1, value.0, value.1]
        })
        .collect();
    let mut head = RequestHead {
        method,
        http_1_0,
        keep_alive: false,
        framing: Framing::Length(0),
        path,
        query,
        fields,
        raw,
    };
    head.check_host()?;
    head.framing = head.find_framing()?;
    head.keep_alive =
        !head.lists("Connection", "close") && (!http_1_0 || head.lists("Connection", "keep-alive"));
    Ok(head)
}

/// Where `part` stands in `whole`, of which it is a slice. An empty part may stand anywhere.
fn span(whole: &[u8], part: &[u8]) -> (u16, u16) {
    if part.is_empty() {
        return (0, 0);
    }
    let start = part.as_ptr() as usize - whole.as_ptr() as usize;
    let narrow = |place: usize| u16::try_from(place).expect("a head is shorter than 64 KiB");
    (narrow(start), narrow(start + part.len()))
}

fn method(name: &str) -> Method {
    match name {
        "GET" => Method::Get,
        "HEAD" => Method::Head,
        "POST" => Method::Post,
        "PUT" => Method::Put,
        "DELETE" => Method::Delete,
        "PATCH" => Method::Patch,
        "OPTIONS" => Method::Options,
        "TRACE" => Method::Trace,
        "CONNECT" => Method::Connect,
        _ => Method::Unknown,
    }
}

/// Path and query of a target in the forms of RFC 9112 section 3.2.
fn split_target(method: Method, target: &str) -> Result<(&str, &str), HttpError> {
    if method == Method::Connect {
        return Ok((target, ""));
    }
    if target == "*" && method == Method::Options {
        return Ok((target, ""));
    }
    let scheme = target.find("://").map(|end| &target[..end]);
    let origin_form = match scheme {
        Some(scheme) if !target.starts_with('/') => {
            if !scheme.eq_ignore_ascii_case("http") && !scheme.eq_ignore_ascii_case("https") {
                return Err(HttpError::Target);
            }
            let rest = &target[scheme.len() + 3..];
            let end = rest.find(['/', '?']).unwrap_or(rest.len());
            if !syntax::is_host(&rest.as_bytes()[..end]) {
                return Err(HttpError::Target);
            }
            &rest[end..]
        }
        _ if target.starts_with('/') => target,
        _ => return Err(HttpError::Target),
    };
    if origin_form.contains('#') {
        return Err(HttpError::Target);
    }
    Ok(origin_form.split_once('?').unwrap_or((origin_form, "")))
}

impl RequestHead {
    /// The head as it came, from its request line to its empty line.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.raw
    }

    /// The method.
    #[must_use]
    pub fn method(&self) -> Method {
        self.method
    }

    /// Every value of a name, also those that are no text: who decides by a field must not overlook any.
    pub fn raw_values<'a>(&'a self, name: &str) -> impl Iterator<Item = &'a [u8]> {
        // A head is searched a dozen times, so names are compared as the bytes that they are.
        let is_of_name = move |&&[start, end, ..]: &&Span| {
            let bytes = self.bytes((start, end));
            bytes.eq_ignore_ascii_case(name.as_bytes())
        };
        let lines = self.fields.iter().filter(is_of_name);
        lines.map(|&[_, _, start, end]| self.bytes((start, end)))
    }

    /// RFC 9112 section 3.2: exactly one valid Host; in HTTP/1.0 it may be absent.
    fn check_host(&self) -> Result<(), HttpError> {
        let mut hosts = self.raw_values("Host");
        match (hosts.next(), hosts.next()) {
            (None, _) if self.http_1_0 => Ok(()),
            (Some(host), None) if syntax::is_host(host) => Ok(()),
            _ => Err(HttpError::Host),
        }
    }

    /// RFC 9112 section 6.3, but that what is merely unusual is refused too.
    fn find_framing(&self) -> Result<Framing, HttpError> {
        let mut codings = self.raw_values("Transfer-Encoding");
        let mut lengths = self.raw_values("Content-Length");
        match (codings.next(), lengths.next()) {
            (None, None) => Ok(Framing::Length(0)),
            (Some(_), Some(_)) => Err(HttpError::AmbiguousLength),
            (Some(_), None) if self.http_1_0 => Err(HttpError::TransferEncodingInHttp10),
            (Some(coding), None) => {
                if codings.next().is_none() && coding.eq_ignore_ascii_case(b"chunked") {
                    Ok(Framing::Chunked)
                } else {
                    Err(HttpError::TransferEncoding)
                }
            }
            (None, Some(length)) => {
                let digits = !length.is_empty() && length.iter().all(u8::is_ascii_digit);
                let text = std::str::from_utf8(length).ok().filter(|_| digits);
                match text.map(str::parse) {
                    Some(Ok(length)) if lengths.next().is_none() => Ok(Framing::Length(length)),
                    _ => Err(HttpError::ContentLength),
                }
            }
        }
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
                value: self.bytes((value, value_end)),
            })
    }

    /// The first field line of this name, if its value is text.
    #[must_use]
    pub fn field(&self, name: &str) -> Option<&str> {
        self.raw_values(name)
            .find_map(|value| std::str::from_utf8(value).ok())
    }

    /// The values of all field lines of this name that are text.
    pub fn values<'a>(&'a self, name: &str) -> impl Iterator<Item = &'a str> {
        self.raw_values(name)
            .filter_map(|value| std::str::from_utf8(value).ok())
    }

    /// Whether `token` is an element of the comma-separated lists in the fields of this name
    /// (RFC 9110 section 5.6.1), without regard to case.
    #[must_use]
    pub fn lists(&self, name: &str, token: &str) -> bool {
        self.values(name)
            .flat_map(|value| value.split(','))
            .any(|item| item.trim_matches([' ', '\t']).eq_ignore_ascii_case(token))
    }

    fn bytes(&self, (start, end): (u16, u16)) -> &[u8] {
        &self.raw[usize::from(start)..usize::from(end)]
    }

    fn text(&self, span: (u16, u16)) -> &str {
        std::str::from_utf8(self.bytes(span)).expect("targets and names were checked to be ASCII")
    }
}

#[cfg(test)]
#[path = "head_tests.rs"]
mod tests;
