//! WebSocket framing on an Engine.IO session (RFC 6455; protocol.md 1.6).

use std::time::Duration;

use crate::peer::ENGINE_WS;
use crate::server::Server;
use crate::websocket::{
    BINARY, CLOSE, CONTINUATION, FIN, PING, PONG, TEXT, WebSocket, frame, frame_head, text_frame,
};

const MAX_PAYLOAD: usize = 1_000_000;

/// Bytes that fail the connection, and the close codes that may say so.
macro_rules! fails {
    ($($name:ident: $bytes:expr => $($code:literal)|+),* $(,)?) => {
        $(fn $name(server: &'static Server) {
            let mut websocket = server.session(ENGINE_WS);
            websocket.connection.write($bytes);
            let code = websocket.closes();
            assert!(code.is_some_and(|code| matches!(code, $($code)|+)), "{code:?}");
        })*
        mod fails {
            use super::*;
            cases!(Calm: $($name),*);
        }
    };
}

fn two(first: Vec<u8>, second: &[u8]) -> Vec<u8> {
    let mut both = first;
    both.extend_from_slice(second);
    both
}

fn unmasked(first: u8, payload: &[u8]) -> Vec<u8> {
    two(frame_head(first, payload.len(), false), payload)
}

fails! {
    unmasked_text: unmasked(FIN | TEXT, b"4x") => 1002,
    unmasked_binary: unmasked(FIN | BINARY, b"x") => 1002,
    unmasked_ping: unmasked(FIN | PING, b"x") => 1002,
    first_reserved_bit: frame(FIN | 0x40 | TEXT, b"4x") => 1002,
    second_reserved_bit: frame(FIN | 0x20 | TEXT, b"4x") => 1002,
    third_reserved_bit: frame(FIN | 0x10 | BINARY, b"x") => 1002,
    reserved_bit_on_a_control_frame: frame(FIN | 0x40 | PING, b"x") => 1002,
    reserved_data_opcode: frame(FIN | 3, b"x") => 1002,
    reserved_last_data_opcode: frame(FIN | 7, b"x") => 1002,
    reserved_control_opcode: frame(FIN | 0xb, b"x") => 1002,
    reserved_last_control_opcode: frame(FIN | 0xf, b"") => 1002,
    stray_continuation: frame(FIN | CONTINUATION, b"x") => 1002,
    stray_continuation_unfinished: frame(CONTINUATION, b"x") => 1002,
    text_within_a_message: two(frame(TEXT, b"4a"), &text_frame("4b")) => 1002,
    binary_within_a_message: two(frame(TEXT, b"4a"), &frame(FIN | BINARY, b"b")) => 1002,
    fragmented_ping: frame(PING, b"x") => 1002,
    fragmented_close: frame(CLOSE, b"") => 1002,
    ping_of_126_bytes: frame(FIN | PING, &[b'x'; 126]) => 1002,
    close_of_126_bytes: frame(FIN | CLOSE, &[b'x'; 126]) => 1002,
    not_utf_8: frame(FIN | TEXT, b"4\xff") => 1007,
    utf_8_cut_off: frame(FIN | TEXT, b"4\xe2\x82") => 1007,
    surrogate_in_utf_8: frame(FIN | TEXT, b"4\xed\xa0\x80") => 1007,
    overlong_utf_8: frame(FIN | TEXT, b"4\xc0\xaf") => 1007,
    not_utf_8_over_fragments: two(frame(TEXT, b"4\xe2"), &frame(FIN | CONTINUATION, b"x")) => 1007,
    close_payload_of_one_byte: frame(FIN | CLOSE, b"\x03") => 1002,
    close_code_reserved: frame(FIN | CLOSE, &1005u16.to_be_bytes()) => 1002,
    close_code_abnormal: frame(FIN | CLOSE, &1006u16.to_be_bytes()) => 1002,
    close_code_too_low: frame(FIN | CLOSE, &999u16.to_be_bytes()) => 1002,
    close_code_unknown: frame(FIN | CLOSE, &1016u16.to_be_bytes()) => 1002,
    close_code_too_high: frame(FIN | CLOSE, &5000u16.to_be_bytes()) => 1002,
    close_reason_not_utf_8: frame(FIN | CLOSE, b"\x03\xe8\xff") => 1007 | 1002,
    length_over_the_limit: frame(FIN | BINARY, &vec![0; MAX_PAYLOAD + 1]) => 1009,
    length_announced_over_the_limit: frame_head(FIN | TEXT, MAX_PAYLOAD + 1, true) => 1009,
    length_of_gibibytes: frame_head(FIN | TEXT, 1 << 40, true) => 1009,
    fragments_over_the_limit:
        two(frame(BINARY, &vec![0; 600_000]), &frame(FIN | CONTINUATION, &vec![0; 600_000])) => 1009,
    fragment_announced_over_the_limit:
        two(frame(BINARY, &vec![0; 600_000]), &frame_head(CONTINUATION, 400_001, true)) => 1009,
}

