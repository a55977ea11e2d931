//! Events and acknowledgements, both ways (protocol.md 2.3).

use std::time::{Duration, Instant};

use crate::peer::{Item, Peer, SOCKET, Transport, binary, fresh, text};
use crate::server::Server;

/// What a client sends and what it must receive, in order.
macro_rules! exchanges {
    ($($name:ident: [$($sent:expr),*] => [$($received:expr),*]),* $(,)?) => {
        $(fn $name(server: &'static Server, transport: Transport) {
            let mut peer = server.peer(transport);
            peer.join("/");
            peer.join("/custom");
            peer.send_all(&[$(Item::from($sent)),*]);
            peer.expect_all(&[$(Item::from($received)),*]);
            peer.nothing_came();
        })*
        mod exchanges {
            use super::*;
            transport_cases!(Calm: $($name),*);
        }
    };
}

impl From<&str> for Item {
    fn from(packet: &str) -> Self {
        text(packet)
    }
}

impl<const LENGTH: usize> From<[u8; LENGTH]> for Item {
    fn from(bytes: [u8; LENGTH]) -> Self {
        binary(&bytes)
    }
}

exchanges! {
    event: [r#"42["message",1,"2",{"3":[true]}]"#] => [r#"42["message-back",1,"2",{"3":[true]}]"#],
    event_without_arguments: [r#"42["message"]"#] => [r#"42["message-back"]"#],
    event_of_every_kind:
        [r#"42["message",null,true,false,0,-1.5,"",[],{}]"#]
        => [r#"42["message-back",null,true,false,0,-1.5,"",[],{}]"#],
    event_of_unicode: [r#"42["message","€ ñ 𐍈 ü"]"#] => [r#"42["message-back","€ ñ 𐍈 ü"]"#],
    event_with_the_separator_escaped:
        [r#"42["message","a\u001eb"]"#] => [r#"42["message-back","a\u001eb"]"#],
    event_named_in_escapes: [r#"42["mess\u0061ge","x"]"#] => [r#"42["message-back","x"]"#],
    event_with_packets_inside:
        [r#"42["message","42[\"message\"]","/custom,","1-"]"#]
        => [r#"42["message-back","42[\"message\"]","/custom,","1-"]"#],
    event_of_a_namespace:
        [r#"42/custom,["message","x"]"#] => [r#"42/custom,["message-back","x"]"#],
    ack: [r#"42456["message-with-ack",1,"2",{"3":[false]}]"#] => [r#"43456[1,"2",{"3":[false]}]"#],
    ack_without_arguments: [r#"421["message-with-ack"]"#] => ["431[]"],
    ack_with_id_0: [r#"420["message-with-ack","x"]"#] => [r#"430["x"]"#],
    ack_of_a_namespace:
        [r#"42/custom,12["message-with-ack","x"]"#] => [r#"43/custom,12["x"]"#],
    ack_that_was_not_asked_for: [r#"42["message-with-ack","x"]"#] => [],
    // Node: the function that answers is an argument like others.
    ack_to_a_message: [r#"425["message","x"]"#] => [r#"42["message-back","x"]"#],
    acks_with_one_id:
        [r#"425["message-with-ack","a"]"#, r#"425["message-with-ack","b"]"#]
        => [r#"435["a"]"#, r#"435["b"]"#],
    one_attachment:
        [r#"451-["message",{"_placeholder":true,"num":0}]"#, [1, 2, 3]]
        => [r#"451-["message-back",{"_placeholder":true,"num":0}]"#, [1, 2, 3]],
    two_attachments:
        [r#"452-["message",{"_placeholder":true,"num":0},{"_placeholder":true,"num":1}]"#,
            [1, 2, 3], [4, 5, 6]]
        => [r#"452-["message-back",{"_placeholder":true,"num":0},{"_placeholder":true,"num":1}]"#,
            [1, 2, 3], [4, 5, 6]],
    empty_attachment:
        [r#"451-["message",{"_placeholder":true,"num":0}]"#, [0u8; 0]]
        => [r#"451-["message-back",{"_placeholder":true,"num":0}]"#, [0u8; 0]],
    nested_attachment:
        [r#"451-["message","x",{"a":[1,{"b":{"_placeholder":true,"num":0}}],"c":2}]"#, [9]]
        => [r#"451-["message-back","x",{"a":[1,{"b":{"_placeholder":true,"num":0}}],"c":2}]"#, [9]],
    attachment_of_a_namespace:
        [r#"451-/custom,["message",{"_placeholder":true,"num":0}]"#, [1]]
        => [r#"451-/custom,["message-back",{"_placeholder":true,"num":0}]"#, [1]],
    ack_with_attachments:
        [r#"452-789["message-with-ack",{"_placeholder":true,"num":0},{"_placeholder":true,"num":1}]"#,
            [1, 2, 3], [4, 5, 6]]
        => [r#"462-789[{"_placeholder":true,"num":0},{"_placeholder":true,"num":1}]"#,
            [1, 2, 3], [4, 5, 6]],
    ack_with_an_attachment_of_a_namespace:
        [r#"451-/custom,4["message-with-ack",{"_placeholder":true,"num":0}]"#, [1]]
        => [r#"461-/custom,4[{"_placeholder":true,"num":0}]"#, [1]],
    binary_events_between_texts:
        [r#"42["message",1]"#, r#"451-["message",{"_placeholder":true,"num":0}]"#, [7],
            r#"42["message",2]"#]
        => [r#"42["message-back",1]"#, r#"451-["message-back",{"_placeholder":true,"num":0}]"#, [7],
            r#"42["message-back",2]"#],
    events_and_acks_in_order:
        [r#"42["message",1]"#, r#"421["message-with-ack",2]"#, r#"42["message",3]"#]
        => [r#"42["message-back",1]"#, "431[2]", r#"42["message-back",3]"#],
}

transport_cases!(Calm:
    transport_is_known,
    server_asks_for_an_ack,
    server_asks_for_an_ack_of_a_namespace,
    server_ack_with_attachments,
    server_acks_out_of_order,
    server_ack_twice,
    server_ack_of_another_socket,
    server_ack_waits_while_events_go_on,
    server_ack_runs_out,
    server_ack_comes_too_late,
    server_ack_in_time,
    server_acks_end_with_the_socket,
    burst_in_order,
    burst_with_acks_in_order,
    burst_of_questions_in_order,
    big_message,
    big_attachment,
    volatile_when_writable,
);

cases!(Calm: volatile_is_dropped_without_a_get, transport_changes_with_the_upgrade);

fn transport_is_known(server: &'static Server, transport: Transport) {
    let mut peer = server.socket(transport);
    peer.send(r#"421["transport"]"#);
    peer.expect(match transport {
        Transport::Polling => r#"431["polling"]"#,
        Transport::WebSocket => r#"431["websocket"]"#,
    });
}

/// Takes an event that asks for an ack, and returns its id.
#[track_caller]
fn id_of(packet: &str, prefix: &str, rest: &str) -> u64 {
    packet
        .strip_prefix(prefix)
        .and_then(|packet| packet.strip_suffix(rest))
        .and_then(|id| id.parse().ok())
        .unwrap_or_else(|| panic!("{packet:?} is not {prefix}<id>{rest}"))
}

fn server_asks_for_an_ack(server: &'static Server, transport: Transport) {
    let mut peer = server.socket(transport);
    peer.send(r#"42["emit-with-ack",1,"two"]"#);
    let id = id_of(&peer.receive_text(), "42", r#"["emit-with-ack",1,"two"]"#);
    peer.send(&format!(r#"43{id}["three",{{"4":5}}]"#));
    peer.expect(r#"42["emit-with-ack","three",{"4":5}]"#);
}

fn server_asks_for_an_ack_of_a_namespace(server: &'static Server, transport: Transport) {
    let mut peer = server.peer(transport);
    peer.join("/custom");
    peer.send(r#"42/custom,["emit-with-ack"]"#);
    let id = id_of(&peer.receive_text(), "42/custom,", r#"["emit-with-ack"]"#);
    peer.send(&format!("43/custom,{id}[]"));
    peer.expect(r#"42/custom,["emit-with-ack"]"#);
}

fn server_ack_with_attachments(server: &'static Server, transport: Transport) {
    let mut peer = server.socket(transport);
    let placeholder = r#"{"_placeholder":true,"num":0}"#;
    peer.send_all(&[
        text(&format!(r#"451-["emit-with-ack",{placeholder}]"#)),
        binary(&[1, 2]),
    ]);
    let rest = format!(r#"["emit-with-ack",{placeholder}]"#);
    let id = id_of(&peer.receive_text(), "451-", &rest);
    assert_eq!(peer.receive(), binary(&[1, 2]));
    peer.send_all(&[text(&format!("461-{id}[{placeholder}]")), binary(&[3, 4])]);
    peer.expect(&format!(r#"451-["emit-with-ack",{placeholder}]"#));
    assert_eq!(peer.receive(), binary(&[3, 4]));
}

fn server_acks_out_of_order(server: &'static Server, transport: Transport) {
    let mut peer = server.socket(transport);
    let mut ids = Vec::new();
    for number in 0..5 {
        peer.send(&format!(r#"42["emit-with-ack",{number}]"#));
        let rest = format!(r#"["emit-with-ack",{number}]"#);
        ids.push(id_of(&peer.receive_text(), "42", &rest));
    }
    for (number, id) in ids.iter().enumerate().rev() {
        peer.send(&format!("43{id}[{number}]"));
        peer.expect(&format!(r#"42["emit-with-ack",{number}]"#));
    }
}

fn server_ack_twice(server: &'static Server, transport: Transport) {
    let mut peer = server.socket(transport);
    peer.send(r#"42["emit-with-ack"]"#);
    let id = id_of(&peer.receive_text(), "42", r#"["emit-with-ack"]"#);
    peer.send(&format!("43{id}[1]"));
    peer.send(&format!("43{id}[2]"));
    peer.expect(r#"42["emit-with-ack",1]"#);
    peer.nothing_came();
}

fn server_ack_of_another_socket(server: &'static Server, transport: Transport) {
    let mut peer = server.socket(transport);
    let mut other = server.socket(transport);
    peer.send(r#"42["emit-with-ack"]"#);
    let id = id_of(&peer.receive_text(), "42", r#"["emit-with-ack"]"#);
    other.send(&format!(r#"43{id}["forged"]"#));
    other.nothing_came();
    peer.nothing_came();
    peer.send(&format!(r#"43{id}["mine"]"#));
    peer.expect(r#"42["emit-with-ack","mine"]"#);
}

/// A handler that waits for an ack must not hold up the next event.
fn server_ack_waits_while_events_go_on(server: &'static Server, transport: Transport) {
    let mut peer = server.socket(transport);
    peer.send(r#"42["emit-with-ack"]"#);
    let id = id_of(&peer.receive_text(), "42", r#"["emit-with-ack"]"#);
    peer.nothing_came();
    peer.send(&format!("43{id}[]"));
    peer.expect(r#"42["emit-with-ack"]"#);
}

fn server_ack_runs_out(server: &'static Server, transport: Transport) {
    let mut peer = server.socket(transport);
    let start = Instant::now();
    peer.send(r#"42["ack-timeout",300]"#);
    id_of(&peer.receive_text(), "42", r#"["no-reply"]"#);
    peer.expect(r#"42["ack-timeout",true]"#);
    assert!(start.elapsed() >= Duration::from_millis(300));
}

fn server_ack_comes_too_late(server: &'static Server, transport: Transport) {
    let mut peer = server.socket(transport);
    peer.send(r#"42["ack-timeout",50]"#);
    let id = id_of(&peer.receive_text(), "42", r#"["no-reply"]"#);
    peer.expect(r#"42["ack-timeout",true]"#);
    peer.send(&format!("43{id}[]"));
    peer.nothing_came();
}

fn server_ack_in_time(server: &'static Server, transport: Transport) {
    let mut peer = server.socket(transport);
    peer.send(r#"42["ack-timeout",25000]"#);
    let id = id_of(&peer.receive_text(), "42", r#"["no-reply"]"#);
    peer.send(&format!("43{id}[]"));
    peer.expect(r#"42["ack-timeout",false]"#);
}

/// Nothing is sent to whoever has left meanwhile. Node: is.
fn server_acks_end_with_the_socket(server: &'static Server, transport: Transport) {
    let mut peer = server.socket(transport);
    peer.send(r#"42["ack-timeout",200]"#);
    id_of(&peer.receive_text(), "42", r#"["no-reply"]"#);
    peer.send("41");
    std::thread::sleep(Duration::from_millis(400));
    peer.join("/");
    peer.nothing_came();
}

fn burst_in_order(server: &'static Server, transport: Transport) {
    let mut peer = server.socket(transport);
    let sent: Vec<Item> = (0..1000)
        .map(|number| text(&format!(r#"42["message",{number}]"#)))
        .collect();
    for part in sent.chunks(250) {
        peer.send_all(part);
    }
    for number in 0..1000 {
        peer.expect(&format!(r#"42["message-back",{number}]"#));
    }
}

/// Events whose handlers wait (joining a room may ask the bus) and events whose handlers do not.
fn burst_with_acks_in_order(server: &'static Server, transport: Transport) {
    let room = fresh("burst");
    let mut peer = server.socket(transport);
    let sent: Vec<Item> = (0..200)
        .map(|number| {
            text(&match number % 4 {
                0 => format!(r#"42{number}["join","{room}-{number}"]"#),
                1 => format!(r#"42["message",{number}]"#),
                2 => format!(r#"42{number}["message-with-ack",{number}]"#),
                _ => format!(r#"42{number}["leave","{room}-{}"]"#, number - 3),
            })
        })
        .collect();
    peer.send_all(&sent);
    for number in 0..200 {
        peer.expect(&match number % 4 {
            1 => format!(r#"42["message-back",{number}]"#),
            2 => format!("43{number}[{number}]"),
            _ => format!(r#"43{number}["ok"]"#),
        });
    }
}

/// Handlers that ask the other shards, far more than may park: the client is held back, and nothing
/// overtakes.
fn burst_of_questions_in_order(server: &'static Server, transport: Transport) {
    let room = fresh("question");
    let mut peer = server.socket(transport);
    let sent: Vec<Item> = (0..300)
        .map(|number| {
            text(&match number % 3 {
                0 => format!(r#"42{number}["message-with-ack",{number}]"#),
                _ => format!(r#"42{number}["fetch","{room}"]"#),
            })
        })
        .collect();
    peer.send_all(&sent);
    for number in 0..300 {
        peer.expect(&match number % 3 {
            0 => format!("43{number}[{number}]"),
            _ => format!("43{number}[[]]"),
        });
    }
}

fn big_message(server: &'static Server, transport: Transport) {
    let mut peer = server.socket(transport);
    let content = "x€".repeat(225_000);
    peer.send(&format!(r#"42["message","{content}"]"#));
    let packet = peer.receive_text();
    assert!(packet == format!(r#"42["message-back","{content}"]"#));
    peer.nothing_came();
}

fn big_attachment(server: &'static Server, transport: Transport) {
    let mut peer = server.socket(transport);
    // Base64 takes a third more, so a polling body holds less.
    let length = match transport {
        Transport::Polling => 700_000,
        Transport::WebSocket => 1_000_000,
    };
    let bytes: Vec<u8> = (0..=255u8).cycle().take(length).collect();
    let packet = r#"451-["message",{"_placeholder":true,"num":0}]"#;
    peer.send_all(&[text(packet), binary(&bytes)]);
    peer.expect(&packet.replace("message", "message-back"));
    assert!(peer.receive() == binary(&bytes));
    peer.nothing_came();
}

/// A volatile packet goes out if the transport can take it now.
fn volatile_when_writable(server: &'static Server, transport: Transport) {
    let mut peer = server.socket(transport);
    match &mut peer {
        Peer::WebSocket(websocket) => {
            websocket.send(r#"42["volatile",1]"#);
            websocket.expect(r#"42["volatile-back",1]"#);
        }
        Peer::Polling(session) => {
            let mut getting = server.connect();
            getting.write(crate::http::head("GET", &session.target, ""));
            // Until the server holds the GET they are dropped, and again once it is answered.
            for _ in 0..20 {
                session.send(r#"42["volatile",1]"#);
                std::thread::sleep(Duration::from_millis(50));
            }
            getting.response().is(200, r#"42["volatile-back",1]"#);
        }
    }
    peer.nothing_came();
}

fn volatile_is_dropped_without_a_get(server: &'static Server) {
    let mut peer = server.socket(Transport::Polling);
    peer.send(r#"42["volatile",1]"#);
    peer.nothing_came();
}

fn transport_changes_with_the_upgrade(server: &'static Server) {
    let mut peer = server.socket(Transport::Polling);
    peer.send(r#"421["transport"]"#);
    peer.expect(r#"431["polling"]"#);
    let Peer::Polling(session) = &peer else {
        unreachable!("it polls")
    };
    assert!(session.target.starts_with(SOCKET));
    let mut websocket = server.websocket(&session.target.replace("polling", "websocket"));
    websocket.send("2probe");
    websocket.expect("3probe");
    session.expect("6");
    websocket.send("5");
    websocket.send(r#"422["transport"]"#);
    websocket.expect(r#"432["websocket"]"#);
}
