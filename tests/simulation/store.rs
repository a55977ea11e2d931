//! A store whose answers come when the dice say, and the truth about what is stored.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::future::poll_fn;
use std::rc::Rc;
use std::task::{Poll, Waker};
use std::time::{Duration, Instant};

use futures_util::FutureExt;
use futures_util::future::LocalBoxFuture;
use project_yum::env::Env;
use project_yum::store::memory::MemoryStore;
use project_yum::store::{Condition, Cursor, Draft, Message, Page, Store, StoreError, Stored};

use crate::dice::Dice;
use crate::plan::Fault;

/// After an answer `Timeout` a message may still be stored for so long. The chat asks a second later.
const STORED_AFTER_TIMEOUT_MS: usize = 800;

type Answer<T> = LocalBoxFuture<'static, Result<T, StoreError>>;

/// One for the world; the shards share it.
pub(crate) struct SimulatedStore {
    env: Rc<Env>,
    dice: Rc<Dice>,
    memory: MemoryStore,
    pub(crate) truth: RefCell<BTreeMap<Box<str>, Vec<Message>>>,
    jobs: RefCell<BTreeMap<(Instant, u64), Job>>,
    count: Cell<u64>,
    /// Everything is refused until then.
    pub(crate) down_until: Cell<Instant>,
    /// Sends are answered slowly, and one in so many thousand not truly.
    pub(crate) slow: Cell<bool>,
    pub(crate) unknown_per_mille: Cell<usize>,
    pub(crate) refused_per_mille: Cell<usize>,
    /// What went wrong, by kind.
    pub(crate) faults: RefCell<BTreeMap<Fault, u64>>,
}

/// Something that happens later. `owner`: the host that asked.
struct Job {
    owner: usize,
    is_commit: bool,
    run: Box<dyn FnOnce()>,
}

/// A place for an answer.
struct Slot<T> {
    value: RefCell<Option<T>>,
    waker: RefCell<Option<Waker>>,
}

impl<T: 'static> Slot<T> {
    fn new() -> Rc<Self> {
        let (value, waker) = (RefCell::new(None), RefCell::new(None));
        Rc::new(Self { value, waker })
    }

    fn put(&self, value: T) {
        *self.value.borrow_mut() = Some(value);
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }

    fn wait(self: Rc<Self>) -> LocalBoxFuture<'static, T> {
        poll_fn(move |context| {
            if let Some(value) = self.value.take() {
                return Poll::Ready(value);
            }
            *self.waker.borrow_mut() = Some(context.waker().clone());
            Poll::Pending
        })
        .boxed_local()
    }
}

fn down() -> StoreError {
    StoreError::Unavailable("the dice say so".into())
}

impl SimulatedStore {
    pub(crate) fn new(env: Rc<Env>, dice: Rc<Dice>) -> Rc<Self> {
        let down_until = Cell::new(env.now());
        Rc::new(Self {
            env,
            dice,
            memory: MemoryStore::default(),
            truth: RefCell::default(),
            jobs: RefCell::default(),
            count: Cell::new(0),
            down_until,
            slow: Cell::new(false),
            unknown_per_mille: Cell::new(0),
            refused_per_mille: Cell::new(0),
            faults: RefCell::default(),
        })
    }

    fn note(&self, fault: Fault) {
        *self.faults.borrow_mut().entry(fault).or_default() += 1;
    }

    /// When something happens next.
    pub(crate) fn next(&self) -> Option<Instant> {
        self.jobs.borrow().keys().next().map(|(at, _)| *at)
    }

    /// A host has crashed: nobody waits for its answers, and some of its statements never arrived.
    pub(crate) fn forget(&self, owner: usize) {
        let dice = self.dice.clone();
        self.jobs
            .borrow_mut()
            .retain(|_, job| job.owner != owner || job.is_commit && dice.chance(500));
    }

    /// Does what is due.
    pub(crate) fn run(&self) {
        let now = self.env.now();
        loop {
            let mut jobs = self.jobs.borrow_mut();
            let Some(job) = jobs.first_entry().filter(|entry| entry.key().0 <= now) else {
                return;
            };
            let job = job.remove();
            drop(jobs);
            (job.run)();
        }
    }

    pub(crate) fn is_idle(&self) -> bool {
        self.jobs.borrow().is_empty()
    }

    pub(crate) fn head(&self, room: &str) -> u64 {
        let truth = self.truth.borrow();
        truth.get(room).map_or(0, |list| list.len() as u64)
    }

    pub(crate) fn message(&self, room: &str, seq: u64) -> Option<Message> {
        let index = usize::try_from(seq.checked_sub(1)?).ok()?;
        self.truth.borrow().get(room)?.get(index).cloned()
    }

