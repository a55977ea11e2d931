//! Judges deliveries: each receiver gets each sender's messages once, in order, without a gap. Pure.

use std::collections::BTreeSet;

/// What went wrong, in deliveries.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize)]
pub struct Faults {
    /// Never came.
    pub lost: u64,
    /// Came again.
    pub repeated: u64,
    /// Came after a later one.
    pub reordered: u64,
}

/// What each receiver has got of each sender of its room.
#[derive(Debug)]
pub(super) struct Ledger {
    senders: usize,
    /// The number that comes next, by receiver and sender.
    next: Vec<u32>,
    /// What was passed over.
    missing: BTreeSet<(usize, u32)>,
    faults: Faults,
}

impl Ledger {
    pub(super) fn new(receivers: usize, senders: usize) -> Self {
        Self {
            senders,
            next: vec![1; receivers * senders],
            missing: BTreeSet::new(),
            faults: Faults::default(),
        }
    }

    /// Notes a delivery; whether it is one that was still owed.
    pub(super) fn receive(&mut self, receiver: usize, sender: usize, number: u32) -> bool {
        let place = receiver * self.senders + sender;
        let next = self.next[place];
        if number == next {
            self.next[place] += 1;
            return true;
        }
        if number > next {
            let passed = (next..number).map(|number| (place, number));
            self.missing.extend(passed);
            self.next[place] = number + 1;
            return true;
        }
        let late = self.missing.remove(&(place, number));
        if late {
            self.faults.reordered += 1;
        } else {
            self.faults.repeated += 1;
        }
        late
    }

    /// The sum, when `sent` of each sender should have come to every receiver of its room.
    pub(super) fn close(&self, sent: impl Fn(usize, usize) -> u32) -> Faults {
        let unseen = self.next.iter().enumerate().map(|(place, next)| {
            let sent = sent(place / self.senders, place % self.senders);
            u64::from((sent + 1).saturating_sub(*next))
        });
        Faults {
            lost: self.missing.len() as u64 + unseen.sum::<u64>(),
            ..self.faults
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tells_lost_repeated_and_reordered_apart() {
        let mut ledger = Ledger::new(2, 1);
        let taken: Vec<bool> = [1, 2, 4, 3, 3, 6]
            .map(|number| ledger.receive(0, 0, number))
            .to_vec();
        assert_eq!(taken, [true, true, true, true, false, true]);
        (1..=7).for_each(|number| {
            ledger.receive(1, 0, number);
        });
        let expected = Faults {
            lost: 2,
            repeated: 1,
            reordered: 1,
        };
        assert_eq!(ledger.close(|_, _| 7), expected);
    }
}
