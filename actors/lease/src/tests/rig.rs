//! A lease manager on virtual time, over a store and an engine that fail when told to.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use actix::{Actor, Addr, Context, Handler, ResponseFuture};
use mssm_domain::{
    Accessor, BootId, Caller, Clock, ClusterId, ConnectionId, LeaseId, LeaseState, MountId,
    PolicyName, RoleName, SecretBytes, SecretText, Timestamp, TokenId, TokenKind, Ttl,
};
use mssm_messages::engine::{
    Confirm, Create, CreateError, Created, DynamicSecretsEngine, EngineError, EngineKind, Extend,
    LeaseRules, Outcome, Prepare, Prepared, Revoke, SecretsEngine, Unmount,
};
use mssm_messages::lease::{Count, Counts, Issue, Issued, LeaseError};
use mssm_messages::seal::{Closing, Opened};
use mssm_messages::{Barrier, Changes, access};
use mssm_testkit::{FakeKeys, MemoryStore, SeededRandom, TestClock, barrier_over};

use super::log::{FakeAudit, Log};
use crate::record::{LeaseRecord, ended_folder, live_folder, live_path};
use crate::{LeaseConfig, LeaseManager};

/// What the engine does with one creation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Making {
    Refused,
    /// In doubt, and it was made; nobody sees it before it is revoked in doubt.
    DoubtMade,
    DoubtNotMade,
    /// Made, but no answer comes in time.
    Silent,
    Panic,
}

/// The world outside: which credentials exist, and how it behaves.
#[derive(Default)]
pub(crate) struct World {
    pub(crate) exists: BTreeSet<LeaseId>,
    pub(crate) doubtful: BTreeSet<LeaseId>,
    pub(crate) making: VecDeque<Making>,
    pub(crate) extend_errors: VecDeque<EngineError>,
    pub(crate) revoke_replies: VecDeque<Outcome>,
    /// They leave something behind when their access has ended.
    pub(crate) laden: BTreeSet<LeaseId>,
    /// How long it takes to end access, and to remove what was left.
    pub(crate) access_takes: Duration,
    pub(crate) cleaning_takes: Duration,
    pub(crate) down: bool,
    pub(crate) changed: bool,
    pub(crate) ttl: Option<u64>,
    pub(crate) rules: LeaseRules,
    pub(crate) prepared: usize,
    pub(crate) created: usize,
    pub(crate) prepare_takes: Duration,
    pub(crate) create_takes: Duration,
    pub(crate) tried: BTreeMap<LeaseId, Timestamp>,
    pub(crate) ended: BTreeMap<LeaseId, Timestamp>,
    pub(crate) doubts: Vec<Option<BootId>>,
    pub(crate) ends: BTreeMap<LeaseId, Timestamp>,
    pub(crate) batches: Vec<usize>,
    pub(crate) in_flight: usize,
    pub(crate) in_flight_max: usize,
    pub(crate) orphans: usize,
    pub(crate) unmarked: usize,
}

pub(crate) type Shared<T> = Arc<Mutex<T>>;

struct FakeEngine {
    world: Shared<World>,
    store: MemoryStore,
    clock: TestClock,
}

impl Actor for FakeEngine {
    type Context = Context<Self>;
}

impl SecretsEngine for FakeEngine {}
impl DynamicSecretsEngine for FakeEngine {}

impl Handler<Unmount> for FakeEngine {
    type Result = Result<(), EngineError>;

    fn handle(&mut self, _msg: Unmount, _ctx: &mut Self::Context) -> Self::Result {
        Ok(())
    }
}

impl Handler<Prepare> for FakeEngine {
    type Result = ResponseFuture<Result<Prepared, EngineError>>;

    fn handle(&mut self, msg: Prepare, _ctx: &mut Self::Context) -> Self::Result {
        let mut world = self.world.lock().unwrap();
        world.prepared += 1;
        let number = u32::from(msg.role.as_str() == "other") + 1;
        let prepared = Prepared {
            target: ConnectionId::parse(&format!("00000000-0000-0000-0001-{number:012}")).unwrap(),
            data: SecretBytes::new(b"username".to_vec()),
            ttl: world.ttl.map(|secs| Ttl::from_secs(secs).unwrap()),
            max_ttl: None,
            renewable: true,
            rules: world.rules,
            name: format!("v-{}-{}", msg.role.as_str(), world.prepared),
            warnings: Vec::new(),
        };
        let takes = world.prepare_takes;
        Box::pin(async move {
            if !takes.is_zero() {
                tokio::time::sleep(takes).await;
            }
            Ok(prepared)
        })
    }
}

impl Handler<Create> for FakeEngine {
    type Result = ResponseFuture<Result<Created, CreateError>>;

