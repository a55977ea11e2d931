//! The grammar of Socket.IO packets, and what each violation does: the whole connection is closed,
//! without a packet that says so (protocol.md 2.1, 2.2).

use crate::peer::{Item, Transport, binary, text};
use crate::server::Server;

/// Texts that close a connection that has joined `/`, over each transport.
macro_rules! closes {
    ($($name:ident: $packet:expr),* $(,)?) => {
        $(fn $name(server: &'static Server, transport: Transport) {
            let mut peer = server.socket(transport);
            peer.offer(&[text($packet)]);
            peer.ended();
        })*
        mod closes {
            use super::*;
            transport_cases!(Calm: $($name),*);
        }
    };
}

closes! {
    no_type: "4",
    type_seven: "47",
    type_nine: "49[\"message\"]",
    type_letter: "4abc",
    type_bracket: "4[\"message\"]",
    type_of_two_bytes: "4\u{fa}[\"message\"]",
    type_of_four_bytes: "4\u{1f600}",
    count_of_two_bytes: "45\u{fa}-[\"message\"]",
    event_with_letter_of_two_bytes: "42\u{fa}[\"message\"]",
    event_with_wide_blank: "42\u{a0}[\"message\"]",
    connect_twice: "40",
    connect_twice_with_auth: "40{\"token\":\"x\"}",
    disconnect_with_object: "41{}",
    disconnect_with_string: "41\"x\"",
    disconnect_with_array: "41[]",
    disconnect_of_a_strange_namespace: "41/custom,",
    // Node: takes an EVENT without a payload and drops it.
    event_without_payload: "42",
    event_object: "42{}",
    event_string: "42\"message\"",
    event_null: "42null",
    event_empty_array: "42[]",
    event_named_by_object: "42[{\"toString\":\"x\"}]",
    event_named_by_null: "42[null]",
    event_named_by_boolean: "42[true]",
    event_named_by_array: "42[[\"message\"]]",
    event_unclosed: "42[\"message\"",
    event_with_trailing_characters: "42[\"message\"]x",
    event_with_two_arrays: "42[\"message\"][]",
    event_with_trailing_comma: "42[\"message\",]",
    event_with_single_quotes: "42['message']",
    event_with_bare_word: "42[message]",
    event_with_bad_escape: "42[\"\\x\"]",
    event_with_nan: "42[\"message\",NaN]",
    event_with_leading_zero: "42[\"message\",01]",
    event_with_raw_newline: "42[\"mess\nage\"]",
    event_for_a_strange_namespace: "42/custom,[\"message\"]",
    event_for_an_invalid_namespace: "42/nowhere,[\"message\"]",
    reserved_connect: "42[\"connect\"]",
    reserved_connect_error: "42[\"connect_error\"]",
    reserved_disconnect: "42[\"disconnect\"]",
    reserved_disconnecting: "42[\"disconnecting\"]",
    reserved_new_listener: "42[\"newListener\"]",
    reserved_remove_listener: "42[\"removeListener\"]",
    reserved_with_an_ack: "421[\"disconnect\",\"x\"]",
    reserved_in_escapes: "42[\"\\u0063onnect\"]",
    // Node: takes any digits as a number.
    ack_id_over_2_53: "429007199254740992[\"message-with-ack\"]",
    ack_id_of_forty_digits: "421111111111111111111111111111111111111111[\"message-with-ack\"]",
    ack_id_negative: "42-1[\"message\"]",
    ack_with_object: "431{}",
    ack_with_string: "431\"x\"",
    ack_for_a_strange_namespace: "43/custom,1[]",
    connect_error_from_a_client: "44\"x\"",
    connect_error_object_from_a_client: "44{\"message\":\"x\"}",
    binary_event_without_count: "45-[\"message\"]",
    binary_event_without_dash: "451[\"message\"]",
    binary_event_of_letters: "45x-[\"message\"]",
    binary_event_of_a_negative_count: "45-1-[\"message\"]",
    binary_event_of_a_fraction: "451.5-[\"message\"]",
    binary_event_of_eleven: "4511-[\"message\"]",
    binary_event_of_billions: "459999999999-[\"message\"]",
    binary_event_reserved: "451-[\"disconnect\",{\"_placeholder\":true,\"num\":0}]",
    binary_ack_of_eleven: "4611-1[]",
    binary_ack_without_count: "461[]",
    namespace_alone: "4/custom",
}

/// What closes a connection that has joined nothing yet.
macro_rules! closes_unjoined {
    ($($name:ident: $packet:expr),* $(,)?) => {
        $(fn $name(server: &'static Server, transport: Transport) {
            let mut peer = server.peer(transport);
            peer.offer(&[text($packet)]);
            peer.ended();
        })*
        mod closes_unjoined {
            use super::*;
            transport_cases!(Calm: $($name),*);
        }
    };
}

closes_unjoined! {
    nonsense: "4abc",
    connect_with_array: "40[]",
    connect_with_string: "40\"token\"",
    connect_with_null: "40null",
    connect_with_boolean: "40true",
    connect_unclosed: "40{\"token\":\"x\"",
    connect_with_trailing_characters: "40{}x",
    connect_to_a_namespace_with_array: "40/custom,[]",
    event_before_connect: "42[\"message\",\"x\"]",
    ack_before_connect: "430[]",
    disconnect_before_connect: "41",
}

