//! A session belongs to one shard; a connection that asks another shard for it moves there. No
//! client ever notices (issue of the wrong shard: there is no such answer).

use std::thread;
use std::time::Duration;

use crate::http::{head, post};
use crate::peer::{ENGINE, Polling, Transport, sid_of};
use crate::server::Server;
use crate::websocket::{FIN, text_frame};

cases!(Calm:
    every_request_on_its_own_connection,
    one_connection_serves_many_sessions,
    pipelined_across_sessions,
    body_behind_the_move,
    chunked_body_behind_the_move,
    big_body_moves,
    refusals_between_moves,
    upgrade_moves,
    frames_behind_the_upgrade_move,
    pending_get_and_moves,
    unfinished_head_moves,
    many_at_once,
    closed_session_is_unknown_everywhere,
);

transport_cases!(Calm: sockets_of_all_shards);

fn sessions(server: &'static Server, count: usize) -> Vec<Polling> {
    (0..count).map(|_| server.polling(ENGINE)).collect()
}

fn every_request_on_its_own_connection(server: &'static Server) {
    let session = server.polling(ENGINE);
    for round in 0..40 {
        let packet = format!("4round {round}");
        session.send(&packet);
        session.expect(&packet);
    }
}

fn one_connection_serves_many_sessions(server: &'static Server) {
    let sessions = sessions(server, 8);
    let mut connection = server.connect();
    for round in 0..5 {
        for (index, session) in sessions.iter().enumerate() {
            let packet = format!("4{round} of {index}");
            connection.post(&session.target, &packet).is(200, "ok");
            connection.get(&session.target).is(200, &packet);
        }
    }
}

fn pipelined_across_sessions(server: &'static Server) {
    let sessions = sessions(server, 7);
    let mut requests = Vec::new();
    for (index, session) in sessions.iter().enumerate() {
        requests.extend(post(&session.target, format!("4{index}").as_bytes()));
    }
    for session in &sessions {
        requests.extend(head("GET", &session.target, "").bytes());
    }
    let mut connection = server.connect();
    connection.write(requests);
    for _ in &sessions {
        connection.response().is(200, "ok");
    }
    for index in 0..sessions.len() {
        connection.response().is(200, &format!("4{index}"));
    }
}

fn body_behind_the_move(server: &'static Server) {
    for session in sessions(server, 8) {
        let mut connection = server.connect();
        let fields = "Content-Length: 6\r\n";
        connection.write(head("POST", &session.target, fields) + "4h");
        thread::sleep(Duration::from_millis(30));
        connection.write("ello");
        connection.response().is(200, "ok");
        connection.get(&session.target).is(200, "4hello");
    }
}

fn chunked_body_behind_the_move(server: &'static Server) {
    for session in sessions(server, 8) {
        let mut connection = server.connect();
        let fields = "Transfer-Encoding: chunked\r\n";
        connection.write(head("POST", &session.target, fields) + "2\r\n4h\r");
        thread::sleep(Duration::from_millis(30));
        connection.write("\n4\r\nello\r\n0\r\n");
        thread::sleep(Duration::from_millis(10));
        connection.write("\r\n");
        connection.response().is(200, "ok");
        connection.get(&session.target).is(200, "4hello");
    }
}

fn big_body_moves(server: &'static Server) {
    let body = format!("4{}", "x".repeat(900_000));
    for session in sessions(server, 4) {
        session.send(&body);
        let answer = session.get();
        assert!(answer.status == 200 && answer.text() == body);
    }
}

fn refusals_between_moves(server: &'static Server) {
    let mut connection = server.connect();
    for session in sessions(server, 8) {
        connection.get("/engine.io/?EIO=4").is_error(0);
        connection.post(&session.target, "4x").is(200, "ok");
        assert_eq!(connection.get("/nowhere").status, 404);
        let unknown = format!("{ENGINE}&sid=AAAAAAAAAAAAAAAAAAAA");
        connection.get(&unknown).is_error(1);
        connection.get(&session.target).is(200, "4x");
        assert_eq!(connection.get(ENGINE).status, 200);
    }
}

fn upgrade_moves(server: &'static Server) {
    for session in sessions(server, 8) {
        let mut websocket = server.websocket(&session.target.replace("polling", "websocket"));
        websocket.send("2probe");
        websocket.expect("3probe");
        websocket.send("5");
        websocket.send("4hello");
        websocket.expect("4hello");
    }
}

fn frames_behind_the_upgrade_move(server: &'static Server) {
    for session in sessions(server, 8) {
        session.send("4first");
        let mut bytes = text_frame("2probe");
        bytes.extend(text_frame("5"));
        bytes.extend(text_frame("4second"));
        bytes.extend(crate::websocket::frame(FIN | 2, b"third"));
        let target = session.target.replace("polling", "websocket");
        let mut websocket = server.websocket_and(&target, &bytes);
        websocket.expect("3probe");
        websocket.expect("4first");
        websocket.expect("4second");
        websocket.expect_frame(FIN | 2, b"third");
    }
}

fn pending_get_and_moves(server: &'static Server) {
    for session in sessions(server, 6) {
        let mut getting = server.connect();
        getting.write(head("GET", &session.target, ""));
        session.send("4x");
        getting.response().is(200, "4x");
        getting.write(head("GET", &session.target, ""));
        session.send("4y");
        getting.response().is(200, "4y");
    }
}

/// A second request has begun to arrive when the first one moves the connection.
fn unfinished_head_moves(server: &'static Server) {
    for session in sessions(server, 8) {
        let mut bytes = post(&session.target, b"4x");
        let next = head("GET", &session.target, "").into_bytes();
        bytes.extend(&next[..next.len() / 2]);
        let mut connection = server.connect();
        connection.write(bytes);
        connection.response().is(200, "ok");
        connection.write(&next[next.len() / 2..]);
        connection.response().is(200, "4x");
    }
}

fn many_at_once(server: &'static Server) {
    let threads: Vec<_> = (0..16)
        .map(|_| {
            thread::spawn(move || {
                let session = server.polling(ENGINE);
                for round in 0..10 {
                    let packet = format!("4{round}");
                    session.send(&packet);
                    session.expect(&packet);
                }
            })
        })
        .collect();
    for thread in threads {
        thread.join().expect("no case failed");
    }
}

fn closed_session_is_unknown_everywhere(server: &'static Server) {
    let session = server.polling(ENGINE);
    session.send("1");
    for _ in 0..12 {
        session.unknown();
    }
}

/// Sockets wherever they are: each hears itself, and only itself.
fn sockets_of_all_shards(server: &'static Server, transport: Transport) {
    assert!(server.shards == 1 || server.shards == 4);
    let mut peers: Vec<_> = (0..12).map(|_| server.socket(transport)).collect();
    for (index, peer) in peers.iter_mut().enumerate() {
        peer.send(&format!(r#"42["message",{index}]"#));
    }
    for (index, peer) in peers.iter_mut().enumerate() {
        peer.expect(&format!(r#"42["message-back",{index}]"#));
        peer.nothing_came();
    }
    let sids: Vec<String> = (0..4).map(|_| sid_of(server.get(ENGINE).text())).collect();
    assert_eq!(sids.len(), 4);
}
