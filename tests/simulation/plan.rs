//! What a seed makes of a world: how large it is, how fast its time goes, which faults there are.
//!
//! Limits take parts of a plan away, and leave the rest as it was: every kind of chance has a sequence of
//! its own. So a failing seed can be made smaller.

use std::fmt;
use std::rc::Rc;
use std::str::FromStr;
use std::time::Duration;

use crate::dice::Dice;

/// What may go wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Fault {
    StoreError,
    StoreUnknown,
    StoreSlow,
    StoreDown,
    SlowClient,
    DeadClient,
    HalfOpen,
    Reset,
    UpgradeRace,
    TokenExpiry,
    Binary,
    BusSilent,
    BusLoss,
    BusOutage,
    BusFlapping,
    HostCrash,
    HostDrain,
    Stall,
    ClockJump,
    GreatJump,
    WallJump,
    FullQueue,
}

impl Fault {
    pub(crate) const ALL: [Self; 22] = [
        Self::StoreError,
        Self::StoreUnknown,
        Self::StoreSlow,
        Self::StoreDown,
        Self::SlowClient,
        Self::DeadClient,
        Self::HalfOpen,
        Self::Reset,
        Self::UpgradeRace,
        Self::TokenExpiry,
        Self::Binary,
        Self::BusSilent,
        Self::BusLoss,
        Self::BusOutage,
        Self::BusFlapping,
        Self::HostCrash,
        Self::HostDrain,
        Self::Stall,
        Self::ClockJump,
        Self::GreatJump,
        Self::WallJump,
        Self::FullQueue,
    ];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::StoreError => "store-error",
            Self::StoreUnknown => "store-unknown",
            Self::StoreSlow => "store-slow",
            Self::StoreDown => "store-down",
            Self::SlowClient => "slow-client",
            Self::DeadClient => "dead-client",
            Self::HalfOpen => "half-open",
            Self::Reset => "reset",
            Self::UpgradeRace => "upgrade-race",
            Self::TokenExpiry => "token-expiry",
            Self::Binary => "binary",
            Self::BusSilent => "bus-silent",
            Self::BusLoss => "bus-loss",
            Self::BusOutage => "bus-outage",
            Self::BusFlapping => "bus-flapping",
            Self::HostCrash => "host-crash",
            Self::HostDrain => "host-drain",
            Self::Stall => "stall",
            Self::ClockJump => "clock-jump",
            Self::GreatJump => "great-jump",
            Self::WallJump => "wall-jump",
            Self::FullQueue => "full-queue",
        }
    }

    /// Of a thousand plans, so many have it.
    fn share(self) -> usize {
        match self {
            Self::GreatJump => 120,
            Self::TokenExpiry | Self::WallJump | Self::StoreSlow => 300,
            _ => 500,
        }
    }
}

/// The most of a plan that is played.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Limits {
    pub(crate) hosts: usize,
    pub(crate) shards: usize,
    pub(crate) clients: usize,
    pub(crate) steps: usize,
    pub(crate) without: Vec<Fault>,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            hosts: usize::MAX,
            shards: usize::MAX,
            clients: usize::MAX,
            steps: usize::MAX,
            without: Vec::new(),
        }
    }
}

impl fmt::Display for Limits {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut parts = Vec::new();
        let numbers = [
            ("hosts", self.hosts),
            ("shards", self.shards),
            ("clients", self.clients),
            ("steps", self.steps),
        ];
        for (name, number) in numbers {
            if number != usize::MAX {
                parts.push(format!("{name}={number}"));
            }
        }
        if !self.without.is_empty() {
            let names: Vec<_> = self.without.iter().map(|fault| fault.name()).collect();
            parts.push(format!("without={}", names.join("+")));
        }
        f.write_str(&parts.join(","))
    }
}

