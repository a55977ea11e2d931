//! Which connection is which member of which room. Pure.

/// Rooms, their members, and the connections that these are spread over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Seats {
    pub(super) rooms: usize,
    pub(super) members: usize,
    /// Users, a connection each.
    pub(super) users: usize,
}

impl Seats {
    /// `users`: over how many the members are spread, of which a room takes each once at most. `None`:
    /// every member is another user.
    pub(super) fn new(rooms: usize, members: usize, users: Option<usize>) -> Self {
        let seats = rooms * members;
        Self {
            rooms,
            members,
            users: users.map_or(seats, |users| users.clamp(members, seats.max(members))),
        }
    }

    /// The user on a seat. The seats are dealt in turn, each time around with another step between the
    /// members of a room, so that two users seldom share more than one room.
    pub(super) fn user(self, room: usize, member: usize) -> usize {
        let seat = room * self.members + member;
        if self.users == self.rooms * self.members {
            return seat;
        }
        let steps = ((self.users - 1) / self.members.max(2).saturating_sub(1)).max(1);
        let step = 1 + (room / self.users) % steps;
        (room + member * step) % self.users
    }

    /// Which member of a room a user is.
    pub(super) fn member(self, room: usize, user: usize) -> Option<usize> {
        if self.users == self.rooms * self.members {
            let member = user.checked_sub(room * self.members);
            return member.filter(|member| *member < self.members);
        }
        (0..self.members).find(|member| self.user(room, *member) == user)
    }

    /// The rooms of all users.
    pub(super) fn rooms_by_user(self) -> Vec<Vec<usize>> {
        let mut rooms = vec![Vec::new(); self.users];
        for room in 0..self.rooms {
            for member in 0..self.members {
                rooms[self.user(room, member)].push(room);
            }
        }
        rooms
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn own_connections_are_dealt_room_by_room() {
        let seats = Seats::new(3, 2, None);
        assert_eq!(seats.users, 6);
        assert_eq!(seats.rooms_by_user(), [[0], [0], [1], [1], [2], [2]]);
        assert_eq!(seats.member(1, 3), Some(1));
        assert_eq!(seats.member(1, 0), None);
    }

    #[test]
    fn shared_ones_have_as_many_rooms_each_and_no_room_twice() {
        for (rooms, members, users) in [(100_000, 2, 400), (1_000, 5, 100), (10, 2, 400), (7, 3, 3)]
        {
            let seats = Seats::new(rooms, members, Some(users));
            for room in (0..rooms).step_by(97) {
                let of: BTreeSet<_> = (0..members).map(|m| seats.user(room, m)).collect();
                assert_eq!(of.len(), members, "room {room} of {seats:?}");
                assert!((0..members).all(|m| seats.member(room, seats.user(room, m)) == Some(m)));
            }
            let counts = seats.rooms_by_user();
            let (least, most) = (
                counts.iter().map(Vec::len).min(),
                counts.iter().map(Vec::len).max(),
            );
            assert!(
                most.unwrap() - least.unwrap() <= members,
                "{seats:?}: {least:?} to {most:?}"
            );
            assert_eq!(counts.iter().map(Vec::len).sum::<usize>(), rooms * members);
        }
    }
}
