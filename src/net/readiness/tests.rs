use std::io::{Read as _, Write as _};
use std::os::fd::AsFd as _;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::Wake;

use glommio::LocalExecutorBuilder;

use super::*;

#[derive(Default)]
struct Wakes(AtomicUsize);

impl Wake for Wakes {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

/// A test may have more than the shell is given.
fn raise_descriptors() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let maximum = getrlimit(Resource::Nofile).maximum;
    let all = Rlimit {
        current: maximum,
        maximum,
    };
    setrlimit(Resource::Nofile, all).expect("its own limit");
}

fn pair() -> (UnixStream, UnixStream) {
    UnixStream::pair().expect("a pair")
}

/// Whether a read may find something; the ring was asked before.
fn is_readable(readiness: &Readiness, watched: &Watched, counter: &Arc<Wakes>) -> bool {
    assert!(readiness.turn().is_done);
    let waker = Waker::from(Arc::clone(counter));
    let ready = watched
        .poll_readable(&Context::from_waker(&waker))
        .is_ready();
    assert!(readiness.turn().is_done, "what was ordered is told");
    ready
}

#[test]
fn each_arrival_is_told_once_and_the_end_until_it_was_read() {
    let readiness = Readiness::new().expect("the kernel has io_uring");
    let (ours, mut theirs) = pair();
    let (watched, counter) = (readiness.watch(ours.as_fd()), Arc::<Wakes>::default());
    let readable = || is_readable(&readiness, &watched, &counter);
    assert!(readable(), "nobody has looked yet");
    watched.found_nothing();
    assert!(!readable());
    for count in 1..=3 {
        theirs.write_all(b"a").expect("sent");
        theirs.write_all(b"b").expect("sent");
        assert!(readable());
        assert_eq!(
            counter.0.load(Ordering::Relaxed),
            count,
            "one poll, no more"
        );
        (&ours).read_exact(&mut [0; 2]).expect("it came");
        watched.found_less();
        assert!(!readable());
    }
    theirs.write_all(b"a").expect("sent");
    drop(theirs);
    assert!(readable());
    watched.found_less();
    assert!(readable(), "there is an end to be read");
}

#[test]
fn a_socket_that_went_is_closed_and_its_place_is_another_ones() {
    let readiness = Readiness::new().expect("the kernel has io_uring");
    let (ours, mut theirs) = pair();
    let (watched, counter) = (readiness.watch(ours.as_fd()), Arc::<Wakes>::default());
    watched.found_nothing();
    assert!(!is_readable(&readiness, &watched, &counter));
    theirs.write_all(b"a").expect("sent");
    let old = watched.key;
    drop(watched);
    drop(ours);
    let (next, _other) = pair();
    let watched = readiness.watch(next.as_fd());
    assert_eq!(watched.key.index, old.index);
    watched.found_nothing();
    assert!(!is_readable(&readiness, &watched, &counter), "not this one");
    assert_eq!(counter.0.load(Ordering::Relaxed), 0);
    let patience = Some(Duration::from_secs(5));
    theirs.set_read_timeout(patience).expect("not zero");
    let closed = theirs.read(&mut [0; 1]);
    // Unread bytes make it a reset.
    assert!(!matches!(closed, Ok(1..)), "{closed:?}");
    let kind = closed.err().map(|error| error.kind());
    assert!(matches!(kind, None | Some(io::ErrorKind::ConnectionReset)));
}

#[test]
fn others_may_look_for_input_for_a_while_only() {
    let readiness = Readiness::new().expect("the kernel has io_uring");
    let (ours, mut theirs) = pair();
    let (watched, counter) = (readiness.watch(ours.as_fd()), Arc::<Wakes>::default());
    watched.found_nothing();
    assert!(!is_readable(&readiness, &watched, &counter));
    assert!(!readiness.look(), "nothing has come");
    theirs.write_all(b"a").expect("sent");
    let long_ago = Instant::now().checked_sub(LOOKS_FOR);
    readiness
        .heard_at
        .set(long_ago.expect("the machine runs for longer"));
    assert!(!readiness.look(), "the runtime has to look first");
    readiness.heard_at.set(Instant::now());
    assert!(readiness.look());
    assert_eq!(counter.0.load(Ordering::Relaxed), 1);
    assert!(!readiness.look(), "all was told");
}

