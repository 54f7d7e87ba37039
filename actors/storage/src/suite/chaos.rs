//! Whatever a disk does: nothing acknowledged is lost, nothing is half there, the next start
//! succeeds, and the index fits the records, or says which do not.

use std::collections::BTreeMap;
use std::sync::Arc;

use mssm_domain::{SealedBytes, StoredKey, StoredRecord};
use mssm_messages::index::{Discrepancy, IndexError};
use mssm_messages::storage::{Commit, StorageError, StorageReader as _, Write};

use super::index::{Kept, found};
use crate::StorageBackend;
use crate::backend::faults::{Dice, Fate, Trouble};

/// How many seeds a run of the tests tries; more are for `MSSM_TORTURE_DISKS`.
const SEEDS: u64 = 100;
const STEPS: u32 = 40;
const KEYS: u32 = 8;

/// A disk of which nothing good is to be expected, and the stores on it.
pub(crate) trait Doomed {
    type Store: StorageBackend + 'static;

    /// An empty disk that fails as the seed says.
    fn create(seed: u64) -> Self;

    /// A start, which never fails on a disk in order.
    fn open(&self) -> Self::Store;

    /// Does what the next commit would do first.
    fn heal(_store: &Self::Store) {}

    fn fate<T>(&self, work: impl FnOnce(&mut Fate) -> T) -> T;

    /// After a power cut.
    fn power_on(&self);
}

/// Runs lives on the disk, without an index and with one.
macro_rules! chaos {
    ($disk:ident) => {
        #[test]
        fn whatever_the_disk_does_nothing_acknowledged_is_lost() {
            $crate::suite::chaos::for_each_seed(|seed| {
                $crate::suite::chaos::Life::<$disk>::new(seed, false).live();
            });
        }

        #[test]
        fn whatever_the_disk_does_the_index_fits_or_says_what_was_changed() {
            $crate::suite::chaos::for_each_seed(|seed| {
                $crate::suite::chaos::Life::<$disk>::new(seed, true).live();
            });
        }
    };
}
pub(crate) use chaos;

pub(crate) fn for_each_seed(live: impl Fn(u64)) {
    #[expect(clippy::disallowed_methods, reason = "how scripts/torture says which and how many")]
    let told = |name| std::env::var(name).ok().and_then(|text| text.parse().ok());
    let first: u64 = told("MSSM_TORTURE_SEED").unwrap_or(0);
    let most = told("MSSM_TORTURE_DISKS").unwrap_or(SEEDS);
    (first..first.saturating_add(most)).for_each(live);
}

type Records = BTreeMap<u32, StoredRecord>;

/// A store in use.
struct Run<S> {
    store: Arc<S>,
    kept: Kept,
    /// The index has its key.
    indexed: bool,
}

/// One disk from its first commit to its last.
pub(crate) struct Life<D: Doomed> {
    seed: u64,
    disk: D,
    dice: Dice,
    /// What must be in the store.
    certain: Records,
    /// What may be there instead, all of it.
    doubt: Option<Records>,
    /// From this step on there is an index: before, it is a store of an older form.
    index_from: u32,
}

fn key(number: u32) -> StoredKey {
    let folder = if number.is_multiple_of(2) { "" } else { "vital/" };
    StoredKey::new(format!("{folder}key-{number}").into_bytes())
}

/// What says that the store has an index, as the keyring does.
fn mark() -> StoredKey {
    StoredKey::new(b"vital/indexed".to_vec())
}

fn held(store: &dyn StorageBackend) -> Result<Records, StorageError> {
    let mut found = Records::new();
    for number in 0..KEYS {
        if let Some(record) = store.read(&key(number))? {
            found.insert(number, record);
        }
    }
    Ok(found)
}

impl<D: Doomed> Life<D> {
    pub(crate) fn new(seed: u64, indexed: bool) -> Self {
        let mut dice = Dice::new(seed ^ 0xdead_beef);
        let index_from = if indexed { dice.roll(STEPS / 3) } else { STEPS };
        let (disk, certain, doubt) = (D::create(seed), Records::new(), None);
        Self { seed, disk, dice, certain, doubt, index_from }
    }

    pub(crate) fn live(mut self) {
        let mut running = None;
        for step in 0..STEPS {
            let mut run = running.take().unwrap_or_else(|| self.start());
            D::heal(&run.store);
            self.agrees(&*run.store);
            let marked = run.store.read(&mark()).expect("a disk in order").is_some();
            self.roll_for_trouble();
            let mut ends = false;
            if step >= self.index_from && !run.indexed {
                ends = !self.install(&mut run, marked);
            }
            if !ends {
                ends = self.commit(&mut run, step);
            }
            ends |= self.disk.fate(|fate| fate.is_dead()) || self.dice.roll(5) == 0;
            self.disk.fate(Fate::calm);
            assert!(run.kept.is_content(), "seed {}: a false alarm", self.seed);
            if ends {
                drop(run);
                // The process alone may have ended, and all that it wrote is still there.
                if self.disk.fate(|fate| fate.is_dead()) || self.dice.roll(2) == 0 {
                    self.disk.power_on();
                }
            } else {
                running = Some(run);
            }
        }
    }

