//! The authenticated index: what lies under each key, so that no single record goes back unseen.
//!
//! An older record at its own key still opens, so each record's digest stands in one of 16,384
//! buckets, each bucket's tag in a page, each page's tag in the root. Tags need the key, which the
//! commit thread alone holds; the whole lies in the store as records of its own, and changes in
//! the batch that changes what it speaks of. Tags of buckets stay in memory, so a part of the index that
//! went back does not fit any more. An older copy of everything together does: see `SECURITY.md`.
//!
//! ```text
//! ff ff 'r'              root: form 1, for each page its number and tag, then the root's tag
//! ff ff 'b' bucket       see `bucket.rs`
//! ff ff 'b' bucket 'p'   a page, at its first bucket: for each of its buckets the number and tag
//! ff ff 'd' version      what one commit changed (`delta.rs`), then a tag
//! ```
//!
//! Every commit writes one delta. Once many changes wait in deltas, each commit takes those of a few pages
//! into the buckets, the oldest first; a delta goes once all of it is there. The root's version is that
//! of the newest delta gone: to lay those behind it over the buckets again changes nothing.
//!
//! Hidden names begin with a length far below `ff ff`, the seal's own with `00 00`.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use mssm_domain::{SealedBytes, StoredKey, StoredRecord, same_in_constant_time};
use mssm_messages::index::{Discrepancy, Findings, IndexKey};
use mssm_messages::storage::{StorageError, StorageReader, Write};
use sha2::{Digest, Sha256};

use self::bucket::{Bucket, sum};
use self::delta::{Changed, Waiting, apply};
use crate::backend::Effects;

mod bucket;
mod check;
mod delta;

pub(crate) use check::{Sweep, consistent};

/// So many changes may wait, and in so many deltas: enough that a page has several when its turn comes,
/// few enough that a start has soon read them.
const WAITING: usize = if cfg!(test) { 4 } else { 2048 };

/// What every key of the index begins with.
const PREFIX: [u8; 2] = [0xff, 0xff];

/// The form of the root and all below it.
const FORM: u8 = 1;

/// Buckets of one page. Few, since a commit writes a page for nearly each record that it writes; they
/// lie beside their page, so that most of the time both are in one block of the disk.
const PER_PAGE: u16 = 32;

/// Pages; with a million records a bucket then holds some eighty.
const PAGES: u16 = 512;

/// The first pages are the vital records', so that these can be compared without the rest.
const VITAL_PAGES: u16 = 128;

const TAG: usize = 16;

/// A truncated HMAC-SHA256.
type Tag = [u8; TAG];

/// True for the index's own records.
pub(crate) fn is_index(key: &[u8]) -> bool {
    key.strip_prefix(&PREFIX).is_some_and(|rest| matches!(rest.first(), Some(b'r' | b'b' | b'd')))
}

/// Where the root lies.
pub(crate) fn root_key() -> StoredKey {
    StoredKey::new([PREFIX.as_slice(), b"r"].concat())
}

/// The keys that a record of the index speaks of: a bucket or a delta, if it is one.
pub(crate) fn keys_in(key: &[u8], record: &StoredRecord) -> Vec<Vec<u8>> {
    match key.strip_prefix(&PREFIX) {
        Some([b'b', _, _]) => {
            bucket::decode(record.sealed.as_bytes()).unwrap_or_default().into_keys().collect()
        }
        Some([b'd', ..]) => {
            let changed = delta::read(record).unwrap_or_default().into_iter();
            changed.filter_map(|(key, sum)| sum.map(|_| key)).collect()
        }
        _ => Vec::new(),
    }
}

fn page_key(page: u16) -> StoredKey {
    StoredKey::new([bucket_key(page * PER_PAGE).as_bytes(), b"p"].concat())
}

fn bucket_key(bucket: u16) -> StoredKey {
    StoredKey::new([PREFIX.as_slice(), b"b", &bucket.to_be_bytes()].concat())
}

