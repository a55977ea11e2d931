//! Who a client is, and until when.

use std::time::{Duration, Instant};

use jsonwebtoken::{Algorithm, Header};
use serde_json::{Value, json};

use super::support::client::Client;
use super::support::server::shared;
use super::support::token::{OLD_SECRET, SECRET, now_seconds, signed, signed_with, token};
use super::{BOTH, Via, room};

/// The code of the refusal of a CONNECT with this token; `None`: it was taken.
fn connect_code(token: &str) -> Option<Value> {
    let auth = json!({"token": token});
    let outcome = Client::try_connect(shared().address, Via::WebSocket, &auth, &[]);
    let refused = outcome.expect("the server is there").err()?;
    Some(refused["data"]["code"].clone())
}

#[test]
fn both_secrets_verify() {
    let claims = json!({"sub": "alice", "exp": now_seconds() + 60.0});
    let header = Header::new(Algorithm::HS256);
    assert_eq!(connect_code(&signed_with(&claims, &header, SECRET)), None);
    assert_eq!(
        connect_code(&signed_with(&claims, &header, OLD_SECRET)),
        None
    );
}

#[test]
fn what_is_not_a_valid_token_is_refused() {
    let exp = now_seconds() + 60.0;
    let good = json!({"sub": "alice", "exp": exp});
    let mut crit = Header::new(Algorithm::HS256);
    crit.crit = Some(vec!["exp".to_owned()]);
    let hs512 = Header::new(Algorithm::HS512);
    let hs256 = Header::new(Algorithm::HS256);
    for token in [
        signed_with(&good, &crit, SECRET),
        signed_with(&good, &hs512, SECRET),
        signed_with(
            &good,
            &hs256,
            "another secret of more than 32 bytes, foreign",
        ),
        signed(&json!({"exp": exp})),
        signed(&json!({"sub": "alice"})),
        signed(&json!({"sub": 1, "exp": exp})),
        signed(&json!({"sub": "", "exp": exp})),
        signed(&json!({"sub": "x".repeat(129), "exp": exp})),
        signed(&json!({"sub": "alice", "exp": exp.to_string()})),
        signed(&json!({"sub": "alice", "exp": exp, "nbf": "0"})),
        signed(&json!({"sub": "alice", "exp": exp, "nbf": exp})),
        signed(&json!({"sub": "alice", "exp": exp, "rooms": "lobby"})),
        format!("{}x", token("alice")),
    ] {
        assert_eq!(connect_code(&token), Some(json!("unauthorized")), "{token}");
    }
    let old = signed(&json!({"sub": "alice", "exp": now_seconds() - 6.0}));
    assert_eq!(connect_code(&old), Some(json!("token_expired")));
    let skewed = signed(&json!({"sub": "alice", "exp": now_seconds() - 1.0}));
    assert_eq!(connect_code(&skewed), None);
}

#[test]
fn the_handshake_may_carry_the_token() {
    for via in BOTH {
        let authorization = format!("Bearer {}", token("alice"));
        let fields = [("Authorization", authorization.as_str())];
        let client = Client::try_connect(shared().address, via, &json!({}), &fields);
        let mut alice = client.expect("the server is there").expect("taken");
        alice.join(&room("header"));
        let twice = [fields[0], fields[0]];
        let refused = Client::try_connect(shared().address, via, &json!({}), &twice);
        assert!(refused.expect("the server is there").is_err());
    }
}

#[test]
fn a_token_that_runs_out_ends_its_connection_in_time() {
    let room = room("expiry");
    let mut watch = super::client(shared(), Via::WebSocket, "watch");
    watch.join(&room);
    for via in BOTH {
        let user = format!("short-{via:?}");
        let exp = now_seconds() + 2.0;
        let short = signed(&json!({"sub": user, "exp": exp}));
        let mut alice = Client::connect(shared().address, via, &short);
        alice.join(&room);
        watch.expect("userJoined");
        let exception = alice.expect("exception");
        assert_eq!(exception["error"]["code"], "token_expired");
        let late = now_seconds() - exp;
        assert!((-0.01..5.0).contains(&late), "{late} s after exp");
        assert!(alice.wait_closed(Duration::from_secs(10)).is_some());
        assert!(alice.disconnected, "a DISCONNECT came before the end");
        assert!(
            now_seconds() - exp < 5.0,
            "it ended {} s after exp",
            now_seconds() - exp
        );
        assert_eq!(watch.expect("userLeft")["userId"], json!(user));
    }
}

#[test]
fn a_fresh_token_extends_the_session() {
    let room = room("extended");
    let start = Instant::now();
    let short = signed(&json!({"sub": "alice", "exp": now_seconds() + 2.0}));
    let mut alice = Client::connect(shared().address, Via::WebSocket, &short);
    alice.join(&room);
    let bob = token("bob");
    assert_eq!(
        alice.refused("authenticate", &json!({"token": bob})),
        "forbidden"
    );
    assert_eq!(
        alice.refused("authenticate", &json!({"token": "x.y.z"})),
        "unauthorized"
    );
    let old = signed(&json!({"sub": "alice", "exp": now_seconds() - 60.0}));
    assert_eq!(
        alice.refused("authenticate", &json!({"token": old})),
        "token_expired"
    );
    let exp = now_seconds().floor() + 60.0;
    let fresh = signed(&json!({"sub": "alice", "exp": exp}));
    let ack = alice.ok("authenticate", &json!({"token": fresh}));
    let expires_at = ack["expiresAt"].as_str().expect("a time");
    assert!(expires_at.get(19..) == Some(".000Z"), "{ack}");
    std::thread::sleep(Duration::from_secs(4).saturating_sub(start.elapsed()));
    assert_eq!(alice.say(&room, "still here")["seq"], 1);
    alice.expect("receiveMessage");
    alice.expect_quiet();
}

#[test]
fn an_event_after_the_end_of_the_token_is_refused_or_the_connection_gone() {
    let exp = now_seconds() + 1.0;
    let short = signed(&json!({"sub": "alice", "exp": exp}));
    let mut alice = Client::connect(shared().address, Via::WebSocket, &short);
    let room = room("late");
    alice.join(&room);
    let mut after = 0;
    while !alice.closed {
        let id = alice.ask("sendMessage", &json!({"roomId": room, "content": "x"}));
        let Some(ack) = alice.ack_within(id, Duration::from_secs(5)) else {
            break;
        };
        if ack["ok"] == true && now_seconds() > exp + 0.5 {
            after += 1;
        }
        assert!(now_seconds() < exp + 5.0, "it lives on");
        std::thread::sleep(Duration::from_millis(20));
    }
    assert_eq!(after, 0, "sends taken after exp");
}
