//! Whole requests over a socket: with all that runs outside the kernel for them, the runtime and the
//! database's client included.
//!
//! The program under callgrind serves so many requests and ends; this one, which nobody counts, asks.

use std::cell::Cell;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::rc::Rc;
use std::sync::atomic::Ordering;
use std::time::{SystemTime, UNIX_EPOCH};

use futures_util::future::join_all;
use project_yum::auth::{self, AuthOptions, Claims, Keys, Verifier};
use project_yum::chat::permission::TokenRooms;
use project_yum::chat::rest::Rest;
use project_yum::env::Env;
use project_yum::metrics::Metrics;
use project_yum::net::{self, Cors, Handoffs, Process, Site};
use project_yum::server::executor;
use project_yum::server::respond::{self, Routes};
use project_yum::server::status::Status;
use project_yum::store::memory::MemoryStore;
use project_yum::store::postgres::{PostgresStore, Target};
use project_yum::store::{Draft, SharedStore, Store as _};

/// Where the program under callgrind finds the database.
pub(crate) const DATABASE: &str = "BENCH_DATABASE";
/// Messages that the room has, and of those a page holds fifty.
const MESSAGES: u128 = 60;

/// Serves so many requests, of which a database answers those for pages.
pub(crate) fn serve(times: u32) {
    let executor = executor::builder(0, None).make().expect("a ring");
    executor.run(async move {
        let env = Env::system();
        let store: SharedStore = match std::env::var(DATABASE) {
            Ok(url) => Rc::new(open(&url)),
            Err(_) => Rc::new(MemoryStore::default()),
        };
        let verifier = Rc::new(Verifier::new(&options()));
        let routes = Routes {
            status: Status::new(1, store.kind(), "mesh"),
            history: Rest::new(env.clone(), store, verifier, Rc::new(TokenRooms)),
            demo: None,
        };
        let (process, left) = (Process::new(), Cell::new(times));
        let draining = process.clone();
        let respond = move |request| {
            left.set(left.get() - 1);
            if left.get() == 0 {
                draining.draining.store(true, Ordering::Release);
            }
            routes.respond(&request)
        };
        let site = Site {
            mounts: Vec::new(),
            respond: Rc::new(respond),
            cors: Cors::new(Vec::new()),
        };
        let options = net::Options {
            plain_paths: respond::HEALTH,
            ..net::Options::default()
        };
        let handoffs = Handoffs::mesh(1).pop().expect("one shard's");
        let shard = net::Shard::new(env, options, site, Rc::new(Metrics::new(0)), handoffs);
        let listener = net::listen(([127, 0, 0, 1], 0).into()).expect("a free port");
        let address = rustix::net::getsockname(&listener).expect("it is bound");
        let address = std::net::SocketAddr::try_from(address).expect("one of IPv4");
        println!("{}", address.port());
        net::run(shard, listener, process, Box::new(|_| None)).await;
    });
}

/// Opens the database on this executor.
fn open(url: &str) -> PostgresStore {
    let target = Target::parse(url).expect("a URL of PostgreSQL");
    let (store, seats) = PostgresStore::new(target, 1).expect("a thread");
    for seat in seats {
        // It is never left: the process ends.
        let _ = seat.take();
    }
    store
}

/// Makes the tables, and a room with more messages than a page has.
pub(crate) fn fill(url: &str) {
    PostgresStore::migrate(&Target::parse(url).expect("a URL of PostgreSQL")).expect("migrates");
    let executor = executor::builder(0, None).make().expect("a ring");
    executor.run(async {
        let store = open(url);
        let stored = join_all((0..MESSAGES).map(|nth| {
            store.append(Draft {
                room: "history".into(),
                user: "u0".into(),
                content: format!("@0000.{nth:010}.{}", "x".repeat(83)).into(),
                client_msg_id: None,
                id: uuid::Uuid::from_u128(nth),
                wall_ms: 1_800_000_000_000,
            })
        }));
        assert!(stored.await.iter().all(Result::is_ok), "they are stored");
    });
}

/// Asks `times` times, one after the other.
pub(crate) fn ask(port: u16, path: &str, times: u32) {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    let issued_seconds = now.unwrap_or_default().as_secs();
    let claims = Claims {
        user: "u0".into(),
        rooms: None,
        issued_seconds,
        expires_seconds: issued_seconds + 3_600,
    };
    let token = auth::sign(&options(), &claims).expect("a token");
    let request =
        format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {token}\r\n\r\n");
    let mut stream = TcpStream::connect(("127.0.0.1", port)).expect("it listens");
    let mut answer = vec![0; 64 * 1024];
    for _ in 0..times {
        stream.write_all(request.as_bytes()).expect("it reads");
        let mut count = 0;
        while !is_whole(&answer[..count]) {
            let more = stream.read(&mut answer[count..]).expect("it answers");
            assert!(more > 0, "it stays until the last answer");
            count += more;
        }
        assert!(answer.starts_with(b"HTTP/1.1 200"), "it is well");
    }
}

/// Whether an answer has come to the end of its body.
fn is_whole(answer: &[u8]) -> bool {
    let find = |part: &[u8]| memchr::memmem::find(answer, part);
    let (Some(length), Some(end)) = (find(b"Content-Length: "), find(b"\r\n\r\n")) else {
        return false;
    };
    let digits = answer[length + 16..].split(|byte| *byte == b'\r').next();
    let length = digits.and_then(|digits| std::str::from_utf8(digits).ok()?.parse().ok());
    length.is_some_and(|length: usize| answer.len() == end + 4 + length)
}

fn options() -> AuthOptions {
    AuthOptions {
        keys: Keys::secrets(vec![
            b"a secret of the benchmark, long enough".as_slice().into(),
        ]),
        issuer: None,
        audience: None,
        leeway_seconds: 5,
    }
}
