//! Members who write all the time, and what each of them received: every acked message of its rooms
//! once, in the order of `seq`.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::thread::{JoinHandle, sleep};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::contract::Fleet;
use super::support::PATIENCE;
use super::support::client::{Client, Via};
use super::support::server::Server;
use super::support::token::token;

pub(crate) const ROOMS: usize = 10;
const SENDERS: usize = 20;
/// Between two messages of one sender.
const PAUSE: Duration = Duration::from_millis(100);
/// Acks of one sender that are awaited; one more is not sent before one of them has come.
const AWAITED_MAX: usize = 50;
/// A send is answered within 5 s; the rest is for a busy machine.
const ANSWERED_WITHIN: Duration = Duration::from_millis(6_500);

fn room(nth: usize) -> String {
    format!("room{nth}")
}

/// What all members share.
struct Shared {
    begun: Instant,
    is_quiet: AtomicBool,
    is_over: AtomicBool,
    /// Sends that are not answered yet.
    awaited: AtomicUsize,
    /// The highest acked number of each room.
    heads: [AtomicU64; ROOMS],
    /// Messages that members got from a sender of their own server: when, and after how many µs.
    local: Mutex<Vec<(Instant, u64)>>,
}

/// Members on every server, in every room.
pub(crate) struct Load {
    shared: &'static Shared,
    members: Vec<JoinHandle<Member>>,
}

struct Member {
    name: String,
    server: usize,
    client: Client,
    /// What was sent, by the id of its ack: the room, and when.
    awaited: BTreeMap<u64, (usize, Instant)>,
    /// Room, number and key of what was acked.
    acked: Vec<(usize, u64, String)>,
    keys: BTreeMap<u64, String>,
    next: usize,
    /// Per room, the numbers and keys received.
    seen: [Vec<(u64, String)>; ROOMS],
    is_dropped: bool,
}

impl Load {
    /// Begins, once everybody is in every room.
    pub(crate) fn start(fleet: &Fleet) -> Self {
        let shared: &'static Shared = Box::leak(Box::new(Shared {
            begun: Instant::now(),
            is_quiet: AtomicBool::new(false),
            is_over: AtomicBool::new(false),
            awaited: AtomicUsize::new(0),
            heads: Default::default(),
            local: Mutex::default(),
        }));
        let servers = fleet.servers.len();
        let members: Vec<Member> = (0..SENDERS)
            .map(|number| Member::join(&fleet.servers[number % servers], number % servers, number))
            .collect();
        let run = |member: Member| std::thread::spawn(move || member.run(shared));
        Self {
            shared,
            members: members.into_iter().map(run).collect(),
        }
    }

    /// Nobody writes from now on; what was sent is acked.
    pub(crate) fn hush(&self) {
        self.shared.is_quiet.store(true, Ordering::Relaxed);
    }

    /// The 99th percentile, in ms, of how long local deliveries took from then on.
    pub(crate) fn local_p99(&self, since: Instant) -> u64 {
        let local = self.shared.local.lock().expect("nobody panicked");
        let recent = local.iter().filter(|(at, _)| *at >= since);
        let mut times: Vec<u64> = recent.map(|(_, micros)| *micros).collect();
        times.sort_unstable();
        times.get(times.len() * 99 / 100).copied().unwrap_or(0) / 1_000
    }

    /// Ends it, and checks what everybody has got. Members of `gone` lost their server meanwhile.
    pub(crate) fn check(self, fleet: &Fleet, gone: Option<usize>) -> Duration {
        self.hush();
        let hushed = Instant::now();
        let alive = (0..fleet.servers.len()).find(|server| Some(*server) != gone);
        let alive = &fleet.servers[alive.expect("one is left")];
        // What was sent is acked first; then the newest stored message is what everybody must reach.
        sleep(Duration::from_millis(300));
        while self.shared.awaited.load(Ordering::Relaxed) > 0 && hushed.elapsed() < ANSWERED_WITHIN
        {
            sleep(Duration::from_millis(20));
        }
        let histories: Vec<Vec<Value>> = (0..ROOMS)
            .map(|nth| alive.all_messages(&room(nth)))
            .collect();
        for (head, history) in self.shared.heads.iter().zip(&histories) {
            head.fetch_max(history.len() as u64, Ordering::Relaxed);
        }
        self.shared.is_over.store(true, Ordering::Relaxed);
        let members = self.members.into_iter().map(JoinHandle::join);
        let members: Vec<Member> = members
            .map(|member| member.expect("a member ends"))
            .collect();
        let repaired = hushed.elapsed();
        let histories: Vec<Vec<Value>> = (0..ROOMS)
            .map(|nth| alive.all_messages(&room(nth)))
            .collect();
        let mut acked = 0;
        for member in &members {
            for (nth, seq, key) in &member.acked {
                let message = &histories[*nth][usize::try_from(*seq).expect("few") - 1];
                assert_eq!(
                    message["clientMsgId"], **key,
                    "{} room{nth}: {seq}",
                    member.name
                );
                acked += 1;
            }
            if Some(member.server) != gone {
                member.check(&histories);
            }
        }
        assert!(acked > 100, "only {acked} were acked");
        let total: usize = histories.iter().map(Vec::len).sum();
        eprintln!("{acked} acked, {total} stored, everybody had them {repaired:?} after the last");
        repaired
    }
}

