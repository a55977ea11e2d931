//! Heads that are owed: rooms with a message that could not be sent to whoever needs it. Pure.

use std::collections::BTreeMap;

use crate::hub::envelope::Head;
use crate::wire::Text;

/// Rooms named; more means all rooms.
const OWED_MAX: usize = 1_000;

/// The newest numbers that did not get through, by room.
#[derive(Debug, Default)]
pub(super) struct OwedHeads {
    heads: BTreeMap<(Text, Text), u64>,
    /// There were too many to name.
    all: bool,
}

/// What to tell.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Notice {
    /// These rooms have these numbers.
    Heads(Vec<Head>),
    /// Any room may have more.
    All,
}

impl OwedHeads {
    pub(super) fn is_empty(&self) -> bool {
        self.heads.is_empty() && !self.all
    }

    /// A message of this number did not get through.
    pub(super) fn owe(&mut self, namespace: &Text, room: &Text, seq: u64) {
        if self.all {
            return;
        }
        let head = self.heads.entry((namespace.clone(), room.clone()));
        let head = head.or_default();
        *head = seq.max(*head);
        if self.heads.len() > OWED_MAX {
            self.owe_all();
        }
    }

    /// What was told may not have got through.
    pub(super) fn owe_again(&mut self, notice: Notice) {
        match notice {
            Notice::All => self.owe_all(),
            Notice::Heads(heads) => {
                for head in heads {
                    self.owe(&head.namespace, &head.room, head.seq);
                }
            }
        }
    }

    fn owe_all(&mut self) {
        self.heads.clear();
        self.all = true;
    }

    /// What to tell now, all of it; `None`: nothing is owed.
    pub(super) fn notice(&self) -> Option<Notice> {
        if self.all {
            return Some(Notice::All);
        }
        let heads = self.heads.iter().map(|((namespace, room), seq)| Head {
            namespace: namespace.clone(),
            room: room.clone(),
            seq: *seq,
        });
        (!self.heads.is_empty()).then(|| Notice::Heads(heads.collect()))
    }

    /// It is told.
    pub(super) fn clear(&mut self) {
        self.heads.clear();
        self.all = false;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keeps_the_newest_number_of_each_room_and_then_all_rooms() {
        let mut owed = OwedHeads::default();
        assert_eq!(owed.notice(), None);
        for seq in [3, 5, 4] {
            owed.owe(&"/".into(), &"a".into(), seq);
        }
        let head = |room: &str, seq| Head {
            namespace: "/".into(),
            room: room.into(),
            seq,
        };
        assert_eq!(owed.notice(), Some(Notice::Heads(vec![head("a", 5)])));
        let told = owed.notice().unwrap();
        owed.clear();
        assert!(owed.is_empty());
        owed.owe(&"/".into(), &"b".into(), 1);
        owed.owe_again(told);
        assert_eq!(
            owed.notice(),
            Some(Notice::Heads(vec![head("a", 5), head("b", 1)]))
        );
        for room in 0..OWED_MAX {
            owed.owe(&"/".into(), &room.to_string().into(), 1);
        }
        assert_eq!(owed.notice(), Some(Notice::All));
        owed.owe(&"/".into(), &"c".into(), 1);
        owed.clear();
        assert!(owed.is_empty());
    }
}
