//! Which hosts of the fleet live, by the word that each gives every second. Pure.
//!
//! A host that falls silent may have died between storing a message and publishing it: whoever misses
//! it compares the heads of its rooms.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use crate::wire::adapter::{HostNews, HostNotice};

/// How often a host says that it is there.
pub(super) const BEAT_EVERY: Duration = Duration::from_secs(1);
/// A host that was not heard for so long is missing.
const MISSING_AFTER: Duration = Duration::from_secs(5);
/// Hosts remembered; of more than that the death is not noticed.
const HOSTS_MAX: usize = 1_024;

/// The other hosts.
#[derive(Debug, Default)]
pub(super) struct Hosts {
    heard: BTreeMap<u64, Instant>,
}

impl Hosts {
    /// Whether there is no place for the host that gave this word.
    pub(super) fn is_full_for(&self, notice: &HostNotice) -> bool {
        let is_there = notice.news != HostNews::Stop;
        is_there && self.heard.len() >= HOSTS_MAX && !self.heard.contains_key(&notice.host)
    }

    /// A host gave word. `true`: the heads are to be compared.
    pub(super) fn receive(&mut self, now: Instant, notice: &HostNotice) -> bool {
        match notice.news {
            HostNews::Stop => {
                self.heard.remove(&notice.host);
            }
            HostNews::Start | HostNews::Beat => {
                if !self.is_full_for(notice) {
                    self.heard.insert(notice.host, now);
                }
            }
        }
        notice.news == HostNews::Start
    }

    /// Whether there is another host.
    pub(super) fn any(&self) -> bool {
        !self.heard.is_empty()
    }

    /// Nobody was heard for a while, since we could not hear: everybody gets time anew.
    pub(super) fn hear_again(&mut self, now: Instant) {
        self.heard.values_mut().for_each(|heard| *heard = now);
    }

    /// Forgets the hosts that are missing. `true`: there were any.
    pub(super) fn forget_missing(&mut self, now: Instant) -> bool {
        let before = self.heard.len();
        self.heard.retain(|_, heard| now < *heard + MISSING_AFTER);
        self.heard.len() < before
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hear(hosts: &mut Hosts, now: Instant, host: u64, news: HostNews) -> bool {
        hosts.receive(now, &HostNotice { host, news })
    }

    #[test]
    fn misses_who_fell_silent_and_not_who_said_good_bye() {
        let (now, mut hosts) = (Instant::now(), Hosts::default());
        assert!(hear(&mut hosts, now, 1, HostNews::Start));
        assert!(!hear(&mut hosts, now, 2, HostNews::Beat));
        assert!(!hear(&mut hosts, now, 2, HostNews::Stop));
        assert!(!hosts.forget_missing(now + Duration::from_millis(4_999)));
        assert!(hosts.forget_missing(now + MISSING_AFTER));
        assert!(!hosts.forget_missing(now + MISSING_AFTER), "once");
    }

    #[test]
    fn our_own_silence_is_nobodys_death() {
        let (now, mut hosts) = (Instant::now(), Hosts::default());
        hear(&mut hosts, now, 1, HostNews::Beat);
        let later = now + Duration::from_mins(1);
        hosts.hear_again(later);
        assert!(!hosts.forget_missing(later));
    }

    #[test]
    fn remembers_a_bounded_number() {
        let (now, mut hosts) = (Instant::now(), Hosts::default());
        for host in 0..2_000 {
            hear(&mut hosts, now, host, HostNews::Beat);
        }
        assert_eq!(hosts.heard.len(), HOSTS_MAX);
    }
}