/// Packets that end the session, over a whole frame.
macro_rules! closes {
    ($($name:ident: $bytes:expr),* $(,)?) => {
        $(fn $name(server: &'static Server) {
            let mut websocket = server.session(ENGINE_WS);
            websocket.connection.write($bytes);
            websocket.closes();
        })*
        mod closes {
            use super::*;
            cases!(Calm: $($name),*);
        }
    };
}

closes! {
    letters: text_frame("abc"),
    type_nine: text_frame("9"),
    empty_text: text_frame(""),
    ping_from_a_client: text_frame("2"),
    // Node: leaves the WebSocket open.
    close_packet: text_frame("1"),
    // Node: takes `b` and base64 over a WebSocket, too.
    base64_in_a_text_frame: text_frame("b!!!"),
    length_with_the_top_bit: [FIN | BINARY, 0xff, 0xff, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0],
}

/// What is echoed, message for message.
macro_rules! echoes {
    ($($name:ident: $bytes:expr => $first:expr, $payload:expr),* $(,)?) => {
        $(fn $name(server: &'static Server) {
            let mut websocket = server.session(ENGINE_WS);
            websocket.connection.write($bytes);
            websocket.expect_frame($first, $payload);
        })*
        mod echoes {
            use super::*;
            cases!(Calm: $($name),*);
        }
    };
}

fn fragments(first: u8, parts: &[&[u8]]) -> Vec<u8> {
    let last = parts.len() - 1;
    let parts = parts.iter().enumerate().map(|(index, part)| {
        let opcode = if index == 0 { first } else { CONTINUATION };
        frame(if index == last { FIN | opcode } else { opcode }, part)
    });
    parts.flatten().collect()
}

