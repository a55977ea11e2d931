//! Connections: idle ones, handshakes, and whole short lives.

use std::time::{Duration, Instant};

use super::frames::{self, Message};
use super::messages::CONTENT_BYTES;
use super::swarm::Heard;
use super::{Cpu, Load, LoadError, PATIENCE, Report, server};

/// Clients that are on their way at once.
const AT_ONCE: usize = 32;
/// How long a server may take to come to rest before its memory is read.
const REST: Duration = Duration::from_secs(2);
/// Rooms over which short lives are spread.
const CHURN_ROOMS: usize = 64;

/// What a client does, one step after the other.
type Script = Vec<Step>;

/// Waits for a text that begins so and holds this, then sends.
struct Step {
    begins: Vec<u8>,
    /// Empty: whatever follows.
    holds: Vec<u8>,
    sends: Vec<u8>,
}

impl Step {
    fn new(begins: impl Into<Vec<u8>>, sends: Vec<u8>) -> Self {
        Self {
            begins: begins.into(),
            holds: Vec::new(),
            sends,
        }
    }

    fn is_met_by(&self, text: &[u8]) -> bool {
        text.starts_with(&self.begins) && memchr::memmem::find(text, &self.holds).is_some()
    }
}

/// Waits for what this sender has sent, not for what others of its room have.
fn own_message(sender: usize) -> Step {
    let mut step = Step::new(r#"42["receiveMessage""#, Vec::new());
    step.holds = frames::mark(sender);
    step
}

impl Load<'_> {
    /// The script of a client that connects and joins rooms.
    fn script(&self, user: usize, rooms: &[String]) -> Result<Script, LoadError> {
        let connect = frames::text(frames::connect(&self.token(user)?).as_bytes());
        let mut script = vec![Step::new("0", connect)];
        let mut expected = "40".to_owned();
        for (ack, room) in rooms.iter().enumerate() {
            script.push(Step::new(expected, frames::join(ack, room)));
            expected = format!("43{ack}[");
        }
        script.push(Step::new(expected, Vec::new()));
        Ok(script)
    }

    /// Plays scripts, some at once, in their order. With `close` each connection ends with its script.
    /// Returns the connections.
    fn play(&mut self, scripts: &[Script], close: bool) -> Result<Vec<usize>, LoadError> {
        let mut numbers = Vec::with_capacity(scripts.len());
        // By connection: whose it is, and the step it is at.
        let mut places: Vec<(usize, usize)> = Vec::new();
        let (mut done, mut failure) = (0, None);
        let mut moved = Instant::now();
        while done < scripts.len() {
            while numbers.len() < scripts.len() && numbers.len() - done < AT_ONCE {
                let number = self.swarm.open(None)?;
                places.resize(places.len().max(number + 1), (0, 0));
                places[number] = (numbers.len(), 0);
                numbers.push(number);
            }
            let before = done;
            self.swarm
                .turn(Duration::from_millis(100), |number, client, heard| {
                    let (user, step) = places[number];
                    let Some(awaited) = scripts[user].get(step) else {
                        return;
                    };
                    match heard {
                        Heard::Text(text) if awaited.is_met_by(text) => {
                            client.send(&awaited.sends);
                            places[number].1 += 1;
                            if step + 1 == scripts[user].len() {
                                done += 1;
                                if close {
                                    client.close();
                                }
                            }
                        }
                        Heard::Text(text) if text.starts_with(b"44") => {
                            failure = Some(String::from_utf8_lossy(text).into_owned());
                        }
                        Heard::Closed | Heard::Response { .. } => {
                            failure = Some(format!("{heard:?}"));
                        }
                        _ => {}
                    }
                })?;
            if done > before {
                moved = Instant::now();
            }
            if let Some(failure) = failure {
                return Err(server(format!("refused a client: {failure}")));
            }
            if moved.elapsed() > PATIENCE {
                return Err(server("did not let clients in"));
            }
        }
        Ok(numbers)
    }

    /// Opens the sockets of users 0, 1, …, each in the rooms that `rooms` names.
    pub(super) fn sockets(
        &mut self,
        count: usize,
        rooms: impl Fn(usize) -> Vec<String>,
    ) -> Result<Vec<usize>, LoadError> {
        let scripts = (0..count).map(|user| self.script(user, &rooms(user)));
        let scripts = scripts.collect::<Result<Vec<_>, _>>()?;
        self.play(&scripts, false)
    }

    /// Lets time pass; pings are answered, all else is ignored.
    pub(super) fn rest(&mut self, period: Duration) -> Result<(), LoadError> {
        let end = Instant::now() + period;
        let mut closed = 0;
        while let Some(left) = end.checked_duration_since(Instant::now()) {
            let wait = left.min(Duration::from_millis(100));
            self.swarm.turn(wait, |_, _, heard| {
                closed += usize::from(heard == Heard::Closed);
            })?;
        }
        if closed > 0 {
            return Err(server(format!("closed {closed} idle connections")));
        }
        Ok(())
    }

    pub(super) fn idle(
        &mut self,
        connections: usize,
        (rooms, members): (usize, usize),
        period: Duration,
    ) -> Result<Report, LoadError> {
        let before = self.memory()?;
        let groups = (connections / members.max(1)).max(1);
        self.sockets(connections, |user| {
            (0..rooms)
                .map(|room| format!("idle-{}-{room}", user % groups))
                .collect()
        })?;
        self.rest(REST)?;
        let after = self.memory()?;
        let (begin, cpu) = (Instant::now(), self.cpu()?);
        self.rest(period)?;
        Ok(Report {
            seconds: begin.elapsed().as_secs_f64(),
            units: connections as u64,
            cpu: self.cpu_since(cpu)?,
            memory_bytes: before
                .zip(after)
                .map(|(before, after)| after.cast_signed() - before.cast_signed()),
            ..Report::default()
        })
    }

    pub(super) fn cpu_since(&self, before: Option<Cpu>) -> Result<Option<Cpu>, LoadError> {
        let both = before.zip(self.cpu()?);
        Ok(both.map(|(before, after)| after.since(before)))
    }

    pub(super) fn handshakes(&mut self, count: usize) -> Result<Report, LoadError> {
        let scripts = (0..count).map(|user| self.script(user, &[]));
        let scripts = scripts.collect::<Result<Vec<_>, _>>()?;
        self.measured(&scripts, false)
    }

    pub(super) fn churn(&mut self, count: usize) -> Result<Report, LoadError> {
        let script = |user: usize| {
            let room = format!("churn-{}", user % CHURN_ROOMS);
            let mut script = self.script(user, std::slice::from_ref(&room))?;
            let sender = user % frames::SENDERS;
            let mut message = Message::new(&room, sender, CONTENT_BYTES, false);
            if let Some(last) = script.last_mut() {
                last.sends = message.numbered(1).to_vec();
            }
            script.push(own_message(sender));
            Ok(script)
        };
        let scripts = (0..count)
            .map(script)
            .collect::<Result<Vec<_>, LoadError>>()?;
        self.measured(&scripts, true)
    }

    fn measured(&mut self, scripts: &[Script], close: bool) -> Result<Report, LoadError> {
        let (begin, cpu) = (Instant::now(), self.cpu()?);
        self.play(scripts, close)?;
        let seconds = begin.elapsed().as_secs_f64();
        if close {
            // The server's part of the last ends.
            self.rest(Duration::from_millis(200))?;
        }
        Ok(Report {
            seconds,
            units: scripts.len() as u64,
            cpu: self.cpu_since(cpu)?,
            ..Report::default()
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_short_life_ends_with_its_own_message() {
        let received = |sender| {
            let content = format!("@{sender:06}.0000000001.xxx");
            format!(r#"42["receiveMessage",{{"roomId":"r","content":"{content}"}}]"#).into_bytes()
        };
        let step = own_message(66);
        assert!(step.is_met_by(&received(66)));
        assert!(!step.is_met_by(&received(2)));
        assert!(!step.is_met_by(&received(66)[2..]), "another event");
        assert!(Step::new("40", Vec::new()).is_met_by(br#"40{"sid":"x"}"#));
    }
}
