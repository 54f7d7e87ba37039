//! Compares the store with its index: the vital records at once, the rest in small steps.

use std::collections::BTreeMap;
use std::ops::Range;

use mssm_domain::StoredKey;
use mssm_messages::index::{Discrepancy, Findings};
use mssm_messages::storage::{Commit, StorageError, StorageReader, Write};

use super::bucket::{self, Bucket, Sum, sum};
use super::delta::Waiting;
use super::{
    Broken, Index, PAGES, PER_PAGE, PREFIX, VITAL_PAGES, bucket_key, delta, is_index, root_key,
};
use crate::backend::StorageBackend;

/// Keys of one step: some hundred microseconds, during which no commit begins.
const STEP: usize = 32;

impl Index {
    /// Whether at most so many buckets hold anything: then there are not many more records.
    pub(crate) fn is_small(&self, buckets: usize) -> bool {
        self.buckets.len() + self.waiting.buckets() <= buckets
    }

    /// Compares single records, whether they are there or not.
    pub(crate) fn check_named<'keys>(
        &self,
        store: &dyn StorageReader,
        keys: impl IntoIterator<Item = &'keys [u8]>,
    ) -> Result<Findings, StorageError> {
        let mut findings = Findings::default();
        for key in keys {
            let expected = match self.bucket(store, self.bucket_of(key)) {
                Ok(bucket) => bucket.get(key).copied(),
                Err(broken) => {
                    take_in(broken, &mut findings)?;
                    continue;
                }
            };
            match expected {
                Some(expected) => check_record(store, key, expected, &mut findings)?,
                None if matches!(store.read(&StoredKey::new(key.to_vec())), Ok(Some(_))) => {
                    findings.add(key, Discrepancy::Unknown);
                }
                None => {}
            }
        }
        Ok(findings)
    }

    /// Compares the vital records, all of them.
    pub(crate) fn check_vital(&self, store: &dyn StorageReader) -> Result<Findings, StorageError> {
        let mut findings = Findings::default();
        self.check_buckets(store, 0..VITAL_PAGES * PER_PAGE, &mut findings)?;
        for vital in &self.vital {
            let mut after = None;
            while self.check_keys(store, vital.as_bytes(), &mut after, &mut findings)? {}
        }
        Ok(findings)
    }

    /// Compares everything.
    pub(crate) fn check_all(&self, store: &dyn StorageReader) -> Result<Findings, StorageError> {
        let (mut findings, mut after) = (Findings::default(), None);
        self.check_buckets(store, 0..PAGES * PER_PAGE, &mut findings)?;
        while self.check_keys(store, &[], &mut after, &mut findings)? {}
        Ok(findings)
    }

    /// Whether what the index speaks of is there, and as it was written last.
    fn check_buckets(
        &self,
        store: &dyn StorageReader,
        numbers: Range<u16>,
        findings: &mut Findings,
    ) -> Result<(), StorageError> {
        let mut from = numbers.start;
        while let Some(number) = self.next_bucket(from).filter(|number| numbers.contains(number)) {
            match self.bucket(store, number) {
                Ok(bucket) => check_bucket(store, &bucket, findings)?,
                Err(broken) => take_in(broken, findings)?,
            }
            from = number + 1;
        }
        Ok(())
    }

    /// Whether the index speaks of what is there, for one page of keys; false after the last.
    fn check_keys(
        &self,
        store: &dyn StorageReader,
        prefix: &[u8],
        after: &mut Option<StoredKey>,
        findings: &mut Findings,
    ) -> Result<bool, StorageError> {
        let keys = store.scan(prefix, after.as_ref().map(StoredKey::as_bytes), STEP)?;
        for key in keys.iter().filter(|key| !is_index(key.as_bytes())) {
            match self.bucket(store, self.bucket_of(key.as_bytes())) {
                Ok(bucket) if bucket.contains_key(key.as_bytes()) => {}
                // What was damaged when the index was made anew is in none, and opens for nobody.
                Ok(_) if matches!(store.read(key), Err(StorageError::Damaged(_))) => {}
                Ok(_) => findings.add(key.as_bytes(), Discrepancy::Unknown),
                // Told when its bucket was looked at, or by the next commit to it.
                Err(Broken::Found(_)) => {}
                Err(Broken::Storage(error)) => return Err(error),
            }
        }
        let more = keys.len() == STEP;
        *after = keys.into_iter().next_back();
        Ok(more)
    }

    /// Makes the index anew from what is there, its root last.
    pub(crate) fn rebuild(&mut self, store: &dyn StorageBackend) -> Result<(), StorageError> {
        let mut buckets = BTreeMap::<u16, Bucket>::new();
        each_key(store, &[], |key| {
            if is_index(key.as_bytes()) {
                return Ok(());
            }
            match store.read(key) {
                Ok(Some(record)) => {
                    let bucket = buckets.entry(self.bucket_of(key.as_bytes())).or_default();
                    bucket.insert(key.as_bytes().to_vec(), sum(&record));
                }
                Ok(None) => {}
                Err(StorageError::Damaged(place)) => {
                    tracing::warn!(place, "a damaged record is in no index");
                }
                Err(error) => return Err(error),
            }
            Ok(())
        })?;
        if buckets.is_empty() {
            return Ok(());
        }
        let mut writes = Vec::new();
        each_key(store, &PREFIX, |key| {
            writes.push(Write::Delete(key.clone()));
            Ok(())
        })?;
        (self.buckets, self.pages) = (BTreeMap::new(), BTreeMap::new());
        // All deltas are among what goes.
        (self.rooted, self.waiting) = (self.version, Waiting::default());
        let version = self.version.saturating_add(1);
        let (anew, staged) = self.write(version, version, &buckets);
        // The root comes last: until it is there, there is no index.
        writes.extend(anew);
        for chunk in writes.chunks(256) {
            let batch = Commit { preconditions: Vec::new(), writes: chunk.to_vec() };
            store.apply(std::slice::from_ref(&batch))?.into_iter().collect::<Result<(), _>>()?;
        }
        self.settle(staged);
        Ok(())
    }
}

