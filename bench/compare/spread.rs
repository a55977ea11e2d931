//! What some runs come to.

use serde::Serialize;

use crate::number::number;

/// The least, the median and the most of some runs.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub(crate) struct Spread {
    pub(crate) min: f64,
    pub(crate) median: f64,
    pub(crate) max: f64,
    /// How many runs gave a figure.
    pub(crate) runs: usize,
}

impl Spread {
    /// `None` of no runs.
    pub(crate) fn of(mut values: Vec<f64>) -> Option<Self> {
        values.sort_by(f64::total_cmp);
        // Of an even number two are in the middle.
        let middle = [(values.len().checked_sub(1)?) / 2, values.len() / 2];
        Some(Self {
            min: *values.first()?,
            median: f64::midpoint(values[middle[0]], values[middle[1]]),
            max: *values.last()?,
            runs: values.len(),
        })
    }

    /// For a table of so many rounds: the figure alone when there is one round, and marked when a run has
    /// failed or was not sound.
    pub(crate) fn shown(&self, rounds: usize) -> String {
        let median = number(self.median);
        if rounds == 1 {
            return median;
        }
        let (min, max) = (number(self.min), number(self.max));
        let mark = if self.runs < rounds {
            format!(" ({} of {rounds} runs)", self.runs)
        } else {
            String::new()
        };
        format!("{min}–**{median}**–{max}{mark}")
    }
}