echoes! {
    text: text_frame("4hello") => FIN | TEXT, b"4hello",
    empty_message: text_frame("4") => FIN | TEXT, b"4",
    non_ascii: text_frame("4€ ñ 𐍈") => FIN | TEXT, "4€ ñ 𐍈".as_bytes(),
    separator_is_content: text_frame("4a\u{1e}4b") => FIN | TEXT, b"4a\x1e4b",
    binary: frame(FIN | BINARY, &[1, 2, 3, 4]) => FIN | BINARY, &[1, 2, 3, 4],
    empty_binary: frame(FIN | BINARY, b"") => FIN | BINARY, b"",
    binary_that_looks_like_text: frame(FIN | BINARY, b"4x") => FIN | BINARY, b"4x",
    of_125_bytes: frame(FIN | BINARY, &[7; 125]) => FIN | BINARY, &[7; 125],
    of_126_bytes: frame(FIN | BINARY, &[7; 126]) => FIN | BINARY, &[7; 126],
    of_65535_bytes: frame(FIN | BINARY, &vec![7; 65535]) => FIN | BINARY, &vec![7; 65535],
    of_65536_bytes: frame(FIN | BINARY, &vec![7; 65536]) => FIN | BINARY, &vec![7; 65536],
    of_max_payload: frame(FIN | BINARY, &vec![7; MAX_PAYLOAD]) => FIN | BINARY, &vec![7; MAX_PAYLOAD],
    text_in_two_fragments: fragments(TEXT, &[b"4he", b"llo"]) => FIN | TEXT, b"4hello",
    text_in_single_bytes:
        fragments(TEXT, &"4€x".as_bytes().chunks(1).collect::<Vec<_>>()) => FIN | TEXT, "4€x".as_bytes(),
    binary_in_fragments: fragments(BINARY, &[&[1], &[], &[2, 3]]) => FIN | BINARY, &[1, 2, 3],
    empty_last_fragment: fragments(TEXT, &[b"4x", b""]) => FIN | TEXT, b"4x",
    empty_first_fragment: fragments(TEXT, &[b"", b"4x"]) => FIN | TEXT, b"4x",
    hundred_fragments: fragments(TEXT, &[&b"4"[..]; 100]) => FIN | TEXT, &[b'4'; 100],
    open_is_ignored: two(text_frame("0{}"), &text_frame("4x")) => FIN | TEXT, b"4x",
    noop_is_ignored: two(text_frame("6"), &text_frame("4x")) => FIN | TEXT, b"4x",
    upgrade_is_ignored: two(text_frame("5"), &text_frame("4x")) => FIN | TEXT, b"4x",
    pong_packet_unasked_is_ignored: two(text_frame("3"), &text_frame("4x")) => FIN | TEXT, b"4x",
    pong_frame_unasked_is_ignored: two(frame(FIN | PONG, b"x"), &text_frame("4x")) => FIN | TEXT, b"4x",
    ping_is_answered: frame(FIN | PING, b"payload") => FIN | PONG, b"payload",
    empty_ping_is_answered: frame(FIN | PING, b"") => FIN | PONG, b"",
    ping_of_125_bytes: frame(FIN | PING, &[b'x'; 125]) => FIN | PONG, &[b'x'; 125],
}

cases!(Calm:
    ping_between_fragments,
    close_is_answered,
    close_without_a_code_is_answered,
    close_between_fragments,
    close_with_a_reason,
    empty_fragments_are_counted,
    one_byte_fragments_are_counted,
    frames_byte_by_byte,
    two_hundred_frames_in_one_write,
    bytes_behind_a_close_are_nothing,
    vanishing_client,
    client_that_resets,
    announced_and_never_sent,
);

fn ping_between_fragments(server: &'static Server) {
    let mut websocket = server.session(ENGINE_WS);
    websocket.send_frame(TEXT, b"4he");
    websocket.send_frame(FIN | PING, b"between");
    websocket.expect_frame(FIN | PONG, b"between");
    websocket.send_frame(FIN | CONTINUATION, b"llo");
    websocket.expect("4hello");
}

fn close_is_answered(server: &'static Server) {
    let mut websocket = server.session(ENGINE_WS);
    websocket.send_frame(FIN | CLOSE, &1000u16.to_be_bytes());
    let answer = websocket.receive();
    assert_eq!(answer.first, FIN | CLOSE);
    assert_eq!(answer.payload, 1000u16.to_be_bytes());
    websocket.connection.ends();
}

fn close_without_a_code_is_answered(server: &'static Server) {
    let mut websocket = server.session(ENGINE_WS);
    websocket.send_frame(FIN | CLOSE, b"");
    let answer = websocket.receive();
    assert_eq!(answer.first, FIN | CLOSE);
    websocket.connection.ends();
}

