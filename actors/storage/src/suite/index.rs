//! What every backend's records are held to: nothing that was put back by hand stays unseen.

use std::sync::{Arc, Mutex};

use mssm_domain::{SealedBytes, StoredKey, StoredRecord};
use mssm_messages::index::{Discrepancy, Findings, IndexError, IndexKey, IndexOpening, Standing};
use mssm_messages::storage::{Commit, Expect, StorageError, Write};
use sha2::{Digest, Sha256};

use super::{Store, key, put, record, when};
use crate::StorageBackend;
use crate::index::{consistent, is_index, root_key};
use crate::writer::Keeping;

struct Key;

impl IndexKey for Key {
    fn tag(&self, item: &[u8]) -> [u8; 32] {
        Sha256::new().chain_update(b"the key").chain_update(item).finalize().into()
    }
}

/// A store with its index, as the commit thread holds it, and what it says of records.
pub(super) struct Kept {
    pub(super) keeping: Keeping,
    told: Arc<Mutex<Vec<Findings>>>,
}

impl Kept {
    pub(super) fn new(store: &Arc<dyn StorageBackend>) -> Self {
        let told = Arc::<Mutex<Vec<Findings>>>::default();
        let listener = Arc::clone(&told);
        let tell = Box::new(move |findings| listener.lock().unwrap().push(findings));
        Self { keeping: Keeping::new(Arc::clone(store), tell), told }
    }

    pub(super) fn install(&mut self, expected: bool, accept: bool) -> Result<Standing, IndexError> {
        let vital = vec![key("vital/")];
        self.keeping.install(Some(IndexOpening { key: Box::new(Key), vital, expected, accept }))
    }

    fn open(store: &Arc<dyn StorageBackend>) -> Self {
        let mut kept = Self::new(store);
        assert_eq!(kept.install(false, false), Ok(Standing::default()));
        kept
    }

    fn commit(&mut self, writes: Vec<Write>) {
        assert_eq!(self.keeping.apply(&[when(&[], writes)]), Ok(vec![Ok(())]));
    }

    /// Whether nothing was told.
    pub(super) fn is_content(&self) -> bool {
        self.told.lock().unwrap().is_empty()
    }

    /// Compares all; what was told meanwhile.
    pub(super) fn swept(&mut self) -> Vec<(StoredKey, Discrepancy)> {
        while self.keeping.is_comparing() {
            self.keeping.compare_further();
        }
        named(&self.told.lock().unwrap().drain(..).next().unwrap_or_default())
    }
}

fn named(findings: &Findings) -> Vec<(StoredKey, Discrepancy)> {
    findings.first.iter().map(|finding| (finding.key.clone(), finding.what)).collect()
}

/// What is found at the opening of a large store or behind it, if it is at that of a small one, too.
pub(super) fn found(store: &Arc<dyn StorageBackend>) -> Vec<(StoredKey, Discrepancy)> {
    let [at_once, behind] = [true, false].map(|small| {
        let mut kept = Kept::new(store);
        if !small {
            kept.keeping.compare_behind();
        }
        match kept.install(true, false) {
            Ok(_) => {
                assert_ne!(kept.keeping.is_comparing(), small);
                kept.swept()
            }
            Err(IndexError::Distrusted(findings)) => named(&findings),
            Err(IndexError::Storage(error)) => panic!("{error}"),
        }
    });
    assert_eq!(at_once.is_empty(), behind.is_empty(), "{at_once:?} {behind:?}");
    behind
}

/// A store with some records, each written twice, and what lay in it before the second time.
fn written_twice<S: Store>() -> (S, Arc<dyn StorageBackend>, Vec<(StoredKey, StoredRecord)>) {
    let place = S::create();
    let store = place.open();
    let mut kept = Kept::open(&store);
    let names = ["a", "b", "vital/c", "vital/d"];
    kept.commit(names.map(|name| put(name, 1)).to_vec());
    kept.commit(vec![put("gone", 1), put("vital/gone", 1)]);
    let before = store.scan_records(b"", None, usize::MAX).unwrap();
    kept.commit(names.map(|name| put(name, 2)).to_vec());
    kept.commit(vec![Write::Delete(key("gone")), Write::Delete(key("vital/gone"))]);
    assert_eq!(kept.swept(), []);
    (place, store, before)
}

