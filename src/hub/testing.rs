//! A shard without a runtime: an engine, a hub, an application that keeps its messages in memory, and
//! clients whose packets are strings.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, VecDeque};
use std::future::poll_fn;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use futures_util::future::LocalBoxFuture;
use serde_json::json;
use serde_json::value::{RawValue, to_raw_value};

use super::{
    App, Args, DisconnectReason, Event, Flags, Hub, Missed, Options, Refusal, Socket, Task,
};
use crate::engine::{self, CloseReason, Engine, Handshake, Key, Transport};
use crate::env::Env;
use crate::wire::engine_io::Packet;
use crate::wire::{Content, Text};

pub(crate) struct Shard {
    pub(crate) env: Rc<Env>,
    pub(crate) engine: Engine,
    pub(crate) hub: Hub,
    pub(crate) app: Rc<TestApp>,
    tasks: Rc<RefCell<VecDeque<Task>>>,
}

/// Messages by room, shared by all shards of a test.
#[derive(Default)]
pub(crate) struct TestStore {
    pub(crate) rooms: RefCell<BTreeMap<String, Vec<String>>>,
    /// Nothing is answered while it is set.
    pub(crate) is_silent: Cell<bool>,
    /// Everything is refused while it is set.
    pub(crate) is_down: Cell<bool>,
    pub(crate) reads: Cell<usize>,
}

impl TestStore {
    pub(crate) fn append(&self, room: &str, text: &str) -> u64 {
        let mut rooms = self.rooms.borrow_mut();
        let room = rooms.entry(room.into()).or_default();
        room.push(text.into());
        room.len() as u64
    }

    async fn answer(&self) -> Option<()> {
        wait_while(&self.is_silent).await;
        self.reads.set(self.reads.get() + 1);
        (!self.is_down.get()).then_some(())
    }
}

async fn wait_while(flag: &Cell<bool>) {
    poll_fn(|_| {
        if flag.get() {
            Poll::Pending
        } else {
            Poll::Ready(())
        }
    })
    .await;
}

pub(crate) struct TestApp {
    pub(crate) store: Rc<TestStore>,
    pub(crate) log: RefCell<Vec<String>>,
    /// Handlers of `slow`, and replays, wait while it is set.
    pub(crate) is_slow: Cell<bool>,
    /// Decisions about CONNECTs wait while it is set.
    pub(crate) is_undecided: Cell<bool>,
}

impl TestApp {
    fn note(&self, what: impl Into<String>) {
        self.log.borrow_mut().push(what.into());
    }

    async fn replay(&self, socket: &Socket, event: Event, room: &str) {
        let after: u64 = event.args.parse_at(1).unwrap();
        let (joined, replay) = socket.join_with_replay(room).await;
        event.ack.unwrap().send(&Args::one(&joined.seq));
        wait_while(&self.is_slow).await;
        for seq in after + 1..=joined.seq.unwrap() {
            let index = usize::try_from(seq - 1).unwrap();
            let text = self.store.rooms.borrow()[room][index].clone();
            socket.emit("msg", &message(seq, &text));
        }
        replay.finish();
    }
}

fn message(seq: u64, text: &str) -> Args {
    Args::builder().push(&seq).push(text).build()
}

impl App for TestApp {
    fn admits(&self, namespace: &str) -> bool {
        matches!(namespace, "/" | "/b" | "/no")
    }

