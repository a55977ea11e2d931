//! Drops the broadcasts of a node that came already, by another way of the bus.
//!
//! Every node counts its broadcasts. Of each node the last 4,096 counts are remembered, one bit each;
//! what lies below them counts as seen. The number of nodes is bounded: the one that has been silent
//! longest is forgotten. Pure.

use std::collections::BTreeMap;

use super::broadcast::Origin;
use crate::wire::Text;

/// Counts remembered of one node.
const COUNTS: u64 = 4_096;
/// Nodes remembered.
const NODES_MAX: usize = 1_024;
const WORDS: usize = 64;

/// What has been seen of each node.
#[derive(Debug, Default)]
pub(super) struct Windows {
    nodes: BTreeMap<Text, Window>,
    /// Grows with each call: how long ago a node was heard is measured in broadcasts.
    heard: u64,
}

#[derive(Debug)]
struct Window {
    /// The greatest count seen.
    top: u64,
    /// A bit for each of the last counts.
    seen: Box<[u64; WORDS]>,
    heard: u64,
}

impl Windows {
    /// Whether a node has to be forgotten for this broadcast's.
    pub(super) fn is_full_for(&self, origin: &Origin) -> bool {
        self.nodes.len() >= NODES_MAX && !self.nodes.contains_key(&origin.uid)
    }

    /// Whether a broadcast is seen for the first time. It is remembered then.
    pub(super) fn accept(&mut self, origin: &Origin) -> bool {
        self.heard += 1;
        let heard = self.heard;
        if let Some(window) = self.nodes.get_mut(&origin.uid) {
            window.heard = heard;
            return window.accept(origin.count);
        }
        if self.nodes.len() >= NODES_MAX {
            let oldest = self.nodes.iter().min_by_key(|(_, window)| window.heard);
            let oldest = oldest.map(|(uid, _)| uid.clone());
            oldest.map(|uid| self.nodes.remove(&uid));
        }
        let mut window = Window {
            top: origin.count,
            seen: Box::new([0; WORDS]),
            heard,
        };
        window.mark(origin.count);
        // Its own memory: the uid lies in the message that brought it.
        self.nodes.insert(Text::from(&*origin.uid), window);
        true
    }
}

impl Window {
    fn accept(&mut self, count: u64) -> bool {
        if count > self.top {
            if count - self.top >= COUNTS {
                self.seen.fill(0);
            } else {
                for passed in self.top + 1..=count {
                    let (word, bit) = place(passed);
                    self.seen[word] &= !bit;
                }
            }
            self.top = count;
        } else if self.top - count >= COUNTS {
            return false;
        }
        self.mark(count)
    }

    /// Notes a count; `false`: it is noted already.
    fn mark(&mut self, count: u64) -> bool {
        let (word, bit) = place(count);
        let is_new = self.seen[word] & bit == 0;
        self.seen[word] |= bit;
        is_new
    }
}

/// The word and the bit of a count.
fn place(count: u64) -> (usize, u64) {
    let at = count % COUNTS;
    let word = usize::try_from(at / 64).expect("there are 64 words");
    (word, 1 << (at % 64))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    fn accept(windows: &mut Windows, uid: &str, count: u64) -> bool {
        let uid = uid.into();
        windows.accept(&Origin { uid, count })
    }

    #[test]
    fn takes_each_count_of_each_node_once() {
        let mut windows = Windows::default();
        assert!(accept(&mut windows, "a", 5));
        assert!(!accept(&mut windows, "a", 5));
        assert!(accept(&mut windows, "b", 5));
        assert!(accept(&mut windows, "a", 7));
        assert!(accept(&mut windows, "a", 6), "overtaken, not lost");
        assert!(!accept(&mut windows, "a", 7));
    }

    #[test]
    fn what_lies_below_the_window_counts_as_seen() {
        let mut windows = Windows::default();
        assert!(accept(&mut windows, "a", 10_000));
        assert!(!accept(&mut windows, "a", 10_000 - COUNTS));
        assert!(accept(&mut windows, "a", 10_001 - COUNTS));
        assert!(accept(&mut windows, "a", 1_000_000));
        assert!(accept(&mut windows, "a", 999_999));
    }

    #[test]
    fn forgets_the_node_that_was_silent_longest() {
        let mut windows = Windows::default();
        assert!(accept(&mut windows, "kept", 1));
        for node in 0..2 * NODES_MAX {
            assert!(accept(&mut windows, &node.to_string(), 1));
            assert!(!accept(&mut windows, "kept", 1));
        }
        assert_eq!(windows.nodes.len(), NODES_MAX);
        assert!(accept(&mut windows, "0", 1));
    }

    proptest! {
        #[test]
        fn never_takes_a_count_twice_and_never_drops_a_new_one(
            counts in prop::collection::vec(0..COUNTS, 1..200)
        ) {
            let (mut windows, mut seen) = (Windows::default(), BTreeSet::new());
            for count in counts {
                prop_assert_eq!(accept(&mut windows, "a", count), seen.insert(count));
            }
        }
    }
}
