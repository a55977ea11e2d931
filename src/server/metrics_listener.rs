//! `/metrics` and `/health` from threads of their own, so that they answer while a shard does not.
//!
//! A listener, at most [`CONNECTIONS_MAX`] connections at a time, one request each, every wait with a
//! deadline. Rendering a thousand series takes milliseconds, which a shard does not have.

use std::io::{self, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};

use super::process_figures;
use super::status::Status;
use crate::metrics::{Kind, SCRAPES_REFUSED, TABLE, describe};
use crate::net::http::{POLICY_FIELD, SECURITY_FIELDS};

/// Connections served at a time; more are closed unread.
pub const CONNECTIONS_MAX: usize = 16;
const HEAD_BYTES_MAX: usize = 8 * 1024;
const READ_TIMEOUT: Duration = Duration::from_secs(2);
const WRITE_TIMEOUT: Duration = Duration::from_secs(5);
/// Samples pile up until somebody scrapes or this has passed.
const UPKEEP: Duration = Duration::from_secs(5);
/// How far the threads of this listener stand back behind the shards, as of nice(1).
const NICE: i32 = 10;
const TEXT: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Installs the recorder of every metric, with the buckets of the table.
///
/// # Panics
/// When a row of the table has no buckets, or a recorder is there already.
#[must_use]
pub fn install_recorder() -> PrometheusHandle {
    let mut builder = PrometheusBuilder::new();
    for row in TABLE {
        if let Kind::Histogram(buckets) = row.kind {
            builder = builder
                .set_buckets_for_metric(Matcher::Full(row.name.to_owned()), buckets)
                .expect("the table's buckets are not empty");
        }
    }
    let handle = builder
        .install_recorder()
        .expect("the recorder is installed once, at start");
    describe();
    handle
}

/// Starts serving on `address`; says which address it got.
pub fn start(
    address: SocketAddr,
    handle: PrometheusHandle,
    status: Arc<Status>,
) -> io::Result<SocketAddr> {
    let listener = TcpListener::bind(address)?;
    let bound = listener.local_addr()?;
    let upkeep = handle.clone();
    spawn("metrics-upkeep", move || {
        step_back();
        loop {
            std::thread::sleep(UPKEEP);
            upkeep.run_upkeep();
        }
    })?;
    spawn("metrics", move || accept(&listener, &handle, &status))?;
    Ok(bound)
}

fn spawn(name: &str, work: impl FnOnce() + Send + 'static) -> io::Result<()> {
    std::thread::Builder::new()
        .name(name.to_owned())
        .spawn(work)
        .map(drop)
}

