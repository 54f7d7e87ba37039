//! What waits to be revoked on one target: its queue, its pauses, its breaker. Plain data.
//!
//! `now` is the time since the session began: pauses must not stretch when the wall clock jumps.

use std::collections::{BTreeSet, VecDeque};
use std::time::Duration;

/// How many credentials one message ends: large enough to share a transaction, small enough that
/// one slow batch delays few.
pub(crate) const BATCH: usize = 50;

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

/// How far a lease's revocation has come. Nobody waits behind leases of another rank: what is slow with
/// some must not keep the access of others from ending.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Rank {
    /// Not tried yet.
    Fresh,
    /// Tried, and access may go on.
    Failing,
    /// Access has ended; something is left to be cleaned up.
    Cleaning,
}

impl Rank {
    const ALL: [Self; 3] = [Self::Fresh, Self::Failing, Self::Cleaning];

    /// Batches in flight on one target: one works while the next is on its way. Who fails goes one by
    /// one.
    const fn in_flight_max(self) -> u8 {
        match self {
            Self::Fresh | Self::Cleaning => 2,
            Self::Failing => 1,
        }
    }
}

/// Those of one rank that may go.
#[derive(Debug, Default)]
struct Queue {
    ready: VecDeque<u32>,
    in_flight: u8,
}

/// The leases of one target that are to be revoked, by their slot in the book.
#[derive(Debug, Default)]
pub(crate) struct Lane {
    fresh: Queue,
    failing: Queue,
    cleaning: Queue,
    waiting: BTreeSet<(Duration, u32, Rank)>,
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
    fn queue(&mut self, rank: Rank) -> &mut Queue {
        match rank {
            Rank::Fresh => &mut self.fresh,
            Rank::Failing => &mut self.failing,
            Rank::Cleaning => &mut self.cleaning,
        }
    }

    fn queues(&self) -> [&Queue; 3] {
        [&self.fresh, &self.failing, &self.cleaning]
    }

    fn in_flight(&self) -> u8 {
        self.queues().iter().map(|queue| queue.in_flight).sum()
    }

    /// Puts a lease at the end of its rank's queue.
    pub(crate) fn push(&mut self, slot: u32, rank: Rank) {
        self.queue(rank).ready.push_back(slot);
    }

    /// Lets a lease wait after so many failures.
    pub(crate) fn wait(&mut self, slot: u32, rank: Rank, failures: u32, now: Duration) {
        self.waiting.insert((now + pause(failures, LEASE_PAUSE_MAX), slot, rank));
    }

    /// Ends a lease's pause, if it has one.
    pub(crate) fn hurry(&mut self, slot: u32) {
        let found = self.waiting.iter().find(|(_, waiting, _)| *waiting == slot).copied();
        if let Some(entry) = found {
            self.waiting.remove(&entry);
            self.push(slot, entry.2);
        }
    }

    /// The next batch, if one may go now, all of one rank; `take` says of each slot whether it is still
    /// to be revoked at that rank, and whether it must go alone.
    pub(crate) fn next_batch(
        &mut self,
        now: Duration,
        mut take: impl FnMut(u32, Rank) -> Option<bool>,
    ) -> Option<(Rank, Vec<u32>)> {
        while let Some(entry) = self.waiting.first().copied().filter(|(at, ..)| *at <= now) {
            self.waiting.remove(&entry);
            self.push(entry.1, entry.2);
        }
        let limit = match &self.down {
            Some(down) if now < down.until || self.in_flight() > 0 => return None,
            Some(_) => 1,
            None => BATCH,
        };
        for rank in Rank::ALL {
            let queue = self.queue(rank);
            if queue.in_flight >= rank.in_flight_max() {
                continue;
            }
            let batch = queue.take(limit, |slot| take(slot, rank));
            if !batch.is_empty() {
                queue.in_flight += 1;
                return Some((rank, batch));
            }
        }
        None
    }

    fn came_back(&mut self, rank: Rank) {
        let queue = self.queue(rank);
        queue.in_flight = queue.in_flight.saturating_sub(1);
    }

    /// A batch came back with an answer: the target lives. Whoever waited for it is tried at once.
    pub(crate) fn answered(&mut self, rank: Rank) {
        self.came_back(rank);
        if self.down.take().is_some() {
            for (_, slot, rank) in std::mem::take(&mut self.waiting) {
                self.push(slot, rank);
            }
        }
    }

    /// A batch came back because the target does not answer.
    pub(crate) fn unanswered(&mut self, rank: Rank, now: Duration) {
        self.came_back(rank);
        let (since, failures) = match &self.down {
            // The second batch that was in flight when it went down says nothing new.
            Some(down) if now < down.until => return,
            Some(down) => (down.since, down.failures.saturating_add(1)),
            None => (now, 1),
        };
        self.down = Some(Down { since, until: now + pause(failures, TARGET_PAUSE_MAX), failures });
    }

