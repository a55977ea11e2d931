//! Who is in which room, on this shard.
//!
//! Both directions are kept, because a leaving socket must find its rooms and a broadcast its sockets.
//! They change only together, in `join`, `leave` and `remove`. A session has one socket in a namespace
//! at most, so within a namespace its key names the socket: a member costs its key in an ordered set,
//! and a fan-out goes in the order of the keys. Nothing here waits, sends, or knows what a room is for.

use std::collections::BTreeMap;
use std::rc::Rc;

use super::SocketId;
use super::broadcast::{RoomKey, Target};
use crate::engine::Key;
use crate::hashed::HashedMap;
use crate::planted::{self, Defect};
use crate::sorted::SortedSet;
use crate::wire::Text;
use crate::wire::engine_io::Encoded;

/// What a packet that is held back counts beside its bytes, as in an outbox.
const PACKET_OVERHEAD: usize = 64;

/// The rooms of all namespaces.
#[derive(Debug, Default)]
pub(super) struct Rooms {
    namespaces: BTreeMap<Text, Namespace>,
    gates: BTreeMap<(Key, u64), Gate>,
    gate_count: u64,
    room_count: usize,
}

#[derive(Debug, Default)]
struct Namespace {
    rooms: HashedMap<Rc<str>, SortedSet<Key>>,
    seats: BTreeMap<Key, Seat>,
    keys: BTreeMap<SocketId, Key>,
    /// The next acknowledgement id.
    next_ack: u64,
}

#[derive(Debug)]
struct Seat {
    id: SocketId,
    /// Their names, shared with the namespace's table.
    rooms: SortedSet<Rc<str>>,
}

/// Holds back what a room sends to one socket.
#[derive(Debug)]
struct Gate {
    namespace: Text,
    room: Text,
    held: Vec<HeldBack>,
    bytes: usize,
    /// Numbered packets were forgotten, and are not held until somebody takes note of it.
    has_forgotten: bool,
}

#[derive(Debug)]
struct HeldBack {
    packet: Encoded,
    /// It is a part of the room's order, and can be read again.
    is_numbered: bool,
}

impl HeldBack {
    fn bytes(&self) -> usize {
        self.packet.frame().len() + PACKET_OVERHEAD
    }
}

/// What an opened gate had held back.
#[derive(Debug, Default)]
pub(super) struct Opened {
    pub(super) packets: Vec<Encoded>,
    /// Numbered packets are missing.
    pub(super) has_forgotten: bool,
}

/// What a join changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Entered {
    /// It was in the room before.
    pub(super) already: bool,
    /// The room had no member here.
    pub(super) first: bool,
}

/// What a leave changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Left {
    /// It was in the room.
    pub(super) was_in: bool,
    /// The room has no member here any more.
    pub(super) last: bool,
}

/// A socket that is gone.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Removed {
    /// The rooms it was in.
    pub(super) rooms: Vec<Text>,
    /// Those of them that have no member here any more.
    pub(super) emptied: Vec<Text>,
}

impl Rooms {
    /// The rooms of a namespace that have members here, and those that its sockets have to themselves.
    pub(super) fn names(&self, namespace: &str) -> Vec<Text> {
        let Some(entry) = self.namespaces.get(namespace) else {
            return Vec::new();
        };
        let private = entry.keys.keys().map(|id| Text::from(id.as_str()));
        let named = entry.rooms.keys().map(|name| Text::from(&**name));
        named.chain(private).collect()
    }

    /// How many rooms have members here.
    pub(super) fn count(&self) -> usize {
        self.room_count
    }

    /// A socket connected.
    pub(super) fn add(&mut self, namespace: &Text, key: Key, id: SocketId) {
        let entry = self.namespaces.entry(namespace.clone()).or_default();
        entry.keys.insert(id, key);
        let rooms = SortedSet::default();
        entry.seats.insert(key, Seat { id, rooms });
    }

    /// A socket disconnected: it is in no room, and nothing is held back for it.
    pub(super) fn remove(&mut self, namespace: &str, key: Key) -> Removed {
        self.gates
            .retain(|(of, _), gate| *of != key || &*gate.namespace != namespace);
        let Some(entry) = self.namespaces.get_mut(namespace) else {
            return Removed::default();
        };
        let Some(seat) = entry.seats.remove(&key) else {
            return Removed::default();
        };
        entry.keys.remove(&seat.id);
        let rooms = seat.names();
        let emptied: Vec<Text> = rooms
            .iter()
            .filter(|room| take_out(&mut entry.rooms, room, key))
            .cloned()
            .collect();
        self.room_count -= emptied.len();
        if entry.seats.is_empty() {
            self.namespaces.remove(namespace);
        }
        Removed { rooms, emptied }
    }

