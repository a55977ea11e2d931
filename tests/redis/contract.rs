//! What clients may expect of servers, however these are joined: one body for the mesh of one process,
//! for Redis and for Valkey, plain, with a password, secret, and by a Unix socket.

use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use serde_json::{Value, json};

use super::postgres_server::Postgres;
use super::redis_server::{Redis, programs};
use super::support::client::{Client, Via};
use super::support::eventually;
use super::support::server::{Server, folder, log_of};
use super::support::token::token;

/// Servers with one history.
pub(crate) struct Fleet {
    pub(crate) servers: Vec<Server>,
    folders: Vec<tempfile::TempDir>,
    _postgres: Arc<Postgres>,
}

impl Fleet {
    /// So many servers with two shards each.
    pub(crate) fn start(servers: usize, settings: &[(&str, &str)]) -> Self {
        Self::over(&vec![settings.to_vec(); servers])
    }

    /// A server for each list of settings.
    pub(crate) fn over(settings: &[Vec<(&str, &str)>]) -> Self {
        let postgres = Postgres::shared();
        let url = postgres.database();
        let folders: Vec<_> = settings.iter().map(|_| folder()).collect();
        let start = |(folder, settings): (&tempfile::TempDir, &Vec<(&str, &str)>)| {
            let mut all = vec![("DATABASE_URL", &*url), ("SHARDS", "2")];
            all.extend_from_slice(settings);
            Server::start(folder.path(), &all)
        };
        let servers: Vec<_> = folders.iter().zip(settings).map(start).collect();
        for server in &servers {
            eventually("every link is up", || {
                let health = super::support::http::get(server.address, "/health", &[]);
                (health.json()["status"] == "ok").then_some(())
            });
        }
        Self {
            servers,
            folders,
            _postgres: postgres,
        }
    }

    /// A client of one of the servers.
    pub(crate) fn client(&self, server: usize, user: &str) -> Client {
        let server = &self.servers[server % self.servers.len()];
        Client::connect(server.address, Via::WebSocket, &token(user))
    }
}

impl Drop for Fleet {
    fn drop(&mut self) {
        if std::thread::panicking() {
            for folder in &self.folders {
                eprintln!("a server's log:\n{}", log_of(folder.path()));
            }
        }
    }
}

fn messages(client: &mut Client, count: usize) -> Vec<Value> {
    let mut got = Vec::new();
    while got.len() < count {
        let (name, payload) = client
            .event_within(super::support::PATIENCE)
            .unwrap_or_else(|| panic!("only {} of {count} came", got.len()));
        if name == "receiveMessage" {
            got.push(payload);
        }
    }
    got
}

fn seqs(messages: &[Value]) -> Vec<u64> {
    let seq = |message: &Value| message["seq"].as_u64().expect("a seq");
    messages.iter().map(seq).collect()
}

/// The body.
fn holds(fleet: &Fleet) {
    everybody_gets_everything_in_order(fleet);
    a_user_comes_and_goes_once(fleet);
    whoever_left_hears_nothing(fleet);
    whoever_comes_back_misses_nothing(fleet);
    a_repeated_message_comes_once(fleet);
}

fn everybody_gets_everything_in_order(fleet: &Fleet) {
    const MEMBERS: usize = 8;
    const EACH: usize = 10;
    let mut members: Vec<_> = (0..MEMBERS)
        .map(|nth| fleet.client(nth, &format!("user{nth}")))
        .collect();
    for member in &mut members {
        member.join("order");
    }
    for turn in 0..EACH {
        for (nth, member) in members.iter_mut().enumerate() {
            let content = format!("{nth} {turn}");
            member.ask(
                "sendMessage",
                &json!({"roomId": "order", "content": content}),
            );
        }
    }
    let got: Vec<_> = members
        .iter_mut()
        .map(|member| messages(member, MEMBERS * EACH))
        .collect();
    let dense: Vec<u64> = (1..=(MEMBERS * EACH) as u64).collect();
    for of_member in &got {
        assert_eq!(seqs(of_member), dense);
        assert_eq!(of_member, &got[0], "everybody got the same");
    }
}

