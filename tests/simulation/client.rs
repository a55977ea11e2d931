//! What a client knows of its connection, and what it may be told: every packet is checked as it comes.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::rc::Rc;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::dice::Dice;
use crate::failure::Failure;
use crate::line::{Line, Out};
use crate::store::SimulatedStore;

/// Every send is answered within this time of being read.
const ANSWER_WITHIN: Duration = Duration::from_secs(5);

/// How fast a client reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Pace {
    /// All there is, at every step.
    Fast,
    /// A packet now and then.
    Slow,
    /// Never; and it answers no ping.
    Dead,
}

/// A message as its sender sees it, over all its tries.
#[derive(Debug, Default)]
pub(crate) struct Sent {
    pub(crate) room: String,
    pub(crate) content: String,
    pub(crate) key: Option<String>,
    pub(crate) tries: usize,
    /// Tries that were refused: surely not stored.
    pub(crate) refused: usize,
    /// Its number and id, once a try was answered with success.
    pub(crate) stored: Option<(u64, String)>,
    /// A try is on its way.
    pub(crate) is_open: bool,
}

/// What an event asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Asked {
    Join {
        room: String,
        last_seq: Option<u64>,
    },
    Leave {
        room: String,
    },
    Send {
        number: usize,
    },
    /// An event with an attachment, which the chat does not know.
    Binary,
    /// A newer token.
    Authenticate {
        token: String,
        expires_wall_ms: u64,
    },
}

/// Events of one connection that wait for their turn.
const PARKED_MAX: usize = 64;

#[derive(Debug)]
struct Pending {
    id: u64,
    asked: Asked,
    at: Instant,
    /// Nothing was before it that could make it wait for longer than a send may.
    is_prompt: bool,
}

/// A room that the client is in.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Membership {
    /// The newest number that the client has, or has from the join on.
    pub(crate) last: Option<u64>,
    /// The last number of the replay that began with the join.
    replayed_to: Option<u64>,
    /// What it was last told about users.
    pub(crate) users: BTreeMap<String, bool>,
    /// Users who may have been there already: they had asked for the room.
    pub(crate) earlier: BTreeSet<String>,
}

/// A connection.
pub(crate) struct Connection {
    pub(crate) line: Line,
    pub(crate) is_ready: bool,
    /// It has said good-bye.
    pub(crate) has_left: bool,
    /// It has asked for the namespace.
    pub(crate) is_reconnecting: bool,
    /// The host is gone; the client sees it then.
    pub(crate) cut_at: Option<Instant>,
    /// When the token runs out.
    pub(crate) expires_wall_ms: u64,
    /// Since when it should have been ended for that.
    pub(crate) overdue_since: Option<Instant>,
    pub(crate) pace: Pace,
    /// Bytes that still waited for it when it had read last.
    pub(crate) unread: usize,
    next_id: u64,
    pending: VecDeque<Pending>,
    pub(crate) rooms: BTreeMap<String, Membership>,
    /// What came from rooms before the join was acknowledged.
    early: BTreeMap<String, Vec<u64>>,
    early_users: BTreeMap<String, BTreeMap<String, bool>>,
}

/// What the checks look at.
pub(crate) struct Judge<'a> {
    pub(crate) now: Instant,
    pub(crate) store: &'a SimulatedStore,
    /// A clock jumped so far that the store seemed silent: a visible gap is allowed.
    pub(crate) gaps_allowed: bool,
    /// How late an answer may be seen: a tick, a jump, a stall.
    pub(crate) late: Duration,
    /// The newest time that a host has shown.
    pub(crate) wall_ms: u64,
    /// A machine's clock was set: tokens may seem older or younger than they are.
    pub(crate) is_wall_true: bool,
    pub(crate) host: usize,
    /// Hosts on which sockets of a user have asked for a room, by room and user.
    pub(crate) places: &'a BTreeMap<(String, String), BTreeSet<usize>>,
}

