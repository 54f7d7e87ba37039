//! The engine over a store in memory: what callers see, and what races leave behind.

use std::sync::Arc;
use std::time::Duration;

use actix::Actor;
use mssm_domain::{Document, MountId, SecretText};
use mssm_messages::engine::Unmount;
use mssm_messages::kv::{
    ChangeVersions, DeleteMetadata, KvError, KvPath, KvPorts, ListVersioned, PatchVersion,
    ReadMetadata, ReadPlain, ReadVersion, Space, VersionsChange, WriteConfig, WritePlain,
    WriteVersion,
};
use mssm_testkit::{MemoryStore, TestClock};

use crate::KvEngine;

struct Fixture {
    kv: KvPorts,
    clock: TestClock,
    store: MemoryStore,
    mount: MountId,
}

fn fixture() -> Fixture {
    let (barrier, store) = mssm_testkit::barrier();
    let clock = TestClock::new();
    let engine = KvEngine::new(barrier, Arc::new(clock.clone())).start();
    let mount = MountId::parse("6e2e9a0c-93a5-4a62-a4f7-2f0f1f7d6c11").unwrap();
    Fixture { kv: KvPorts::new(&engine), clock, store, mount }
}

fn path(text: &str) -> KvPath {
    KvPath::parse(text).unwrap()
}

fn document(text: &str) -> Document {
    Document::from_checked_json(SecretText::new(text.to_owned()))
}

impl Fixture {
    async fn write(&self, at: &str, text: &str, cas: Option<u64>) -> Result<u64, KvError> {
        let message = WriteVersion {
            mount: self.mount,
            path: path(at),
            document: document(text),
            check_and_set: cas,
        };
        self.kv.write_version.send(message).await.unwrap().map(|view| view.version)
    }

    async fn read(&self, at: &str, version: Option<u64>) -> Result<Option<String>, KvError> {
        let message = ReadVersion { mount: self.mount, path: path(at), version };
        let secret = self.kv.read_version.send(message).await.unwrap()?;
        Ok(secret.document.map(|document| document.expose().to_owned()))
    }

    async fn change(&self, at: &str, versions: &[u64], change: VersionsChange) {
        let (path, versions) = (path(at), versions.to_vec());
        let message = ChangeVersions { mount: self.mount, path, versions, change };
        self.kv.change_versions.send(message).await.unwrap().unwrap();
    }

    async fn list(&self, folder: &str) -> Result<Vec<String>, KvError> {
        let folder = folder.to_owned();
        let message = ListVersioned { mount: self.mount, folder, after: None, limit: 100 };
        self.kv.list_versioned.send(message).await.unwrap()
    }
}

