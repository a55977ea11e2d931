//! WebSockets over real sockets: a shard on a thread, a client of the same test on another.

use std::cell::RefCell;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::rc::Rc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Barrier};
use std::time::Duration;

use async_tungstenite::tungstenite::protocol::{Role, WebSocket};
use async_tungstenite::tungstenite::{Bytes, Message};
use bytes::BytesMut;
use glommio::{LocalExecutorBuilder, Placement};

use super::flush::Ports;
use super::websocket::{Start, drive};
use super::*;
use crate::engine::{self, CloseReason, Flow, Handler, Key};
use crate::wire::Content;
use crate::wire::engine_io::Encoded;

/// Sends every message back; `flood` is answered with 4 MB, `quit` with a close, and `all` sends
/// [`MESSAGES`] to everybody.
struct Echo {
    engine: Engine,
    everybody: RefCell<Vec<Key>>,
    closed: RefCell<Vec<CloseReason>>,
}

impl Handler for Echo {
    fn on_open(&self, key: Key, _handshake: Handshake) {
        self.everybody.borrow_mut().push(key);
    }

    fn on_message(&self, key: Key, content: Content) -> Flow {
        match content {
            Content::Text(text) if &*text == "flood" => {
                let packet = Encoded::text('4', &"x".repeat(100_000));
                self.engine.send(key, &vec![packet; 40]);
            }
            Content::Text(text) if &*text == "all" => {
                for number in 0..MESSAGES {
                    let packet = [Encoded::text('4', &numbered(number))];
                    self.engine.send_all(&self.everybody.borrow(), &packet);
                }
            }
            Content::Text(text) if &*text == "quit" => {
                self.engine.send(key, &[Encoded::text('4', "bye")]);
                self.engine.close(key, CloseReason::ServerShuttingDown);
            }
            Content::Text(text) => self.engine.send(key, &[Encoded::text('4', &text)]),
            Content::Binary(bytes) => self.engine.send(key, &[Encoded::binary(&bytes)]),
        }
        Flow::Continue
    }

    fn on_close(&self, _key: Key, reason: CloseReason) {
        self.closed.borrow_mut().push(reason);
    }
}

/// More than the kernel takes for somebody who does not read.
const MESSAGES: usize = 5_000;

fn numbered(number: usize) -> String {
    format!("{number}{}", "x".repeat(number % 3_000))
}

/// A connection from this machine to itself.
fn pair() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
    let address = listener.local_addr().expect("it is bound");
    let client = TcpStream::connect(address).expect("it listens");
    let timeout = Some(Duration::from_secs(10));
    client.set_read_timeout(timeout).expect("not zero");
    let (server, _) = listener.accept().expect("the client is there");
    (client, server)
}

fn handshake() -> Handshake {
    Handshake {
        address: Ipv4Addr::LOCALHOST.into(),
        headers: Vec::new(),
        query: "".into(),
        secure: false,
        issued_wall_ms: 0,
    }
}

fn shard(options: engine::Options) -> (Rc<Shard>, Rc<Mount>, Rc<Echo>) {
    let env = Env::system();
    let engine = Engine::new(Rc::clone(&env), options);
    let echo = Rc::new(Echo {
        engine: engine.clone(),
        everybody: RefCell::default(),
        closed: RefCell::default(),
    });
    engine.set_handler(Rc::clone(&echo) as Rc<dyn Handler>);
    let mount = Rc::new(Mount {
        path: "/socket.io/".into(),
        engine,
        transports: Transports::default(),
        admit: None,
        ports: Ports::default(),
    });
    let site = Site {
        mounts: vec![Rc::clone(&mount)],
        respond: Rc::new(|_| unreachable!("no request is made")),
        cors: Cors::default(),
    };
    let handoffs = Handoffs::mesh(1).pop().expect("one shard");
    let metrics = Rc::new(Metrics::new(0));
    let shard = Shard::new(env, Options::default(), site, metrics, handoffs);
    (shard, mount, echo)
}

