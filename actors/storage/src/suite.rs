//! The one suite that every backend runs whole: what callers may rely on, whatever lies beneath.

use std::collections::BTreeMap;
use std::sync::Arc;

use mssm_domain::{SealedBytes, StoredKey, StoredRecord};
use mssm_messages::storage::{Commit, Expect, Precondition, StorageError, Write};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

use crate::StorageBackend;

pub(crate) mod chaos;
mod index;

pub(crate) use index::*;

/// A place for one test's store, which can be opened again and again.
pub(crate) trait Store {
    /// Whether records outlive the opened store.
    const DURABLE: bool;

    /// An empty place.
    fn create() -> Self;

    /// Opens the store in it.
    fn open(&self) -> Arc<dyn StorageBackend>;

    /// Spoils the bytes of one record in it, while it is not open; false if nothing can be.
    fn damage(&self, key: &StoredKey) -> bool;
}

/// Runs the whole suite over a [`Store`].
macro_rules! conformance {
    ($store:ident) => {
        $crate::suite::conformance!($store:
            records_are_put_replaced_and_deleted,
            a_batch_is_applied_whole_or_not_at_all,
            preconditions_see_earlier_members_of_their_group,
            a_batch_does_not_see_its_own_writes_in_its_preconditions,
            every_kind_of_precondition_is_held_to,
            pages_come_in_byte_order_and_only_under_their_prefix,
            hostile_keys_and_values_come_back,
            what_was_applied_is_there_after_opening_again,
            any_groups_leave_what_a_plain_map_would_hold,
            an_older_a_deleted_and_a_swapped_record_are_found_and_named,
            a_part_of_the_index_that_goes_back_with_its_record_is_found,
            an_index_that_is_gone_is_missed_and_made_anew_only_when_told,
            without_its_key_a_store_with_an_index_takes_nothing,
            no_commit_makes_a_changed_index_fit_again,
            no_commit_rests_on_what_was_put_back,
            an_index_fits_after_any_groups,
            a_damaged_record_keeps_its_place_and_is_no_finding,
            a_forged_delta_is_found,
        );
    };
    ($store:ident: $($case:ident,)+) => {
        mod conformance {
            $(
                #[test]
                fn $case() {
                    $crate::suite::$case::<super::$store>();
                }
            )+
        }
    };
}
pub(crate) use conformance;

fn key(bytes: impl AsRef<[u8]>) -> StoredKey {
    StoredKey::new(bytes.as_ref().to_vec())
}

fn record(version: u64, fill: u8) -> StoredRecord {
    StoredRecord { version, sealed: SealedBytes::new(vec![fill; 1 + usize::from(fill)]) }
}

fn put(name: &str, version: u64) -> Write {
    Write::Put(key(name), record(version, 1))
}

fn when(conditions: &[(&str, Expect)], writes: Vec<Write>) -> Commit {
    let preconditions = conditions
        .iter()
        .map(|(name, expect)| Precondition { key: key(name), expect: *expect })
        .collect();
    Commit { preconditions, writes }
}

fn version(store: &dyn StorageBackend, name: &str) -> Option<u64> {
    store.read(&key(name)).unwrap().map(|record| record.version)
}

pub(crate) fn records_are_put_replaced_and_deleted<S: Store>() {
    let place = S::create();
    let store = place.open();
    assert_eq!(store.get(&key("a")), Ok(None));
    store.put(&key("a"), &record(1, 10)).unwrap();
    assert_eq!(store.get(&key("a")), Ok(Some(record(1, 10))));
    store.put(&key("a"), &record(2, 20)).unwrap();
    assert_eq!(store.get(&key("a")), Ok(Some(record(2, 20))));
    store.delete(&key("a")).unwrap();
    store.delete(&key("a")).unwrap();
    assert_eq!(store.get(&key("a")), Ok(None));
    assert_eq!(store.check().unwrap().records, 0);
}

pub(crate) fn a_batch_is_applied_whole_or_not_at_all<S: Store>() {
    let place = S::create();
    let store = place.open();
    let absent = [("a", Expect::Absent)];
    let writes = vec![put("a", 1), put("b", 1), Write::Delete(key("c"))];
    let batch = when(&absent, writes);
    assert_eq!(store.apply(std::slice::from_ref(&batch)), Ok(vec![Ok(())]));
    store.put(&key("c"), &record(5, 5)).unwrap();
    assert_eq!(store.apply(&[batch]), Ok(vec![Err(StorageError::Precondition(0))]));
    assert_eq!(version(&*store, "c"), Some(5), "the refused batch wrote nothing");

    let twice = when(&[], vec![put("d", 1), put("d", 2), Write::Delete(key("a")), put("a", 9)]);
    store.apply(&[twice]).unwrap();
    assert_eq!((version(&*store, "d"), version(&*store, "a")), (Some(2), Some(9)), "in order");
    assert_eq!(store.apply(&[]), Ok(vec![]));
}

