//! The book of leases: which there are, when each ends, what each waits for. Plain data.
//!
//! Little is kept per lease; all else is in its record. `Ending` is final here as in the store: no
//! call takes a lease from there to anywhere but out of the book. A lease has one operation outside
//! at a time: while it is being made or extended (`busy`), its revocation waits. Ends are judged
//! times (`timeline.rs`); pauses count from the session's beginning (`uptime`).

mod listing;
mod revoking;

use std::collections::HashMap;
use std::rc::Rc;

use mssm_domain::{ConnectionId, ExpiryIndex, LeaseState, MountId, Timestamp, TokenId};

pub(crate) use self::listing::Listed;
pub(crate) use self::revoking::{Batch, Reply};
use crate::holders::Holders;
use crate::lane::{Lane, Rank};
use crate::overdue::Overdue;
use crate::places::{Place, Places, change};

/// Where a lease is on its way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    /// Recorded; being made.
    Pending,
    /// Handed out.
    Active,
    /// To be ended; that is being written down.
    Marking,
    /// To be ended; waits until what is under way outside is over.
    Held,
    /// In its target's queue, or in a pause there.
    Queued,
    /// In a batch on its way, or gone outside or given up, and that is being written down.
    Revoking,
}

/// Kept small: there may be millions.
#[derive(Debug)]
struct Entry {
    id: Rc<str>,
    ends_at: Timestamp,
    place: u32,
    holder: u32,
    attempts: u16,
    phase: Phase,
    busy: bool,
    rank: Rank,
    alone: bool,
    forced: bool,
}

const _: () = assert!(size_of::<Option<Entry>>() <= 40);

/// How many leases are in which state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Tally {
    /// Handed out and alive.
    pub(crate) active: u64,
    /// Being made.
    pub(crate) pending: u64,
    /// Being revoked.
    pub(crate) ending: u64,
}

/// What [`Book::end`] found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ending {
    /// The book does not have it.
    Unknown,
    /// It is ending from now on; whoever called writes that down and says so by [`Book::marked`].
    Begun,
    /// It was ending before.
    Already,
}

/// All leases of this server.
#[derive(Debug, Default)]
pub(crate) struct Book {
    entries: Vec<Option<Entry>>,
    free: Vec<u32>,
    names: HashMap<Rc<str>, u32>,
    ends: ExpiryIndex<u32>,
    places: Places,
    holders: Holders,
    lanes: HashMap<ConnectionId, Lane>,
    overdue: Overdue,
    tally: Tally,
}

impl Book {
    /// Enters a lease that is about to be made; false if the name is taken.
    pub(crate) fn add_pending(
        &mut self,
        id: &str,
        place: Place,
        token: TokenId,
        ends_at: Timestamp,
    ) -> bool {
        self.add(id, place, token, ends_at, Phase::Pending)
    }

    /// Enters a lease that the store has; one that is known already stays as it is.
    ///
    /// True if it must be marked as ending, since nobody is making it any more.
    pub(crate) fn restore(
        &mut self,
        id: &str,
        place: Place,
        token: TokenId,
        ends_at: Timestamp,
        state: LeaseState,
    ) -> bool {
        let phase = match state {
            LeaseState::Pending => Phase::Marking,
            LeaseState::Active => Phase::Active,
            LeaseState::Ending => Phase::Queued,
            LeaseState::Ended => return false,
        };
        let added = self.add(id, place, token, ends_at, phase);
        added && phase == Phase::Marking
    }

    /// The lease was made and is handed out; false if it was ended meanwhile.
    pub(crate) fn activate(&mut self, id: &str) -> bool {
        let Some(slot) = self.slot(id) else { return false };
        let ends_at = match self.entry_mut(slot) {
            Some(entry) if entry.phase == Phase::Pending => entry.ends_at,
            _ => {
                self.release(id);
                return false;
            }
        };
        self.set_phase(slot, Phase::Active);
        self.ends.insert(slot, ends_at);
        self.release(id);
        true
    }