#[test]
fn more_sockets_than_the_ring_has_places_for_are_all_told() {
    let readiness = Readiness::new().expect("the kernel has io_uring");
    let many = COMPLETIONS as usize + 100;
    raise_descriptors();
    let pairs: Vec<_> = (0..many).map(|_| pair()).collect();
    let counter: Arc<Wakes> = Arc::default();
    let watched: Vec<_> = pairs
        .iter()
        .map(|(ours, _)| readiness.watch(ours.as_fd()))
        .collect();
    let waker = Waker::from(Arc::clone(&counter));
    let cx = Context::from_waker(&waker);
    for _ in 0..3 {
        for watched in &watched {
            watched.found_nothing();
            assert!(watched.poll_readable(&cx).is_pending());
        }
        while !readiness.turn().is_done {}
        for (_, theirs) in &pairs {
            let mut theirs = theirs;
            theirs.write_all(b"a").expect("sent");
        }
        while !readiness.turn().is_done {}
        assert_eq!(counter.0.swap(0, Ordering::Relaxed), many);
    }
}

#[test]
fn a_turn_ends_soon_after_what_came_while_it_listened() {
    let readiness = Readiness::new().expect("the kernel has io_uring");
    let pairs: Vec<_> = (0..200).map(|_| pair()).collect();
    let (ours, theirs): (Vec<_>, Vec<_>) = pairs.into_iter().unzip();
    let counter = Arc::<Wakes>::default();
    let waker = Waker::from(Arc::clone(&counter));
    let cx = Context::from_waker(&waker);
    let watched: Vec<_> = ours
        .iter()
        .map(|ours| readiness.watch(ours.as_fd()))
        .collect();
    for _ in 0..200 {
        for (ours, watched) in ours.iter().zip(&watched) {
            while watched.poll_readable(&cx).is_ready() {
                ours.set_nonblocking(true).expect("a socket");
                let mut ours = ours;
                let came = ours.read(&mut [0; 8]);
                if came.is_err() {
                    watched.found_nothing();
                }
            }
        }
        std::thread::scope(|scope| {
            scope.spawn(|| {
                for theirs in &theirs {
                    let mut theirs = theirs;
                    theirs.write_all(b"a").expect("sent");
                }
            });
            for _ in 0..50 {
                readiness.turn();
            }
        });
        let turns = (1..100).find(|_| readiness.turn().is_done);
        assert_eq!(turns, Some(1), "nothing more comes");
        assert!(!readiness.look(), "and nothing is left to be heard");
    }
}

#[test]
fn the_runtime_is_woken_for_what_comes_and_for_what_goes() {
    let (ours, mut theirs) = pair();
    ours.set_nonblocking(true).expect("a socket");
    let writer = std::thread::spawn(move || {
        let mut all = Vec::new();
        for _ in 0..100 {
            std::thread::sleep(Duration::from_millis(1));
            theirs.write_all(b"a").expect("sent");
        }
        theirs.read_to_end(&mut all).expect("it ends");
        all.len()
    });
    let server = LocalExecutorBuilder::default().io_memory(0);
    let server = server.spawn(move || async move {
        let readiness = Readiness::new().expect("the kernel has io_uring");
        glommio::spawn_local(run(Rc::clone(&readiness))).detach();
        let watched = readiness.watch(ours.as_fd());
        let (mut read, sent) = (0, Cell::new(0));
        while read < 100 {
            std::future::poll_fn(|cx| watched.poll_readable(cx)).await;
            match (&ours).read(&mut [0; 10]) {
                Ok(count) => read += count,
                Err(_) => watched.found_nothing(),
            }
        }
        while sent.get() < 4 << 20 {
            std::future::poll_fn(|cx| {
                let Ok(count) = (&ours).write(&[0; 4096]) else {
                    watched.wait_for_writable(cx);
                    return Poll::Pending;
                };
                sent.set(sent.get() + count);
                Poll::Ready(())
            })
            .await;
        }
        sent.get()
    });
    let sent = server.expect("this machine runs io_uring").join();
    assert_eq!(sent.expect("it ends well"), writer.join().expect("content"));
}