#[actix::test]
async fn every_version_reads_back_as_it_was_sent() {
    let f = fixture();
    let texts = [r#"{"n":12345678901234567890}"#, r#"{ "n" : 1.10 }"#, r#"{"n":1E400}"#];
    for (number, text) in (1..).zip(texts) {
        assert_eq!(f.write("a/b", text, None).await, Ok(number));
    }
    for (number, text) in (1..).zip(texts) {
        assert_eq!(f.read("a/b", Some(number)).await, Ok(Some(text.to_owned())));
    }
    assert_eq!(f.read("a/b", None).await, Ok(Some(texts[2].to_owned())));
    assert_eq!(f.read("a/b", Some(4)).await, Err(KvError::NotFound));
    assert_eq!(f.read("a", None).await, Err(KvError::NotFound));
}

#[actix::test]
async fn deleted_versions_hide_and_come_back_destroyed_ones_do_not() {
    let f = fixture();
    f.write("x", "{\"v\":1}", None).await.unwrap();
    f.write("x", "{\"v\":2}", None).await.unwrap();
    f.change("x", &[], VersionsChange::Delete).await;
    assert_eq!(f.read("x", None).await, Ok(None));
    f.change("x", &[2], VersionsChange::Undelete).await;
    assert_eq!(f.read("x", None).await, Ok(Some("{\"v\":2}".to_owned())));
    f.change("x", &[1], VersionsChange::Destroy).await;
    f.change("x", &[1], VersionsChange::Undelete).await;
    assert_eq!(f.read("x", Some(1)).await, Ok(None));
}

#[actix::test]
async fn a_version_deletes_itself_when_its_time_has_come() {
    let f = fixture();
    let config = WriteConfig {
        mount: f.mount,
        max_versions: None,
        cas_required: None,
        delete_version_after_secs: Some(60),
    };
    f.kv.write_config.send(config).await.unwrap().unwrap();
    f.write("x", "{}", None).await.unwrap();
    f.clock.advance(Duration::from_secs(59));
    assert!(f.read("x", None).await.unwrap().is_some());
    f.clock.advance(Duration::from_secs(1));
    assert_eq!(f.read("x", None).await, Ok(None));
}

#[actix::test]
async fn writes_that_race_are_all_there() {
    let f = fixture();
    let writes = (0..12).map(|_| f.write("hot", "{}", None));
    let mut versions: Vec<u64> =
        futures_util::future::join_all(writes).await.into_iter().map(Result::unwrap).collect();
    versions.sort_unstable();
    assert_eq!(versions, (1..=12).collect::<Vec<u64>>());
}

#[actix::test]
async fn of_racing_writes_on_one_version_one_wins() {
    let f = fixture();
    let writes = (0..12).map(|_| f.write("hot", "{}", Some(0)));
    let results = futures_util::future::join_all(writes).await;
    assert_eq!(results.iter().filter(|result| result.is_ok()).count(), 1);
}

#[actix::test]
async fn a_patch_merges_into_the_latest_version_only() {
    let f = fixture();
    let patch = || PatchVersion {
        mount: f.mount,
        path: path("p"),
        patch: document(r#"{"b":null,"c":3}"#),
        check_and_set: None,
    };
    assert_eq!(f.kv.patch_version.send(patch()).await.unwrap(), Err(KvError::NotFound));
    f.write("p", r#"{"a":1,"b":2}"#, None).await.unwrap();
    f.kv.patch_version.send(patch()).await.unwrap().unwrap();
    assert_eq!(f.read("p", None).await, Ok(Some(r#"{"a":1,"c":3}"#.to_owned())));
}

#[actix::test]
async fn lists_show_secrets_and_folders_sorted() {
    let f = fixture();
    for at in ["b", "a/x", "a/y/z", "a"] {
        f.write(at, "{}", None).await.unwrap();
    }
    assert_eq!(f.list("").await.unwrap(), ["a", "a/", "b"]);
    assert_eq!(f.list("a").await.unwrap(), ["x", "y/"]);
    assert_eq!(f.list("nope").await, Err(KvError::NotFound));
}

#[actix::test]
async fn what_is_removed_leaves_no_record_behind() {
    let f = fixture();
    for _ in 0..3 {
        f.write("gone", "{}", None).await.unwrap();
    }
    let message = DeleteMetadata { mount: f.mount, path: path("gone") };
    f.kv.delete_metadata.send(message.clone()).await.unwrap().unwrap();
    f.kv.delete_metadata.send(message).await.unwrap().unwrap();
    assert!(f.store.is_empty());
    let read = ReadMetadata { mount: f.mount, path: path("gone") };
    assert_eq!(f.kv.read_metadata.send(read).await.unwrap(), Err(KvError::NotFound));
}

#[actix::test]
async fn an_unmounted_engine_keeps_nothing() {
    let f = fixture();
    f.write("v2", "{}", None).await.unwrap();
    let (space, path) = (Space::Mount(f.mount), path("v1"));
    let plain = WritePlain { space, path: path.clone(), document: document("{\"a\":1}") };
    f.kv.write_plain.send(plain).await.unwrap().unwrap();
    let read = f.kv.read_plain.send(ReadPlain { space, path }).await.unwrap().unwrap();
    assert_eq!(read.expose(), "{\"a\":1}");
    f.kv.unmount.send(Unmount { mount: f.mount }).await.unwrap().unwrap();
    assert!(f.store.is_empty());
}
