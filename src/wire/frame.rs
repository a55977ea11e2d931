//! The heads of the WebSocket frames that a client sends (RFC 6455 section 5.2), and close frames.
//!
//! tungstenite reads the frames. It bounds a message by its bytes but not by its fragments, and it
//! judges a head, or the sum of the fragments, only when more has come; so [`Heads`] looks at the same
//! bytes first. It also knows when the stream stands between two messages, which is when a reader may be replaced.

use bytes::{BufMut, Bytes, BytesMut};

/// Frames of one message, empty ones counted too.
pub const FRAGMENTS_MAX: u32 = 128;

/// Bytes of the longest head: two, an 8-byte length, a 4-byte mask.
const HEAD_BYTES_MAX: usize = 14;

/// Bytes of the longest payload of a control frame.
const CONTROL_BYTES_MAX: u64 = 125;

/// Why the client's frames are refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Violation {
    /// A reserved bit is set, though no extension was agreed on.
    #[error("reserved bit set")]
    ReservedBit,
    /// An opcode without meaning.
    #[error("reserved opcode")]
    ReservedOpcode,
    /// A client's frame without a mask.
    #[error("unmasked frame")]
    Unmasked,
    /// A control frame that is fragmented or longer than 125 bytes.
    #[error("control frame fragmented or too long")]
    Control,
    /// A continuation of nothing, or a new message inside another.
    #[error("fragments out of order")]
    Order,
    /// More than [`FRAGMENTS_MAX`] frames in one message.
    #[error("too many fragments")]
    TooManyFragments,
    /// The lengths that were announced make the message too long.
    #[error("message too long")]
    TooLong,
}

impl Violation {
    /// What the client is told (RFC 6455 section 7.4.1).
    #[must_use]
    pub fn close_code(self) -> u16 {
        match self {
            Self::TooLong => 1009,
            _ => 1002,
        }
    }
}

/// Follows the frames of a stream, however it is cut.
#[derive(Debug)]
pub struct Heads {
    /// Bytes that one message may have.
    message_bytes_max: u64,
    /// Bytes announced of the message that is not complete yet.
    message_bytes: u64,
    head: [u8; HEAD_BYTES_MAX],
    head_length: u8,
    /// Bytes of the current frame's payload that are still to come.
    payload_left: u64,
    /// Frames of the message that is not complete yet.
    fragments: u32,
}

impl Heads {
    /// At the start of a stream whose messages may have so many bytes.
    #[must_use]
    pub fn new(message_bytes_max: usize) -> Self {
        Self {
            message_bytes_max: message_bytes_max as u64,
            message_bytes: 0,
            head: [0; HEAD_BYTES_MAX],
            head_length: 0,
            payload_left: 0,
            fragments: 0,
        }
    }

    /// Whether the stream stands between two messages: nothing is half received.
    #[must_use]
    pub fn is_between_messages(&self) -> bool {
        self.head_length == 0 && self.payload_left == 0 && self.fragments == 0
    }

    /// Takes the next bytes of the stream. `Err` says how many of them come before the frame that
    /// is refused; nothing may be fed after that.
    ///
    /// # Panics
    /// Never: no more is taken than is there.
    pub fn feed(&mut self, bytes: &[u8]) -> Result<(), (usize, Violation)> {
        let mut used = 0;
        while used < bytes.len() {
            if self.payload_left > 0 {
                let left = (bytes.len() - used) as u64;
                let taken = self.payload_left.min(left);
                self.payload_left -= taken;
                used += usize::try_from(taken).expect("no more than the bytes that are there");
                continue;
            }
            let start = used.saturating_sub(usize::from(self.head_length));
            while used < bytes.len() && !self.is_head_complete() {
                self.head[usize::from(self.head_length)] = bytes[used];
                self.head_length += 1;
                used += 1;
                if self.head_length == 2 {
                    self.check().map_err(|violation| (start, violation))?;
                }
                if usize::from(self.head_length) == 2 + self.length_bytes() {
                    self.check_length()
                        .map_err(|violation| (start, violation))?;
                }
            }
            if self.is_head_complete() {
                self.payload_left = self.payload_length();
                self.head_length = 0;
            }
        }
        Ok(())
    }