pub(crate) fn preconditions_see_earlier_members_of_their_group<S: Store>() {
    let place = S::create();
    let store = place.open();
    store.put(&key("gone"), &record(7, 1)).unwrap();
    let group = [
        when(&[("a", Expect::Absent)], vec![put("a", 1)]),
        when(&[("a", Expect::Absent)], vec![put("a", 99), put("b", 99)]),
        when(&[("a", Expect::Version(1))], vec![put("a", 2), Write::Delete(key("gone"))]),
        when(&[("a", Expect::Present), ("gone", Expect::Present)], vec![put("c", 99)]),
        when(&[("b", Expect::Absent), ("gone", Expect::Absent)], vec![put("d", 1)]),
    ];
    let refused = |place| Err(StorageError::Precondition(place));
    assert_eq!(store.apply(&group), Ok(vec![Ok(()), refused(0), Ok(()), refused(1), Ok(())]));
    let found = ["a", "b", "c", "d", "gone"].map(|name| version(&*store, name));
    assert_eq!(found, [Some(2), None, None, Some(1), None]);
}

pub(crate) fn a_batch_does_not_see_its_own_writes_in_its_preconditions<S: Store>() {
    let place = S::create();
    let store = place.open();
    let conditions = [("a", Expect::Absent), ("a", Expect::Absent), ("b", Expect::Absent)];
    let batch = when(&conditions, vec![put("a", 1), put("b", 1)]);
    assert_eq!(store.apply(&[batch]), Ok(vec![Ok(())]));
}

pub(crate) fn every_kind_of_precondition_is_held_to<S: Store>() {
    let place = S::create();
    let store = place.open();
    store.put(&key("there"), &record(3, 1)).unwrap();
    let table = [
        ("there", Expect::Absent, false),
        ("there", Expect::Present, true),
        ("there", Expect::Version(3), true),
        ("there", Expect::Version(2), false),
        ("there", Expect::Version(0), false),
        ("not", Expect::Absent, true),
        ("not", Expect::Present, false),
        ("not", Expect::Version(0), false),
    ];
    for (name, expect, holds) in table {
        let answer = store.apply(&[when(&[(name, expect)], vec![])]).unwrap();
        assert_eq!(answer[0].is_ok(), holds, "{name} {expect:?}");
    }
}

pub(crate) fn pages_come_in_byte_order_and_only_under_their_prefix<S: Store>() {
    let place = S::create();
    let store = place.open();
    let keys: Vec<&[u8]> = vec![
        b"",
        b"\0",
        b"a",
        b"a\0",
        b"a/",
        b"a/b",
        b"ab",
        b"b",
        b"\xfe\xff",
        b"\xff",
        b"\xff\0",
        b"\xff\xff",
        b"\xff\xff\xff",
    ];
    for bytes in keys.iter().rev() {
        store.put(&key(bytes), &record(1, 1)).unwrap();
    }
    let mut prefixes = keys.clone();
    prefixes.extend([b"zz".as_slice(), b"a/b/c", b"\xff\xfe"]);
    let afters = prefixes.iter().copied().map(Some).chain([None]);
    for (prefix, after) in
        prefixes.iter().flat_map(|prefix| afters.clone().map(move |after| (*prefix, after)))
    {
        let expected: Vec<_> = keys
            .iter()
            .filter(|found| found.starts_with(prefix) && after.is_none_or(|after| **found > after))
            .map(key)
            .collect();
        for limit in [0, 1, 2, 3, 100, usize::MAX] {
            let page = store.scan(prefix, after, limit).unwrap();
            assert_eq!(page[..], expected[..expected.len().min(limit)], "{prefix:?} {after:?}");
            let records = store.scan_records(prefix, after, limit).unwrap();
            let found: Vec<_> = records.iter().map(|(found, _)| found.clone()).collect();
            assert_eq!(found, page);
            assert!(records.iter().all(|(_, found)| *found == record(1, 1)));
        }
    }
    assert_eq!(store.check().unwrap().records, keys.len() as u64);
}

