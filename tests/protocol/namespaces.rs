//! Joining and leaving namespaces (protocol.md 2.2, 2.4).
//!
//! Node: acts on a DISCONNECT at its next tick, so a CONNECT, a DISCONNECT or an event that is read
//! together with it still meets the old socket. Here each packet finds the one before it done.

use std::collections::HashSet;

use crate::peer::{Peer, Transport, eventually, fresh, text};
use crate::server::Server;

/// A CONNECT that is refused, and the answer. The connection goes on.
macro_rules! refused {
    ($($name:ident: $connect:literal => $answer:literal),* $(,)?) => {
        $(fn $name(server: &'static Server, transport: Transport) {
            let mut peer = server.peer(transport);
            peer.send($connect);
            peer.expect($answer);
            peer.join("/");
            peer.nothing_came();
        })*
        mod refused {
            use super::*;
            transport_cases!(Calm: $($name),*);
        }
    };
}

refused! {
    unknown: "40/random" => r#"44/random,{"message":"Invalid namespace"}"#,
    unknown_with_comma: "40/random," => r#"44/random,{"message":"Invalid namespace"}"#,
    unknown_with_auth: r#"40/random,{"token":"x"}"# => r#"44/random,{"message":"Invalid namespace"}"#,
    in_capitals: "40/Custom" => r#"44/Custom,{"message":"Invalid namespace"}"#,
    with_a_slash_behind: "40/custom/," => r#"44/custom/,{"message":"Invalid namespace"}"#,
    with_a_query: "40/custom?token=x," => r#"44/custom?token=x,{"message":"Invalid namespace"}"#,
    dynamic_without_digits: "40/dyn-," => r#"44/dyn-,{"message":"Invalid namespace"}"#,
    dynamic_with_letters: "40/dyn-abc," => r#"44/dyn-abc,{"message":"Invalid namespace"}"#,
    dynamic_with_a_tail: "40/dyn-1x," => r#"44/dyn-1x,{"message":"Invalid namespace"}"#,
    dynamic_with_a_prefix: "40/a/dyn-1," => r#"44/a/dyn-1,{"message":"Invalid namespace"}"#,
    named_like_a_property: "40/__proto__," => r#"44/__proto__,{"message":"Invalid namespace"}"#,
    by_the_application:
        "40/reject," => r#"44/reject,{"message":"not authorized","data":{"code":"E_AUTH","status":401}}"#,
    by_the_application_with_auth:
        r#"40/reject,{"token":"x"}"# => r#"44/reject,{"message":"not authorized","data":{"code":"E_AUTH","status":401}}"#,
}

/// A CONNECT that is taken: namespace and auth payload. `auth` is the very next packet.
macro_rules! joined {
    ($($name:ident: $namespace:literal $auth:literal),* $(,)?) => {
        $(fn $name(server: &'static Server, transport: Transport) {
            let mut peer = server.peer(transport);
            peer.join_with($namespace, $auth);
        })*
        mod joined {
            use super::*;
            transport_cases!(Calm: $($name),*);
        }
    };
}

joined! {
    main: "/" "",
    main_with_auth: "/" r#"{"token":"123"}"#,
    main_with_empty_auth: "/" "{}",
    custom: "/custom" "",
    custom_with_auth: "/custom" r#"{"token":"abc"}"#,
    dynamic: "/dyn-1" "",
    dynamic_with_auth: "/dyn-20260722" r#"{"a":[1,{"b":null}]}"#,
    auth_of_unicode: "/" r#"{"näme":"€ 𐍈","s":"\u001e"}"#,
}

transport_cases!(Calm:
    comma_is_optional,
    answer_has_the_sid_alone,
    sids_are_fresh_and_not_the_session,
    namespaces_are_apart,
    many_namespaces,
    refused_namespace_can_be_asked_again,
    event_behind_a_refusal_closes,
    too_many_refusals_close,
    leaving_one_keeps_the_others,
    leaving_with_a_comma,
    leaving_the_last_keeps_the_connection,
    leaving_twice_closes,
    event_behind_leaving_closes,
    joining_again,
    rooms_are_left_with_the_namespace,
    disconnected_by_the_server,
    event_behind_a_server_disconnect_closes,
    rejoined_after_a_server_disconnect,
    connection_closed_by_the_server,
    connection_closed_with_all_namespaces,
);

