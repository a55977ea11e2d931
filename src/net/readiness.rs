//! Which of a shard's sockets can be read: told by a ring of its own.
//!
//! A socket that somebody waits for has one poll in this ring, made once and kept until the socket goes: a
//! multishot poll, `io_uring_enter(2)`. The kernel tells of each arrival once, so whoever has read all that
//! came need not try again in vain, and nothing is armed anew. The runtime's own way is a poll for each read:
//! half a kilobyte of memory, a submission, and, while the shard runs, an interrupt from the processor that
//! brings the bytes. Here what comes waits in the kernel until it is asked for, so a burst interrupts once:
//! by a bell, an eventfd that the runtime reads.
//!
//! A poll keeps its socket open, so it leaves the ring when the socket moves or goes.

use std::cell::{Cell, RefCell};
use std::future::Future;
use std::io::{self, IoSliceMut};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, IntoRawFd, OwnedFd, RawFd};
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use glommio::io::BufferedFile;
use io_uring::{IoUring, cqueue, opcode, squeue, types};
use rustix::event::{EventfdFlags, PollFlags, eventfd};
use rustix::io::{ReadWriteFlags, preadv2};

#[cfg(test)]
mod tests;

/// Polls that are handed to the kernel at once.
const ENTRIES: u32 = 256;
/// What the kernel tells before it is asked again. A poll that finds no place may end; it is made anew then.
const COMPLETIONS: u32 = 4096;
/// How often the ring is asked before others get their turn.
const ROUNDS_MAX: usize = 256;
/// How often the ring may say in a row that it has something to tell, and tell nothing. Its word may be older than
/// what it told last.
const BARREN_MAX: usize = 2;
/// How long others have theirs when the kernel takes nothing, or has more to tell than a turn hears.
const PAUSE: Duration = Duration::from_millis(1);
/// How long after the runtime has heard the bell others may look in its place.
const LOOKS_FOR: Duration = Duration::from_millis(5);

/// What a reader waits for, an orderly end among it.
const READ: PollFlags = PollFlags::IN.union(PollFlags::RDHUP);
/// After these a short read does not mean that nothing is left: there is an end or an error to be read.
const END: PollFlags = PollFlags::RDHUP.union(PollFlags::HUP).union(PollFlags::ERR);

/// The sockets that a shard watches.
pub(super) struct Readiness {
    ring: RefCell<IoUring>,
    /// Rung by the kernel when the ring has something to tell.
    bell: OwnedFd,
    places: RefCell<Places>,
    /// What the kernel is to be told.
    orders: RefCell<Vec<Order>>,
    /// The task that tells it.
    teller: RefCell<Option<Waker>>,
    /// When the runtime heard the bell last.
    heard_at: Cell<Instant>,
    /// The last turn left something to be told or heard.
    is_unfinished: Cell<bool>,
    /// The kernel's word that it has something to tell was found to be empty; the bell will say when it is not.
    is_stale: Cell<bool>,
    /// A completion says all that had happened when it was made: kernels before 6.1 could leave out an end.
    is_exact: bool,
}

#[derive(Default)]
struct Places {
    all: Vec<Place>,
    free: Vec<u32>,
}

/// One watched socket.
struct Place {
    /// Of the watched socket; it is open as long as the place is used.
    socket: RawFd,
    /// How often the place was used before.
    generation: u32,
    /// Of the task that has the socket.
    waker: Option<Waker>,
    /// A read may find something.
    readable: bool,
    /// It will find something even after a short read: the end.
    has_ended: bool,
    reads: Watch,
    writes: Watch,
}

/// A poll of one direction.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Watch {
    None,
    /// The kernel does not know of it yet.
    Ordered,
    Armed,
}

/// Names a use of a place: the place, and how often it was used before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Key {
    index: u32,
    generation: u32,
}

/// What became of a turn.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Turn {
    /// The kernel told something.
    pub(super) has_heard: bool,
    /// All was told and heard.
    pub(super) is_done: bool,
}

/// What a completion is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum About {
    Reads,
    Writes,
    /// Nothing: an order to forget a poll was carried out.
    Order,
}

enum Order {
    Watch(Key, About),
    Forget(u64),
}