    fn handle(&mut self, msg: Create, _ctx: &mut Self::Context) -> Self::Result {
        let world = Arc::clone(&self.world);
        let takes = world.lock().unwrap().create_takes;
        // The first guarantee: whatever is made has its record before.
        if self.store.stored(&FakeKeys::stored_key(&live_path(msg.lease.as_str()))).is_none() {
            world.lock().unwrap().orphans += 1;
        }
        Box::pin(async move {
            if !takes.is_zero() {
                tokio::time::sleep(takes).await;
            }
            let plan = {
                let mut world = world.lock().unwrap();
                world.created += 1;
                let plan = world.making.pop_front();
                match plan {
                    None | Some(Making::Silent | Making::Panic) => {
                        world.exists.insert(msg.lease.clone());
                        world.ends.insert(msg.lease.clone(), msg.expires_at);
                    }
                    Some(Making::DoubtMade) => {
                        world.doubtful.insert(msg.lease.clone());
                    }
                    Some(Making::Refused | Making::DoubtNotMade) => {}
                }
                plan
            };
            let error = EngineError::Refused("told to".to_owned());
            match plan {
                None => {
                    let secret = vec![("password", SecretText::new("hunter2".to_owned()))];
                    Ok(Created { secret, data: None })
                }
                Some(Making::Refused) => Err(CreateError { error, in_doubt: false }),
                Some(Making::DoubtMade | Making::DoubtNotMade) => {
                    Err(CreateError { error, in_doubt: true })
                }
                Some(Making::Silent) => std::future::pending().await,
                Some(Making::Panic) => {
                    Err(CreateError { error: EngineError::Internal, in_doubt: true })
                }
            }
        })
    }
}

impl Handler<Confirm> for FakeEngine {
    type Result = Result<bool, EngineError>;

    fn handle(&mut self, _msg: Confirm, _ctx: &mut Self::Context) -> Self::Result {
        Ok(!self.world.lock().unwrap().changed)
    }
}

impl Handler<Extend> for FakeEngine {
    type Result = Result<(), EngineError>;

    fn handle(&mut self, msg: Extend, _ctx: &mut Self::Context) -> Self::Result {
        let mut world = self.world.lock().unwrap();
        if let Some(error) = world.extend_errors.pop_front() {
            return Err(error);
        }
        world.ends.insert(msg.lease, msg.expires_at);
        Ok(())
    }
}

impl Handler<Revoke> for FakeEngine {
    type Result = ResponseFuture<Result<Vec<Outcome>, EngineError>>;

    fn handle(&mut self, msg: Revoke, _ctx: &mut Self::Context) -> Self::Result {
        let (world, clock) = (Arc::clone(&self.world), self.clock.clone());
        {
            let mut world = world.lock().unwrap();
            world.batches.push(msg.credentials.len());
            world.in_flight += 1;
            world.in_flight_max = world.in_flight_max.max(world.in_flight);
            for credential in &msg.credentials {
                // The second guarantee: that it is ending is durable before anybody is asked.
                let key = FakeKeys::stored_key(&live_path(credential.lease.as_str()));
                let bytes = self.store.stored(&key).map(|record| record.sealed.into_bytes());
                let plain = bytes.map(|bytes| SecretBytes::new(bytes[8..].to_vec()));
                let record = plain.and_then(|plain| LeaseRecord::decode(&plain).ok());
                let marked = record.is_some_and(|record| record.state == LeaseState::Ending);
                world.unmarked += usize::from(!marked);
                world.tried.entry(credential.lease.clone()).or_insert(clock.now());
            }
        }
        let takes = {
            let world = world.lock().unwrap();
            let more = if msg.access_only { world.access_takes } else { world.cleaning_takes };
            Duration::from_millis(100) + more
        };
        Box::pin(async move {
            tokio::time::sleep(takes).await;
            let mut world = world.lock().unwrap();
            world.in_flight -= 1;
            if world.down {
                return Err(EngineError::Unavailable("no route".to_owned()));
            }
            let mut outcomes = Vec::new();
            for credential in msg.credentials {
                let reply = world.revoke_replies.pop_front();
                let laden = msg.access_only && world.laden.contains(&credential.lease);
                let outcome = if laden { Outcome::Unfinished } else { Outcome::Gone };
                let outcome = reply.unwrap_or(outcome);
                if outcome == Outcome::Gone {
                    world.exists.remove(&credential.lease);
                    // Only who knows of the doubt finds what came late.
                    if credential.in_doubt.is_some() {
                        world.doubtful.remove(&credential.lease);
                    }
                    world.ended.insert(credential.lease, clock.now());
                }
                world.doubts.push(credential.in_doubt);
                outcomes.push(outcome);
            }
            Ok(outcomes)
        })
    }
}

/// Everything, started and open.
pub(crate) struct Rig {
    pub(crate) clock: TestClock,
    pub(crate) store: MemoryStore,
    pub(crate) barrier: Barrier,
    pub(crate) world: Shared<World>,
    pub(crate) log: Shared<Log>,
    pub(crate) manager: Addr<LeaseManager>,
    pub(crate) token: TokenId,
}

