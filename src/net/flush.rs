//! Sends what waits for a mount's WebSockets: all that is dirty, once.
//!
//! Whoever puts something into an outbox only marks the session dirty. When the shard has handled
//! what was ready, one task sends for all of them, each with all its waiting frames in one send that does
//! not wait, hundreds of them in one submission of the shard's [`ring`](super::ring). The frames are
//! [`joined`](super::joined), once for all connections that the same ones wait for. What the kernel
//! does not take is left to the connection's own driver.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::io;
use std::os::fd::{AsRawFd as _, RawFd};
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use bytes::{Buf, BytesMut};
use rustix::io::Errno;
use rustix::net::SendFlags;

use super::joined::{Joined, Plan};
use super::ring::{self, Ring};
use super::{Connection, Mount, Shard, turns};
use crate::engine::{Engine, Key, Transport, Waiting};

/// Bytes of pongs, `3probe` and closes that wait to be sent to one connection.
pub const CONTROL_BYTES_MAX: usize = 4 * 1024;

/// Fewer sends than this are not worth a submission.
const SENDS_TOGETHER_MIN: usize = 3;

/// How often what came meanwhile is read before anything is sent: what it adds then leaves in the same sends.
const READS_FIRST: usize = 8;

/// The WebSockets of a mount's sessions, in the places of their keys.
#[derive(Default)]
pub struct Ports {
    places: RefCell<Vec<Option<Rc<Port>>>>,
    /// Frames on their way, kept for its memory.
    scratch: RefCell<Joined>,
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
    /// Of the connection.
    socket: RawFd,
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
            socket: connection.fd().as_raw_fd(),
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
        let mut joined = mount.ports.scratch.take();
        let sent = self.send_all(shard, mount, &mut joined);
        joined.clear();
        mount.ports.scratch.replace(joined);
        sent
    }

    /// Has `plan` say what is sent next, of what waits in the outbox and in the control queue. `Err`: the
    /// session ended and took the rest of a frame with it.
    fn plan(
        &self,
        engine: &Engine,
        plan: impl FnOnce(Waiting<'_>, &[u8]) -> Plan,
    ) -> io::Result<Plan> {
        let control = self.control.borrow();
        let plan = engine.transmit(self.key, |waiting| plan(waiting, &control));
        if self.inside_frame.get() && plan.rest == 0 {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        Ok(plan)
    }

    fn send_all(&self, shard: &Shard, mount: &Mount, joined: &mut Joined) -> io::Result<Sent> {
        loop {
            joined.clear();
            let plan = self.plan(&mount.engine, |waiting, control| {
                joined.plan(waiting, control)
            })?;
            if plan.total == 0 {
                return Ok(Sent::All);
            }
            let result = rustix::net::send(
                self.connection.borrow().fd(),
                joined.bytes(plan),
                SendFlags::DONTWAIT | SendFlags::NOSIGNAL,
            );
            let count = match result {
                Ok(count) => count,
                Err(Errno::INTR) => continue,
                Err(Errno::AGAIN) => return Ok(Sent::Part),
                Err(error) => return Err(error.into()),
            };
            shard.count_sends(1, plan.frames);
            self.sent(&mount.engine, plan, count);
            if count < plan.total {
                return Ok(Sent::Part);
            }
            if plan.is_whole {
                return Ok(Sent::All);
            }
        }
    }

    /// Notes that `count` bytes of what was planned were sent.
    fn sent(&self, engine: &Engine, plan: Plan, count: usize) {
        let (of_control, of_frames) = plan.split(count);
        if plan.control > 0 {
            let mut control = self.control.borrow_mut();
            control.advance(of_control);
            if control.is_empty() {
                // Idle connections keep no memory for it.
                *control = BytesMut::new();
            }
        }
        engine.transmitted(self.key, of_frames);
        // A plan ends with a frame.
        let is_cut = || engine.transmit(self.key, |waiting| waiting.sent() > 0);
        self.inside_frame.set(count < plan.total && is_cut());
    }

    /// Notes what a submission made of its send, and sends what else waits.
    fn took(&self, shard: &Shard, mount: &Mount, plan: Plan, result: Result<usize, Errno>) {
        let sent = match result {
            Ok(count) => {
                self.sent(&mount.engine, plan, count);
                if count < plan.total {
                    Ok(Sent::Part)
                } else if plan.is_whole {
                    Ok(Sent::All)
                } else {
                    self.send(shard, mount)
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
        if self.blocked.get() {
            if self.send(shard, mount)? == Sent::All {
                self.blocked.set(false);
                return Poll::Ready(Ok(()));
            }
            self.connection.borrow_mut().stream().wait_for_writable(cx);
            return Poll::Pending;
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

/// The sends of one submission. Its memory is kept from one to the next.
#[derive(Default)]
struct Batch {
    sends: Vec<(Rc<Port>, Plan)>,
    joined: Joined,
    results: Vec<Result<usize, Errno>>,
}

impl Batch {
    /// Adds what waits for a connection.
    fn add(&mut self, shard: &Shard, engine: &Engine, port: Rc<Port>) {
        if !port.is_flushable() {
            return;
        }
        let plan = port.plan(engine, |waiting, control| {
            self.joined.plan_shared(waiting, control)
        });
        match plan {
            Ok(Plan { total: 0, .. }) => {}
            Ok(plan) => self.sends.push((port, plan)),
            Err(error) => port.flushed(shard, &Err(error)),
        }
    }

    fn is_full(&self) -> bool {
        self.sends.len() >= ring::SENDS_MAX || self.joined.is_full()
    }

    /// Sends all that was added.
    fn send(&mut self, shard: &Shard, mount: &Mount) {
        let mut ring = shard.ring.borrow_mut();
        match ring.as_mut() {
            Some(ring) if self.sends.len() >= SENDS_TOGETHER_MIN => {
                self.submit(ring);
                let frames = self.sends.iter().map(|(_, plan)| plan.frames).sum();
                shard.count_sends(self.sends.len(), frames);
                for ((port, plan), result) in self.sends.drain(..).zip(self.results.drain(..)) {
                    port.took(shard, mount, plan, result);
                }
            }
            _ => {
                for (port, _) in self.sends.drain(..) {
                    port.flush(shard, mount);
                }
            }
        }
        self.joined.clear();
    }

    /// Hands the sends to the kernel.
    fn submit(&mut self, ring: &mut Ring) {
        let sends = self.sends.iter().map(|(port, plan)| ring::Send {
            // It stays open: the port is held here, and the connection is its own.
            socket: port.socket,
            bytes: self.joined.bytes(*plan),
        });
        ring.send(sends, &mut self.results);
    }
}

/// Flushes the dirty sessions of a mount, woken by the first of them. One task a mount; never ends.
pub async fn run(shard: Rc<Shard>, mount: Rc<Mount>) {
    let engine = &mount.engine;
    let (mut dirty, mut batch) = (Vec::new(), Batch::default());
    loop {
        poll_fn(|cx| engine.poll_dirty(cx)).await;
        for _ in 0..READS_FIRST {
            if !shard.readiness.look() {
                break;
            }
            futures_lite::future::yield_now().await;
        }
        engine.take_dirty(&mut dirty);
        for (number, keys) in dirty.chunks(ring::SENDS_MAX).enumerate() {
            if number > 0 {
                if shard.readiness.look() {
                    futures_lite::future::yield_now().await;
                } else {
                    glommio::yield_if_needed().await;
                }
            }
            for key in keys {
                if let Some(port) = mount.ports.get(*key) {
                    batch.add(&shard, engine, port);
                }
                if batch.is_full() {
                    batch.send(&shard, &mount);
                }
            }
            batch.send(&shard, &mount);
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