impl Judge<'_> {
    /// Whether all that is told of a user in a room comes from the witness's own host.
    pub(crate) fn is_of_one_host(&self, room: &str, user: &str) -> bool {
        let hosts = self.places.get(&(room.to_owned(), user.to_owned()));
        hosts.is_some_and(|hosts| hosts.iter().all(|host| *host == self.host))
    }

    /// Users who have ever asked for a room.
    fn users_of(&self, room: &str) -> BTreeSet<String> {
        let first = (room.to_owned(), String::new());
        let places = self.places.range(first..).map(|(place, _)| place);
        let of_room = places.take_while(|(name, _)| name == room);
        of_room.map(|(_, user)| user.clone()).collect()
    }

    fn may_be_expired(&self, expires_wall_ms: u64) -> bool {
        !self.is_wall_true || self.wall_ms >= expires_wall_ms
    }
}

/// A client, over all its connections.
pub(crate) struct Client {
    pub(crate) user: String,
    pub(crate) connection: Option<Connection>,
    pub(crate) dice: Rc<Dice>,
    /// The newest number seen of each room: what a rejoin asks from.
    pub(crate) seen: BTreeMap<String, u64>,
    /// Messages to send again.
    pub(crate) again: Vec<usize>,
}

impl Connection {
    pub(crate) fn new(line: Line, pace: Pace) -> Self {
        Self {
            line,
            pace,
            unread: 0,
            is_ready: false,
            has_left: false,
            is_reconnecting: false,
            cut_at: None,
            expires_wall_ms: 0,
            overdue_since: None,
            next_id: 0,
            pending: VecDeque::new(),
            rooms: BTreeMap::new(),
            early: BTreeMap::new(),
            early_users: BTreeMap::new(),
        }
    }

    /// Says good-bye.
    pub(crate) fn leave(&mut self) {
        self.has_left = true;
        self.is_ready = false;
        self.forget();
    }

    /// Its socket is another one from now on.
    fn forget(&mut self) {
        self.rooms.clear();
        self.early.clear();
        self.early_users.clear();
    }

    /// What was asked before the good-bye is of no interest any more. Returns messages without an answer.
    pub(crate) fn give_up(&mut self) -> Vec<usize> {
        let unanswered = self.unanswered().collect();
        self.pending.clear();
        unanswered
    }

    /// Events that wait for their acks.
    pub(crate) fn pending(&self) -> usize {
        self.pending.len()
    }

    /// Messages whose acks never came.
    pub(crate) fn unanswered(&self) -> impl Iterator<Item = usize> {
        self.pending
            .iter()
            .filter_map(|pending| match pending.asked {
                Asked::Send { number } => Some(number),
                _ => None,
            })
    }

    /// Asks for something: queues its packets.
    pub(crate) fn ask(&mut self, asked: Asked, sent: &[Sent], now: Instant) {
        let (name, payload) = match &asked {
            Asked::Join { room, last_seq } => {
                let mut payload = json!({ "roomId": room });
                if let Some(seq) = last_seq {
                    payload["lastSeq"] = json!(seq);
                }
                ("joinRoom", payload)
            }
            Asked::Leave { room } => ("leaveRoom", json!({ "roomId": room })),
            Asked::Send { number } => {
                let message = &sent[*number];
                let mut payload = json!({ "roomId": message.room, "content": message.content });
                if let Some(key) = &message.key {
                    payload["clientMsgId"] = json!(key);
                }
                ("sendMessage", payload)
            }
            Asked::Binary => ("picture", json!({ "_placeholder": true, "num": 0 })),
            Asked::Authenticate { token, .. } => ("authenticate", json!({ "token": token })),
        };
        let is_binary = asked == Asked::Binary;
        let id = self.next_id;
        self.next_id += 1;
        let others = self.pending.iter();
        // Behind so many the server does not even read it.
        let is_read = others.len() < PARKED_MAX;
        // An event waits for the replay of a join before it, also when that is answered already.
        let is_replaying = |room: &Membership| room.last < room.replayed_to;
        let is_prompt = is_read
            && !self.rooms.values().any(is_replaying)
            && others
                .clone()
                .all(|other| !matches!(other.asked, Asked::Join { .. }));
        self.pending.push_back(Pending {
            id,
            asked,
            at: now,
            is_prompt,
        });
        let kind = if is_binary { "51-" } else { "2" };
        let packet = format!("4{kind}{id}{}", json!([name, payload]));
        self.line.say(Out::Text(packet));
        if is_binary {
            self.line.say(Out::Binary(vec![7; 30]));
        }
    }