    /// A socket joins. `None`: it is not connected.
    pub(super) fn join(&mut self, namespace: &str, key: Key, room: &Text) -> Option<Entered> {
        let entry = self.namespaces.get_mut(namespace)?;
        let seat = entry.seats.get_mut(&key)?;
        if seat.rooms.contains(&**room) {
            let (already, first) = (true, false);
            return Some(Entered { already, first });
        }
        let known = entry.rooms.key(&**room);
        let name = known.map_or_else(|| Rc::from(&**room), Rc::clone);
        seat.rooms.insert(Rc::clone(&name));
        let members = entry.rooms.or_default(name);
        let first = members.is_empty();
        members.insert(key);
        self.room_count += usize::from(first);
        let already = false;
        Some(Entered { already, first })
    }

    /// A socket leaves; what is held back for it goes too.
    pub(super) fn leave(&mut self, namespace: &str, key: Key, room: &str) -> Left {
        self.gates.retain(|(of, _), gate| {
            *of != key || &*gate.namespace != namespace || &*gate.room != room
        });
        let entry = self.namespaces.get_mut(namespace);
        let left = entry.and_then(|entry| {
            let was_in = entry.seats.get_mut(&key)?.rooms.remove(room);
            let last = was_in && take_out(&mut entry.rooms, room, key);
            Some(Left { was_in, last })
        });
        let left = left.unwrap_or(Left {
            was_in: false,
            last: false,
        });
        self.room_count -= usize::from(left.last);
        left
    }

    /// Whether a socket is in a room.
    pub(super) fn is_in(&self, namespace: &str, key: Key, room: &str) -> bool {
        let seat = self.seat(namespace, key);
        seat.is_some_and(|seat| seat.rooms.contains(room))
    }

    /// The rooms of a socket.
    pub(super) fn of(&self, namespace: &str, key: Key) -> Vec<Text> {
        let seat = self.seat(namespace, key);
        seat.map_or_else(Vec::new, Seat::names)
    }

    fn seat(&self, namespace: &str, key: Key) -> Option<&Seat> {
        self.namespaces.get(namespace)?.seats.get(&key)
    }

    /// The session of a socket.
    pub(super) fn key(&self, namespace: &str, id: &SocketId) -> Option<Key> {
        self.namespaces.get(namespace)?.keys.get(id).copied()
    }

    /// The next acknowledgement id of a namespace. Any will do where nobody is.
    pub(super) fn next_ack(&mut self, namespace: &str) -> u64 {
        let Some(entry) = self.namespaces.get_mut(namespace) else {
            return 0;
        };
        entry.next_ack += 1;
        entry.next_ack - 1
    }

    /// Puts the sockets that a target means into `keys`, each once, in order.
    pub(super) fn select(&self, target: &Target, keys: &mut Vec<Key>) {
        let Some(entry) = self.namespaces.get(&*target.namespace) else {
            return;
        };
        match &*target.rooms {
            [] => keys.extend(entry.seats.keys()),
            [RoomKey::Private(id)] => keys.extend(entry.keys.get(id)),
            [RoomKey::Named(room)] => keys.extend(entry.of(room)),
            rooms => {
                keys.extend(rooms.iter().flat_map(|room| entry.members(room)));
                keys.sort_unstable();
                keys.dedup();
            }
        }
        if !target.except.is_empty() {
            keys.retain(|key| !target.except.iter().any(|room| entry.has(room, *key)));
        }
    }

    /// Holds back what `room` sends to a socket, until the gate of the number returned opens.
    pub(super) fn shut_gate(&mut self, namespace: &Text, key: Key, room: &Text) -> u64 {
        self.gate_count += 1;
        let gate = Gate {
            namespace: namespace.clone(),
            room: room.clone(),
            held: Vec::new(),
            bytes: 0,
            has_forgotten: false,
        };
        if !planted::has(Defect::LiveBeforeReplay) {
            self.gates.insert((key, self.gate_count), gate);
        }
        self.gate_count
    }

    /// Opens a gate. Returns what was held back.
    pub(super) fn open_gate(&mut self, key: Key, number: u64) -> Opened {
        let Some(gate) = self.gates.remove(&(key, number)) else {
            return Opened::default();
        };
        Opened {
            packets: gate.held.into_iter().map(|held| held.packet).collect(),
            has_forgotten: gate.has_forgotten,
        }
    }

    /// All numbered packets until now will be read from elsewhere: forgets those that a gate has held,
    /// and holds what follows.
    pub(super) fn pass_gate(&mut self, key: Key, number: u64) {
        if let Some(gate) = self.gates.get_mut(&(key, number)) {
            gate.forget_numbered();
            gate.has_forgotten = false;
        }
    }

