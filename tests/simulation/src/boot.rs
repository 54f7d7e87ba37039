//! One run of the server: the real lease manager and minter over the real writer, as wiring links them.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use actix::{Actor, Addr, AsyncContext, Context, Handler};
use mssm_domain::{BootId, Clock, ClusterId, Random};
use mssm_lease::{LeaseConfig, LeaseManager};
use mssm_messages::Barrier;
use mssm_messages::audit::{Append, AuditError};
use mssm_messages::engine::{DynamicSecretsEngine, EngineKind};
use mssm_messages::reconcile::ReconcilePorts;
use mssm_messages::seal::{Closing, Opened};
use mssm_minter::{LeaseManagerPorts, Minter, MinterConfig};
use mssm_storage::MemoryStorage;
use mssm_testkit::{FakeKeys, SeededRandom, TestClock};

use crate::disk::Disk;
use crate::model::Model;
use crate::weather::Weather;

/// All that outlives a run.
#[derive(Clone)]
pub(crate) struct World {
    pub(crate) weather: Arc<Weather>,
    pub(crate) records: Arc<MemoryStorage>,
    pub(crate) database: Arc<dyn Model>,
    pub(crate) clock: TestClock,
}

/// A log that takes every line.
struct Audit;

impl Actor for Audit {
    type Context = Context<Self>;
}

impl Handler<Append> for Audit {
    type Result = Result<(), AuditError>;

    fn handle(&mut self, _msg: Append, _ctx: &mut Self::Context) -> Self::Result {
        Ok(())
    }
}

pub(crate) struct Boot {
    pub(crate) lease: Addr<LeaseManager>,
    pub(crate) minter: Addr<Minter>,
    pub(crate) barrier: Barrier,
    keys: FakeKeys,
    dead: Arc<AtomicBool>,
    number: u64,
    database: Arc<dyn Model>,
}

impl Boot {
    pub(crate) async fn start(world: &World, number: u64) -> Self {
        // Names of locks have room for the first half only.
        let boot = BootId::parse(&format!("{number:08}-0000-0000-0000-000000000000")).unwrap();
        let dead: Arc<AtomicBool> = Arc::default();
        let keys = FakeKeys::start();
        let storage = Disk::port(&world.records, &world.weather, &dead);
        let barrier = Barrier::new(keys.port(), storage);
        let clock: Arc<dyn Clock> = Arc::new(world.clock.clone());
        let random: Arc<dyn Random> = Arc::new(SeededRandom::new(world.weather.random.next_u64()));
        let database = Arc::clone(&world.database);
        let way = database.way(number, &dead);
        // The two know each other: the lease manager runs once it has the minter's ports.
        let context = Context::<LeaseManager>::new();
        let lease = context.address();
        let leases = LeaseManagerPorts {
            count: lease.clone().into(),
            issue: lease.clone().into(),
            revoke: lease.clone().into(),
            reconcile: ReconcilePorts::new(&lease),
        };
        let config = MinterConfig { boot, leases, restored: false };
        let (ours, own) = (barrier.clone(), Arc::clone(&random));
        let minter = Minter::over(config, ours, Arc::clone(&clock), own, way).start();
        let engines = BTreeMap::from([(EngineKind::Database, Minter::ports(&minter))]);
        let audit = Audit.start().into();
        let manager = LeaseConfig { boot };
        let manager = LeaseManager::new(manager, barrier.clone(), engines, audit, clock, random);
        context.run(manager);
        let started = Self { lease, minter, barrier, keys, dead, number, database };
        started.unseal().await;
        started
    }

    pub(crate) fn is_dead(&self) -> bool {
        self.dead.load(Ordering::SeqCst)
    }

    /// The process dies between two instructions: nothing of it reaches disk or database any more.
    pub(crate) fn kill(&self) {
        self.dead.store(true, Ordering::SeqCst);
        self.database.hang_up(self.number);
        // Of what is left here in memory, nothing ticks on.
        let (lease, minter) = (self.lease.clone(), self.minter.clone());
        actix_rt::spawn(async move {
            let _ = (lease.send(Closing).await, minter.send(Closing).await);
        });
    }

    pub(crate) async fn seal(&self) {
        let _ = self.minter.send(Closing).await;
        let _ = self.lease.send(Closing).await;
        self.keys.set_sealed(true);
    }

    pub(crate) async fn unseal(&self) {
        let cluster = ClusterId::parse("00000000-0000-0000-0000-0000000000aa").unwrap();
        self.keys.set_sealed(false);
        self.minter.send(Opened { cluster }).await.unwrap().unwrap();
        self.lease.send(Opened { cluster }).await.unwrap().unwrap();
    }
}
