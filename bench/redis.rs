//! What a broadcast over Redis costs: CPU of the publishing and of the receiving shard, for one message.
//!
//! ```sh
//! cargo bench --bench redis                       # starts a redis-server of its own
//! cargo bench --bench redis -- redis://localhost  # takes this one
//! ```
//!
//! Two shards of two processes, as far as the bus can tell, each on a thread of its own: one publishes
//! 150 bytes to a room, 200 at a time, the other has subscribed to it. Their CPU is the threads' own, from
//! the broadcast's emission to the outbox, both kernels' parts of the sockets included; Redis's is
//! not counted. The receiving shard has one member, whose packets are taken from its outbox and dropped.
//! The last line has the sum of the medians, which is to be 4 µs at most.

use std::io::Write;
use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::rc::Rc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use futures_util::FutureExt;
use glommio::timer::sleep;
use glommio::{LocalExecutorBuilder, Placement};
use project_yum::bus::directory::Directory;
use project_yum::bus::mesh;
use project_yum::bus::redis::{self, Fleet, Phase, Redis, Target};
use project_yum::engine::{self, Engine, Handshake, Key, Transport};
use project_yum::env::Env;
use project_yum::hub::{self, App, Args, Event, Hub, Socket, Task};
use project_yum::wire::Content;
use project_yum::wire::engine_io::Packet;

const ROUNDS: usize = 5;
const MESSAGES: usize = 40_000;
/// Messages that may be under way.
const WINDOW: usize = 200;

/// How many messages have arrived; a signal to the publisher's thread, and its end.
#[derive(Default)]
struct Shared {
    arrived: AtomicUsize,
    is_over: AtomicUsize,
    /// µs a message of each round.
    published: Mutex<Vec<f64>>,
    received: Mutex<Vec<f64>>,
}

struct Joining;

impl App for Joining {
    fn on_connected(&self, socket: &Socket) {
        glommio::spawn_local(socket.join("room").map(drop)).detach();
    }

    fn on_event(self: Rc<Self>, _: Socket, _: Event) -> Task {
        Box::pin(async {})
    }
}

fn main() -> Outcome {
    let named = std::env::args().find(|argument| argument.starts_with("redis"));
    let own = if named.is_none() {
        Some(Server::start()?)
    } else {
        None
    };
    let url = match (&named, &own) {
        (Some(url), _) => url.clone(),
        (None, Some(server)) => format!("redis://127.0.0.1:{}", server.port),
        (None, None) => unreachable!("one of them is there"),
    };
    let target = Target::parse(&url)?;
    let shared = Arc::new(Shared::default());
    let receiver = {
        let (shared, target) = (shared.clone(), target.clone());
        std::thread::spawn(move || receive(&shared, target))
    };
    publish(&shared, target)?;
    receiver.join().map_err(|_| "the receiver failed")??;
    let sum = median(&shared.published) + median(&shared.received);
    let _ = writeln!(std::io::stdout(), "both: {sum:.2} µs CPU a message");
    Ok(())
}

fn median(rounds: &Mutex<Vec<f64>>) -> f64 {
    let mut rounds = rounds
        .lock()
        .map(|rounds| rounds.clone())
        .unwrap_or_default();
    rounds.sort_by(f64::total_cmp);
    rounds.get(rounds.len() / 2).copied().unwrap_or(f64::NAN)
}

type Outcome = Result<(), Box<dyn std::error::Error + Send + Sync>>;

/// Runs a node, and what `main` does with it, on this thread.
fn with_node<F: Future<Output = ()> + 'static>(
    target: Target,
    main: impl FnOnce(Hub) -> F + 'static,
) -> Outcome {
    let executor = LocalExecutorBuilder::new(Placement::Unbound)
        .io_memory(0)
        .ring_depth(256)
        .make()
        .map_err(|error| error.to_string())?;
    executor.run(async move {
        let env = Env::system();
        let engine = Engine::new(env.clone(), engine::Options::default());
        let spawn: hub::Spawn = Rc::new(|task| {
            glommio::spawn_local(task).detach();
        });
        let hub = Hub::new(env.clone(), engine, hub::Options::default(), spawn);
        hub.set_app(Rc::new(Joining));
        let seat = mesh::seats(1, &Directory::new()).remove(0);
        let random = |bytes: &mut [u8]| env.fill(bytes);
        let node = Redis::new(redis::Parts {
            env: env.clone(),
            mesh: seat.sit(),
            fleet: Fleet::new(1, random),
            shard: 0,
            tag: 0,
            namespaces: vec!["/".into()],
            target,
        });
        node.attach_to(&hub);
        glommio::spawn_local(node.clone().run()).detach();
        let ticking = hub.clone();
        glommio::spawn_local(async move {
            loop {
                ticking.tick(Instant::now());
                sleep(Duration::from_millis(10)).await;
            }
        })
        .detach();
        while node.phase() != Phase::Up {
            sleep(Duration::from_millis(10)).await;
        }
        main(hub).await;
    });
    Ok(())
}

