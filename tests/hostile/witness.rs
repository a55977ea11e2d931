//! A room that goes on all along: one sends, one listens, and nothing may be missing.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{JoinHandle, sleep};
use std::time::{Duration, Instant};

use serde_json::json;

use super::support::client::{Client, Via};
use super::support::token::token;

/// Between two messages.
const PAUSE: Duration = Duration::from_millis(80);
/// How long an ack, or a message, may take.
const PATIENCE: Duration = Duration::from_secs(2);

/// Two clients in a room of their own.
pub(crate) struct Witness {
    state: Arc<State>,
    threads: Vec<JoinHandle<()>>,
}

#[derive(Default)]
struct State {
    over: AtomicBool,
    /// The last number that the listener saw.
    seen: AtomicU64,
    /// The longest wait for an ack, in milliseconds.
    slowest_ms: AtomicU64,
    fault: Mutex<Option<String>>,
}

impl State {
    fn fail(&self, fault: String) {
        self.fault.lock().expect("no panic").get_or_insert(fault);
        self.over.store(true, Ordering::SeqCst);
    }

    fn is_over(&self) -> bool {
        self.over.load(Ordering::SeqCst)
    }
}

impl Witness {
    /// `via` is the listener's transport: what disturbs only one of them is seen, too.
    pub(crate) fn start(address: SocketAddr, via: Via) -> Self {
        let state = Arc::<State>::default();
        let mut listener = Client::connect(address, via, &token("witness"));
        listener.join("witness");
        let mut sender = Client::connect(address, Via::WebSocket, &token("sender"));
        sender.join("witness");
        let (hears, says) = (Arc::clone(&state), Arc::clone(&state));
        let threads = vec![
            std::thread::spawn(move || hear(&mut listener, &hears)),
            std::thread::spawn(move || say(&mut sender, &says)),
        ];
        Self { state, threads }
    }

    /// Whether all is well: no fault until now, and the next message comes in time.
    pub(crate) fn check(&self) -> Result<(), String> {
        let seen = self.state.seen.load(Ordering::SeqCst);
        let start = Instant::now();
        loop {
            if let Some(fault) = self.state.fault.lock().expect("no panic").clone() {
                return Err(format!("the witness: {fault}"));
            }
            if self.state.seen.load(Ordering::SeqCst) > seen {
                return Ok(());
            }
            if start.elapsed() > PATIENCE + PAUSE {
                return Err(format!("the witness hears nothing after {seen}"));
            }
            sleep(Duration::from_millis(5));
        }
    }

    /// The longest wait for an ack until now.
    pub(crate) fn slowest(&self) -> Duration {
        Duration::from_millis(self.state.slowest_ms.load(Ordering::SeqCst))
    }

    /// Ends it; says how many messages there were.
    pub(crate) fn end(self) -> u64 {
        self.state.over.store(true, Ordering::SeqCst);
        for thread in self.threads {
            thread.join().expect("a witness does not panic");
        }
        self.state.seen.load(Ordering::SeqCst)
    }
}

fn hear(client: &mut Client, state: &State) {
    while !state.is_over() {
        match client.event_within(PATIENCE) {
            Some((name, payload)) if name == "receiveMessage" => {
                let last = state.seen.load(Ordering::SeqCst);
                if payload["seq"] != last + 1 {
                    state.fail(format!("{payload} came after {last}"));
                }
                state.seen.store(last + 1, Ordering::SeqCst);
            }
            Some(_) => {}
            None if state.is_over() => {}
            None => state.fail("a message did not come".to_owned()),
        }
    }
}

fn say(client: &mut Client, state: &State) {
    while !state.is_over() {
        let payload = json!({"roomId": "witness", "content": "x"});
        let begun = Instant::now();
        let id = client.ask("sendMessage", &payload);
        match client.ack_within(id, PATIENCE) {
            Some(ack) if ack["ok"] == true => {}
            ack => state.fail(format!("an ack was {ack:?}")),
        }
        let took = u64::try_from(begun.elapsed().as_millis()).expect("it is not for ever");
        state.slowest_ms.fetch_max(took, Ordering::SeqCst);
        while client.event_within(Duration::ZERO).is_some() {}
        sleep(PAUSE);
    }
}