pub(crate) fn hostile_keys_and_values_come_back<S: Store>() {
    let place = S::create();
    let store = place.open();
    let mut keys = vec![Vec::new(), vec![0; 65536], vec![0xff; 65536], (0..=255).collect()];
    keys.extend((0..=255).map(|byte| vec![byte]));
    keys.extend(["../../etc/passwd", "/", "a\0b", "..", "journal"].map(Into::into));
    let writes = keys.iter().map(|bytes| Write::Put(key(bytes), record(u64::MAX, 255)));
    store.apply(&[Commit { preconditions: vec![], writes: writes.collect() }]).unwrap();
    for (version, length) in [(0, 0), (1, 1), (2, 1024 * 1024)] {
        let sealed = SealedBytes::new(vec![0xa5; length]);
        store.put(&key("value"), &StoredRecord { version, sealed: sealed.clone() }).unwrap();
        assert_eq!(store.read(&key("value")), Ok(Some(StoredRecord { version, sealed })));
    }
    drop(store);
    let store = place.open();
    for bytes in &keys {
        assert_eq!(store.read(&key(bytes)), Ok(Some(record(u64::MAX, 255))), "{} B", bytes.len());
    }
    let deletes = keys.iter().map(|bytes| Write::Delete(key(bytes))).collect();
    store.apply(&[Commit { preconditions: vec![], writes: deletes }]).unwrap();
    assert_eq!(store.scan(b"", None, 9), Ok(vec![key("value")]));
}

pub(crate) fn what_was_applied_is_there_after_opening_again<S: Store>() {
    let place = S::create();
    let store = place.open();
    store.apply(&[when(&[], vec![put("a", 1), put("b", 1)])]).unwrap();
    store.delete(&key("b")).unwrap();
    drop(store);
    let store = place.open();
    assert_eq!((version(&*store, "a"), version(&*store, "b")), (Some(1), None));
    if S::DURABLE {
        // A snapshot of the folder taken while it is open is what a crash would leave; that the
        // file backend's steps are safe one by one is tested beside it.
        assert!(store.check().unwrap().damaged.is_empty());
    }
}

pub(crate) fn any_groups_leave_what_a_plain_map_would_hold<S: Store>() {
    let expect = prop_oneof![
        Just(Expect::Absent),
        Just(Expect::Present),
        (1..4_u64).prop_map(Expect::Version)
    ];
    let name = prop::sample::select(vec!["", "a", "ab", "b"]);
    let precondition =
        (name.clone(), expect).prop_map(|(name, expect)| Precondition { key: key(name), expect });
    let write = (name, prop::option::weighted(0.7, 1..4_u64)).prop_map(|(name, version)| {
        version.map_or(Write::Delete(key(name)), |version| put(name, version))
    });
    let batch = (prop::collection::vec(precondition, 0..2), prop::collection::vec(write, 0..4))
        .prop_map(|(preconditions, writes)| Commit { preconditions, writes });
    let groups = prop::collection::vec(prop::collection::vec(batch, 0..4), 0..6);

    // Few cases: each syncs the disk many times.
    let mut runner =
        TestRunner::new(Config { failure_persistence: None, ..Config::with_cases(12) });
    let outcome = runner.run(&groups, |groups| {
        let place = S::create();
        let mut model = BTreeMap::new();
        for group in groups {
            let expected: Vec<_> =
                group.iter().map(|batch| model_apply(&mut model, batch)).collect();
            // Opened anew each time: nothing may live in memory alone.
            let store = place.open();
            prop_assert_eq!(store.apply(&group), Ok(expected));
            let found = store.scan_records(b"", None, 99).unwrap();
            prop_assert_eq!(&found.into_iter().collect::<BTreeMap<_, _>>(), &model);
        }
        Ok(())
    });
    outcome.unwrap();
}

/// The slow, obvious rule.
fn model_apply(
    model: &mut BTreeMap<StoredKey, StoredRecord>,
    batch: &Commit,
) -> Result<(), StorageError> {
    for (place, condition) in batch.preconditions.iter().enumerate() {
        let found = model.get(&condition.key);
        let holds = match condition.expect {
            Expect::Absent => found.is_none(),
            Expect::Present => found.is_some(),
            Expect::Version(version) => found.is_some_and(|found| found.version == version),
        };
        if !holds {
            return Err(StorageError::Precondition(place));
        }
    }
    for write in &batch.writes {
        match write {
            Write::Put(key, record) => model.insert(key.clone(), record.clone()),
            Write::Delete(key) => model.remove(key),
        };
    }
    Ok(())
}
