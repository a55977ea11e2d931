//! Makes a failing seed smaller: fewer faults, clients, hosts, shards and steps, as long as the same rule is
//! broken. A smaller world may break another one; that is another finding, and the first would be lost with it.

use std::time::{Duration, Instant};

use crate::failure::Failure;
use crate::plan::{Fault, Limits, Plan};

/// Shrinking takes no longer.
const TIME_MAX: Duration = Duration::from_secs(30);

struct Shrinker<P> {
    seed: u64,
    limits: Limits,
    failure: Failure,
    until: Instant,
    play: P,
}

/// The smallest limits found with which the seed still fails in the same way, and what fails then. `play` plays
/// the seed with some limits.
pub(crate) fn shrink<P>(seed: u64, failure: Failure, play: P) -> (Limits, Failure)
where
    P: Fn(&Limits) -> Result<(), Failure>,
{
    let mut shrinker = Shrinker {
        seed,
        limits: Limits::default(),
        failure,
        until: Instant::now() + TIME_MAX,
        play,
    };
    loop {
        let before = shrinker.limits.clone();
        shrinker.take_faults();
        shrinker.lower(|limits| &mut limits.clients, |plan| plan.clients);
        shrinker.lower(|limits| &mut limits.hosts, |plan| plan.hosts);
        shrinker.lower(|limits| &mut limits.shards, |plan| plan.shards);
        shrinker.lower(|limits| &mut limits.steps, |plan| plan.steps);
        if shrinker.limits == before || Instant::now() >= shrinker.until {
            return (shrinker.limits, shrinker.failure);
        }
    }
}

impl<P: Fn(&Limits) -> Result<(), Failure>> Shrinker<P> {
    /// Takes these limits if the seed still fails in the same way.
    fn fails(&mut self, limits: Limits) -> bool {
        if Instant::now() >= self.until {
            return false;
        }
        match (self.play)(&limits) {
            Err(failure) if failure.rule == self.failure.rule => {
                self.limits = limits;
                self.failure = failure;
                true
            }
            _ => false,
        }
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

/// A world with a gap from three clients and seven steps on, and only with stalls; smaller ones lack an ack.
#[test]
fn a_smaller_case_breaks_the_same_rule() {
    let play = |seed| {
        move |limits: &Limits| {
            let plan = Plan::new(seed, limits);
            let detail = format!("{} clients, {} steps", plan.clients, plan.steps);
            let has_gap = plan.clients >= 3 && plan.steps >= 7 && plan.has(Fault::Stall);
            let rule = if has_gap {
                "a gap"
            } else {
                "an ack is lacking"
            };
            Err(Failure::new(rule, detail))
        }
    };
    let whole = |seed| Plan::new(seed, &Limits::default());
    let is_larger = |seed: &u64| whole(*seed).clients > 3 && whole(*seed).has(Fault::Stall);
    let seed = (0..100).find(is_larger).expect("every other has stalls");
    let first = play(seed)(&Limits::default()).expect_err("it always fails");
    let (limits, last) = shrink(seed, first, play(seed));
    assert_eq!(last, Failure::new("a gap", "3 clients, 7 steps"));
    assert_eq!((limits.clients, limits.steps), (3, 7));
    let small = Plan::new(seed, &limits);
    let faults = Fault::ALL.into_iter().filter(|fault| small.has(*fault));
    assert_eq!(faults.collect::<Vec<_>>(), [Fault::Stall]);
}