    fn start(&mut self) -> Run<D::Store> {
        let store = Arc::new(self.disk.open());
        self.agrees(&*store);
        let shared: Arc<dyn StorageBackend> = store.clone();
        if store.read(&mark()).unwrap().is_some() && self.dice.roll(4) == 0 {
            self.what_is_changed_is_found(&shared);
        }
        let mut kept = Kept::new(&shared);
        if self.dice.roll(2) == 0 {
            kept.keeping.compare_behind();
        }
        Run { store, kept, indexed: false }
    }

    /// Compares a store with what must be there, and settles what was in doubt.
    fn agrees(&mut self, store: &dyn StorageBackend) {
        let (seed, found) = (self.seed, held(store).expect("a disk in order"));
        if let Some(doubt) = self.doubt.take().filter(|doubt| *doubt == found) {
            self.certain = doubt;
        }
        let names = |map: &Records| -> Vec<(u32, u64)> {
            map.iter().map(|(number, record)| (*number, record.version)).collect()
        };
        assert_eq!(names(&found), names(&self.certain), "seed {seed}");
        assert!(found == self.certain, "seed {seed}: contents");
        assert_eq!(store.check().map(|report| report.damaged), Ok(Vec::new()), "seed {seed}");
    }

    fn roll_for_trouble(&mut self) {
        if self.dice.roll(3) == 0 {
            let trouble = match self.dice.roll(6) {
                0 => Trouble { no_space: 3, ..Trouble::default() },
                1 => Trouble { write: 5, ..Trouble::default() },
                2 => Trouble { sync: 2, ..Trouble::default() },
                3 => Trouble { read: 4, ..Trouble::default() },
                4 => Trouble { no_space: 9, write: 9, read: 9, sync: 9 },
                _ => Trouble::default(),
            };
            self.disk.fate(|fate| fate.trouble(trouble));
        }
        if self.dice.roll(4) == 0 {
            let calls = 1 + self.dice.roll(30);
            self.disk.fate(|fate| fate.die_after(calls));
        }
    }

    /// Gives the index its key; false if it could not be had.
    fn install(&mut self, run: &mut Run<D::Store>, marked: bool) -> bool {
        match run.kept.install(marked, false) {
            Ok(_) => run.indexed = true,
            Err(IndexError::Storage(_)) => {}
            Err(IndexError::Distrusted(findings)) => {
                panic!("seed {}: a false alarm: {findings:?}", self.seed)
            }
        }
        for _ in 0..self.dice.roll(20) {
            run.kept.keeping.compare_further();
        }
        run.indexed
    }

    /// Commits something; true if the process would end.
    fn commit(&mut self, run: &mut Run<D::Store>, step: u32) -> bool {
        let (mut commit, after) = self.batch(u64::from(step) + 1);
        if run.indexed {
            commit.writes.push(Write::Put(mark(), record(1, 1, 0)));
        }
        let answer = run.kept.keeping.apply(&[commit]);
        let seed = self.seed;
        if let Ok(seen) = held(&*run.store) {
            let known = seen == self.certain || seen == after;
            assert!(known, "seed {seed}: neither before nor after is seen");
        }
        match answer {
            Ok(each) => {
                assert_eq!(each, [Ok(())], "seed {seed}");
                self.certain = after;
            }
            Err(StorageError::Damaged(cause)) => panic!("seed {seed}: {cause}"),
            // Nothing was written, and the service goes on.
            Err(StorageError::NoSpace(_) | StorageError::Io(_))
                if !self.disk.fate(|fate| fate.is_dead()) => {}
            Err(_) => self.doubt = Some(after),
        }
        self.doubt.is_some()
    }

    /// A batch over some keys, and what the store holds if it takes hold.
    fn batch(&mut self, version: u64) -> (Commit, Records) {
        let mut after = self.certain.clone();
        let mut writes = Vec::new();
        for _ in 0..=self.dice.roll(3) {
            let number = self.dice.roll(KEYS);
            if self.dice.roll(4) == 0 {
                after.remove(&number);
                writes.push(Write::Delete(key(number)));
            } else {
                let byte = u8::try_from(self.dice.roll(256)).unwrap();
                let most = if self.dice.roll(8) == 0 { 20_000 } else { 1_000 };
                let record = record(version, self.dice.roll(most), byte);
                after.insert(number, record.clone());
                writes.push(Write::Put(key(number), record));
            }
        }
        (Commit { preconditions: Vec::new(), writes }, after)
    }

    /// What somebody changes by hand after all that is found, and nothing else is.
    fn what_is_changed_is_found(&mut self, store: &Arc<dyn StorageBackend>) {
        assert_eq!(found(store), [], "seed {}", self.seed);
        let number = self.dice.roll(KEYS);
        let before = self.certain.get(&number);
        let deletes = before.is_some() && self.dice.roll(2) == 0;
        let what = match before {
            Some(_) if deletes => Discrepancy::Missing,
            Some(_) => Discrepancy::Changed,
            None => Discrepancy::Unknown,
        };
        if deletes {
            store.delete(&key(number)).unwrap();
        } else {
            store.put(&key(number), &record(77, 77, 77)).unwrap();
        }
        assert_eq!(found(store), [(key(number), what)], "seed {}", self.seed);
        match before {
            Some(before) => store.put(&key(number), before).unwrap(),
            None => store.delete(&key(number)).unwrap(),
        }
    }
}

fn record(version: u64, length: u32, byte: u8) -> StoredRecord {
    let sealed = SealedBytes::new(vec![byte; usize::try_from(length).unwrap()]);
    StoredRecord { version, sealed }
}
