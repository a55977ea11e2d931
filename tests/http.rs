//! Connections over real sockets: requests one after the other, bounds, and connections that move
//! between shards. The shards carry an Engine.IO echo and two plain paths, and nothing else.

#![expect(
    clippy::unwrap_used,
    reason = "a test says by its failure what is wrong"
)]

use std::cell::Cell;
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::rc::Rc;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use metrics_exporter_prometheus::PrometheusHandle;
use project_yum::engine::{CloseReason, Engine, Flow, Handler, Handshake, Key, Options, Sid};
use project_yum::env::Env;
use project_yum::metrics::Metrics;
use project_yum::net::{self, Cors, Handoffs, Mount, Process, Response, Site, Transports};
use project_yum::server::{executor, metrics_listener};
use project_yum::wire::Content;
use project_yum::wire::engine_io::Encoded;

/// Sends every message back. After `work`, it is busy for a number of ticks of a drain, and says
/// `4done` then.
struct Echo {
    engine: Engine,
    work: Cell<u32>,
}

impl Handler for Echo {
    fn on_open(&self, _: Key, _: Handshake) {}
    fn on_message(&self, key: Key, content: Content) -> Flow {
        let packet = match &content {
            Content::Text(text) => Encoded::text('4', text),
            Content::Binary(bytes) => Encoded::binary(bytes),
        };
        if matches!(&content, Content::Text(text) if &**text == "work") {
            self.work.set(20);
        }
        self.engine.send(key, &[packet]);
        Flow::Continue
    }
    fn on_drain(&self, key: Key) -> bool {
        if self.work.get() == 0 {
            return true;
        }
        self.work.set(self.work.get() - 1);
        if self.work.get() == 0 {
            self.engine.send(key, &[Encoded::text('4', "done")]);
        }
        false
    }
    fn on_close(&self, _: Key, _: CloseReason) {}
}

struct Server {
    address: SocketAddr,
    process: Arc<Process>,
    ends: flume::Receiver<(usize, Result<(), String>)>,
}

/// What all servers of this program count.
fn recorder() -> &'static PrometheusHandle {
    static RECORDER: OnceLock<PrometheusHandle> = OnceLock::new();
    RECORDER.get_or_init(metrics_listener::install_recorder)
}

/// How often they counted something: a figure's name, and a label of it.
fn counted(name: &str, label: &str) -> u64 {
    let text = recorder().render();
    let lines = text
        .lines()
        .filter(|line| line.starts_with(name) && line.contains(label));
    lines
        .filter_map(|line| line.rsplit_once(' ')?.1.parse::<u64>().ok())
        .sum()
}

fn start(shards: u8) -> Server {
    start_with(shards, Handoffs::mesh(usize::from(shards)))
}

/// Starts as many of so many shards as there are queues.
fn start_with(shards: u8, handoffs: Vec<Handoffs>) -> Server {
    recorder();
    let process = Process::new();
    let mut address = SocketAddr::from(([127, 0, 0, 1], 0));
    let (ended, ends) = flume::bounded(usize::from(shards));
    for (shard, handoffs) in (0..).zip(handoffs) {
        let listener = net::listen(address).unwrap();
        address = rustix::net::getsockname(&listener)
            .and_then(SocketAddr::try_from)
            .unwrap();
        let process = Arc::clone(&process);
        executor::start(
            usize::from(shard),
            None,
            ended.clone(),
            move || async move {
                let env = Env::system();
                let options = net::Options {
                    shard,
                    shards,
                    ..net::Options::default()
                };
                let metrics = Rc::new(Metrics::new(usize::from(shard)));
                let site = site(&env, shard);
                let shard = net::Shard::new(env, options, site, metrics, handoffs);
                net::run(shard, listener, process, Box::new(|_| None)).await;
            },
        )
        .unwrap();
    }
    Server {
        address,
        process,
        ends,
    }
}