fn close_between_fragments(server: &'static Server) {
    let mut websocket = server.session(ENGINE_WS);
    websocket.send_frame(TEXT, b"4he");
    websocket.send_frame(FIN | CLOSE, &1001u16.to_be_bytes());
    assert_eq!(websocket.receive().first, FIN | CLOSE);
    websocket.connection.ends();
}

fn close_with_a_reason(server: &'static Server) {
    for code in [1000u16, 1001, 1003, 1011, 3000, 4999] {
        let mut websocket = server.session(ENGINE_WS);
        let mut payload = code.to_be_bytes().to_vec();
        payload.extend_from_slice("weil es ümmer so ist".as_bytes());
        websocket.send_frame(FIN | CLOSE, &payload);
        assert_eq!(websocket.receive().payload[..2], code.to_be_bytes());
        websocket.connection.ends();
    }
}

/// CVE-2026-48779: fragments cost memory of their own. At most 128 make a message.
/// Node: ws bounds them much higher.
#[track_caller]
fn refuses_fragments(server: &'static Server, payload: &[u8], count: usize) {
    let mut websocket = server.session(ENGINE_WS);
    let mut bytes = frame(TEXT, b"4");
    for _ in 0..count {
        bytes.extend(frame(CONTINUATION, payload));
    }
    websocket.connection.write(bytes);
    assert!(matches!(
        websocket.closes(),
        None | Some(1002 | 1008 | 1009)
    ));
}

fn empty_fragments_are_counted(server: &'static Server) {
    refuses_fragments(server, b"", 100_000);
}

fn one_byte_fragments_are_counted(server: &'static Server) {
    refuses_fragments(server, b"x", 1000);
}

fn frames_byte_by_byte(server: &'static Server) {
    let mut websocket = server.session(ENGINE_WS);
    for byte in two(text_frame("4drip"), &frame(FIN | BINARY, &[9; 130])) {
        websocket.connection.write([byte]);
    }
    websocket.expect("4drip");
    websocket.expect_frame(FIN | BINARY, &[9; 130]);
}

fn two_hundred_frames_in_one_write(server: &'static Server) {
    let mut websocket = server.session(ENGINE_WS);
    let mut bytes = Vec::new();
    for number in 0..200 {
        bytes.extend(text_frame(&format!("4{number}")));
        bytes.extend(frame(FIN | BINARY, &[number]));
    }
    websocket.connection.write(bytes);
    for number in 0..200 {
        websocket.expect(&format!("4{number}"));
        websocket.expect_frame(FIN | BINARY, &[number]);
    }
}

fn bytes_behind_a_close_are_nothing(server: &'static Server) {
    let mut websocket = server.session(ENGINE_WS);
    let close = frame(FIN | CLOSE, &1000u16.to_be_bytes());
    websocket.connection.write(two(close, &text_frame("4x")));
    assert_eq!(websocket.receive().first, FIN | CLOSE);
    websocket.connection.ends();
}

fn works(mut websocket: WebSocket) {
    websocket.send("4x");
    websocket.expect("4x");
}

fn vanishing_client(server: &'static Server) {
    let witness = server.session(ENGINE_WS);
    for _ in 0..20 {
        drop(server.session(ENGINE_WS));
    }
    works(witness);
}

/// Closing a socket with unread bytes in it resets the connection.
fn client_that_resets(server: &'static Server) {
    let witness = server.session(ENGINE_WS);
    for _ in 0..20 {
        let mut websocket = server.session(ENGINE_WS);
        websocket.send("4unread");
        websocket.send("4unread");
        std::thread::sleep(Duration::from_millis(2));
    }
    works(witness);
}

fn announced_and_never_sent(server: &'static Server) {
    let mut stalled = Vec::new();
    for _ in 0..20 {
        let mut websocket = server.session(ENGINE_WS);
        let head = frame_head(FIN | BINARY, 900_000, true);
        websocket.connection.write(two(head, b"maskdata"));
        stalled.push(websocket);
    }
    works(server.session(ENGINE_WS));
}
