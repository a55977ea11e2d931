//! What the steps of a case mean.
//!
//! Bytes: `> BYTES`, `drip MS BYTES`, `wait MS`, `on NAME` (another connection), `half-close`, `reset`, `drop`.
//! HTTP: `GET TARGET [| Name: value …]`, `POST TARGET :: BODY`, `status N|N`, `body TEXT`, `field Name: TEXT`,
//! `no-field Name`, `error CODE`, `code N`, `refused N` (and the end), `answered N` (and goes on), `ends [MS]`
//! (nothing before it), `gone [MS]` (anything before it), `silent MS`.
//! Polling: `poll` opens a session, `get`, `post BODY`.
//! WebSocket: `ws [TARGET]`, `upgrade TARGET` (no session opens), `frame WORDS : PAYLOAD`, `frames N WORDS : PAYLOAD`,
//! `text PACKET`, `expect GLOB`, `pong PAYLOAD`, `close CODE|CODE|none`, `alive`.
//! Chat: `connect` (sets `$socket`), `poll-connect`, `try-connect AUTH`, `emit NAME JSON`, `ask NAME JSON`, `ack ok|CODE [GLOB]`,
//! `join`, `event NAME GLOB`, `exception CODE`, `quiet`, `jwt HEADER CLAIMS KEY` (sets `$token`), `history STATUS`.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::thread::sleep;
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use jsonwebtoken::{Algorithm, EncodingKey};
use serde_json::Value;

use super::case::{Case, bytes};
use super::support::token::{OLD_SECRET, SECRET, now_seconds, token};
use super::wire::{Fault, Got, PATIENCE, Wire, field, frame};

const WEBSOCKET: &str = "/socket.io/?EIO=4&transport=websocket";
const POLLING: &str = "/socket.io/?EIO=4&transport=polling";
/// How soon a connection ends that has to.
const SOON: Duration = Duration::from_secs(3);

/// Plays a case against a server. `number` makes its names its own.
pub(crate) fn play(case: &Case, address: SocketAddr, number: usize) -> Result<(), Fault> {
    let mut player = Player::new(address, number);
    for (at, step) in case.steps.iter().enumerate() {
        let outcome = player.step(step);
        outcome.map_err(|fault| format!("step {} {step:?}: {fault}", at + 1))?;
    }
    Ok(())
}

struct Player {
    address: SocketAddr,
    variables: HashMap<&'static str, String>,
    wires: HashMap<String, Wire>,
    current: String,
}

impl Player {
    fn new(address: SocketAddr, number: usize) -> Self {
        let user = format!("user-{number}");
        let head = "HTTP/1.1\\r\\nHost: a\\r\\n";
        let variables = HashMap::from([
            ("token", token(&user)),
            ("user", user),
            ("room", format!("room-{number}")),
            ("health", format!("GET /health {head}")),
            ("history", format!("GET /api/messages?roomId=$room {head}")),
            ("post", format!("POST {POLLING}&sid=$sid {head}")),
            ("open", format!("GET {POLLING} {head}")),
            ("polling", POLLING.to_owned()),
            ("websocket", WEBSOCKET.to_owned()),
            (
                "upgrade",
                "Connection: Upgrade\\r\\nUpgrade: websocket\\r\\nSec-WebSocket-Version: 13\\r\\n\
                 Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\\r\\n"
                    .to_owned(),
            ),
        ]);
        Self {
            address,
            variables,
            wires: HashMap::new(),
            current: "a".to_owned(),
        }
    }

    fn wire(&mut self) -> Result<&mut Wire, Fault> {
        if !self.wires.contains_key(&self.current) {
            let wire = Wire::open(self.address)?;
            self.wires.insert(self.current.clone(), wire);
        }
        Ok(self.wires.get_mut(&self.current).expect("it is there"))
    }

    fn bytes(&self, text: &str) -> Vec<u8> {
        bytes(text, &self.variables)
    }

    fn text(&self, text: &str) -> String {
        String::from_utf8_lossy(&self.bytes(text)).into_owned()
    }