/// Serves the other end of a client's connection; says how its session ended.
fn serve(client: impl FnOnce(TcpStream) + Send + 'static) -> Vec<CloseReason> {
    serve_with(engine::Options::default(), &[], client)
}

fn serve_with(
    options: engine::Options,
    answer: &'static [u8],
    client: impl FnOnce(TcpStream) + Send + 'static,
) -> Vec<CloseReason> {
    serve_all(options, answer, vec![client])
}

fn serve_all(
    options: engine::Options,
    answer: &'static [u8],
    clients: Vec<impl FnOnce(TcpStream) + Send + 'static>,
) -> Vec<CloseReason> {
    let connected = clients.into_iter().map(|client| {
        let (ours, theirs) = pair();
        (std::thread::spawn(move || client(ours)), theirs)
    });
    let (clients, streams): (Vec<_>, Vec<_>) = connected.unzip();
    let server = LocalExecutorBuilder::new(Placement::Unbound)
        .io_memory(0)
        .spawn(move || async move {
            let (shard, mount, echo) = shard(options);
            let reads = glommio::spawn_local(readiness::run(Rc::clone(&shard.readiness)));
            let flush = glommio::spawn_local(flush::run(Rc::clone(&shard), Rc::clone(&mount)));
            let (clock, engine) = (Rc::clone(&shard), mount.engine.clone());
            let tick = glommio::spawn_local(async move {
                loop {
                    glommio::timer::sleep(Duration::from_millis(5)).await;
                    engine.tick();
                    clock.deadlines().fire(clock.env().now());
                }
            });
            let drivers = streams.into_iter().map(|theirs| {
                let connection = connection(&shard, theirs);
                let start = Start::Open(Box::new(handshake()));
                let driver = drive(connection, Rc::clone(&mount), start, answer.to_vec());
                glommio::spawn_local(driver)
            });
            futures_util::future::join_all(drivers).await;
            reads.cancel().await;
            flush.cancel().await;
            tick.cancel().await;
            echo.closed.take()
        })
        .expect("this machine runs io_uring");
    let closed = server.join().expect("the shard ends well");
    for client in clients {
        client.join().expect("the client is content");
    }
    closed
}

#[test]
fn what_came_before_its_connection_is_taken_without_a_wait() {
    let (mut ours, theirs) = pair();
    let server = LocalExecutorBuilder::new(Placement::Unbound).io_memory(0);
    let server = server.spawn(move || async move {
        let (shard, ..) = shard(engine::Options::default());
        glommio::spawn_local(readiness::run(Rc::clone(&shard.readiness))).detach();
        let mut connection = connection(&shard, theirs);
        connection.take_arrived();
        assert_eq!(
            &**connection.buffer(),
            b"",
            "nothing has come, and nothing waits"
        );
        ours.write_all(b"first").expect("sent");
        connection.take_arrived();
        assert_eq!(&**connection.buffer(), b"first");
        ours.write_all(b", second").expect("sent");
        let soon = shard.env().now() + Duration::from_secs(5);
        connection.fill(soon).await.expect("more comes");
        assert_eq!(&**connection.buffer(), b"first, second");
    });
    let server = server.expect("this machine runs io_uring");
    server.join().expect("it is as it should be");
}

/// The server's end of a connection.
fn connection(shard: &Rc<Shard>, stream: TcpStream) -> Connection {
    let peer = SocketAddr::from((Ipv4Addr::LOCALHOST, 1));
    Connection::new(Rc::clone(shard), stream.into(), peer, BytesMut::new())
}

/// A client that reads and writes messages. The open packet is read already.
fn messages(stream: TcpStream) -> WebSocket<TcpStream> {
    let mut socket = WebSocket::from_raw_socket(stream, Role::Client, None);
    let open = socket.read().expect("the open packet");
    assert!(open.into_text().expect("text").starts_with("0{\"sid\""));
    socket
}

/// A masked frame.
fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let length = u8::try_from(payload.len()).expect("short");
    let mut frame = vec![first, 0x80 | length, 0, 0, 0, 0];
    frame.extend(payload);
    frame
}

