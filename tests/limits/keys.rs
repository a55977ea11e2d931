//! Public keys, and their file changing under live connections.

use std::path::Path;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use serde_json::{Value, json};

use super::support::client::{Client, Via};
use super::support::eventually;
use super::support::http;
use super::support::server::{Server, folder, log_of};
use super::support::token::{SECRET, now_seconds, signed_with};

/// A private key of `tests/support/keys.json`, and its algorithm.
fn private(name: &str) -> (EncodingKey, Algorithm) {
    let all: Value = serde_json::from_str(include_str!("../support/keys.json")).expect("JSON");
    let der = all[name]["private"].as_str().expect("a private key");
    let der = URL_SAFE_NO_PAD.decode(der).expect("base64url");
    match all[name]["alg"].as_str() {
        Some("RS256") => (EncodingKey::from_rsa_der(&der), Algorithm::RS256),
        Some("ES256") => (EncodingKey::from_ec_der(&der), Algorithm::ES256),
        _ => (EncodingKey::from_ed_der(&der), Algorithm::EdDSA),
    }
}

fn public(name: &str, kid: &str) -> Value {
    let all: Value = serde_json::from_str(include_str!("../support/keys.json")).expect("JSON");
    let mut key = all[name]["public"].clone();
    key["kid"] = kid.into();
    key
}

/// A token for an hour, signed by this key under this name, that opens these rooms.
fn token(user: &str, name: &str, kid: &str, rooms: &[&str]) -> String {
    let (key, algorithm) = private(name);
    let mut header = Header::new(algorithm);
    header.kid = Some(kid.to_owned());
    let claims = json!({"sub": user, "exp": now_seconds() + 3600.0, "rooms": rooms});
    jsonwebtoken::encode(&header, &claims, &key).expect("it signs")
}

/// Puts a file in the place of another at once, as a careful operator does.
fn write(folder: &Path, text: &str) {
    let draft = folder.join("keys.draft");
    std::fs::write(&draft, text).expect("written");
    std::fs::rename(&draft, folder.join("keys.json")).expect("renamed");
}

fn set(keys: &[Value]) -> String {
    json!({ "keys": keys }).to_string()
}

fn start(folder: &Path, settings: &[(&str, &str)]) -> Server {
    let common = [
        ("SHARDS", "2"),
        ("DATABASE_URL", "memory:"),
        ("JWT_JWKS_FILE", "keys.json"),
    ];
    Server::start(folder, &[&common[..], settings].concat())
}

fn history(server: &Server, token: &str, room: &str) -> (u16, Value) {
    let authorization = format!("Bearer {token}");
    let fields = [("Authorization", authorization.as_str())];
    let answer = http::get(
        server.address,
        &format!("/api/messages?roomId={room}"),
        &fields,
    );
    let code = answer.json()["error"]["code"].clone();
    (answer.status, code)
}

#[test]
fn each_algorithm_is_taken_beside_secrets_and_the_rooms_claim_holds() {
    let folder = folder();
    let keys = [
        public("rsa", "r"),
        public("p256", "p"),
        public("ed25519", "e"),
        json!({"kty": "oct", "k": "AAAA", "kid": "symmetric"}),
    ];
    write(folder.path(), &set(&keys));
    let server = start(folder.path(), &[]);
    for (name, kid) in [("rsa", "r"), ("p256", "p"), ("ed25519", "e")] {
        let token = token(name, name, kid, &["lobby", "team-*"]);
        let mut client = Client::connect(server.address, Via::WebSocket, &token);
        client.join("lobby");
        client.say("lobby", "hello");
        client.join("team-7");
        for event in ["joinRoom", "sendMessage"] {
            let payload = json!({"roomId": "secret", "content": "x"});
            assert_eq!(client.refused(event, &payload), "forbidden");
        }
        assert_eq!(history(&server, &token, "lobby").0, 200);
        assert_eq!(
            history(&server, &token, "secret"),
            (403, json!("forbidden"))
        );
        // A fresh token by another key of the same user extends the connection.
        let fresh = self::token(name, "rsa", "r", &["secret"]);
        client.ok("authenticate", &json!({"token": fresh}));
        client.join("secret");
        assert_eq!(
            client.refused("joinRoom", &json!({"roomId": "elsewhere"})),
            "forbidden"
        );
    }
    let claims = json!({"sub": "alice", "exp": now_seconds() + 60.0});
    let by_secret = signed_with(&claims, &Header::new(Algorithm::HS256), SECRET);
    assert_eq!(history(&server, &by_secret, "lobby").0, 200);
    let modulus = public("rsa", "r")["n"].as_str().expect("text").to_owned();
    let confused = signed_with(&claims, &Header::new(Algorithm::HS256), &modulus);
    let unauthorized = (401, json!("unauthorized"));
    assert_eq!(history(&server, &confused, "lobby"), unauthorized);
    for (name, kid) in [("rsa", "p"), ("rsa", "nobody"), ("rsa_other", "r")] {
        let wrong = token("alice", name, kid, &[]);
        assert_eq!(history(&server, &wrong, "lobby"), unauthorized);
    }
    let log = log_of(folder.path());
    assert!(
        log.contains("symmetric") && log.contains("not supported"),
        "{log}"
    );
}

#[test]
fn the_file_is_reread_when_it_changes_and_a_broken_one_keeps_the_keys() {
    let folder = folder();
    write(folder.path(), &set(&[public("rsa", "old")]));
    let server = start(folder.path(), &[("JWT_SECRET", "")]);
    let old = token("alice", "rsa", "old", &["*"]);
    let new = token("bob", "ed25519", "new", &["*"]);
    let mut alice = Client::connect(server.address, Via::WebSocket, &old);
    alice.join("r");
    assert_eq!(history(&server, &new, "r").0, 401);

    write(folder.path(), &set(&[public("ed25519", "new")]));
    // Each shard hears of it by itself, and requests come to any of them.
    let is_changed =
        |_| history(&server, &new, "r").0 == 200 && history(&server, &old, "r").0 == 401;
    eventually("the new key holds, and the old one does not", || {
        (0..10).all(is_changed).then_some(())
    });
    assert_eq!(alice.say("r", "still here")["seq"], 1);
    let mut bob = Client::connect(server.address, Via::Polling, &new);
    bob.join("r");

    let many: Vec<Value> = (0..101)
        .map(|number| public("ed25519", &number.to_string()))
        .collect();
    for broken in ["{\"keys\":[", &set(&[json!({"kty": "oct"})]), &set(&many)] {
        let said = || log_of(folder.path()).matches("the old keys stay").count();
        let before = said();
        write(folder.path(), broken);
        eventually("it is said", || (said() > before).then_some(()));
        assert_eq!(history(&server, &new, "r").0, 200);
    }
    std::fs::remove_file(folder.path().join("keys.json")).expect("removed");
    std::thread::sleep(Duration::from_millis(2_500));
    assert_eq!(history(&server, &new, "r").0, 200);

    write(
        folder.path(),
        &set(&[public("ed25519", "new"), public("rsa", "old")]),
    );
    server.signal("HUP");
    eventually("both hold", || {
        (history(&server, &old, "r").0 == 200).then_some(())
    });
    assert_eq!(history(&server, &new, "r").0, 200);
    bob.say("r", "here too");
    let refused = server.metric("yum_reloads_total", "refused");
    assert!(refused >= 4.0, "{refused}");
}