    /// Begins an operation outside on a living lease; false if there is one already or it is ending.
    pub(crate) fn occupy(&mut self, id: &str) -> bool {
        let slot = self.slot(id);
        match slot.and_then(|slot| self.entry_mut(slot)) {
            Some(entry) if entry.phase == Phase::Active && !entry.busy => {
                entry.busy = true;
                true
            }
            _ => false,
        }
    }

    /// The operation is over; an ending that waited for it goes on.
    pub(crate) fn release(&mut self, id: &str) {
        let Some(slot) = self.slot(id) else { return };
        let held = self.entry_mut(slot).is_some_and(|entry| {
            entry.busy = false;
            entry.phase == Phase::Held
        });
        if held {
            self.enqueue(slot);
        }
    }

    /// Moves the end of a living lease; false if it is ending.
    pub(crate) fn move_end(&mut self, id: &str, ends_at: Timestamp) -> bool {
        let Some(slot) = self.slot(id) else { return false };
        match self.entry_mut(slot) {
            Some(entry) if entry.phase == Phase::Active => entry.ends_at = ends_at,
            _ => return false,
        }
        self.ends.insert(slot, ends_at);
        true
    }

    /// Ends a lease; done twice is done once.
    pub(crate) fn end(&mut self, id: &str) -> Ending {
        let Some(slot) = self.slot(id) else { return Ending::Unknown };
        match self.entry_mut(slot).map(|entry| entry.phase) {
            Some(Phase::Pending | Phase::Active) => {
                self.ends.remove(&slot);
                self.set_phase(slot, Phase::Marking);
                Ending::Begun
            }
            Some(_) => Ending::Already,
            None => Ending::Unknown,
        }
    }

    /// Takes up to `limit` leases whose end has come; they are ending from now on.
    pub(crate) fn take_due(&mut self, now: Timestamp, limit: usize) -> Vec<Rc<str>> {
        let slots = self.ends.take_due(now, limit);
        let mut due = Vec::with_capacity(slots.len());
        for slot in slots {
            if let Some(id) = self.entry_mut(slot).map(|entry| Rc::clone(&entry.id)) {
                self.set_phase(slot, Phase::Marking);
                due.push(id);
            }
        }
        due
    }

    /// That it is ending is written down, or cannot be: its revocation may begin.
    pub(crate) fn marked(&mut self, id: &str) {
        let Some(slot) = self.slot(id) else { return };
        match self.entry_mut(slot) {
            Some(entry) if entry.phase == Phase::Marking => {
                if entry.busy {
                    entry.phase = Phase::Held;
                } else {
                    self.enqueue(slot);
                }
            }
            _ => {}
        }
    }

    /// Forgets a lease that has ended; true if it was known.
    pub(crate) fn remove(&mut self, id: &str) -> bool {
        let Some(slot) = self.names.remove(id) else { return false };
        let Some(entry) = self.entries.get_mut(index(slot)).and_then(Option::take) else {
            return false;
        };
        self.ends.remove(&slot);
        self.overdue.remove(slot);
        self.count(&entry, false);
        self.places.count(entry.place, false);
        self.holders.remove(entry.holder);
        self.free.push(slot);
        true
    }

    /// Where a lease is on its way, if it is known.
    pub(crate) fn phase(&self, id: &str) -> Option<Phase> {
        self.slot(id).and_then(|slot| self.entry(slot)).map(|entry| entry.phase)
    }

    /// When a lease ends, if it is known.
    pub(crate) fn ends_at(&self, id: &str) -> Option<Timestamp> {
        self.slot(id).and_then(|slot| self.entry(slot)).map(|entry| entry.ends_at)
    }

    /// How many are in which state.
    pub(crate) fn tally(&self) -> Tally {
        self.tally
    }

    /// How many leases a token has, in any state.
    pub(crate) fn of_token(&self, token: TokenId) -> u32 {
        self.holders.count(token)
    }