/// What the server sends after its open packet until it closes.
fn answers(mut stream: TcpStream, bytes: &[u8]) -> Vec<u8> {
    stream.write_all(bytes).expect("the server reads");
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).expect("the server closes");
    let open = 2 + 2 + usize::from(u16::from_be_bytes([answer[2], answer[3]]));
    let open = if answer[1] == 126 {
        open
    } else {
        2 + usize::from(answer[1])
    };
    answer.split_off(open)
}

/// Sends frames, and expects exactly these bytes before the server closes.
fn check(frames: &[Vec<u8>], expected: &[u8], reason: CloseReason) {
    let (frames, expected) = (frames.concat(), expected.to_vec());
    let closed = serve(move |stream| {
        assert_eq!(answers(stream, &frames), expected);
    });
    assert_eq!(closed, [reason]);
}

#[test]
fn the_answer_to_the_handshake_and_the_open_packet_come_in_one_piece() {
    const ANSWER: &[u8] = b"HTTP/1.1 101 Switching Protocols\r\n\r\n";
    // Of two sends one read might get both; twenty times it does not.
    for _ in 0..20 {
        serve_with(engine::Options::default(), ANSWER, |mut stream| {
            let mut piece = [0; 1024];
            let length = stream.read(&mut piece).expect("an answer");
            let packet = piece[..length].strip_prefix(ANSWER).expect("it is first");
            assert!(packet.ends_with(b"}"), "the open packet is whole");
        });
    }
}

#[test]
fn echoes_text_and_binary_of_every_size_in_order() {
    let closed = serve(|stream| {
        let mut socket = messages(stream);
        for size in [0, 1, 125, 126, 1000, 1023, 1024, 1025, 70_000, 999_999] {
            let text = format!("4{}", "ä".repeat(size / 2));
            let binary = vec![7; size];
            for message in [Message::text(text), Message::binary(binary)] {
                socket.send(message.clone()).expect("sent");
                // A failure need not print a megabyte.
                assert!(socket.read().expect("an echo") == message, "{size}");
            }
        }
        for n in 0..1000 {
            socket.send(Message::text(format!("4{n}"))).expect("sent");
        }
        for n in 0..1000 {
            let echo = socket.read().expect("an echo");
            assert_eq!(echo, Message::text(format!("4{n}")));
        }
        socket.close(None).expect("sent");
        assert_eq!(socket.read().expect("a close"), Message::Close(None));
    });
    assert_eq!(closed, [CloseReason::TransportClose]);
}

#[test]
fn answers_a_ping_with_its_payload_between_fragments_too() {
    let closed = serve(|stream| {
        let mut socket = messages(stream);
        socket
            .get_mut()
            .write_all(&frame(0x01, b"4he"))
            .expect("sent");
        socket
            .get_mut()
            .write_all(&frame(0x89, b"are you there"))
            .expect("sent");
        let pong = socket.read().expect("a pong");
        assert_eq!(pong, Message::Pong(Bytes::from_static(b"are you there")));
        socket
            .get_mut()
            .write_all(&frame(0x80, b"llo"))
            .expect("sent");
        assert_eq!(socket.read().expect("an echo"), Message::text("4hello"));
    });
    assert_eq!(closed, [CloseReason::TransportClose]);
}

#[test]
fn answers_a_close_with_its_code_after_what_was_owed() {
    let bytes = [frame(0x81, b"4x"), frame(0x88, b"\x03\xe8done")];
    check(
        &bytes,
        b"\x81\x024x\x88\x02\x03\xe8",
        CloseReason::TransportClose,
    );
    check(
        &[frame(0x88, b"")],
        b"\x88\x00",
        CloseReason::TransportClose,
    );
}

#[test]
fn fails_a_broken_frame_after_answering_what_came_before() {
    let bytes = [frame(0x81, b"4x"), frame(0xC1, b"4y"), frame(0x81, b"4z")];
    check(
        &bytes,
        b"\x81\x024x\x88\x02\x03\xea",
        CloseReason::TransportError,
    );
}