fn receive(shared: &Arc<Shared>, target: Target) -> Outcome {
    let shared = shared.clone();
    with_node(target, |hub| async move {
        let engine = hub.engine().clone();
        let key = engine.open(Transport::WebSocket, handshake());
        let connect = Packet::Message(Content::Text("0".into()));
        engine.receive(key, Transport::WebSocket, connect);
        sleep(Duration::from_millis(200)).await;
        // What was answered to the connection.
        take(&engine, key);
        shared.arrived.store(1, Ordering::Release);
        let (mut before, mut count, mut reported) = (thread_cpu(), 0, 0);
        while shared.is_over.load(Ordering::Acquire) == 0 {
            sleep(Duration::from_micros(500)).await;
            count += take(&engine, key);
            shared.arrived.store(count + 1, Ordering::Release);
            if count >= reported + MESSAGES {
                report(
                    "receive",
                    &shared.received,
                    thread_cpu().saturating_sub(before),
                    count - reported,
                );
                (before, reported) = (thread_cpu(), count);
            }
        }
    })
}

/// Takes what waits for the one client, and says how many packets it is.
fn take(engine: &Engine, key: Key) -> usize {
    let (packets, bytes) = engine.transmit(key, |waiting| {
        let bytes = waiting.frames().map(<[u8]>::len).sum();
        (waiting.len(), bytes)
    });
    engine.transmitted(key, bytes);
    packets
}

fn handshake() -> Handshake {
    Handshake {
        address: [127, 0, 0, 1].into(),
        headers: Vec::new(),
        query: "".into(),
        secure: false,
        issued_wall_ms: 0,
    }
}

fn publish(shared: &Arc<Shared>, target: Target) -> Outcome {
    let shared = shared.clone();
    with_node(target, |hub| async move {
        while shared.arrived.load(Ordering::Acquire) == 0 {
            sleep(Duration::from_millis(10)).await;
        }
        let text = "x".repeat(100);
        let mut sent = 0;
        for _ in 0..ROUNDS {
            let before = thread_cpu();
            for _ in 0..MESSAGES {
                while sent + 1 - shared.arrived.load(Ordering::Acquire) >= WINDOW {
                    sleep(Duration::from_micros(200)).await;
                }
                hub.of("/").room("room").emit("msg", &Args::one(&text));
                sent += 1;
            }
            let cpu = thread_cpu().saturating_sub(before);
            report("publish", &shared.published, cpu, MESSAGES);
        }
        while shared.arrived.load(Ordering::Acquire) <= sent {
            sleep(Duration::from_millis(1)).await;
        }
        sleep(Duration::from_millis(20)).await;
        shared.is_over.store(1, Ordering::Release);
    })
}

fn report(what: &str, rounds: &Mutex<Vec<f64>>, cpu: Duration, messages: usize) {
    let messages = f64::from(u32::try_from(messages).unwrap_or(u32::MAX));
    let each = cpu.as_secs_f64() * 1e6 / messages;
    let _ = writeln!(std::io::stdout(), "{what}: {each:.2} µs CPU a message");
    if let Ok(mut rounds) = rounds.lock() {
        rounds.push(each);
    }
}

/// CPU time of this thread.
fn thread_cpu() -> Duration {
    let stat = std::fs::read_to_string(Path::new("/proc/thread-self/schedstat"));
    let nanoseconds = stat
        .ok()
        .and_then(|stat| stat.split(' ').next()?.parse().ok());
    Duration::from_nanos(nanoseconds.unwrap_or(0))
}

/// A redis-server that ends with this.
struct Server {
    port: u16,
    process: Child,
}

impl Server {
    fn start() -> std::io::Result<Self> {
        let port = TcpListener::bind(("127.0.0.1", 0))?.local_addr()?.port();
        let process = Command::new("redis-server")
            .args(["--save", "", "--appendonly", "no", "--port"])
            .arg(port.to_string())
            .stdout(Stdio::null())
            .spawn()?;
        Ok(Self { port, process })
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