/// Damage is the store's to name: whose record it is stays known, and nobody takes it for forged or gone.
pub(crate) fn a_damaged_record_keeps_its_place_and_is_no_finding<S: Store>() {
    let place = S::create();
    put_with_index(&place.open(), &["a", "b", "c"]);
    if !place.damage(&key("b")) {
        return;
    }
    for accept in [false, true] {
        let store = place.open();
        assert_eq!(store.scan(b"", None, 3), Ok(vec![key("a"), key("b"), key("c")]));
        assert!(matches!(store.read(&key("b")), Err(StorageError::Damaged(_))));
        assert!(matches!(store.scan_records(b"", None, 3), Err(StorageError::Damaged(_))));
        assert_eq!(found(&store), [], "made anew: {accept}");
        if accept {
            let mut kept = Kept::new(&store);
            kept.install(true, true).unwrap();
            kept.commit(vec![put("b", 9)]);
            assert_eq!(found(&store), []);
            assert_eq!(store.read(&key("b")), Ok(Some(record(9, 1))));
        }
        // Without the root the index is made anew from what can be read.
        store.delete(&root_key()).unwrap();
        Kept::new(&store).install(true, true).unwrap();
        assert_eq!(found(&store), [], "made anew: {accept}");
    }
}

/// Puts records one by one, each with its part of the index.
pub(crate) fn put_with_index(store: &Arc<dyn StorageBackend>, names: &[&str]) {
    let mut kept = Kept::open(store);
    for name in names {
        kept.commit(vec![put(name, 1)]);
    }
}

pub(crate) fn an_older_a_deleted_and_a_swapped_record_are_found_and_named<S: Store>() {
    let (_place, store, _) = written_twice::<S>();
    assert_eq!(found(&store), []);
    let now = |name: &str| store.read(&key(name)).unwrap().unwrap();
    for (one, other) in [("a", "b"), ("vital/c", "vital/d")] {
        let (first, second) = (now(one), now(other));
        store.put(&key(one), &record(1, 1)).unwrap();
        assert_eq!(found(&store), [(key(one), Discrepancy::Changed)], "an older one");
        assert_eq!(consistent(&*store).unwrap().first.len(), 1, "seen without the key, too");
        store.delete(&key(one)).unwrap();
        assert_eq!(found(&store), [(key(one), Discrepancy::Missing)], "none");

        let (changed, exchanged) = (record(2, 3), record(2, 4));
        let mut kept = Kept::new(&store);
        kept.install(true, true).unwrap();
        let writes = [(one, &changed), (other, &exchanged)];
        kept.commit(writes.map(|(name, record)| Write::Put(key(name), record.clone())).to_vec());
        assert_eq!(found(&store), []);
        store.put(&key(one), &exchanged).unwrap();
        store.put(&key(other), &changed).unwrap();
        let mut both = found(&store);
        both.sort_by(|one, other| one.0.cmp(&other.0));
        assert_eq!(both, [one, other].map(|name| (key(name), Discrepancy::Changed)), "swapped");

        kept.install(true, true).unwrap();
        kept.commit(vec![Write::Put(key(one), first), Write::Put(key(other), second)]);
        assert_eq!(found(&store), []);
    }
    for name in ["gone", "vital/gone"] {
        store.put(&key(name), &record(1, 1)).unwrap();
        assert_eq!(found(&store), [(key(name), Discrepancy::Unknown)], "deleted, and there again");
        assert_eq!(consistent(&*store).unwrap().first.len(), 1);
        store.delete(&key(name)).unwrap();
    }
    assert_eq!((found(&store), consistent(&*store)), (vec![], Ok(Findings::default())));
}