fn site(env: &Rc<Env>, shard: u8) -> Site {
    let options = Options {
        shard,
        ..Options::default()
    };
    let engine = Engine::new(Rc::clone(env), options);
    engine.set_handler(Rc::new(Echo {
        engine: engine.clone(),
        work: Cell::new(0),
    }));
    Site {
        mounts: vec![Rc::new(Mount {
            path: "/engine.io/".into(),
            engine,
            transports: Transports::default(),
            admit: None,
            ports: net::flush::Ports::default(),
        })],
        respond: Rc::new(|request| {
            let response = match request.head.path() {
                "/echo" => Response::with_body(200, "text/plain", request.body),
                "/long" => Response::json(200, "x".repeat(5000)),
                // More than the kernel takes for a client that does not read.
                "/huge" => Response::json(200, vec![b'x'; 32 << 20]),
                _ => Response::error(404, "not_found", "there is nothing at this path"),
            };
            Box::pin(std::future::ready(response))
        }),
        cors: Cors::new(["http://page.example".to_owned()]),
    }
}

fn one() -> &'static Server {
    static SERVER: OnceLock<Server> = OnceLock::new();
    SERVER.get_or_init(|| start(1))
}

fn connect(server: &Server) -> TcpStream {
    let stream = TcpStream::connect(server.address).unwrap();
    stream
        .set_read_timeout(Some(Duration::from_secs(20)))
        .unwrap();
    stream
}

/// One answer: its head and its body.
fn response(stream: &mut TcpStream) -> (String, String) {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") {
        stream.read_exact(&mut byte).unwrap();
        head.push(byte[0]);
    }
    let head = String::from_utf8(head).unwrap();
    let length = head.split("Content-Length: ").nth(1);
    let length = length.map_or(0, |rest| rest.split('\r').next().unwrap().parse().unwrap());
    let mut body = vec![0; length];
    if !head.starts_with("HTTP/1.1 204") {
        stream.read_exact(&mut body).unwrap();
    }
    (head, String::from_utf8_lossy(&body).into_owned())
}

/// Everything until the server closes.
fn rest(stream: &mut TcpStream) -> String {
    let mut rest = Vec::new();
    stream.read_to_end(&mut rest).unwrap();
    String::from_utf8_lossy(&rest).into_owned()
}

fn get(target: &str) -> String {
    format!("GET {target} HTTP/1.1\r\nHost: a\r\n\r\n")
}

fn post(target: &str, body: &str) -> String {
    let length = body.len();
    format!("POST {target} HTTP/1.1\r\nHost: a\r\nContent-Length: {length}\r\n\r\n{body}")
}

/// A request on a connection of its own.
fn ask(server: &Server, request: &str) -> (String, String) {
    let mut stream = connect(server);
    stream.write_all(request.as_bytes()).unwrap();
    response(&mut stream)
}

fn status(answer: &(String, String)) -> u16 {
    answer.0[9..12].parse().unwrap()
}

#[test]
fn requests_in_one_packet_are_answered_in_their_order() {
    let mut stream = connect(one());
    let chunked =
        "POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nbc\r\n0\r\n\r\n";
    let all = format!(
        "{}{chunked}{}{}",
        post("/echo", "a"),
        get("/none"),
        post("/echo", "d")
    );
    stream.write_all(all.repeat(40).as_bytes()).unwrap();
    for _ in 0..40 {
        assert_eq!(response(&mut stream).1, "a");
        assert_eq!(response(&mut stream).1, "bc");
        assert_eq!(status(&response(&mut stream)), 404);
        assert_eq!(response(&mut stream).1, "d");
    }
}

#[test]
fn a_request_that_comes_byte_by_byte_is_answered_once() {
    let mut stream = connect(one());
    for byte in post("/echo", "slow").bytes() {
        stream.write_all(&[byte]).unwrap();
    }
    assert_eq!(response(&mut stream).1, "slow");
}