    fn is_joining(&self, room: &str) -> bool {
        let mut asked = self.pending.iter().map(|pending| &pending.asked);
        asked.any(|asked| matches!(asked, Asked::Join { room: name, .. } if name == room))
    }
}

impl Client {
    /// Takes a Socket.IO packet. What it breaks is an `Err`.
    pub(crate) fn take(
        &mut self,
        text: &str,
        sent: &mut [Sent],
        judge: &Judge<'_>,
    ) -> Result<(), Failure> {
        let (kind, rest) = text.split_at(1);
        let json_at = rest.find(['[', '{']).unwrap_or(rest.len());
        let (id, json) = rest.split_at(json_at);
        let value: Value = serde_json::from_str(json).unwrap_or(Value::Null);
        let connection = self.connection.as_mut().ok_or("a packet for nobody")?;
        match kind {
            "0" => {
                connection.is_ready = true;
                connection.has_left = false;
                connection.is_reconnecting = false;
            }
            "4" => {
                let code = value["data"]["code"].as_str().unwrap_or_default();
                let is_old = judge.may_be_expired(connection.expires_wall_ms);
                if !(code == "draining" || code == "token_expired" && is_old) {
                    return Err("a CONNECT is refused that should not".into());
                }
                connection.line.say(Out::Text("1".into()));
            }
            // Of the socket that was left.
            _ if connection.has_left => {}
            "3" => {
                let id = id.parse().map_err(|_| "an ack without an id")?;
                self.acknowledged(id, &value[0], sent, judge)?;
            }
            "2" => self.told(&value, judge)?,
            "1" => {
                if !judge.may_be_expired(connection.expires_wall_ms) {
                    return Err("a client is put out".into());
                }
                connection.is_ready = false;
            }
            _ => return Err("a packet that nobody expects".into()),
        }
        Ok(())
    }

    fn told(&mut self, event: &Value, judge: &Judge<'_>) -> Result<(), Failure> {
        let payload = &event[1];
        let room = payload["roomId"].as_str().unwrap_or_default().to_owned();
        let user = payload["userId"].as_str().unwrap_or_default().to_owned();
        let connection = self.connection.as_mut().ok_or("an event for nobody")?;
        let is_joining = connection.is_joining(&room);
        let membership = connection.rooms.get_mut(&room);
        let name = event[0].as_str().unwrap_or_default();
        match name {
            "receiveMessage" => {
                let seq = payload["seq"]
                    .as_u64()
                    .ok_or("a message without a number")?;
                let stored = judge.store.message(&room, seq);
                let stored = stored.ok_or("delivered, but not stored")?;
                if payload["content"] != *stored.content || payload["userId"] != *stored.user {
                    return Err("delivered otherwise than stored".into());
                }
                match membership {
                    Some(membership) => membership.receive(seq, judge)?,
                    None if is_joining => {
                        connection.early.entry(room.clone()).or_default().push(seq);
                    }
                    None => {
                        let detail = format!("{seq} of {room}");
                        return Err(Failure::new(
                            "a message of a room that it is not in",
                            detail,
                        ));
                    }
                }
                let seen = self.seen.entry(room).or_default();
                *seen = seq.max(*seen);
            }
            "userJoined" | "userLeft" => {
                let users = match membership {
                    Some(membership) => &mut membership.users,
                    None if is_joining => connection.early_users.entry(room.clone()).or_default(),
                    None => {
                        let detail = format!("{name} of {room}");
                        return Err(Failure::new("news of a room that it is not in", detail));
                    }
                };
                let is_there = name == "userJoined";
                let before = users.insert(user.clone(), is_there);
                let is_again = before == Some(is_there) && user != self.user;
                // What a hub was told of users it remembers for ten seconds; a great jump is longer.
                if is_again && !judge.gaps_allowed && judge.is_of_one_host(&room, &user) {
                    return Err(Failure::new(
                        "told twice who is there",
                        format!("{name} of {user}"),
                    ));
                }
            }
            "exception" => {
                let is_old = judge.may_be_expired(connection.expires_wall_ms);
                if payload["error"]["code"] != "token_expired" || !is_old {
                    return Err("an exception without a reason".into());
                }
            }
            other => return Err(Failure::new("an event that nobody expects", other)),
        }
        Ok(())
    }