/// Whoever puts a record back may put its part of the index back, too: all of it but the root, say.
pub(crate) fn a_part_of_the_index_that_goes_back_with_its_record_is_found<S: Store>() {
    let (_place, store, before) = written_twice::<S>();
    let after = store.scan_records(b"", None, usize::MAX).unwrap();
    let root = |key: &StoredKey| is_index(key.as_bytes()) && key.as_bytes().len() == 3;
    let wholly: Vec<&str> = vec!["a", "b", "vital/c", "vital/d", "gone", "vital/gone"];
    for left_out in wholly.iter().map(key).chain([key("the root")]) {
        let stays = |part: &StoredKey| left_out == key("the root") && root(part);
        for (part, _) in after.iter().filter(|(part, _)| is_index(part.as_bytes())) {
            if !stays(part) {
                store.delete(part).unwrap();
            }
        }
        for (back, record) in &before {
            if *back != left_out && !stays(back) {
                store.put(back, record).unwrap();
            }
        }
        assert_ne!(found(&store), [], "all went back but one");
        for (back, _) in &before {
            store.delete(back).unwrap();
        }
        for (there, record) in &after {
            store.put(there, record).unwrap();
        }
        assert_eq!(found(&store), []);
    }
    // What nobody can see from the inside: everything is as it once was.
    for (there, _) in &after {
        store.delete(there).unwrap();
    }
    for (back, record) in &before {
        store.put(back, record).unwrap();
    }
    assert_eq!(found(&store), []);
}

pub(crate) fn an_index_that_is_gone_is_missed_and_made_anew_only_when_told<S: Store>() {
    let (_place, store, _) = written_twice::<S>();
    for record in store.scan(b"", None, usize::MAX).unwrap() {
        if is_index(record.as_bytes()) {
            store.delete(&record).unwrap();
        }
    }
    assert_eq!(found(&store).len(), 1);
    let mut kept = Kept::new(&store);
    assert!(kept.install(true, false).is_err());
    assert_eq!(named(&kept.install(true, true).unwrap().accepted).len(), 1);
    kept.commit(vec![put("a", 3)]);
    assert_eq!(found(&store), []);
}

pub(crate) fn without_its_key_a_store_with_an_index_takes_nothing<S: Store>() {
    let place = S::create();
    let store = place.open();
    let mut kept = Kept::open(&store);
    kept.commit(vec![put("a", 1)]);
    kept.keeping.install(None).unwrap();
    let late = when(&[], vec![put("a", 2)]);
    assert_eq!(kept.keeping.apply(&[late]), Err(StorageError::Sealed));
    assert_eq!(found(&store), []);
}

/// A commit that meets a part of the index that was changed does not write over it.
pub(crate) fn no_commit_makes_a_changed_index_fit_again<S: Store>() {
    let (_place, store, before) = written_twice::<S>();
    let mut kept = Kept::open(&store);
    for (back, record) in &before {
        if is_index(back.as_bytes()) && back.as_bytes().len() == 5 {
            store.put(back, record).unwrap();
        }
    }
    let refused =
        kept.keeping.apply(&[when(&[], ["a", "b", "vital/c"].map(|name| put(name, 3)).to_vec())]);
    assert!(matches!(refused, Err(StorageError::Damaged(_))), "{refused:?}");
    assert!(!kept.told.lock().unwrap().is_empty(), "the server is told to seal");
}

