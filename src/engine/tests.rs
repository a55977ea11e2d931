//! The engine as a whole, on made-up instants.
#![expect(
    clippy::unchecked_time_subtraction,
    reason = "the durations are constants of the tests"
)]

mod any_order;

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::pin::pin;
use std::task::Waker;

use super::*;
use crate::metrics::testing::bounds_met;
use crate::wire::Text;
use crate::wire::engine_io::decode_payload;

/// What the handler was told.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Told {
    Open,
    Message(String),
    Close(CloseReason),
}

/// A handler that writes down what it is told, and answers as a test wants.
#[derive(Default)]
struct Recorder {
    told: RefCell<Vec<Told>>,
    pause: Cell<bool>,
    /// Called from inside every call, to step the engine once more.
    reenter: RefCell<Option<Reenter>>,
}

type Reenter = Box<dyn Fn(Key)>;

impl Recorder {
    fn record(&self, key: Key, told: Told) {
        self.told.borrow_mut().push(told);
        if let Some(reenter) = &*self.reenter.borrow() {
            reenter(key);
        }
    }

    fn take(&self) -> Vec<Told> {
        self.told.take()
    }
}

impl Handler for Recorder {
    fn on_open(&self, key: Key, _handshake: Handshake) {
        self.record(key, Told::Open);
    }

    fn on_message(&self, key: Key, content: Content) -> Flow {
        let text = match content {
            Content::Text(text) => text.to_string(),
            Content::Binary(bytes) => format!("{bytes:?}"),
        };
        self.record(key, Told::Message(text));
        if self.pause.get() {
            Flow::Pause
        } else {
            Flow::Continue
        }
    }

    fn on_close(&self, key: Key, reason: CloseReason) {
        self.record(key, Told::Close(reason));
    }
}

/// An engine, its clock, and what its handler heard.
struct World {
    env: Rc<Env>,
    engine: Engine,
    handler: Rc<Recorder>,
}

const INTERVAL: Duration = Duration::from_secs(25);
const TIMEOUT: Duration = Duration::from_secs(20);

impl World {
    fn new() -> Self {
        Self::with(Options::default())
    }

    fn with(options: Options) -> Self {
        let env = Env::seeded(1);
        let engine = Engine::new(Rc::clone(&env), options);
        let handler = Rc::new(Recorder::default());
        engine.set_handler(Rc::clone(&handler) as Rc<dyn Handler>);
        Self {
            env,
            engine,
            handler,
        }
    }

    /// A session whose open packet was fetched.
    fn opened(transport: Transport) -> (Self, Key) {
        let world = Self::new();
        let key = world.open(transport);
        match transport {
            Transport::Polling => drop(world.poll(key)),
            Transport::WebSocket => drop(world.frames(key)),
        }
        world.handler.take();
        (world, key)
    }

    fn open(&self, transport: Transport) -> Key {
        let handshake = Handshake {
            address: Ipv4Addr::LOCALHOST.into(),
            headers: Vec::new(),
            query: "".into(),
            secure: false,
            issued_wall_ms: self.env.wall_ms(),
        };
        self.engine.open(transport, handshake)
    }

    /// One GET that finds something.
    fn poll(&self, key: Key) -> String {
        self.engine.begin_poll(key).expect("the GET is let in");
        self.take(key).expect("something waits for the GET")
    }

    fn take(&self, key: Key) -> Option<String> {
        let payload = self.engine.take_payload(key)?;
        Some(String::from_utf8(payload.body).expect("a payload is UTF-8"))
    }

    /// What is left of the frames that wait for the WebSocket.
    fn waiting(&self, key: Key) -> Vec<Vec<u8>> {
        let look = |waiting: Waiting<'_>| waiting.frames().map(<[u8]>::to_vec).collect();
        self.engine.transmit(key, look)
    }

    /// Takes all frames that wait for the WebSocket. Returns them without their two-byte heads.
    fn frames(&self, key: Key) -> Vec<String> {
        let frames = self.waiting(key);
        let bytes = frames.iter().map(Vec::len).sum();
        self.engine.transmitted(key, bytes);
        let text = |frame: &Vec<u8>| String::from_utf8_lossy(&frame[2..]).into_owned();
        frames.iter().map(text).collect()
    }

    /// One packet of the client.
    fn receive(&self, key: Key, via: Transport, packet: &str) -> Outcome {
        let packet = crate::wire::engine_io::decode(&Text::from(packet)).expect("a packet");
        self.engine.receive(key, via, packet)
    }

    fn send(&self, key: Key, body: &str) {
        self.engine.send(key, &[Encoded::text('4', body)]);
    }

    fn wait(&self, by: Duration) {
        self.env.advance(by);
        self.engine.tick();
    }