#[test]
fn what_is_refused_is_answered_once_and_the_connection_ends() {
    for (request, expected) in [
        ("GET / HTTP/1.1\r\n\r\n".to_owned(), "400"),
        ("GET / HTTP/2.0\r\n".to_owned(), "505"),
        (format!("GET /{} HTTP/1.1\r\n", "x".repeat(9000)), "414"),
        (
            format!("{}X: {}", &get("/")[..25], "x".repeat(17_000)),
            "431",
        ),
        ("TRACE / HTTP/1.1\r\nHost: a\r\n\r\n".to_owned(), "405"),
        ("CONNECT b:1 HTTP/1.1\r\nHost: a\r\n\r\n".to_owned(), "405"),
        ("BREW / HTTP/1.1\r\nHost: a\r\n\r\n".to_owned(), "405"),
        (post("/echo", "").replace("0\r\n", "65537\r\n"), "413"),
        (post("/none", "").replace("0\r\n", "1, 1\r\n"), "400"),
        (
            get("/echo")
                .replace("GET", "POST")
                .replace("\r\n\r\n", "\r\nTransfer-Encoding: gzip\r\n\r\n"),
            "400",
        ),
    ] {
        let mut stream = connect(one());
        // What follows is never taken for a request.
        stream.write_all(request.as_bytes()).unwrap();
        let _ = stream.write_all(get("/echo").as_bytes());
        let answer = rest(&mut stream);
        assert!(
            answer.starts_with(&format!("HTTP/1.1 {expected} ")),
            "{request:.60}: {answer}"
        );
        assert!(answer.contains("\r\nConnection: close\r\n"), "{answer}");
        assert_eq!(answer.matches("HTTP/1.1 ").count(), 1, "{answer}");
    }
}

#[test]
fn every_answer_has_the_security_fields_and_a_date() {
    for request in [
        get("/echo"),
        get("/none"),
        get("/engine.io/"),
        "bad\r\n".to_owned(),
    ] {
        let (head, _) = ask(one(), &request);
        for field in [
            "Date: ",
            "X-Content-Type-Options: nosniff",
            "Content-Security-Policy: default-src 'none'",
        ] {
            assert_eq!(head.matches(field).count(), 1, "{field} in {head}");
        }
    }
}

#[test]
fn head_is_get_without_the_body_and_the_connection_lives_on() {
    let mut stream = connect(one());
    stream
        .write_all(b"HEAD /long HTTP/1.1\r\nHost: a\r\n\r\n")
        .unwrap();
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") {
        stream.read_exact(&mut byte).unwrap();
        head.push(byte[0]);
    }
    assert!(
        String::from_utf8(head)
            .unwrap()
            .contains("Content-Length: 5000")
    );
    stream.write_all(get("/echo").as_bytes()).unwrap();
    assert_eq!(status(&response(&mut stream)), 200);
}

#[test]
fn old_clients_are_closed_unless_they_ask() {
    let mut stream = connect(one());
    stream.write_all(b"GET /echo HTTP/1.0\r\n\r\n").unwrap();
    assert!(rest(&mut stream).contains("Connection: close"));
    let mut stream = connect(one());
    let request = b"GET /echo HTTP/1.0\r\nConnection: keep-alive\r\n\r\n";
    for _ in 0..2 {
        stream.write_all(request).unwrap();
        assert!(response(&mut stream).0.contains("Connection: keep-alive"));
    }
}

#[test]
fn long_answers_are_compressed_for_those_who_take_it() {
    let (head, _) = ask(
        one(),
        &get("/long").replace("Host", "Accept-Encoding: gzip\r\nHost"),
    );
    assert!(head.contains("Content-Encoding: gzip") && head.contains("Vary: Accept-Encoding"));
    let (head, body) = ask(one(), &get("/long"));
    assert!(!head.contains("Content-Encoding") && body.len() == 5000);
}

#[test]
fn origins_on_the_list_are_named_also_on_errors_and_others_never() {
    let from = |origin: &str, target: &str| {
        ask(
            one(),
            &get(target).replace("Host", &format!("Origin: {origin}\r\nHost")),
        )
        .0
    };
    for target in ["/echo", "/none", "/engine.io/?transport=polling&EIO=3"] {
        let head = from("http://page.example", target);
        assert!(
            head.contains("Access-Control-Allow-Origin: http://page.example\r\n"),
            "{head}"
        );
        let head = from("http://evil.example", target);
        assert!(
            !head.contains("Access-Control-") && head.contains("Vary: Origin"),
            "{head}"
        );
    }
    let target = "/engine.io/?transport=polling&EIO=4";
    assert!(from("http://evil.example", target).starts_with("HTTP/1.1 403 "));
}

#[test]
fn a_client_that_expects_is_told_to_go_on() {
    let mut stream = connect(one());
    let request = post("/echo", "").replace(
        "Content-Length: 0",
        "Expect: 100-continue\r\nContent-Length: 2",
    );
    stream.write_all(request.as_bytes()).unwrap();
    let mut line = [0; 25];
    stream.read_exact(&mut line).unwrap();
    assert_eq!(&line, b"HTTP/1.1 100 Continue\r\n\r\n");
    stream.write_all(b"ab").unwrap();
    assert_eq!(response(&mut stream).1, "ab");
}

