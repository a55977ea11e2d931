//! What each client address has open, and how often it asks.
//!
//! One table for the process, in parts with a lock each, so that shards seldom meet at one. A lock is
//! held for one look at a map. IPv6 counts by its /64, of which one client has all. An entry is there
//! while its address has a connection or has used up something; it is bounded ([`BLOCKS_MAX`]), and an
//! address for which there is no room is not limited, and counted: whoever has so many addresses has
//! their allowances anyway, and those who come after must not suffer for it.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::limit::Rate;

/// Parts of the table. A power of two.
const PARTS: usize = 64;
/// Addresses that the table knows at a time.
pub const BLOCKS_MAX: usize = 131_072;
/// How often a part that is full is looked through for entries of no more use.
const SWEEP_NS: u64 = 1_000_000_000;

/// What one address may have and do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct AddressLimits {
    /// Requests that are not a session's own.
    pub requests: Rate,
    /// New connections.
    pub connections: Rate,
    /// Open connections; 0: no limit.
    pub connections_max: u32,
}

impl AddressLimits {
    fn limit_connections(&self) -> bool {
        self.connections_max > 0 || !self.connections.is_unlimited()
    }

    /// Whether there is no limit at all.
    #[must_use]
    pub fn are_off(&self) -> bool {
        self.requests.is_unlimited() && !self.limit_connections()
    }
}

/// Why a connection is not served.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refused {
    /// Too many new ones; so long there is no room for another.
    TooFast(Duration),
    /// Too many open ones.
    TooMany,
}

impl Refused {
    /// How it is counted.
    #[must_use]
    pub fn reason(self) -> &'static str {
        match self {
            Self::TooFast(_) => "address_rate",
            Self::TooMany => "address_connections",
        }
    }
}

/// What counts as one address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Block {
    V4(u32),
    /// The upper half.
    V6(u64),
}

impl Block {
    fn of(address: IpAddr) -> Self {
        match address.to_canonical() {
            IpAddr::V4(address) => Self::V4(address.to_bits()),
            IpAddr::V6(address) => {
                let upper = address.to_bits() >> 64;
                Self::V6(u64::try_from(upper).expect("half of an address is left"))
            }
        }
    }
}

#[derive(Debug, Clone, Copy, Default)]
struct Entry {
    connections: u32,
    connections_full_ns: u64,
    requests_full_ns: u64,
}

impl Entry {
    fn is_idle(&self, now_ns: u64) -> bool {
        self.connections == 0
            && self.connections_full_ns <= now_ns
            && self.requests_full_ns <= now_ns
    }
}

#[derive(Debug, Default)]
struct Part {
    blocks: HashMap<Block, Entry>,
    swept_ns: u64,
}

impl Part {
    /// The entry of a block, if there is one or room for one.
    fn entry(&mut self, block: Block, now_ns: u64) -> Option<&mut Entry> {
        if self.blocks.len() >= BLOCKS_MAX / PARTS
            && !self.blocks.contains_key(&block)
            && !self.sweep(now_ns)
        {
            return None;
        }
        Some(self.blocks.entry(block).or_default())
    }

    /// Makes room, unless that was tried just now. Whether there is some.
    fn sweep(&mut self, now_ns: u64) -> bool {
        if now_ns < self.swept_ns {
            return false;
        }
        self.swept_ns = now_ns + SWEEP_NS;
        self.blocks.retain(|_, entry| !entry.is_idle(now_ns));
        self.blocks.len() < BLOCKS_MAX / PARTS
    }
}

/// The addresses of a process.
#[derive(Debug)]
pub struct Addresses {
    parts: Box<[Mutex<Part>]>,
    /// Strangers must not know which addresses meet in one part.
    hasher: RandomState,
    epoch: Instant,
}

impl Default for Addresses {
    fn default() -> Self {
        Self {
            parts: (0..PARTS).map(|_| Mutex::default()).collect(),
            hasher: RandomState::new(),
            epoch: Instant::now(),
        }
    }
}

/// What an attempt gives: what was asked for, or a refusal; and whether the table had no room, so that
/// nothing was limited.
pub type Counted<T, E> = Result<(T, bool), E>;

