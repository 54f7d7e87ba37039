//! A server's worth of seal: keeper, replicas, owners that answer as told, a store in memory.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use actix::{Actor, Addr, Context, Handler, ResponseFuture};
use mssm_domain::{Random, RecordPath, SecretBytes, SecretText, Term};
use mssm_messages::keys::{Fingerprint, HideNames, KeyError, KeysPort, Purpose};
use mssm_messages::seal::{
    Closing, Found, Founded, Init, InstallAuditKey, Opened, Rotate, SealError, SealNow, SealStatus,
    Seeds, StageError, Stages, Status, Unseal,
};
use mssm_messages::{Barrier, Changes};
use mssm_testkit::{MemoryStore, SeededRandom, TestClock};

use crate::{KeeperConfig, KeyReplica, Link, RootKeySource, SealKeeper};

/// What owners were told, in order.
type Log = Rc<RefCell<Vec<String>>>;

/// An owner of state that notes what it is told.
struct Owner {
    name: &'static str,
    log: Log,
    keys: KeysPort,
    fails: Rc<RefCell<Option<&'static str>>>,
}

impl Owner {
    fn note(&self, what: &str) -> Result<(), StageError> {
        self.log.borrow_mut().push(format!("{} {what}", self.name));
        match *self.fails.borrow() {
            Some(stage) if stage == what => Err(StageError(format!("{what} failed"))),
            _ => Ok(()),
        }
    }
}

impl Actor for Owner {
    type Context = Context<Self>;
}

impl Handler<Found> for Owner {
    type Result = ResponseFuture<Result<Seeds, StageError>>;

    fn handle(&mut self, _msg: Found, _ctx: &mut Self::Context) -> Self::Result {
        let (noted, name, keys) = (self.note("found"), self.name, self.keys.clone());
        Box::pin(async move {
            noted?;
            // Founders hash tokens, so replicas must have keys already.
            let items = vec![SecretBytes::new(b"token".to_vec())];
            let hashed = keys.fingerprint(Fingerprint { purpose: Purpose::Token, items }).await;
            hashed.map_err(|error| StageError(error.to_string()))?;
            let bytes = SecretBytes::new(name.as_bytes().to_vec());
            let changes = Changes::new().put(RecordPath::new(&["seed", name]), 0, bytes);
            let root_token = (name == "access").then(|| SecretText::new("root".to_owned()));
            Ok(Seeds { changes, root_token })
        })
    }
}

impl Handler<Opened> for Owner {
    type Result = ResponseFuture<Result<(), StageError>>;

    fn handle(&mut self, _msg: Opened, _ctx: &mut Self::Context) -> Self::Result {
        let (noted, keys) = (self.note("opened"), self.keys.clone());
        Box::pin(async move {
            let hidden = keys.hide(HideNames(vec![RecordPath::new(&["a"])])).await;
            hidden.map_err(|error| StageError(error.to_string()))?;
            noted
        })
    }
}

impl Handler<Closing> for Owner {
    type Result = Result<(), StageError>;

    fn handle(&mut self, _msg: Closing, _ctx: &mut Self::Context) -> Self::Result {
        self.note("closing")
    }
}

impl Handler<InstallAuditKey> for Owner {
    type Result = Result<(), StageError>;

    fn handle(&mut self, msg: InstallAuditKey, _ctx: &mut Self::Context) -> Self::Result {
        self.note(if msg.seed.is_some() { "key" } else { "no key" })
    }
}

/// Randomness that panics when told to.
pub(super) struct Fragile {
    random: SeededRandom,
    pub(super) broken: AtomicBool,
}

impl Random for Fragile {
    fn fill(&self, buffer: &mut [u8]) {
        assert!(!self.broken.load(Ordering::SeqCst), "told to");
        self.random.fill(buffer);
    }
}

