//! The book alone: any order of events, against what must hold of each lease.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use mssm_domain::{ConnectionId, LeaseState, Timestamp, TokenId};
use mssm_messages::engine::EngineKind;
use proptest::prelude::*;

use super::rig::mount;
use crate::book::{Batch, Book, Ending, Phase, Reply};
use crate::places::Place;

#[derive(Clone, Debug)]
enum Step {
    Add(u8),
    Made(u8),
    Extend(u8, u16),
    Extended(u8),
    End(u8),
    Wait(u16),
    Marked(u8),
    Pump,
    Return(usize, u8),
    Force(u8),
}

fn step() -> impl Strategy<Value = Step> {
    let lease = 0..6_u8;
    prop_oneof![
        lease.clone().prop_map(Step::Add),
        lease.clone().prop_map(Step::Made),
        (lease.clone(), any::<u16>()).prop_map(|(lease, ms)| Step::Extend(lease, ms)),
        lease.clone().prop_map(Step::Extended),
        lease.clone().prop_map(Step::End),
        any::<u16>().prop_map(Step::Wait),
        lease.clone().prop_map(Step::Marked),
        Just(Step::Pump),
        (any::<usize>(), 0..5_u8).prop_map(|(which, how)| Step::Return(which, how)),
        lease.prop_map(Step::Force),
    ]
}

pub(super) fn token(lease: u8) -> TokenId {
    TokenId::from_fingerprint([lease; 32])
}

pub(super) fn place(lease: u8) -> Place {
    let target = format!("00000000-0000-0000-0001-{:012}", lease % 2);
    Place {
        role: std::rc::Rc::from("app"),
        engine: EngineKind::Database,
        mount: mount(),
        target: ConnectionId::parse(&target).unwrap(),
    }
}

pub(super) fn name(lease: u8) -> String {
    format!("lease-{lease}")
}

/// What happens outside, and what was promised.
#[derive(Default)]
struct Model {
    book: Book,
    now_ms: u64,
    /// Leases with an operation outside: at most one each.
    outside: BTreeSet<String>,
    ending: BTreeSet<String>,
    ends: BTreeMap<String, Timestamp>,
    batches: Vec<Batch>,
}

impl Model {
    fn now(&self) -> Timestamp {
        Timestamp::from_unix_ms(self.now_ms)
    }

    fn uptime(&self) -> Duration {
        Duration::from_millis(self.now_ms)
    }

    fn begin_end(&mut self, id: &str) {
        self.ending.insert(id.to_owned());
        self.ends.remove(id);
    }

    fn forget(&mut self, id: &str) {
        self.ending.remove(id);
        self.ends.remove(id);
        self.book.remove(id);
    }

    fn pump(&mut self) {
        for batch in self.book.next_batches(self.uptime()) {
            for lease in &batch.leases {
                assert!(self.ending.contains(&**lease), "{lease} is revoked and not ending");
                assert!(self.outside.insert(lease.to_string()), "{lease} has two operations");
            }
            self.batches.push(batch);
        }
    }

    fn come_back(&mut self, which: usize, how: u8) {
        if self.batches.is_empty() {
            return;
        }
        let batch = self.batches.swap_remove(which % self.batches.len());
        let reply = match how {
            0 => Reply::Unanswered,
            1 => Reply::Refused,
            _ => Reply::Answered,
        };
        for (index, lease) in batch.leases.iter().enumerate() {
            self.outside.remove(&**lease);
            let gone = reply == Reply::Answered && (index % 2 == 0 || how > 2);
            if gone {
                self.forget(lease);
            } else if reply == Reply::Answered && index % 4 == 1 {
                self.book.unfinished(lease);
            } else {
                self.book.failed(lease, reply, index % 4 == 3, self.uptime());
            }
        }
        self.book.returned(&batch, reply, self.uptime());
    }

    fn apply(&mut self, step: &Step) {
        match *step {
            Step::Add(lease) => {
                let end = self.now().after(Duration::from_secs(5));
                if self.book.add_pending(&name(lease), place(lease), token(lease), end) {
                    self.outside.insert(name(lease));
                    self.ends.insert(name(lease), end);
                }
            }
            Step::Made(lease) => {
                if self.book.phase(&name(lease)).is_some()
                    && self.outside.contains(&name(lease))
                    && !self
                        .batches
                        .iter()
                        .any(|batch| batch.leases.iter().any(|l| **l == *name(lease)))
                {
                    self.outside.remove(&name(lease));
                    let handed_out = self.book.activate(&name(lease));
                    assert!(!handed_out || !self.ending.contains(&name(lease)));
                }
            }
            Step::Extend(lease, ms) => {
                if self.book.occupy(&name(lease)) {
                    assert!(self.outside.insert(name(lease)), "two operations");
                    let end = self.now().after(Duration::from_millis(ms.into()));
                    assert!(self.book.move_end(&name(lease), end));
                    self.ends.insert(name(lease), end);
                }
            }
            Step::Extended(lease) => {
                if self.outside.contains(&name(lease))
                    && self.book.phase(&name(lease)) != Some(Phase::Revoking)
                    && self.book.phase(&name(lease)) != Some(Phase::Pending)
                {
                    self.outside.remove(&name(lease));
                    self.book.release(&name(lease));
                }
            }
            Step::End(lease) => {
                let before = self.ending.contains(&name(lease));
                match self.book.end(&name(lease)) {
                    Ending::Begun => {
                        assert!(!before, "ended twice");
                        self.begin_end(&name(lease));
                    }
                    Ending::Already => assert!(before),
                    Ending::Unknown => assert!(!before),
                }
            }
            Step::Wait(ms) => {
                self.now_ms += u64::from(ms);
                for lease in self.book.take_due(self.now(), 100) {
                    let end = self.ends.get(&*lease).copied();
                    assert!(end.is_some_and(|end| end <= self.now()), "{lease} ended early");
                    self.begin_end(&lease);
                }
            }
            Step::Marked(lease) => self.book.marked(&name(lease)),
            Step::Pump => self.pump(),
            Step::Return(which, how) => self.come_back(which, how),
            Step::Force(lease) => {
                if self.ending.contains(&name(lease)) && self.book.force(&name(lease)) {
                    self.forget(&name(lease));
                }
            }
        }
    }