    fn step(&mut self, step: &str) -> Result<(), Fault> {
        let (verb, rest) = step.split_once(' ').unwrap_or((step, ""));
        match verb {
            ">" | "drip" | "wait" | "on" | "half-close" | "reset" | "drop" => {
                self.bytes_step(verb, rest)
            }
            "GET" | "POST" | "status" | "body" | "field" | "no-field" | "error" | "code"
            | "refused" | "answered" | "ends" | "gone" | "silent" => self.http_step(verb, rest),
            "poll" | "get" | "post" => self.polling_step(verb, rest),
            "ws" | "upgrade" | "frame" | "frames" | "text" | "expect" | "pong" | "close"
            | "alive" => self.websocket_step(verb, rest),
            _ => self.chat_step(verb, rest),
        }
    }

    fn bytes_step(&mut self, verb: &str, rest: &str) -> Result<(), Fault> {
        match verb {
            ">" => {
                let bytes = self.bytes(rest);
                self.wire()?.write(&bytes);
            }
            "drip" => {
                let (pause, text) = rest.split_once(' ').ok_or("drip MS BYTES")?;
                let (pause, bytes) = (millis(pause)?, self.bytes(text));
                let wire = self.wire()?;
                for byte in bytes {
                    if !wire.write(&[byte]) {
                        break;
                    }
                    sleep(pause);
                }
            }
            "wait" => sleep(millis(rest)?),
            "on" => rest.clone_into(&mut self.current),
            "half-close" => self.wire()?.half_close(),
            "reset" => {
                self.wire()?;
                self.wires
                    .remove(&self.current)
                    .expect("it is there")
                    .reset()?;
            }
            _ => drop(self.wires.remove(&self.current)),
        }
        Ok(())
    }

    fn http_step(&mut self, verb: &str, rest: &str) -> Result<(), Fault> {
        let text = self.text(rest);
        let wire = self.wire()?;
        match verb {
            "GET" => {
                let mut parts = rest.split(" | ");
                let target = parts.next().unwrap_or_default();
                let fields = parts.fold(String::new(), |fields, field| fields + field + "\\r\\n");
                let request = format!("GET {target} HTTP/1.1\\r\\nHost: a\\r\\n{fields}\\r\\n");
                self.bytes_step(">", &request)
            }
            "POST" => {
                let (target, body) = rest.split_once(" :: ").ok_or("POST TARGET :: BODY")?;
                let length = self.bytes(body).len();
                let head = format!(
                    "POST {target} HTTP/1.1\\r\\nHost: a\\r\\nContent-Length: {length}\\r\\n\\r\\n"
                );
                self.bytes_step(">", &format!("{head}{body}"))
            }
            "status" => {
                let answer = wire.answer()?;
                let good = rest
                    .split('|')
                    .any(|status| status == answer.status.to_string());
                yes(good, || format!("{answer:?}"))
            }
            "refused" => {
                self.http_step("status", rest)?;
                self.wire()?.ends(SOON)
            }
            "answered" => {
                self.http_step("status", rest)?;
                self.bytes_step(">", "$health\\r\\n")?;
                self.http_step("status", "200")
            }
            "ends" => wire.ends(if rest.is_empty() { SOON } else { millis(rest)? }),
            "gone" => wire.gone(if rest.is_empty() { SOON } else { millis(rest)? }),
            "silent" => match wire.fill(Instant::now() + millis(rest)?) {
                Got::Nothing if wire.read.is_empty() => Ok(()),
                got => Err(format!("{got:?}, {}", wire.left())),
            },
            _ => {
                let answer = wire.answer.as_ref().ok_or("no answer yet")?;
                let json: Value = serde_json::from_str(&answer.body).unwrap_or_default();
                let good = match verb {
                    "body" => answer.body.contains(&text),
                    "error" => json["error"]["code"] == rest,
                    "code" => json["code"]
                        .as_u64()
                        .is_some_and(|code| rest == code.to_string()),
                    "no-field" => field(&answer.head, rest).is_none(),
                    _ => {
                        let (name, part) = text.split_once(": ").ok_or("field Name: TEXT")?;
                        field(&answer.head, name).is_some_and(|value| value.contains(part))
                    }
                };
                yes(good, || format!("{answer:?}"))
            }
        }
    }