impl Addresses {
    fn part(&self, block: Block) -> MutexGuard<'_, Part> {
        let hash = self.hasher.hash_one(block) % PARTS as u64;
        let part = &self.parts[usize::try_from(hash).expect("below a small number")];
        // No code panics while it holds one of these; and if it did, the process would end.
        part.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn nanoseconds(&self, now: Instant) -> u64 {
        let elapsed = now.saturating_duration_since(self.epoch);
        u64::try_from(elapsed.as_nanos()).unwrap_or(u64::MAX)
    }

    /// Counts a connection of this address for as long as the place lives. `is_new`: it was not counted
    /// for another address before, so it takes from the rate of new connections. `now` says the time while
    /// nobody else takes: a thread that had read it and then lost its core would ask for tokens of the past.
    pub fn open(
        self: &Arc<Self>,
        address: IpAddr,
        limits: &AddressLimits,
        is_new: bool,
        now: impl FnOnce() -> Instant,
    ) -> Counted<Option<Place>, Refused> {
        if !limits.limit_connections() {
            return Ok((None, false));
        }
        let block = Block::of(address);
        let mut part = self.part(block);
        let now_ns = self.nanoseconds(now());
        let Some(entry) = part.entry(block, now_ns) else {
            return Ok((None, true));
        };
        if limits.connections_max > 0 && entry.connections >= limits.connections_max {
            return Err(Refused::TooMany);
        }
        if is_new {
            let full_ns = entry.connections_full_ns;
            let taken = limits.connections.take(full_ns, now_ns);
            entry.connections_full_ns = taken.map_err(Refused::TooFast)?;
        }
        entry.connections += 1;
        let addresses = Arc::clone(self);
        Ok((Some(Place { addresses, block }), false))
    }

    /// Takes one request of this address; `Err` is how long to wait. `now` as for [`Addresses::open`].
    pub fn take_request(
        &self,
        address: IpAddr,
        limits: &AddressLimits,
        now: impl FnOnce() -> Instant,
    ) -> Counted<(), Duration> {
        if limits.requests.is_unlimited() {
            return Ok(((), false));
        }
        let block = Block::of(address);
        let mut part = self.part(block);
        let now_ns = self.nanoseconds(now());
        let Some(entry) = part.entry(block, now_ns) else {
            return Ok(((), true));
        };
        entry.requests_full_ns = limits.requests.take(entry.requests_full_ns, now_ns)?;
        Ok(((), false))
    }

    fn close(&self, block: Block) {
        let now_ns = self.nanoseconds(Instant::now());
        let mut part = self.part(block);
        if let Some(entry) = part.blocks.get_mut(&block) {
            entry.connections = entry.connections.saturating_sub(1);
            if entry.is_idle(now_ns) {
                part.blocks.remove(&block);
            }
        }
    }
}

/// A connection that counts for its address, until this is dropped. It may move to another shard.
#[derive(Debug)]
pub struct Place {
    addresses: Arc<Addresses>,
    block: Block,
}

impl Place {
    /// Whether it counts for this address.
    #[must_use]
    pub fn is_of(&self, address: IpAddr) -> bool {
        self.block == Block::of(address)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.addresses.close(self.block);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().expect("an address")
    }

    fn limits() -> AddressLimits {
        AddressLimits {
            requests: Rate::per_second(10, 2),
            connections: Rate::per_second(1, 3),
            connections_max: 2,
        }
    }

    fn known(addresses: &Addresses) -> usize {
        let parts = addresses.parts.iter();
        parts.map(|part| part.lock().unwrap().blocks.len()).sum()
    }

