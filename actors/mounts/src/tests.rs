//! The keeper over a store in memory: what is in force, and what a crash leaves.

use std::collections::BTreeMap;
use std::sync::Arc;

use actix::{Actor, Addr, Context, Handler};
use mssm_domain::{CanonicalPath, ClusterId, Prefix, RecordPath, Ttl};
use mssm_messages::engine::{EngineError, EngineKind, Unmount};
use mssm_messages::lease::{LeaseError, RevokeMount};
use mssm_messages::mounts::{
    Disable, Enable, InstallTable, MountError, MountPorts, MountTable, ReadTable, RegisterTable,
    Tune, TunePatch,
};
use mssm_messages::seal::{Closing, Found, Opened};
use mssm_testkit::{MemoryStore, SeededRandom};

use crate::{MountKeeper, MountReplica};

/// Leases and an engine: how many leases are left, and how many mounts were forgotten.
#[derive(Default)]
struct Others {
    left: u64,
    forgotten: u64,
}

impl Actor for Others {
    type Context = Context<Self>;
}

impl Handler<RevokeMount> for Others {
    type Result = Result<u64, LeaseError>;

    fn handle(&mut self, _msg: RevokeMount, _ctx: &mut Self::Context) -> Self::Result {
        Ok(self.left)
    }
}

impl Handler<Unmount> for Others {
    type Result = Result<(), EngineError>;

    fn handle(&mut self, _msg: Unmount, _ctx: &mut Self::Context) -> Self::Result {
        self.forgotten += 1;
        Ok(())
    }
}

struct Fixture {
    keeper: Addr<MountKeeper>,
    ports: MountPorts,
}

async fn keeper(store: &MemoryStore, left: u64) -> Fixture {
    let others = Others { left, forgotten: 0 }.start();
    let barrier = mssm_testkit::barrier_over(store);
    let engines = BTreeMap::from([(EngineKind::Kv, others.clone().into())]);
    let random = Arc::new(SeededRandom::new(7));
    let keeper = MountKeeper::new(barrier.clone(), others.into(), engines, random).start();
    let ports = MountReplica::start(&keeper);
    if store.is_empty() {
        let seeds = keeper.send(Found).await.unwrap().unwrap();
        barrier.commit(seeds.changes).await.unwrap();
    }
    Fixture { keeper, ports }
}

async fn opened(store: &MemoryStore, left: u64) -> Fixture {
    let fixture = keeper(store, left).await;
    let cluster = ClusterId::parse("6e2e9a0c-93a5-4a62-a4f7-2f0f1f7d6c11").unwrap();
    fixture.keeper.send(Opened { cluster }).await.unwrap().unwrap();
    fixture
}

impl Fixture {
    async fn table(&self) -> Arc<MountTable> {
        self.ports.table.send(ReadTable).await.unwrap().unwrap()
    }

    async fn enable(&self, at: &str, kind: EngineKind) -> Result<(), MountError> {
        let message = Enable {
            prefix: Prefix::parse(at).unwrap(),
            kind,
            version: 0,
            description: String::new(),
            tune: TunePatch::default(),
        };
        self.keeper.send(message).await.unwrap().map(|_| ())
    }

    async fn disable(&self, at: &str) -> Result<(), MountError> {
        self.keeper.send(Disable { prefix: Prefix::parse(at).unwrap() }).await.unwrap()
    }
}

fn owner(table: &MountTable, path: &str) -> Option<String> {
    let path = CanonicalPath::parse(path).unwrap();
    table.resolve(&path).map(|(mount, rest)| format!("{} {rest}", mount.prefix))
}

#[actix_rt::test]
async fn a_new_store_has_the_default_mounts() {
    let fixture = opened(&MemoryStore::new(), 0).await;
    let table = fixture.table().await;
    let prefixes: Vec<_> = table.iter().map(|mount| mount.prefix.as_str().to_owned()).collect();
    assert_eq!(
        prefixes,
        ["auth/token/", "cubbyhole/", "db/", "identity/", "jwt/", "secret/", "sys/"]
    );
    assert_eq!(owner(&table, "db/creds/app").unwrap(), "db/ creds/app");
    assert_eq!(owner(&table, "nope/x"), None);
}