    fn polling_step(&mut self, verb: &str, rest: &str) -> Result<(), Fault> {
        match verb {
            "poll" => {
                self.http_step("GET", "$polling")?;
                let answer = self.wire()?.answer()?;
                let open: Value = serde_json::from_str(answer.body.get(1..).unwrap_or_default())
                    .map_err(|error| format!("{error}: {answer:?}"))?;
                let sid = open["sid"].as_str().ok_or("no sid")?.to_owned();
                self.variables.insert("sid", sid);
                Ok(())
            }
            "get" => self.http_step("GET", "$polling&sid=$sid"),
            _ => self.http_step("POST", &format!("$polling&sid=$sid :: {rest}")),
        }
    }

    fn websocket_step(&mut self, verb: &str, rest: &str) -> Result<(), Fault> {
        match verb {
            "ws" => {
                self.websocket_step("upgrade", if rest.is_empty() { "$websocket" } else { rest })?;
                let open = self.packet()?;
                yes(open.starts_with("0{"), || open)
            }
            "upgrade" => {
                let request = format!("GET {rest} HTTP/1.1\\r\\nHost: a\\r\\n$upgrade\\r\\n");
                self.bytes_step(">", &request)?;
                self.http_step("status", "101")
            }
            "frame" => {
                let bytes = self.frame(rest)?;
                self.wire()?.write(&bytes);
                Ok(())
            }
            "frames" => {
                let (count, rest) = rest.split_once(' ').ok_or("frames N WORDS : PAYLOAD")?;
                let count = count.parse().map_err(|_| "a count")?;
                let bytes = self.frame(rest)?.repeat(count);
                self.wire()?.write(&bytes);
                Ok(())
            }
            "text" => {
                let bytes = frame(0x81, true, None, &self.bytes(rest));
                self.wire()?.write(&bytes);
                Ok(())
            }
            "expect" => {
                let (pattern, packet) = (self.text(rest), self.packet()?);
                yes(matches(&pattern, &packet), || packet)
            }
            "close" => {
                let frame = self.wire()?.frame()?;
                let code = match frame.payload[..] {
                    [] => "none".to_owned(),
                    [high, low, ..] => u16::from_be_bytes([high, low]).to_string(),
                    [_] => "half a code".to_owned(),
                };
                let good = frame.first == 0x88 && rest.split('|').any(|wanted| wanted == code);
                yes(good, || format!("{frame:?}"))?;
                self.wire()?.ends(SOON)
            }
            _ => {
                let payload = if verb == "alive" {
                    self.websocket_step("frame", "fin ping : alive")?;
                    b"alive".to_vec()
                } else {
                    self.bytes(rest)
                };
                let frame = self.wire()?.frame()?;
                let good = frame.first == 0x8a && frame.payload == payload;
                yes(good, || format!("{frame:?}"))
            }
        }
    }

    /// A frame by its description: `fin rsv1 text unmasked len=1000001 : payload`.
    fn frame(&self, description: &str) -> Result<Vec<u8>, Fault> {
        let (words, payload) = description.split_once(" :").unwrap_or((description, ""));
        let (mut first, mut masked, mut announced) = (0, true, None);
        for word in words.split(' ') {
            first |= match word {
                "fin" => 0x80,
                "rsv1" => 0x40,
                "rsv2" => 0x20,
                "rsv3" => 0x10,
                "cont" => 0,
                "text" => 1,
                "bin" => 2,
                "close" => 8,
                "ping" => 9,
                "pong" => 10,
                "unmasked" => {
                    masked = false;
                    0
                }
                other => match (other.strip_prefix("op"), other.strip_prefix("len=")) {
                    (Some(opcode), _) => opcode.parse().map_err(|_| "an opcode")?,
                    (_, Some(length)) => {
                        announced = Some(length.parse().map_err(|_| "a length")?);
                        0
                    }
                    _ => return Err(format!("no word of a frame: {other}")),
                },
            };
        }
        let payload = self.bytes(payload.strip_prefix(' ').unwrap_or(payload));
        Ok(frame(first, masked, announced, &payload))
    }

