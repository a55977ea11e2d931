//! Sends what waits for a mount's WebSockets: all that is dirty, once.
//!
//! Whoever puts something into an outbox only marks the session dirty. When the shard has handled
//! what was ready, one task sends for all of them, each with all its waiting frames in one vectored
//! send that does not wait, hundreds of them in one submission of the shard's [`ring`](super::ring).
//! What the kernel does not take is left to the connection's own driver.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::io::{self, IoSlice};
use std::ops::Range;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use bytes::{Buf, Bytes, BytesMut};
use futures_lite::AsyncWrite;
use rustix::io::Errno;
use rustix::net::{SendAncillaryBuffer, SendFlags, sendmsg};

use super::ring::{self, Ring};
use super::{Connection, Mount, Shard, turns};
use crate::engine::{Engine, Key, Transport};

/// Frames that one send takes at most.
const FRAMES_MAX: usize = 64;

/// Bytes of pongs, `3probe` and closes that wait to be sent to one connection.
pub const CONTROL_BYTES_MAX: usize = 4 * 1024;

/// Fewer sends than this are not worth a submission.
const SENDS_TOGETHER_MIN: usize = 3;

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
    /// Messages that were handled since the driver last had nothing to read.
    in_a_row: Cell<u32>,
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
    /// A port over which `first` goes out before anything else.
    pub(super) fn new(key: Key, connection: Connection, first: &[u8]) -> Rc<Self> {
        Rc::new(Self {
            key,
            connection: RefCell::new(connection),
            control: RefCell::new(first.into()),
            blocked: Cell::new(false),
            inside_frame: Cell::new(false),
            failed: Cell::new(false),
            parked: Cell::new(false),
            in_a_row: Cell::new(0),
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
            let connection = self.connection.try_borrow();
            if let Ok(connection) = connection {
                connection.shard().metrics().bounds.increment("control");
            }
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

    /// Notes that nothing is there to be read.
    pub(super) fn ran_dry(&self) {
        self.in_a_row.set(0);
    }

    /// Notes that so many more messages were handled. Whether it is somebody else's turn.
    pub(super) fn has_had_turn(&self, messages: u32) -> bool {
        let in_a_row = self.in_a_row.get() + messages;
        let is_over = in_a_row >= turns::MESSAGES;
        self.in_a_row.set(if is_over { 0 } else { in_a_row });
        is_over
    }

    /// Sends what waits, without waiting.
    pub(super) fn send(&self, shard: &Shard, mount: &Mount) -> io::Result<Sent> {
        let mut frames = mount.ports.scratch.take();
        let sent = self.send_all(shard, mount, &mut frames);
        frames.clear();
        mount.ports.scratch.replace(frames);
        sent
    }

    /// Adds what is to be sent next to `frames`: the rest of a frame that was sent in part, the control
    /// queue, then what waits in the outbox. `Err`: the session ended and took the rest of a frame with it.
    fn plan(&self, engine: &Engine, frames: &mut Vec<Bytes>) -> io::Result<Plan> {
        let first = frames.len();
        let partly = engine.transmit(self.key, FRAMES_MAX, frames) > 0;
        if self.inside_frame.get() && !partly {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        let control = self.control.borrow();
        if !control.is_empty() {
            let place = first + usize::from(partly);
            frames.insert(place, Bytes::copy_from_slice(&control));
        }
        Ok(Plan {
            partly,
            control: control.len(),
            total: frames[first..].iter().map(Bytes::len).sum(),
        })
    }

    fn send_all(&self, shard: &Shard, mount: &Mount, frames: &mut Vec<Bytes>) -> io::Result<Sent> {
        loop {
            frames.clear();
            let plan = self.plan(&mount.engine, frames)?;
            if plan.total == 0 {
                return Ok(Sent::All);
            }
            let mut slices = [IoSlice::new(&[]); FRAMES_MAX + 1];
            for (slice, frame) in slices.iter_mut().zip(&*frames) {
                *slice = IoSlice::new(frame);
            }
            let result = sendmsg(
                self.connection.borrow().fd(),
                &slices[..frames.len()],
                &mut SendAncillaryBuffer::default(),
                SendFlags::DONTWAIT | SendFlags::NOSIGNAL,
            );
            let count = match result {
                Ok(count) => count,
                Err(Errno::INTR) => continue,
                Err(Errno::AGAIN) => return Ok(Sent::Part),
                Err(error) => return Err(error.into()),
            };
            shard.count_sends(1, frames.len());
            self.sent(&mount.engine, frames, plan, count);
            if count < plan.total {
                return Ok(Sent::Part);
            }
        }
    }

    /// Notes that `count` bytes of the planned frames were sent.
    fn sent(&self, engine: &Engine, frames: &[Bytes], plan: Plan, count: usize) {
        let before = if plan.partly { frames[0].len() } else { 0 };
        let of_control = count.saturating_sub(before).min(plan.control);
        if plan.control > 0 {
            let mut control = self.control.borrow_mut();
            control.advance(of_control);
            if control.is_empty() {
                // Idle connections keep no memory for it.
                *control = BytesMut::new();
            }
        }
        let of_frames = count - of_control;
        // The whole plan left: no frame is cut, and none has to be looked at.
        let mut left = if count == plan.total { 0 } else { of_frames };
        let control = (plan.control > 0).then_some(usize::from(plan.partly));
        let own = frames.iter().enumerate();
        for (_, frame) in own.filter(|(number, _)| Some(*number) != control) {
            match left.checked_sub(frame.len()) {
                Some(rest) => left = rest,
                None => break,
            }
        }
        // A frame that had begun before and got nothing now is still cut.
        self.inside_frame
            .set(left > 0 || (plan.partly && of_frames < before));
        engine.transmitted(self.key, of_frames);
    }

    /// Notes what a submission made of its send, and sends what else waits.
    fn took(
        &self,
        shard: &Shard,
        mount: &Mount,
        frames: &[Bytes],
        plan: Plan,
        result: Result<usize, Errno>,
    ) {
        let sent = match result {
            Ok(count) => {
                self.sent(&mount.engine, frames, plan, count);
                if count < plan.total {
                    Ok(Sent::Part)
                } else if frames.len() >= FRAMES_MAX {
                    self.send(shard, mount)
                } else {
                    Ok(Sent::All)
                }
            }
            Err(Errno::AGAIN | Errno::INTR) => Ok(Sent::Part),
            Err(error) => Err(error.into()),
        };
        self.flushed(shard, &sent);
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
            let plan = self.plan(&mount.engine, &mut frames)?;
            let Some(first) = frames.first() else {
                continue;
            };
            let mut connection = self.connection.borrow_mut();
            let stream = Pin::new(connection.stream());
            let count = std::task::ready!(stream.poll_write(cx, first))?;
            drop(connection);
            self.sent(&mount.engine, &frames, plan, count);
        }
        Poll::Ready(Ok(()))
    }

    /// Sends what waits; what is left is the driver's, who is told.
    pub(super) fn flush(&self, shard: &Shard, mount: &Mount) {
        if self.is_flushable() {
            self.flushed(shard, &self.send(shard, mount));
        }
    }

    fn is_flushable(&self) -> bool {
        !self.blocked.get() && !self.failed.get()
    }

    /// Notes how far a flush got.
    fn flushed(&self, shard: &Shard, sent: &io::Result<Sent>) {
        match sent {
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

/// What one send is made of.
#[derive(Debug, Clone, Copy)]
struct Plan {
    /// Its first frame is the rest of one that was sent in part.
    partly: bool,
    /// Bytes of the control queue in it, behind that one.
    control: usize,
    /// Bytes in all.
    total: usize,
}

/// The sends of one submission. Its memory is kept from one to the next.
#[derive(Default)]
struct Batch {
    sends: Vec<(Rc<Port>, Plan, Range<usize>)>,
    frames: Vec<Bytes>,
    results: Vec<Result<usize, Errno>>,
}

impl Batch {
    /// Adds what waits for a connection.
    fn add(&mut self, shard: &Shard, engine: &Engine, port: &Rc<Port>) {
        if !port.is_flushable() {
            return;
        }
        let first = self.frames.len();
        match port.plan(engine, &mut self.frames) {
            Ok(Plan { total: 0, .. }) => {}
            Ok(plan) => {
                let frames = first..self.frames.len();
                self.sends.push((Rc::clone(port), plan, frames));
            }
            Err(error) => {
                self.frames.truncate(first);
                port.flushed(shard, &Err(error));
            }
        }
    }

    /// Sends all that was added.
    fn send(&mut self, shard: &Shard, mount: &Mount, ring: Option<&mut Ring>) {
        let Self {
            sends,
            frames,
            results,
        } = self;
        match ring {
            Some(ring) if sends.len() >= SENDS_TOGETHER_MIN => {
                submit(ring, sends, frames, results);
                shard.count_sends(sends.len(), frames.len());
                for ((port, plan, range), result) in sends.drain(..).zip(results.drain(..)) {
                    let frames = &frames[range];
                    port.took(shard, mount, frames, plan, result);
                }
            }
            _ => {
                for (port, ..) in sends.drain(..) {
                    port.flush(shard, mount);
                }
            }
        }
        frames.clear();
    }
}

/// Hands the sends to the kernel.
fn submit(
    ring: &mut Ring,
    sends: &[(Rc<Port>, Plan, Range<usize>)],
    frames: &[Bytes],
    results: &mut Vec<Result<usize, Errno>>,
) {
    let slices: Vec<IoSlice<'_>> = frames.iter().map(|frame| IoSlice::new(frame)).collect();
    let borrowed: Vec<_> = sends
        .iter()
        .map(|(port, ..)| port.connection.borrow())
        .collect();
    let list = sends.iter().zip(&borrowed);
    let list: Vec<_> = list
        .map(|((_, _, range), connection)| ring::Send {
            socket: connection.fd(),
            slices: &slices[range.clone()],
        })
        .collect();
    ring.send(&list, results);
}

/// Flushes the dirty sessions of a mount, woken by the first of them. One task a mount; never ends.
pub async fn run(shard: Rc<Shard>, mount: Rc<Mount>) {
    let engine = &mount.engine;
    let (mut dirty, mut batch) = (Vec::new(), Batch::default());
    loop {
        poll_fn(|cx| engine.poll_dirty(cx)).await;
        engine.take_dirty(&mut dirty);
        for (number, keys) in dirty.chunks(ring::SENDS_MAX).enumerate() {
            if number > 0 {
                glommio::yield_if_needed().await;
            }
            for key in keys {
                if let Some(port) = mount.ports.get(*key) {
                    batch.add(&shard, engine, &port);
                }
            }
            batch.send(&shard, &mount, shard.ring.borrow_mut().as_mut());
            for key in keys {
                // Output alone does not concern the driver, which waits for input.
                let open =
                    engine.transport(*key) == Some(Transport::WebSocket) && engine.is_open(*key);
                if let Some(port) = mount.ports.get(*key)
                    && (!open || port.parked.get())
                {
                    port.wake();
                }
            }
        }
        dirty.clear();
    }
}