    fn on_connect(
        self: Rc<Self>,
        socket: Socket,
        auth: Box<RawValue>,
    ) -> LocalBoxFuture<'static, Result<(), Refusal>> {
        Box::pin(async move {
            wait_while(&self.is_undecided).await;
            socket.set_data(Rc::new(auth.to_string()));
            if &**socket.namespace() == "/no" {
                let data = to_raw_value(&json!({ "code": 7 })).ok();
                let message = "no".into();
                return Err(Refusal { message, data });
            }
            Ok(())
        })
    }

    fn on_connected(&self, socket: &Socket) {
        socket.emit("auth", &Args::one(&*socket.data::<String>().unwrap()));
    }

    fn on_event(self: Rc<Self>, socket: Socket, event: Event) -> Task {
        Box::pin(async move {
            let room: String = event.args.parse().unwrap_or_default();
            let hub = socket.hub().clone();
            match &*event.name {
                "echo" => match event.ack {
                    Some(ack) => ack.send(&event.args),
                    None => socket.emit("echo", &event.args),
                },
                "volatile" => {
                    let flags = Flags {
                        volatile: true,
                        compress: true,
                    };
                    socket.emit_with("volatile", &event.args, flags);
                }
                "slow" => {
                    self.note(format!("begin {room}"));
                    wait_while(&self.is_slow).await;
                    self.note(format!("end {room}"));
                }
                "ask" => {
                    let app = Rc::clone(&self);
                    let then = move |acked: Result<Args, _>| {
                        app.note(acked.map_or("no ack".into(), |args| args.list().to_string()));
                    };
                    socket.emit_with_ack("asked", &event.args, Duration::from_secs(1), then);
                }
                "join" => {
                    let joined = socket.join(&room).await;
                    let answer = Args::one(&joined.seq);
                    event.ack.map(|ack| ack.send(&answer)).unwrap_or_default();
                }
                "replay" => self.replay(&socket, event, &room).await,
                "leave" => drop(socket.leave(&room)),
                "send" => {
                    let text: String = event.args.parse_at(1).unwrap();
                    let seq = self.store.append(&room, &text);
                    let audience = hub.of("/").room(&room).ordered(seq);
                    audience.emit("msg", &message(seq, &text));
                }
                "cast" => socket.to(&room).emit("cast", &event.args.skip(1)),
                "out" => socket.disconnect(event.args.parse().unwrap()),
                other => panic!("unknown event {other}"),
            }
        })
    }

    fn on_disconnecting(&self, socket: &Socket, _: DisconnectReason) {
        self.note(format!("leaving {} rooms", socket.rooms().len()));
    }

    fn on_disconnect(&self, socket: &Socket, reason: DisconnectReason, rooms: &[Text]) {
        assert!(socket.rooms().is_empty());
        self.note(format!(
            "gone from {} rooms: {}",
            rooms.len(),
            reason.as_str()
        ));
    }

    fn on_server_side_emit(self: Rc<Self>, _: Text, event: Event) -> Task {
        self.note(format!("server said {}", event.name));
        if let Some(ack) = event.ack {
            ack.send(&Args::one("heard"));
        }
        Box::pin(async {})
    }

    fn is_ordered(&self, namespace: &str, room: &str) -> bool {
        namespace == "/" && room.starts_with('o')
    }

    fn heads(&self, _: &str, rooms: Vec<Text>) -> LocalBoxFuture<'static, Option<Vec<u64>>> {
        let store = Rc::clone(&self.store);
        Box::pin(async move {
            store.answer().await?;
            let lists = store.rooms.borrow();
            let head = |room: &Text| lists.get(&**room).map_or(0, |list| list.len() as u64);
            Some(rooms.iter().map(head).collect())
        })
    }

    fn missed(
        &self,
        _: &str,
        room: &str,
        after: u64,
        limit: usize,
    ) -> LocalBoxFuture<'static, Option<Vec<Missed>>> {
        let (store, room) = (Rc::clone(&self.store), room.to_owned());
        Box::pin(async move {
            store.answer().await?;
            let lists = store.rooms.borrow();
            let list = lists.get(&room).into_iter().flatten().zip(1..);
            let list = list.skip_while(|(_, seq)| *seq <= after).take(limit);
            let missed = list.map(|(text, seq)| Missed {
                seq,
                event: "msg".into(),
                args: message(seq, text),
            });
            Some(missed.collect())
        })
    }
}

