//! Session ids: which host and shard a session lives on, and 96 bits that nobody can guess.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use crate::env::Env;

/// Bytes of a session id before they are written as base64url.
const BYTES: usize = 15;

/// A session id: 20 characters of base64url, of which 16 are random. It is a bearer secret, so
/// [`fmt::Debug`] shows only where the session lives.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Sid([u8; 20]);

impl Sid {
    /// A fresh id for a session of this host and shard.
    ///
    /// # Panics
    /// Never: 15 bytes are exactly 20 characters.
    #[must_use]
    pub fn new(env: &Env, host: u16, shard: u8) -> Self {
        let mut bytes = [0; BYTES];
        bytes[..2].copy_from_slice(&host.to_be_bytes());
        bytes[2] = shard;
        env.fill(&mut bytes[3..]);
        let mut text = [0; 20];
        let length = URL_SAFE_NO_PAD
            .encode_slice(bytes, &mut text)
            .expect("15 bytes are 20 characters");
        debug_assert_eq!(length, text.len());
        Self(text)
    }

    /// Reads an id that a client sent. `None`: it cannot be one of ours.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let sid = Self(text.as_bytes().try_into().ok()?);
        let mut bytes = [0; BYTES];
        let length = URL_SAFE_NO_PAD.decode_slice(sid.0, &mut bytes).ok()?;
        (length == BYTES).then_some(sid)
    }

    /// The id as the client knows it.
    ///
    /// # Panics
    /// Never: base64url is ASCII.
    #[must_use]
    pub fn as_str(&self) -> &str {
        std::str::from_utf8(&self.0).expect("base64url is ASCII")
    }

    /// The tag of the host that the session lives on.
    #[must_use]
    pub fn host(&self) -> u16 {
        let place = self.place();
        u16::from_be_bytes([place[0], place[1]])
    }

    /// The number of the shard that the session lives on.
    #[must_use]
    pub fn shard(&self) -> u8 {
        self.place()[2]
    }

    /// The first three bytes: four characters hold exactly them.
    fn place(&self) -> [u8; 3] {
        let mut place = [0; 3];
        URL_SAFE_NO_PAD
            .decode_slice(&self.0[..4], &mut place)
            .expect("an id is made or parsed from base64url");
        place
    }
}

impl fmt::Debug for Sid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Sid(host {:04x}, shard {})", self.host(), self.shard())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_its_host_and_shard_and_is_read_back() {
        let sid = Sid::new(&Env::seeded(3), 0xBEEF, 7);
        assert_eq!((sid.host(), sid.shard()), (0xBEEF, 7));
        assert_eq!(sid.as_str().len(), 20);
        assert_eq!(Sid::parse(sid.as_str()), Some(sid));
    }

    #[test]
    fn ninety_six_of_its_bits_are_drawn_anew() {
        let env = Env::seeded(3);
        let (mut ones, mut zeros) = ([0; BYTES], [0; BYTES]);
        for _ in 0..100 {
            let mut bytes = [0; BYTES];
            let sid = Sid::new(&env, 0x1234, 5);
            let decoded = URL_SAFE_NO_PAD.decode_slice(sid.0, &mut bytes);
            assert_eq!(decoded, Ok(BYTES));
            for (place, byte) in bytes.into_iter().enumerate() {
                ones[place] |= byte;
                zeros[place] |= !byte;
            }
        }
        let drawn = ones.iter().zip(zeros).map(|(one, zero)| one & zero);
        let drawn: Vec<u8> = drawn.collect();
        assert_eq!(drawn[..3], [0; 3], "the host and the shard");
        assert_eq!(drawn[3..], [0xff; 12]);
    }

    #[test]
    fn refuses_what_was_never_an_id() {
        for text in [
            "",
            "short",
            "aaaaaaaaaaaaaaaaaaaaa",
            "aaaaaaaaaaaaaaaaaaa+",
            "aaaaaaaaaaaaaaaaaaa ",
            "ääääääääää",
        ] {
            assert_eq!(Sid::parse(text), None, "{text}");
        }
    }

    #[test]
    fn does_not_show_its_secret() {
        let sid = Sid::new(&Env::seeded(3), 1, 2);
        let shown = format!("{sid:?}");
        assert!(!shown.contains(&sid.as_str()[4..]), "{shown}");
    }
}
