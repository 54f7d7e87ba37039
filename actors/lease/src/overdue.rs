//! Revocations that fail so far: since when, and why. The oldest first.

use std::collections::hash_map::Entry;
use std::collections::{BTreeSet, HashMap};
use std::rc::Rc;
use std::time::Duration;

use actix::{Handler, ResponseFuture};
use mssm_domain::LeaseId;
use mssm_messages::lease::{LeaseError, ListOverdue, OverdueLease};

use crate::manager::LeaseManager;
use crate::session::Session;

/// Since when each fails, or waits for a target that does not answer: the seconds of the session's
/// time, by its place in the book. Kept small: there may be millions.
#[derive(Debug, Default)]
pub(crate) struct Overdue {
    since: HashMap<u32, u32>,
    order: BTreeSet<(u32, u32)>,
}

impl Overdue {
    /// A revocation failed, or its target did not answer.
    pub(crate) fn add(&mut self, slot: u32, now: Duration) {
        let now = u32::try_from(now.as_secs()).unwrap_or(u32::MAX);
        if let Entry::Vacant(entry) = self.since.entry(slot) {
            entry.insert(now);
            self.order.insert((now, slot));
        }
    }

    /// How many there are.
    pub(crate) fn count(&self) -> u64 {
        self.since.len() as u64
    }

    /// It came through.
    pub(crate) fn remove(&mut self, slot: u32) {
        if let Some(since) = self.since.remove(&slot) {
            self.order.remove(&(since, slot));
        }
    }

    /// The oldest first.
    pub(crate) fn oldest(&self) -> impl Iterator<Item = (Duration, u32)> {
        self.order.iter().map(|(since, slot)| (Duration::from_secs((*since).into()), *slot))
    }
}

async fn list(session: Rc<Session>, ask: ListOverdue) -> Result<Vec<OverdueLease>, LeaseError> {
    let now = session.uptime();
    let oldest = session.book.borrow().overdue_first(ask.limit);
    let mut overdue = Vec::with_capacity(oldest.len());
    for (since, id, attempts) in oldest {
        let Ok(lease) = LeaseId::parse(&id) else { continue };
        let record = session.read(&id).await.ok().flatten().map(|(_, record)| record);
        let (name, error) = record.map_or_else(Default::default, |one| (one.name, one.error));
        let secs = now.saturating_sub(since).as_secs();
        overdue.push(OverdueLease { lease, name, attempts, secs, error });
    }
    Ok(overdue)
}

impl Handler<ListOverdue> for LeaseManager {
    type Result = ResponseFuture<Result<Vec<OverdueLease>, LeaseError>>;

    fn handle(&mut self, msg: ListOverdue, _ctx: &mut Self::Context) -> Self::Result {
        self.serve(|session| list(session, msg))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_comes_first_and_a_second_failure_makes_none_younger() {
        let secs = Duration::from_secs;
        let mut overdue = Overdue::default();
        for (slot, at) in [(7, 3), (5, 1), (5, 9), (6, 2)] {
            overdue.add(slot, secs(at));
        }
        overdue.remove(6);
        assert_eq!(overdue.oldest().collect::<Vec<_>>(), [(secs(1), 5), (secs(3), 7)]);
    }
}
