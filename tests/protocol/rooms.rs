//! Rooms, broadcasts and what spans the shards (protocol.md 2.5).

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE;
use serde_json::Value;

use crate::peer::{Peer, Transport, binary, eventually, fresh, text};
use crate::server::Server;

transport_cases!(Calm:
    own_room,
    join_and_leave,
    to_room_leaves_the_sender_out,
    in_room_reaches_the_sender,
    sender_need_not_be_a_member,
    empty_room,
    several_rooms_once_each,
    except,
    except_nobody,
    left_room,
    rooms_belong_to_their_namespace,
    names_are_exact,
    broadcast_with_attachments,
    broadcast_in_order,
    each_member_once_on_every_shard,
    broadcast_with_acks,
    broadcast_with_acks_of_an_empty_room,
    broadcast_with_acks_runs_out,
    broadcast_ack_of_a_stranger,
    fetch_on_every_shard,
    fetch_of_an_empty_room,
    vanished_members_are_left_out,
    another_ones_private_room,
);

cases!(Calm: both_transports_in_one_room, broadcast_during_an_upgrade);

mod alone {
    use super::server_side_emit;
    cases!(Alone: server_side_emit);
}

/// So many sockets that four shards all have some.
fn crowd(server: &'static Server, transport: Transport, count: usize, room: &str) -> Vec<Peer> {
    let enter = |_| {
        let mut peer = server.socket(transport);
        peer.enter(room);
        peer
    };
    (0..count).map(enter).collect()
}

#[track_caller]
fn array_of(packet: &str, prefix: &str) -> BTreeSet<String> {
    let json = packet
        .strip_prefix(prefix)
        .unwrap_or_else(|| panic!("{packet:?} does not begin with {prefix}"));
    let value: Value = serde_json::from_str(json).expect("it is JSON");
    let array = value[0].as_array().expect("its first item is an array");
    let set: BTreeSet<String> = array
        .iter()
        .map(|item| item.as_str().expect("of strings").to_owned())
        .collect();
    assert_eq!(set.len(), array.len(), "each once: {packet}");
    set
}

fn set(items: &[&str]) -> BTreeSet<String> {
    items.iter().map(|&item| item.to_owned()).collect()
}