    fn is_head_complete(&self) -> bool {
        self.head_length >= 2 && usize::from(self.head_length) == 6 + self.length_bytes()
    }

    /// How many bytes of the head hold a length that did not fit the second byte.
    fn length_bytes(&self) -> usize {
        match self.head[1] & 0x7f {
            126 => 2,
            127 => 8,
            _ => 0,
        }
    }

    fn payload_length(&self) -> u64 {
        match self.length_bytes() {
            0 => u64::from(self.head[1] & 0x7f),
            count => self.head[2..2 + count]
                .iter()
                .fold(0, |length, &byte| length << 8 | u64::from(byte)),
        }
    }

    /// Judges the length, as soon as it is known.
    fn check_length(&mut self) -> Result<(), Violation> {
        let (is_final, opcode) = (self.head[0] & 0x80 != 0, self.head[0] & 0x0f);
        if opcode >= 8 {
            return Ok(());
        }
        self.message_bytes = self.message_bytes.saturating_add(self.payload_length());
        if self.message_bytes > self.message_bytes_max {
            return Err(Violation::TooLong);
        }
        if is_final {
            self.message_bytes = 0;
        }
        Ok(())
    }

    /// Judges the first two bytes of a head.
    fn check(&mut self) -> Result<(), Violation> {
        let (first, second) = (self.head[0], self.head[1]);
        let (is_final, opcode) = (first & 0x80 != 0, first & 0x0f);
        let short = u64::from(second & 0x7f);
        if first & 0x70 != 0 {
            return Err(Violation::ReservedBit);
        }
        if second & 0x80 == 0 {
            return Err(Violation::Unmasked);
        }
        match opcode {
            0 if self.fragments == 0 => return Err(Violation::Order),
            1 | 2 if self.fragments > 0 => return Err(Violation::Order),
            0..=2 => {}
            8..=10 if !is_final || short > CONTROL_BYTES_MAX => return Err(Violation::Control),
            8..=10 => return Ok(()),
            _ => return Err(Violation::ReservedOpcode),
        }
        self.fragments += 1;
        if self.fragments > FRAGMENTS_MAX {
            return Err(Violation::TooManyFragments);
        }
        if is_final {
            self.fragments = 0;
        }
        Ok(())
    }
}

/// What stands at the begin of a client's bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Plain<'a> {
    /// A whole message of text in one frame, not known to be UTF-8, and the length of the frame.
    Text(&'a [u8], usize),
    /// A whole message of bytes in one frame, and the length of the frame.
    Binary(&'a [u8], usize),
    /// Something else: a part, a fragment, a control frame, a violation. Nothing was changed.
    Other,
}

/// Looks for a message that came whole, in one frame that breaks no rule: almost all do. It is unmasked
/// where it stands. All else is for a reader that knows every rule.
#[must_use]
pub fn plain(bytes: &mut [u8], message_bytes_max: usize) -> Plain<'_> {
    let (Some(&first), Some(&second)) = (bytes.first(), bytes.get(1)) else {
        return Plain::Other;
    };
    if !matches!(first, 0x81 | 0x82) || second & 0x80 == 0 {
        return Plain::Other;
    }
    let (start, length) = match second & 0x7f {
        126 => match bytes.get(2..4) {
            Some(&[high, low]) => (8, usize::from(u16::from_be_bytes([high, low]))),
            _ => return Plain::Other,
        },
        127 => return Plain::Other,
        short => (6, usize::from(short)),
    };
    if length > message_bytes_max || bytes.len() < start + length {
        return Plain::Other;
    }
    let (head, rest) = bytes.split_at_mut(start);
    let payload = &mut rest[..length];
    let mask = [
        head[start - 4],
        head[start - 3],
        head[start - 2],
        head[start - 1],
    ];
    unmask(payload, mask);
    match first {
        0x81 => Plain::Text(payload, start + length),
        _ => Plain::Binary(payload, start + length),
    }
}

