//! Clients that begin with long-polling and go on with a WebSocket, as official ones do by default.

use std::time::{Duration, Instant};

use super::swarm::Heard;
use super::{Load, LoadError, PATIENCE, Report, frames, server};

/// Clients on their way at once.
const AT_ONCE: usize = 16;

/// How far a client is. A client has one connection for its requests and one for its WebSocket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// The first GET: the open packet.
    Opening,
    /// The POST of CONNECT.
    Posting,
    /// The GET that brings the answer of CONNECT.
    Greeting,
    /// A GET waits, while the WebSocket is opened and probed.
    Probing,
    /// `5` is sent, and a join; its ack comes on the WebSocket.
    Joining,
    Done,
}

struct User {
    connect: String,
    join: Vec<u8>,
    phase: Phase,
    sid: String,
    /// The connections of its requests and of its WebSocket.
    polling: usize,
    websocket: Option<usize>,
    /// The GET that waited has been answered, and the probe.
    released: bool,
    probed: bool,
}

impl Load<'_> {
    pub(super) fn polling(&mut self, count: usize) -> Result<Report, LoadError> {
        let user = |user: usize| {
            Ok(User {
                connect: frames::connect(&self.token(user)?),
                join: frames::join(0, &format!("polling-{}", user % 64)),
                phase: Phase::Opening,
                sid: String::new(),
                polling: 0,
                websocket: None,
                released: false,
                probed: false,
            })
        };
        let mut users = (0..count)
            .map(user)
            .collect::<Result<Vec<_>, LoadError>>()?;
        let first = self.get("");
        // By connection: whose it is.
        let mut owners: Vec<usize> = Vec::new();
        let (mut admitted, mut done) = (0, 0);
        let (begin, cpu) = (Instant::now(), self.cpu()?);
        let mut moved = Instant::now();
        while done < count {
            while admitted < count && admitted - done < AT_ONCE {
                let number = self.swarm.connect(&first)?;
                owners.resize(owners.len().max(number + 1), 0);
                owners[number] = admitted;
                users[admitted].polling = number;
                admitted += 1;
            }
            let mut failure = None;
            let mut acts: Vec<(usize, Act)> = Vec::new();
            self.swarm
                .turn(Duration::from_millis(100), |number, _, heard| {
                    let owner = owners[number];
                    match users[owner].hear(number, heard) {
                        Ok(Some(act)) => acts.push((owner, act)),
                        Ok(None) => {}
                        Err(error) => failure = Some(error),
                    }
                })?;
            if let Some(failure) = failure {
                return Err(failure);
            }
            for (owner, act) in acts {
                moved = Instant::now();
                match act {
                    Act::Request(polling, request) => {
                        let bytes = match request {
                            Some(body) => self.post(&users[owner].sid, &body),
                            None => self.get(&format!("&sid={}", users[owner].sid)),
                        };
                        self.swarm.send(polling, &bytes)?;
                    }
                    Act::Upgrade(polling) => {
                        let sid = users[owner].sid.clone();
                        let get = self.get(&format!("&sid={sid}"));
                        self.swarm.send(polling, &get)?;
                        let number = self.swarm.open(Some(&sid))?;
                        owners.resize(owners.len().max(number + 1), 0);
                        owners[number] = owner;
                        users[owner].websocket = Some(number);
                    }
                    Act::Say(number, frames) => self.swarm.send(number, &frames)?,
                    Act::End(polling, websocket) => {
                        self.swarm.close(polling)?;
                        self.swarm.close(websocket)?;
                        done += 1;
                    }
                }
            }
            if moved.elapsed() > PATIENCE {
                return Err(server("did not upgrade its clients"));
            }
        }
        let seconds = begin.elapsed().as_secs_f64();
        self.rest(Duration::from_millis(200))?;
        Ok(Report {
            seconds,
            units: count as u64,
            cpu: self.cpu_since(cpu)?,
            ..Report::default()
        })
    }

    fn get(&self, sid: &str) -> Vec<u8> {
        let host = self.swarm.host();
        format!("GET /socket.io/?EIO=4&transport=polling{sid} HTTP/1.1\r\nHost: {host}\r\n\r\n")
            .into_bytes()
    }

    fn post(&self, sid: &str, body: &str) -> Vec<u8> {
        let (host, length) = (self.swarm.host(), body.len());
        format!(
            "POST /socket.io/?EIO=4&transport=polling&sid={sid} HTTP/1.1\r\nHost: {host}\r\n\
             Content-Type: text/plain;charset=UTF-8\r\nContent-Length: {length}\r\n\r\n{body}"
        )
        .into_bytes()
    }
}

/// What a client does next.
enum Act {
    /// A POST of this body, or a GET, on the connection of its requests.
    Request(usize, Option<String>),
    /// A GET that waits, and a WebSocket beside it.
    Upgrade(usize),
    /// Frames on its WebSocket.
    Say(usize, Vec<u8>),
    /// Close both connections.
    End(usize, usize),
}

impl User {
    fn hear(&mut self, number: usize, heard: Heard<'_>) -> Result<Option<Act>, LoadError> {
        let polling = self.polling;
        let act = match (self.phase, heard) {
            (Phase::Opening, Heard::Response { status: 200, body }) => {
                let text = String::from_utf8_lossy(body);
                let sid = text
                    .split("\"sid\":\"")
                    .nth(1)
                    .and_then(|rest| rest.split('"').next());
                self.sid = sid.ok_or_else(|| server("gave no sid"))?.into();
                self.phase = Phase::Posting;
                Some(Act::Request(polling, Some(self.connect.clone())))
            }
            (Phase::Posting, Heard::Response { status: 200, .. }) => {
                self.phase = Phase::Greeting;
                Some(Act::Request(polling, None))
            }
            (Phase::Greeting, Heard::Response { status: 200, body })
                if body
                    .split(|byte| *byte == 0x1e)
                    .any(|packet| packet.starts_with(b"40")) =>
            {
                self.phase = Phase::Probing;
                Some(Act::Upgrade(polling))
            }
            // Some ping a client before they greet it; it will have left long before its pong is missed.
            (
                Phase::Greeting,
                Heard::Response {
                    status: 200,
                    body: b"2",
                },
            ) => Some(Act::Request(polling, None)),
            (Phase::Probing, Heard::Upgraded) => Some(Act::Say(number, frames::text(b"2probe"))),
            (Phase::Probing, Heard::Text(b"3probe")) => {
                self.probed = true;
                self.upgraded()
            }
            (Phase::Probing, Heard::Response { status: 200, .. }) => {
                self.released = true;
                self.upgraded()
            }
            (Phase::Joining, Heard::Text(text)) if text.starts_with(b"430[") => {
                self.phase = Phase::Done;
                self.websocket.map(|websocket| Act::End(polling, websocket))
            }
            // A server may close the connection of the requests once they are over.
            (Phase::Joining, Heard::Closed) if number == polling => None,
            (Phase::Joining, Heard::Text(_)) | (Phase::Done, _) => None,
            (phase, other) => {
                let text = format!("answered a polling client in {phase:?} with {other:?}");
                return Err(server(text));
            }
        };
        Ok(act)
    }

    /// The WebSocket takes over once the probe is answered and no GET is pending.
    fn upgraded(&mut self) -> Option<Act> {
        if !(self.probed && self.released) {
            return None;
        }
        self.phase = Phase::Joining;
        let mut frames = frames::text(b"5");
        frames.extend(&self.join);
        self.websocket.map(|number| Act::Say(number, frames))
    }
}