    /// Whether numbered packets that a gate should have held were forgotten.
    pub(super) fn has_forgotten(&self, key: Key, number: u64) -> bool {
        let gate = self.gates.get(&(key, number));
        gate.is_some_and(|gate| gate.has_forgotten)
    }

    /// Whether anything is held back for anybody.
    pub(super) fn has_gates(&self) -> bool {
        !self.gates.is_empty()
    }

    /// Holds packets back if a gate of the socket says so. Above `bytes_max` the numbered ones are
    /// forgotten, because they can be read again. `Some`: so many bytes are held now.
    pub(super) fn hold(
        &mut self,
        target: &Target,
        key: Key,
        packets: &[Encoded],
        is_numbered: bool,
        bytes_max: usize,
    ) -> Option<usize> {
        let mut gates = self.gates.range_mut((key, 0)..=(key, u64::MAX));
        let (_, gate) = gates.find(|(_, gate)| {
            let is_room =
                |room: &RoomKey| matches!(room, RoomKey::Named(name) if *name == gate.room);
            gate.namespace == target.namespace && target.rooms.iter().any(is_room)
        })?;
        if is_numbered && gate.has_forgotten {
            return Some(gate.bytes);
        }
        for packet in packets {
            let packet = packet.clone();
            let held = HeldBack {
                packet,
                is_numbered,
            };
            gate.bytes += held.bytes();
            gate.held.push(held);
        }
        if gate.bytes > bytes_max {
            gate.has_forgotten |= gate.forget_numbered();
        }
        Some(gate.bytes)
    }
}

impl Gate {
    /// Whether there were any.
    fn forget_numbered(&mut self) -> bool {
        let before = self.held.len();
        self.held.retain(|held| !held.is_numbered);
        self.bytes = self.held.iter().map(HeldBack::bytes).sum();
        self.held.len() < before
    }
}

impl Seat {
    /// The names of its rooms.
    fn names(&self) -> Vec<Text> {
        self.rooms.iter().map(|name| Text::from(&**name)).collect()
    }
}

impl Namespace {
    /// The members of a room that sockets join.
    fn of<'a>(&'a self, room: &str) -> impl Iterator<Item = &'a Key> + use<'a> {
        self.rooms.get(room).into_iter().flat_map(SortedSet::iter)
    }

    fn members(&self, room: &RoomKey) -> Box<dyn Iterator<Item = Key> + '_> {
        match room {
            RoomKey::Private(id) => Box::new(self.keys.get(id).copied().into_iter()),
            RoomKey::Named(room) => Box::new(self.of(room).copied()),
        }
    }

    fn has(&self, room: &RoomKey, key: Key) -> bool {
        match room {
            RoomKey::Private(id) => self.keys.get(id) == Some(&key),
            RoomKey::Named(room) => self
                .rooms
                .get(&**room)
                .is_some_and(|members| members.contains(&key)),
        }
    }
}

/// Takes a member out of a room; `true`: the room is empty now, and gone.
fn take_out(rooms: &mut HashedMap<Rc<str>, SortedSet<Key>>, room: &str, key: Key) -> bool {
    let Some(members) = rooms.get_mut(room) else {
        return false;
    };
    members.remove(&key);
    let is_empty = members.is_empty();
    if is_empty {
        rooms.remove(room);
    }
    is_empty
}

#[cfg(test)]
mod tests {
    use super::*;

    const NAMESPACE: &str = "/";

    fn key(index: u32) -> Key {
        Key {
            index,
            generation: 0,
        }
    }

    fn id(index: u32) -> SocketId {
        SocketId::new(0, 0, [u8::try_from(index).unwrap(); 12])
    }

    fn rooms(members: &[(u32, &str)]) -> Rooms {
        let mut rooms = Rooms::default();
        for index in 0..6 {
            rooms.add(&NAMESPACE.into(), key(index), id(index));
        }
        for (index, room) in members {
            rooms.join(NAMESPACE, key(*index), &(*room).into()).unwrap();
        }
        rooms
    }

    fn named(name: &str) -> RoomKey {
        RoomKey::Named(name.into())
    }

    fn select(rooms: &Rooms, of: &[RoomKey], except: &[RoomKey]) -> Vec<u32> {
        let target = Target {
            namespace: NAMESPACE.into(),
            rooms: of.to_vec(),
            except: except.to_vec(),
        };
        let mut keys = Vec::new();
        rooms.select(&target, &mut keys);
        keys.iter().map(|key| key.index).collect()
    }

    #[test]
    fn selects_unions_once_and_leaves_out_exceptions() {
        let rooms = rooms(&[(1, "a"), (2, "a"), (2, "b"), (3, "b"), (4, "c")]);
        assert_eq!(select(&rooms, &[named("a")], &[]), [1, 2]);
        assert_eq!(select(&rooms, &[named("b"), named("a")], &[]), [1, 2, 3]);
        assert_eq!(select(&rooms, &[], &[named("a")]), [0, 3, 4, 5]);
        assert_eq!(
            select(&rooms, &[named("b")], &[RoomKey::Private(id(2))]),
            [3]
        );
        assert_eq!(
            select(&rooms, &[RoomKey::Private(id(5)), named("c")], &[]),
            [4, 5]
        );
        assert!(select(&rooms, &[named("nobody")], &[]).is_empty());
    }