/// Attachments that close the connection: the packet's JSON, and its one attachment.
macro_rules! bad_placeholders {
    ($($name:ident: $json:literal),* $(,)?) => {
        $(fn $name(server: &'static Server, transport: Transport) {
            let mut peer = server.socket(transport);
            let packet = format!(r#"451-["message",{}]"#, $json);
            peer.offer(&[text(&packet), binary(&[1, 2, 3])]);
            peer.ended();
        })*
        mod bad_placeholders {
            use super::*;
            transport_cases!(Calm: $($name),*);
        }
    };
}

bad_placeholders! {
    number_too_high: r#"{"_placeholder":true,"num":1}"#,
    number_negative: r#"{"_placeholder":true,"num":-1}"#,
    // Node: takes a fraction for an index, finds nothing there and hands on `undefined`.
    number_fraction: r#"{"_placeholder":true,"num":0.5}"#,
    number_in_quotes: r#"{"_placeholder":true,"num":"0"}"#,
    number_named_like_a_method: r#"{"_placeholder":true,"num":"splice"}"#,
    number_null: r#"{"_placeholder":true,"num":null}"#,
    number_absent: r#"{"_placeholder":true}"#,
    number_object: r#"{"_placeholder":true,"num":{}}"#,
    number_huge: r#"{"_placeholder":true,"num":99999999999999999999}"#,
    nested_and_too_high: r#"{"a":[{"_placeholder":true,"num":7}]}"#,
}

transport_cases!(Calm:
    text_while_binary_is_awaited,
    binary_while_none_is_awaited,
    one_binary_too_many,
    binary_event_before_connect,
    binary_event_of_no_attachments,
    placeholder_without_attachments_is_data,
    ack_ids_up_to_2_53,
    unknown_events_are_dropped,
    error_is_not_reserved,
    events_named_by_numbers,
    reserved_looking_names_are_free,
    ack_nobody_asked_for,
    explicit_main_namespace,
    json_is_passed_through,
    json_of_depth_100,
    json_of_depth_100000,
    ten_attachments,
    attachments_too_big_together,
    other_namespaces_end_too,
    connection_ends_alone,
);

fn text_while_binary_is_awaited(server: &'static Server, transport: Transport) {
    let mut peer = server.socket(transport);
    let packet = r#"451-["message",{"_placeholder":true,"num":0}]"#;
    peer.offer(&[text(packet), text(r#"42["message","x"]"#)]);
    peer.ended();
}

fn binary_while_none_is_awaited(server: &'static Server, transport: Transport) {
    let mut peer = server.socket(transport);
    peer.offer(&[binary(&[1])]);
    peer.ended();
}

fn one_binary_too_many(server: &'static Server, transport: Transport) {
    let mut peer = server.socket(transport);
    let packet = r#"451-["ignored",{"_placeholder":true,"num":0}]"#;
    peer.offer(&[text(packet), binary(&[1]), binary(&[2])]);
    peer.ended();
}

fn binary_event_before_connect(server: &'static Server, transport: Transport) {
    let mut peer = server.peer(transport);
    let packet = r#"451-["message",{"_placeholder":true,"num":0}]"#;
    peer.offer(&[text(packet), binary(&[1])]);
    peer.ended();
}

/// Node: delivers it, then closes at the next text.
fn binary_event_of_no_attachments(server: &'static Server, transport: Transport) {
    let mut peer = server.socket(transport);
    peer.send(r#"450-["message","x"]"#);
    peer.expect(r#"42["message-back","x"]"#);
    peer.nothing_came();
}

fn placeholder_without_attachments_is_data(server: &'static Server, transport: Transport) {
    let mut peer = server.socket(transport);
    peer.send(r#"42["message",{"_placeholder":true,"num":0}]"#);
    peer.expect(r#"42["message-back",{"_placeholder":true,"num":0}]"#);
}

fn ack_ids_up_to_2_53(server: &'static Server, transport: Transport) {
    let mut peer = server.socket(transport);
    for id in ["0", "7", "9007199254740991"] {
        peer.send(&format!(r#"42{id}["message-with-ack","x"]"#));
        peer.expect(&format!(r#"43{id}["x"]"#));
    }
}

fn unknown_events_are_dropped(server: &'static Server, transport: Transport) {
    let mut peer = server.socket(transport);
    peer.send(r#"42["unknown","x"]"#);
    peer.send(r#"421["unknown","x"]"#);
    peer.nothing_came();
}

/// CVE-2024-38355: `error` must not need a listener.
fn error_is_not_reserved(server: &'static Server, transport: Transport) {
    let mut peer = server.socket(transport);
    peer.send(r#"42["error","x"]"#);
    peer.nothing_came();
}

fn events_named_by_numbers(server: &'static Server, transport: Transport) {
    let mut peer = server.socket(transport);
    peer.send(r#"42[1,"x"]"#);
    peer.send(r#"42[-1.5e3,"x"]"#);
    peer.nothing_came();
}

fn reserved_looking_names_are_free(server: &'static Server, transport: Transport) {
    let mut peer = server.socket(transport);
    for name in ["Connect", "connected", "", "__proto__", "toString", "ping"] {
        peer.send(&format!(r#"42["{name}","x"]"#));
    }
    peer.nothing_came();
}

fn ack_nobody_asked_for(server: &'static Server, transport: Transport) {
    let mut peer = server.socket(transport);
    peer.send(r#"4399999["x"]"#);
    peer.send("439007199254740991[]");
    peer.send_all(&[
        text(r#"461-88888[{"_placeholder":true,"num":0}]"#),
        binary(&[1]),
    ]);
    peer.nothing_came();
}

fn explicit_main_namespace(server: &'static Server, transport: Transport) {
    let mut peer = server.socket(transport);
    peer.send(r#"42/,["message","x"]"#);
    peer.expect(r#"42["message-back","x"]"#);
    peer.send(r#"42/,3["message-with-ack","x"]"#);
    peer.expect(r#"433["x"]"#);
}

/// Order of keys, spelling of numbers and escapes. Node: decodes and encodes again.
fn json_is_passed_through(server: &'static Server, transport: Transport) {
    let mut peer = server.socket(transport);
    let arguments =
        r#"1.0,1e3,-0,123456789012345678901234567890,"\u00e9\/",{"b":1,"a":2,"10":3,"9":4}"#;
    peer.send(&format!(r#"42["message",{arguments}]"#));
    peer.expect(&format!(r#"42["message-back",{arguments}]"#));
    peer.send(&format!(r#"421["message-with-ack",{arguments}]"#));
    peer.expect(&format!("431[{arguments}]"));
}

fn nested(depth: usize) -> String {
    format!("{}{}", "[".repeat(depth), "]".repeat(depth))
}

fn json_of_depth_100(server: &'static Server, transport: Transport) {
    let mut peer = server.socket(transport);
    peer.send(&format!(r#"42["message",{}]"#, nested(100)));
    peer.expect(&format!(r#"42["message-back",{}]"#, nested(100)));
}

/// Node: the process dies of it.
fn json_of_depth_100000(server: &'static Server, transport: Transport) {
    let mut peer = server.socket(transport);
    let deep = nested(100_000);
    peer.offer(&[text(&format!(r#"42["message",{deep}]"#))]);
    peer.ended();
    let mut peer = server.peer(transport);
    peer.offer(&[text(&format!(r#"40{{"token":{deep}}}"#))]);
    peer.ended();
    let objects = r#"{"a":"#.repeat(100_000);
    let mut peer = server.socket(transport);
    peer.offer(&[text(&format!(r#"42["message",{objects}"#))]);
    peer.ended();
}

fn ten_attachments(server: &'static Server, transport: Transport) {
    let mut peer = server.socket(transport);
    let placeholders: Vec<String> = (0..10)
        .map(|number| format!(r#"{{"_placeholder":true,"num":{number}}}"#))
        .collect();
    let placeholders = placeholders.join(",");
    let attachments: Vec<Item> = (0..10).map(|number| binary(&[number; 3])).collect();
    let mut packet = vec![text(&format!(r#"4510-["message",{placeholders}]"#))];
    packet.extend(attachments.clone());
    peer.send_all(&packet);
    peer.expect(&format!(r#"4510-["message-back",{placeholders}]"#));
    peer.expect_all(&attachments);
}

/// Each may be sent, but not all of them for one packet. Node: has no bound.
fn attachments_too_big_together(server: &'static Server, transport: Transport) {
    let mut peer = server.socket(transport);
    let packet = r#"453-["message",{"_placeholder":true,"num":0},{"_placeholder":true,"num":1},{"_placeholder":true,"num":2}]"#;
    peer.send(packet);
    peer.send_all(&[binary(&vec![7; 400_000])]);
    peer.send_all(&[binary(&vec![7; 400_000])]);
    peer.offer(&[binary(&vec![7; 400_000])]);
    peer.ended();
}

/// A violation in one namespace ends the others of that connection, as others can see.
fn other_namespaces_end_too(server: &'static Server, transport: Transport) {
    let room = crate::peer::fresh("ends");
    let mut witness = server.peer(Transport::WebSocket);
    witness.join("/custom");
    let mut peer = server.peer(transport);
    peer.join("/");
    peer.join("/custom");
    peer.send(&format!(r#"42/custom,1["join","{room}"]"#));
    peer.expect(r#"43/custom,1["ok"]"#);
    peer.offer(&[text("42[]")]);
    peer.ended();
    crate::peer::eventually("the room is empty", || {
        witness.send(&format!(r#"42/custom,2["fetch","{room}"]"#));
        witness.receive_text() == "43/custom,2[[]]"
    });
}

fn connection_ends_alone(server: &'static Server, transport: Transport) {
    let mut witness = server.socket(transport);
    let mut peer = server.socket(transport);
    peer.offer(&[text("42[]")]);
    peer.ended();
    witness.nothing_came();
}
