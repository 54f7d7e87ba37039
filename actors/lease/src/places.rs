//! Where credentials are, each place kept once, and how many leases it has.

use std::collections::HashMap;
use std::rc::Rc;

use mssm_domain::{ConnectionId, MountId};
use mssm_messages::engine::EngineKind;

use crate::record::LeaseRecord;

/// Where a credential is: shared by many leases, so kept once.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Place {
    /// Who makes and ends it.
    pub(crate) engine: EngineKind,
    /// The mount that was asked.
    pub(crate) mount: MountId,
    /// What fails together.
    pub(crate) target: ConnectionId,
    /// The role that was asked for.
    pub(crate) role: Rc<str>,
}

impl Place {
    /// Where a lease's credential is.
    pub(crate) fn of(record: &LeaseRecord) -> Self {
        Self {
            engine: record.engine,
            mount: record.mount,
            target: record.target,
            role: Rc::from(record.role.as_str()),
        }
    }
}

/// One place and its leases.
#[derive(Debug)]
struct Tenants {
    place: Place,
    all: u64,
    active: u64,
}

/// All places that a lease was ever at since the server opened; few.
#[derive(Debug, Default)]
pub(crate) struct Places {
    tenants: Vec<Tenants>,
    numbers: HashMap<Place, u32>,
}

impl Places {
    /// The number of a place, by which leases name it.
    pub(crate) fn number(&mut self, place: Place) -> u32 {
        let next = u32::try_from(self.tenants.len()).unwrap_or(u32::MAX);
        let number = *self.numbers.entry(place.clone()).or_insert(next);
        if number == next {
            self.tenants.push(Tenants { place, all: 0, active: 0 });
        }
        number
    }

    /// The place of a number.
    pub(crate) fn place(&self, number: u32) -> Option<&Place> {
        self.tenants.get(number as usize).map(|tenants| &tenants.place)
    }

    /// A lease came to a place, or left it.
    pub(crate) fn count(&mut self, number: u32, comes: bool) {
        if let Some(tenants) = self.tenants.get_mut(number as usize) {
            change(&mut tenants.all, comes);
        }
    }

    /// A lease at a place began to be alive, or ceased to be.
    pub(crate) fn count_active(&mut self, number: u32, comes: bool) {
        if let Some(tenants) = self.tenants.get_mut(number as usize) {
            change(&mut tenants.active, comes);
        }
    }

    /// How many are alive, by mount.
    pub(crate) fn active_by_mount(&self) -> Vec<(MountId, u64)> {
        let mut counts: HashMap<MountId, u64> = HashMap::new();
        for tenants in self.tenants.iter().filter(|tenants| tenants.active > 0) {
            *counts.entry(tenants.place.mount).or_default() += tenants.active;
        }
        let mut counts: Vec<_> = counts.into_iter().collect();
        counts.sort_unstable();
        counts
    }

    /// How many there are, in any state, of which the place fits.
    pub(crate) fn count_where(&self, fits: impl Fn(&Place) -> bool) -> u64 {
        let fitting = self.tenants.iter().filter(|tenants| fits(&tenants.place));
        fitting.map(|tenants| tenants.all).sum()
    }
}

/// Counts up or down.
pub(crate) fn change(count: &mut u64, up: bool) {
    debug_assert!(up || *count > 0, "counted down below nothing");
    *count = if up { *count + 1 } else { count.saturating_sub(1) };
}
