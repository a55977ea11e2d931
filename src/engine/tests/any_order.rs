//! Any order of steps: a client that keeps the rules loses nothing, whatever happens when.

use proptest::prelude::*;

use super::*;

/// What may happen next to a session that moves from polling to a WebSocket.
#[derive(Debug, Clone)]
enum Move {
    Send,
    Get,
    Take,
    Post,
    Probe,
    Ping,
    Upgrade,
    Abandon,
    Write(usize),
    Wait(u64),
}

fn any_move() -> impl Strategy<Value = Move> {
    prop_oneof![
        4 => Just(Move::Send),
        3 => Just(Move::Get),
        3 => Just(Move::Take),
        2 => Just(Move::Post),
        2 => Just(Move::Probe),
        3 => Just(Move::Ping),
        2 => Just(Move::Upgrade),
        1 => Just(Move::Abandon),
        3 => (0usize..40).prop_map(Move::Write),
        1 => (0u64..4000).prop_map(Move::Wait),
    ]
}

/// A client that keeps the rules, and what reached it.
struct Client {
    world: World,
    key: Key,
    sent: usize,
    posted: usize,
    polling: bool,
    probing: bool,
    wire: Vec<u8>,
    received: Vec<String>,
}

impl Client {
    fn new() -> Self {
        let (world, key) = World::opened(Transport::Polling);
        Self {
            world,
            key,
            sent: 0,
            posted: 0,
            polling: false,
            probing: false,
            wire: Vec::new(),
            received: Vec::new(),
        }
    }

    fn upgraded(&self) -> bool {
        self.world.engine.transport(self.key) == Some(Transport::WebSocket)
    }

    fn step(&mut self, next: &Move) {
        let (engine, key) = (self.world.engine.clone(), self.key);
        match *next {
            Move::Send => {
                self.world.send(key, &self.sent.to_string());
                self.sent += 1;
            }
            Move::Get if !self.polling && !self.upgraded() => {
                engine.begin_poll(key).expect("one GET is let in");
                self.polling = true;
            }
            Move::Take if self.polling => {
                if let Some(body) = self.world.take(key) {
                    self.polling = false;
                    self.take_payload(&body);
                }
            }
            Move::Post => {
                let via = if self.upgraded() {
                    Transport::WebSocket
                } else {
                    Transport::Polling
                };
                let packet = format!("4{}", self.posted);
                assert_eq!(self.world.receive(key, via, &packet), GO_ON);
                self.posted += 1;
            }
            Move::Probe if !self.probing && !self.upgraded() => {
                engine.begin_probe(key).expect("one probe is let in");
                self.probing = true;
            }
            Move::Ping | Move::Upgrade if self.probing => {
                let packet = if matches!(next, Move::Ping) {
                    "2probe"
                } else {
                    "5"
                };
                match self.world.receive(key, Transport::WebSocket, packet) {
                    Outcome::ProbeRefused => self.abandon(),
                    Outcome::Upgraded => self.probing = false,
                    outcome => assert_eq!(outcome, Outcome::AnswerProbe),
                }
            }
            Move::Abandon if self.probing => self.abandon(),
            Move::Write(limit) if self.upgraded() => self.write(limit),
            Move::Wait(ms) => self.world.wait(Duration::from_millis(ms)),
            _ => {}
        }
    }

    fn abandon(&mut self) {
        self.world.engine.detach(self.key);
        self.probing = false;
    }

    fn write(&mut self, limit: usize) {
        let bytes = self.world.waiting(self.key).concat().into_iter();
        let bytes: Vec<u8> = bytes.take(limit).collect();
        self.world.engine.transmitted(self.key, bytes.len());
        self.wire.extend(bytes);
    }

    fn take_payload(&mut self, body: &str) {
        for packet in decode_payload(&Text::from(body)) {
            match packet.expect("we send packets") {
                Packet::Message(Content::Text(text)) => self.received.push(text.to_string()),
                packet => assert!(matches!(packet, Packet::Noop | Packet::Ping { .. })),
            }
        }
    }

    /// Fetches what is left, and reads the frames that came.
    fn finish(&mut self) {
        if self.upgraded() {
            self.write(usize::MAX);
            while self.world.engine.outbox_bytes(self.key) > 0 {
                self.write(usize::MAX);
            }
        } else if self.world.engine.outbox_bytes(self.key) > 0 {
            self.step(&Move::Get);
            self.step(&Move::Take);
        }
        let mut wire = std::mem::take(&mut self.wire);
        while !wire.is_empty() {
            let rest = wire.split_off(2 + usize::from(wire[1]));
            let body = String::from_utf8(wire.split_off(2)).expect("we send UTF-8");
            self.take_payload(&body);
            wire = rest;
        }
    }
}

proptest! {
    #[test]
    fn no_order_of_steps_loses_doubles_or_swaps_a_packet(
        moves in proptest::collection::vec(any_move(), 1..120)
    ) {
        let mut client = Client::new();
        for next in &moves {
            client.step(next);
            if !client.world.engine.is_open(client.key) {
                // Only a pong that never came may end it.
                prop_assert!(
                    client.world.handler.take().contains(&Told::Close(CloseReason::PingTimeout))
                );
                return Ok(());
            }
        }
        client.finish();
        let numbers = |count: usize| (0..count).map(|n| n.to_string()).collect::<Vec<_>>();
        prop_assert_eq!(&client.received, &numbers(client.sent));
        let posted = numbers(client.posted).into_iter().map(Told::Message);
        prop_assert_eq!(client.world.handler.take(), posted.collect::<Vec<_>>());
    }
}