    fn at(&self, owner: usize, after: Duration, is_commit: bool, run: impl FnOnce() + 'static) {
        self.count.set(self.count.get() + 1);
        let key = (self.env.now() + after, self.count.get());
        let run = Box::new(run);
        let job = Job {
            owner,
            is_commit,
            run,
        };
        self.jobs.borrow_mut().insert(key, job);
    }

    fn commit(&self, draft: Draft) -> Stored {
        let stored = self.memory.append(draft).now_or_never();
        let stored = stored.expect("memory answers at once");
        let stored = stored.expect("memory has room");
        if stored.fresh {
            let mut truth = self.truth.borrow_mut();
            let list = truth.entry(stored.message.room.clone()).or_default();
            list.push(stored.message.clone());
            assert_eq!(list.len() as u64, stored.message.seq);
        }
        stored
    }

    fn is_down(&self) -> bool {
        self.env.now() < self.down_until.get()
    }

    fn delay(&self) -> Duration {
        if self.slow.get() {
            self.dice.ms(1_600)
        } else {
            self.dice.ms(30)
        }
    }

    fn append(self: &Rc<Self>, owner: usize, draft: Draft) -> Answer<Stored> {
        let slot = Slot::new();
        let store = self.clone();
        let (first, second) = (self.delay(), self.delay());
        let answer = slot.clone();
        if self.slow.get() {
            self.note(Fault::StoreSlow);
        }
        if self.is_down() || self.dice.chance(self.refused_per_mille.get()) {
            self.note(Fault::StoreError);
            self.at(owner, first, false, move || answer.put(Err(down())));
        } else if self.dice.chance(self.unknown_per_mille.get()) {
            self.note(Fault::StoreUnknown);
            if self.dice.chance(500) {
                let late = self.dice.ms(STORED_AFTER_TIMEOUT_MS);
                let at = usize::try_from((first + late).as_millis()).expect("small");
                let commit = move || drop(store.commit(draft));
                self.at(owner, self.dice.ms(at), true, commit);
            }
            let timeout = move || answer.put(Err(StoreError::Timeout));
            self.at(owner, first, false, timeout);
        } else {
            self.at(owner, first, true, move || {
                let stored = store.commit(draft);
                store.at(owner, second, false, move || answer.put(Ok(stored)));
            });
        }
        slot.wait()
    }

    /// Reads what was true at some moment between the question and the answer.
    fn read<T: 'static>(
        self: &Rc<Self>,
        owner: usize,
        read: impl Fn(&Self) -> T + 'static,
    ) -> Answer<T> {
        let slot = Slot::new();
        let (store, answer) = (self.clone(), slot.clone());
        // A slow store reads faster than it writes: its silence is short of what a hub takes for an outage.
        let delay = if self.slow.get() {
            self.delay() / 4
        } else {
            self.delay()
        };
        if self.is_down() || self.dice.chance(self.refused_per_mille.get()) {
            self.note(Fault::StoreError);
            self.at(owner, delay, false, move || answer.put(Err(down())));
        } else if self.dice.chance(self.unknown_per_mille.get()) {
            self.note(Fault::StoreUnknown);
            let timeout = move || answer.put(Err(StoreError::Timeout));
            self.at(owner, delay, false, timeout);
        } else if self.dice.chance(500) {
            let value = read(self);
            self.at(owner, delay, false, move || answer.put(Ok(value)));
        } else {
            self.at(owner, delay, false, move || answer.put(Ok(read(&store))));
        }
        slot.wait()
    }
}

/// A host's handle.
pub(crate) struct Handle {
    pub(crate) store: Rc<SimulatedStore>,
    pub(crate) owner: usize,
}

impl Store for Handle {
    fn append(&self, draft: Draft) -> Answer<Stored> {
        self.store.append(self.owner, draft)
    }

    fn history(&self, room: &str, cursor: Cursor, limit: usize) -> Answer<Page> {
        let room = room.to_owned();
        self.store.read(self.owner, move |store| {
            let page = store.memory.history(&room, cursor, limit).now_or_never();
            page.expect("memory answers at once").expect("memory reads")
        })
    }

    fn heads(&self, rooms: Vec<Box<str>>) -> Answer<Vec<u64>> {
        self.store.read(self.owner, move |store| {
            rooms.iter().map(|room| store.head(room)).collect()
        })
    }

    fn condition(&self) -> Condition {
        Condition::Ok
    }

    fn kind(&self) -> &'static str {
        "simulated"
    }
}
