//! One TCP connection that sends anything, and reads HTTP answers and WebSocket frames.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use serde_json::Value;

/// How long a step waits for what must come. A busy machine is slow; a wrong server is silent.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// Why a step failed, for people.
pub(crate) type Fault = String;

/// An answer.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) head: String,
    pub(crate) body: String,
}

/// A frame as it came.
#[derive(Debug)]
pub(crate) struct Frame {
    /// FIN, the reserved bits and the opcode.
    pub(crate) first: u8,
    pub(crate) payload: Vec<u8>,
}

/// What a wait for bytes found.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Got {
    Bytes,
    End,
    Nothing,
}

/// A connection.
pub(crate) struct Wire {
    stream: TcpStream,
    pub(crate) read: Vec<u8>,
    pub(crate) answer: Option<Answer>,
    /// Socket.IO events that came while something else was awaited.
    pub(crate) events: Vec<(String, Value)>,
    pub(crate) asked: u64,
}

impl Wire {
    pub(crate) fn open(address: SocketAddr) -> Result<Self, Fault> {
        let stream = TcpStream::connect(address).map_err(|error| format!("connect: {error}"))?;
        stream.set_nodelay(true).map_err(|e| e.to_string())?;
        // A server that has stopped reading must not hang a case.
        stream
            .set_write_timeout(Some(PATIENCE))
            .map_err(|e| e.to_string())?;
        Ok(Self {
            stream,
            read: Vec::new(),
            answer: None,
            events: Vec::new(),
            asked: 0,
        })
    }

    /// Writes; a peer that has closed meanwhile is no fault of the writer, the next step sees it.
    pub(crate) fn write(&mut self, bytes: &[u8]) -> bool {
        self.stream.write_all(bytes).is_ok()
    }

    pub(crate) fn half_close(&self) {
        let _ = self.stream.shutdown(Shutdown::Write);
    }

    /// Makes the drop of the connection a reset.
    pub(crate) fn reset(self) -> Result<(), Fault> {
        let socket = socket2::SockRef::from(&self.stream);
        socket
            .set_linger(Some(Duration::ZERO))
            .map_err(|error| error.to_string())
    }

    /// Reads what there is, waiting for it until `deadline`.
    pub(crate) fn fill(&mut self, deadline: Instant) -> Got {
        let wait = deadline.saturating_duration_since(Instant::now());
        let wait = wait.max(Duration::from_millis(1));
        self.stream.set_read_timeout(Some(wait)).expect("not zero");
        let mut chunk = [0; 16 * 1024];
        match self.stream.read(&mut chunk) {
            Ok(0) => Got::End,
            Ok(count) => {
                self.read.extend_from_slice(&chunk[..count]);
                Got::Bytes
            }
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                Got::Nothing
            }
            Err(_) => Got::End,
        }
    }

    /// Calls `take` on what was read until it finds something.
    fn until<T>(
        &mut self,
        what: &str,
        mut take: impl FnMut(&mut Vec<u8>) -> Option<T>,
    ) -> Result<T, Fault> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(found) = take(&mut self.read) {
                return Ok(found);
            }
            match self.fill(deadline) {
                Got::Bytes => {}
                Got::End => return Err(format!("the end instead of {what}, {}", self.left())),
                Got::Nothing => return Err(format!("{what} did not come, {}", self.left())),
            }
        }
    }

    /// What was read and not used, for people.
    pub(crate) fn left(&self) -> String {
        let some = &self.read[..self.read.len().min(300)];
        format!("unread: {:?}", String::from_utf8_lossy(some))
    }

    /// The next answer; interim ones are skipped.
    pub(crate) fn answer(&mut self) -> Result<&Answer, Fault> {
        let answer = self.until("an answer", take_answer)?;
        Ok(self.answer.insert(answer))
    }

    pub(crate) fn frame(&mut self) -> Result<Frame, Fault> {
        self.until("a frame", take_frame)
    }

    /// The end, with nothing before it.
    pub(crate) fn ends(&mut self, within: Duration) -> Result<(), Fault> {
        let deadline = Instant::now() + within;
        if !self.read.is_empty() {
            return Err(format!("more came, {}", self.left()));
        }
        match self.fill(deadline) {
            Got::End => Ok(()),
            Got::Bytes => Err(format!("more came, {}", self.left())),
            Got::Nothing => Err(format!("still open after {within:?}")),
        }
    }

    /// The end, whatever comes before it.
    pub(crate) fn gone(&mut self, within: Duration) -> Result<(), Fault> {
        let deadline = Instant::now() + within;
        loop {
            match self.fill(deadline) {
                Got::End => return Ok(()),
                Got::Bytes if Instant::now() < deadline => self.read.clear(),
                _ => return Err(format!("still open after {within:?}")),
            }
        }
    }
}

fn take_answer(read: &mut Vec<u8>) -> Option<Answer> {
    loop {
        let end = read.windows(4).position(|four| four == b"\r\n\r\n")? + 4;
        let head = String::from_utf8_lossy(&read[..end]).into_owned();
        let status = head.split(' ').nth(1)?.parse().ok()?;
        let length = field(&head, "content-length").and_then(|length| length.parse().ok());
        let length: usize = length.unwrap_or(0);
        let body = read.get(end..end + length)?;
        let body = String::from_utf8_lossy(body).into_owned();
        read.drain(..end + length);
        if status != 100 {
            return Some(Answer { status, head, body });
        }
    }
}

/// The value of a field of a head.
pub(crate) fn field<'a>(head: &'a str, name: &str) -> Option<&'a str> {
    let mut fields = head.lines().filter_map(|line| line.split_once(": "));
    let found = fields.find(|(n, _)| n.eq_ignore_ascii_case(name));
    found.map(|(_, value)| value)
}

fn take_frame(read: &mut Vec<u8>) -> Option<Frame> {
    let (&first, &second) = (read.first()?, read.get(1)?);
    let (head, length) = match second {
        126 => (
            4,
            u64::from(u16::from_be_bytes(read.get(2..4)?.try_into().ok()?)),
        ),
        127 => (10, u64::from_be_bytes(read.get(2..10)?.try_into().ok()?)),
        length => (2, u64::from(length)),
    };
    let end = head + usize::try_from(length).expect("a frame fits memory");
    let payload = read.get(head..end)?.to_vec();
    read.drain(..end);
    Some(Frame { first, payload })
}

/// A frame to send. `announced` stands in its head; `None`: the payload's own length.
pub(crate) fn frame(first: u8, masked: bool, announced: Option<u64>, payload: &[u8]) -> Vec<u8> {
    let mask = if masked { 0x80 } else { 0 };
    let mut bytes = vec![first];
    match announced.unwrap_or(payload.len() as u64) {
        length @ 0..126 => bytes.push(mask | u8::try_from(length).expect("below 126")),
        length @ 126..65_536 => {
            bytes.push(mask | 0x7e);
            bytes.extend(u16::try_from(length).expect("below 65,536").to_be_bytes());
        }
        length => {
            bytes.push(mask | 0x7f);
            bytes.extend(length.to_be_bytes());
        }
    }
    if masked {
        let key = [0x37, 0xfa, 0x21, 0x3d];
        bytes.extend(key);
        bytes.extend(payload.iter().zip(key.iter().cycle()).map(|(b, k)| b ^ k));
    } else {
        bytes.extend_from_slice(payload);
    }
    bytes
}
