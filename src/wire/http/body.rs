//! Message bodies: Content-Length and chunked (RFC 9112 sections 6 and 7), as their bytes come in.

use bytes::BytesMut;

use super::{Framing, HttpError};

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
pub struct BodyDecoder {}

impl BodyDecoder {
    /// A decoder for one body of at most `max` bytes. A Content-Length above it is refused here,
    /// before any byte of the body has come.
    pub fn new(framing: Framing, max: usize) -> Result<Self, HttpError> {
        todo!()
    }

    /// Moves what belongs to the body from `input` to the end of `body`.
    pub fn decode(&mut self, input: &mut BytesMut, body: &mut Vec<u8>) -> Result<Body, HttpError> {
        todo!()
    }
}
