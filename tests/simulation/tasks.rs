//! A shard's executor: a task is polled only when it was woken, so that a lost wake-up is seen.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Wake, Waker};

use project_yum::hub::Task;

use crate::dice::Dice;

/// More polls without a pause than this is a task that wakes itself for ever.
const POLLS_MAX: usize = 100_000;

#[derive(Default)]
pub(crate) struct Tasks {
    waiting: RefCell<Vec<Entry>>,
}

struct Entry {
    task: Task,
    woken: Arc<Woken>,
}

struct Woken(AtomicBool);

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::Relaxed);
    }
}

impl Tasks {
    pub(crate) fn new() -> Rc<Self> {
        Rc::default()
    }

    pub(crate) fn spawn(&self, task: Task) {
        let woken = Arc::new(Woken(AtomicBool::new(true)));
        self.waiting.borrow_mut().push(Entry { task, woken });
    }

    pub(crate) fn len(&self) -> usize {
        self.waiting.borrow().len()
    }

    /// Throws away what waits: the process has ended.
    pub(crate) fn clear(&self) {
        let tasks = self.waiting.take();
        drop(tasks);
    }

    /// Runs what was woken, in any order, until nothing is.
    pub(crate) fn run(&self, dice: &Dice) {
        for _ in 0..POLLS_MAX {
            let Some(mut entry) = self.take_one(dice) else {
                return;
            };
            entry.woken.0.store(false, Ordering::Relaxed);
            let waker = Waker::from(entry.woken.clone());
            let mut context = Context::from_waker(&waker);
            if entry.task.as_mut().poll(&mut context).is_pending() {
                self.waiting.borrow_mut().push(entry);
            }
        }
        panic!("a task wakes itself for ever");
    }

    fn take_one(&self, dice: &Dice) -> Option<Entry> {
        let mut waiting = self.waiting.borrow_mut();
        let is_woken = |(_, entry): &(usize, &Entry)| entry.woken.0.load(Ordering::Relaxed);
        let woken = waiting.iter().enumerate().filter(is_woken);
        let woken: Vec<usize> = woken.map(|(index, _)| index).collect();
        if woken.is_empty() {
            return None;
        }
        Some(waiting.remove(*dice.pick(&woken)))
    }
}