#[actix_rt::test]
async fn without_keys_there_is_no_table() {
    let fixture = keeper(&MemoryStore::new(), 0).await;
    let read = fixture.ports.table.send(ReadTable).await.unwrap();
    assert_eq!(read.err(), Some(MountError::Sealed));
    assert_eq!(fixture.enable("kv1", EngineKind::Kv).await, Err(MountError::Sealed));
    let fixture = opened(&MemoryStore::new(), 0).await;
    fixture.keeper.send(Closing).await.unwrap().unwrap();
    assert!(fixture.ports.table.send(ReadTable).await.unwrap().is_err());
}

#[actix_rt::test]
async fn paths_have_one_owner() {
    let fixture = opened(&MemoryStore::new(), 0).await;
    fixture.enable("team/kv", EngineKind::Kv).await.unwrap();
    let taken = |at: &str| Err(MountError::Taken(at.to_owned()));
    assert_eq!(fixture.enable("team/kv", EngineKind::Kv).await, taken("team/kv/"));
    assert_eq!(fixture.enable("team", EngineKind::Kv).await, taken("team/kv/"));
    assert_eq!(fixture.enable("team/kv/deep", EngineKind::Kv).await, taken("team/kv/"));
    fixture.enable("team/kv2", EngineKind::Database).await.unwrap();
    for at in ["sys/x", "auth/x", "identity"] {
        let refused = fixture.enable(at, EngineKind::Kv).await;
        assert!(matches!(refused, Err(MountError::Reserved(_))), "{at}");
    }
    assert!(fixture.enable("t2", EngineKind::Token).await.is_err());
}

#[actix_rt::test]
async fn mounts_outlive_a_restart() {
    let store = MemoryStore::new();
    opened(&store, 0).await.enable("kv1", EngineKind::Kv).await.unwrap();
    let table = opened(&store.copy(), 0).await.table().await;
    assert_eq!(owner(&table, "kv1/a").unwrap(), "kv1/ a");
}

#[actix_rt::test]
async fn a_mount_with_leases_left_falls_silent_and_goes_when_they_have_ended() {
    let store = MemoryStore::new();
    let fixture = opened(&store, 3).await;
    assert_eq!(fixture.disable("secret").await, Err(MountError::LeasesLeft(3)));
    let path = CanonicalPath::parse("secret/x").unwrap();
    let leaving = |table: &MountTable| table.resolve(&path).map(|(mount, _)| mount.leaving);
    assert_eq!(leaving(&*fixture.table().await), Some(true));
    // The same after a restart; then the leases have ended.
    let fixture = opened(&store.copy(), 0).await;
    assert_eq!(leaving(&*fixture.table().await), Some(true));
    fixture.disable("secret").await.unwrap();
    assert_eq!(leaving(&*fixture.table().await), None);
    fixture.disable("secret").await.unwrap();
    fixture.enable("secret", EngineKind::Kv).await.unwrap();
}

#[actix_rt::test]
async fn what_the_server_needs_cannot_be_taken_away() {
    let fixture = opened(&MemoryStore::new(), 0).await;
    for at in ["sys", "cubbyhole", "auth/token"] {
        assert!(matches!(fixture.disable(at).await, Err(MountError::BuiltIn(_))), "{at}");
    }
}

#[actix_rt::test]
async fn settings_that_contradict_each_other_are_refused() {
    let fixture = opened(&MemoryStore::new(), 0).await;
    let tune = |default: u64, max: u64| {
        let ttl = |secs| Some(Some(Ttl::from_secs(secs).unwrap()));
        let patch =
            TunePatch { default_ttl: ttl(default), max_ttl: ttl(max), ..TunePatch::default() };
        fixture.keeper.send(Tune { prefix: Prefix::parse("db").unwrap(), patch })
    };
    assert!(tune(20, 10).await.unwrap().is_err());
    tune(10, 20).await.unwrap().unwrap();
    let table = fixture.table().await;
    let mount = table.iter().find(|mount| mount.prefix.as_str() == "db/").unwrap();
    assert_eq!(mount.effective_default_ttl(), Ttl::from_secs(10).unwrap());
}

