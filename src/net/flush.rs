//! Sends what waits for a mount's WebSockets: all that is dirty, once.
//!
//! Whoever puts something into an outbox only marks the session dirty. When the shard has handled
//! what was ready, one task sends for all of them, each with all its waiting frames in one vectored
//! call that does not wait. What the kernel does not take is left to the connection's own driver.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use bytes::{Buf, Bytes, BytesMut};
use futures_lite::AsyncWrite;
use rustix::io::Errno;
use rustix::net::{SendAncillaryBuffer, SendFlags, sendmsg};

use super::{Connection, Mount, Shard};
use crate::engine::{Engine, Key, Transport};

/// Frames that one send takes at most.
const FRAMES_MAX: usize = 64;

/// Bytes of pongs, `3probe` and closes that wait to be sent to one connection.
pub const CONTROL_BYTES_MAX: usize = 4 * 1024;

/// Sends after which the task lets others run.
const SENDS_AT_ONCE: usize = 128;

/// The WebSockets of a mount's sessions, in the places of their keys.
#[derive(Default)]
pub struct Ports {
    places: RefCell<Vec<Option<Rc<Port>>>>,
    /// Frames on their way, kept for its memory.
    scratch: RefCell<Vec<Bytes>>,
}

impl Ports {
    pub(super) fn insert(&self, port: Rc<Port>) {
        let mut places = self.places.borrow_mut();
        let index = port.key.index as usize;
        if places.len() <= index {
            places.resize_with(index + 1, || None);
        }
        debug_assert!(places[index].is_none(), "a session has one WebSocket");
        places[index] = Some(port);
    }

    pub(super) fn remove(&self, key: Key) {
        let mut places = self.places.borrow_mut();
        let place = places.get_mut(key.index as usize);
        let removed = place.and_then(|place| place.take_if(|port| port.key == key));
        drop(places);
        drop(removed);
    }

    fn get(&self, key: Key) -> Option<Rc<Port>> {
        let places = self.places.borrow();
        let port = places.get(key.index as usize)?.as_ref()?;
        (port.key == key).then(|| Rc::clone(port))
    }
}

/// One WebSocket, as its driver and the flush share it.
pub(super) struct Port {
    key: Key,
    /// Borrowed for one call at a time, never across a wait.
    connection: RefCell<Connection>,
    /// Pongs, `3probe`: what must not wait behind the outbox.
    control: RefCell<BytesMut>,
    /// The driver is finishing what the kernel did not take.
    blocked: Cell<bool>,
    /// The last byte sent was not the last of its frame.
    inside_frame: Cell<bool>,
    failed: Cell<bool>,
    /// The driver reads nothing, because the handler asked for a pause.
    parked: Cell<bool>,
    driver: RefCell<Option<Waker>>,
}

/// The control queue of a connection is full: the peer sends pings and does not read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("too many unsent control frames")]
pub(super) struct ControlFull;

/// How far a send got.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Sent {
    /// Nothing is left.
    All,
    /// The kernel takes no more for now.
    Part,
}

impl Port {
    pub(super) fn new(key: Key, connection: Connection) -> Rc<Self> {
        Rc::new(Self {
            key,
            connection: RefCell::new(connection),
            control: RefCell::default(),
            blocked: Cell::new(false),
            inside_frame: Cell::new(false),
            failed: Cell::new(false),
            parked: Cell::new(false),
            driver: RefCell::new(None),
        })
    }

    /// The connection, with the control frames that were not sent, when nobody else holds the port.
    pub(super) fn into_parts(self: Rc<Self>) -> Option<(Connection, BytesMut)> {
        let port = Rc::into_inner(self)?;
        Some((port.connection.into_inner(), port.control.into_inner()))
    }

    pub(super) fn connection(&self) -> &RefCell<Connection> {
        &self.connection
    }

    /// Whether a frame was cut: nothing that is sent now would be understood.
    pub(super) fn is_inside_frame(&self) -> bool {
        self.inside_frame.get()
    }

    pub(super) fn has_control(&self) -> bool {
        !self.control.borrow().is_empty()
    }

    /// Queues the bytes of control frames.
    pub(super) fn push_control(&self, bytes: &[u8]) -> Result<(), ControlFull> {
        let mut control = self.control.borrow_mut();
        if control.len() + bytes.len() > CONTROL_BYTES_MAX {
            return Err(ControlFull);
        }
        control.extend_from_slice(bytes);
        Ok(())
    }

    /// Remembers whom to wake.
    pub(super) fn register(&self, cx: &Context<'_>) {
        let mut driver = self.driver.borrow_mut();
        match &mut *driver {
            Some(known) if known.will_wake(cx.waker()) => {}
            unknown => *unknown = Some(cx.waker().clone()),
        }
    }

    fn wake(&self) {
        let driver = self.driver.borrow_mut().take();
        if let Some(driver) = driver {
            driver.wake();
        }
    }

    /// Whether the driver waits for a resume.
    pub(super) fn set_parked(&self, parked: bool) {
        self.parked.set(parked);
    }

    /// Sends what waits, without waiting.
    pub(super) fn send(&self, shard: &Shard, mount: &Mount) -> io::Result<Sent> {
        let mut frames = mount.ports.scratch.take();
        let sent = self.send_all(shard, mount, &mut frames);
        frames.clear();
        mount.ports.scratch.replace(frames);
        sent
    }

