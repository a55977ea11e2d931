//! A TCP relay in front of a server, that can stop being a good way.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicUsize, Ordering};
use std::time::Duration;

/// Bytes pass.
const PASS: u8 = 0;
/// Bytes are taken and lost, silently.
const HOLE: u8 = 1;

/// The way to a port of this machine.
pub(crate) struct Relay {
    port: u16,
    state: Arc<State>,
}

struct State {
    mode: AtomicU8,
    /// Connections of an earlier number lost bytes, or were reset: they never pass any again.
    good_from: AtomicUsize,
    made: AtomicUsize,
    resets: AtomicUsize,
}

impl Relay {
    pub(crate) fn to(port: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let own = listener.local_addr().unwrap().port();
        let state = Arc::new(State {
            mode: AtomicU8::new(PASS),
            good_from: AtomicUsize::new(0),
            made: AtomicUsize::new(0),
            resets: AtomicUsize::new(0),
        });
        let accepting = state.clone();
        std::thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                let number = accepting.made.fetch_add(1, Ordering::SeqCst);
                let Ok(server) = TcpStream::connect(("127.0.0.1", port)) else {
                    continue;
                };
                let pairs = [(&client, &server), (&server, &client)];
                for (from, to) in
                    pairs.map(|(a, b)| (a.try_clone().unwrap(), b.try_clone().unwrap()))
                {
                    let state = accepting.clone();
                    std::thread::spawn(move || pass(&state, number, from, to));
                }
            }
        });
        Self { port: own, state }
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// From now on everything is lost, silently; new connections are taken, and silent too.
    pub(crate) fn cut(&self) {
        self.state.mode.store(HOLE, Ordering::SeqCst);
    }

    /// New connections pass again. Those that lost bytes stay silent for ever.
    pub(crate) fn mend(&self) {
        self.state
            .good_from
            .store(self.state.made.load(Ordering::SeqCst), Ordering::SeqCst);
        self.state.mode.store(PASS, Ordering::SeqCst);
    }

    /// Resets every connection.
    pub(crate) fn reset(&self) {
        self.state
            .resets
            .store(self.state.made.load(Ordering::SeqCst), Ordering::SeqCst);
    }
}

fn pass(state: &State, number: usize, mut from: TcpStream, mut to: TcpStream) {
    let mut buffer = vec![0; 64 << 10];
    from.set_read_timeout(Some(Duration::from_millis(20)))
        .unwrap();
    loop {
        if number < state.resets.load(Ordering::SeqCst) {
            for stream in [&from, &to] {
                let _ = socket2::SockRef::from(stream).set_linger(Some(Duration::ZERO));
                let _ = stream.shutdown(Shutdown::Both);
            }
            return;
        }
        let count = match from.read(&mut buffer) {
            Ok(0) => break,
            Ok(count) => count,
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => continue,
            Err(_) => break,
        };
        let lost = state.mode.load(Ordering::SeqCst) == HOLE
            || number < state.good_from.load(Ordering::SeqCst);
        if !lost && to.write_all(&buffer[..count]).is_err() {
            break;
        }
    }
    let _ = to.shutdown(Shutdown::Write);
}