/// What a commit replaces or rests upon is compared before it, however far the comparison has come.
pub(crate) fn no_commit_rests_on_what_was_put_back<S: Store>() {
    let (_place, store, _) = written_twice::<S>();
    let now = store.read(&key("a")).unwrap().unwrap();
    let tampered =
        [("a", Discrepancy::Changed), ("b", Discrepancy::Missing), ("gone", Discrepancy::Unknown)];
    store.put(&key("a"), &record(1, 1)).unwrap();
    store.delete(&key("b")).unwrap();
    store.put(&key("gone"), &record(1, 1)).unwrap();
    for (name, what) in tampered {
        let present = if what == Discrepancy::Missing { Expect::Absent } else { Expect::Present };
        for commit in [when(&[], vec![put(name, 3)]), when(&[(name, present)], vec![put("new", 1)])]
        {
            let mut kept = Kept::new(&store);
            kept.keeping.compare_behind();
            assert_eq!(kept.install(true, false), Ok(Standing::default()));
            assert_eq!(kept.keeping.apply(&[when(&[], vec![put("vital/c", 3)])]), Ok(vec![Ok(())]));
            let refused = kept.keeping.apply(&[commit]);
            assert!(matches!(refused, Err(StorageError::Damaged(_))), "{name}: {refused:?}");
            let told: Vec<_> = kept.told.lock().unwrap().iter().flat_map(named).collect();
            assert_eq!(told, [(key(name), what)]);
        }
    }
    store.put(&key("a"), &now).unwrap();
    assert_ne!(found(&store), []);
}

/// The answers are those of the backend alone, and the index fits after each group.
pub(crate) fn an_index_fits_after_any_groups<S: Store>() {
    let place = S::create();
    let store = place.open();
    let mut kept = Kept::open(&store);
    let (mut place_of, mut model) = (7_u64, std::collections::BTreeMap::new());
    for _ in 0..12 {
        let group: Vec<Commit> = (0..4)
            .map(|_| {
                place_of = place_of.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(1442);
                let name = format!(
                    "{}{}",
                    if place_of & 4096 == 0 { "" } else { "vital/" },
                    place_of >> 61
                );
                let expect = if place_of & 8192 == 0 { Expect::Present } else { Expect::Absent };
                let write = if place_of & 16384 == 0 {
                    put(&name, place_of >> 40)
                } else {
                    Write::Delete(key(&name))
                };
                when(&[(&name, expect)], vec![put(&format!("{name}+"), 1), write])
            })
            .collect();
        let expected: Vec<_> =
            group.iter().map(|batch| super::model_apply(&mut model, batch)).collect();
        assert_eq!(kept.keeping.apply(&group), Ok(expected));
        let there = store.scan_records(b"", None, usize::MAX).unwrap();
        let there: Vec<_> =
            there.into_iter().filter(|(key, _)| !is_index(key.as_bytes())).collect();
        assert_eq!(there, model.clone().into_iter().collect::<Vec<_>>());
        assert_eq!(found(&store), []);
    }
    let all = model.keys().cloned().map(Write::Delete).collect();
    kept.commit(all);
    assert_eq!(store.check().unwrap().records, 0);
    // However often a single record changes, what speaks of the others is taken in.
    for round in 0..9 {
        kept.commit(vec![put("one", round)]);
    }
    kept.commit(vec![Write::Delete(key("one"))]);
    let left = store.scan(b"", None, 99).unwrap();
    assert!(left.len() < 9, "the root, a bucket with its page, and the newest deltas: {left:?}");
    assert_eq!(found(&store), []);
}

/// What was deleted is put back, and the commit that deleted it made to say nothing.
pub(crate) fn a_forged_delta_is_found<S: Store>() {
    let (_place, store, before) = written_twice::<S>();
    let delta = store.scan_records(b"\xff\xffd", None, 9).unwrap().pop().unwrap();
    let tag = delta.1.sealed.as_bytes().last_chunk::<16>().unwrap();
    let sealed = SealedBytes::new([[0; 4].as_slice(), tag].concat());
    store.put(&delta.0, &StoredRecord { version: delta.1.version, sealed }).unwrap();
    for (back, record) in before.iter().filter(|(back, _)| back.as_bytes().ends_with(b"gone")) {
        store.put(back, record).unwrap();
    }
    assert_ne!(found(&store), []);
}