impl Member {
    fn join(server: &Server, at: usize, number: usize) -> Self {
        let name = format!("user{number}");
        let mut client = Client::connect(server.address, Via::WebSocket, &token(&name));
        for nth in 0..ROOMS {
            assert_eq!(client.join(&room(nth))["seq"], 0);
        }
        Self {
            name,
            server: at,
            client,
            awaited: BTreeMap::new(),
            acked: Vec::new(),
            keys: BTreeMap::new(),
            next: number,
            seen: Default::default(),
            is_dropped: false,
        }
    }

    /// Writes and reads until it is over and everything has come, or time is up.
    fn run(mut self, shared: &Shared) -> Self {
        let mut next = Instant::now();
        while !shared.is_over.load(Ordering::Relaxed) && !self.client.closed {
            let now = Instant::now();
            let is_quiet = shared.is_quiet.load(Ordering::Relaxed);
            if !is_quiet && now >= next && self.awaited.len() < AWAITED_MAX {
                next = now.max(next + PAUSE);
                self.send(shared);
            }
            self.read(shared, Duration::from_millis(5));
        }
        if self.client.closed {
            let awaited = self.awaited.len();
            shared.awaited.fetch_sub(awaited, Ordering::Relaxed);
        }
        let over = Instant::now();
        while !self.client.closed && over.elapsed() < PATIENCE {
            let is_there = |nth: usize| {
                let last = self.seen[nth].last().map_or(0, |(seq, _)| *seq);
                last >= shared.heads[nth].load(Ordering::Relaxed)
            };
            if self.awaited.is_empty() && (0..ROOMS).all(is_there) {
                break;
            }
            self.read(shared, Duration::from_millis(20));
        }
        // Whatever came twice comes now.
        if !self.client.closed {
            self.read(shared, Duration::from_millis(300));
        }
        self.is_dropped = self.client.closed;
        self
    }

    fn send(&mut self, shared: &Shared) {
        let (nth, sent) = (self.next % ROOMS, Instant::now());
        let key = format!("{} {}", self.name, self.next);
        // Not all in one room at a time.
        self.next += 3;
        let micros = sent.duration_since(shared.begun).as_micros();
        let content = format!("{} {micros}", self.server);
        let payload = json!({"roomId": room(nth), "content": content, "clientMsgId": key});
        let id = self.client.ask("sendMessage", &payload);
        self.awaited.insert(id, (nth, sent));
        shared.awaited.fetch_add(1, Ordering::Relaxed);
        self.keys.insert(id, key);
    }

    fn read(&mut self, shared: &Shared, patience: Duration) {
        let until = Instant::now() + patience;
        loop {
            let left = until.saturating_duration_since(Instant::now());
            let Some((name, payload)) = self.client.event_within(left) else {
                break;
            };
            if name == "receiveMessage" {
                self.take(shared, &payload);
            } else {
                assert!(
                    matches!(&*name, "userJoined" | "userLeft"),
                    "{name} {payload}"
                );
            }
        }
        let ids: Vec<u64> = self.awaited.keys().copied().collect();
        for id in ids {
            let Some(ack) = self.client.ack_within(id, Duration::ZERO) else {
                let (_, sent) = self.awaited[&id];
                let is_late = !self.client.closed && sent.elapsed() > ANSWERED_WITHIN;
                assert!(!is_late, "{} is not answered", self.name);
                continue;
            };
            assert_eq!(ack["ok"], true, "Redis is no reason to refuse: {ack}");
            let (nth, _) = self.awaited.remove(&id).expect("it is awaited");
            shared.awaited.fetch_sub(1, Ordering::Relaxed);
            let seq = ack["seq"].as_u64().expect("a seq");
            shared.heads[nth].fetch_max(seq, Ordering::Relaxed);
            self.acked.push((nth, seq, self.keys[&id].clone()));
        }
    }

    fn take(&mut self, shared: &Shared, payload: &Value) {
        let room = payload["roomId"].as_str().expect("a room");
        let nth: usize = room["room".len()..].parse().expect("a number");
        let seq = payload["seq"].as_u64().expect("a seq");
        let key = payload["clientMsgId"].as_str().expect("a key").to_owned();
        self.seen[nth].push((seq, key));
        let content = payload["content"].as_str().expect("text");
        let (server, micros) = content.split_once(' ').expect("two numbers");
        if server == self.server.to_string() {
            let micros: u64 = micros.parse().expect("a number");
            let now = Instant::now();
            let since = now.duration_since(shared.begun).as_micros();
            let since = u64::try_from(since).expect("not for long");
            let mut local = shared.local.lock().expect("nobody panicked");
            local.push((now, since.saturating_sub(micros)));
        }
    }

    /// Everything once, in order, and nothing else.
    fn check(&self, histories: &[Vec<Value>]) {
        assert!(!self.is_dropped, "{} was dropped", self.name);
        for (nth, (seen, history)) in self.seen.iter().zip(histories).enumerate() {
            let stored = (1..).zip(history.iter().map(|message| {
                let key = message["clientMsgId"].as_str().expect("a key");
                key.to_owned()
            }));
            let stored: Vec<(u64, String)> = stored.collect();
            if *seen == stored {
                continue;
            }
            let numbers: Vec<u64> = seen.iter().map(|(seq, _)| *seq).collect();
            let at = seen
                .iter()
                .zip(&stored)
                .position(|(seen, stored)| seen != stored);
            let at = at.unwrap_or(seen.len().min(stored.len()));
            let around = &numbers[at.saturating_sub(3)..numbers.len().min(at + 5)];
            panic!(
                "{} in room{nth}: {} of {} messages; from number {} on it got {around:?}",
                self.name,
                seen.len(),
                stored.len(),
                at + 1
            );
        }
    }
}