#[test]
fn fails_bad_text_and_close_codes_as_the_specification_says() {
    let error = CloseReason::TransportError;
    check(&[frame(0x81, b"4\xff")], b"\x88\x02\x03\xef", error);
    check(&[frame(0x88, b"\x03")], b"\x88\x02\x03\xea", error);
    check(&[b"\x81\x024x".to_vec()], b"\x88\x02\x03\xea", error);
    let mut announced = b"\x82\xff".to_vec();
    announced.extend(1_000_001_u64.to_be_bytes());
    announced.extend([0; 4]);
    check(&[announced], b"\x88\x02\x03\xf1", error);
}

#[test]
fn refuses_a_hundred_thousand_empty_fragments() {
    let mut frames = vec![frame(0x01, b"")];
    frames.extend(vec![frame(0x00, b""); 100_000]);
    let bytes = frames.concat();
    let closed = serve(move |mut stream| {
        // The server stops reading messages long before the end of them.
        let _ = stream.write_all(&bytes);
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer);
        assert!(answer.ends_with(b"\x88\x02\x03\xea"));
    });
    assert_eq!(closed, [CloseReason::TransportError]);
}

#[test]
fn closes_on_a_packet_that_cannot_be_read_and_on_a_close_packet() {
    check(&[frame(0x81, b"9")], b"\x88\x00", CloseReason::ParseError);
    check(
        &[frame(0x81, b"2")],
        b"\x88\x00",
        CloseReason::TransportError,
    );
    check(
        &[frame(0x81, b"1")],
        b"\x88\x00",
        CloseReason::TransportClose,
    );
}

#[test]
fn our_close_comes_after_what_was_queued() {
    let expected = b"\x81\x044bye\x88\x02\x03\xe9";
    check(
        &[frame(0x81, b"4quit")],
        expected,
        CloseReason::ServerShuttingDown,
    );
}

#[test]
fn what_the_kernel_does_not_take_at_once_still_arrives_whole() {
    let options = engine::Options {
        outbox_bytes_max: 1 << 23,
        ..engine::Options::default()
    };
    let closed = serve_with(options, &[], |stream| {
        let mut socket = messages(stream);
        for _ in 0..2 {
            socket.send(Message::text("4flood")).expect("sent");
            socket
                .send(Message::Ping(Bytes::from_static(b"?")))
                .expect("sent");
        }
        std::thread::sleep(Duration::from_millis(50));
        let (mut floods, mut pongs) = (0, 0);
        while floods < 80 || pongs < 2 {
            match socket.read().expect("a frame") {
                Message::Text(text) => {
                    assert_eq!(text.len(), 100_001);
                    floods += 1;
                }
                Message::Pong(_) => pongs += 1,
                other => panic!("{other:?}"),
            }
        }
    });
    assert_eq!(closed, [CloseReason::TransportClose]);
}

#[test]
fn everybody_hears_the_same_in_order_however_they_read_and_gets_pongs() {
    let options = engine::Options {
        outbox_bytes_max: 1 << 24,
        ..engine::Options::default()
    };
    let all_there = Arc::new(Barrier::new(6));
    let client = |number: u64| {
        let all_there = Arc::clone(&all_there);
        move |stream| {
            let mut socket = messages(stream);
            if all_there.wait().is_leader() {
                socket.send(Message::text("4all")).expect("sent");
            }
            let (mut heard, mut pongs) = (0, 0);
            let mut moments = [0, MESSAGES / 2].into_iter().peekable();
            while heard < MESSAGES || pongs < 2 {
                if moments.next_if_eq(&heard).is_some() {
                    // Some have read nothing when the pings are answered, some are in the midst of it.
                    std::thread::sleep(Duration::from_millis(20 * number));
                    let ping = Message::Ping(Bytes::from_static(b"?"));
                    socket.send(ping).expect("sent");
                }
                match socket.read().expect("a frame") {
                    Message::Text(text) => {
                        // A failure need not print it.
                        assert!(text.as_str()[1..] == numbered(heard), "{heard}");
                        heard += 1;
                    }
                    Message::Pong(_) => pongs += 1,
                    other => panic!("{other:?}"),
                }
            }
        }
    };
    let closed = serve_all(options, b"", (0..6).map(client).collect());
    assert_eq!(closed, [CloseReason::TransportClose; 6]);
}