    fn acknowledged(
        &mut self,
        id: u64,
        answer: &Value,
        sent: &mut [Sent],
        judge: &Judge<'_>,
    ) -> Result<(), Failure> {
        let connection = self.connection.as_mut().ok_or("an ack for nobody")?;
        let first = connection.pending.front();
        let is_next = first.is_some_and(|pending| pending.id == id);
        if !is_next {
            return Err(Failure::new("an ack that is not due", format!("of {id}")));
        }
        let Some(pending) = connection.pending.pop_front() else {
            return Err("an ack of nothing".into());
        };
        let took = judge.now - pending.at;
        match pending.asked {
            _ if answer["error"]["code"] == "token_expired"
                && judge.may_be_expired(connection.expires_wall_ms) =>
            {
                if let Asked::Send { number } = pending.asked {
                    sent[number].refused();
                    self.again.push(number);
                }
                Ok(())
            }
            Asked::Leave { room } => {
                connection.rooms.remove(&room);
                match answer["ok"].as_bool() {
                    Some(true) => Ok(()),
                    _ => Err("a leave that failed".into()),
                }
            }
            Asked::Join { room, last_seq } => self.joined(&room, last_seq, answer, judge),
            Asked::Binary => match answer["error"]["code"].as_str() {
                Some("invalid_payload") => Ok(()),
                _ => Err("an unknown event that succeeded".into()),
            },
            Asked::Authenticate {
                expires_wall_ms, ..
            } => match (answer["ok"].as_bool(), answer["error"]["code"].as_str()) {
                (Some(true), _) => {
                    connection.expires_wall_ms = expires_wall_ms;
                    Ok(())
                }
                // On its way a clock jumped.
                (_, Some("token_expired")) if judge.may_be_expired(expires_wall_ms) => Ok(()),
                _ => Err("a token that failed".into()),
            },
            Asked::Send { number } => {
                let is_late = took > ANSWER_WITHIN + judge.late;
                // Behind other output an answer is as late as the client reads, by polls of one payload each.
                let reads_all = connection.pace == Pace::Fast && connection.unread == 0;
                if is_late && reads_all && pending.is_prompt {
                    return Err(Failure::new("a late answer", format!("after {took:?}")));
                }
                if let Some(number) = sent[number].answered(number, answer, judge)? {
                    self.again.push(number);
                }
                Ok(())
            }
        }
    }

