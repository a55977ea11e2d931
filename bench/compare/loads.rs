//! The loads of the rows, for each benchmark that drives them.

use std::time::Duration;

use project_yum::load::{Pace, Scenario};

/// How much of each load: `quick` has short periods and fewer connections.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Loads {
    pub(crate) quick: bool,
}

impl Loads {
    fn seconds(self, long: u64, short: u64) -> Duration {
        Duration::from_secs(if self.quick { short } else { long })
    }

    fn count(self, long: usize, short: usize) -> usize {
        if self.quick { short } else { long }
    }

    /// Ten thousand connections, each in so many rooms. CPU is measured of those that are in none.
    pub(crate) fn idle(self, rooms: usize) -> Scenario {
        Scenario::Idle {
            connections: 10_000,
            rooms,
            members: 10,
            period: if rooms == 0 {
                self.seconds(50, 25)
            } else {
                Duration::from_secs(1)
            },
        }
    }

    pub(crate) fn handshake(self) -> Scenario {
        Scenario::Handshake {
            count: self.count(10_000, 4_000),
        }
    }

    pub(crate) fn fanout_full(self) -> Scenario {
        self.messages(1, 1_000, Pace::Window(32))
    }

    pub(crate) fn fanout_50(self) -> Scenario {
        self.messages(1, 1_000, Pace::Rate(50.0))
    }

    pub(crate) fn rooms_full(self) -> Scenario {
        self.messages(100, 50, Pace::Window(2))
    }

    pub(crate) fn rooms_1000(self) -> Scenario {
        self.messages(100, 50, Pace::Rate(1_000.0))
    }

    fn messages(self, rooms: usize, members: usize, pace: Pace) -> Scenario {
        Scenario::Messages {
            rooms,
            members,
            connections: None,
            pace,
            period: self.seconds(10, 4),
        }
    }

    pub(crate) fn stored(self) -> Scenario {
        Scenario::Stored {
            rooms: 8,
            members: 8,
            period: self.seconds(10, 4),
        }
    }

    pub(crate) fn get(self, path: &str, authorized: bool) -> Scenario {
        Scenario::Get {
            path: path.to_owned(),
            authorized,
            connections: 16,
            period: self.seconds(5, 3),
        }
    }

    pub(crate) fn churn(self) -> Scenario {
        Scenario::Churn {
            count: self.count(8_000, 3_000),
        }
    }

    pub(crate) fn polling(self) -> Scenario {
        Scenario::Polling {
            count: self.count(4_000, 1_500),
        }
    }
}
