//! The engine as a whole, on made-up instants.
#![expect(
    clippy::unchecked_time_subtraction,
    reason = "the durations are constants of the tests"
)]

mod any_order;
mod handler;
mod heartbeat;
mod outbox;
mod polling;
mod upgrade;

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