/// A server's worth of seal: call it again on the same store for a restart.
pub(super) struct Server {
    pub(super) keeper: Addr<SealKeeper>,
    pub(super) barriers: [Barrier; 2],
    pub(super) random: Arc<Fragile>,
    pub(super) clock: TestClock,
    log: Log,
    pub(super) fails: Rc<RefCell<Option<&'static str>>>,
}

impl Server {
    pub(super) async fn start(store: &MemoryStore, root_key: RootKeySource) -> Self {
        let clock = TestClock::new();
        let random =
            Arc::new(Fragile { random: SeededRandom::new(7), broken: AtomicBool::new(false) });
        let keeper = SealKeeper::new(KeeperConfig {
            root_key,
            storage: store.port(),
            clock: Arc::new(clock.clone()),
            random: random.clone(),
            index: None,
            accept_rollback: false,
        })
        .start();
        let replica = || KeyReplica::start(&keeper, Arc::new(clock.clone()), random.clone());
        let ports = [replica(), replica()];
        let (log, fails) = (Log::default(), Rc::default());
        let owner = |name| {
            let (log, fails) = (Rc::clone(&log), Rc::clone(&fails));
            Owner { name, log, keys: ports[0].clone(), fails }.start()
        };
        let (access, lease, audit) = (owner("access"), owner("lease"), owner("audit"));
        let stages = Stages {
            founders: vec![access.clone().recipient(), lease.clone().recipient()],
            openers: vec![access.clone().recipient(), lease.clone().recipient()],
            closers: vec![access.recipient(), lease.recipient()],
        };
        keeper.send(Link { stages, audit: Some(audit.into()), events: None }).await.unwrap();
        let barriers = ports.map(|port| Barrier::new(port, store.port()));
        Self { keeper, barriers, random, clock, log, fails }
    }

    pub(super) async fn shamir(store: &MemoryStore) -> Self {
        Self::start(store, RootKeySource::Shamir).await
    }

    pub(super) async fn with_key(store: &MemoryStore, key: u8) -> Self {
        let key = SecretBytes::new(vec![key; 32]);
        Self::start(store, RootKeySource::Static(Ok(key))).await
    }

    pub(super) async fn init(&self, shares: u8, threshold: u8) -> Result<Founded, SealError> {
        self.keeper.send(Init { shares, threshold }).await.unwrap()
    }

    pub(super) async fn unseal(&self, share: &SecretBytes) -> Result<SealStatus, SealError> {
        let text = SecretText::new(hex::encode(share.expose()));
        self.keeper.send(Unseal(text)).await.unwrap()
    }

    pub(super) async fn unseal_with(&self, shares: &[SecretBytes]) {
        for share in shares {
            self.unseal(share).await.unwrap();
        }
        assert!(!self.status().await.unwrap().sealed);
    }

    pub(super) async fn status(&self) -> Result<SealStatus, SealError> {
        self.keeper.send(Status).await.unwrap()
    }

    pub(super) async fn seal(&self) -> Result<(), SealError> {
        self.keeper.send(SealNow).await.unwrap()
    }

    pub(super) async fn rotate(&self) -> Result<Term, SealError> {
        self.keeper.send(Rotate).await.unwrap()
    }

    pub(super) async fn write(&self, name: &str) {
        let bytes = SecretBytes::new(name.as_bytes().to_vec());
        let changes = Changes::new().put(RecordPath::new(&["test", name]), 0, bytes);
        self.barriers[0].commit(changes).await.unwrap();
    }

    /// Reads through the other replica.
    pub(super) async fn reads(&self, name: &str) -> bool {
        let read = self.barriers[1].read(&RecordPath::new(&[name])).await;
        read.is_ok_and(|plain| plain.is_some())
    }

    pub(super) async fn has_no_keys(&self) -> bool {
        let mut none = true;
        for barrier in &self.barriers {
            let hidden = barrier.keys().hide(HideNames(vec![RecordPath::new(&["a"])])).await;
            none &= hidden == Err(KeyError::Sealed);
        }
        none
    }

    pub(super) fn take_log(&self) -> Vec<String> {
        self.log.take()
    }
}