impl FromStr for Limits {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut limits = Self::default();
        for part in text.split(',').filter(|part| !part.is_empty()) {
            let (name, value) = part.split_once('=').ok_or("a limit is NAME=VALUE")?;
            let number = || value.parse().map_err(|_| format!("{value} is no number"));
            match name {
                "hosts" => limits.hosts = number()?,
                "shards" => limits.shards = number()?,
                "clients" => limits.clients = number()?,
                "steps" => limits.steps = number()?,
                "without" => {
                    for name in value.split('+') {
                        let fault = Fault::ALL.into_iter().find(|fault| fault.name() == name);
                        limits
                            .without
                            .push(fault.ok_or(format!("no fault {name}"))?);
                    }
                }
                _ => return Err(format!("no limit {name}")),
            }
        }
        Ok(limits)
    }
}

/// One world.
#[derive(Debug, Clone)]
pub(crate) struct Plan {
    pub(crate) seed: u64,
    pub(crate) hosts: usize,
    /// Of each host.
    pub(crate) shards: usize,
    pub(crate) clients: usize,
    pub(crate) users: usize,
    pub(crate) rooms: usize,
    pub(crate) steps: usize,
    /// The most time of a step.
    pub(crate) step_ms: usize,
    /// In a step, so many of a thousand clients do something.
    pub(crate) busy: usize,
    /// Of a thousand clients, so many begin by polling.
    pub(crate) polling: usize,
    pub(crate) ping_interval: Duration,
    pub(crate) ping_timeout: Duration,
    pub(crate) outbox_bytes_max: usize,
    pub(crate) mesh_slots: usize,
    /// The hosts are joined by Redis; one alone may do without.
    pub(crate) has_redis: bool,
    faults: Vec<Fault>,
}

impl Plan {
    pub(crate) fn new(seed: u64, limits: &Limits) -> Self {
        let dice = Dice::new(seed);
        let hosts = *dice.pick(&[1, 1, 2, 2, 3]);
        let shards = *dice.pick(&[1, 2, 2, 3]);
        let clients = dice.between(2, 12);
        let ping = *dice.pick(&[1_000, 3_000, 25_000]);
        let mut faults: Vec<Fault> = Vec::new();
        for fault in Fault::ALL {
            if dice.chance(fault.share()) && !limits.without.contains(&fault) {
                faults.push(fault);
            }
        }
        let is_full = faults.contains(&Fault::FullQueue);
        let (slots, outbox) = if is_full {
            (
                *dice.pick(&[1, 1, 2, 4]),
                *dice.pick(&[3_000, 8_000, 60_000]),
            )
        } else {
            (1_024, 1_000_000)
        };
        Self {
            seed,
            hosts: hosts.min(limits.hosts),
            shards: shards.min(limits.shards),
            clients: clients.min(limits.clients),
            users: dice.between(2, 6),
            rooms: dice.between(1, 3),
            steps: dice.between(100, 600).min(limits.steps),
            step_ms: *dice.pick(&[10, 30, 30, 100]),
            busy: *dice.pick(&[50, 150, 300]),
            polling: *dice.pick(&[0, 300, 600]),
            ping_interval: Duration::from_millis(ping),
            ping_timeout: Duration::from_millis(ping * 4 / 5),
            outbox_bytes_max: outbox,
            mesh_slots: slots,
            has_redis: dice.chance(300) || hosts > 1,
            faults,
        }
    }

    pub(crate) fn has(&self, fault: Fault) -> bool {
        self.faults.contains(&fault)
    }

    /// A sequence of chance for one purpose.
    pub(crate) fn dice(&self, purpose: &str, number: usize) -> Rc<Dice> {
        Dice::for_purpose(self.seed, purpose, number)
    }
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<_> = self.faults.iter().map(|fault| fault.name()).collect();
        write!(
            f,
            "{} hosts of {} shards, {} clients of {} users, {} rooms, {} steps; ping {:?}, outbox {}, slots {}; {}",
            self.hosts,
            self.shards,
            self.clients,
            self.users,
            self.rooms,
            self.steps,
            self.ping_interval,
            self.outbox_bytes_max,
            self.mesh_slots,
            names.join(" ")
        )
    }
}
