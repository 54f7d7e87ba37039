//! Counters of the front door itself.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Requests by the first digit of their status, and how long they took.
#[derive(Debug, Default)]
pub(crate) struct Metrics {
    by_class: [AtomicU64; 6],
    micros: AtomicU64,
    panics: AtomicU64,
    turned_away: AtomicU64,
    unwritten: [AtomicU64; UNWRITTEN.len()],
}

/// Refusals that no line of the audit log is written for, by their status: anybody may cause them.
const UNWRITTEN: [(u16, &str); 5] = [
    (400, "malformed"),
    (404, "no_such_path"),
    (405, "wrong_verb"),
    (413, "too_large"),
    (429, "too_many"),
];

impl Metrics {
    /// Counts an answer.
    pub(crate) fn count(&self, status: u16, took: Duration) {
        if let Some(counter) = self.by_class.get(usize::from(status / 100)) {
            counter.fetch_add(1, Ordering::Relaxed);
        }
        let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        self.micros.fetch_add(micros, Ordering::Relaxed);
    }

    /// Counts a request that came too fast.
    pub(crate) fn turned_away(&self, took: Duration) {
        self.turned_away.fetch_add(1, Ordering::Relaxed);
        self.count(429, took);
    }

    /// Counts a refusal that is not written down by itself.
    pub(crate) fn refused(&self, status: u16) {
        let counters = UNWRITTEN.iter().zip(&self.unwritten);
        if let Some((_, counter)) = { counters }.find(|((known, _), _)| *known == status) {
            counter.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// How many refusals of each kind were not written down since this was asked last.
    pub(crate) fn take_refused(&self) -> Vec<(&'static str, u64)> {
        let counters = UNWRITTEN.iter().zip(&self.unwritten);
        let taken =
            counters.map(|((_, name), counter)| (*name, counter.swap(0, Ordering::Relaxed)));
        taken.filter(|(_, number)| *number > 0).collect()
    }

    /// Requests that came too fast.
    pub(crate) fn too_fast(&self) -> u64 {
        self.turned_away.load(Ordering::Relaxed)
    }

    /// Counts a panic that was caught.
    pub(crate) fn panicked(&self) {
        self.panics.fetch_add(1, Ordering::Relaxed);
    }

    /// Answers by class, as `2xx`.
    pub(crate) fn classes(&self) -> impl Iterator<Item = (usize, u64)> {
        self.by_class.iter().map(|counter| counter.load(Ordering::Relaxed)).enumerate().skip(2)
    }

    /// Seconds spent on all requests together.
    pub(crate) fn seconds(&self) -> f64 {
        Duration::from_micros(self.micros.load(Ordering::Relaxed)).as_secs_f64()
    }

    /// Panics that were caught.
    pub(crate) fn panics(&self) -> u64 {
        self.panics.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_are_told_once_by_kind_however_many_there_are() {
        let metrics = Metrics::default();
        for status in [413, 429, 429, 500, 200] {
            metrics.refused(status);
        }
        assert_eq!(metrics.take_refused(), [("too_large", 1), ("too_many", 2)]);
        assert_eq!(metrics.take_refused(), []);
    }
}
