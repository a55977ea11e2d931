//! What the shards of a process know of each other's links: who is cut off, and why.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// One for the process.
#[derive(Debug)]
pub struct Fleet {
    /// This host's name in the fleet, for as long as the process lives.
    host: u64,
    /// The shards' names, by number.
    uids: Vec<Box<str>>,
    /// Shards to which siblings had better push through the mesh: no link, or one that is late.
    suspects: AtomicU64,
    /// Shards whose link is not up.
    down: AtomicU64,
    /// Shards that have ended.
    ended: AtomicU64,
    /// Whether the fleet was told that this host has begun.
    is_announced: AtomicBool,
    /// Why links are down; kept until all are up.
    reason: Mutex<Box<str>>,
}

impl Fleet {
    /// Before the first link is up, for at most 64 shards. `random` fills with random bytes.
    #[must_use]
    pub fn new(shards: usize, mut random: impl FnMut(&mut [u8])) -> Arc<Self> {
        let mut host = [0; 8];
        random(&mut host);
        let uids = (0..shards).map(|_| uid(&mut random)).collect();
        let all = (0..shards).fold(0, |all, shard| all | 1 << shard);
        Arc::new(Self {
            // It is written as a MessagePack integer, which not every reader takes above 2^53.
            host: u64::from_be_bytes(host) >> 11,
            uids,
            suspects: AtomicU64::new(all),
            down: AtomicU64::new(all),
            ended: AtomicU64::new(0),
            is_announced: AtomicBool::new(false),
            reason: Mutex::new("not connected yet".into()),
        })
    }

    /// This host's name.
    #[must_use]
    pub fn host(&self) -> u64 {
        self.host
    }

    pub(super) fn uid(&self, shard: u8) -> &str {
        &self.uids[usize::from(shard)]
    }

    fn reason(&self) -> MutexGuard<'_, Box<str>> {
        self.reason.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// `Err` with the reason while any shard's link is down.
    pub fn condition(&self) -> Result<(), Box<str>> {
        if self.down.load(Ordering::SeqCst) & !self.ended.load(Ordering::SeqCst) == 0 {
            return Ok(());
        }
        Err(self.reason().clone())
    }

    pub(super) fn set_down(&self, shard: u8, reason: &str) {
        *self.reason() = reason.into();
        self.down.fetch_or(1 << shard, Ordering::SeqCst);
        self.set_suspect(shard, true);
    }

    pub(super) fn set_up(&self, shard: u8) {
        self.down.fetch_and(!(1 << shard), Ordering::SeqCst);
        self.set_suspect(shard, false);
    }

    pub(super) fn set_suspect(&self, shard: u8, is_suspect: bool) {
        let bit = 1 << shard;
        // Usually nothing changes: the cache line stays everybody's.
        if (self.suspects() & bit != 0) == is_suspect {
            return;
        }
        if is_suspect {
            self.suspects.fetch_or(bit, Ordering::SeqCst);
        } else {
            self.suspects.fetch_and(!bit, Ordering::SeqCst);
        }
    }

    /// The shards to push to through the mesh, a bit for each.
    pub(super) fn suspects(&self) -> u64 {
        self.suspects.load(Ordering::SeqCst)
    }

    /// The shards without a link, a bit for each.
    pub(super) fn cut_off(&self) -> u64 {
        self.down.load(Ordering::SeqCst)
    }

    /// Whether this shard is the one that speaks for the host: the lowest whose link is up.
    pub(super) fn speaks(&self, shard: u8) -> bool {
        let down = self.down.load(Ordering::SeqCst) | self.ended.load(Ordering::SeqCst);
        (!down).trailing_zeros() == u32::from(shard)
    }

    /// Whether the fleet is to be told that this host begins: once.
    pub(super) fn announce(&self) -> bool {
        !self.is_announced.swap(true, Ordering::SeqCst)
    }

    /// A shard ends. `true`: it was the last.
    pub(super) fn end(&self, shard: u8) -> bool {
        let ended = self.ended.fetch_or(1 << shard, Ordering::SeqCst) | 1 << shard;
        ended.count_ones() as usize >= self.uids.len()
    }
}

/// Six letters and digits, as Socket.IO's adapter draws them.
fn uid(random: &mut impl FnMut(&mut [u8])) -> Box<str> {
    const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789AB";
    let mut bytes = [0; 6];
    random(&mut bytes);
    let letters = bytes.map(|byte| char::from(LETTERS[usize::from(byte & 63)]));
    letters.iter().collect::<String>().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fleet(shards: usize) -> Arc<Fleet> {
        Fleet::new(shards, |bytes| bytes.fill(7))
    }

    #[test]
    fn is_degraded_until_every_link_is_up() {
        let fleet = fleet(2);
        assert!(fleet.condition().is_err());
        fleet.set_up(0);
        assert!(fleet.condition().is_err());
        fleet.set_up(1);
        assert_eq!(fleet.condition(), Ok(()));
        assert_eq!(fleet.suspects(), 0);
        fleet.set_down(1, "gone");
        assert_eq!(fleet.condition(), Err("gone".into()));
        assert_eq!(fleet.suspects(), 2);
        assert!(!fleet.end(1) && fleet.condition().is_ok());
        assert!(fleet.end(0));
    }

    #[test]
    fn the_lowest_shard_with_a_link_speaks() {
        let fleet = fleet(64);
        assert!(!(0..64).any(|shard| fleet.speaks(shard)));
        fleet.set_up(63);
        assert!(fleet.speaks(63));
        fleet.set_up(3);
        assert!(fleet.speaks(3) && !fleet.speaks(63));
        fleet.end(3);
        assert!(fleet.speaks(63));
    }
}