impl Rig {
    /// An empty store with one living token; time is paused and advances by itself.
    pub(crate) async fn new() -> Self {
        tokio::time::pause();
        Self::fresh().await
    }

    /// Another one in the same test, whose time is paused already.
    pub(crate) async fn fresh() -> Self {
        let rig = Self::over(MemoryStore::new(), TestClock::following_tokio(), Arc::default(), 1);
        rig.write_token(rig.token).await;
        rig
    }

    pub(crate) async fn write_token(&self, token: TokenId) {
        let path = access::token_record(token);
        let bytes = SecretBytes::new(vec![1]);
        self.barrier.commit(Changes::new().put(path, 0, bytes)).await.unwrap();
    }

    fn over(store: MemoryStore, clock: TestClock, world: Shared<World>, boot: u8) -> Self {
        let engine =
            FakeEngine { world: Arc::clone(&world), store: store.clone(), clock: clock.clone() };
        let ports = FakeEngine::ports(&engine.start());
        let log: Shared<Log> = Arc::default();
        let audit = FakeAudit(Arc::clone(&log)).start();
        let barrier = barrier_over(&store);
        let manager = LeaseManager::new(
            LeaseConfig { boot: boot_id(boot) },
            barrier.clone(),
            BTreeMap::from([(EngineKind::Database, ports)]),
            audit.into(),
            Arc::new(clock.clone()),
            Arc::new(SeededRandom::new(boot.into())),
        )
        .start();
        let token = TokenId::from_fingerprint([7; 32]);
        let rig = Self { clock, store, barrier, world, log, manager, token };
        rig.open();
        rig
    }

    /// Another run of the server over what a crash leaves of this one's store.
    pub(crate) fn crash(&self) -> Self {
        Self::over(self.store.copy(), self.clock.clone(), Arc::clone(&self.world), 2)
    }

    pub(crate) fn open(&self) {
        let cluster = ClusterId::parse("00000000-0000-0000-0000-0000000000aa").unwrap();
        actix_rt::spawn(self.manager.send(Opened { cluster }));
    }

    pub(crate) async fn close(&self) {
        self.manager.send(Closing).await.unwrap().unwrap();
    }

    pub(crate) fn world(&self) -> MutexGuard<'_, World> {
        self.world.lock().unwrap()
    }

    pub(crate) fn caller(&self) -> Caller {
        Caller {
            token: self.token,
            accessor: Accessor::parse("0123456789abcdefghijABCD").unwrap(),
            display_name: "token".to_owned(),
            policies: vec![PolicyName::default_policy()],
            kind: TokenKind::Service,
            issued_at: self.clock.now(),
            expires_at: None,
        }
    }

    pub(crate) fn ask(&self, role: &str) -> Issue {
        Issue {
            engine: EngineKind::Database,
            mount: mount(),
            prefix: format!("db/creds/{role}/"),
            role: RoleName::parse(role).unwrap(),
            caller: self.caller(),
            default_ttl: Ttl::from_secs(60).unwrap(),
            max_ttl: Ttl::from_secs(600).unwrap(),
            key: None,
        }
    }

    pub(crate) async fn issue(&self) -> Result<Issued, LeaseError> {
        self.manager.send(self.ask("app")).await.unwrap()
    }

    pub(crate) async fn counts(&self) -> Counts {
        self.manager.send(Count).await.unwrap().unwrap()
    }

    /// How many records of live and of ended leases the store has.
    pub(crate) async fn records(&self) -> (usize, usize) {
        let live = self.barrier.scan(&live_folder(), None, 10_000).await.unwrap();
        let ended = self.barrier.scan(&ended_folder(), None, 10_000).await.unwrap();
        (live.len(), ended.len())
    }

    /// Nothing is left: not outside, not in the book, no live record and no index.
    pub(crate) async fn assert_all_ended(&self, what: &str) {
        assert_eq!(self.world().exists.len(), 0, "outside: {what}");
        assert_eq!(self.world().doubtful.len(), 0, "in doubt outside: {what}");
        assert_eq!(self.records().await.0, 0, "live records: {what}");
        let counts = self.counts().await;
        let alive = (counts.active, counts.pending, counts.ending, counts.overdue);
        assert_eq!(alive, (0, 0, 0, 0), "book: {what}");
        let index = mssm_domain::RecordPath::new(&["lease-by-token"]);
        assert!(self.barrier.scan(&index, None, 10).await.unwrap().is_empty(), "index: {what}");
        assert_eq!(self.world().orphans, 0, "made without a record: {what}");
        assert_eq!(self.world().unmarked, 0, "asked before it was marked: {what}");
    }
}

pub(crate) fn mount() -> MountId {
    MountId::parse("00000000-0000-0000-0000-000000000001").unwrap()
}

pub(crate) fn boot_id(number: u8) -> BootId {
    BootId::parse(&format!("00000000-0000-0000-0000-{number:012}")).unwrap()
}

pub(crate) async fn pass(secs: u64) {
    tokio::time::sleep(Duration::from_secs(secs)).await;
}