fn comma_is_optional(server: &'static Server, transport: Transport) {
    let mut peer = server.peer(transport);
    peer.send("40/custom");
    assert!(peer.receive_text().starts_with(r#"40/custom,{"sid":""#));
    peer.expect(r#"42/custom,["auth",{}]"#);
}

fn answer_has_the_sid_alone(server: &'static Server, transport: Transport) {
    let mut peer = server.peer(transport);
    peer.send("40");
    let answer = peer.receive_text();
    let sid = &answer[r#"40{"sid":""#.len()..answer.len() - 2];
    assert_eq!(answer, format!(r#"40{{"sid":"{sid}"}}"#));
    assert_eq!(sid.len(), 20, "{sid}");
}

fn sids_are_fresh_and_not_the_session(server: &'static Server, transport: Transport) {
    let mut seen = HashSet::new();
    for _ in 0..10 {
        let mut peer = server.peer(transport);
        if let Peer::Polling(polling) = &peer {
            assert!(seen.insert(polling.sid.clone()));
        }
        for namespace in ["/", "/custom", "/dyn-7"] {
            assert!(seen.insert(peer.join(namespace)));
        }
    }
}

fn namespaces_are_apart(server: &'static Server, transport: Transport) {
    let mut peer = server.peer(transport);
    peer.join("/");
    peer.join("/custom");
    peer.send_all(&[
        text(r#"42/custom,["message","a"]"#),
        text(r#"42["message","b"]"#),
        text(r#"42/custom,7["message-with-ack","c"]"#),
        text(r#"427["message-with-ack","d"]"#),
    ]);
    let mut received: Vec<String> = (0..4).map(|_| peer.receive_text()).collect();
    received.sort();
    assert_eq!(
        received,
        [
            r#"42/custom,["message-back","a"]"#,
            r#"42["message-back","b"]"#,
            r#"43/custom,7["c"]"#,
            r#"437["d"]"#,
        ]
    );
}

fn many_namespaces(server: &'static Server, transport: Transport) {
    let mut peer = server.peer(transport);
    for number in 0..30 {
        peer.join(&format!("/dyn-{number}"));
    }
    for number in (0..30).rev() {
        peer.send(&format!(r#"42/dyn-{number},["message",{number}]"#));
        peer.expect(&format!(r#"42/dyn-{number},["message-back",{number}]"#));
    }
}

fn refused_namespace_can_be_asked_again(server: &'static Server, transport: Transport) {
    let mut peer = server.peer(transport);
    for _ in 0..3 {
        peer.send("40/random");
        peer.expect(r#"44/random,{"message":"Invalid namespace"}"#);
    }
    peer.join("/custom");
}

fn event_behind_a_refusal_closes(server: &'static Server, transport: Transport) {
    let mut peer = server.peer(transport);
    peer.send("40/reject,");
    assert!(peer.receive_text().starts_with("44/reject,"));
    peer.offer(&[text(r#"42/reject,["message","x"]"#)]);
    peer.ended();
}

/// Node: has no bound.
fn too_many_refusals_close(server: &'static Server, transport: Transport) {
    let mut peer = server.peer(transport);
    for number in 0..10 {
        peer.send(&format!("40/no-{number}"));
        peer.expect(&format!(
            r#"44/no-{number},{{"message":"Invalid namespace"}}"#
        ));
    }
    peer.offer(&[text("40/no-10")]);
    peer.ended();
}

fn leaving_one_keeps_the_others(server: &'static Server, transport: Transport) {
    let mut peer = server.peer(transport);
    peer.join("/");
    peer.join("/custom");
    peer.send("41/custom");
    peer.nothing_came();
}

fn leaving_with_a_comma(server: &'static Server, transport: Transport) {
    let mut peer = server.peer(transport);
    peer.join("/");
    peer.join("/custom");
    peer.send("41/custom,");
    peer.join("/custom");
    peer.nothing_came();
}

fn leaving_the_last_keeps_the_connection(server: &'static Server, transport: Transport) {
    let mut peer = server.socket(transport);
    peer.send("41");
    peer.join("/custom");
}

fn leaving_twice_closes(server: &'static Server, transport: Transport) {
    let mut peer = server.socket(transport);
    peer.send("41");
    peer.offer(&[text("41")]);
    peer.ended();
}

fn event_behind_leaving_closes(server: &'static Server, transport: Transport) {
    let mut peer = server.socket(transport);
    peer.offer(&[text("41"), text(r#"42["message","x"]"#)]);
    peer.ended();
}

fn joining_again(server: &'static Server, transport: Transport) {
    let mut peer = server.peer(transport);
    let mut seen = HashSet::new();
    for _ in 0..5 {
        assert!(seen.insert(peer.join("/")));
        peer.send("41");
    }
    peer.join("/");
    peer.nothing_came();
}

fn rooms_are_left_with_the_namespace(server: &'static Server, transport: Transport) {
    let room = fresh("left");
    let mut peer = server.socket(transport);
    peer.enter(&room);
    peer.send("41");
    peer.join("/");
    let mut other = server.socket(transport);
    eventually("the room is empty", || {
        other.send(&format!(r#"421["fetch","{room}"]"#));
        other.receive_text() == "431[[]]"
    });
    other.send(&format!(r#"42["in-room","{room}","x"]"#));
    other.nothing_came();
    peer.nothing_came();
}

fn disconnected_by_the_server(server: &'static Server, transport: Transport) {
    let mut peer = server.peer(transport);
    peer.join("/custom");
    peer.join("/");
    peer.send(r#"42/custom,["disconnect-me",false]"#);
    peer.expect("41/custom,");
    peer.nothing_came();
}

/// The client cannot know yet, and yet it is an event of nobody.
fn event_behind_a_server_disconnect_closes(server: &'static Server, transport: Transport) {
    let mut peer = server.socket(transport);
    peer.send(r#"42["disconnect-me",false]"#);
    peer.expect("41");
    peer.offer(&[text(r#"42["message","x"]"#)]);
    peer.ended();
}

fn rejoined_after_a_server_disconnect(server: &'static Server, transport: Transport) {
    let mut peer = server.peer(transport);
    let first = peer.join("/");
    peer.send(r#"42["disconnect-me",false]"#);
    peer.expect("41");
    assert_ne!(peer.join("/"), first);
    peer.nothing_came();
}

fn connection_closed_by_the_server(server: &'static Server, transport: Transport) {
    let mut peer = server.socket(transport);
    peer.send(r#"42["disconnect-me",true]"#);
    peer.expect("41");
    peer.ended();
}

fn connection_closed_with_all_namespaces(server: &'static Server, transport: Transport) {
    let mut peer = server.peer(transport);
    peer.join("/");
    peer.join("/custom");
    peer.join("/dyn-5");
    peer.send(r#"42/custom,["disconnect-me",true]"#);
    let mut told: Vec<String> = (0..3).map(|_| peer.receive_text()).collect();
    told.sort();
    assert_eq!(told, ["41", "41/custom,", "41/dyn-5,"]);
    peer.ended();
}
