//! What single commits changed since the buckets were written: one small record each, under a tag.

use std::collections::{BTreeMap, BTreeSet};

use mssm_domain::{SealedBytes, StoredKey, StoredRecord};
use mssm_messages::storage::{StorageError, StorageReader, Write};

use super::bucket::{self, Bucket, Sum};
use super::{Broken, Index, PER_PAGE, PREFIX, TAG, broken};

/// What should lie under each key from now on; `None`: nothing.
pub(super) type Changed = BTreeMap<Vec<u8>, Option<Sum>>;

/// Where the delta of a version lies.
pub(super) fn key(version: u64) -> StoredKey {
    StoredKey::new([prefix().as_slice(), &version.to_be_bytes()].concat())
}

pub(super) fn prefix() -> Vec<u8> {
    [PREFIX.as_slice(), b"d"].concat()
}

/// Changes what a bucket says of a key.
pub(super) fn apply(bucket: &mut Bucket, key: &[u8], sum: Option<Sum>) {
    match sum {
        Some(sum) => bucket.insert(key.to_vec(), sum),
        None => bucket.remove(key),
    };
}

/// What is put, as a bucket has it, behind its length (four bytes, big endian); then what is removed.
fn encode(changed: &Changed) -> Vec<u8> {
    let (put, removed): (Vec<_>, Vec<_>) = changed.iter().partition(|(_, sum)| sum.is_some());
    let part = |entries: Vec<(&Vec<u8>, &Option<Sum>)>| {
        let entries = entries.into_iter().map(|(key, sum)| (key.clone(), sum.unwrap_or_default()));
        bucket::encode(&entries.collect())
    };
    let put = part(put);
    let mut bytes = u32::try_from(put.len()).unwrap_or(u32::MAX).to_be_bytes().to_vec();
    bytes.extend(put);
    bytes.extend(part(removed));
    bytes
}

/// Reads what [`encode`] wrote.
fn decode(bytes: &[u8]) -> Option<Changed> {
    let (length, rest) = bytes.split_first_chunk()?;
    let length = usize::try_from(u32::from_be_bytes(*length)).ok()?;
    let (put, removed) = rest.split_at_checked(length)?;
    let put = bucket::decode(put)?.into_iter().map(|(key, sum)| (key, Some(sum)));
    let removed = bucket::decode(removed)?.into_keys().map(|key| (key, None));
    Some(put.chain(removed).collect())
}

/// What a delta's record says, without asking whether it is to be believed.
pub(super) fn read(record: &StoredRecord) -> Option<Changed> {
    decode(record.sealed.as_bytes().split_last_chunk::<TAG>()?.0)
}

/// What deltas say of the buckets of a page, since a version.
#[derive(Debug)]
struct Aged {
    since: u64,
    buckets: BTreeMap<u16, Changed>,
}

/// What deltas say and buckets do not, by page.
#[derive(Debug, Default)]
pub(super) struct Waiting {
    pages: BTreeMap<u16, Aged>,
    changes: usize,
}

impl Waiting {
    fn add(&mut self, bucket: u16, since: u64, key: Vec<u8>, sum: Option<Sum>) {
        let page = self.pages.entry(bucket / PER_PAGE);
        let page = page.or_insert_with(|| Aged { since, buckets: BTreeMap::new() });
        let before = page.buckets.entry(bucket).or_default().insert(key, sum);
        self.changes += usize::from(before.is_none());
    }

    /// What waits for a bucket.
    pub(super) fn of(&self, bucket: u16) -> impl Iterator<Item = (&Vec<u8>, &Option<Sum>)> {
        let page = self.pages.get(&(bucket / PER_PAGE));
        page.and_then(|page| page.buckets.get(&bucket)).into_iter().flatten()
    }

    /// How many buckets anything waits for.
    pub(super) fn buckets(&self) -> usize {
        self.pages.values().map(|page| page.buckets.len()).sum()
    }

    /// The buckets of a page for which anything waits.
    pub(super) fn buckets_of(&self, page: u16) -> impl Iterator<Item = u16> {
        self.pages.get(&page).into_iter().flat_map(|page| page.buckets.keys().copied())
    }

    /// The first bucket from a number on for which anything waits.
    pub(super) fn next_bucket(&self, from: u16) -> Option<u16> {
        let mut pages = self.pages.range(from / PER_PAGE..);
        pages.find_map(|(_, page)| page.buckets.range(from..).next().map(|(number, _)| *number))
    }

    /// The pages whose changes have waited longest: those with any as old as a version, and so many that
    /// no more than `left` go on waiting.
    pub(super) fn due(&self, left: usize, old: u64) -> BTreeSet<u16> {
        let mut by_age: Vec<_> =
            self.pages.iter().map(|(page, aged)| (aged.since, *page)).collect();
        if self.changes > left {
            by_age.sort_unstable();
        }
        let (mut due, mut waiting) = (BTreeSet::new(), self.changes);
        for (since, page) in by_age {
            if waiting > left || since <= old {
                waiting -=
                    self.buckets_of(page).map(|bucket| self.of(bucket).count()).sum::<usize>();
                due.insert(page);
            }
        }
        due
    }

    /// The oldest version that anything waits from, these pages apart.
    pub(super) fn oldest_without(&self, pages: &BTreeSet<u16>) -> Option<u64> {
        let others = self.pages.iter().filter(|(number, _)| !pages.contains(number));
        others.map(|(_, page)| page.since).min()
    }

    /// Buckets have what waited for these pages.
    pub(super) fn taken_in(&mut self, pages: &BTreeSet<u16>) {
        for page in pages {
            let gone = self.pages.remove(page).into_iter().flat_map(|page| page.buckets);
            self.changes -= gone.map(|(_, changed)| changed.len()).sum::<usize>();
        }
    }
}

impl Index {
    /// The write of one commit's changes.
    pub(super) fn write_delta(&self, version: u64, changed: &Changed) -> Write {
        let mut body = encode(changed);
        body.extend(self.tag_of("delta", version, &body));
        Write::Put(key(version), StoredRecord { version, sealed: SealedBytes::new(body) })
    }

    /// Has changes wait that a delta speaks of.
    pub(super) fn wait(&mut self, version: u64, changed: Changed) {
        for (key, sum) in changed {
            let bucket = self.bucket_of(&key);
            self.waiting.add(bucket, version, key, sum);
        }
    }

    /// Reads all deltas: each version behind the root's, and no other.
    pub(super) fn load_deltas(&mut self, store: &dyn StorageReader) -> Result<(), Broken> {
        let records = match store.scan_records(&prefix(), None, usize::MAX) {
            Ok(records) => records,
            Err(StorageError::Damaged(_)) => return Err(broken(&key(self.version), [])),
            Err(error) => return Err(error.into()),
        };
        for (there, record) in records {
            let version = self.version.saturating_add(1);
            let body = record.sealed.as_bytes().split_last_chunk::<TAG>();
            let changed = read(&record);
            let fits = there == key(version)
                && body.is_some_and(|(body, tag)| self.is_tag_of(tag, "delta", version, body));
            match changed {
                Some(changed) if fits => self.wait(version, changed),
                changed => return Err(broken(&there, changed.unwrap_or_default().into_keys())),
            }
            self.version = version;
        }
        Ok(())
    }
}