fn accept(listener: &TcpListener, handle: &PrometheusHandle, status: &Arc<Status>) {
    let open = Arc::new(AtomicUsize::new(0));
    loop {
        let Ok((stream, _)) = listener.accept() else {
            // Out of descriptors, most likely: do not spin.
            std::thread::sleep(Duration::from_millis(200));
            continue;
        };
        if open.fetch_add(1, Ordering::Relaxed) >= CONNECTIONS_MAX {
            open.fetch_sub(1, Ordering::Relaxed);
            refused("busy");
            continue;
        }
        let (handle, status, counted) = (handle.clone(), status.clone(), open.clone());
        let served = spawn("metrics-request", move || {
            if let Err(error) = serve(stream, &handle, &status)
                && is_timeout(&error)
            {
                refused("slow");
            }
            counted.fetch_sub(1, Ordering::Relaxed);
        });
        if served.is_err() {
            open.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

fn serve(mut stream: TcpStream, handle: &PrometheusHandle, status: &Status) -> io::Result<()> {
    let head = read_head(&mut stream)?;
    step_back();
    let answer = match parse(&head) {
        Some(("GET" | "HEAD", "/metrics")) => {
            let text = handle.render() + &process_figures::render();
            response(200, TEXT, &text)
        }
        Some(("GET" | "HEAD", "/health")) => {
            let health = status.health();
            response(health.code, "application/json", &health.body)
        }
        Some(("GET" | "HEAD", "/health/ready")) => {
            let health = status.ready();
            response(health.code, "application/json", &health.body)
        }
        Some(("GET" | "HEAD", _)) => response(404, TEXT, "not found\n"),
        Some(_) => response(405, TEXT, "method not allowed\n"),
        None => {
            refused("head");
            response(400, TEXT, "bad request\n")
        }
    };
    let end = match parse(&head) {
        Some(("HEAD", _)) => answer.find("\r\n\r\n").map_or(answer.len(), |end| end + 4),
        _ => answer.len(),
    };
    let deadline = Instant::now() + WRITE_TIMEOUT;
    write_until(&mut stream, &answer.as_bytes()[..end], deadline)?;
    stream.shutdown(std::net::Shutdown::Write)
}

/// Counts a connection that gets no figures.
fn refused(reason: &'static str) {
    metrics::counter!(SCRAPES_REFUSED, "reason" => reason).increment(1);
}

/// Whether a socket's deadline has passed: Linux then says that it would block.
fn is_timeout(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::TimedOut | io::ErrorKind::WouldBlock
    )
}

/// Lets the shards go first where all cores are busy: rendering takes milliseconds of a core.
fn step_back() {
    // On Linux this is the calling thread's. It can only fail to lower what is lower already.
    let _ = rustix::process::setpriority_process(None, NICE);
}

/// Reads up to the empty line, whatever it costs the client: at most 2 s in all.
fn read_head(stream: &mut TcpStream) -> io::Result<Vec<u8>> {
    let deadline = Instant::now() + READ_TIMEOUT;
    let mut head = Vec::with_capacity(1024);
    let mut chunk = [0; 1024];
    // Looked for in what is new, and in the three bytes before.
    let mut looked = 0_usize;
    while !head[looked.saturating_sub(3)..]
        .windows(4)
        .any(|four| four == b"\r\n\r\n")
        && head.len() < HEAD_BYTES_MAX
    {
        looked = head.len();
        stream.set_read_timeout(Some(left(deadline)?))?;
        match stream.read(&mut chunk)? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            count => head.extend_from_slice(&chunk[..count]),
        }
    }
    Ok(head)
}

/// Writes all before `deadline`, which no byte that is read pushes back.
fn write_until(stream: &mut TcpStream, bytes: &[u8], deadline: Instant) -> io::Result<()> {
    let mut rest = bytes;
    while !rest.is_empty() {
        stream.set_write_timeout(Some(left(deadline)?))?;
        match stream.write(rest)? {
            0 => return Err(io::ErrorKind::WriteZero.into()),
            count => rest = &rest[count..],
        }
    }
    Ok(())
}

fn left(deadline: Instant) -> io::Result<Duration> {
    let left = deadline.saturating_duration_since(Instant::now());
    if left.is_zero() {
        return Err(io::ErrorKind::TimedOut.into());
    }
    Ok(left)
}

/// Method and path of a whole request head.
fn parse(head: &[u8]) -> Option<(&str, &str)> {
    let mut fields = [httparse::EMPTY_HEADER; 64];
    let mut request = httparse::Request::new(&mut fields);
    match request.parse(head) {
        Ok(httparse::Status::Complete(_)) => {
            let target = request.path?;
            let path = target.split_once('?').map_or(target, |(path, _)| path);
            Some((request.method?, path))
        }
        _ => None,
    }
}

fn response(code: u16, kind: &str, body: &str) -> String {
    let reason = match code {
        200 => "OK",
        400 => "Bad Request",
        404 => "Not Found",
        405 => "Method Not Allowed",
        _ => "Service Unavailable",
    };
    let allow = if code == 405 {
        "allow: GET, HEAD\r\n"
    } else {
        ""
    };
    format!(
        "HTTP/1.1 {code} {reason}\r\ncontent-type: {kind}\r\ncontent-length: {}\r\n{allow}\
         {POLICY_FIELD}{SECURITY_FIELDS}connection: close\r\n\r\n{body}",
        body.len()
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_whole_heads_are_requests() {
        assert_eq!(
            parse(b"GET /metrics?x=1 HTTP/1.1\r\nhost: a\r\n\r\n"),
            Some(("GET", "/metrics"))
        );
        assert_eq!(parse(b"GET /metrics HTTP/1.1\r\nhost: a\r\n"), None);
        assert_eq!(parse(b"\x16\x03\x01\x02\r\n\r\n"), None);
    }

    #[test]
    fn a_head_may_come_byte_by_byte_and_an_answer_be_read_so_within_its_time() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("it has one");
        let mut client = TcpStream::connect(address).expect("it listens");
        let (mut served, _) = listener.accept().expect("somebody comes");
        let head = b"GET /health HTTP/1.1\r\nhost: a\r\n\r\n";
        client.set_nodelay(true).expect("a socket");
        let mut slow = client.try_clone().expect("a handle");
        let drip = std::thread::spawn(move || {
            for byte in head {
                slow.write_all(&[*byte]).expect("it reads");
                std::thread::sleep(Duration::from_millis(1));
            }
        });
        assert_eq!(read_head(&mut served).expect("a head"), head);
        drip.join().expect("it was sent");
        // More than the kernel holds, for somebody who reads a little all the time.
        let reading = std::thread::spawn(move || {
            let mut some = [0; 1024];
            while client.read(&mut some).is_ok_and(|count| count > 0) {
                std::thread::sleep(Duration::from_millis(20));
            }
        });
        let begin = Instant::now();
        let deadline = begin + Duration::from_millis(300);
        let written = write_until(&mut served, &vec![0; 64 << 20], deadline);
        let error = written.expect_err("it is given up");
        let late = [io::ErrorKind::TimedOut, io::ErrorKind::WouldBlock];
        assert!(late.contains(&error.kind()), "{error}");
        assert!(begin.elapsed() < Duration::from_secs(5));
        // What the kernel holds is read to the end of this program, or of patience.
        drop((served, reading));
    }

    #[test]
    fn answers_with_what_was_counted_and_how_it_is() {
        let recorder = PrometheusBuilder::new().build_recorder();
        let handle = recorder.handle();
        metrics::with_local_recorder(&recorder, || {
            crate::metrics::Metrics::new(0)
                .connections_moved
                .increment(3);
        });
        let status = Status::new(1, "sqlite", "mesh");
        let address =
            start("127.0.0.1:0".parse().expect("an address"), handle, status).expect("a free port");
        let ask = |request: &str| {
            let mut stream = TcpStream::connect(address).expect("it listens");
            stream.write_all(request.as_bytes()).expect("it reads");
            let mut answer = String::new();
            stream.read_to_string(&mut answer).expect("text");
            answer
        };
        let scrape = ask("GET /metrics HTTP/1.1\r\nhost: a\r\n\r\n");
        assert!(scrape.starts_with("HTTP/1.1 200 OK\r\n"), "{scrape}");
        assert!(
            scrape.contains("yum_connections_moved_total{shard=\"0\"} 3"),
            "{scrape}"
        );
        assert!(
            scrape.contains("process_resident_memory_bytes "),
            "{scrape}"
        );
        let health = ask("GET /health HTTP/1.1\r\nhost: a\r\n\r\n");
        assert!(health.contains("\"status\":\"ok\""), "{health}");
        let head = ask("HEAD /health HTTP/1.1\r\nhost: a\r\n\r\n");
        assert!(head.ends_with("\r\n\r\n"), "{head}");
        let put = ask("PUT / HTTP/1.1\r\nhost: a\r\n\r\n");
        assert!(put.starts_with("HTTP/1.1 405"));
        assert!(ask("GET / HTTP/1.1\r\nhost: a\r\n\r\n").starts_with("HTTP/1.1 404"));
        for answer in [scrape, health, head, put] {
            for field in ["Cache-Control: no-store", "X-Content-Type-Options: nosniff"] {
                assert_eq!(answer.matches(field).count(), 1, "{answer}");
            }
            let policy = "Content-Security-Policy: default-src 'none'; frame-ancestors 'none'\r\n";
            assert!(answer.contains(policy), "{answer}");
        }
    }
}