/// RFC 6455 section 5.3, eight bytes at a time.
fn unmask(payload: &mut [u8], [a, b, c, d]: [u8; 4]) {
    let mask = [a, b, c, d, a, b, c, d];
    let word = u64::from_ne_bytes(mask);
    let mut chunks = payload.chunks_exact_mut(8);
    for chunk in &mut chunks {
        let bytes: &mut [u8; 8] = chunk.try_into().expect("chunks are of eight bytes");
        *bytes = (u64::from_ne_bytes(*bytes) ^ word).to_ne_bytes();
    }
    let rest = chunks.into_remainder().iter_mut();
    rest.zip(mask).for_each(|(byte, mask)| *byte ^= mask);
}

/// A close frame as a server sends it, with a code or without one.
#[must_use]
pub fn close(code: Option<u16>) -> Bytes {
    let mut frame = BytesMut::with_capacity(4);
    frame.put_u8(0x88);
    match code {
        None => frame.put_u8(0),
        Some(code) => {
            frame.put_u8(2);
            frame.put_u16(code);
        }
    }
    frame.freeze()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A masked frame of a client.
    fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
        let mut frame = vec![first];
        match payload.len() {
            short @ 0..=125 => frame.push(0x80 | u8::try_from(short).expect("short")),
            medium @ 126..=0xffff => {
                frame.push(0x80 | 0x7e);
                frame.extend(u16::try_from(medium).expect("medium").to_be_bytes());
            }
            long => {
                frame.push(0x80 | 0x7f);
                frame.extend((long as u64).to_be_bytes());
            }
        }
        frame.extend([1, 2, 3, 4]);
        frame.extend(payload);
        frame
    }

    fn check(frames: &[Vec<u8>], expected: Result<bool, (usize, Violation)>) {
        let mut heads = Heads::new(100_000);
        let result = heads.feed(&frames.concat());
        assert_eq!(result.map(|()| heads.is_between_messages()), expected);
    }

    #[test]
    fn follows_messages_and_control_frames_between_fragments() {
        check(&[frame(0x81, b"hi"), frame(0x82, &[0; 200])], Ok(true));
        check(&[frame(0x82, &vec![0; 70_000]), frame(0x81, b"")], Ok(true));
        check(&[frame(0x01, b"a"), frame(0x00, b"b")], Ok(false));
        check(
            &[frame(0x01, b"a"), frame(0x89, b"ping"), frame(0x80, b"b")],
            Ok(true),
        );
        check(&[frame(0x81, b"hi")[..7].to_vec()], Ok(false));
        check(&[frame(0x81, b"hi")[..1].to_vec()], Ok(false));
    }

    #[test]
    fn refuses_what_the_specification_forbids() {
        for (first, violation) in [
            (0xC1, Violation::ReservedBit),
            (0xA1, Violation::ReservedBit),
            (0x91, Violation::ReservedBit),
            (0x83, Violation::ReservedOpcode),
            (0x8B, Violation::ReservedOpcode),
            (0x80, Violation::Order),
            (0x00, Violation::Order),
            (0x09, Violation::Control),
        ] {
            check(&[frame(first, b"x")], Err((0, violation)));
        }
        check(&[frame(0x89, &[0; 126])], Err((0, Violation::Control)));
        check(
            &[vec![0x81, 0x02, b'h', b'i']],
            Err((0, Violation::Unmasked)),
        );
        check(
            &[frame(0x01, b"a"), frame(0x81, b"b")],
            Err((7, Violation::Order)),
        );
    }

    #[test]
    fn says_what_came_before_the_refused_frame() {
        let good = frame(0x81, b"hi");
        let length = good.len();
        check(
            &[good, frame(0xB1, b"x")],
            Err((length, Violation::ReservedBit)),
        );
    }

    #[test]
    fn counts_fragments_empty_ones_too() {
        let message = |count: usize| {
            let mut frames = vec![frame(0x01, b"")];
            frames.extend(vec![frame(0x00, b""); count - 2]);
            frames.push(frame(0x80, b""));
            frames
        };
        check(&[message(128), message(128)].concat(), Ok(true));
        let before = 6 * 128;
        check(&message(129), Err((before, Violation::TooManyFragments)));
    }

    #[test]
    fn judges_a_length_when_it_is_announced() {
        let long = |first: u8, length: u64| {
            let mut head = vec![first, 0xff];
            head.extend(length.to_be_bytes());
            head
        };
        check(&[long(0x82, 100_000)], Ok(false));
        check(&[long(0x82, 100_001)], Err((0, Violation::TooLong)));
        check(&[long(0x82, u64::MAX)], Err((0, Violation::TooLong)));
        let start = frame(0x02, &vec![0; 60_000]);
        let length = start.len();
        check(
            &[start.clone(), frame(0x89, b"ping"), long(0x80, 40_000)],
            Ok(false),
        );
        check(
            &[start, long(0x00, 40_001)],
            Err((length, Violation::TooLong)),
        );
        // Each message has its own bytes.
        check(&vec![frame(0x82, &vec![0; 60_000]); 3], Ok(true));
    }

    #[test]
    fn writes_close_frames() {
        assert_eq!(&close(None)[..], [0x88, 0]);
        assert_eq!(&close(Some(1002))[..], [0x88, 2, 0x03, 0xea]);
    }

    #[test]
    fn a_plain_message_is_unmasked_where_it_stands() {
        for length in [0, 1, 7, 8, 9, 125, 126, 4_000, 65_535] {
            let text = vec![b'x'; length];
            let mut masked = frame(0x81, &text);
            let start = masked.len() - length;
            let mask = [1, 2, 3, 4];
            (0..length).for_each(|n| masked[start + n] ^= mask[n % 4]);
            let whole = masked.len();
            masked.extend(b"next");
            let mut cut = masked[..whole - 1].to_vec();
            assert_eq!(plain(&mut cut, 100_000), Plain::Other, "{length}");
            assert_eq!(plain(&mut masked, 100_000), Plain::Text(&text, whole));
        }
        let mut binary = frame(0x82, &[1 ^ 7]);
        assert_eq!(plain(&mut binary, 1), Plain::Binary(&[7 ^ 1 ^ 1], 7));
    }

    #[test]
    fn all_that_is_not_plain_is_left_as_it_came() {
        let long = frame(0x81, &[0; 11]);
        let unmasked = vec![0x81, 1, b'x'];
        let others = [0x01, 0x80, 0x88, 0x89, 0xC1, 0x83].map(|first| frame(first, b"x"));
        for bytes in others
            .into_iter()
            .chain([long, unmasked, vec![], vec![0x81]])
        {
            let mut looked_at = bytes.clone();
            assert_eq!(plain(&mut looked_at, 10), Plain::Other, "{bytes:?}");
            assert_eq!(looked_at, bytes);
        }
    }

    proptest! {
        #[test]
        fn any_split_of_the_bytes_is_judged_alike(
            bytes in prop_oneof![
                proptest::collection::vec(any::<u8>(), 0..40),
                proptest::collection::vec(
                    (prop_oneof![Just(0x81u8), Just(0x01), Just(0x80), Just(0x89), any::<u8>()], 0usize..200)
                        .prop_map(|(first, length)| frame(first, &vec![0; length])),
                    0..6
                ).prop_map(|frames| frames.concat()),
            ],
            cuts in proptest::collection::vec(any::<prop::sample::Index>(), 0..6),
        ) {
            let mut whole = Heads::new(100_000);
            let expected = whole.feed(&bytes);
            let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut.index(bytes.len() + 1)).collect();
            cuts.sort_unstable();
            cuts.push(bytes.len());
            let (mut heads, mut start, mut result) = (Heads::new(100_000), 0, Ok(()));
            for cut in cuts {
                result = heads.feed(&bytes[start..cut]);
                if result.is_err() {
                    break;
                }
                start = cut;
            }
            // Where a head was cut, its first byte had been taken before.
            prop_assert_eq!(
                result.map_err(|(_, violation)| violation),
                expected.map_err(|(_, violation)| violation)
            );
            if expected.is_ok() {
                prop_assert_eq!(heads.is_between_messages(), whole.is_between_messages());
            }
        }
    }
}