    fn send_all(&self, shard: &Shard, mount: &Mount, frames: &mut Vec<Bytes>) -> io::Result<Sent> {
        loop {
            let partly = self.gather(&mount.engine, frames);
            if self.inside_frame.get() && !partly {
                // The session ended and took the rest of a frame with it.
                return Err(io::ErrorKind::BrokenPipe.into());
            }
            let control = self.control.borrow();
            let total = control.len() + frames.iter().map(Bytes::len).sum::<usize>();
            if total == 0 {
                return Ok(Sent::All);
            }
            let (before, after) = frames.split_at(usize::from(partly));
            let mut slices = [IoSlice::new(&[]); FRAMES_MAX + 1];
            let order = before.iter().map(|frame| &frame[..]);
            let order = order.chain([&control[..]]);
            let order = order.chain(after.iter().map(|frame| &frame[..]));
            for (slice, bytes) in slices.iter_mut().zip(order) {
                *slice = IoSlice::new(bytes);
            }
            let result = sendmsg(
                self.connection.borrow().fd(),
                &slices[..=frames.len()],
                &mut SendAncillaryBuffer::default(),
                SendFlags::DONTWAIT | SendFlags::NOSIGNAL,
            );
            drop(control);
            let count = match result {
                Ok(count) => count,
                Err(Errno::INTR) => continue,
                Err(Errno::AGAIN) => return Ok(Sent::Part),
                Err(error) => return Err(error.into()),
            };
            shard.mark_active();
            shard.metrics().flushes.increment(1);
            shard
                .metrics()
                .flushed_frames
                .increment(frames.len() as u64);
            self.sent(&mount.engine, frames, partly, count);
            if count < total {
                return Ok(Sent::Part);
            }
        }
    }

    /// Collects the frames that wait. Returns whether the first was sent in part, so that nothing
    /// may come before the rest of it.
    fn gather(&self, engine: &Engine, frames: &mut Vec<Bytes>) -> bool {
        frames.clear();
        engine.transmit(self.key, FRAMES_MAX, frames) > 0
    }

    /// Notes that `count` bytes were sent: of the rest of the first frame if it was sent in part,
    /// then of the control queue, then of the other frames.
    fn sent(&self, engine: &Engine, frames: &[Bytes], partly: bool, count: usize) {
        let before = frames
            .iter()
            .take(usize::from(partly))
            .map(Bytes::len)
            .sum();
        let mut control = self.control.borrow_mut();
        let of_control = count.saturating_sub(before).min(control.len());
        control.advance(of_control);
        if control.is_empty() {
            // Idle connections keep no memory for it.
            *control = BytesMut::new();
        }
        let of_frames = count - of_control;
        let mut left = of_frames;
        for frame in frames {
            match left.checked_sub(frame.len()) {
                Some(rest) => left = rest,
                None => break,
            }
        }
        // A frame that had begun before and got nothing now is still cut.
        self.inside_frame
            .set(left > 0 || (partly && of_frames < frames[0].len()));
        engine.transmitted(self.key, of_frames);
    }

    /// Finishes what [`Port::send`] left: waits until the kernel takes more.
    pub(super) fn poll_finish(
        &self,
        cx: &mut Context<'_>,
        shard: &Shard,
        mount: &Mount,
    ) -> Poll<io::Result<()>> {
        if self.failed.get() {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        while self.blocked.get() {
            if self.send(shard, mount)? == Sent::All {
                self.blocked.set(false);
                break;
            }
            let mut frames = Vec::new();
            let partly = self.gather(&mount.engine, &mut frames);
            let control = self.control.borrow().clone();
            let first = match frames.first() {
                Some(frame) if partly || control.is_empty() => frame.clone(),
                _ => control.freeze(),
            };
            let mut connection = self.connection.borrow_mut();
            let stream = Pin::new(connection.stream());
            let count = std::task::ready!(stream.poll_write(cx, &first))?;
            drop(connection);
            self.sent(&mount.engine, &frames, partly, count);
        }
        Poll::Ready(Ok(()))
    }

    /// Sends what waits; what is left is the driver's, who is told.
    pub(super) fn flush(&self, shard: &Shard, mount: &Mount) {
        if self.blocked.get() || self.failed.get() {
            return;
        }
        match self.send(shard, mount) {
            Ok(Sent::All) => {}
            Ok(Sent::Part) => {
                shard.metrics().flush_remainders.increment(1);
                self.blocked.set(true);
                self.wake();
            }
            Err(_) => {
                self.failed.set(true);
                self.wake();
            }
        }
    }
}

/// Flushes the dirty sessions of a mount, woken by the first of them. One task a mount; never ends.
pub async fn run(shard: Rc<Shard>, mount: Rc<Mount>) {
    let engine = &mount.engine;
    let mut dirty = Vec::new();
    loop {
        poll_fn(|cx| engine.poll_dirty(cx)).await;
        engine.take_dirty(&mut dirty);
        for (number, key) in dirty.drain(..).enumerate() {
            if number % SENDS_AT_ONCE == SENDS_AT_ONCE - 1 {
                glommio::yield_if_needed().await;
            }
            let Some(port) = mount.ports.get(key) else {
                continue;
            };
            port.flush(&shard, &mount);
            // Output alone does not concern the driver, which waits for input.
            let open = engine.is_open(key) && engine.transport(key) == Some(Transport::WebSocket);
            if !open || port.parked.get() {
                port.wake();
            }
        }
    }
}