impl Key {
    /// How the kernel calls it: the place, what it is about in two bits, and the generation's other thirty.
    fn user_data(self, about: About) -> u64 {
        let generation = u64::from(self.generation) << 34;
        generation | (about as u64) << 32 | u64::from(self.index)
    }

    fn of(user_data: u64) -> (Self, About) {
        let low = |bits: u64| u32::try_from(bits & u64::from(u32::MAX)).expect("32 bits");
        let about = match user_data >> 32 & 3 {
            0 => About::Reads,
            1 => About::Writes,
            _ => About::Order,
        };
        let key = Self {
            index: low(user_data),
            generation: low(user_data >> 34),
        };
        (key, about)
    }
}

/// A generation has thirty bits.
const GENERATIONS: u32 = 1 << 30;

impl Place {
    fn unused(generation: u32) -> Self {
        Self {
            socket: -1,
            generation,
            waker: None,
            readable: true,
            has_ended: false,
            reads: Watch::None,
            writes: Watch::None,
        }
    }
}

impl Places {
    fn get(&mut self, key: Key) -> Option<&mut Place> {
        let place = self.all.get_mut(key.index as usize)?;
        (place.generation == key.generation).then_some(place)
    }

    fn insert(&mut self, socket: RawFd) -> Key {
        let index = self.free.pop().unwrap_or_else(|| {
            self.all.push(Place::unused(0));
            u32::try_from(self.all.len() - 1).expect("a process has fewer descriptors")
        });
        let place = &mut self.all[index as usize];
        place.socket = socket;
        Key {
            index,
            generation: place.generation,
        }
    }

    /// Frees a place; gives what it was.
    fn remove(&mut self, key: Key) -> Place {
        let place = &mut self.all[key.index as usize];
        let next = Place::unused((place.generation + 1) % GENERATIONS);
        self.free.push(key.index);
        std::mem::replace(place, next)
    }
}

impl Readiness {
    /// Watches nothing yet. Only the calling thread may use it. `Err` where the kernel gives no ring.
    pub(super) fn new() -> io::Result<Rc<Self>> {
        // Linux 6.1 and newer leave completions to the thread that asks; before, each interrupts it.
        let deferring = IoUring::builder()
            .setup_cqsize(COMPLETIONS)
            .setup_single_issuer()
            .setup_defer_taskrun()
            .setup_taskrun_flag()
            .build(ENTRIES);
        let is_exact = deferring.is_ok();
        let ring =
            deferring.or_else(|_| IoUring::builder().setup_cqsize(COMPLETIONS).build(ENTRIES))?;
        let bell = eventfd(0, EventfdFlags::CLOEXEC)?;
        ring.submitter().register_eventfd(bell.as_raw_fd())?;
        Ok(Rc::new(Self {
            ring: RefCell::new(ring),
            bell,
            places: RefCell::default(),
            orders: RefCell::default(),
            teller: RefCell::default(),
            heard_at: Cell::new(Instant::now()),
            is_unfinished: Cell::default(),
            is_stale: Cell::default(),
            is_exact,
        }))
    }

    /// Watches a socket, as soon as somebody waits for it.
    pub(super) fn watch(self: &Rc<Self>, socket: BorrowedFd<'_>) -> Watched {
        let key = self.places.borrow_mut().insert(socket.as_raw_fd());
        Watched {
            readiness: Rc::clone(self),
            key,
        }
    }

    fn order(&self, order: Order) {
        self.orders.borrow_mut().push(order);
        if let Some(teller) = self.teller.borrow_mut().take() {
            teller.wake();
        }
    }

    /// Has those woken who got input since the bell was heard last. Whether there was somebody. For whoever has
    /// much to do: the runtime looks when nothing is left to run. It has to look, too, for timers and for other
    /// threads, so [`LOOKS_FOR`] after the bell there is nothing here until the runtime hears it again.
    pub(super) fn look(&self) -> bool {
        if self.is_stale.get() || self.heard_at.get().elapsed() >= LOOKS_FOR {
            return false;
        }
        let turn = self.turn();
        if !turn.is_done
            && let Some(teller) = self.teller.borrow_mut().take()
        {
            teller.wake();
        }
        turn.has_heard
    }