#[test]
fn a_client_that_does_not_read_is_closed_and_never_sees_a_broken_frame() {
    let closed = serve(|stream| {
        let mut socket = messages(stream);
        socket.send(Message::text("4flood")).expect("sent");
        std::thread::sleep(Duration::from_millis(100));
        while let Ok(message) = socket.read() {
            match message {
                Message::Text(text) => assert_eq!(text.len(), 100_001),
                Message::Close(_) => {}
                other => panic!("{other:?}"),
            }
        }
    });
    assert_eq!(closed, [CloseReason::SlowConsumer]);
}

#[test]
fn a_client_that_vanishes_ends_its_session() {
    let closed = serve(|stream| drop(messages(stream)));
    assert_eq!(closed, [CloseReason::TransportClose]);
}

#[test]
fn pings_and_closes_without_a_pong() {
    let options = engine::Options {
        ping_interval: Duration::from_millis(100),
        ping_timeout: Duration::from_millis(60),
        ..engine::Options::default()
    };
    let closed = serve_with(options, &[], |stream| {
        let mut socket = messages(stream);
        assert_eq!(socket.read().expect("a ping"), Message::text("2"));
        socket.send(Message::text("3")).expect("sent");
        assert_eq!(socket.read().expect("a ping"), Message::text("2"));
        assert_eq!(socket.read().expect("a close"), Message::Close(None));
    });
    assert_eq!(closed, [CloseReason::PingTimeout]);
}

#[test]
fn an_idle_connection_s_future_is_small() {
    // Ten thousand are idle at once. The rest of a connection's memory is its reader's buffer.
    let size = super::websocket::future_bytes();
    assert!(size <= 1200, "{size} bytes");
}

#[test]
fn heartbeats_do_not_make_a_shard_tick_faster() {
    const UPGRADE: &[u8] = b"GET /socket.io/?EIO=4&transport=websocket HTTP/1.1\r\nHost: a\r\n\
        Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
        Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
    let options = engine::Options {
        ping_interval: Duration::from_millis(300),
        ..engine::Options::default()
    };
    let listener = listen((Ipv4Addr::LOCALHOST, 0).into()).expect("a free port");
    let address = rustix::net::getsockname(&listener).expect("it is bound");
    let address = SocketAddr::try_from(address).expect("one of IPv4");
    let (process, ticks) = (Process::new(), Arc::new(AtomicUsize::new(0)));
    let (draining, count) = (Arc::clone(&process), Arc::clone(&ticks));
    let server = LocalExecutorBuilder::new(Placement::Unbound)
        .io_memory(0)
        .spawn(move || async move {
            let (shard, ..) = shard(options);
            let tick = move |_| {
                count.fetch_add(1, Ordering::Relaxed);
                None
            };
            run(shard, listener, process, Box::new(tick)).await;
        })
        .expect("this machine runs io_uring");
    let mut stream = TcpStream::connect(address).expect("it listens");
    stream.write_all(UPGRADE).expect("sent");
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte).expect("an answer");
        head.extend(byte);
    }
    let mut socket = messages(stream);
    let mut before = 0;
    for beat in 0..6 {
        assert_eq!(socket.read().expect("a ping"), Message::text("2"));
        socket.send(Message::text("3")).expect("sent");
        if beat == 0 {
            before = ticks.load(Ordering::Relaxed);
        }
    }
    // A second and a half, so some fifteen, and one for each ping; ten more after each if it counts.
    let made = ticks.load(Ordering::Relaxed) - before;
    assert!(made < 40, "{made} ticks");
    drop(socket);
    draining.draining.store(true, Ordering::Release);
    server.join().expect("the shard ends well");
}
