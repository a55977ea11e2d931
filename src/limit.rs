//! How often something may happen.
//!
//! A bucket of tokens that refills evenly, kept as one number: the time at which it will be full again
//! (the *generic cell rate algorithm*, ITU-T I.371). So a bucket costs eight bytes, is taken from with
//! one atomic exchange by any number of threads, and needs no timer. Time is an argument, in
//! nanoseconds since whatever the caller counts from.

mod bucket;
mod rate;

pub use bucket::Bucket;
pub use rate::Rate;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use std::time::Duration;

    use super::rate::SECOND_NS;
    use super::*;
    use crate::sync::Ordering;

    /// The same bucket as people draw it: tokens, in parts of `interval_ns`, that drop in evenly.
    struct Drawn {
        tokens_ns: u64,
        at_ns: u64,
    }

    impl Drawn {
        fn take(&mut self, rate: Rate, now_ns: u64) -> bool {
            let most = rate.interval_ns * u64::from(rate.burst);
            self.tokens_ns = most.min(self.tokens_ns + (now_ns - self.at_ns));
            self.at_ns = now_ns;
            let has_one = self.tokens_ns >= rate.interval_ns;
            if has_one {
                self.tokens_ns -= rate.interval_ns;
            }
            has_one
        }
    }

    #[test]
    fn a_burst_passes_then_the_rate_holds() {
        let rate = Rate::per_second(20, 40);
        let bucket = Bucket::default();
        let start = 7 * SECOND_NS;
        for _ in 0..40 {
            assert_eq!(bucket.take(rate, start), Ok(()));
        }
        let wait = Duration::from_millis(50);
        assert_eq!(bucket.take(rate, start), Err(wait));
        assert_eq!(
            bucket.take(rate, start),
            Err(wait),
            "a refusal costs nothing"
        );
        assert_eq!(bucket.take(rate, start + 50_000_000), Ok(()));
        assert!(!bucket.is_full(start + 2 * SECOND_NS));
        assert!(bucket.is_full(start + 2 * SECOND_NS + 50_000_000));
    }

    #[test]
    fn zero_is_no_limit_and_the_least_burst_is_one() {
        let bucket = Bucket::default();
        for _ in 0..1000 {
            assert_eq!(bucket.take(Rate::per_second(0, 5), 0), Ok(()));
        }
        assert!(bucket.is_full(0));
        let rate = Rate::per_second(1, 0);
        assert_eq!(bucket.take(rate, 0), Ok(()));
        assert_eq!(bucket.take(rate, 0), Err(Duration::from_secs(1)));
        assert!(Rate::default().is_unlimited());
    }

    #[test]
    fn threads_share_a_bucket_to_the_last_token() {
        let (bucket, rate) = (Bucket::default(), Rate::per_second(1, 1000));
        let taken: usize = std::thread::scope(|scope| {
            let take = || (0..1000).filter(|_| bucket.take(rate, 5).is_ok()).count();
            let threads: Vec<_> = (0..4).map(|_| scope.spawn(take)).collect();
            threads.into_iter().map(|t| t.join().expect("counts")).sum()
        });
        assert_eq!(taken, 1000);
    }

    proptest! {
        #[test]
        fn it_is_the_bucket_that_people_draw(
            count in 1_u32..2000,
            burst in 1_u32..50,
            steps in proptest::collection::vec(0_u64..200_000_000, 1..200),
        ) {
            let rate = Rate::per_second(count, burst);
            let bucket = Bucket::default();
            let mut now = SECOND_NS;
            let mut drawn = Drawn { tokens_ns: u64::MAX / 2, at_ns: now };
            for step in steps {
                now += step;
                let taken = bucket.take(rate, now);
                prop_assert_eq!(taken.is_ok(), drawn.take(rate, now));
                if let Err(wait) = taken {
                    let wait = u64::try_from(wait.as_nanos()).expect("seconds");
                    // Right when it says, and not a moment earlier.
                    prop_assert!(rate.take(bucket.full_ns.load(Ordering::Relaxed), now + wait - 1).is_err());
                    prop_assert!(rate.take(bucket.full_ns.load(Ordering::Relaxed), now + wait).is_ok());
                }
            }
        }

        #[test]
        fn no_time_and_no_rate_makes_it_overflow(
            full in any::<u64>(), now in any::<u64>(), count in any::<u32>(), burst in any::<u32>(),
        ) {
            let _ = Rate::per_second(count, burst).take(full, now);
        }
    }
}
