//! Whatever a disk does: nothing acknowledged is lost, nothing is half there, and the next start succeeds.

use std::collections::BTreeMap;
use std::path::Path;

use mssm_domain::SealedBytes;

use super::faults::{Dice, Disk, Trouble};
use super::*;

/// How many seeds a run of the tests tries; more are for `MSSM_TORTURE_DISKS`.
const SEEDS: u64 = 200;
const STEPS: u32 = 40;
const KEYS: u32 = 8;

/// What must be in the store: certainly, or one of two wholes.
#[derive(Default)]
struct Model {
    certain: BTreeMap<u32, StoredRecord>,
    doubt: Option<BTreeMap<u32, StoredRecord>>,
}

fn key(number: u32) -> StoredKey {
    StoredKey::new(format!("key-{number}").into_bytes())
}

fn open(path: &Path) -> EmbeddedStorage {
    let (path, watch) = (path.to_path_buf(), Arc::<Watch>::default());
    let database = open_database(&path, &watch).expect("a start never fails");
    EmbeddedStorage { path, watch, database: RwLock::new(Some(database)) }
}

/// A batch over some keys, and what the store holds if it takes hold.
fn batch(dice: &mut Dice, version: u64, held: &BTreeMap<u32, StoredRecord>) -> (Commit, Model) {
    let mut after = held.clone();
    let mut writes = Vec::new();
    for _ in 0..=dice.roll(3) {
        let number = dice.roll(KEYS);
        if dice.roll(4) == 0 {
            after.remove(&number);
            writes.push(Change::Delete(key(number)));
        } else {
            let length = usize::try_from(dice.roll(20_000)).unwrap();
            let byte = u8::try_from(dice.roll(256)).unwrap();
            let record = StoredRecord { version, sealed: SealedBytes::new(vec![byte; length]) };
            after.insert(number, record.clone());
            writes.push(Change::Put(key(number), record));
        }
    }
    (Commit { preconditions: Vec::new(), writes }, Model { certain: after, doubt: None })
}

fn held(store: &EmbeddedStorage) -> Result<BTreeMap<u32, StoredRecord>, StorageError> {
    let mut found = BTreeMap::new();
    for number in 0..KEYS {
        if let Some(record) = store.read(&key(number))? {
            found.insert(number, record);
        }
    }
    Ok(found)
}

impl Model {
    /// Compares a store with what must be there, and settles what was in doubt.
    fn agrees(&mut self, store: &EmbeddedStorage, seed: u64) {
        let found = held(store).expect("a disk in order");
        if let Some(doubt) = self.doubt.take().filter(|doubt| *doubt == found) {
            self.certain = doubt;
        }
        let names = |map: &BTreeMap<u32, StoredRecord>| -> Vec<(u32, u64)> {
            map.iter().map(|(number, record)| (*number, record.version)).collect()
        };
        assert_eq!(names(&found), names(&self.certain), "seed {seed}");
        assert!(found == self.certain, "seed {seed}: contents");
        assert_eq!(store.check().map(|report| report.damaged), Ok(Vec::new()), "seed {seed}");
    }
}

fn trouble(dice: &mut Dice) -> Trouble {
    match dice.roll(6) {
        0 => Trouble { no_space: 3, ..Trouble::default() },
        1 => Trouble { write: 5, ..Trouble::default() },
        2 => Trouble { sync: 2, ..Trouble::default() },
        3 => Trouble { read: 4, ..Trouble::default() },
        4 => Trouble { no_space: 9, write: 9, read: 9, sync: 9 },
        _ => Trouble::default(),
    }
}

fn live_through(seed: u64, path: &Path) {
    let disk = Disk::install(seed);
    let mut dice = Dice::new(seed ^ 0xdead_beef);
    let mut model = Model::default();
    let mut store = Some(open(path));
    for version in 1..=u64::from(STEPS) {
        let open_store = store.take().unwrap_or_else(|| open(path));
        if !open_store.is_open() {
            // As the next commit does.
            open_store.reopen().expect("a disk in order");
        }
        model.agrees(&open_store, seed);
        if dice.roll(3) == 0 {
            disk.trouble(trouble(&mut dice));
        }
        if dice.roll(4) == 0 {
            disk.die_after(1 + dice.roll(30));
        }
        let (commit, after) = batch(&mut dice, version, &model.certain);
        let answer = open_store.apply(&[commit]);
        if let Ok(seen) = held(&open_store) {
            let known = seen == model.certain || seen == after.certain;
            assert!(known, "seed {seed}: neither before nor after is seen");
        }
        match answer {
            Ok(each) => {
                assert_eq!(each, [Ok(())], "seed {seed}");
                model.certain = after.certain;
            }
            // Nothing was written, and the service goes on.
            Err(StorageError::NoSpace(_) | StorageError::Io(_)) if !disk.is_dead() => {}
            Err(_) => model.doubt = Some(after.certain),
        }
        let ends = model.doubt.is_some() || disk.is_dead() || dice.roll(5) == 0;
        disk.calm();
        if ends {
            drop(open_store);
            disk.power_on();
        } else {
            store = Some(open_store);
        }
    }
}

#[test]
fn whatever_the_disk_does_nothing_acknowledged_is_lost() {
    // The file is opened and stays empty: the disk is in memory.
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(FILE);
    #[expect(clippy::disallowed_methods, reason = "how scripts/torture says how many")]
    let most = std::env::var("MSSM_TORTURE_DISKS").ok().and_then(|text| text.parse().ok());
    for seed in 0..most.unwrap_or(SEEDS) {
        live_through(seed, &path);
    }
}
