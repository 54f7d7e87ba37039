//! The store together with its index: every commit changes both, and nothing else does.

use std::collections::BTreeSet;
use std::sync::Arc;

use mssm_domain::StoredKey;
use mssm_messages::index::{Discrepancy, Findings, IndexError, IndexOpening, Standing};
use mssm_messages::storage::{Commit, StorageError, Write};
use tracing::{info, warn};

use crate::StorageBackend;
use crate::backend::plan;
use crate::index::{Broken, Index, Sweep, root_key};

/// Called when records are found that are not what was written last.
pub(crate) type OnDistrust = Box<dyn FnMut(Findings) + Send>;

/// With at most so many buckets in use (of 16,384; some 2,300 records) the whole store is compared
/// before the unseal is answered, which takes some hundredths of a second.
const AT_ONCE: usize = 2048;

/// Holds the index's key while the server is unsealed.
pub(crate) struct Keeping {
    backend: Arc<dyn StorageBackend>,
    index: Option<Index>,
    /// There while the rest of the store has still to be compared.
    sweep: Option<Sweep>,
    at_once: usize,
    on_distrust: OnDistrust,
}

impl Keeping {
    pub(crate) fn new(backend: Arc<dyn StorageBackend>, on_distrust: OnDistrust) -> Self {
        Self { backend, index: None, sweep: None, at_once: AT_ONCE, on_distrust }
    }

    /// Has even the smallest store compared behind the answer, as large ones are.
    #[cfg(test)]
    pub(crate) const fn compare_behind(&mut self) {
        self.at_once = 0;
    }

    /// Takes the key in or wipes it; with one, compares what must be compared first.
    pub(crate) fn install(
        &mut self,
        opening: Option<IndexOpening>,
    ) -> Result<Standing, IndexError> {
        (self.index, self.sweep) = (None, None);
        let Some(IndexOpening { key, vital, expected, accept }) = opening else {
            return Ok(Standing::default());
        };
        let store = Arc::clone(&self.backend);
        let mut index = Index::empty(key, vital);
        let there = index.load(&*store);
        let whole = accept || index.is_small(self.at_once);
        let mut found = match there {
            Ok(true) if whole => index.check_all(&*store)?,
            Ok(true) => index.check_vital(&*store)?,
            Ok(false) if expected => {
                let mut gone = Findings::default();
                gone.add(root_key().as_bytes(), Discrepancy::Missing);
                gone
            }
            Ok(false) => {
                index.rebuild(&*store)?;
                Findings::default()
            }
            Err(Broken::Found(found)) => found,
            Err(Broken::Storage(error)) => return Err(error.into()),
        };
        if !found.is_empty() {
            if !accept {
                return Err(IndexError::Distrusted(found));
            }
            index.rebuild(&*store)?;
        }
        self.index = Some(index);
        self.sweep = (!whole).then(Sweep::default);
        Ok(Standing { accepted: std::mem::take(&mut found) })
    }

    /// Applies a group as the backend would, and its index with it.
    pub(crate) fn apply(
        &mut self,
        group: &[Commit],
    ) -> Result<Vec<Result<(), StorageError>>, StorageError> {
        let Some(index) = &mut self.index else {
            return match self.backend.read(&root_key())? {
                None => self.backend.apply(group),
                Some(_) => Err(StorageError::Sealed),
            };
        };
        let (answers, effects) =
            plan(group, |key| Ok(self.backend.read(key)?.map(|record| record.version)));
        if effects.is_empty() {
            return Ok(answers);
        }
        if self.sweep.is_some() {
            let relied_on = group.iter().flat_map(|batch| &batch.preconditions);
            let mut keys: BTreeSet<&[u8]> =
                relied_on.map(|condition| condition.key.as_bytes()).collect();
            keys.extend(effects.keys());
            let found = index.check_named(&*self.backend, keys)?;
            if !found.is_empty() {
                (self.on_distrust)(found);
                return Err(StorageError::Damaged("a record was put back by hand".to_owned()));
            }
        }
        let (part, staged) = match index.stage(&*self.backend, &effects) {
            Ok(staged) => staged,
            Err(Broken::Storage(error)) => return Err(error),
            Err(Broken::Found(findings)) => {
                (self.on_distrust)(findings);
                return Err(StorageError::Damaged("the index over the store".to_owned()));
            }
        };
        let mut writes: Vec<Write> = effects
            .into_iter()
            .map(|(key, record)| {
                let key = StoredKey::new(key.to_vec());
                match record {
                    Some(record) => Write::Put(key, record.clone()),
                    None => Write::Delete(key),
                }
            })
            .collect();
        writes.extend(part);
        // Its conditions hold: nobody else writes.
        let whole = Commit { preconditions: Vec::new(), writes };
        let applied = self.backend.apply(std::slice::from_ref(&whole))?;
        applied.into_iter().collect::<Result<(), _>>()?;
        index.settle(staged);
        Ok(answers)
    }

    /// True while not everything has been compared since the key came.
    pub(crate) const fn is_comparing(&self) -> bool {
        self.sweep.is_some()
    }

    /// Compares a few records more, and says what it finds.
    pub(crate) fn compare_further(&mut self) {
        let (Some(index), Some(sweep)) = (&self.index, &mut self.sweep) else { return };
        match sweep.go_on(index, &*self.backend) {
            Ok(None) => return,
            Ok(Some(findings)) if findings.is_empty() => info!("all records are what was written"),
            Ok(Some(findings)) => (self.on_distrust)(findings),
            Err(error) => warn!(%error, "the store could not be compared with its index"),
        }
        self.sweep = None;
    }
}
