//! The book's leases, some at a time.

use std::rc::Rc;

use mssm_domain::ConnectionId;

use super::{Book, Phase};

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
}
