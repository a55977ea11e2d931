//! Makes a failing seed smaller: fewer faults, clients, hosts, shards and steps, as long as it fails.

use std::time::{Duration, Instant};

use crate::plan::{Fault, Limits, Plan};
use crate::runner::play;

/// Shrinking takes no longer.
const TIME_MAX: Duration = Duration::from_secs(30);

struct Shrinker {
    seed: u64,
    limits: Limits,
    what: String,
    until: Instant,
}

/// The smallest limits found with which the seed still fails, and what fails then.
pub(crate) fn shrink(seed: u64, what: String) -> (Limits, String) {
    let mut shrinker = Shrinker {
        seed,
        limits: Limits::default(),
        what,
        until: Instant::now() + TIME_MAX,
    };
    loop {
        let before = shrinker.limits.clone();
        shrinker.take_faults();
        shrinker.lower(|limits| &mut limits.clients, |plan| plan.clients);
        shrinker.lower(|limits| &mut limits.hosts, |plan| plan.hosts);
        shrinker.lower(|limits| &mut limits.shards, |plan| plan.shards);
        shrinker.lower(|limits| &mut limits.steps, |plan| plan.steps);
        if shrinker.limits == before || Instant::now() >= shrinker.until {
            return (shrinker.limits, shrinker.what);
        }
    }
}

impl Shrinker {
    /// Takes these limits if the seed still fails.
    fn fails(&mut self, limits: Limits) -> bool {
        if Instant::now() >= self.until {
            return false;
        }
        let Err(what) = play(self.seed, &limits, None).outcome else {
            return false;
        };
        self.limits = limits;
        self.what = what;
        true
    }

    fn take_faults(&mut self) {
        let plan = Plan::new(self.seed, &self.limits);
        for fault in Fault::ALL.into_iter().filter(|fault| plan.has(*fault)) {
            let mut limits = self.limits.clone();
            limits.without.push(fault);
            self.fails(limits);
        }
    }

    /// Lowers a number: by halves, then by ones.
    fn lower(&mut self, limit: fn(&mut Limits) -> &mut usize, of_plan: fn(&Plan) -> usize) {
        let now = of_plan(&Plan::new(self.seed, &self.limits));
        let (mut low, mut high) = (1, now);
        while low < high {
            let middle = usize::midpoint(low, high);
            let mut limits = self.limits.clone();
            *limit(&mut limits) = middle;
            if self.fails(limits) {
                high = middle;
            } else {
                low = middle + 1;
            }
        }
    }
}