fn a_user_comes_and_goes_once(fleet: &Fleet) {
    let mut witness = fleet.client(0, "witness");
    witness.join("presence");
    for round in 0..3 {
        let user = format!("guest{round}");
        let mut guest = fleet.client(1, &user);
        guest.join("presence");
        assert_eq!(
            witness.expect("userJoined"),
            json!({"roomId": "presence", "userId": user})
        );
        // A second socket on the same server is no news.
        let mut second = fleet.client(1, &user);
        second.join("presence");
        drop(guest);
        witness.expect_quiet();
        second.ok("leaveRoom", &json!({"roomId": "presence"}));
        assert_eq!(
            witness.expect("userLeft"),
            json!({"roomId": "presence", "userId": user})
        );
        witness.expect_quiet();
    }
}

fn whoever_left_hears_nothing(fleet: &Fleet) {
    let (mut stays, mut leaves) = (fleet.client(0, "stays"), fleet.client(1, "leaves"));
    stays.join("leaving");
    leaves.join("leaving");
    stays.expect("userJoined");
    leaves.ok("leaveRoom", &json!({"roomId": "leaving"}));
    stays.expect("userLeft");
    stays.say("leaving", "alone");
    assert_eq!(stays.expect("receiveMessage")["seq"], 1);
    leaves.expect_quiet();
    leaves.join("leaving");
    stays.expect("userJoined");
    stays.say("leaving", "together");
    assert_eq!(leaves.expect("receiveMessage")["seq"], 2);
}

fn whoever_comes_back_misses_nothing(fleet: &Fleet) {
    let mut writer = fleet.client(0, "writer");
    writer.join("replay");
    let mut reader = fleet.client(1, "reader");
    reader.join("replay");
    writer.expect("userJoined");
    writer.say("replay", "1");
    assert_eq!(reader.expect("receiveMessage")["seq"], 1);
    drop(reader);
    writer.expect("receiveMessage");
    writer.expect("userLeft");
    for content in ["2", "3", "4"] {
        writer.say("replay", content);
    }
    // On another server than before, where there is one.
    let mut reader = fleet.client(2, "reader");
    let joined = reader.ok("joinRoom", &json!({"roomId": "replay", "lastSeq": 1}));
    assert_eq!(
        (&joined["recovered"], &joined["replayed"]),
        (&json!(true), &json!(3))
    );
    writer.say("replay", "5");
    assert_eq!(seqs(&messages(&mut reader, 4)), [2, 3, 4, 5]);
}

fn a_repeated_message_comes_once(fleet: &Fleet) {
    let (mut writer, mut reader) = (fleet.client(0, "writer"), fleet.client(1, "reader"));
    writer.join("again");
    reader.join("again");
    let message = json!({"roomId": "again", "content": "x", "clientMsgId": "k"});
    let first = writer.ok("sendMessage", &message);
    // By another server, where there is one.
    let mut elsewhere = fleet.client(1, "writer");
    elsewhere.join("again");
    let second = elsewhere.ok("sendMessage", &message);
    assert_eq!(second["duplicate"], true);
    assert_eq!(
        (&second["seq"], &second["id"]),
        (&first["seq"], &first["id"])
    );
    elsewhere.say("again", "y");
    assert_eq!(seqs(&messages(&mut reader, 2)), [1, 2]);
}

#[test]
fn the_mesh_alone() {
    holds(&Fleet::start(1, &[("SHARDS", "4")]));
}

#[test]
fn one_server_with_redis() {
    let redis = Redis::start();
    holds(&Fleet::start(
        1,
        &[("SHARDS", "4"), ("REDIS_URL", &redis.url())],
    ));
}

