//! What waits to be revoked on one target: its queue, its pauses, its breaker. Plain data.
//!
//! `now` is the time since the session began: pauses must not stretch when the wall clock jumps.

use std::collections::{BTreeSet, VecDeque};
use std::time::Duration;

/// How many credentials one message ends: large enough to share a transaction, small enough that
/// one slow batch delays few.
pub(crate) const BATCH: usize = 50;

/// Batches in flight on one target: one works while the next is on its way.
const IN_FLIGHT_MAX: u8 = 2;

/// The longest pause of one lease that fails while its target answers.
const LEASE_PAUSE_MAX: Duration = Duration::from_mins(1);

/// The longest pause of a target that does not answer. One probe costs one connection attempt, and
/// what is overdue must end within 5 s of the target's return.
const TARGET_PAUSE_MAX: Duration = Duration::from_secs(4);

/// The pause after so many failures in a row: 1 s, 2 s, 4 s and so on up to `longest`.
fn pause(failures: u32, longest: Duration) -> Duration {
    let doubled = 1_u64.checked_shl(failures.saturating_sub(1).min(32)).unwrap_or(u64::MAX);
    Duration::from_secs(doubled).min(longest)
}

/// The leases of one target that are to be revoked, by their slot in the book.
#[derive(Debug, Default)]
pub(crate) struct Lane {
    ready: VecDeque<u32>,
    waiting: BTreeSet<(Duration, u32)>,
    in_flight: u8,
    down: Option<Down>,
}

/// The target does not answer: everybody waits together, one lease at a time asks.
#[derive(Debug)]
struct Down {
    since: Duration,
    until: Duration,
    failures: u32,
}

impl Lane {
    /// Puts a lease at the end of the queue.
    pub(crate) fn push(&mut self, slot: u32) {
        self.ready.push_back(slot);
    }

    /// Lets a lease wait after so many failures.
    pub(crate) fn wait(&mut self, slot: u32, failures: u32, now: Duration) {
        self.waiting.insert((now + pause(failures, LEASE_PAUSE_MAX), slot));
    }

    /// Ends a lease's pause, if it has one.
    pub(crate) fn hurry(&mut self, slot: u32) {
        let found = self.waiting.iter().find(|(_, waiting)| *waiting == slot).copied();
        if let Some(entry) = found {
            self.waiting.remove(&entry);
            self.ready.push_back(slot);
        }
    }

    /// The next batch, if one may go now; `take` says of each slot whether it is still to be
    /// revoked, and whether it must go alone.
    pub(crate) fn next_batch(
        &mut self,
        now: Duration,
        mut take: impl FnMut(u32) -> Option<bool>,
    ) -> Vec<u32> {
        while let Some(entry) = self.waiting.first().copied().filter(|(at, _)| *at <= now) {
            self.waiting.remove(&entry);
            self.ready.push_back(entry.1);
        }
        let (limit, in_flight_max) = match &self.down {
            Some(down) if now < down.until => return Vec::new(),
            Some(_) => (1, 1),
            None => (BATCH, IN_FLIGHT_MAX),
        };
        if self.in_flight >= in_flight_max {
            return Vec::new();
        }
        let mut batch = Vec::new();
        while batch.len() < limit {
            let Some(slot) = self.ready.pop_front() else { break };
            // A slot that was freed while it stood here, and taken again, stands here twice.
            if batch.contains(&slot) {
                continue;
            }
            match take(slot) {
                None => {}
                Some(true) if batch.is_empty() => {
                    batch.push(slot);
                    break;
                }
                Some(true) => {
                    self.ready.push_front(slot);
                    break;
                }
                Some(false) => batch.push(slot),
            }
        }
        if !batch.is_empty() {
            self.in_flight += 1;
        }
        batch
    }

    /// A batch came back with an answer: the target lives. Whoever waited for it is tried at once.
    pub(crate) fn answered(&mut self) {
        self.in_flight = self.in_flight.saturating_sub(1);
        if self.down.take().is_some() {
            let waiting = std::mem::take(&mut self.waiting);
            self.ready.extend(waiting.into_iter().map(|(_, slot)| slot));
        }
    }