/// Why a part of the index is of no use.
#[derive(Debug)]
pub(crate) enum Broken {
    /// It is not what was written.
    Found(Findings),
    /// The store failed.
    Storage(StorageError),
}

impl From<StorageError> for Broken {
    fn from(error: StorageError) -> Self {
        Self::Storage(error)
    }
}

/// Says that a part of the index is not what was written, and of which records it speaks.
fn broken(part: &StoredKey, keys: impl IntoIterator<Item = Vec<u8>>) -> Broken {
    let mut findings = Findings::default();
    for key in keys {
        findings.add(&key, Discrepancy::Index);
    }
    if findings.is_empty() {
        findings.add(part.as_bytes(), Discrepancy::Index);
    }
    Broken::Found(findings)
}

/// The tags in force, and the key that makes them.
pub(crate) struct Index {
    key: Box<dyn IndexKey>,
    vital: Vec<StoredKey>,
    version: u64,
    /// The version of the root: deltas have what came after it.
    rooted: u64,
    waiting: Waiting,
    /// Tags of the buckets that hold anything.
    buckets: BTreeMap<u16, Tag>,
    /// Tags of the pages that hold anything.
    pages: BTreeMap<u16, Tag>,
}

/// What a commit makes of the index, in force once it is durable.
#[derive(Debug, Default)]
pub(crate) struct Staged {
    version: u64,
    rooted: u64,
    /// What a delta says.
    changed: Changed,
    /// The pages for which nothing waits any more but that.
    taken_in: BTreeSet<u16>,
    /// `None`: holds nothing any more.
    buckets: BTreeMap<u16, Option<Tag>>,
    pages: BTreeMap<u16, Option<Tag>>,
}

impl Index {
    /// The index of a store that holds nothing.
    pub(crate) fn empty(key: Box<dyn IndexKey>, vital: Vec<StoredKey>) -> Self {
        let (waiting, buckets, pages) = (Waiting::default(), BTreeMap::new(), BTreeMap::new());
        Self { key, vital, version: 0, rooted: 0, waiting, buckets, pages }
    }

    /// Reads root and pages of an empty index; false if the store has none.
    pub(crate) fn load(&mut self, store: &dyn StorageReader) -> Result<bool, Broken> {
        let Some(root) = part(store, &root_key())? else { return Ok(false) };
        let wrong = || broken(&root_key(), []);
        let (body, tag) = root.sealed.as_bytes().split_last_chunk::<TAG>().ok_or_else(wrong)?;
        if !self.is_tag_of(tag, "root", root.version, body) {
            return Err(wrong());
        }
        let (form, body) = body.split_first().ok_or_else(wrong)?;
        if *form != FORM {
            return Err(wrong());
        }
        (self.version, self.rooted) = (root.version, root.version);
        self.pages = decode_tags(body).ok_or_else(wrong)?;
        for (page, tag) in &self.pages {
            let key = page_key(*page);
            let record = part(store, &key)?.ok_or_else(|| broken(&key, []))?;
            let body = record.sealed.as_bytes();
            if !self.is_tag_of(tag, "page", u64::from(*page), body) {
                return Err(broken(&key, []));
            }
            self.buckets.extend(decode_tags(body).ok_or_else(|| broken(&key, []))?);
        }
        self.load_deltas(store)?;
        Ok(true)
    }