    /// Tells the kernel what was ordered, and wakes whoever waits for what it tells.
    pub(super) fn turn(&self) -> Turn {
        let mut ring = self.ring.borrow_mut();
        let mut turn = Turn::default();
        let (mut is_rung, mut barren) = (false, 0);
        for _ in 0..ROUNDS_MAX {
            let has_told_all = self.tell(&mut ring);
            let submitted = if is_wanted(&mut ring) {
                ring.submit()
            } else {
                Ok(0)
            };
            let has_heard = self.hear(&mut ring);
            is_rung |= has_heard;
            turn.has_heard |= has_heard;
            let Ok(submitted) = submitted else {
                // What was not taken still stands in the queue.
                break;
            };
            let is_barren = submitted == 0 && !has_heard;
            barren = if is_barren { barren + 1 } else { 0 };
            let is_wanted = is_wanted(&mut ring);
            if has_told_all && (!is_wanted || barren >= BARREN_MAX) {
                if !std::mem::take(&mut is_rung) {
                    self.is_stale.set(is_wanted);
                    turn.is_done = true;
                    break;
                }
                // The kernel rang for what has just been heard, too. What it rings for from now on is found
                // by the next round, or by whoever waits for the bell.
                self.silence();
            }
        }
        self.is_unfinished.set(!turn.is_done);
        turn
    }

    /// Puts orders into the queue. Whether all had a place.
    fn tell(&self, ring: &mut IoUring) -> bool {
        let mut orders = self.orders.borrow_mut();
        let mut places = self.places.borrow_mut();
        let mut queue = ring.submission();
        let room = queue.capacity() - queue.len();
        let count = orders.len().min(room);
        for order in orders.drain(..count) {
            let Some(entry) = entry(&mut places, &order) else {
                continue;
            };
            #[expect(
                unsafe_code,
                reason = "neither a poll nor its end has the kernel use memory of ours"
            )]
            let pushed = unsafe { queue.push(&entry) };
            pushed.expect("there is room for it");
        }
        orders.is_empty()
    }

    /// Takes completions. Whether there was one.
    fn hear(&self, ring: &mut IoUring) -> bool {
        let mut has_heard = false;
        for completion in ring.completion() {
            has_heard = true;
            let waker = self.heard(&completion);
            if let Some(waker) = waker {
                waker.wake();
            }
        }
        has_heard
    }

    /// Notes what a completion says; returns whom to wake.
    fn heard(&self, completion: &cqueue::Entry) -> Option<Waker> {
        let (key, about) = Key::of(completion.user_data());
        let is_over = !cqueue::more(completion.flags());
        let mut places = self.places.borrow_mut();
        // It may have gone meanwhile.
        let place = places.get(key)?;
        match about {
            About::Reads => {
                // An error concerns the poll: the read that is tried now says what became of the socket.
                let flags = u16::try_from(completion.result()).unwrap_or(0);
                place.has_ended |= PollFlags::from_bits_retain(flags).intersects(END);
                place.readable = true;
                if is_over {
                    place.reads = Watch::None;
                }
            }
            About::Writes => place.writes = Watch::None,
            About::Order => return None,
        }
        place.waker.take()
    }

    /// Empties the bell, so that it does not wake the runtime once more.
    fn silence(&self) {
        let mut count = [0; 8];
        let mut parts = [IoSliceMut::new(&mut count)];
        // It has no position, and without a count there is nothing to silence.
        let _ = preadv2(&self.bell, &mut parts, u64::MAX, ReadWriteFlags::NOWAIT);
    }

    /// The bell, for the runtime.
    fn bell(&self) -> io::Result<BufferedFile> {
        let bell = self.bell.try_clone()?;
        #[expect(
            unsafe_code,
            reason = "glommio makes a file of an existing descriptor only so; it is owned and handed over whole"
        )]
        Ok(unsafe { BufferedFile::from_raw_fd(bell.into_raw_fd()) })
    }

    /// Resolves when the kernel is to be told or asked something.
    fn poll_news<F: Future>(
        &self,
        cx: &mut Context<'_>,
        rung: Pin<&mut F>,
    ) -> Poll<Option<F::Output>> {
        if self.is_unfinished.get() || !self.orders.borrow().is_empty() {
            return Poll::Ready(None);
        }
        *self.teller.borrow_mut() = Some(cx.waker().clone());
        rung.poll(cx).map(Some)
    }
}

