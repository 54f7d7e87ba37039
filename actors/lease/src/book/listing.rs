//! The book's leases, some at a time.

use std::rc::Rc;
use std::time::Duration;

use mssm_domain::ConnectionId;
use mssm_messages::lease::LaneView;

use super::{Book, Lane, Phase};

/// A lease as it is listed.
pub(crate) struct Listed {
    pub(crate) id: Rc<str>,
    pub(crate) target: Option<ConnectionId>,
    /// Handed out, and not ending.
    pub(crate) active: bool,
}

impl Book {
    /// The leases in so many places from one on, and where the next page begins. One that is there
    /// from the first page to the last is listed once.
    pub(crate) fn listed(&self, from: u32, places: u32) -> (Vec<Listed>, Option<u32>) {
        let end = from.saturating_add(places);
        let slots = (from..end).map_while(|slot| self.entries.get(super::index(slot)));
        let listed = slots.flatten().map(|entry| Listed {
            id: Rc::clone(&entry.id),
            target: self.places.place(entry.place).map(|place| place.target),
            active: entry.phase == Phase::Active,
        });
        (listed.collect(), (super::index(end) < self.entries.len()).then_some(end))
    }

    /// The leases whose end fails so far, the oldest first: since when, which, how often.
    pub(crate) fn overdue_first(&self, limit: usize) -> Vec<(Duration, Rc<str>, u16)> {
        let known = |(since, slot): (Duration, u32)| {
            self.entry(slot).map(|entry| (since, Rc::clone(&entry.id), entry.attempts))
        };
        self.overdue.oldest().filter_map(known).take(limit).collect()
    }

    /// How many leases' ends have failed, or wait for a target that does not answer.
    pub(crate) fn overdue_count(&self) -> u64 {
        self.overdue.count()
    }

    /// How long the oldest has failed, in seconds.
    pub(crate) fn overdue_secs(&self, uptime: Duration) -> u64 {
        let oldest = self.overdue.oldest().next();
        oldest.map_or(0, |(since, _)| uptime.saturating_sub(since).as_secs())
    }

    /// How the targets do where something waits.
    pub(crate) fn lane_views(&self, uptime: Duration) -> Vec<LaneView> {
        let view = |(target, lane): (&ConnectionId, &Lane)| LaneView {
            target: *target,
            waiting: lane.waits() as u64,
            down_secs: lane.down_for(uptime).map(|down| down.as_secs()),
        };
        let mut views: Vec<LaneView> = self.lanes.iter().map(view).collect();
        views.sort_by_key(|view| view.target);
        views
    }
}