    /// Where leases are, and how many.
    pub(crate) fn places(&self) -> &Places {
        &self.places
    }

    /// What a lease's revocation fails together with, if it is known.
    pub(crate) fn target(&self, id: &str) -> Option<ConnectionId> {
        let entry = self.slot(id).and_then(|slot| self.entry(slot))?;
        self.places.place(entry.place).map(|place| place.target)
    }

    /// The leases of a mount, in any state.
    pub(crate) fn of_mount(&self, mount: MountId) -> Vec<Rc<str>> {
        let of_mount = |entry: &&Entry| {
            self.places.place(entry.place).is_some_and(|place| place.mount == mount)
        };
        let entries = self.entries.iter().flatten().filter(of_mount);
        entries.map(|entry| Rc::clone(&entry.id)).collect()
    }

    fn add(
        &mut self,
        id: &str,
        place: Place,
        token: TokenId,
        ends_at: Timestamp,
        phase: Phase,
    ) -> bool {
        if self.names.contains_key(id) {
            return false;
        }
        let id: Rc<str> = Rc::from(id);
        let place = self.places.number(place);
        let entry = Entry {
            id: Rc::clone(&id),
            ends_at,
            place,
            holder: self.holders.add(token),
            attempts: 0,
            phase,
            // What is pending is being made.
            busy: phase == Phase::Pending,
            rank: Rank::Fresh,
            alone: false,
            forced: false,
        };
        self.places.count(place, true);
        self.count(&entry, true);
        let slot = self.free.pop().unwrap_or_else(|| {
            self.entries.push(None);
            u32::try_from(self.entries.len() - 1).unwrap_or(u32::MAX)
        });
        if let Some(free) = self.entries.get_mut(index(slot)) {
            *free = Some(entry);
        }
        self.names.insert(id, slot);
        match phase {
            Phase::Active => self.ends.insert(slot, ends_at),
            Phase::Queued => self.enqueue(slot),
            _ => {}
        }
        true
    }

    fn enqueue(&mut self, slot: u32) {
        let Some(entry) = self.entry_mut(slot) else { return };
        entry.phase = Phase::Queued;
        let (place, rank) = (entry.place, entry.rank);
        if let Some(lane) = self.lane(place) {
            lane.push(slot, rank);
        }
    }

    /// Moves a lease to another phase and keeps the tally.
    fn set_phase(&mut self, slot: u32, phase: Phase) {
        let Some(mut entry) = self.entries.get_mut(index(slot)).and_then(Option::take) else {
            return;
        };
        self.count(&entry, false);
        entry.phase = phase;
        self.count(&entry, true);
        if let Some(place) = self.entries.get_mut(index(slot)) {
            *place = Some(entry);
        }
    }

    fn count(&mut self, entry: &Entry, comes: bool) {
        match entry.phase {
            Phase::Pending => change(&mut self.tally.pending, comes),
            Phase::Active => {
                change(&mut self.tally.active, comes);
                self.places.count_active(entry.place, comes);
            }
            _ => change(&mut self.tally.ending, comes),
        }
    }

    /// The queue of a place's target. Every place that an entry names is there.
    fn lane(&mut self, place: u32) -> Option<&mut Lane> {
        let target = self.places.place(place)?.target;
        Some(self.lanes.entry(target).or_default())
    }

    fn slot(&self, id: &str) -> Option<u32> {
        self.names.get(id).copied()
    }

    fn entry(&self, slot: u32) -> Option<&Entry> {
        self.entries.get(index(slot)).and_then(Option::as_ref)
    }

    fn entry_mut(&mut self, slot: u32) -> Option<&mut Entry> {
        entry_at(&mut self.entries, slot)
    }
}

fn entry_at(entries: &mut [Option<Entry>], slot: u32) -> Option<&mut Entry> {
    entries.get_mut(index(slot)).and_then(Option::as_mut)
}

const fn index(slot: u32) -> usize {
    slot as usize
}
