//! Which channels are wanted, which are asked for, and which are confirmed. Pure.
//!
//! Commands follow wishes: a channel that is wanted and dropped before its command is sent costs none.
//! Redis confirms each SUBSCRIBE of a channel once and in order, so a channel is confirmed when none of
//! its SUBSCRIBEs is owed.

use std::collections::{BTreeMap, VecDeque};

/// The channels of one connection.
#[derive(Debug, Default)]
pub(super) struct Subscriptions {
    channels: BTreeMap<Box<str>, Channel>,
    /// Channels whose wish may differ from what was asked for; `true`: from before the connection.
    changed: VecDeque<(Box<str>, bool)>,
    /// How many channels from before the connection are not confirmed yet.
    before: usize,
}

#[derive(Debug, Default)]
struct Channel {
    /// How many want it.
    wanted: u32,
    /// The last command was SUBSCRIBE.
    asked: bool,
    /// SUBSCRIBEs that are owed their confirmation.
    owed: u32,
}

/// A command to send.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Change {
    /// `true`: of those from before the connection.
    Subscribe(Box<str>, bool),
    Unsubscribe(Box<str>),
}

impl Subscriptions {
    /// How many channels are wanted.
    pub(super) fn wanted(&self) -> usize {
        self.channels
            .values()
            .filter(|channel| channel.wanted > 0)
            .count()
    }

    /// One more wants a channel. `true`: it is confirmed.
    pub(super) fn want(&mut self, name: &str) -> bool {
        let channel = match self.channels.get_mut(name) {
            Some(channel) => channel,
            None => self.channels.entry(name.into()).or_default(),
        };
        channel.wanted += 1;
        if channel.wanted == 1 && !channel.asked {
            self.changed.push_back((name.into(), false));
        }
        channel.asked && channel.owed == 0
    }

    /// One less wants a channel.
    pub(super) fn want_no_more(&mut self, name: &str) {
        let Some(channel) = self.channels.get_mut(name) else {
            return;
        };
        channel.wanted = channel.wanted.saturating_sub(1);
        if channel.wanted > 0 {
            return;
        }
        if channel.asked {
            self.changed.push_back((name.into(), false));
        } else {
            self.forget(name);
        }
    }

    /// There is a connection, which knows of nothing: everything wanted is to be asked for.
    pub(super) fn begin(&mut self) {
        self.changed.clear();
        let names = self.channels.keys().map(|name| (name.clone(), true));
        self.changed.extend(names);
        self.before = self.changed.len();
    }

    /// Whether all channels from before the connection are confirmed.
    pub(super) fn is_as_before(&self) -> bool {
        self.before == 0
    }

    /// The connection is gone.
    pub(super) fn lost(&mut self) {
        self.changed.clear();
        self.before = 0;
        self.channels.retain(|_, channel| {
            (channel.asked, channel.owed) = (false, 0);
            channel.wanted > 0
        });
    }

    /// Whether there may be commands to send.
    pub(super) fn has_changes(&self) -> bool {
        !self.changed.is_empty()
    }

    /// The next commands to send: at most so many channels, all of one kind.
    pub(super) fn take(&mut self, most: usize) -> Vec<Change> {
        let mut changes: Vec<Change> = Vec::new();
        while changes.len() < most {
            let Some((name, of_before)) = self.changed.front() else {
                break;
            };
            let of_before = *of_before;
            let channel = self.channels.get_mut(name);
            let wish = channel
                .as_ref()
                .map(|channel| (channel.wanted > 0, channel.asked));
            let subscribes = match wish {
                Some((true, false)) => true,
                Some((false, true)) => false,
                _ => {
                    self.changed.pop_front();
                    self.before -= usize::from(of_before);
                    continue;
                }
            };
            if let Some(first) = changes.first()
                && matches!(first, Change::Subscribe(..)) != subscribes
            {
                break;
            }
            if let Some(channel) = channel {
                channel.asked = subscribes;
                channel.owed += u32::from(subscribes);
            }
            let Some((name, _)) = self.changed.pop_front() else {
                break;
            };
            changes.push(if subscribes {
                Change::Subscribe(name, of_before)
            } else {
                Change::Unsubscribe(name)
            });
        }
        changes
    }

