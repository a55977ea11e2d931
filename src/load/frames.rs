//! What is sent, made beforehand, and what is looked for in what comes.
//!
//! Client frames must be masked (RFC 6455 section 5.3); the mask here is zero, so that a number in a
//! frame can be changed where it stands.

/// Digits of a sender, how many senders these tell apart, and the digits of a message's number.
const SENDER_DIGITS: usize = 6;
pub(super) const SENDERS: usize = 1_000_000;
const DIGITS: usize = 10;
/// What a message's content begins with; its sender and number follow.
const MARK: &[u8] = br#""content":"@"#;

/// The text frame of a client.
pub(super) fn text(payload: &[u8]) -> Vec<u8> {
    frame(0x81, payload)
}

/// Answers a WebSocket ping.
pub(super) fn pong(payload: &[u8]) -> Vec<u8> {
    frame(0x8a, payload)
}

fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![first];
    match u16::try_from(payload.len()) {
        Ok(short @ 0..=125) => frame.push(0x80 | short.to_be_bytes()[1]),
        Ok(length) => {
            frame.push(0xfe);
            frame.extend(length.to_be_bytes());
        }
        Err(_) => {
            frame.push(0xff);
            frame.extend((payload.len() as u64).to_be_bytes());
        }
    }
    frame.extend([0; 4]);
    frame.extend(payload);
    frame
}

/// The request that opens a WebSocket; `sid` is that of a polling session to upgrade.
pub(super) fn opening(host: &str, sid: Option<&str>) -> Vec<u8> {
    let sid = sid.map_or_else(String::new, |sid| format!("&sid={sid}"));
    format!(
        "GET /socket.io/?EIO=4&transport=websocket{sid} HTTP/1.1\r\nHost: {host}\r\nConnection: Upgrade\r\n\
         Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    )
    .into_bytes()
}

/// The packet that joins the namespace, without its frame.
pub(super) fn connect(token: &str) -> String {
    format!(r#"40{{"token":"{token}"}}"#)
}

/// What a message of `sender` holds, and no other's.
pub(super) fn mark(sender: usize) -> Vec<u8> {
    let mut mark = MARK.to_vec();
    mark.extend(format!("{sender:0SENDER_DIGITS$}.").bytes());
    mark
}

/// Joins a room, with an ack of this id.
pub(super) fn join(ack: usize, room: &str) -> Vec<u8> {
    text(format!(r#"42{ack}["joinRoom",{{"roomId":"{room}"}}]"#).as_bytes())
}

/// A `sendMessage` whose number is set before each send.
#[derive(Debug)]
pub(super) struct Message {
    frame: Vec<u8>,
    /// Where the digits of the number, and those of the ack's id, begin.
    number: usize,
    ack: Option<usize>,
}

impl Message {
    /// A message of `sender` to `room`, its content `bytes` long. With an ack its id is the number, too.
    pub(super) fn new(room: &str, sender: usize, bytes: usize, ack: bool) -> Self {
        let zeros = "0".repeat(DIGITS);
        // An id must not begin with 0 for some decoders.
        let id = if ack {
            format!("1{}", &zeros[1..])
        } else {
            String::new()
        };
        let head = format!("@{sender:0SENDER_DIGITS$}.{zeros}.");
        let fill = "x".repeat(bytes.saturating_sub(head.len()));
        let payload =
            format!(r#"42{id}["sendMessage",{{"roomId":"{room}","content":"{head}{fill}"}}]"#);
        let frame = text(payload.as_bytes());
        let start = frame.len() - payload.len();
        let mark = payload.find('@').expect("the head has its mark");
        let number = start + mark + 1 + SENDER_DIGITS + 1;
        Self {
            frame,
            number,
            ack: ack.then_some(start + 3),
        }
    }

    /// The frame of message `number`.
    pub(super) fn numbered(&mut self, number: u32) -> &[u8] {
        let digits = format!("{number:0DIGITS$}");
        self.frame[self.number..self.number + DIGITS].copy_from_slice(digits.as_bytes());
        if let Some(ack) = self.ack {
            self.frame[ack..ack + DIGITS - 1].copy_from_slice(&digits.as_bytes()[1..]);
        }
        &self.frame
    }
}

/// Finds sender and number of a message. It stands at the same place in almost all frames of one
/// server, so that place is tried first.
#[derive(Debug, Default)]
pub(super) struct Finder(usize);

impl Finder {
    /// Sender and number; `None` when this is no message of ours.
    pub(super) fn find(&mut self, payload: &[u8]) -> Option<(usize, u32)> {
        let is_here = |at: usize| payload.get(at..at + MARK.len()) == Some(MARK);
        if !is_here(self.0) {
            self.0 = payload.windows(MARK.len()).position(|w| w == MARK)?;
        }
        let rest = &payload[self.0 + MARK.len()..];
        let (sender, rest) = rest.split_at_checked(SENDER_DIGITS)?;
        Some((number(sender)? as usize, number(rest.get(1..=DIGITS)?)?))
    }
}

/// Digits as a number.
pub(super) fn number(digits: &[u8]) -> Option<u32> {
    digits.iter().try_fold(0_u32, |sum, digit| {
        let digit = digit.wrapping_sub(b'0');
        (digit < 10).then(|| sum.wrapping_mul(10).wrapping_add(u32::from(digit)))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_carries_its_number_where_the_finder_looks() {
        let mut message = Message::new("r7", 12, 100, true);
        let mut finder = Finder::default();
        for expected in [1, 4_000_000_000, 77] {
            let frame = message.numbered(expected).to_vec();
            assert_eq!(finder.find(&frame), Some((12, expected)));
            let holds = |mark: &[u8]| frame.windows(mark.len()).any(|part| part == mark);
            assert!(holds(&mark(12)) && !holds(&mark(1)));
        }
        assert_eq!(Finder::default().find(b"42[\"userJoined\"]"), None);
    }

    #[test]
    fn long_frames_say_their_length() {
        assert_eq!(text(&[b'a'; 125])[1], 0xfd);
        assert_eq!(text(&[b'a'; 126])[1..4], [0xfe, 0, 126]);
        assert_eq!(text(&vec![b'a'; 70_000])[1], 0xff);
    }
}
