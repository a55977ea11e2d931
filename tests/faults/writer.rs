//! Clients that write all the time, resend what was not acknowledged, and remember what was.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use serde_json::{Value, json};

use super::support::client::{Client, Via};
use super::support::server::Server;
use super::support::token::token;

/// Sends that wait for their acks at a time.
const WINDOW: usize = 16;

/// A user that writes to one room.
#[derive(Debug)]
pub(crate) struct Writer {
    pub(crate) room: String,
    pub(crate) user: String,
    via: Via,
    next: u64,
    /// `clientMsgId`s without an ack yet, sent or not.
    open: BTreeSet<u64>,
    /// `clientMsgId` to seq and id of the ack.
    pub(crate) acked: BTreeMap<u64, (u64, String)>,
    /// Refused for sure, and not sent again.
    pub(crate) refused: BTreeSet<u64>,
    /// Acks that said `duplicate`.
    pub(crate) duplicates: usize,
}

impl Writer {
    pub(crate) fn new(room: &str, user: &str, via: Via) -> Self {
        Self {
            room: room.to_owned(),
            user: user.to_owned(),
            via,
            next: 0,
            open: BTreeSet::new(),
            acked: BTreeMap::new(),
            refused: BTreeSet::new(),
            duplicates: 0,
        }
    }

    /// Writes until `stop`, or until the connection ends.
    pub(crate) fn write(&mut self, address: SocketAddr, stop: &AtomicBool) {
        let auth = json!({"token": token(&self.user)});
        let Ok(Ok(mut client)) = Client::try_connect(address, self.via, &auth, &[]) else {
            return;
        };
        client.ask("joinRoom", &json!({"roomId": self.room}));
        while !client.closed && !stop.load(Ordering::Relaxed) {
            while self.open.len() < WINDOW {
                self.open.insert(self.next);
                self.next += 1;
            }
            self.round(&mut client, Duration::from_secs(10));
            while client.event_within(Duration::ZERO).is_some() {}
        }
    }

    /// Sends what is open until nothing is, on a connection of its own.
    pub(crate) fn finish(&mut self, address: SocketAddr) {
        let mut client = Client::connect(address, self.via, &token(&self.user));
        client.join(&self.room);
        while !self.open.is_empty() {
            self.round(&mut client, Duration::from_secs(10));
            assert!(!client.closed, "the connection ended");
        }
    }

    /// Sends everything that is open, and takes the acks.
    fn round(&mut self, client: &mut Client, patience: Duration) {
        let keys: Vec<u64> = self.open.iter().copied().collect();
        let payloads: Vec<Value> = keys.iter().map(|key| self.payload(*key)).collect();
        let ids = client.ask_all("sendMessage", &payloads);
        for (key, id) in keys.into_iter().zip(ids) {
            match client.ack_within(id, patience) {
                Some(ack) if ack["ok"] == true => self.take(key, &ack),
                Some(ack) if ack["error"]["code"] == "unavailable" => {
                    self.open.remove(&key);
                    self.refused.insert(key);
                }
                Some(ack) => assert_eq!(ack["error"]["code"], "timeout", "{ack}"),
                None => return,
            }
        }
    }

    fn payload(&self, key: u64) -> Value {
        let content = format!("{} {key}", self.user);
        json!({"roomId": self.room, "content": content, "clientMsgId": key.to_string()})
    }

    fn take(&mut self, key: u64, ack: &Value) {
        let seq = ack["seq"].as_u64().expect("a seq");
        let id = ack["id"].as_str().expect("an id").to_owned();
        self.duplicates += usize::from(ack["duplicate"] == true);
        self.open.remove(&key);
        let before = self.acked.insert(key, (seq, id));
        assert_eq!(before, None, "acknowledged twice");
    }

    /// How many of its messages may be stored without an ack.
    pub(crate) fn open(&self) -> usize {
        self.open.len()
    }
}

/// Lets all writers write until `work` is done.
pub(crate) fn write_while(writers: &mut [Writer], address: SocketAddr, work: impl FnOnce()) {
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for writer in writers {
            let stop = &stop;
            scope.spawn(move || writer.write(address, stop));
        }
        work();
        stop.store(true, Ordering::Relaxed);
    });
}

/// That history has every acknowledged message once, where its ack said, and nothing that was
/// refused, and that each room's `seq` is dense.
pub(crate) fn check(writers: &[Writer], server: &Server) {
    let rooms: BTreeSet<&str> = writers.iter().map(|writer| writer.room.as_str()).collect();
    for room in rooms {
        let messages = server.all_messages(room);
        let mut found = BTreeMap::new();
        for (index, message) in messages.iter().enumerate() {
            assert_eq!(message["seq"], index as u64 + 1, "{room} is not dense");
            let text = |key: &str| message[key].as_str().expect("text").to_owned();
            let key = (text("userId"), text("clientMsgId"));
            let place = (message["seq"].as_u64().expect("a seq"), text("id"));
            let before = found.insert(key.clone(), place);
            assert_eq!(before, None, "{key:?} is stored twice");
        }
        let mut possible = 0;
        for writer in writers.iter().filter(|writer| writer.room == room) {
            for (key, place) in &writer.acked {
                let stored = found.get(&(writer.user.clone(), key.to_string()));
                assert_eq!(stored, Some(place), "{} {key} in {room}", writer.user);
            }
            for key in &writer.refused {
                let stored = found.get(&(writer.user.clone(), key.to_string()));
                assert_eq!(stored, None, "refused, yet stored: {} {key}", writer.user);
            }
            possible += writer.acked.len() + writer.open();
        }
        assert!(messages.len() <= possible, "{room} has messages of nobody");
    }
}
