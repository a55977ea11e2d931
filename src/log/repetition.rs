//! Keeps a place that logs again and again from filling the log.
//!
//! A place is a line of the source. It may log [`LINES_MAX`] lines in [`WINDOW`]; what comes after is
//! counted, and a line says later how many were left out. What is logged at `debug` or `trace` was
//! asked for, and is never left out.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tracing::{Event, Level, Metadata, Subscriber};
use tracing_subscriber::layer::{Context, Filter};

/// Lines that one place may log in a window.
const LINES_MAX: u32 = 20;
/// How long a window lasts.
const WINDOW: Duration = Duration::from_secs(10);
/// Places that are told apart; later ones share one window.
const PLACES_MAX: usize = 256;

/// A place, as it stands in the source.
type Place = (&'static str, u32);

#[derive(Debug)]
struct Lines {
    target: &'static str,
    since: Instant,
    written: u32,
    left_out: u64,
}

/// What was left out at a place in a window that is over.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct LeftOut {
    /// The module.
    pub(super) target: &'static str,
    /// File and line.
    pub(super) place: String,
    /// How many lines.
    pub(super) count: u64,
}

/// The lines of all places in their windows.
#[derive(Default)]
pub(super) struct Repetition {
    places: Mutex<HashMap<Place, Lines>>,
    left_out: AtomicU64,
}

impl Repetition {
    /// Whether one more line of a place is written.
    fn admit(&self, place: Place, target: &'static str, now: Instant) -> bool {
        // Whoever holds the table is done in a moment; a line too many is better than a wait.
        let Ok(mut places) = self.places.try_lock() else {
            return true;
        };
        let place = if places.len() >= PLACES_MAX && !places.contains_key(&place) {
            ("elsewhere", 0)
        } else {
            place
        };
        let lines = places.entry(place).or_insert(Lines {
            target,
            since: now,
            written: 0,
            left_out: 0,
        });
        // A window with something to tell ends when it was told.
        if lines.left_out == 0 && now.saturating_duration_since(lines.since) >= WINDOW {
            (lines.since, lines.written) = (now, 0);
        }
        if lines.written < LINES_MAX {
            lines.written += 1;
            return true;
        }
        lines.left_out += 1;
        self.left_out.fetch_add(1, Ordering::Relaxed);
        false
    }

    /// What the windows left out that are over; they begin anew.
    pub(super) fn take(&self, now: Instant) -> Vec<LeftOut> {
        let Ok(mut places) = self.places.lock() else {
            return Vec::new();
        };
        let over = places.iter_mut().filter(|(_, lines)| {
            lines.left_out > 0 && now.saturating_duration_since(lines.since) >= WINDOW
        });
        over.map(|((file, line), lines)| {
            let count = std::mem::take(&mut lines.left_out);
            (lines.since, lines.written) = (now, 0);
            LeftOut {
                target: lines.target,
                place: format!("{file}:{line}"),
                count,
            }
        })
        .collect()
    }

    /// How many lines were left out in all.
    pub(super) fn total(&self) -> u64 {
        self.left_out.load(Ordering::Relaxed)
    }
}

/// The filter over a table that the writer has, too.
pub(super) struct Filtered(pub(super) Arc<Repetition>);

impl<S: Subscriber> Filter<S> for Filtered {
    fn enabled(&self, _: &Metadata<'_>, _: &Context<'_, S>) -> bool {
        true
    }

    fn event_enabled(&self, event: &Event<'_>, _: &Context<'_, S>) -> bool {
        let metadata = event.metadata();
        if *metadata.level() > Level::INFO {
            return true;
        }
        let (Some(file), Some(line)) = (metadata.file(), metadata.line()) else {
            return true;
        };
        self.0
            .admit((file, line), metadata.target(), Instant::now())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_that_repeats_itself_is_cut_short_and_told_of() {
        let repetition = Repetition::default();
        let start = Instant::now();
        let written = (0..100)
            .filter(|_| repetition.admit(("a.rs", 7), "a", start))
            .count();
        assert_eq!(written, LINES_MAX as usize);
        assert!(repetition.admit(("a.rs", 8), "a", start), "another place");
        assert_eq!(repetition.take(start + WINDOW / 2), []);
        let told = repetition.take(start + WINDOW);
        let expected = LeftOut {
            target: "a",
            place: "a.rs:7".to_owned(),
            count: 80,
        };
        assert_eq!(told, [expected]);
        assert!(repetition.admit(("a.rs", 7), "a", start + WINDOW));
        assert_eq!(repetition.total(), 80);
    }

    #[test]
    fn a_quiet_place_starts_a_new_window() {
        let repetition = Repetition::default();
        let start = Instant::now();
        for n in 0..5 {
            let now = start + WINDOW * n;
            assert!((0..LINES_MAX).all(|_| repetition.admit(("a.rs", 7), "a", now)));
        }
        assert_eq!(repetition.total(), 0);
    }

    #[test]
    fn the_table_is_bounded() {
        let repetition = Repetition::default();
        let now = Instant::now();
        for line in 0..10_000 {
            repetition.admit(("a.rs", line), "a", now);
        }
        let places = repetition.places.lock().expect("nobody panicked");
        assert_eq!(places.len(), PLACES_MAX + 1);
    }
}