    /// A batch came back, but the fault lies with its members.
    pub(crate) fn refused(&mut self, rank: Rank) {
        self.came_back(rank);
    }

    /// Whoever waits for the target, the last that came first.
    pub(crate) fn newest(&self, limit: usize) -> impl Iterator<Item = u32> {
        let ready = self.queues().into_iter().flat_map(|queue| queue.ready.iter().rev());
        ready.copied().take(limit)
    }

    /// How many wait here.
    pub(crate) fn waits(&self) -> usize {
        let ready: usize = self.queues().iter().map(|queue| queue.ready.len()).sum();
        ready + self.waiting.len()
    }

    /// How long the target has not answered, if it does not.
    pub(crate) fn down_for(&self, now: Duration) -> Option<Duration> {
        self.down.as_ref().map(|down| now.saturating_sub(down.since))
    }

    /// True if nothing waits here and nothing is on its way.
    pub(crate) fn is_idle(&self) -> bool {
        self.waits() == 0 && self.in_flight() == 0
    }
}

impl Queue {
    fn take(&mut self, limit: usize, mut take: impl FnMut(u32) -> Option<bool>) -> Vec<u32> {
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
        batch
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
        (0..count).for_each(|slot| lane.push(slot, Rank::Fresh));
        lane
    }

    fn next(lane: &mut Lane, now: Duration) -> Vec<u32> {
        lane.next_batch(now, |_, _| Some(false)).map(|(_, batch)| batch).unwrap_or_default()
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
        assert_eq!(next(&mut lane, NOW).len(), BATCH);
        assert_eq!(next(&mut lane, NOW).len(), BATCH);
        assert!(next(&mut lane, NOW).is_empty());
        lane.answered(Rank::Fresh);
        assert_eq!(next(&mut lane, NOW).len(), BATCH);
    }

    #[test]
    fn a_target_that_is_down_sees_one_probe_and_then_everything_at_once() {
        let mut lane = full(200);
        assert_eq!(next(&mut lane, NOW).len(), BATCH);
        lane.wait(900, Rank::Failing, 6, NOW);
        lane.unanswered(Rank::Fresh, NOW);
        assert!(next(&mut lane, NOW).is_empty());
        assert_eq!(next(&mut lane, at(1)).len(), 1);
        assert!(next(&mut lane, at(1)).is_empty());
        lane.answered(Rank::Fresh);
        assert_eq!(next(&mut lane, at(1)).len(), BATCH);
        assert_eq!(next(&mut lane, at(1)).len(), BATCH);
        assert!(lane.waiting.is_empty());
    }

    #[test]
    fn a_target_that_stays_down_is_probed_every_four_seconds_for_ever() {
        let mut lane = full(10_000);
        let mut probes = Vec::new();
        for secs in 0..3600 {
            if !next(&mut lane, at(secs)).is_empty() {
                probes.push(secs);
                lane.unanswered(Rank::Fresh, at(secs));
            }
        }
        assert_eq!(probes.get(..5).unwrap(), [0, 1, 3, 7, 11]);
        assert!(probes.last().is_some_and(|last| *last >= 3595));
    }

    #[test]
    fn who_must_go_alone_goes_alone() {
        let mut lane = full(6);
        let next = |lane: &mut Lane| lane.next_batch(NOW, |slot, _| Some(slot == 2)).unwrap().1;
        assert_eq!(next(&mut lane), [0, 1]);
        assert_eq!(next(&mut lane), [2]);
        lane.answered(Rank::Fresh);
        assert_eq!(next(&mut lane), [3, 4, 5]);
    }

    #[test]
    fn nobody_waits_behind_who_is_further() {
        let mut lane = Lane::default();
        for slot in 0..400 {
            lane.push(slot, if slot < 200 { Rank::Failing } else { Rank::Cleaning });
        }
        let next = |lane: &mut Lane| lane.next_batch(NOW, |_, _| Some(false)).map(|(rank, _)| rank);
        let ranks = [next(&mut lane), next(&mut lane), next(&mut lane), next(&mut lane)];
        let (failing, cleaning) = (Some(Rank::Failing), Some(Rank::Cleaning));
        assert_eq!(ranks, [failing, cleaning, cleaning, None]);
        lane.push(400, Rank::Fresh);
        assert_eq!(next(&mut lane), Some(Rank::Fresh));
        lane.answered(Rank::Failing);
        lane.push(401, Rank::Fresh);
        assert_eq!([next(&mut lane), next(&mut lane)], [Some(Rank::Fresh), failing]);
    }
}