    /// The next text frame. The server's heartbeat is answered.
    fn packet(&mut self) -> Result<String, Fault> {
        loop {
            let frame = self.wire()?.frame()?;
            if frame.first != 0x81 {
                return Err(format!("no text: {frame:?}"));
            }
            let text = String::from_utf8(frame.payload).map_err(|error| error.to_string())?;
            if text != "2" {
                return Ok(text);
            }
            self.websocket_step("text", "3")?;
        }
    }

    fn chat_step(&mut self, verb: &str, rest: &str) -> Result<(), Fault> {
        match verb {
            "connect" => {
                self.steps(&["ws", r#"text 40{"token":"$token"}"#])?;
                let packet = self.packet()?;
                let id = packet.strip_prefix(r#"40{"sid":""#);
                let id = id.and_then(|id| id.strip_suffix(r#""}"#));
                let id = id.ok_or_else(|| packet.clone())?.to_owned();
                self.variables.insert("socket", id);
                Ok(())
            }
            "poll-connect" => self.steps(&[
                "poll",
                r#"post 40{"token":"$token"}"#,
                "status 200",
                "get",
                "status 200",
                r#"body 40{"sid":"#,
            ]),
            "try-connect" => {
                self.websocket_step("ws", "")?;
                self.websocket_step("text", &format!("40{rest}"))
            }
            "join" => self.steps(&[r#"ask joinRoom {"roomId":"$room"}"#, "ack ok"]),
            "emit" => {
                let (name, payload) = rest.split_once(' ').ok_or("emit NAME JSON")?;
                self.websocket_step("text", &format!(r#"42["{name}",{payload}]"#))
            }
            "ask" => {
                let (name, payload) = rest.split_once(' ').ok_or("ask NAME JSON")?;
                let wire = self.wire()?;
                wire.asked += 1;
                let packet = format!(r#"42{}["{name}",{payload}]"#, wire.asked);
                self.websocket_step("text", &packet)
            }
            "ack" => self.ack(rest),
            "event" => {
                let (name, pattern) = rest.split_once(' ').unwrap_or((rest, "*"));
                let payload = self.event(name)?;
                let pattern = self.text(pattern);
                yes(matches(&pattern, &payload.to_string()), || {
                    payload.to_string()
                })
            }
            "exception" => {
                let payload = self.event("exception")?;
                yes(payload["error"]["code"] == rest, || payload.to_string())
            }
            "quiet" => {
                self.chat_step("ask", "leaveRoom {}")?;
                self.ack("invalid_payload")?;
                let came = std::mem::take(&mut self.wire()?.events);
                yes(came.is_empty(), || format!("{came:?}"))
            }
            "jwt" => {
                let token = self.jwt(rest)?;
                self.variables.insert("token", token);
                Ok(())
            }
            "history" => {
                let target = "/api/messages?roomId=$room | Authorization: Bearer $token";
                self.http_step("GET", target)?;
                self.http_step("status", rest)
            }
            _ => Err("no such step".to_owned()),
        }
    }

    fn steps(&mut self, steps: &[&str]) -> Result<(), Fault> {
        steps.iter().try_for_each(|step| self.step(step))
    }

    /// The next packet of a chat, an event put aside.
    fn ack(&mut self, wanted: &str) -> Result<(), Fault> {
        let (code, pattern) = wanted.split_once(' ').unwrap_or((wanted, "*"));
        let start = format!("43{}[", self.wire()?.asked);
        loop {
            let packet = self.packet()?;
            if let Some(event) = packet.strip_prefix("42") {
                let event = serde_json::from_str(event).map_err(|error| error.to_string())?;
                self.wire()?.events.push(event);
                continue;
            }
            let Some(ack) = packet.strip_prefix(&start) else {
                return Err(format!("no ack: {packet}"));
            };
            let ack: Value = serde_json::from_str(ack.trim_end_matches(']')).unwrap_or_default();
            let good = if code == "ok" {
                ack["ok"] == true
            } else {
                ack["ok"] == false && ack["error"]["code"] == code
            };
            let pattern = self.text(pattern);
            return yes(good && matches(&pattern, &packet), || packet);
        }
    }

    /// The payload of the next event with this name; others are forgotten.
    fn event(&mut self, name: &str) -> Result<Value, Fault> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let events = &mut self.wire()?.events;
            if !events.is_empty() {
                let (came, payload) = events.remove(0);
                if came == name {
                    return Ok(payload);
                }
                continue;
            }
            if Instant::now() > deadline {
                return Err(format!("no {name} came"));
            }
            let packet = self.packet()?;
            let event = packet.strip_prefix("42").ok_or(packet.clone())?;
            let event = serde_json::from_str(event).map_err(|error| error.to_string())?;
            self.wire()?.events.push(event);
        }
    }

    /// A token of a header, claims and a key: `secret`, `old`, `other`, `none`, `zero`, or the signature.
    fn jwt(&self, rest: &str) -> Result<String, Fault> {
        let rest = self.text(rest);
        let mut values = serde_json::Deserializer::from_str(&rest)
            .into_iter::<Box<serde_json::value::RawValue>>();
        let mut next = || {
            values
                .next()
                .and_then(Result::ok)
                .ok_or("HEADER CLAIMS KEY")
        };
        let (header, claims) = (next()?, next()?);
        let key = rest[values.byte_offset()..].trim();
        // `"@+60"` is the number of seconds a minute from now.
        let mut spelt = claims.get().to_owned();
        while let Some(at) = spelt.find("\"@") {
            let end = at + 2 + spelt[at + 2..].find('"').ok_or("a time's end")?;
            let offset: f64 = spelt[at + 2..end].parse().map_err(|_| "a time")?;
            spelt.replace_range(at..=end, &(now_seconds() + offset).floor().to_string());
        }
        let encode = |text: &str| BASE64_URL_SAFE_NO_PAD.encode(text);
        let message = format!("{}.{}", encode(header.get()), encode(&spelt));
        let sign = |secret: &str| {
            let key = EncodingKey::from_secret(secret.as_bytes());
            jsonwebtoken::crypto::sign(message.as_bytes(), &key, Algorithm::HS256)
        };
        let signature = match key {
            "secret" => sign(SECRET).map_err(|error| error.to_string())?,
            "old" => sign(OLD_SECRET).map_err(|error| error.to_string())?,
            "other" => sign("a secret of somebody else, long enough though")
                .map_err(|error| error.to_string())?,
            "none" => String::new(),
            "zero" => BASE64_URL_SAFE_NO_PAD.encode([0; 32]),
            spelt => spelt.to_owned(),
        };
        Ok(format!("{message}.{signature}"))
    }
}

fn yes(good: bool, what: impl FnOnce() -> String) -> Result<(), Fault> {
    if good { Ok(()) } else { Err(what()) }
}

fn millis(text: &str) -> Result<Duration, Fault> {
    let millis = text
        .parse()
        .map_err(|_| format!("no milliseconds: {text}"))?;
    Ok(Duration::from_millis(millis))
}

/// Whether `text` is `pattern`, in which `*` stands for anything.
fn matches(pattern: &str, text: &str) -> bool {
    let mut parts = pattern.split('*');
    let first = parts.next().unwrap_or_default();
    let Some(mut rest) = text.strip_prefix(first) else {
        return false;
    };
    let mut last = None;
    for part in parts {
        let Some(at) = rest.find(part) else {
            return false;
        };
        rest = &rest[at + part.len()..];
        last = Some(part);
    }
    match last {
        None => rest.is_empty(),
        Some(last) => text.ends_with(last),
    }
}