    fn dirty(&self) -> Vec<Key> {
        let mut dirty = Vec::new();
        self.engine.take_dirty(&mut dirty);
        dirty
    }

    /// Takes a polling session through probe and upgrade.
    fn upgrade(&self, key: Key) {
        self.engine.begin_probe(key).expect("the probe is let in");
        let answer = self.receive(key, Transport::WebSocket, "2probe");
        assert_eq!(answer, Outcome::AnswerProbe);
        let done = self.receive(key, Transport::WebSocket, "5");
        assert_eq!(done, Outcome::Upgraded);
    }
}

fn is_ready(future: impl Future<Output = ()>) -> bool {
    let mut cx = Context::from_waker(Waker::noop());
    pin!(future).poll(&mut cx).is_ready()
}

const GO_ON: Outcome = Outcome::Taken(Flow::Continue);

#[test]
fn the_handshake_has_exactly_the_five_keys() {
    let world = World::new();
    for (transport, upgrades) in [
        (Transport::Polling, r#"["websocket"]"#),
        (Transport::WebSocket, "[]"),
    ] {
        let key = world.open(transport);
        let open = if transport == Transport::Polling {
            world.poll(key)
        } else {
            world.frames(key).concat()
        };
        let sid = world.engine.sid(key).expect("it is open");
        let expected = format!(
            "0{{\"sid\":\"{}\",\"upgrades\":{upgrades},\"pingInterval\":25000,\
             \"pingTimeout\":20000,\"maxPayload\":1000000}}",
            sid.as_str()
        );
        assert!(open.ends_with(&expected[2..]), "{open}");
        assert_eq!(world.engine.find(&sid), Some(key));
    }
    assert_eq!(world.handler.take(), [Told::Open, Told::Open]);
    assert_eq!(world.engine.session_count(), 2);
}

#[test]
fn offers_no_upgrade_when_there_is_none() {
    let world = World::with(Options {
        upgrades: false,
        ..Options::default()
    });
    let key = world.open(Transport::Polling);
    assert!(world.poll(key).contains(r#""upgrades":[]"#));
}

// Heartbeat.

#[test]
fn pings_after_the_interval_and_again_after_each_pong() {
    let (world, key) = World::opened(Transport::WebSocket);
    world.wait(INTERVAL - Duration::from_millis(1));
    assert_eq!(world.frames(key), Vec::<String>::new());
    world.wait(INTERVAL / 64);
    assert_eq!(world.frames(key), ["2"]);
    world.wait(Duration::from_secs(5));
    assert_eq!(world.receive(key, Transport::WebSocket, "3"), GO_ON);
    world.wait(INTERVAL - Duration::from_millis(1));
    assert_eq!(world.frames(key), Vec::<String>::new());
    world.wait(INTERVAL / 64);
    assert_eq!(world.frames(key), ["2"]);
    assert!(world.handler.take().is_empty());
}

#[test]
fn closes_without_a_pong_and_messages_do_not_count() {
    let (world, key) = World::opened(Transport::WebSocket);
    world.wait(INTERVAL + INTERVAL / 64);
    world.receive(key, Transport::WebSocket, "4here");
    world.wait(TIMEOUT - INTERVAL / 64);
    world.wait(INTERVAL / 64);
    assert_eq!(
        world.handler.take(),
        [
            Told::Message("here".into()),
            Told::Close(CloseReason::PingTimeout)
        ]
    );
    assert_eq!(world.engine.session_count(), 0);
}

#[test]
fn a_request_at_the_pong_s_deadline_is_late_even_if_no_timer_fired() {
    for late in [Duration::ZERO, Duration::from_millis(90)] {
        let (world, key) = World::opened(Transport::Polling);
        let sid = world.engine.sid(key).expect("it is open");
        world.wait(INTERVAL + late);
        assert_eq!(world.engine.find(&sid), Some(key));
        world.env.advance(TIMEOUT - late - Duration::from_millis(1));
        assert_eq!(world.engine.find(&sid), Some(key));
        world.env.advance(Duration::from_millis(1));
        assert_eq!(world.engine.find(&sid), None);
        assert_eq!(
            world.handler.take(),
            [Told::Close(CloseReason::PingTimeout)]
        );
    }
}

#[test]
fn a_request_is_late_even_if_the_ping_never_left() {
    let (world, key) = World::opened(Transport::Polling);
    let sid = world.engine.sid(key).expect("it is open");
    world.env.advance(INTERVAL + TIMEOUT);
    assert_eq!(world.engine.find(&sid), None);
}

#[test]
fn a_shard_that_stood_still_leaves_the_client_time_for_its_pong() {
    let (world, key) = World::opened(Transport::WebSocket);
    world.wait(INTERVAL + TIMEOUT);
    assert_eq!(world.frames(key), ["2"]);
    world.wait(TIMEOUT / 2 - Duration::from_secs(1));
    assert!(world.engine.is_open(key));
}

#[test]
fn the_timer_looks_no_earlier_than_needed() {
    let (world, _) = World::opened(Transport::WebSocket);
    let wait = world.engine.next_deadline().expect("a ping is due") - world.env.now();
    assert!(
        wait >= INTERVAL && wait < INTERVAL + INTERVAL / 64,
        "{wait:?}"
    );
}

// Polling.

#[test]
fn a_get_waits_and_takes_everything_in_order() {
    let (world, key) = World::opened(Transport::Polling);
    world.engine.begin_poll(key).expect("the GET is let in");
    assert_eq!(world.take(key), None);
    let changed = world.engine.changed(key);
    world.send(key, "a");
    world.send(key, "b");
    assert!(is_ready(changed));
    assert_eq!(world.take(key).as_deref(), Some("4a\u{1e}4b"));
    assert_eq!(world.take(key), None, "the GET was answered");
}

#[test]
fn one_packet_that_must_not_be_compressed_decides_for_its_payload() {
    let (world, key) = World::opened(Transport::Polling);
    let packet = Encoded::text('4', "a");
    world
        .engine
        .send(key, &[packet.clone(), packet.clone().uncompressed()]);
    world.engine.begin_poll(key).expect("the GET is let in");
    assert!(!world.engine.take_payload(key).expect("output").compress);
    world.engine.send(key, &[packet]);
    world.engine.begin_poll(key).expect("the GET is let in");
    assert!(world.engine.take_payload(key).expect("output").compress);
}

#[test]
fn a_second_get_closes_the_session() {
    let (world, key) = World::opened(Transport::Polling);
    let sid = world.engine.sid(key).expect("it is open");
    world.engine.begin_poll(key).expect("the GET is let in");
    assert_eq!(world.engine.begin_poll(key), Err(Refusal::Overlap));
    assert_eq!(world.engine.find(&sid), None);
    assert_eq!(world.take(key).as_deref(), Some("1"));
    assert_eq!(
        world.handler.take(),
        [Told::Close(CloseReason::TransportError)]
    );
    assert_eq!(world.engine.transport(key), None, "its place is free");
}

#[test]
fn a_second_post_closes_the_session() {
    let (world, key) = World::opened(Transport::Polling);
    world.engine.begin_post(key).expect("the POST is let in");
    assert_eq!(world.engine.begin_post(key), Err(Refusal::Overlap));
    assert_eq!(world.engine.begin_post(key), Err(Refusal::Unknown));
    assert_eq!(
        world.receive(key, Transport::Polling, "4late"),
        Outcome::Closed
    );
    assert_eq!(
        world.handler.take(),
        [Told::Close(CloseReason::TransportError)]
    );
}

#[test]
fn posts_follow_each_other_beside_a_get() {
    let (world, key) = World::opened(Transport::Polling);
    world.engine.begin_poll(key).expect("the GET is let in");
    for body in ["4a", "4b"] {
        world.engine.begin_post(key).expect("the POST is let in");
        assert_eq!(world.receive(key, Transport::Polling, body), GO_ON);
        world.engine.end_post(key);
    }
    assert_eq!(
        world.handler.take(),
        [Told::Message("a".into()), Told::Message("b".into())]
    );
}

#[test]
fn a_client_that_leaves_its_get_or_its_post_is_gone() {
    for abort in [Engine::abort_poll, Engine::abort_post] {
        let (world, key) = World::opened(Transport::Polling);
        let sid = world.engine.sid(key).expect("it is open");
        world.engine.begin_poll(key).expect("the GET is let in");
        world.engine.begin_post(key).expect("the POST is let in");
        abort(&world.engine, key);
        assert_eq!(world.engine.find(&sid), None);
        assert_eq!(
            world.handler.take(),
            [Told::Close(CloseReason::TransportError)]
        );
    }
}

#[test]
fn a_client_s_close_packet_releases_its_get_with_a_noop() {
    let (world, key) = World::opened(Transport::Polling);
    let sid = world.engine.sid(key).expect("it is open");
    world.engine.begin_poll(key).expect("the GET is let in");
    assert_eq!(world.receive(key, Transport::Polling, "1"), Outcome::Closed);
    assert_eq!(world.engine.find(&sid), None);
    assert_eq!(world.take(key).as_deref(), Some("6"));
    assert_eq!(
        world.handler.take(),
        [Told::Close(CloseReason::TransportClose)]
    );
}

#[test]
fn our_close_reaches_the_pending_get_after_what_was_queued() {
    let (world, key) = World::opened(Transport::Polling);
    world.engine.begin_poll(key).expect("the GET is let in");
    world.send(key, "bye");
    world.engine.close(key, CloseReason::ForcedClose);
    world.send(key, "never");
    // Apart: a client that finds both in one payload ends before it has looked at the message.
    assert_eq!(world.take(key).as_deref(), Some("4bye"));
    assert_eq!(world.poll(key), "1");
    assert_eq!(world.engine.transport(key), None);
    assert_eq!(
        world.handler.take(),
        [Told::Close(CloseReason::ForcedClose)]
    );
}

#[test]
fn a_server_that_goes_away_says_no_close_packet() {
    let (world, key) = World::opened(Transport::Polling);
    world.engine.begin_poll(key).expect("the GET is let in");
    world.engine.close(key, CloseReason::ServerShuttingDown);
    assert_eq!(world.take(key).as_deref(), Some("6"));
    assert_eq!(world.engine.transport(key), None, "the next GET is unknown");
}

#[test]
fn our_close_waits_thirty_seconds_for_the_next_get() {
    for (wait, found) in [(29, true), (31, false)] {
        let (world, key) = World::opened(Transport::Polling);
        let sid = world.engine.sid(key).expect("it is open");
        world.engine.close(key, CloseReason::ForcedServerClose);
        assert_eq!(world.engine.session_count(), 0);
        world.wait(Duration::from_secs(wait));
        assert_eq!(world.engine.find(&sid).is_some(), found);
        if found {
            assert_eq!(world.poll(key), "1");
        }
        assert_eq!(world.engine.find(&sid), None);
        assert_eq!(world.engine.transport(key), None);
    }
}

#[test]
fn a_closing_session_takes_posts_and_ignores_them() {
    let (world, key) = World::opened(Transport::Polling);
    world.engine.close(key, CloseReason::ForcedClose);
    world.engine.begin_post(key).expect("the POST is let in");
    assert_eq!(
        world.receive(key, Transport::Polling, "4x"),
        Outcome::Closed
    );
    assert_eq!(world.receive(key, Transport::Polling, "1"), Outcome::Closed);
    assert_eq!(
        world.handler.take(),
        [Told::Close(CloseReason::ForcedClose)]
    );
    assert_eq!(world.engine.transport(key), None, "nobody waits for the 1");
}

#[test]
fn packets_that_make_no_sense_are_ignored_but_a_ping_is_an_error() {
    let (world, key) = World::opened(Transport::Polling);
    for packet in ["0", "5", "6", "3"] {
        assert_eq!(world.receive(key, Transport::Polling, packet), GO_ON);
    }
    for ping in ["2", "2probe"] {
        let (world, key) = World::opened(Transport::WebSocket);
        let outcome = world.receive(key, Transport::WebSocket, ping);
        assert_eq!(outcome, Outcome::Closed);
        assert_eq!(
            world.handler.take(),
            [Told::Close(CloseReason::TransportError)]
        );
    }
}

// Upgrade.

#[test]
fn an_upgrade_releases_the_get_and_moves_the_outbox() {
    let (world, key) = World::opened(Transport::Polling);
    world.engine.begin_poll(key).expect("the GET is let in");
    world.engine.begin_probe(key).expect("the probe is let in");
    assert_eq!(world.take(key), None, "nothing was probed yet");
    let changed = world.engine.changed(key);
    let answer = world.receive(key, Transport::WebSocket, "2probe");
    assert_eq!(answer, Outcome::AnswerProbe);
    assert!(is_ready(changed));
    assert_eq!(world.take(key).as_deref(), Some("6"));
    // Both ways stay open until `5`.
    assert_eq!(world.receive(key, Transport::Polling, "4posted"), GO_ON);
    world.send(key, "polled");
    assert_eq!(world.poll(key), "4polled");
    world.send(key, "waits");
    assert!(world.frames(key).is_empty());
    let done = world.receive(key, Transport::WebSocket, "5");
    assert_eq!(done, Outcome::Upgraded);
    assert_eq!(world.frames(key), ["4waits"]);
    assert_eq!(world.engine.begin_poll(key), Err(Refusal::WrongTransport));
    assert_eq!(world.engine.begin_post(key), Err(Refusal::WrongTransport));
    assert_eq!(world.receive(key, Transport::WebSocket, "4framed"), GO_ON);
    assert_eq!(
        world.handler.take(),
        [
            Told::Message("posted".into()),
            Told::Message("framed".into())
        ]
    );
}

#[test]
fn our_close_during_an_upgrade_goes_by_the_websocket() {
    let (world, key) = World::opened(Transport::Polling);
    world.engine.begin_poll(key).expect("the GET is let in");
    world.engine.begin_probe(key).expect("the probe is let in");
    world.receive(key, Transport::WebSocket, "2probe");
    assert_eq!(world.take(key).as_deref(), Some("6"));
    // The client polls no more, and has not said `5` yet.
    world.send(key, "bye");
    world.engine.close(key, CloseReason::ForcedClose);
    assert!(world.engine.is_probing(key));
    let done = world.receive(key, Transport::WebSocket, "5");
    assert_eq!(done, Outcome::Upgraded);
    assert_eq!(world.frames(key), ["4bye"]);
    assert_eq!(world.engine.closing(key), Some(CloseReason::ForcedClose));
    world.engine.detach(key);
    assert_eq!(world.engine.transport(key), None);
}

#[test]
fn a_client_that_polls_on_during_its_upgrade_hears_of_our_close() {
    let (world, key) = World::opened(Transport::Polling);
    world.engine.begin_probe(key).expect("the probe is let in");
    world.receive(key, Transport::WebSocket, "2probe");
    world.engine.close(key, CloseReason::ForcedClose);
    for _ in 0..3 {
        assert_eq!(world.poll(key), "6");
    }
    assert_eq!(world.poll(key), "1");
    assert!(!world.engine.is_probing(key));
    world.engine.detach(key);
    assert_eq!(world.engine.transport(key), None);
}

/// One that is closing was counted out already, as the session of a poller that it was.
#[test]
fn who_goes_over_while_closing_is_not_counted_again() {
    let recorder = metrics_exporter_prometheus::PrometheusBuilder::new().build_recorder();
    metrics::with_local_recorder(&recorder, || {
        let world = World::new();
        world.engine.set_metrics(Rc::new(Metrics::new(0)));
        for closes_first in [false, true] {
            let key = world.open(Transport::Polling);
            world.engine.begin_probe(key).expect("the probe is let in");
            world.receive(key, Transport::WebSocket, "2probe");
            if closes_first {
                world.engine.close(key, CloseReason::ForcedClose);
            }
            let outcome = world.receive(key, Transport::WebSocket, "5");
            assert_eq!(outcome, Outcome::Upgraded);
            world.engine.close(key, CloseReason::TransportClose);
            world.engine.detach(key);
        }
    });
    let rendered = recorder.handle().render();
    let open = rendered
        .lines()
        .filter(|line| line.starts_with("yum_sessions{"));
    let open: Vec<_> = open.collect();
    assert_eq!(open.len(), 2, "{rendered}");
    assert!(open.iter().all(|line| line.ends_with(" 0")), "{open:?}");
}

#[test]
fn our_close_ends_a_probe_that_was_not_answered() {
    let (world, key) = World::opened(Transport::Polling);
    world.engine.begin_probe(key).expect("the probe is let in");
    world.engine.close(key, CloseReason::ForcedClose);
    assert!(!world.engine.is_probing(key));
    assert_eq!(world.poll(key), "1");
}

#[test]
fn a_get_that_is_still_pending_after_the_upgrade_gets_a_noop() {
    let (world, key) = World::opened(Transport::Polling);
    world.engine.begin_poll(key).expect("the GET is let in");
    world.upgrade(key);
    world.send(key, "framed");
    assert_eq!(world.take(key).as_deref(), Some("6"));
    assert_eq!(world.frames(key), ["4framed"]);
}

#[test]
fn a_probe_that_says_anything_else_first_is_refused_and_polling_goes_on() {
    for packet in ["5", "2", "4hello", "3probe", "1", "6"] {
        let (world, key) = World::opened(Transport::Polling);
        world.engine.begin_probe(key).expect("the probe is let in");
        let outcome = world.receive(key, Transport::WebSocket, packet);
        assert_eq!(outcome, Outcome::ProbeRefused, "{packet}");
        world.engine.detach(key);
        world.send(key, "on");
        assert_eq!(world.poll(key), "4on");
        world.upgrade(key);
        assert!(world.handler.take().is_empty());
    }
}

#[test]
fn a_message_between_probe_and_upgrade_is_refused() {
    let (world, key) = World::opened(Transport::Polling);
    world.engine.begin_probe(key).expect("the probe is let in");
    world.receive(key, Transport::WebSocket, "2probe");
    let outcome = world.receive(key, Transport::WebSocket, "4early");
    assert_eq!(outcome, Outcome::ProbeRefused);
    assert!(world.handler.take().is_empty());
}

#[test]
fn an_upgrade_must_end_in_time_and_polling_goes_on() {
    let (world, key) = World::opened(Transport::Polling);
    world.engine.begin_probe(key).expect("the probe is let in");
    world.receive(key, Transport::WebSocket, "2probe");
    world.dirty();
    world.wait(Duration::from_millis(9_900));
    assert!(world.engine.is_probing(key));
    world.wait(Duration::from_millis(600));
    assert!(!world.engine.is_probing(key));
    assert_eq!(world.dirty(), [key], "its driver is told");
    let late = world.receive(key, Transport::WebSocket, "5");
    assert_eq!(late, Outcome::ProbeRefused);
    assert_eq!(
        world.engine.begin_probe(key),
        Err(Refusal::AlreadyUpgrading),
        "the old one is not gone yet"
    );
    world.engine.detach(key);
    world.send(key, "on");
    assert_eq!(world.poll(key), "4on");
    world.upgrade(key);
}

#[test]
fn a_second_upgrade_does_not_disturb_the_first() {
    let (world, key) = World::opened(Transport::Polling);
    world.engine.begin_probe(key).expect("the probe is let in");
    let refused = Err(Refusal::AlreadyUpgrading);
    assert_eq!(world.engine.begin_probe(key), refused);
    world.receive(key, Transport::WebSocket, "2probe");
    assert_eq!(world.engine.begin_probe(key), refused);
    let done = world.receive(key, Transport::WebSocket, "5");
    assert_eq!(done, Outcome::Upgraded);
    assert_eq!(world.engine.begin_probe(key), refused);
}

#[test]
fn an_upgrade_clears_the_pong_s_deadline_and_pings_go_on() {
    let (world, key) = World::opened(Transport::Polling);
    world.wait(INTERVAL + INTERVAL / 64);
    assert_eq!(world.poll(key), "2");
    world.upgrade(key);
    world.wait(TIMEOUT);
    assert!(world.engine.is_open(key), "the pong may have been lost");
    world.wait(INTERVAL / 64);
    assert_eq!(world.frames(key), ["2"]);
    world.wait(TIMEOUT + INTERVAL / 64);
    assert!(!world.engine.is_open(key));
}

#[test]
fn an_upgrade_leaves_the_next_ping_where_it_was() {
    let (world, key) = World::opened(Transport::Polling);
    world.wait(INTERVAL / 2);
    world.upgrade(key);
    world.wait(INTERVAL / 2 + INTERVAL / 64);
    assert_eq!(world.frames(key), ["2"]);
}

#[test]
fn a_close_ends_the_probe_too() {
    let (world, key) = World::opened(Transport::Polling);
    world.engine.begin_probe(key).expect("the probe is let in");
    world.dirty();
    world.engine.close(key, CloseReason::PingTimeout);
    assert!(!world.engine.is_probing(key));
    assert_eq!(world.dirty(), [key]);
    let outcome = world.receive(key, Transport::WebSocket, "2probe");
    assert_eq!(outcome, Outcome::Closed);
    world.engine.detach(key);
    assert_eq!(world.engine.transport(key), None);
}

// Outbox and close on a WebSocket.

#[test]
fn a_partial_send_goes_on_where_it_stopped() {
    let (world, key) = World::opened(Transport::WebSocket);
    world.send(key, "hello");
    world.send(key, "you");
    let sent = |waiting: Waiting<'_>| waiting.sent();
    assert_eq!(world.engine.transmit(key, sent), 0);
    world.engine.transmitted(key, 5);
    assert_eq!(world.engine.transmit(key, sent), 5);
    assert_eq!(world.waiting(key), [&b"llo"[..], b"\x81\x044you"]);
    world.engine.transmitted(key, 3);
    assert_eq!(world.engine.transmit(key, sent), 0);
    world.engine.transmitted(key, 1);
    assert_eq!(world.waiting(key), [&b"\x044you"[..]]);
    assert_eq!(world.engine.outbox_bytes(key), 6 + 64);
    world.engine.transmitted(key, 5);
    assert_eq!(world.engine.outbox_bytes(key), 0);
    assert!(world.engine.is_writable(key));
}

#[test]
fn marks_a_websocket_dirty_once_until_it_is_taken() {
    let (world, key) = World::opened(Transport::WebSocket);
    world.dirty();
    let mut cx = Context::from_waker(Waker::noop());
    assert!(world.engine.poll_dirty(&mut cx).is_pending());
    world.send(key, "a");
    world.send(key, "b");
    assert!(world.engine.poll_dirty(&mut cx).is_ready());
    assert_eq!(world.dirty(), [key]);
    assert!(world.dirty().is_empty());
    world.send(key, "c");
    assert_eq!(world.dirty(), [key]);
}

#[test]
fn a_slow_consumer_is_closed_and_told_apart() {
    let world = World::with(Options {
        outbox_bytes_max: 1000,
        ..Options::default()
    });
    let key = world.open(Transport::WebSocket);
    world.frames(key);
    let packet = Encoded::text('4', &"x".repeat(90));
    for _ in 0..6 {
        world.engine.send(key, std::slice::from_ref(&packet));
    }
    assert!(
        world.engine.is_open(key),
        "{}",
        world.engine.outbox_bytes(key)
    );
    world.engine.send(key, &[packet]);
    assert_eq!(
        world.handler.take(),
        [Told::Open, Told::Close(CloseReason::SlowConsumer)]
    );
    assert_eq!(CloseReason::SlowConsumer.as_str(), "transport error");
    assert_eq!(world.engine.outbox_bytes(key), 0);
}

#[test]
fn a_send_to_many_is_a_send_to_each() {
    let world = World::with(Options {
        outbox_bytes_max: 300,
        ..Options::default()
    });
    let [slow, closed, last] = [(); 3].map(|()| world.open(Transport::WebSocket));
    let polling = world.open(Transport::Polling);
    world.poll(polling);
    for key in [slow, closed, last] {
        world.frames(key);
    }
    world.engine.detach(closed);
    world.send(slow, &"x".repeat(200));
    world.dirty();
    world.handler.take();
    let mut cx = Context::from_waker(Waker::noop());
    let mut changed = pin!(world.engine.changed(polling));
    assert!(changed.as_mut().poll(&mut cx).is_pending());

    let packets = ["one", "two"].map(|body| Encoded::text('4', body));
    let keys = [slow, closed, polling, last];
    world.engine.send_all(&keys, &packets);
    let told = world.handler.take();
    assert_eq!(told, [Told::Close(CloseReason::SlowConsumer)]);
    assert_eq!(world.engine.outbox_bytes(slow), 0);
    assert!(changed.as_mut().poll(&mut cx).is_ready());
    assert_eq!(world.dirty(), [slow, last]);
    assert_eq!(world.engine.outbox_bytes(last), 2 * (6 + 64));
    assert_eq!(world.poll(polling), "4one\u{1e}4two");
    assert_eq!(world.frames(last), ["4one", "4two"]);
    let bytes = world.engine.inner.table.borrow().outbox_bytes();
    assert_eq!(bytes, 0, "nobody is owed anything");
}

#[test]
fn our_close_still_sends_what_was_queued_on_a_websocket() {
    let (world, key) = World::opened(Transport::WebSocket);
    let sid = world.engine.sid(key).expect("it is open");
    world.send(key, "bye");
    world.engine.close(key, CloseReason::ServerShuttingDown);
    assert_eq!(
        world.engine.closing(key),
        Some(CloseReason::ServerShuttingDown)
    );
    assert_eq!(world.engine.find(&sid), None);
    assert_eq!(world.frames(key), ["4bye"]);
    world.engine.detach(key);
    assert_eq!(world.engine.transport(key), None);
    assert_eq!(
        world.handler.take(),
        [Told::Close(CloseReason::ServerShuttingDown)]
    );
}

#[test]
fn the_handler_is_told_of_the_end_once() {
    let (world, key) = World::opened(Transport::WebSocket);
    world.engine.close(key, CloseReason::ForcedClose);
    world.engine.close(key, CloseReason::TransportError);
    world.engine.close(key, CloseReason::ForcedClose);
    world.engine.detach(key);
    world.engine.close(key, CloseReason::ForcedClose);
    assert_eq!(
        world.handler.take(),
        [Told::Close(CloseReason::ForcedClose)]
    );
    assert_eq!(world.engine.session_count(), 0);
}

#[test]
fn a_websocket_that_goes_takes_its_session_along() {
    let (world, key) = World::opened(Transport::WebSocket);
    world.engine.detach(key);
    assert_eq!(
        world.handler.take(),
        [Told::Close(CloseReason::TransportClose)]
    );
    assert_eq!(world.engine.transport(key), None);
}

#[test]
fn a_key_is_never_used_twice() {
    let (world, key) = World::opened(Transport::WebSocket);
    world.engine.detach(key);
    let next = world.open(Transport::WebSocket);
    assert_eq!(next.index, key.index);
    assert_ne!(next, key);
    world.send(key, "to nobody");
    world.engine.close(key, CloseReason::ForcedClose);
    assert!(world.engine.is_open(next));
    assert_eq!(world.frames(next).len(), 1);
}

// The handler's side.

#[test]
fn a_pause_lasts_until_the_resume_and_wakes_the_transport() {
    let (world, key) = World::opened(Transport::WebSocket);
    world.handler.pause.set(true);
    let outcome = world.receive(key, Transport::WebSocket, "4a");
    assert_eq!(outcome, Outcome::Taken(Flow::Pause));
    assert!(world.engine.is_paused(key));
    world.dirty();
    let changed = world.engine.changed(key);
    world.engine.resume(key);
    assert!(!world.engine.is_paused(key));
    assert!(is_ready(changed));
    assert_eq!(world.dirty(), [key]);
}

#[test]
fn a_resume_that_comes_before_its_pause_wins() {
    let (world, key) = World::opened(Transport::WebSocket);
    world.handler.pause.set(true);
    let engine = world.engine.clone();
    *world.handler.reenter.borrow_mut() = Some(Box::new(move |key| engine.resume(key)));
    world.receive(key, Transport::WebSocket, "4a");
    assert!(!world.engine.is_paused(key));
}

#[test]
fn a_handler_may_step_the_engine_from_inside_every_call() {
    let world = World::new();
    let engine = world.engine.clone();
    *world.handler.reenter.borrow_mut() = Some(Box::new(move |key| {
        engine.send(key, &[Encoded::text('4', "inside")]);
        let _ = engine.keys();
        engine.close(key, CloseReason::ForcedClose);
    }));
    let key = world.open(Transport::WebSocket);
    assert_eq!(world.frames(key).len(), 2);
    let told = world.handler.take();
    assert_eq!(told, [Told::Open, Told::Close(CloseReason::ForcedClose)]);
}

#[test]
fn drained_waits_until_enough_has_left() {
    let (world, key) = World::opened(Transport::WebSocket);
    world.send(key, "hello");
    world.send(key, "hello");
    let mut cx = Context::from_waker(Waker::noop());
    let mut drained = pin!(world.engine.drained(key, 100));
    assert!(drained.as_mut().poll(&mut cx).is_pending());
    world.engine.transmitted(key, 7);
    assert!(drained.as_mut().poll(&mut cx).is_pending());
    world.engine.transmitted(key, 1);
    assert!(drained.as_mut().poll(&mut cx).is_ready());
    world.send(key, "hello");
    world.send(key, "hello");
    let mut gone = pin!(world.engine.drained(key, 0));
    assert!(gone.as_mut().poll(&mut cx).is_pending());
    world.engine.detach(key);
    assert!(gone.as_mut().poll(&mut cx).is_ready());
}

#[test]
fn nobody_waits_for_the_output_of_a_session_that_is_closing() {
    for transport in [Transport::Polling, Transport::WebSocket] {
        let (world, key) = World::opened(transport);
        world.send(key, "hello");
        let mut cx = Context::from_waker(Waker::noop());
        let mut drained = pin!(world.engine.drained(key, 0));
        assert!(drained.as_mut().poll(&mut cx).is_pending());
        world.engine.close(key, CloseReason::ForcedServerClose);
        assert!(world.engine.outbox_bytes(key) > 0, "it is still sent");
        assert!(drained.as_mut().poll(&mut cx).is_ready(), "{transport:?}");
    }
}

#[test]
fn nobody_waits_for_the_output_of_a_session_that_is_asked_to_go() {
    let (world, key) = World::opened(Transport::Polling);
    world.send(key, "hello");
    let mut cx = Context::from_waker(Waker::noop());
    let mut drained = pin!(world.engine.drained(key, 0));
    assert!(drained.as_mut().poll(&mut cx).is_pending());
    let _ = world.engine.drain(key);
    assert!(world.engine.is_open(key) && !world.engine.is_staying(key));
    assert!(drained.as_mut().poll(&mut cx).is_ready());
}

#[test]
fn output_of_a_closing_session_that_nobody_takes_is_given_up() {
    let met = bounds_met(|| {
        let (world, key) = World::opened(Transport::WebSocket);
        world.engine.set_metrics(Rc::new(Metrics::new(0)));
        world.send(key, "hello");
        world.engine.close(key, CloseReason::ForcedServerClose);
        world.engine.take_dirty(&mut Vec::new());
        world.env.advance(Duration::from_secs(29));
        world.engine.tick();
        assert!(world.engine.outbox_bytes(key) > 0, "it has its time");
        world.env.advance(Duration::from_secs(2));
        world.engine.tick();
        assert_eq!(world.engine.outbox_bytes(key), 0);
        let mut dirty = Vec::new();
        world.engine.take_dirty(&mut dirty);
        assert_eq!(dirty, [key], "its connection is told");
    });
    assert_eq!(met, BTreeMap::from([("farewell_time".to_owned(), 1)]));
}

#[test]
fn a_change_counts_from_the_making_of_its_future() {
    let (world, key) = World::opened(Transport::Polling);
    let before = world.engine.changed(key);
    world.send(key, "a");
    let after = world.engine.changed(key);
    assert!(is_ready(before));
    assert!(!is_ready(after));
}

#[test]
fn an_idle_session_is_small() {
    let size = std::mem::size_of::<Session>();
    assert!(size <= 160, "{size} bytes");
}
