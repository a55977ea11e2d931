//! The ids of sockets.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use crate::env::Env;

/// The id of a socket: 20 characters of base64url, made of the host, the shard and 96 random bits.
/// Others may know it, so it is never the session's.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SocketId([u8; 20]);

impl SocketId {
    /// An id with the given random part.
    pub(super) fn new(host: u16, shard: u8, random: [u8; 12]) -> Self {
        let mut bytes = [0; 15];
        bytes[..2].copy_from_slice(&host.to_be_bytes());
        bytes[2] = shard;
        bytes[3..].copy_from_slice(&random);
        let mut text = [0; 20];
        let length = URL_SAFE_NO_PAD
            .encode_slice(bytes, &mut text)
            .expect("15 bytes are 20 characters");
        debug_assert_eq!(length, text.len());
        Self(text)
    }

    /// A fresh id.
    pub(super) fn draw(env: &Env, host: u16, shard: u8) -> Self {
        let mut random = [0; 12];
        env.fill(&mut random);
        Self::new(host, shard, random)
    }

    /// The id as text.
    ///
    /// # Panics
    /// Never: ids are made of ASCII.
    #[must_use]
    pub fn as_str(&self) -> &str {
        std::str::from_utf8(&self.0).expect("ids are made of ASCII")
    }

    /// The id that `text` spells, if it has the form of one.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let id = Self(text.as_bytes().try_into().ok()?);
        let is_base64url = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
        id.0.iter().all(is_base64url).then_some(id)
    }

    /// The host and the shard that made it.
    #[must_use]
    pub fn place(&self) -> (u16, u8) {
        let mut place = [0; 3];
        // Four characters are exactly three bytes; an id that was parsed is base64url.
        let _ = URL_SAFE_NO_PAD.decode_slice(&self.0[..4], &mut place);
        (u16::from_be_bytes([place[0], place[1]]), place[2])
    }
}

impl fmt::Display for SocketId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Debug for SocketId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_its_place_and_reads_itself() {
        let id = SocketId::draw(&Env::seeded(3), 513, 7);
        assert_eq!(id.as_str().len(), 20);
        assert_eq!(SocketId::parse(id.as_str()), Some(id));
        assert_eq!(id.place(), (513, 7));
    }

    #[test]
    fn other_names_are_no_ids() {
        for text in [
            "",
            "lobby",
            "general discussion 1",
            "ääääääääää",
            "0123456789012345678+",
        ] {
            assert_eq!(SocketId::parse(text), None, "{text}");
        }
    }
}