#[actix_rt::test]
async fn a_damaged_mount_is_said_when_the_server_opens() {
    let store = MemoryStore::new();
    let fixture = keeper(&store, 0).await;
    let barrier = mssm_testkit::barrier_over(&store);
    let bytes = b"{}".to_vec().into();
    let path = RecordPath::new(&["mount", "x"]);
    barrier.commit(mssm_messages::Changes::new().put(path, 0, bytes)).await.unwrap();
    let cluster = ClusterId::parse("6e2e9a0c-93a5-4a62-a4f7-2f0f1f7d6c11").unwrap();
    assert!(fixture.keeper.send(Opened { cluster }).await.unwrap().is_err());
}

#[actix_rt::test]
async fn no_more_is_mounted_than_a_store_opens_with() {
    let store = MemoryStore::new();
    let fixture = opened(&store, 0).await;
    let mut refused = 0;
    for number in 0..crate::rules::MOUNTS_MAX {
        let enabled = fixture.enable(&format!("kv{number}"), EngineKind::Kv).await;
        refused += usize::from(enabled.is_err());
    }
    assert_eq!(refused, 7, "the default mounts count");
    let table = opened(&store.copy(), 0).await.table().await;
    assert_eq!(table.iter().count(), crate::rules::MOUNTS_MAX);
}

/// A replica whose thread is held up for a while; keeps what it is sent.
struct HeldUp(Arc<std::sync::Mutex<Vec<InstallTable>>>);

impl Actor for HeldUp {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        use actix::{AsyncContext, WrapFuture};
        ctx.wait(tokio::time::sleep(std::time::Duration::from_mins(1)).into_actor(self));
    }
}

impl Handler<InstallTable> for HeldUp {
    type Result = ();

    fn handle(&mut self, msg: InstallTable, _ctx: &mut Self::Context) {
        self.0.lock().unwrap().push(msg);
    }
}

#[actix_rt::test]
async fn a_worker_that_is_held_up_holds_nobody_up_and_gets_the_table_all_the_same() {
    tokio::time::pause();
    let fixture = opened(&MemoryStore::new(), 0).await;
    let told = Arc::default();
    let held_up = HeldUp(Arc::clone(&told)).start();
    fixture.keeper.send(RegisterTable(held_up.recipient())).await.unwrap();
    let start = tokio::time::Instant::now();
    fixture.enable("kv1", EngineKind::Kv).await.unwrap();
    fixture.enable("kv2", EngineKind::Kv).await.unwrap();
    assert!(start.elapsed() < std::time::Duration::from_secs(3));
    tokio::time::sleep(std::time::Duration::from_mins(1)).await;
    let last = told.lock().unwrap().last().cloned().unwrap();
    assert_eq!(owner(&last.table.unwrap(), "kv2/a").unwrap(), "kv2/ a");
}

#[actix_rt::test]
async fn a_store_from_before_a_built_in_mount_gets_it_when_it_is_opened() {
    let store = MemoryStore::new();
    let identities = |table: &MountTable| {
        let found = table.iter().filter(|mount| mount.kind == EngineKind::Identity);
        found.map(|mount| (mount.id, mount.built_in)).collect::<Vec<_>>()
    };
    let first = identities(&*opened(&store, 0).await.table().await);
    let path = RecordPath::new(&["mount", &first[0].0.to_string()]);
    store.tamper(&mssm_testkit::FakeKeys::stored_key(&path), None);
    let second = identities(&*opened(&store, 0).await.table().await);
    assert!(matches!(second.as_slice(), [(_, true)]), "{second:?}");
    assert_eq!(identities(&*opened(&store, 0).await.table().await), second);
}
