//! What both models stand on: their state, the records, the weather, and the far ends of our sessions.

use std::collections::BTreeMap;
use std::ops::{Deref, DerefMut};
use std::sync::{Arc, Mutex, MutexGuard};

use mssm_minter::Row;
use mssm_storage::MemoryStorage;
use mssm_testkit::TestClock;

use crate::disk::has_lease;
use crate::model::row;
use crate::weather::Weather;

/// A model's ground; clones are the same one.
pub(crate) struct Ground<S> {
    state: Arc<Mutex<S>>,
    pub(crate) weather: Arc<Weather>,
    records: Arc<MemoryStorage>,
    clock: TestClock,
}

impl<S> Clone for Ground<S> {
    fn clone(&self) -> Self {
        Self {
            state: Arc::clone(&self.state),
            weather: Arc::clone(&self.weather),
            records: Arc::clone(&self.records),
            clock: self.clock.clone(),
        }
    }
}

impl<S> Ground<S> {
    pub(crate) fn new(state: S, weather: &Arc<Weather>, records: &Arc<MemoryStorage>) -> Self {
        Self {
            state: Arc::new(Mutex::new(state)),
            weather: Arc::clone(weather),
            records: Arc::clone(records),
            clock: TestClock::following_tokio(),
        }
    }

    pub(crate) fn state(&self) -> MutexGuard<'_, S> {
        self.state.lock().unwrap()
    }

    /// What is wrong with a login that is being made: that the store has no lease for it.
    pub(crate) fn violation(&self, name: &str) -> Option<String> {
        (!has_lease(&self.records, name))
            .then(|| format!("1: \"{name}\" was made without a lease in the store"))
    }

    /// What the database's clock shows, in milliseconds.
    pub(crate) fn now(&self) -> Vec<Row> {
        vec![row(&[&mssm_domain::Clock::now(&self.clock).unix_ms().to_string()])]
    }
}

/// The far ends of our sessions, by number.
pub(crate) struct Ends<T>(BTreeMap<u64, End<T>>);

/// The far end of a session of ours.
pub(crate) struct End<T> {
    boot: u64,
    pub(crate) busy: bool,
    /// Its client is gone, or it was told to end: so it does once it is idle.
    pub(crate) closing: bool,
    pub(crate) what: T,
}

impl<T> Default for Ends<T> {
    fn default() -> Self {
        Self(BTreeMap::new())
    }
}

impl<T> Deref for Ends<T> {
    type Target = BTreeMap<u64, End<T>>;

    fn deref(&self) -> &Self::Target {
        &self.0
    }
}

impl<T> DerefMut for Ends<T> {
    fn deref_mut(&mut self) -> &mut Self::Target {
        &mut self.0
    }
}

impl<T> Ends<T> {
    pub(crate) fn open(&mut self, id: u64, boot: u64, what: T) {
        self.0.insert(id, End { boot, busy: false, closing: false, what });
    }

    pub(crate) fn set_busy(&mut self, id: u64, busy: bool) {
        if let Some(end) = self.0.get_mut(&id) {
            end.busy = busy;
            if !busy && end.closing {
                self.0.remove(&id);
            }
        }
    }

    /// A run of the server died.
    pub(crate) fn hang_up(&mut self, boot: u64) {
        self.0.retain(|_, end| end.boot != boot || end.busy);
        for end in self.0.values_mut().filter(|end| end.boot == boot) {
            end.closing = true;
        }
    }

    pub(crate) fn hang_up_one(&mut self, id: u64) {
        match self.0.get_mut(&id) {
            Some(end) if end.busy => end.closing = true,
            _ => drop(self.0.remove(&id)),
        }
    }
}
