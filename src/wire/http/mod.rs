//! HTTP/1.1 messages (RFC 9110, RFC 9112): request heads, message bodies, queries, responses.
//!
//! A request's framing is decided once, from its whole head, before any byte of its body is used
//! ([`Framing`]); what is ambiguous is refused, because two readers who disagree about where a
//! request ends let one request hide in another. Every refusal is an [`HttpError`], which knows its
//! status, and ends the connection.

mod body;
mod head;
mod query;
mod response;
mod syntax;

pub use body::{Body, BodyDecoder};
pub use head::{Field, Framing, HEAD_BYTES_MAX, HeadReader, Method, RequestHead};
pub use query::{Query, Unique, percent_decode};
pub use response::{Context, Response, http_date, reason_phrase};

/// Why a request cannot be served. The answer is its status, and the connection ends with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum HttpError {
    /// A request line over its bound.
    #[error("request line too long")]
    RequestLineTooLong,
    /// Too many bytes or lines before the body.
    #[error("request head too large")]
    HeadTooLarge,
    /// A request line that RFC 9112 section 3 does not know.
    #[error("malformed request line")]
    RequestLine,
    /// A target that is no origin-form, absolute-form or asterisk-form.
    #[error("malformed request target")]
    Target,
    /// A field line that RFC 9112 section 5 does not know.
    #[error("malformed field line")]
    FieldLine,
    /// An Origin with a control character: no origin of any browser.
    #[error("malformed Origin")]
    Origin,
    /// A bare CR or LF where a line must end with both.
    #[error("lines must end with CRLF")]
    LineEnd,
    /// HTTP, but not HTTP/1.0 or HTTP/1.1.
    #[error("unsupported HTTP version")]
    Version,
    /// Not exactly one valid Host (RFC 9112 section 3.2).
    #[error("exactly one valid Host is required")]
    Host,
    /// No single non-negative number (RFC 9112 section 6.3).
    #[error("invalid Content-Length")]
    ContentLength,
    /// Both Content-Length and Transfer-Encoding (RFC 9112 section 6.3).
    #[error("both Content-Length and Transfer-Encoding")]
    AmbiguousLength,
    /// A transfer coding in an HTTP/1.0 request.
    #[error("Transfer-Encoding in an HTTP/1.0 request")]
    TransferEncodingInHttp10,
    /// A transfer coding other than `chunked` alone.
    #[error("unsupported transfer coding")]
    TransferEncoding,
    /// A chunk that RFC 9112 section 7.1 does not know, or a size line over its bound.
    #[error("malformed chunk")]
    Chunk,
    /// More bytes of trailers than the bound.
    #[error("trailer section too large")]
    TrailersTooLarge,
    /// More bytes of body than the reader of it takes.
    #[error("request body too large")]
    BodyTooLarge,
    /// A step of the request took longer than its deadline.
    #[error("request took too long")]
    TimedOut,
}

impl HttpError {
    /// The bound that was met, if it was one: a word for a metric.
    #[must_use]
    pub fn bound(self) -> Option<&'static str> {
        match self {
            Self::RequestLineTooLong => Some("request_line"),
            Self::HeadTooLarge => Some("head"),
            Self::TrailersTooLarge => Some("trailers"),
            Self::BodyTooLarge => Some("body"),
            _ => None,
        }
    }

    /// The status of the answer that this error earns.
    #[must_use]
    pub fn status(self) -> u16 {
        match self {
            Self::RequestLineTooLong => 414,
            Self::HeadTooLarge | Self::TrailersTooLarge => 431,
            Self::Version => 505,
            Self::BodyTooLarge => 413,
            Self::TimedOut => 408,
            Self::RequestLine
            | Self::Target
            | Self::FieldLine
            | Self::Origin
            | Self::LineEnd
            | Self::Host
            | Self::ContentLength
            | Self::AmbiguousLength
            // 501 would fit as well, but it is the client's mistake, not ours.
            | Self::TransferEncoding
            | Self::TransferEncodingInHttp10
            | Self::Chunk => 400,
        }
    }
}