    /// A SUBSCRIBE was confirmed. `true`: the channel is wanted, and this was the last that it waited for.
    pub(super) fn subscribed(&mut self, name: &str, of_before: bool) -> bool {
        self.before -= usize::from(of_before);
        let Some(channel) = self.channels.get_mut(name) else {
            return false;
        };
        channel.owed = channel.owed.saturating_sub(1);
        let is_confirmed = channel.asked && channel.owed == 0 && channel.wanted > 0;
        self.forget(name);
        is_confirmed
    }

    /// An UNSUBSCRIBE was confirmed.
    pub(super) fn unsubscribed(&mut self, name: &str) {
        self.forget(name);
    }

    /// Drops a channel that nobody wants and nothing is owed for.
    fn forget(&mut self, name: &str) {
        let channel = self.channels.get(name);
        if channel.is_some_and(|channel| channel.wanted == 0 && !channel.asked && channel.owed == 0)
        {
            self.channels.remove(name);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn subscribe(name: &str) -> Change {
        Change::Subscribe(name.into(), false)
    }

    fn unsubscribe(name: &str) -> Change {
        Change::Unsubscribe(name.into())
    }

    #[test]
    fn asks_once_for_a_channel_that_many_want() {
        let mut all = Subscriptions::default();
        assert!(!all.want("a"));
        assert!(!all.want("a"));
        assert_eq!(all.take(9), [subscribe("a")]);
        assert!(all.subscribed("a", false));
        assert!(all.want("a"));
        for _ in 0..3 {
            assert!(all.take(9).is_empty());
            all.want_no_more("a");
        }
        assert_eq!(all.take(9), [unsubscribe("a")]);
        all.unsubscribed("a");
        assert!(all.channels.is_empty());
    }

    #[test]
    fn a_channel_that_came_and_went_costs_nothing() {
        let mut all = Subscriptions::default();
        all.want("a");
        all.want_no_more("a");
        assert!(all.take(9).is_empty());
        assert!(all.channels.is_empty());
    }

    #[test]
    fn only_the_last_confirmation_counts() {
        let mut all = Subscriptions::default();
        all.want("a");
        assert_eq!(all.take(9), [subscribe("a")]);
        all.want_no_more("a");
        assert_eq!(all.take(9), [unsubscribe("a")]);
        assert!(!all.want("a"));
        assert_eq!(all.take(9), [subscribe("a")]);
        assert!(!all.subscribed("a", false), "the first one's");
        all.unsubscribed("a");
        assert!(all.subscribed("a", false));
        assert!(all.want("a"));
    }

    #[test]
    fn one_command_is_of_one_kind() {
        let mut all = Subscriptions::default();
        all.want("a");
        all.take(9);
        all.want_no_more("a");
        all.want("b");
        all.want("c");
        all.want("d");
        assert_eq!(all.take(9), [unsubscribe("a")]);
        assert_eq!(all.take(2), [subscribe("b"), subscribe("c")]);
        assert_eq!(all.take(2), [subscribe("d")]);
    }

    #[test]
    fn a_new_connection_asks_for_everything_again() {
        let mut all = Subscriptions::default();
        for name in ["a", "b", "c"] {
            all.want(name);
        }
        all.take(9);
        all.subscribed("a", false);
        all.lost();
        all.begin();
        all.want_no_more("b");
        all.want("later");
        let of_before = |name: &str| Change::Subscribe(name.into(), true);
        assert_eq!(
            all.take(9),
            [of_before("a"), of_before("c"), subscribe("later")]
        );
        assert!(!all.is_as_before());
        all.subscribed("a", true);
        assert!(!all.is_as_before());
        all.subscribed("c", true);
        assert!(all.is_as_before(), "`later` is not waited for");
    }
}