    fn joined(
        &mut self,
        room: &str,
        last_seq: Option<u64>,
        answer: &Value,
        judge: &Judge<'_>,
    ) -> Result<(), Failure> {
        let connection = self.connection.as_mut().ok_or("a join of nobody")?;
        let early = connection.early.remove(room).unwrap_or_default();
        let users = connection.early_users.remove(room).unwrap_or_default();
        if answer["ok"] != true {
            if last_seq.is_none() || answer["error"]["code"] != "unavailable" {
                return Err("a join failed that should not".into());
            }
            if !early.is_empty() {
                return Err("live messages before a replay that failed".into());
            }
            return Ok(());
        }
        let seq = answer["seq"].as_u64();
        if seq.is_some_and(|seq| seq > judge.store.head(room)) {
            return Err("a join with a number that is not stored".into());
        }
        if connection.rooms.contains_key(room) {
            return match answer["replayed"].as_u64() {
                Some(0) => Ok(()),
                _ => Err("a second join replays".into()),
            };
        }
        let last = match (last_seq, answer["recovered"].as_bool()) {
            (None, None) | (Some(_), Some(false)) => seq,
            (Some(last_seq), Some(true)) => {
                let seq = seq.ok_or("recovered up to nothing")?;
                if answer["replayed"].as_u64() != seq.checked_sub(last_seq) {
                    return Err("replays another number than is missed".into());
                }
                Some(last_seq)
            }
            _ => return Err("`recovered` where it is not, or not where it is".into()),
        };
        if last_seq.is_some() && !early.is_empty() {
            return Err("live messages before the replay".into());
        }
        let mut membership = Membership {
            last,
            replayed_to: seq.filter(|_| last_seq.is_some()),
            users,
            earlier: judge.users_of(room),
        };
        for seq in early {
            membership.receive(seq, judge)?;
        }
        connection.rooms.insert(room.into(), membership);
        Ok(())
    }
}

impl Membership {
    fn receive(&mut self, seq: u64, judge: &Judge<'_>) -> Result<(), Failure> {
        match self.last {
            Some(last) if seq <= last => {
                let detail = format!("{seq} came after {last}");
                return Err(Failure::new("twice, or out of order", detail));
            }
            Some(last) if seq > last + 1 && !judge.gaps_allowed => {
                return Err(Failure::new("a gap", format!("{seq} came after {last}")));
            }
            _ => self.last = Some(seq),
        }
        Ok(())
    }
}

impl Sent {
    fn refused(&mut self) {
        self.is_open = false;
        self.refused += 1;
    }

    /// Takes the answer of a try. `Some`: to be sent again.
    fn answered(
        &mut self,
        number: usize,
        answer: &Value,
        judge: &Judge<'_>,
    ) -> Result<Option<usize>, Failure> {
        self.is_open = false;
        if answer["ok"] == true {
            let seq = answer["seq"].as_u64().ok_or("an ack without a number")?;
            let id = answer["id"].as_str().unwrap_or_default().to_owned();
            let message = judge.store.message(&self.room, seq);
            let message = message.ok_or("acknowledged, but not stored")?;
            if *message.content != *self.content || message.id.to_string() != id {
                return Err("acknowledged under another message's number".into());
            }
            let first = self.stored.get_or_insert((seq, id.clone()));
            if *first != (seq, id) {
                return Err("acknowledged twice, under two numbers".into());
            }
            if self.tries == 1 && answer["duplicate"] == true {
                return Err("the first try is called a duplicate".into());
            }
            return Ok(None);
        }
        match answer["error"]["code"].as_str().unwrap_or_default() {
            "unavailable" | "not_in_room" => self.refused += 1,
            "timeout" => {}
            other => return Err(Failure::new("a send failed without a reason", other)),
        }
        Ok(self.key.is_some().then_some(number))
    }

    /// Compares all that was said about it with what is stored.
    pub(crate) fn check(&self, store: &SimulatedStore) -> Result<(), Failure> {
        let truth = store.truth.borrow();
        let list = truth.get(&*self.room).map_or(&[][..], |list| list);
        let count = list
            .iter()
            .filter(|message| *message.content == *self.content)
            .count();
        let rule = match (count, &self.stored) {
            (0, Some(_)) => "acknowledged, and not stored in the end",
            (2.., _) => "stored several times",
            (1, _) if self.refused == self.tries => "refused, and stored",
            _ => return Ok(()),
        };
        Err(Failure::new(rule, format!("{:.20}", self.content)))
    }
}