#[test]
fn a_body_that_nobody_reads_is_never_the_next_request() {
    let mut stream = connect(one());
    let hidden = get("/echo");
    let request = format!(
        "GET /engine.io/?transport=polling&EIO=4 HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n{hidden}",
        hidden.len()
    );
    stream.write_all(request.as_bytes()).unwrap();
    let answer = rest(&mut stream);
    assert!(answer.starts_with("HTTP/1.1 200 ") && answer.matches("HTTP/1.1").count() == 1);
}

fn sid(server: &Server) -> String {
    let (_, body) = ask(server, &get("/engine.io/?EIO=4&transport=polling"));
    let start = body.find(r#""sid":""#).unwrap() + 7;
    body[start..start + 20].to_owned()
}

#[test]
fn errors_of_the_protocol_have_their_codes() {
    let target = |query: &str| get(&format!("/engine.io/?{query}"));
    for (request, code, message) in [
        (target(""), 0, "Transport unknown"),
        (
            target("EIO=4&transport=polling&transport=polling"),
            0,
            "Transport unknown",
        ),
        (
            target("EIO=4&transport=polling&sid=x"),
            1,
            "Session ID unknown",
        ),
        (
            target("EIO=4&transport=polling&sid=//////////////////AA"),
            1,
            "Session ID unknown",
        ),
        (
            target("EIO=4&transport=polling").replace("GET", "POST"),
            2,
            "Bad handshake method",
        ),
        (target("EIO=4&transport=websocket"), 3, "Bad request"),
        (
            target("EIO=3&transport=polling"),
            5,
            "Unsupported protocol version",
        ),
        (
            target("transport=polling"),
            5,
            "Unsupported protocol version",
        ),
    ] {
        let answer = ask(one(), &request);
        let expected = format!(r#"{{"code":{code},"message":"{message}"}}"#);
        assert_eq!((status(&answer), answer.1), (400, expected), "{request}");
    }
}

const UPGRADE: &str = "Connection: keep-alive, Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nHost";

#[test]
fn a_refused_tunnel_is_answered_in_text_and_ends() {
    let open = get("/engine.io/?EIO=4&transport=websocket").replace("Host", UPGRADE);
    for (request, expected, body) in [
        (
            open.replace("EIO=4", "EIO=5"),
            400,
            "Unsupported protocol version",
        ),
        (
            open.replace("13", "12"),
            426,
            "Sec-WebSocket-Version must be 13",
        ),
        (
            open.replace("dGhl", ""),
            400,
            "Sec-WebSocket-Key must be 16 bytes in base64",
        ),
        (
            open.replace("websocket ", "websocket&sid=x "),
            400,
            "Session ID unknown",
        ),
        (
            open.replace("keep-alive, Upgrade", "keep-alive"),
            400,
            "Connection must list Upgrade",
        ),
    ] {
        let mut stream = connect(one());
        stream.write_all(request.as_bytes()).unwrap();
        let answer = rest(&mut stream);
        assert!(
            answer.starts_with(&format!("HTTP/1.1 {expected} ")),
            "{answer}"
        );
        assert!(answer.ends_with(&format!("\r\n\r\n{body}")), "{answer}");
    }
}

#[test]
fn an_opening_handshake_becomes_a_websocket() {
    let mut stream = connect(one());
    let open = get("/engine.io/?EIO=4&transport=websocket").replace("Host", UPGRADE);
    // A masked text frame `4hi`, in the same packet as the handshake.
    let mut bytes = open.into_bytes();
    bytes.extend_from_slice(&[0x81, 0x83, 0, 0, 0, 0, b'4', b'h', b'i']);
    stream.write_all(&bytes).unwrap();
    let (head, _) = response(&mut stream);
    assert!(head.starts_with("HTTP/1.1 101 ") && !head.contains("Content-Length"));
    assert!(head.contains("Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n"));
    let mut frame = [0; 2];
    stream.read_exact(&mut frame).unwrap();
    let mut open = vec![0; usize::from(frame[1])];
    stream.read_exact(&mut open).unwrap();
    assert!(open.starts_with(br#"0{"sid":""#));
    let mut echo = [0; 5];
    stream.read_exact(&mut echo).unwrap();
    assert_eq!(&echo, b"\x81\x034hi");
}

#[test]
fn a_session_is_found_from_every_shard() {
    let server = start(4);
    let mut shards = [false; 4];
    for round in 0..40 {
        let sid = sid(&server);
        let target = format!("/engine.io/?EIO=4&transport=polling&sid={sid}");
        // Each request comes over a connection of its own, and so to any of the shards.
        for message in 0..5 {
            let text = format!("4{round}.{message}");
            assert_eq!(ask(&server, &post(&target, &text)).1, "ok");
            assert_eq!(ask(&server, &get(&target)).1, text);
        }
        let number = sid.as_bytes()[3] - b'A';
        shards[usize::from(number)] = true;
    }
    assert_eq!(shards, [true; 4], "each shard has had sessions");
    // Behind a keep-alive connection, and with more requests behind the one that moves.
    let mut stream = connect(&server);
    let (first, second) = (sid(&server), sid(&server));
    let target = |sid: &str| format!("/engine.io/?EIO=4&transport=polling&sid={sid}");
    let all = format!(
        "{}{}{}{}{}",
        post("/echo", "plain"),
        post(&target(&first), "4a"),
        post(&target(&second), "4b"),
        get(&target(&first)),
        get(&target(&second)),
    );
    stream.write_all(all.as_bytes()).unwrap();
    let bodies: Vec<String> = (0..5).map(|_| response(&mut stream).1).collect();
    assert_eq!(bodies, ["plain", "ok", "ok", "4a", "4b"]);
    // A number that no shard has is no session.
    let nowhere = target("AAAZAAAAAAAAAAAAAAAA");
    assert!(ask(&server, &get(&nowhere)).1.contains(r#""code":1"#));
}

#[test]
fn a_server_that_drains_tells_everybody_and_ends() {
    let server = start(2);
    let sid = sid(&server);
    let target = format!("/engine.io/?EIO=4&transport=polling&sid={sid}");
    let mut poll = connect(&server);
    poll.write_all(get(&target).as_bytes()).unwrap();
    std::thread::sleep(Duration::from_millis(200));
    server
        .process
        .draining
        .store(true, std::sync::atomic::Ordering::Release);
    let (head, body) = response(&mut poll);
    assert!(
        head.contains("Connection: close") && body == "6",
        "{head}{body}"
    );
    poll.shutdown(Shutdown::Write).unwrap();
    let begin = Instant::now();
    for _ in 0..2 {
        let (_, end) = server.ends.recv_timeout(Duration::from_secs(8)).unwrap();
        assert_eq!(end, Ok(()));
    }
    assert!(
        begin.elapsed() < Duration::from_secs(5),
        "{:?}",
        begin.elapsed()
    );
    assert!(TcpStream::connect(server.address).is_err());
}

#[test]
fn a_drain_lets_what_was_begun_finish() {
    let server = start(1);
    let target = format!("/engine.io/?EIO=4&transport=polling&sid={}", sid(&server));
    ask(&server, &post(&target, "4work"));
    assert_eq!(ask(&server, &get(&target)).1, "4work");
    let mut poll = connect(&server);
    poll.write_all(get(&target).as_bytes()).unwrap();
    std::thread::sleep(Duration::from_millis(200));
    let draining = &server.process.draining;
    draining.store(true, std::sync::atomic::Ordering::Release);
    let (_, body) = response(&mut poll);
    assert!(body.starts_with("4done"), "the answer came first: {body}");
    let rest = if body == "4done" {
        ask(&server, &get(&target)).1
    } else {
        body
    };
    assert!(rest.ends_with('6'), "then the session is let go: {rest}");
}

#[test]
fn a_server_that_drains_refuses_new_sessions_and_still_answers() {
    let server = start(1);
    let sid = sid(&server);
    server
        .process
        .draining
        .store(true, std::sync::atomic::Ordering::Release);
    std::thread::sleep(Duration::from_millis(200));
    let answer = ask(&server, &get("/engine.io/?EIO=4&transport=polling"));
    assert!(
        status(&answer) == 503 && answer.1.contains("draining"),
        "{answer:?}"
    );
    assert_eq!(status(&ask(&server, &get("/echo"))), 200);
    let target = format!("/engine.io/?EIO=4&transport=polling&sid={sid}");
    assert_eq!(ask(&server, &get(&target)).1, "6");
}

#[test]
fn a_drip_of_a_head_is_cut_off_after_its_deadline() {
    let mut dripping = connect(one());
    let mut silent = connect(one());
    let begin = Instant::now();
    let drip = dripping.try_clone().unwrap();
    std::thread::spawn(move || {
        let mut drip = drip;
        for byte in b"GET / HTTP/1.1\r\nHost: a\r\nX: "
            .iter()
            .chain([b'x'; 100].iter())
        {
            if drip.write_all(&[*byte]).is_err() {
                return;
            }
            std::thread::sleep(Duration::from_millis(250));
        }
    });
    let mut answer = Vec::new();
    let _ = dripping.read_to_end(&mut answer);
    let after = begin.elapsed();
    assert!(
        answer.starts_with(b"HTTP/1.1 408 "),
        "{}",
        String::from_utf8_lossy(&answer)
    );
    assert!((10..15).contains(&after.as_secs()), "{after:?}");
    assert_eq!(rest(&mut silent), "");
    assert!(
        (10..15).contains(&begin.elapsed().as_secs()),
        "{:?}",
        begin.elapsed()
    );
}

#[test]
fn an_answer_that_is_read_too_slowly_is_given_up_after_its_time() {
    let server = start(1);
    let mut slow = connect(&server);
    slow.write_all(get("/huge").as_bytes()).unwrap();
    let begin = Instant::now();
    let mut some = [0; 1024];
    // Now and then it reads a little: that does not push the end back.
    while server.process.connections() > 0 || begin.elapsed() < Duration::from_secs(1) {
        slow.read_exact(&mut some).unwrap();
        assert!(begin.elapsed() < Duration::from_secs(30), "it is kept");
        std::thread::sleep(Duration::from_millis(200));
    }
    let after = begin.elapsed();
    assert!((20..25).contains(&after.as_secs()), "{after:?}");
    assert_eq!(counted("yum_bounds_total", r#"bound="write_time""#), 1);
}

#[test]
fn whoever_stays_after_the_last_answer_is_dropped_after_a_second() {
    let server = start(1);
    let met = || counted("yum_bounds_total", r#"bound="linger_time""#);
    let before = met();
    let mut stays = connect(&server);
    stays.write_all(b"GET / HTTP/9.9\r\n\r\n").unwrap();
    assert!(rest(&mut stays).starts_with("HTTP/1.1 505 "));
    let begin = Instant::now();
    while server.process.connections() > 0 {
        assert!(begin.elapsed() < Duration::from_secs(5), "it is kept");
        std::thread::sleep(Duration::from_millis(10));
    }
    let after = begin.elapsed();
    assert!((800..2_000).contains(&after.as_millis()), "{after:?}");
    assert!(met() > before);
    drop(stays);
}

/// The other shard is there, and takes nobody.
#[test]
fn a_connection_that_finds_no_room_on_its_way_is_refused_after_a_while() {
    let mut handoffs = Handoffs::mesh(2);
    let other = handoffs.pop();
    let server = start_with(2, handoffs);
    let sid = Sid::new(&Env::system(), 0, 1);
    let request = get(&format!(
        "/engine.io/?EIO=4&transport=polling&sid={}",
        sid.as_str()
    ));
    let begin = Instant::now();
    let waiting: Vec<TcpStream> = (0..net::handoff::QUEUE_MAX)
        .map(|_| {
            let mut stream = connect(&server);
            stream.write_all(request.as_bytes()).unwrap();
            stream
        })
        .collect();
    while server.process.connections() > 0 || begin.elapsed() < Duration::from_secs(1) {
        assert!(begin.elapsed() < Duration::from_secs(20), "they go");
        std::thread::sleep(Duration::from_millis(10));
    }
    let begin = Instant::now();
    let (head, body) = ask(&server, &request);
    let after = begin.elapsed();
    assert!(head.starts_with("HTTP/1.1 503 "), "{head}");
    assert!(head.contains("\r\nRetry-After: 1\r\n"), "{head}");
    assert!(head.contains("\r\nConnection: close\r\n"), "{head}");
    assert!(body.contains(r#""code":"unavailable""#), "{body}");
    assert!((5..8).contains(&after.as_secs()), "{after:?}");
    assert_eq!(counted("yum_handoffs_refused_total", ""), 1);
    drop((waiting, other));
}