    #[test]
    fn a_room_named_like_a_socket_is_another_room() {
        let name = id(1).to_string();
        let rooms = rooms(&[(2, &name)]);
        assert_eq!(select(&rooms, &[RoomKey::Private(id(1))], &[]), [1]);
        assert_eq!(select(&rooms, &[named(&name)], &[]), [2]);
    }

    #[test]
    fn says_who_was_first_and_last() {
        let mut rooms = rooms(&[]);
        let mut join = |index| rooms.join(NAMESPACE, key(index), &"a".into()).unwrap();
        let (first, second, again) = (join(1), join(2), join(1));
        assert!(first.first && !second.first && again.already);
        assert!(!rooms.leave(NAMESPACE, key(1), "a").last);
        assert!(!rooms.leave(NAMESPACE, key(1), "a").was_in);
        assert!(rooms.leave(NAMESPACE, key(2), "a").last);
        assert_eq!(rooms.count(), 0);
        assert!(rooms.join(NAMESPACE, key(9), &"a".into()).is_none());
    }

    #[test]
    fn a_removed_socket_leaves_nothing_behind() {
        let mut rooms = rooms(&[(1, "a"), (1, "b"), (2, "b")]);
        rooms.shut_gate(&NAMESPACE.into(), key(1), &"a".into());
        let removed = rooms.remove(NAMESPACE, key(1));
        assert_eq!(removed.rooms, ["a".into(), "b".into()]);
        assert_eq!(removed.emptied, ["a".into()]);
        assert!(!rooms.has_gates());
        assert_eq!(rooms.remove(NAMESPACE, key(1)), Removed::default());
        for index in [0, 2, 3, 4, 5] {
            rooms.remove(NAMESPACE, key(index));
        }
        assert_eq!(rooms.count(), 0);
        assert!(rooms.namespaces.is_empty());
    }

    #[test]
    fn a_gate_holds_back_its_room_alone() {
        let mut rooms = rooms(&[(1, "a"), (1, "b")]);
        let number = rooms.shut_gate(&NAMESPACE.into(), key(1), &"a".into());
        let packet = Encoded::text('4', "x");
        let target = |room: &str| Target {
            namespace: NAMESPACE.into(),
            rooms: vec![named(room)],
            except: vec![],
        };
        let packets = std::slice::from_ref(&packet);
        let hold = |rooms: &mut Rooms, room: &str, of: u32| {
            rooms.hold(&target(room), key(of), packets, true, 1_000)
        };
        assert_eq!(hold(&mut rooms, "b", 1), None);
        assert_eq!(hold(&mut rooms, "a", 2), None);
        assert_eq!(hold(&mut rooms, "a", 1), Some(4 + 64));
        assert_eq!(hold(&mut rooms, "a", 1), Some(2 * (4 + 64)));
        let opened = rooms.open_gate(key(1), number);
        assert_eq!((opened.packets.len(), opened.has_forgotten), (2, false));
        assert_eq!(hold(&mut rooms, "a", 1), None);
    }

    #[test]
    fn a_full_gate_forgets_what_can_be_read_again() {
        let mut rooms = rooms(&[(1, "a")]);
        let number = rooms.shut_gate(&NAMESPACE.into(), key(1), &"a".into());
        let target = Target {
            namespace: NAMESPACE.into(),
            rooms: vec![named("a")],
            except: vec![],
        };
        let packet = Encoded::text('4', "x");
        let hold = |rooms: &mut Rooms, is_numbered| {
            let packets = std::slice::from_ref(&packet);
            rooms.hold(&target, key(1), packets, is_numbered, 3 * 68)
        };
        let waiting =
            [true, false, true, true, true, false].map(|is_numbered| hold(&mut rooms, is_numbered));
        assert_eq!(
            waiting,
            [1, 2, 3, 1, 1, 2].map(|packets| Some(packets * 68))
        );
        assert!(rooms.has_forgotten(key(1), number));
        rooms.pass_gate(key(1), number);
        assert!(!rooms.has_forgotten(key(1), number));
        assert_eq!(hold(&mut rooms, true), Some(3 * 68));
        rooms.pass_gate(key(1), number);
        assert_eq!(hold(&mut rooms, true), Some(3 * 68));
        let opened = rooms.open_gate(key(1), number);
        assert_eq!((opened.packets.len(), opened.has_forgotten), (3, false));
    }
}
