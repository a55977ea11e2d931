//! News of users that Redis did not take, for the other hosts: told when the link is back. Pure.
//!
//! Nobody can read it from a store. Of each user in each room it is kept in its order, and what nobody
//! else has heard of is not told at all once the opposite has happened. It is told a while after the
//! link's return, since the links of others that the same outage broke return within that time.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::hub::broadcast::{Broadcast, RoomKey};
use crate::wire::Text;

/// News kept; more is lost, and counted.
const NEWS_MAX: usize = 1_000;
/// How long after the link's return it is told.
const TELL_AFTER: Duration = Duration::from_millis(2_500);
/// News that may have arrived is not told again when it is older than this: hosts remember for 10 s what
/// they have heard, and would take it for new after that.
const DOUBTFUL_FOR: Duration = Duration::from_secs(8);

/// A namespace, a room in it, and a user.
type Name = (Text, Text, Text);

/// What other hosts have not heard, or may not have heard.
#[derive(Debug, Default)]
pub(super) struct OwedNews {
    news: BTreeMap<Name, VecDeque<News>>,
    count: usize,
    tell_at: Option<Instant>,
}

#[derive(Debug)]
struct News {
    broadcast: Arc<Broadcast>,
    /// It was under way when the link broke.
    is_doubtful: bool,
}

impl OwedNews {
    /// Whether something of the same user in the same room waits, so that nothing may overtake it.
    pub(super) fn is_behind(&self, broadcast: &Broadcast) -> bool {
        self.count > 0 && name(broadcast).is_some_and(|name| self.news.contains_key(&name))
    }

    /// Keeps news. `false`: it is lost, since too much waits or it is no news of a user in one room.
    pub(super) fn owe(&mut self, broadcast: &Arc<Broadcast>, is_doubtful: bool) -> bool {
        let Some(name) = name(broadcast) else {
            return false;
        };
        if let Some(of_user) = self.news.get_mut(&name)
            && let Some(last) = of_user.back()
            && !last.is_doubtful
            && last.broadcast.event != broadcast.event
        {
            // Whoever came has left again, or the other way round: nobody else knows.
            of_user.pop_back();
            self.count -= 1;
            if of_user.is_empty() {
                self.news.remove(&name);
            }
            return true;
        }
        if self.count >= NEWS_MAX {
            return false;
        }
        self.count += 1;
        self.news.entry(name).or_default().push_back(News {
            broadcast: Arc::clone(broadcast),
            is_doubtful,
        });
        true
    }

    /// The link is back.
    pub(super) fn link_is_up(&mut self, now: Instant) {
        self.tell_at = Some(now + TELL_AFTER);
    }

    /// The link is gone.
    pub(super) fn link_is_down(&mut self) {
        self.tell_at = None;
    }

    /// What is to be told now, if the time has come.
    pub(super) fn take(&mut self, now: Instant) -> Vec<Arc<Broadcast>> {
        if self.count == 0 || self.tell_at.is_none_or(|at| now < at) {
            return Vec::new();
        }
        self.count = 0;
        let all = std::mem::take(&mut self.news).into_values().flatten();
        let is_good = |news: &News| {
            let age = now.saturating_duration_since(news.broadcast.published);
            !news.is_doubtful || age < DOUBTFUL_FOR
        };
        let good = all.filter(is_good);
        good.map(|news| news.broadcast).collect()
    }

    /// When something is to be told.
    pub(super) fn next(&self) -> Option<Instant> {
        self.tell_at.filter(|_| self.count > 0)
    }
}

fn name(broadcast: &Broadcast) -> Option<Name> {
    let news = broadcast.presence.as_ref()?;
    let [RoomKey::Named(room), ..] = &*broadcast.target.rooms else {
        return None;
    };
    let namespace = broadcast.target.namespace.clone();
    Some((namespace, room.clone(), news.user.clone()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hub::broadcast::{Presence, Target};
    use crate::hub::{Args, Flags};

    fn news(user: &str, event: &str, version: u64, now: Instant) -> Arc<Broadcast> {
        Arc::new(Broadcast {
            target: Target {
                namespace: "/".into(),
                rooms: vec![RoomKey::Named("r".into())],
                except: Vec::new(),
            },
            event: event.into(),
            args: Args::none(),
            packets: Vec::new(),
            flags: Flags::default(),
            order: None,
            presence: Some(Presence {
                user: user.into(),
                version,
            }),
            origin: None,
            published: now,
        })
    }

    fn told(owed: &mut OwedNews, now: Instant) -> Vec<u64> {
        let told = owed.take(now);
        let version = |news: &Arc<Broadcast>| news.presence.as_ref().map(|news| news.version);
        told.iter().filter_map(version).collect()
    }

    #[test]
    fn tells_a_while_after_the_links_return() {
        let (now, mut owed) = (Instant::now(), OwedNews::default());
        assert!(owed.owe(&news("ada", "out", 4, now), false));
        assert!(told(&mut owed, now + TELL_AFTER).is_empty(), "it is down");
        owed.link_is_up(now);
        assert_eq!(owed.next(), Some(now + TELL_AFTER));
        assert!(told(&mut owed, now).is_empty());
        let later = news("ada", "in", 5, now);
        assert!(owed.is_behind(&later) && !owed.is_behind(&news("bob", "in", 6, now)));
        assert_eq!(told(&mut owed, now + TELL_AFTER), [4]);
        assert!(!owed.is_behind(&later));
        assert_eq!(owed.next(), None);
    }

    #[test]
    fn what_nobody_has_heard_of_is_undone_by_its_opposite() {
        let (now, mut owed) = (Instant::now(), OwedNews::default());
        owed.link_is_up(now);
        // It may have been heard that ada came; of her coming back nobody has heard.
        for (version, event) in [(1, "in"), (2, "out"), (3, "in"), (4, "out"), (5, "in")] {
            assert!(owed.owe(&news("ada", event, version, now), version == 1));
        }
        assert!(owed.owe(&news("bob", "in", 6, now), false));
        assert!(owed.owe(&news("bob", "out", 7, now), false));
        assert_eq!(owed.news.len(), 1);
        let now = now + TELL_AFTER;
        assert_eq!(told(&mut owed, now), [1]);
    }

    #[test]
    fn what_may_have_been_heard_long_ago_is_not_told_again() {
        let (now, mut owed) = (Instant::now(), OwedNews::default());
        assert!(owed.owe(&news("ada", "in", 1, now), true));
        assert!(owed.owe(&news("ada", "out", 2, now), false));
        owed.link_is_up(now + DOUBTFUL_FOR);
        assert_eq!(told(&mut owed, now + DOUBTFUL_FOR + TELL_AFTER), [2]);
    }

    #[test]
    fn keeps_a_bounded_number() {
        let (now, mut owed) = (Instant::now(), OwedNews::default());
        for user in 0..NEWS_MAX {
            assert!(owed.owe(&news(&user.to_string(), "in", 1, now), false));
        }
        assert!(!owed.owe(&news("one more", "in", 1, now), false));
        assert!(
            owed.owe(&news("0", "out", 2, now), false),
            "it takes no room"
        );
        assert!(owed.owe(&news("one more", "in", 1, now), false));
    }
}
