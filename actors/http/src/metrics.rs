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
    handshakes: [AtomicU64; HANDSHAKES.len()],
    handshakes_failed: AtomicU64,
}

/// Why a TLS handshake failed; its number is its place in [`HANDSHAKES`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Handshake {
    /// Not done in time.
    TimedOut,
    /// What came is no TLS.
    NotTls,
    /// No version, cipher or group that both have.
    NothingInCommon,
    /// The client said no, as it does to a certificate that it does not trust.
    RefusedByClient,
    /// The connection ended in the middle.
    BrokenOff,
    /// Anything else that breaks the rules of TLS.
    Wrong,
    /// None was begun: the address holds too many connections.
    TooMany,
}

/// See [`Handshake`].
const HANDSHAKES: [&str; 7] = [
    "timed_out",
    "not_tls",
    "nothing_in_common",
    "refused_by_client",
    "broken_off",
    "wrong",
    "too_many_connections",
];

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
        taken(UNWRITTEN.iter().map(|(_, name)| *name), &self.unwritten)
    }

    /// Counts a handshake that failed.
    pub(crate) fn handshake_failed(&self, why: Handshake) {
        self.handshakes_failed.fetch_add(1, Ordering::Relaxed);
        if let Some(counter) = self.handshakes.get(why as usize) {
            counter.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// How many handshakes failed, by reason, since this was asked last.
    pub(crate) fn take_handshakes(&self) -> Vec<(&'static str, u64)> {
        taken(HANDSHAKES.into_iter(), &self.handshakes)
    }

    /// Handshakes that failed.
    pub(crate) fn handshakes_failed(&self) -> u64 {
        self.handshakes_failed.load(Ordering::Relaxed)
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

/// What was counted under each name; the counters begin anew.
fn taken(
    names: impl Iterator<Item = &'static str>,
    counters: &[AtomicU64],
) -> Vec<(&'static str, u64)> {
    let taken =
        names.zip(counters).map(|(name, counter)| (name, counter.swap(0, Ordering::Relaxed)));
    taken.filter(|(_, number)| *number > 0).collect()
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

    #[test]
    fn handshakes_that_failed_are_told_once_by_reason_and_counted_for_ever() {
        let metrics = Metrics::default();
        for why in [Handshake::Wrong, Handshake::TimedOut, Handshake::NotTls, Handshake::NotTls] {
            metrics.handshake_failed(why);
        }
        assert_eq!(metrics.take_handshakes(), [("timed_out", 1), ("not_tls", 2), ("wrong", 1)]);
        assert_eq!(metrics.take_handshakes(), []);
        assert_eq!(metrics.handshakes_failed(), 4);
    }
}