#[test]
fn two_servers_with_redis_or_valkey() {
    for program in programs() {
        let redis = Redis::start_with(&program, |_| Vec::new());
        holds(&Fleet::start(2, &[("REDIS_URL", &redis.url())]));
    }
}

#[test]
fn three_servers() {
    let redis = Redis::start();
    holds(&Fleet::start(3, &[("REDIS_URL", &redis.url())]));
}

#[test]
fn by_a_unix_socket_with_user_and_password() {
    let redis = Redis::start_with("redis-server", |home| {
        let socket = home.join("socket").display().to_string();
        let user = "--user yum on >secret ~* &* +@all --user default off";
        let options = user.split(' ').map(str::to_owned);
        ["--unixsocket".to_owned(), socket]
            .into_iter()
            .chain(options)
            .collect()
    });
    let tcp = format!("redis://yum:secret@127.0.0.1:{}/3", redis.port());
    let unix = format!(
        "redis+unix://{}?user=yum&pass=secret&db=3",
        redis.path("socket")
    );
    let each = [vec![("REDIS_URL", &*tcp)], vec![("REDIS_URL", &*unix)]];
    holds(&Fleet::over(&each));
}

#[test]
fn by_tls() {
    let redis = Redis::start_with("redis-server", |home| {
        certify(home);
        let options = "--tls-cert-file server.crt --tls-key-file server.key \
                       --tls-ca-cert-file ca.crt --tls-auth-clients no --tls-port";
        let options = options
            .split_whitespace()
            .map(|word| match word.rsplit_once('.') {
                Some(_) => home.join(word).display().to_string(),
                None => word.to_owned(),
            });
        options
            .chain([super::redis_server::free_port().to_string()])
            .collect()
    });
    let port = redis.last_option();
    let verified = format!(
        "rediss://localhost:{port}?sslrootcert={}",
        redis.path("ca.crt")
    );
    let any = format!("rediss://127.0.0.1:{port}#insecure");
    let each = [vec![("REDIS_URL", &*verified)], vec![("REDIS_URL", &*any)]];
    holds(&Fleet::over(&each));
}

/// Makes `ca.crt`, and `server.crt` with `server.key` for `localhost`.
fn certify(home: &Path) {
    let steps = [
        "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj /CN=ca \
         -keyout ca.key -out ca.crt",
        "req -new -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj /CN=localhost \
         -keyout server.key -out server.csr",
        "x509 -req -in server.csr -CA ca.crt -CAkey ca.key -CAcreateserial -days 2 \
         -extfile names -out server.crt",
    ];
    std::fs::write(home.join("names"), "subjectAltName=DNS:localhost\n").expect("a file");
    for step in steps {
        let made = Command::new("openssl")
            .current_dir(home)
            .args(step.split_whitespace())
            .output()
            .expect("the package openssl is installed");
        let said = String::from_utf8_lossy(&made.stderr);
        assert!(made.status.success(), "{said}");
    }
}

#[test]
fn a_cluster_or_a_sentinel_is_refused_by_name() {
    for url in [
        "redis-cluster://a,b",
        "redis://a:1,b:2",
        "redis+sentinel://a/name",
    ] {
        let folder = folder();
        let run = Command::new(env!("CARGO_BIN_EXE_project-yum"))
            .current_dir(folder.path())
            .env_clear()
            .envs([
                ("JWT_SECRET", "0123456789abcdef0123456789abcdef"),
                ("REDIS_URL", url),
            ])
            .envs([
                ("DATABASE_URL", "memory:"),
                ("PORT", "0"),
                ("METRICS_ADDR", "none"),
            ])
            .output()
            .expect("the program runs");
        let said = String::from_utf8_lossy(&run.stderr);
        assert_eq!(run.status.code(), Some(2), "{url}: {said}");
        assert!(said.contains("not supported"), "{url}: {said}");
        assert!(said.contains("REDIS_URL"), "{url}: {said}");
    }
}