impl Shard {
    pub(crate) fn new(number: u8, store: &Rc<TestStore>) -> Self {
        let env = Env::seeded(number.into());
        let options = engine::Options {
            outbox_bytes_max: 100_000,
            shard: number,
            ..engine::Options::default()
        };
        let engine = Engine::new(Rc::clone(&env), options);
        let tasks = Rc::new(RefCell::new(VecDeque::new()));
        let queue = Rc::clone(&tasks);
        let spawn = Rc::new(move |task| queue.borrow_mut().push_back(task));
        let options = Options {
            connect_timeout: Duration::from_secs(45),
            max_payload: 10_000,
            outbox_bytes_max: 100_000,
        };
        let hub = Hub::new(Rc::clone(&env), engine.clone(), options, spawn);
        let app = Rc::new(TestApp {
            store: Rc::clone(store),
            log: RefCell::default(),
            is_slow: Cell::default(),
            is_undecided: Cell::default(),
        });
        hub.set_app(app.clone());
        Self {
            env,
            engine,
            hub,
            app,
            tasks,
        }
    }

    /// Runs all tasks until none gets further.
    pub(crate) fn run(&self) {
        let mut context = Context::from_waker(Waker::noop());
        // A task may free one that was looked at before it.
        let mut idle = 0;
        while idle < 3 {
            idle += 1;
            let waiting = self.tasks.borrow().len();
            for _ in 0..waiting {
                let next = self.tasks.borrow_mut().pop_front();
                let mut task = next.expect("it was counted");
                if task.as_mut().poll(&mut context).is_ready() {
                    idle = 0;
                } else {
                    self.tasks.borrow_mut().push_back(task);
                }
            }
        }
    }

    pub(crate) fn spawn(&self, task: impl Future<Output = ()> + 'static) {
        self.tasks.borrow_mut().push_back(Box::pin(task));
        self.run();
    }

    pub(crate) fn advance(&self, by: Duration) {
        self.env.advance(by);
        self.hub.tick(self.env.now());
        self.run();
    }

    /// A client that has not joined any namespace.
    pub(crate) fn open(&self) -> Key {
        let handshake = Handshake {
            address: [127, 0, 0, 1].into(),
            headers: Vec::new(),
            query: "".into(),
            secure: false,
            issued_wall_ms: 0,
        };
        let key = self.engine.open(Transport::WebSocket, handshake);
        assert_eq!(self.received(key).len(), 1, "the open packet");
        key
    }

    /// A client in `/`.
    pub(crate) fn connected(&self) -> Key {
        let key = self.open();
        self.say(key, "0");
        assert_eq!(self.received(key).len(), 2, "the answer, and `auth`");
        key
    }

    /// The client sends a Socket.IO packet.
    pub(crate) fn say(&self, key: Key, text: &str) {
        self.message(key, Content::Text(text.into()));
    }

    pub(crate) fn message(&self, key: Key, content: Content) {
        let packet = Packet::Message(content);
        self.engine.receive(key, Transport::WebSocket, packet);
        self.run();
    }

    pub(crate) fn close(&self, key: Key) {
        self.engine.close(key, CloseReason::TransportClose);
        self.run();
    }

    /// What the client has received since the last call: text packets without their `4`, other bytes
    /// in hexadecimal.
    pub(crate) fn received(&self, key: Key) -> Vec<String> {
        let mut all = Vec::new();
        loop {
            let bytes = self.engine.transmit(key, |waiting| {
                all.extend(waiting.frames().map(read_frame));
                waiting.frames().map(<[u8]>::len).sum()
            });
            if bytes == 0 {
                return all;
            }
            self.engine.transmitted(key, bytes);
        }
    }

    pub(crate) fn is_open(&self, key: Key) -> bool {
        self.engine.is_open(key)
    }

    pub(crate) fn log(&self) -> Vec<String> {
        self.app.log.take()
    }
}

fn read_frame(frame: &[u8]) -> String {
    let content = match frame[1] {
        126 => &frame[4..],
        127 => &frame[10..],
        _ => &frame[2..],
    };
    if frame[0] == 0x81 {
        let text = std::str::from_utf8(content).unwrap();
        text.strip_prefix('4').unwrap_or(text).to_owned()
    } else {
        let digits = content.iter().flat_map(|byte| [byte >> 4, byte & 15]);
        let digit = |digit| char::from_digit(u32::from(digit), 16).expect("four bits");
        digits.map(digit).collect()
    }
}
