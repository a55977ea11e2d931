//! Drops the news that a user entered or left a room when newer news has been seen.
//!
//! Two shards may publish about one user at the same time, and a bus may swap them: a late `userLeft`
//! must not undo a newer join. What is remembered is bounded in number and age.

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

use crate::wire::Text;

/// Users and rooms remembered.
const ENTRIES_MAX: usize = 10_000;
/// How long one is remembered.
const AGE_MAX: Duration = Duration::from_secs(10);

type Name = (Text, Text, Text);

/// The newest version seen of each user in each room.
#[derive(Debug, Default)]
pub(super) struct Newest {
    versions: BTreeMap<Name, u64>,
    /// In the order in which they were seen.
    seen: VecDeque<(Instant, Name, u64)>,
}

impl Newest {
    /// Whether news about a user is newer than all that was seen; it is remembered then.
    pub(super) fn accept(&mut self, now: Instant, name: Name, version: u64) -> bool {
        self.forget_old(now);
        if self
            .versions
            .get(&name)
            .is_some_and(|seen| *seen >= version)
        {
            return false;
        }
        self.versions.insert(name.clone(), version);
        self.seen.push_back((now, name, version));
        true
    }

    fn forget_old(&mut self, now: Instant) {
        while let Some((at, ..)) = self.seen.front() {
            if self.seen.len() < ENTRIES_MAX && now.saturating_duration_since(*at) < AGE_MAX {
                break;
            }
            let (_, name, version) = self.seen.pop_front().expect("there is a front");
            if self.versions.get(&name) == Some(&version) {
                self.versions.remove(&name);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(user: &str) -> Name {
        ("/".into(), "room".into(), user.into())
    }

    #[test]
    fn drops_what_is_older_than_what_was_seen() {
        let (now, mut newest) = (Instant::now(), Newest::default());
        assert!(newest.accept(now, name("ada"), 5));
        assert!(!newest.accept(now, name("ada"), 4));
        assert!(!newest.accept(now, name("ada"), 5));
        assert!(newest.accept(now, name("bob"), 4));
        assert!(newest.accept(now, name("ada"), 6));
    }

    #[test]
    fn forgets_by_age_and_number() {
        let (now, mut newest) = (Instant::now(), Newest::default());
        assert!(newest.accept(now, name("ada"), 5));
        assert!(newest.accept(now + AGE_MAX, name("ada"), 4));
        for version in 0..2 * ENTRIES_MAX {
            newest.accept(now, name(&version.to_string()), 1);
        }
        assert!(newest.versions.len() <= ENTRIES_MAX);
        assert!(newest.seen.len() <= ENTRIES_MAX);
    }
}