fn own_room(server: &'static Server, transport: Transport) {
    let mut peer = server.peer(transport);
    let sid = peer.join("/");
    peer.send(r#"421["rooms"]"#);
    assert_eq!(array_of(&peer.receive_text(), "431"), set(&[&sid]));
}

fn join_and_leave(server: &'static Server, transport: Transport) {
    let (one, two) = (fresh("one"), fresh("two"));
    let mut peer = server.peer(transport);
    let sid = peer.join("/");
    peer.enter(&one);
    peer.enter(&two);
    peer.enter(&one);
    peer.send(r#"421["rooms"]"#);
    let rooms = array_of(&peer.receive_text(), "431");
    assert_eq!(rooms, set(&[&sid, &one, &two]));
    peer.send(&format!(r#"422["leave","{one}"]"#));
    peer.expect(r#"432["ok"]"#);
    peer.send(&format!(r#"423["leave","{one}"]"#));
    peer.expect(r#"433["ok"]"#);
    peer.send(r#"424["rooms"]"#);
    assert_eq!(array_of(&peer.receive_text(), "434"), set(&[&sid, &two]));
}

fn to_room_leaves_the_sender_out(server: &'static Server, transport: Transport) {
    let room = fresh("to");
    let mut members = crowd(server, transport, 3, &room);
    members[0].send(&format!(r#"42["to-room","{room}","news",1,{{"a":[2]}}]"#));
    members[1].expect(r#"42["news",1,{"a":[2]}]"#);
    members[2].expect(r#"42["news",1,{"a":[2]}]"#);
    members[0].nothing_came();
}

fn in_room_reaches_the_sender(server: &'static Server, transport: Transport) {
    let room = fresh("in");
    let mut members = crowd(server, transport, 3, &room);
    members[0].send(&format!(r#"42["in-room","{room}","news","x"]"#));
    for member in &mut members {
        member.expect(r#"42["news","x"]"#);
        member.nothing_came();
    }
}

fn sender_need_not_be_a_member(server: &'static Server, transport: Transport) {
    let room = fresh("outside");
    let mut members = crowd(server, transport, 2, &room);
    let mut outsider = server.socket(transport);
    outsider.send(&format!(r#"42["to-room","{room}","news"]"#));
    outsider.send(&format!(r#"42["in-room","{room}","more"]"#));
    for member in &mut members {
        member.expect(r#"42["news"]"#);
        member.expect(r#"42["more"]"#);
    }
    outsider.nothing_came();
}

fn empty_room(server: &'static Server, transport: Transport) {
    let room = fresh("empty");
    let mut peer = server.socket(transport);
    peer.send(&format!(r#"42["to-room","{room}","news"]"#));
    peer.send(&format!(r#"42["in-room","{room}","news"]"#));
    peer.nothing_came();
}

fn several_rooms_once_each(server: &'static Server, transport: Transport) {
    let (one, two) = (fresh("one"), fresh("two"));
    let mut both = server.socket(transport);
    both.enter(&one);
    both.enter(&two);
    let mut only = crowd(server, transport, 2, &two);
    let mut sender = server.socket(transport);
    sender.send(&format!(r#"42["in-room",["{one}","{two}"],"news"]"#));
    for member in only.iter_mut().chain([&mut both]) {
        member.expect(r#"42["news"]"#);
        member.nothing_came();
    }
    sender.nothing_came();
}

fn except(server: &'static Server, transport: Transport) {
    let (room, muted) = (fresh("room"), fresh("muted"));
    let mut members = crowd(server, transport, 4, &room);
    members[1].enter(&muted);
    members[3].enter(&muted);
    members[0].send(&format!(
        r#"42["in-room-except","{room}","{muted}","news",1]"#
    ));
    members[0].expect(r#"42["news",1]"#);
    members[2].expect(r#"42["news",1]"#);
    for member in &mut members {
        member.nothing_came();
    }
}

fn except_nobody(server: &'static Server, transport: Transport) {
    let (room, muted) = (fresh("room"), fresh("muted"));
    let mut members = crowd(server, transport, 2, &room);
    members[0].send(&format!(
        r#"42["in-room-except","{room}","{muted}","news"]"#
    ));
    for member in &mut members {
        member.expect(r#"42["news"]"#);
    }
}

fn left_room(server: &'static Server, transport: Transport) {
    let room = fresh("left");
    let mut members = crowd(server, transport, 2, &room);
    members[1].send(&format!(r#"421["leave","{room}"]"#));
    members[1].expect(r#"431["ok"]"#);
    members[0].send(&format!(r#"42["in-room","{room}","news"]"#));
    members[0].expect(r#"42["news"]"#);
    members[1].nothing_came();
}

fn rooms_belong_to_their_namespace(server: &'static Server, transport: Transport) {
    let room = fresh("apart");
    let mut main = server.peer(transport);
    main.join("/");
    main.enter(&room);
    let mut custom = server.peer(transport);
    custom.join("/");
    custom.join("/custom");
    custom.send(&format!(r#"42/custom,1["join","{room}"]"#));
    custom.expect(r#"43/custom,1["ok"]"#);
    main.send(&format!(r#"42["in-room","{room}","main"]"#));
    main.expect(r#"42["main"]"#);
    custom.send(&format!(r#"42/custom,["in-room","{room}","custom"]"#));
    custom.expect(r#"42/custom,["custom"]"#);
    main.nothing_came();
    custom.nothing_came();
}

fn names_are_exact(server: &'static Server, transport: Transport) {
    let room = fresh("näme €*?[a] #");
    let mut peer = server.socket(transport);
    peer.enter(&room);
    let mut sender = server.socket(transport);
    for other in [
        room.to_uppercase(),
        format!("{room} "),
        format!(" {room}"),
        room[..room.len() - 1].to_owned(),
        String::new(),
    ] {
        sender.send(&format!(r#"42["in-room","{other}","wrong"]"#));
    }
    sender.send(&format!(r#"42["in-room","{room}","right"]"#));
    peer.expect(r#"42["right"]"#);
    peer.nothing_came();
}

fn broadcast_with_attachments(server: &'static Server, transport: Transport) {
    let room = fresh("binary");
    let mut members = crowd(server, transport, 4, &room);
    let placeholder = r#"{"_placeholder":true,"num":0}"#;
    members[0].send_all(&[
        text(&format!(
            r#"451-["in-room","{room}","news",{{"a":{placeholder}}}]"#
        )),
        binary(&[1, 2, 3]),
    ]);
    for member in &mut members {
        member.expect(&format!(r#"451-["news",{{"a":{placeholder}}}]"#));
        assert_eq!(member.receive(), binary(&[1, 2, 3]));
        member.nothing_came();
    }
}

fn broadcast_in_order(server: &'static Server, transport: Transport) {
    let room = fresh("order");
    let mut members = crowd(server, transport, 5, &room);
    let sent: Vec<_> = (0..300)
        .map(|number| text(&format!(r#"42["in-room","{room}","news",{number}]"#)))
        .collect();
    for part in sent.chunks(60) {
        members[0].send_all(part);
    }
    for member in &mut members {
        for number in 0..300 {
            member.expect(&format!(r#"42["news",{number}]"#));
        }
    }
}

fn each_member_once_on_every_shard(server: &'static Server, transport: Transport) {
    let room = fresh("once");
    let mut members = crowd(server, transport, 12, &room);
    for sender in 0..members.len() {
        members[sender].send(&format!(r#"42["to-room","{room}","from",{sender}]"#));
        for (index, member) in members.iter_mut().enumerate() {
            if index != sender {
                member.expect(&format!(r#"42["from",{sender}]"#));
            }
        }
    }
    for member in &mut members {
        member.nothing_came();
    }
}

/// Takes an event that asks for an ack, and answers.
#[track_caller]
fn answer(member: &mut Peer, event: &str, arguments: &str) {
    let packet = member.receive_text();
    let id = packet
        .strip_prefix("42")
        .and_then(|packet| packet.strip_suffix(event))
        .unwrap_or_else(|| panic!("{packet:?} is not 42<id>{event}"));
    assert!(id.parse::<u64>().is_ok(), "{packet}");
    member.send(&format!("43{id}{arguments}"));
}

fn broadcast_with_acks(server: &'static Server, transport: Transport) {
    let room = fresh("acks");
    let mut members = crowd(server, transport, 8, &room);
    let mut asking = server.socket(transport);
    asking.send(&format!(r#"42["room-ack","{room}",25000,"question",1]"#));
    for (index, member) in members.iter_mut().enumerate() {
        answer(member, r#"["question",1]"#, &format!(r#"["a{index}","b"]"#));
    }
    let packet = asking.receive_text();
    let mut answers: Vec<&str> = packet
        .strip_prefix(r#"42["room-acks",["#)
        .and_then(|packet| packet.strip_suffix("]]"))
        .unwrap_or_else(|| panic!("{packet:?} are no acks"))
        .split(',')
        .collect();
    answers.sort_unstable();
    let expected: Vec<String> = (0..8).map(|index| format!(r#""a{index}""#)).collect();
    assert_eq!(answers, expected);
}

fn broadcast_with_acks_of_an_empty_room(server: &'static Server, transport: Transport) {
    let mut asking = server.socket(transport);
    let room = fresh("nobody");
    asking.send(&format!(r#"42["room-ack","{room}",25000,"question"]"#));
    asking.expect(r#"42["room-acks",[]]"#);
}

fn broadcast_with_acks_runs_out(server: &'static Server, transport: Transport) {
    let room = fresh("silent");
    let mut members = crowd(server, transport, 3, &room);
    let mut asking = server.socket(transport);
    let start = Instant::now();
    asking.send(&format!(r#"42["room-ack","{room}",1500,"question"]"#));
    answer(&mut members[1], r#"["question"]"#, r#"["here"]"#);
    let answered = start.elapsed();
    let packet = asking.receive_text();
    assert!(start.elapsed() >= Duration::from_millis(1500));
    if answered < Duration::from_secs(1) {
        assert_eq!(packet, r#"42["room-acks-timeout",["here"]]"#);
    }
}

/// Who was not asked cannot answer.
fn broadcast_ack_of_a_stranger(server: &'static Server, transport: Transport) {
    let room = fresh("forged");
    let mut members = crowd(server, transport, 1, &room);
    let mut asking = server.socket(transport);
    let mut stranger = server.socket(transport);
    asking.send(&format!(r#"42["room-ack","{room}",25000,"question"]"#));
    let packet = members[0].receive_text();
    let id = packet[2..].trim_end_matches(r#"["question"]"#).to_owned();
    stranger.send(&format!(r#"43{id}["forged"]"#));
    stranger.nothing_came();
    members[0].send(&format!(r#"43{id}["true"]"#));
    asking.expect(r#"42["room-acks",["true"]]"#);
}

fn fetch_on_every_shard(server: &'static Server, transport: Transport) {
    let room = fresh("fetch");
    let mut sids = BTreeSet::new();
    let mut members = Vec::new();
    for _ in 0..12 {
        let mut peer = server.peer(transport);
        sids.insert(peer.join("/"));
        peer.enter(&room);
        members.push(peer);
    }
    for member in &mut members {
        member.send(&format!(r#"421["fetch","{room}"]"#));
        assert_eq!(array_of(&member.receive_text(), "431"), sids);
    }
}

fn fetch_of_an_empty_room(server: &'static Server, transport: Transport) {
    let mut peer = server.socket(transport);
    peer.send(&format!(r#"421["fetch","{}"]"#, fresh("empty")));
    peer.expect("431[[]]");
}

fn vanished_members_are_left_out(server: &'static Server, transport: Transport) {
    let room = fresh("vanish");
    let mut members = crowd(server, transport, 4, &room);
    let mut asking = server.socket(transport);
    for mut member in members.drain(..) {
        // A polling client says so; a WebSocket's end is seen.
        if let Peer::Polling(session) = &mut member {
            session.send("1");
        }
    }
    eventually("the room is empty", || {
        asking.send(&format!(r#"421["fetch","{room}"]"#));
        asking.receive_text() == "431[[]]"
    });
}

/// The shard that a session's sid names.
fn shard_of(sid: &str) -> u8 {
    BASE64_URL_SAFE.decode(&sid[..4]).expect("base64url")[2]
}

/// A shard is a server of its own to the others, and does not reach itself.
fn server_side_emit(server: &'static Server) {
    let namespace = "/custom";
    let mut peers = Vec::new();
    for _ in 0..16 {
        let mut peer = server.peer(Transport::Polling);
        peer.join(namespace);
        let Peer::Polling(session) = &peer else {
            unreachable!("it polls")
        };
        let shard = if server.shards > 1 {
            shard_of(&session.sid)
        } else {
            0
        };
        peers.push((shard, peer));
    }
    let own = peers[0].0;
    let word = fresh("word");
    peers[0]
        .1
        .send(&format!(r#"42/custom,["server-side","{word}",2]"#));
    for (shard, peer) in &mut peers {
        if *shard != own {
            peer.expect(&format!(r#"42/custom,["server-side-hello","{word}",2]"#));
        }
    }
    for (shard, peer) in &mut peers {
        if *shard == own {
            peer.send(r#"42/custom,["message","marker"]"#);
            peer.expect(r#"42/custom,["message-back","marker"]"#);
        }
    }
}

/// A room that is named like another socket is not that socket's own room.
/// Node: it is, so whoever joins it listens in.
fn another_ones_private_room(server: &'static Server, transport: Transport) {
    let mut victim = server.peer(transport);
    let sid = victim.join("/");
    let mut other = server.socket(transport);
    other.enter(&sid);
    victim.send(r#"42["message","private"]"#);
    victim.expect(r#"42["message-back","private"]"#);
    other.nothing_came();
    other.send(r#"421["rooms"]"#);
    assert_eq!(array_of(&other.receive_text(), "431").len(), 2);
    victim.send(r#"421["rooms"]"#);
    assert_eq!(array_of(&victim.receive_text(), "431"), set(&[&sid]));
}

fn both_transports_in_one_room(server: &'static Server) {
    let room = fresh("mixed");
    let mut members = crowd(server, Transport::Polling, 3, &room);
    members.extend(crowd(server, Transport::WebSocket, 3, &room));
    for sender in [0, 4] {
        members[sender].send(&format!(r#"42["in-room","{room}","news",{sender}]"#));
        for member in &mut members {
            member.expect(&format!(r#"42["news",{sender}]"#));
        }
    }
}

/// A member that upgrades while the others talk misses nothing and gets nothing twice.
fn broadcast_during_an_upgrade(server: &'static Server) {
    let room = fresh("upgrading");
    let mut talking = server.socket(Transport::WebSocket);
    let mut member = server.socket(Transport::Polling);
    member.enter(&room);
    let Peer::Polling(session) = &mut member else {
        unreachable!("it polls")
    };
    let say = |from: u32, talking: &mut Peer| {
        for number in from..from + 10 {
            talking.send(&format!(r#"42["in-room","{room}","news",{number}]"#));
        }
        talking.nothing_came();
    };
    say(0, &mut talking);
    let mut websocket = server.websocket(&session.target.replace("polling", "websocket"));
    websocket.send("2probe");
    websocket.expect("3probe");
    for number in 0..10 {
        assert_eq!(session.receive(), text(&format!(r#"42["news",{number}]"#)));
    }
    say(10, &mut talking);
    websocket.send("5");
    say(20, &mut talking);
    for number in 10..30 {
        websocket.expect(&format!(r#"42["news",{number}]"#));
    }
}