    /// What is to be written beside a group's effects, so that the index speaks of them.
    pub(crate) fn stage(
        &self,
        store: &dyn StorageReader,
        effects: &Effects<'_>,
    ) -> Result<(Vec<Write>, Staged), Broken> {
        let changed: Changed =
            effects.iter().map(|(key, record)| (key.to_vec(), record.map(sum))).collect();
        let version = self.version.saturating_add(1);
        if self.rooted == 0 {
            let mut first = BTreeMap::<u16, Bucket>::new();
            for (key, sum) in changed {
                apply(first.entry(self.bucket_of(&key)).or_default(), &key, sum);
            }
            return Ok(self.write(version, version, &first));
        }
        let mut delta = vec![self.write_delta(version, &changed)];
        let old = self.version.saturating_sub(WAITING as u64);
        let taken_in = self.waiting.due(WAITING.saturating_sub(changed.len()), old);
        let unchanged = Staged { version, rooted: self.rooted, changed, ..Staged::default() };
        if taken_in.is_empty() {
            return Ok((delta, unchanged));
        }
        let mut touched = BTreeMap::<u16, Bucket>::new();
        for number in taken_in.iter().flat_map(|page| self.waiting.buckets_of(*page)) {
            touched.insert(number, self.bucket(store, number)?);
        }
        let oldest = self.waiting.oldest_without(&taken_in).unwrap_or(version);
        let (writes, staged) = self.write(version, oldest.saturating_sub(1), &touched);
        delta.extend(writes);
        Ok((delta, Staged { changed: unchanged.changed, taken_in, ..staged }))
    }

    /// The writes that put buckets in place of those with their numbers, and a root of this version.
    fn write(
        &self,
        version: u64,
        rooted: u64,
        touched: &BTreeMap<u16, Bucket>,
    ) -> (Vec<Write>, Staged) {
        let mut staged = Staged { version, rooted, ..Staged::default() };
        let mut writes = Vec::with_capacity(2 * touched.len() + 1);
        let mut write = |key: StoredKey, version: u64, body: Option<Vec<u8>>| {
            writes.push(match body {
                Some(body) => {
                    Write::Put(key, StoredRecord { version, sealed: SealedBytes::new(body) })
                }
                None => Write::Delete(key),
            });
        };
        for (number, bucket) in touched {
            let body = (!bucket.is_empty()).then(|| bucket::encode(bucket));
            let tag = body.as_ref().map(|body| self.tag_of("bucket", u64::from(*number), body));
            staged.buckets.insert(*number, tag);
            write(bucket_key(*number), version, body);
        }
        let changed: BTreeSet<u16> = touched.keys().map(|bucket| bucket / PER_PAGE).collect();
        for page in changed {
            let tags = overlaid(&self.buckets, &staged.buckets, buckets_of(page));
            let body = (!tags.is_empty()).then(|| encode_tags(&tags));
            let tag = body.as_ref().map(|body| self.tag_of("page", u64::from(page), body));
            staged.pages.insert(page, tag);
            write(page_key(page), version, body);
        }
        let pages = overlaid(&self.pages, &staged.pages, 0..PAGES);
        let mut root = vec![FORM];
        root.extend(encode_tags(&pages));
        root.extend(self.tag_of("root", rooted, &root));
        write(root_key(), rooted, Some(root));
        for old in self.rooted + 1..=rooted.min(self.version) {
            write(delta::key(old), version, None);
        }
        (writes, staged)
    }

    /// Puts in force what is durable now.
    pub(crate) fn settle(&mut self, staged: Staged) {
        (self.version, self.rooted) = (staged.version, staged.rooted);
        lay_over(&mut self.buckets, staged.buckets);
        lay_over(&mut self.pages, staged.pages);
        self.waiting.taken_in(&staged.taken_in);
        self.wait(staged.version, staged.changed);
    }

    /// A bucket as it was written last, with what deltas say of it.
    fn bucket(&self, store: &dyn StorageReader, number: u16) -> Result<Bucket, Broken> {
        let mut bucket = self.stored_bucket(store, number)?;
        for (key, sum) in self.waiting.of(number) {
            apply(&mut bucket, key, *sum);
        }
        Ok(bucket)
    }

    /// The first bucket from a number on that may hold anything.
    fn next_bucket(&self, from: u16) -> Option<u16> {
        let stored = self.buckets.range(from..).next().map(|(number, _)| *number);
        stored.into_iter().chain(self.waiting.next_bucket(from)).min()
    }