    /// A batch came back because the target does not answer.
    pub(crate) fn unanswered(&mut self, now: Duration) {
        self.in_flight = self.in_flight.saturating_sub(1);
        let (since, failures) = match &self.down {
            // The second batch that was in flight when it went down says nothing new.
            Some(down) if now < down.until => return,
            Some(down) => (down.since, down.failures.saturating_add(1)),
            None => (now, 1),
        };
        self.down = Some(Down { since, until: now + pause(failures, TARGET_PAUSE_MAX), failures });
    }

    /// A batch came back, but the fault lies with its members.
    pub(crate) fn refused(&mut self) {
        self.in_flight = self.in_flight.saturating_sub(1);
    }

    /// Whoever waits for the target, the last that came first.
    pub(crate) fn newest(&self, limit: usize) -> impl Iterator<Item = u32> {
        self.ready.iter().rev().copied().take(limit)
    }

    /// How many wait here.
    pub(crate) fn waits(&self) -> usize {
        self.ready.len() + self.waiting.len()
    }

    /// How long the target has not answered, if it does not.
    pub(crate) fn down_for(&self, now: Duration) -> Option<Duration> {
        self.down.as_ref().map(|down| now.saturating_sub(down.since))
    }

    /// True if nothing waits here and nothing is on its way.
    pub(crate) fn is_idle(&self) -> bool {
        self.ready.is_empty() && self.waiting.is_empty() && self.in_flight == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Duration = Duration::ZERO;

    fn at(secs: u64) -> Duration {
        Duration::from_secs(secs)
    }

    fn full(count: u32) -> Lane {
        let mut lane = Lane::default();
        (0..count).for_each(|slot| lane.push(slot));
        lane
    }

    #[test]
    fn pauses_double_up_to_their_bound_and_never_end() {
        let secs: Vec<u64> =
            [1, 2, 3, 6, 7, 8, 40, u32::MAX].map(|n| pause(n, LEASE_PAUSE_MAX).as_secs()).into();
        assert_eq!(secs, [1, 2, 4, 32, 60, 60, 60, 60]);
    }

    #[test]
    fn at_most_two_batches_are_in_flight() {
        let mut lane = full(200);
        assert_eq!(lane.next_batch(NOW, |_| Some(false)).len(), BATCH);
        assert_eq!(lane.next_batch(NOW, |_| Some(false)).len(), BATCH);
        assert!(lane.next_batch(NOW, |_| Some(false)).is_empty());
        lane.answered();
        assert_eq!(lane.next_batch(NOW, |_| Some(false)).len(), BATCH);
    }

    #[test]
    fn a_target_that_is_down_sees_one_probe_and_then_everything_at_once() {
        let mut lane = full(200);
        assert_eq!(lane.next_batch(NOW, |_| Some(false)).len(), BATCH);
        lane.wait(900, 6, NOW);
        lane.unanswered(NOW);
        assert!(lane.next_batch(NOW, |_| Some(false)).is_empty());
        assert_eq!(lane.next_batch(at(1), |_| Some(false)).len(), 1);
        assert!(lane.next_batch(at(1), |_| Some(false)).is_empty());
        lane.answered();
        assert_eq!(lane.next_batch(at(1), |_| Some(false)).len(), BATCH);
        assert_eq!(lane.next_batch(at(1), |_| Some(false)).len(), BATCH);
        assert!(lane.waiting.is_empty());
    }

    #[test]
    fn a_target_that_stays_down_is_probed_every_four_seconds_for_ever() {
        let mut lane = full(10_000);
        let mut probes = Vec::new();
        for secs in 0..3600 {
            if !lane.next_batch(at(secs), |_| Some(false)).is_empty() {
                probes.push(secs);
                lane.unanswered(at(secs));
            }
        }
        assert_eq!(probes.get(..5).unwrap(), [0, 1, 3, 7, 11]);
        assert!(probes.last().is_some_and(|last| *last >= 3595));
    }

    #[test]
    fn who_must_go_alone_goes_alone() {
        let mut lane = full(6);
        let alone = |slot| Some(slot == 2);
        assert_eq!(lane.next_batch(NOW, alone), [0, 1]);
        assert_eq!(lane.next_batch(NOW, alone), [2]);
        lane.answered();
        assert_eq!(lane.next_batch(NOW, alone), [3, 4, 5]);
    }
}
