//! Drops the news that a user entered or left a room when newer news has been seen.
//!
//! Two shards may publish about one user at the same time, and a bus may swap them: a late `userLeft`
//! must not undo a newer join. What was dropped so takes its counterpart along: whoever has been told
//! that a user is there is not told so again before it was told that the user left. What is remembered
//! is bounded in number and age.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, VecDeque};
use std::fmt::Write as _;
use std::rc::Rc;
use std::time::{Duration, Instant};

use crate::wire::Text;

/// Users and rooms remembered.
const ENTRIES_MAX: usize = 10_000;
/// How long one is remembered.
const AGE_MAX: Duration = Duration::from_secs(10);

/// A namespace, a room in it, and a user.
type Name = (Text, Text, Text);

/// The newest version seen of each user in each room.
#[derive(Debug, Default)]
pub(super) struct Newest {
    // Hashed: in a storm of joins it is full, and what is compared is seldom at hand in the processor's caches.
    // Its memory, 0.9 MiB when full, is given back when the last is forgotten.
    news: HashMap<Rc<str>, News>,
    /// In the order in which they were seen.
    seen: VecDeque<(Instant, Rc<str>, u64)>,
    /// A name, kept for its memory.
    scratch: String,
}

#[derive(Debug)]
struct News {
    version: u64,
    /// The event that was told last, and to which members: since then the room may have emptied, and others
    /// may be in it now, who have been told nothing.
    told: Box<str>,
    told_to: Members,
}

/// The generation of a room's members here; `None` while it has none.
pub(super) type Members = Option<u64>;

impl Newest {
    /// Whether news about a user is to be told to these members: it is newer than all that was seen, and
    /// says something else than they were told. It is remembered then.
    #[expect(
        clippy::needless_pass_by_value,
        reason = "its caller makes the name for this and has no other use for it"
    )]
    pub(super) fn accept(
        &mut self,
        now: Instant,
        name: Name,
        members: Members,
        (version, event): (u64, &Text),
    ) -> bool {
        self.forget_old(now);
        join(&mut self.scratch, &name);
        let name: Rc<str> = Rc::from(self.scratch.as_str());
        let is_news = match self.news.entry(Rc::clone(&name)) {
            Entry::Occupied(mut known) => {
                let news = known.get_mut();
                if news.version >= version {
                    return false;
                }
                let is_told = news.told_to == members && *news.told == **event;
                news.version = version;
                if !is_told {
                    news.told = Box::from(&**event);
                    news.told_to = members;
                }
                !is_told
            }
            Entry::Vacant(place) => {
                place.insert(News {
                    version,
                    told: Box::from(&**event),
                    told_to: members,
                });
                true
            }
        };
        self.seen.push_back((now, name, version));
        is_news
    }

    /// Whether the next news makes the oldest forgotten.
    pub(super) fn is_full(&self) -> bool {
        self.seen.len() >= ENTRIES_MAX
    }

    /// Forgets what is too old. Called at each tick, too: a storm of joins is not remembered for ever.
    pub(super) fn forget_old(&mut self, now: Instant) {
        while let Some((at, ..)) = self.seen.front() {
            if self.seen.len() < ENTRIES_MAX && now.saturating_duration_since(*at) < AGE_MAX {
                break;
            }
            let (_, name, version) = self.seen.pop_front().expect("there is a front");
            if let Entry::Occupied(news) = self.news.entry(name)
                && news.get().version == version
            {
                news.remove();
            }
        }
        if self.seen.is_empty() {
            self.seen = VecDeque::new();
            self.news = HashMap::new();
        }
    }
}

/// Makes one text of the three names that costs no more than its bytes. Each but the last is led by its length,
/// so that no two names are the same text.
fn join(text: &mut String, (namespace, room, user): &Name) {
    let (n, r) = (namespace.len(), room.len());
    text.clear();
    write!(text, "{n}:{namespace}{r}:{room}{user}").expect("a string takes all");
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(user: &str) -> Name {
        ("/".into(), "room".into(), user.into())
    }

    fn accept(newest: &mut Newest, now: Instant, user: &str, version: u64, event: &str) -> bool {
        accept_for(newest, now, user, Some(1), (version, event))
    }

    fn accept_for(
        newest: &mut Newest,
        now: Instant,
        user: &str,
        members: Members,
        (version, event): (u64, &str),
    ) -> bool {
        newest.accept(now, name(user), members, (version, &event.into()))
    }

    #[test]
    fn drops_what_is_older_than_what_was_seen() {
        let (now, mut newest) = (Instant::now(), Newest::default());
        assert!(accept(&mut newest, now, "ada", 5, "in"));
        assert!(!accept(&mut newest, now, "ada", 4, "out"));
        assert!(!accept(&mut newest, now, "ada", 5, "out"));
        assert!(accept(&mut newest, now, "bob", 4, "in"));
        assert!(accept(&mut newest, now, "ada", 6, "out"));
    }

    #[test]
    fn what_was_overtaken_takes_its_counterpart_along() {
        let (now, mut newest) = (Instant::now(), Newest::default());
        assert!(accept(&mut newest, now, "ada", 1, "in"));
        assert!(!accept(&mut newest, now, "ada", 3, "in"));
        assert!(!accept(&mut newest, now, "ada", 2, "out"));
        assert!(accept(&mut newest, now, "ada", 4, "out"));
    }

    #[test]
    fn new_members_of_an_empty_room_are_told_anew() {
        let (now, mut newest) = (Instant::now(), Newest::default());
        let mut accept = |members, news| accept_for(&mut newest, now, "ada", members, news);
        assert!(accept(Some(1), (2, "in")));
        assert!(!accept(Some(1), (4, "in")));
        assert!(!accept(Some(2), (3, "out")), "it is old, whoever is there");
        assert!(accept(Some(2), (6, "in")));
        assert!(accept(None, (7, "in")), "nobody was there to be told");
        assert!(accept(Some(3), (8, "in")));
    }

    #[test]
    fn forgets_by_age_and_number() {
        let (now, mut newest) = (Instant::now(), Newest::default());
        assert!(accept(&mut newest, now, "ada", 5, "in"));
        assert!(accept(&mut newest, now + AGE_MAX, "ada", 4, "in"));
        for version in 0..2 * ENTRIES_MAX {
            accept(&mut newest, now, &version.to_string(), 1, "in");
        }
        assert!(newest.news.len() <= ENTRIES_MAX);
        assert!(newest.seen.len() <= ENTRIES_MAX && newest.is_full());
    }
}