    #[test]
    fn an_address_has_so_many_connections_and_opens_them_so_fast() {
        let (addresses, limits) = (Arc::new(Addresses::default()), limits());
        let start = addresses.epoch;
        let open = |address| addresses.open(ip(address), &limits, true, || start);
        let first = open("192.0.2.1").expect("the first");
        let second = open("::ffff:192.0.2.1").expect("the same address");
        assert_eq!(open("192.0.2.1").map(drop), Err(Refused::TooMany));
        assert!(open("192.0.2.2").is_ok());
        drop(first);
        let third = open("192.0.2.1").expect("the third");
        drop((second, third));
        let wait = Duration::from_secs(1);
        assert_eq!(open("192.0.2.1").map(drop), Err(Refused::TooFast(wait)));
        let moved = addresses.open(ip("192.0.2.1"), &limits, false, || start);
        assert!(moved.is_ok(), "it was counted as new elsewhere");
        let later = addresses.open(ip("192.0.2.1"), &limits, true, || start + wait);
        assert!(later.is_ok());
    }

    #[test]
    fn an_ipv6_network_is_one_client() {
        let (addresses, limits) = (Addresses::default(), limits());
        let take = |address| addresses.take_request(ip(address), &limits, || addresses.epoch);
        assert!(take("2001:db8:0:1::1").is_ok());
        assert!(take("2001:db8:0:1:ffff::2").is_ok());
        let wait = Duration::from_millis(100);
        assert_eq!(take("2001:db8:0:1::3"), Err(wait));
        assert!(take("2001:db8:0:2::1").is_ok());
        let place = Arc::new(addresses).open(ip("2001:db8::1"), &limits, true, Instant::now);
        let (place, _) = place.expect("there is room");
        let place = place.expect("it counts");
        assert!(place.is_of(ip("2001:db8::2")) && !place.is_of(ip("2001:db8:0:1::")));
    }

    #[test]
    fn the_time_is_read_while_nobody_else_takes() {
        let (addresses, limits) = (Arc::new(Addresses::default()), limits());
        let now = || {
            let locked = addresses
                .parts
                .iter()
                .filter(|part| part.try_lock().is_err());
            assert_eq!(locked.count(), 1);
            Instant::now()
        };
        assert!(
            addresses
                .take_request(ip("192.0.2.1"), &limits, now)
                .is_ok()
        );
        assert!(addresses.open(ip("192.0.2.1"), &limits, true, now).is_ok());
    }

    #[test]
    fn without_limits_nothing_is_kept() {
        let addresses = Arc::new(Addresses::default());
        let none = AddressLimits::default();
        assert!(none.are_off() && !limits().are_off());
        let now = Instant::now();
        let place = addresses.open(ip("192.0.2.1"), &none, true, || now);
        assert!(matches!(place, Ok((None, false))));
        assert!(
            addresses
                .take_request(ip("192.0.2.1"), &none, || now)
                .is_ok()
        );
        assert_eq!(known(&addresses), 0);
    }

    #[test]
    fn an_address_that_has_gone_and_used_up_nothing_is_forgotten() {
        let addresses = Arc::new(Addresses::default());
        let limits = AddressLimits {
            connections_max: 5,
            ..AddressLimits::default()
        };
        let open = || addresses.open(ip("192.0.2.1"), &limits, true, Instant::now);
        let (one, two) = (open(), open());
        drop(one);
        assert_eq!(known(&addresses), 1);
        drop(two);
        assert_eq!(known(&addresses), 0);
    }

    #[test]
    fn the_table_is_bounded_and_whoever_finds_no_room_is_let_in() {
        let (addresses, limits) = (Addresses::default(), limits());
        let start = addresses.epoch;
        let mut full = 0;
        for number in 0..u32::try_from(BLOCKS_MAX * 2).expect("fits") {
            let address = IpAddr::from(number.to_be_bytes());
            let ((), had_no_room) = addresses
                .take_request(address, &limits, || start)
                .expect("never refused");
            full += usize::from(had_no_room);
        }
        assert!(known(&addresses) <= BLOCKS_MAX && full > 0);
        // Their buckets are full again: room is made when it is needed.
        let later = start + Duration::from_secs(5);
        for number in 0..10_000 {
            let address = IpAddr::from(u32::to_be_bytes(0x0a01_0000 + number));
            let ((), had_no_room) = addresses
                .take_request(address, &limits, || later)
                .expect("a new one");
            assert!(!had_no_room);
        }
        assert!(known(&addresses) < BLOCKS_MAX, "{}", known(&addresses));
    }
}
