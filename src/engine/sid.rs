//! Session ids.

/// A session id: 20 characters of base64url, of which 16 are random. It is a bearer secret.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Sid([u8; 20]);
