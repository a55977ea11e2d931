//! What the chat keeps with a socket: whose it is, until when, and which rooms it is in.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;

use crate::auth::User;
use crate::bus::usage::Usage;
use crate::sorted::SortedMap;

/// A connected socket's user and rooms.
pub(super) struct Member {
    user: RefCell<Rc<User>>,
    expires_wall_ms: Cell<u64>,
    rooms: RefCell<SortedMap<Box<str>, Coverage>>,
    /// What the user has used up; there from the CONNECT's answer to the disconnect.
    usage: RefCell<Option<Arc<Usage>>>,
}

/// From where on a socket has been sent everything of a room: all messages above this `seq`.
/// `None`: not known, because the store was silent when it joined.
pub(super) type Coverage = Option<u64>;

impl Member {
    pub(super) fn new(user: User, now_wall_ms: u64) -> Self {
        Self {
            expires_wall_ms: Cell::new(end_of(&user, now_wall_ms)),
            user: RefCell::new(Rc::new(user)),
            rooms: RefCell::default(),
            usage: RefCell::default(),
        }
    }

    pub(super) fn user(&self) -> Rc<User> {
        self.user.borrow().clone()
    }

    /// Puts a fresh token in the place of the old one.
    pub(super) fn renew(&self, user: User, now_wall_ms: u64) {
        self.expires_wall_ms.set(end_of(&user, now_wall_ms));
        *self.user.borrow_mut() = Rc::new(user);
    }

    /// When the socket is ended unless a fresh token comes.
    pub(super) fn expires_wall_ms(&self) -> u64 {
        self.expires_wall_ms.get()
    }

    pub(super) fn set_usage(&self, usage: Arc<Usage>) {
        *self.usage.borrow_mut() = Some(usage);
    }

    pub(super) fn usage(&self) -> Option<Arc<Usage>> {
        self.usage.borrow().clone()
    }

    pub(super) fn take_usage(&self) -> Option<Arc<Usage>> {
        self.usage.borrow_mut().take()
    }

    /// From where on the room is covered, if the socket is in it.
    pub(super) fn coverage(&self, room: &str) -> Option<Coverage> {
        self.rooms.borrow().get(room).copied()
    }

    pub(super) fn is_in(&self, room: &str) -> bool {
        self.rooms.borrow().contains_key(room)
    }

    pub(super) fn rooms(&self) -> usize {
        self.rooms.borrow().len()
    }

    pub(super) fn enter(&self, room: &str, coverage: Coverage) {
        self.rooms.borrow_mut().insert(room.into(), coverage);
    }

    /// Whether the socket was in the room.
    pub(super) fn leave(&self, room: &str) -> bool {
        self.rooms.borrow_mut().remove(room).is_some()
    }

    /// All rooms, out of which it goes.
    pub(super) fn take_rooms(&self) -> Vec<Box<str>> {
        let rooms = std::mem::take(&mut *self.rooms.borrow_mut());
        rooms.into_keys().collect()
    }
}

/// A token ends at `exp`. One that was taken after that, thanks to the leeway, ends with the leeway.
fn end_of(user: &User, now_wall_ms: u64) -> u64 {
    if now_wall_ms < user.expires_wall_ms {
        user.expires_wall_ms
    } else {
        user.refused_wall_ms
    }
}
