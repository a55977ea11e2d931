//! A TCP relay in front of a server, that can stop being a good way.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::ops::Range;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// The way to a port of this machine.
pub(crate) struct Relay {
    port: u16,
    state: Arc<State>,
}

/// Connections are numbered from 0, in the order in which they were made.
#[derive(Default)]
struct State {
    made: AtomicUsize,
    /// Those whose bytes are taken and lost, silently. Whoever lost bytes once never passes any again.
    lost: Mutex<Vec<Range<usize>>>,
    /// Those that are reset.
    reset: Mutex<Vec<Range<usize>>>,
    /// Whoever passes this is lost from then on.
    trap: Mutex<Option<&'static str>>,
}

fn holds(ranges: &Mutex<Vec<Range<usize>>>, number: usize) -> bool {
    let ranges = ranges.lock().unwrap();
    ranges.iter().any(|range| range.contains(&number))
}

impl Relay {
    pub(crate) fn to(port: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let own = listener.local_addr().unwrap().port();
        let state = Arc::new(State::default());
        let accepting = state.clone();
        std::thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                let number = accepting.made.fetch_add(1, Ordering::SeqCst);
                let Ok(server) = TcpStream::connect(("127.0.0.1", port)) else {
                    continue;
                };
                for stream in [&client, &server] {
                    // It adds no waits of its own: what is measured behind it is the servers'.
                    let _ = stream.set_nodelay(true);
                }
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
        self.state.lost.lock().unwrap().push(0..usize::MAX);
    }

    /// The same for one connection and all that are made from now on: the others go on.
    pub(crate) fn cut_one(&self, number: usize) {
        let made = self.made();
        let mut lost = self.state.lost.lock().unwrap();
        lost.extend([number..number + 1, made..usize::MAX]);
    }

    /// Loses every connection that brings this text, with it and silently.
    #[allow(dead_code, reason = "the tests of Redis do not need it")]
    pub(crate) fn lose_at(&self, text: &'static str) {
        *self.state.trap.lock().unwrap() = Some(text);
    }

    /// Resets every connection.
    pub(crate) fn reset(&self) {
        let made = self.made();
        self.state.reset.lock().unwrap().push(0..made);
    }

    /// The same, and those that are made from now on.
    pub(crate) fn refuse(&self) {
        self.state.reset.lock().unwrap().push(0..usize::MAX);
    }

    /// New connections pass again.
    pub(crate) fn mend(&self) {
        *self.state.trap.lock().unwrap() = None;
        let made = self.made();
        for ranges in [&self.state.lost, &self.state.reset] {
            for range in &mut *ranges.lock().unwrap() {
                range.end = range.end.min(made);
            }
        }
    }

    /// Connections made so far.
    pub(crate) fn made(&self) -> usize {
        self.state.made.load(Ordering::SeqCst)
    }
}

fn pass(state: &State, number: usize, mut from: TcpStream, mut to: TcpStream) {
    let mut buffer = vec![0; 64 << 10];
    from.set_read_timeout(Some(Duration::from_millis(20)))
        .unwrap();
    loop {
        if holds(&state.reset, number) {
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
        let bytes = &buffer[..count];
        let trap = state.trap.lock().unwrap().filter(|text| {
            bytes
                .windows(text.len())
                .any(|part| part == text.as_bytes())
        });
        if trap.is_some() {
            state.lost.lock().unwrap().push(number..number + 1);
        }
        if !holds(&state.lost, number) && to.write_all(bytes).is_err() {
            break;
        }
    }
    let _ = to.shutdown(Shutdown::Write);
}