fn take_in(broken: Broken, findings: &mut Findings) -> Result<(), StorageError> {
    match broken {
        Broken::Found(found) => {
            for finding in found.first {
                findings.add(finding.key.as_bytes(), finding.what);
            }
            Ok(())
        }
        Broken::Storage(error) => Err(error),
    }
}

fn check_bucket(
    store: &dyn StorageReader,
    bucket: &Bucket,
    findings: &mut Findings,
) -> Result<(), StorageError> {
    bucket.iter().try_for_each(|(key, sum)| check_record(store, key, *sum, findings))
}

fn check_record(
    store: &dyn StorageReader,
    key: &[u8],
    expected: Sum,
    findings: &mut Findings,
) -> Result<(), StorageError> {
    match store.read(&StoredKey::new(key.to_vec())) {
        Ok(Some(record)) if sum(&record) == expected => {}
        Ok(Some(_)) => findings.add(key, Discrepancy::Changed),
        Ok(None) => findings.add(key, Discrepancy::Missing),
        // Damage is the store's to name; it is neither older nor gone.
        Err(StorageError::Damaged(place)) => {
            tracing::warn!(place, "a record that the index speaks of is damaged");
        }
        Err(error) => return Err(error),
    }
    Ok(())
}

fn each_key(
    store: &dyn StorageReader,
    prefix: &[u8],
    mut work: impl FnMut(&StoredKey) -> Result<(), StorageError>,
) -> Result<(), StorageError> {
    const PAGE: usize = 256;
    let mut after: Option<StoredKey> = None;
    loop {
        let keys = store.scan(prefix, after.as_ref().map(StoredKey::as_bytes), PAGE)?;
        keys.iter().try_for_each(&mut work)?;
        if keys.len() < PAGE {
            return Ok(());
        }
        after = keys.into_iter().next_back();
    }
}

/// How far the comparison of the whole store has come.
#[derive(Debug, Default)]
pub(crate) struct Sweep {
    bucket: u16,
    after: Option<StoredKey>,
    findings: Findings,
}

impl Sweep {
    /// How many steps may follow once something was found, to name what else there is.
    const LOOK_FURTHER: usize = 4096;

    /// Goes a step further; true at the end.
    fn step(&mut self, index: &Index, store: &dyn StorageReader) -> Result<bool, StorageError> {
        if let Some(number) = index.next_bucket(self.bucket) {
            index.check_buckets(store, number..number + 1, &mut self.findings)?;
            self.bucket = number + 1;
            return Ok(false);
        }
        let more = index.check_keys(store, &[], &mut self.after, &mut self.findings)?;
        Ok(!more)
    }

    /// Goes a step further; what was found, once there is something to say: nothing at the end.
    pub(crate) fn go_on(
        &mut self,
        index: &Index,
        store: &dyn StorageReader,
    ) -> Result<Option<Findings>, StorageError> {
        let mut ended = self.step(index, store)?;
        if !self.findings.is_empty() {
            for _ in 0..Self::LOOK_FURTHER {
                if ended || self.findings.more > 0 {
                    break;
                }
                ended = self.step(index, store)?;
            }
            ended = true;
        }
        Ok(ended.then(|| std::mem::take(&mut self.findings)))
    }
}

/// What can be said without the key: whether records and buckets fit each other.
pub(crate) fn consistent(store: &dyn StorageReader) -> Result<Findings, StorageError> {
    let mut findings = Findings::default();
    if matches!(store.read(&root_key()), Ok(None)) {
        return Ok(findings);
    }
    let mut expected = Bucket::new();
    for number in 0..PAGES * PER_PAGE {
        let key = bucket_key(number);
        let Ok(Some(record)) = store.read(&key) else { continue };
        match bucket::decode(record.sealed.as_bytes()) {
            Some(bucket) => expected.extend(bucket),
            None => findings.add(key.as_bytes(), Discrepancy::Index),
        }
    }
    for (key, record) in store.scan_records(&delta::prefix(), None, usize::MAX)? {
        match delta::read(&record) {
            Some(changed) => {
                for (key, sum) in &changed {
                    delta::apply(&mut expected, key, *sum);
                }
            }
            None => findings.add(key.as_bytes(), Discrepancy::Index),
        }
    }
    check_bucket(store, &expected, &mut findings)?;
    each_key(store, &[], |key| {
        if !is_index(key.as_bytes()) && !expected.contains_key(key.as_bytes()) {
            findings.add(key.as_bytes(), Discrepancy::Unknown);
        }
        Ok(())
    })?;
    Ok(findings)
}