/// Whether the kernel has to be called: it has something to take, or to tell.
fn is_wanted(ring: &mut IoUring) -> bool {
    let submission = ring.submission();
    !submission.is_empty() || submission.taskrun() || submission.cq_overflow()
}

/// The submission that an order means; `None` if its socket has gone.
fn entry(places: &mut Places, order: &Order) -> Option<squeue::Entry> {
    match *order {
        Order::Watch(key, about) => {
            let place = places.get(key)?;
            let is_read = about == About::Reads;
            let (watch, flags) = if is_read {
                (&mut place.reads, READ)
            } else {
                (&mut place.writes, PollFlags::OUT)
            };
            *watch = Watch::Armed;
            let flags = u32::from(flags.bits());
            let poll = opcode::PollAdd::new(types::Fd(place.socket), flags).multi(is_read);
            Some(poll.build().user_data(key.user_data(about)))
        }
        Order::Forget(poll) => {
            let (key, _) = Key::of(poll);
            // Not a removal of the poll: that fails when something has just come for it.
            let order = opcode::AsyncCancel::new(poll).build();
            Some(order.user_data(key.user_data(About::Order)))
        }
    }
}

/// Carries a shard's orders to the kernel, and what it tells to those who wait. Never ends.
pub(super) async fn run(readiness: Rc<Readiness>) {
    let bell = readiness.bell().expect("a descriptor is free at the start");
    loop {
        let mut rung = pin!(bell.read_at(0, size_of::<u64>()));
        // Orders come often, and the bell is waited for all the while.
        loop {
            let news = std::future::poll_fn(|cx| readiness.poll_news(cx, rung.as_mut())).await;
            if news.is_some() {
                readiness.heard_at.set(Instant::now());
            }
            while !readiness.turn().is_done {
                glommio::timer::sleep(PAUSE).await;
            }
            if let Some(rung) = news {
                rung.expect("an eventfd can be read");
                break;
            }
        }
    }
}

/// A socket that is watched for as long as this lives. The socket must outlive it.
pub(super) struct Watched {
    readiness: Rc<Readiness>,
    key: Key,
}

impl Watched {
    fn with<R>(&self, look: impl FnOnce(&mut Place) -> R) -> R {
        let mut places = self.readiness.places.borrow_mut();
        look(places.get(self.key).expect("only our drop frees it"))
    }

    /// Whether a read may find something; if not, the task is woken when it may.
    pub(super) fn poll_readable(&self, cx: &Context<'_>) -> Poll<()> {
        if self.with(|place| place.readable) {
            return Poll::Ready(());
        }
        self.wait(cx, About::Reads);
        Poll::Pending
    }

    /// Notes that a read found nothing.
    pub(super) fn found_nothing(&self) {
        self.with(|place| place.readable = false);
    }

    /// Notes that a read found less than it had room for: all that was there, unless a client marks bytes as
    /// urgent, which HTTP does not know; it then waits for its own next ones.
    pub(super) fn found_less(&self) {
        let is_exact = self.readiness.is_exact;
        self.with(|place| place.readable = place.has_ended || !is_exact);
    }

    /// Has the task woken when the kernel, which took nothing just now, takes more.
    pub(super) fn wait_for_writable(&self, cx: &Context<'_>) {
        self.wait(cx, About::Writes);
    }

    fn wait(&self, cx: &Context<'_>, about: About) {
        let is_new = self.with(|place| {
            match &mut place.waker {
                Some(known) if known.will_wake(cx.waker()) => {}
                unknown => *unknown = Some(cx.waker().clone()),
            }
            let watch = match about {
                About::Writes => &mut place.writes,
                About::Reads | About::Order => &mut place.reads,
            };
            std::mem::replace(watch, (*watch).max(Watch::Ordered)) == Watch::None
        });
        if is_new {
            self.readiness.order(Order::Watch(self.key, about));
        }
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        let place = self.readiness.places.borrow_mut().remove(self.key);
        for (watch, about) in [(place.reads, About::Reads), (place.writes, About::Writes)] {
            if watch == Watch::Armed {
                let poll = self.key.user_data(about);
                self.readiness.order(Order::Forget(poll));
            }
        }
        // The waker may be the last handle of a task, so it goes after the borrow.
        drop(place);
    }
}