    fn stored_bucket(&self, store: &dyn StorageReader, number: u16) -> Result<Bucket, Broken> {
        let Some(tag) = self.buckets.get(&number) else { return Ok(Bucket::new()) };
        let key = bucket_key(number);
        let record = part(store, &key)?.ok_or_else(|| broken(&key, []))?;
        let body = record.sealed.as_bytes();
        let bucket = bucket::decode(body);
        if self.is_tag_of(tag, "bucket", u64::from(number), body) {
            return bucket.ok_or_else(|| broken(&key, []));
        }
        // One that went back together with a record: the record is one of these.
        Err(broken(&key, bucket.unwrap_or_default().into_keys()))
    }

    fn bucket_of(&self, key: &[u8]) -> u16 {
        let (from, many) = if self.vital.iter().any(|vital| key.starts_with(vital.as_bytes())) {
            (0, VITAL_PAGES * PER_PAGE)
        } else {
            (VITAL_PAGES * PER_PAGE, (PAGES - VITAL_PAGES) * PER_PAGE)
        };
        let hash = Sha256::digest(key);
        let number = hash.iter().take(4).fold(0_u32, |sum, byte| (sum << 8) | u32::from(*byte));
        from + u16::try_from(number % u32::from(many)).unwrap_or(0)
    }

    /// Compared in constant time: who may write the store could try tags until one fits.
    fn is_tag_of(&self, tag: &Tag, kind: &str, number: u64, body: &[u8]) -> bool {
        same_in_constant_time(tag, self.tag_of(kind, number, body))
    }

    fn tag_of(&self, kind: &str, number: u64, body: &[u8]) -> Tag {
        let mut item = Vec::with_capacity(kind.len() + 9 + body.len());
        item.extend_from_slice(kind.as_bytes());
        item.push(0);
        item.extend_from_slice(&number.to_be_bytes());
        item.extend_from_slice(body);
        let mut tag = [0; TAG];
        tag.iter_mut().zip(self.key.tag(&item)).for_each(|(kept, byte)| *kept = byte);
        tag
    }
}

/// A record of the index. A damaged one is as good as one that somebody changed: nobody can tell.
fn part(store: &dyn StorageReader, key: &StoredKey) -> Result<Option<StoredRecord>, Broken> {
    match store.read(key) {
        Ok(found) => Ok(found),
        Err(StorageError::Damaged(_)) => Err(broken(key, [])),
        Err(error) => Err(error.into()),
    }
}

const fn buckets_of(page: u16) -> Range<u16> {
    page * PER_PAGE..(page + 1) * PER_PAGE
}

fn overlaid(
    tags: &BTreeMap<u16, Tag>,
    over: &BTreeMap<u16, Option<Tag>>,
    range: Range<u16>,
) -> BTreeMap<u16, Tag> {
    let mut found: BTreeMap<u16, Tag> =
        tags.range(range.clone()).map(|(number, tag)| (*number, *tag)).collect();
    lay_over(&mut found, over.range(range).map(|(number, tag)| (*number, *tag)));
    found
}

fn lay_over(tags: &mut BTreeMap<u16, Tag>, over: impl IntoIterator<Item = (u16, Option<Tag>)>) {
    for (number, tag) in over {
        match tag {
            Some(tag) => tags.insert(number, tag),
            None => tags.remove(&number),
        };
    }
}

fn encode_tags(tags: &BTreeMap<u16, Tag>) -> Vec<u8> {
    tags.iter().flat_map(|(number, tag)| number.to_be_bytes().into_iter().chain(*tag)).collect()
}

fn decode_tags(bytes: &[u8]) -> Option<BTreeMap<u16, Tag>> {
    let (entries, rest) = bytes.as_chunks::<{ 2 + TAG }>();
    let tags = entries.iter().map(|entry| {
        let (number, tag) = entry.split_first_chunk::<2>()?;
        Some((u16::from_be_bytes(*number), *tag.first_chunk()?))
    });
    rest.is_empty().then(|| tags.collect())?
}