    fn check(&self) {
        let tally = self.book.tally();
        assert_eq!(tally.ending, self.ending.len() as u64);
        assert_eq!(tally.active + tally.pending, self.ends.len() as u64);
        assert!(self.book.overdue_count() <= tally.ending);
        let all = tally.active + tally.pending + tally.ending;
        assert_eq!(self.book.places().count_where(|_| true), all);
        let by_mount: u64 =
            self.book.places().active_by_mount().iter().map(|(_, count)| count).sum();
        assert_eq!(by_mount, tally.active);
    }
}

proptest! {
    /// Whatever happens in whatever order: one operation outside per lease, nothing ends early,
    /// nothing ending comes back, and in the end nothing is left.
    #[test]
    fn every_lease_ends_and_has_one_operation_at_a_time(
        steps in prop::collection::vec(step(), 0..120),
    ) {
        let mut model = Model::default();
        for step in &steps {
            model.apply(step);
            model.check();
        }
        // From here on everything succeeds.
        for _ in 0..200 {
            for lease in 0..6 {
                model.apply(&Step::Made(lease));
                model.apply(&Step::Extended(lease));
                model.apply(&Step::End(lease));
                model.apply(&Step::Marked(lease));
            }
            model.apply(&Step::Wait(1_000));
            model.apply(&Step::Pump);
            model.apply(&Step::Return(0, 4));
            model.check();
        }
        prop_assert!(model.ending.is_empty() && model.ends.is_empty() && model.outside.is_empty());
    }
}

#[test]
fn of_what_the_store_has_only_what_nobody_makes_any_more_is_to_be_marked() {
    let mut book = Book::default();
    let end = Timestamp::from_unix_ms(1000);
    let mut restore =
        |lease, state| book.restore(&name(lease), place(lease), token(lease), end, state);
    assert!(restore(0, LeaseState::Pending));
    assert!(!restore(0, LeaseState::Pending), "it is known already");
    assert!(!restore(1, LeaseState::Active));
    assert!(!restore(2, LeaseState::Ending));
    assert!(!restore(3, LeaseState::Ended));
    assert_eq!(book.phase(&name(3)), None);
}

#[test]
fn the_end_of_a_lease_that_is_ending_stays() {
    let mut book = Book::default();
    let (end, later) = (Timestamp::from_unix_ms(1000), Timestamp::from_unix_ms(2000));
    book.restore(&name(0), place(0), token(0), end, LeaseState::Active);
    assert!(book.move_end(&name(0), later));
    assert_eq!(book.ends_at(&name(0)), Some(later));
    book.end(&name(0));
    assert!(!book.move_end(&name(0), end));
    assert_eq!(book.ends_at(&name(0)), Some(later));
    assert!(!book.move_end("unknown", end));
}

#[test]
fn leases_are_counted_by_their_token_and_known_by_their_target() {
    let mut book = Book::default();
    let end = Timestamp::from_unix_ms(1000);
    for lease in 0..3 {
        book.restore(&name(lease), place(lease), token(7), end, LeaseState::Active);
    }
    assert_eq!((book.of_token(token(7)), book.of_token(token(8))), (3, 0));
    book.remove(&name(1));
    assert_eq!(book.of_token(token(7)), 2);
    assert_eq!(book.target(&name(2)), Some(place(2).target));
    assert_eq!(book.target(&name(1)), None);
}

#[test]
fn leases_are_listed_by_the_page_each_once() {
    let mut book = Book::default();
    let end = Timestamp::from_unix_ms(1000);
    for lease in 0..4 {
        book.restore(&name(lease), place(lease), token(lease), end, LeaseState::Active);
    }
    book.end(&name(1));
    book.remove(&name(2));
    let page = |from| {
        let (listed, next) = book.listed(from, 3);
        let shown =
            listed.into_iter().map(|lease| (lease.id.to_string(), lease.target, lease.active));
        (shown.collect::<Vec<_>>(), next)
    };
    let shown = |lease, active| (name(lease), Some(place(lease).target), active);
    assert_eq!(page(0), (vec![shown(0, true), shown(1, false)], Some(3)));
    assert_eq!(page(3), (vec![shown(3, true)], None));
    assert_eq!(page(1), (vec![shown(1, false), shown(3, true)], None));
    assert_eq!(page(9), (vec![], None));
}
