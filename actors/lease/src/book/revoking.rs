//! The book's ending half: what goes out in batches, and what became of it.

use std::rc::Rc;
use std::time::Duration;

use mssm_domain::ConnectionId;
use mssm_messages::engine::EngineKind;

use super::{Book, Phase, entry_at};
use crate::lane::Rank;

/// Leases that are noted to be overdue whenever their target does not answer: those that came last.
const NOTED_MAX: usize = 50_000;

/// Credentials to end together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Batch {
    /// Where.
    pub(crate) engine: EngineKind,
    /// What they fail together with.
    pub(crate) target: ConnectionId,
    /// How far they all are.
    pub(crate) rank: Rank,
    /// Whose.
    pub(crate) leases: Vec<Rc<str>>,
}

/// What came of a batch as a whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reply {
    /// The target answered, one outcome each.
    Answered,
    /// The target does not answer: all of its leases wait together.
    Unanswered,
    /// Something else: its members are tried one by one.
    Refused,
}

impl Book {
    /// Ends the pause of a lease that is to be tried at once.
    pub(crate) fn hurry(&mut self, id: &str) {
        let Some(slot) = self.slot(id) else { return };
        let Some(place) = self.entry(slot).map(|entry| entry.place) else { return };
        if let Some(lane) = self.lane(place) {
            lane.hurry(slot);
        }
    }

    /// The next batch of each target that may have one now.
    pub(crate) fn next_batches(&mut self, uptime: Duration) -> Vec<Batch> {
        let (entries, places) = (&mut self.entries, &self.places);
        let mut batches = Vec::new();
        for (target, lane) in &mut self.lanes {
            loop {
                let mut engine = None;
                let mut leases = Vec::new();
                let batch = lane.next_batch(uptime, |slot, rank| {
                    let entry = entry_at(entries, slot)?;
                    let place = places.place(entry.place)?;
                    // A name that another lease has taken over meanwhile, or one that has left.
                    let here = place.target == *target && entry.rank == rank;
                    if entry.phase != Phase::Queued || !here {
                        return None;
                    }
                    Some(entry.alone || engine.is_some_and(|engine| engine != place.engine))
                        .inspect(|_| engine = engine.or(Some(place.engine)))
                });
                let Some((rank, batch)) = batch else { break };
                for slot in batch {
                    if let Some(entry) = entry_at(entries, slot) {
                        entry.phase = Phase::Revoking;
                        leases.push(Rc::clone(&entry.id));
                    }
                }
                let Some(engine) = engine.filter(|_| !leases.is_empty()) else { break };
                batches.push(Batch { engine, target: *target, rank, leases });
            }
        }
        self.lanes.retain(|_, lane| !lane.is_idle());
        batches
    }

    /// A batch came back; what became of its members is told one by one before this.
    pub(crate) fn returned(&mut self, batch: &Batch, reply: Reply, uptime: Duration) {
        let lane = self.lanes.entry(batch.target).or_default();
        match reply {
            Reply::Answered => lane.answered(batch.rank),
            Reply::Unanswered => {
                lane.unanswered(batch.rank, uptime);
                for slot in lane.newest(NOTED_MAX) {
                    let entry = entry_at(&mut self.entries, slot);
                    if entry.is_some_and(|entry| entry.phase == Phase::Queued) {
                        self.overdue.add(slot, uptime);
                    }
                }
            }
            Reply::Refused => lane.refused(batch.rank),
        }
    }

    /// Access has ended, and what else there is was not begun: that comes next.
    pub(crate) fn unfinished(&mut self, id: &str) {
        let Some(slot) = self.slot(id) else { return };
        let Some(entry) = self.entry_mut(slot).filter(|entry| entry.phase == Phase::Revoking)
        else {
            return;
        };
        (entry.phase, entry.rank) = (Phase::Queued, Rank::Cleaning);
        let place = entry.place;
        if let Some(lane) = self.lane(place) {
            lane.push(slot, Rank::Cleaning);
        }
    }

    /// True if nobody has access by the lease any more, whatever is left of it.
    pub(crate) fn access_ended(&self, id: &str) -> bool {
        let entry = self.slot(id).and_then(|slot| self.entry(slot));
        entry.is_none_or(|entry| entry.rank == Rank::Cleaning)
    }

    /// A lease's revocation failed, so many times in a row now; it is tried again after a pause, or
    /// as soon as its target answers if that is why. `ended` says that access has ended.
    pub(crate) fn failed(&mut self, id: &str, reply: Reply, ended: bool, uptime: Duration) -> u16 {
        let Some(slot) = self.slot(id) else { return 0 };
        let Some(entry) = self.entry_mut(slot) else { return 0 };
        if entry.phase != Phase::Revoking {
            return entry.attempts;
        }
        entry.phase = Phase::Queued;
        entry.attempts = entry.attempts.saturating_add(1);
        entry.alone = reply == Reply::Refused;
        entry.rank = match reply {
            Reply::Answered if ended => Rank::Cleaning,
            Reply::Answered => Rank::Failing,
            // Nothing is known that was not before.
            Reply::Refused => entry.rank.max(Rank::Failing),
            Reply::Unanswered => entry.rank,
        };
        let (attempts, place, rank) = (entry.attempts, entry.place, entry.rank);
        if attempts == 1 {
            self.overdue.add(slot, uptime);
        }
        if let Some(lane) = self.lane(place) {
            match reply {
                Reply::Unanswered => lane.push(slot, rank),
                Reply::Answered | Reply::Refused => {
                    lane.wait(slot, rank, attempts.into(), uptime);
                }
            }
        }
        attempts
    }

    /// Gives up what is left outside, since somebody said so; true if the lease can end now, false
    /// if it ends when what is on its way comes back.
    pub(crate) fn force(&mut self, id: &str) -> bool {
        let Some(slot) = self.slot(id) else { return false };
        let Some(entry) = self.entry_mut(slot) else { return false };
        entry.forced = true;
        let idle = entry.phase == Phase::Queued;
        if idle {
            entry.phase = Phase::Revoking;
        }
        idle
    }

    /// True if what is left of it outside has been given up.
    pub(crate) fn is_forced(&self, id: &str) -> bool {
        self.slot(id).and_then(|slot| self.entry(slot)).is_some_and(|entry| entry.forced)
    }
}
