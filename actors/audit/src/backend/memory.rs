//! A log in memory, for tests: everything can be read and spoilt.

use std::sync::{Arc, Mutex, PoisonError};

use super::{AuditBackend, Blocked, Found};
use crate::prefix::Prefix;

#[derive(Debug, Default)]
struct State {
    bytes: Vec<u8>,
    refuse: Option<String>,
}

/// A log in memory; clones share it.
#[derive(Clone, Debug, Default)]
pub struct MemoryBackend(Arc<Mutex<State>>);

impl MemoryBackend {
    /// The whole log as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.state().bytes).into_owned()
    }

    /// Refuses everything with this reason from now on, or nothing any more.
    pub fn refuse(&self, reason: Option<&str>) {
        self.state().refuse = reason.map(str::to_owned);
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl AuditBackend for MemoryBackend {
    fn open(&mut self, _tail: u64, each: &mut dyn FnMut(&[u8])) -> Result<Found, Blocked> {
        let state = self.state();
        let mut lines = state.bytes.split(|byte| *byte == b'\n').collect::<Vec<_>>();
        lines.pop();
        let first = lines.first().map(|line| line.to_vec());
        lines.into_iter().for_each(each);
        Ok(Found { torn: None, first, length: state.bytes.len() as u64 })
    }

    fn append(&mut self, lines: &[u8]) -> Result<(), Blocked> {
        let mut state = self.state();
        if let Some(reason) = &state.refuse {
            return Err(Blocked(reason.clone()));
        }
        state.bytes.extend_from_slice(lines);
        Ok(())
    }

    fn inspect(&mut self) -> Result<(), Blocked> {
        self.state().refuse.clone().map_or(Ok(()), |reason| Err(Blocked(reason)))
    }

    fn find(&mut self, seq: u64) -> Result<Option<Vec<u8>>, Blocked> {
        let state = self.state();
        let mut lines = state.bytes.split(|byte| *byte == b'\n');
        let found = lines.find(|line| Prefix::parse(line).is_some_and(|line| line.seq == seq));
        Ok(found.map(<[u8]>::to_vec))
    }

    fn place(&self) -> String {
        "memory".to_owned()
    }
}
