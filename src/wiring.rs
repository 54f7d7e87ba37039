//! Starts, links and stops the actors: the only place that knows all of them.
//!
//! Leaves first: audit and storage have threads of their own, the owners of small state share the
//! system arbiter, leases and databases share another, and every HTTP worker starts its own
//! replicas. Nobody knows anybody but by the ports handed over here.

mod audit;
mod door;
mod store;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use actix::{Actor, Addr, Arbiter, ArbiterHandle, AsyncContext, Context};
use mssm_access::{AccessKeeper, AccessReplica};
use mssm_domain::{BootId, Clock, Prefix, Random, generate_uuid};
use mssm_http::{
    About, AuditPorts, Certificate, DevicePorts, FrontDoor, JwtKeeperPorts, JwtPorts,
    JwtSignerPorts, LeasePorts, MinterPorts, Running, SealPorts, ServerConfig,
};
use mssm_jwt::{JwtKeeper, JwtSigner};
use mssm_kv::KvEngine;
use mssm_lease::{LeaseConfig, LeaseManager};
use mssm_messages::audit::{Append, Event, Reopen};
use mssm_messages::engine::{DynamicSecretsEngine, EngineKind, EnginePorts, Unmount};
use mssm_messages::index::Findings;
use mssm_messages::keys::KeysPort;
use mssm_messages::kv::KvPorts;
use mssm_messages::reconcile::ReconcilePorts;
use mssm_messages::seal::{SealNow, Stages};
use mssm_messages::storage::StoragePort;
use mssm_messages::{Barrier, Port};
use mssm_minter::{LeaseManagerPorts, Minter, MinterConfig};
use mssm_mounts::{MountKeeper, MountReplica};
use mssm_seal::{KeeperConfig, KeyReplica, Link, RootKeySource, SealKeeper};
use mssm_storage::StorageHandle;
use tokio::sync::{mpsc, oneshot};

use crate::Wishes;
use crate::bounds::bounds;
use crate::chronicle::{Chronicle, Note};
use crate::clock::{OsRandom, SystemClock};
use crate::config::{Config, SealConfig};
use crate::databases::{ConfiguredDatabases, ConfiguredTrials};
use crate::wiring::store::Store;

/// How long requests in flight may take when the server is told to stop.
const DRAIN: Duration = Duration::from_secs(10);

/// Why the server did not start, for the operator.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The store.
    #[error("storage: {0}")]
    Storage(#[from] mssm_storage::OpenError),
    /// A device of the audit.
    #[error("audit device {0}: {1}")]
    Audit(Prefix, String),
    /// The certificate.
    #[error("tls: {0}")]
    Tls(#[from] mssm_http::TlsError),
    /// The socket.
    #[error(transparent)]
    Listen(#[from] mssm_http::ServerError),
    /// The system gives no thread.
    #[error("cannot start a thread: {0}")]
    Thread(#[from] std::io::Error),
    /// An actor ended while it was being linked.
    #[error("cannot start: an actor ended at once")]
    Linking,
}

/// The running actors, as far as whoever watches over them needs them.
pub struct Server {
    /// The front door.
    pub http: Running,
    /// The certificate, to be read again on SIGHUP.
    pub certificate: Arc<Certificate>,
    /// The seal keeper.
    pub seal: Addr<SealKeeper>,
    /// Says why the store stopped taking writes, once.
    pub poisoned: oneshot::Receiver<String>,
    /// Says which records are not what was written last.
    pub distrusted: mpsc::Receiver<Findings>,
    /// What the server does by itself is written down through it.
    pub(crate) chronicle: Addr<Chronicle>,
    /// Has the audit log look for its file again.
    pub(crate) reopen_audit: Port<Reopen>,
    storage: StorageHandle,
    audit: JoinHandle<()>,
}

/// What every actor is given.
#[derive(Clone)]
struct Ground {
    clock: Arc<dyn Clock>,
    random: Arc<dyn Random>,
    storage: StoragePort,
    seal: Addr<SealKeeper>,
}

impl Ground {
    /// A key replica on the current arbiter, and the barrier over it.
    fn barrier(&self) -> (KeysPort, Barrier) {
        let (clock, random) = (Arc::clone(&self.clock), Arc::clone(&self.random));
        let keys = KeyReplica::start(&self.seal, clock, random);
        (keys.clone(), Barrier::new(keys, self.storage.clone()))
    }
}

/// Starts everything; the server is sealed, and listens when this returns.
pub async fn start(config: Config, wishes: Wishes) -> Result<Server, StartError> {
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let random: Arc<dyn Random> = Arc::new(OsRandom);
    let boot = BootId::from_uuid(generate_uuid(random.as_ref()));
    let Store { port: storage, handle: storage_handle, poisoned, distrusted } =
        store::open(&config.storage)?;
    let certificate = door::certificate(&config)?;
    let (audit, audit_thread) = audit::start(&config.audit, &clock)?;

    let about = door::about(&config, boot, clock.as_ref());
    let seal = SealKeeper::new(KeeperConfig {
        root_key: root_key(config.seal),
        storage: storage.clone(),
        clock: Arc::clone(&clock),
        random: Arc::clone(&random),
        index: Some(storage_handle.index()),
        accept_rollback: wishes.accept_rollback,
    })
    .start();
    let ground = Ground { clock, random, storage, seal: seal.clone() };
    // Together, because every login goes back and forth between the two.
    let arbiter = Arbiter::new().handle();
    let (lease, engines) = start_lease(&arbiter, &ground, boot, audit.append.clone()).await?;
    let restored = wishes.restored || wishes.accept_rollback;
    let minter = start_minter(&arbiter, &ground, boot, lease.clone(), restored).await?;
    let dynamic = BTreeMap::from([(EngineKind::Database, Minter::ports(&minter))]);
    engines.send(dynamic).map_err(|_| StartError::Linking)?;

    let owners = start_owners(&ground, lease, minter, audit.append.clone());
    let chronicle = Chronicle::new(audit.append.clone(), Arc::clone(&ground.clock)).start();
    let table = MountReplica::start(&owners.mounts).table;
    let (minter, statics) = (owners.minter.clone().into(), owners.minter.clone().into());
    let configured = ConfiguredDatabases::new(config.databases, table, minter, statics).start();
    let log = audit::keepers(config.audit, wishes.accept_rollback, &audit, &ground);
    let devices = DevicePorts::new(&log.devices);
    let link = link(&owners, &chronicle, configured, log, audit.append.clone());
    seal.send(link).await.map_err(|_| StartError::Linking)?;

    let about = Arc::new(about);
    let reopen_audit = audit.reopen;
    let audit_ports =
        AuditPorts { append: audit.append, status: audit.status, show: audit.show, devices };
    let server_config = ServerConfig {
        listen: vec![config.address],
        workers: std::thread::available_parallelism().map_or(2, usize::from),
        certificate: Arc::clone(&certificate),
        limits: bounds(&config.limits),
        drain: DRAIN,
    };
    let http = mssm_http::serve(server_config, move || {
        front_door(&ground, &owners, audit_ports.clone(), Arc::clone(&about))
    })?;
    Ok(Server {
        http,
        certificate,
        seal,
        poisoned,
        distrusted,
        chronicle,
        reopen_audit,
        storage: storage_handle,
        audit: audit_thread,
    })
}

fn root_key(seal: SealConfig) -> RootKeySource {
    match seal {
        SealConfig::Shamir => RootKeySource::Shamir,
        SealConfig::Static(key) => RootKeySource::Static(key),
    }
}

/// Starts the owners of small state on the system arbiter, beside those that have their own.
fn start_owners(
    ground: &Ground,
    lease: Addr<LeaseManager>,
    minter: Addr<Minter>,
    audit: Port<Append>,
) -> Owners {
    let barrier = ground.barrier().1;
    let (clock, random) = (Arc::clone(&ground.clock), Arc::clone(&ground.random));
    let kv = KvEngine::new(barrier.clone(), Arc::clone(&clock)).start();
    let jwt =
        JwtKeeper::new(barrier.clone(), audit.clone(), Arc::clone(&clock), Arc::clone(&random));
    let jwt = jwt.start();
    let engines = unmount_ports(&minter, &kv, &jwt);
    let mounts =
        MountKeeper::new(barrier.clone(), lease.clone().into(), engines, Arc::clone(&random));
    let access = AccessKeeper::new(barrier, lease.clone().into(), audit, clock, random).start();
    Owners { access, jwt, mounts: mounts.start(), lease, minter, seal: ground.seal.clone() }
}

/// Whom the seal keeper asks and tells, in order: what answers needs its state before what asks.
fn link(
    owners: &Owners,
    chronicle: &Addr<Chronicle>,
    configured: Addr<ConfiguredDatabases>,
    log: audit::Log,
    events: Port<Append>,
) -> Link {
    let audit::Log { head, devices } = log;
    let Owners { access, jwt, mounts, lease, minter, seal: _ } = owners.clone();
    let stages = Stages {
        founders: vec![mounts.clone().recipient(), access.clone().recipient()],
        openers: vec![
            // What comes then is written to all of them.
            devices.clone().recipient(),
            mounts.clone().recipient(),
            access.clone().recipient(),
            jwt.clone().recipient(),
            minter.clone().recipient(),
            configured.recipient(),
            lease.clone().recipient(),
            ConfiguredTrials(minter.clone().into()).start().recipient(),
            chronicle.clone().recipient(),
        ],
        closers: vec![
            // Last of all, behind the last line.
            head.clone().recipient(),
            devices.recipient(),
            mounts.recipient(),
            access.recipient(),
            jwt.recipient(),
            minter.recipient(),
            lease.recipient(),
            chronicle.clone().recipient(),
        ],
    };
    Link { stages, audit: Some(head.into()), events: Some(events) }
}

/// The owners, whom every worker's front door reaches across arbiters.
#[derive(Clone)]
struct Owners {
    access: Addr<AccessKeeper>,
    jwt: Addr<JwtKeeper>,
    mounts: Addr<MountKeeper>,
    lease: Addr<LeaseManager>,
    minter: Addr<Minter>,
    seal: Addr<SealKeeper>,
}

/// Starts one HTTP worker's replicas, on the worker's own arbiter.
fn front_door(ground: &Ground, owners: &Owners, audit: AuditPorts, about: Arc<About>) -> FrontDoor {
    let (keys, barrier) = ground.barrier();
    let kv = KvEngine::new(barrier.clone(), Arc::clone(&ground.clock)).start();
    let (clock, random) = (Arc::clone(&ground.clock), Arc::clone(&ground.random));
    let signer = JwtSigner::start(&owners.jwt, barrier.clone(), clock, random);
    FrontDoor {
        access: AccessReplica::start(&owners.access, barrier, Arc::clone(&ground.clock)),
        tokens: AccessKeeper::ports(&owners.access),
        mounts: MountReplica::start(&owners.mounts),
        jwt: JwtPorts {
            keeper: JwtKeeperPorts::new(&owners.jwt),
            signer: JwtSignerPorts::new(&signer),
        },
        kv: KvPorts::new(&kv),
        keys,
        leases: LeasePorts::new(&owners.lease),
        minter: MinterPorts::new(&owners.minter),
        seal: SealPorts::new(&owners.seal),
        audit,
        clock: Arc::clone(&ground.clock),
        random: Arc::clone(&ground.random),
        about,
    }
}

/// Starts the minter.
async fn start_minter(
    arbiter: &ArbiterHandle,
    ground: &Ground,
    boot: BootId,
    leases: Addr<LeaseManager>,
    restored: bool,
) -> Result<Addr<Minter>, StartError> {
    let ground = ground.clone();
    on_arbiter(arbiter, move || {
        let (_, barrier) = ground.barrier();
        let leases = LeaseManagerPorts {
            count: leases.clone().into(),
            issue: leases.clone().into(),
            reconcile: ReconcilePorts::new(&leases),
            revoke: leases.into(),
        };
        let config = MinterConfig { boot, leases, restored };
        Minter::new(config, barrier, ground.clock, ground.random).start()
    })
    .await
}

/// The engines that hand out leases, by kind.
type DynamicEngines = BTreeMap<EngineKind, EnginePorts>;

/// Makes the lease manager's address; it begins to run when its engines,
/// which hold that address, have been handed over.
async fn start_lease(
    arbiter: &ArbiterHandle,
    ground: &Ground,
    boot: BootId,
    audit: Port<Append>,
) -> Result<(Addr<LeaseManager>, oneshot::Sender<DynamicEngines>), StartError> {
    let ground = ground.clone();
    let (engines, handed) = oneshot::channel();
    let address = on_arbiter(arbiter, move || {
        let context = Context::new();
        let address = context.address();
        actix_rt::spawn(async move {
            let Ok(engines) = handed.await else { return };
            let (_, barrier) = ground.barrier();
            let config = LeaseConfig { boot };
            context.run(LeaseManager::new(
                config,
                barrier,
                engines,
                audit,
                ground.clock,
                ground.random,
            ));
        });
        address
    })
    .await?;
    Ok((address, engines))
}

async fn on_arbiter<A: Actor>(
    arbiter: &ArbiterHandle,
    start: impl FnOnce() -> Addr<A> + Send + 'static,
) -> Result<Addr<A>, StartError> {
    let (reply, address) = oneshot::channel();
    arbiter.spawn_fn(move || {
        let _ = reply.send(start());
    });
    address.await.map_err(|_| StartError::Linking)
}

/// Who forgets what when a mount of each kind is taken away.
fn unmount_ports(
    minter: &Addr<Minter>,
    kv: &Addr<KvEngine>,
    jwt: &Addr<JwtKeeper>,
) -> BTreeMap<EngineKind, Port<Unmount>> {
    BTreeMap::from([
        (EngineKind::Database, minter.clone().into()),
        (EngineKind::JwtSigner, jwt.clone().into()),
        (EngineKind::Kv, kv.clone().into()),
        (EngineKind::Cubbyhole, kv.clone().into()),
    ])
}

impl Server {
    /// Answers what is in flight, seals, and lets the store and the log finish what they have.
    pub async fn stop(self) {
        let Self {
            http,
            seal,
            chronicle,
            reopen_audit,
            storage,
            audit,
            certificate: _,
            poisoned: _,
            distrusted: _,
        } = self;
        // The server drains only while it is polled.
        let ((), drained) = tokio::join!(http.handle.stop(true), http.server);
        if let Err(error) = drained {
            tracing::warn!(%error, "the front door while stopping");
        }
        for Event { name, details } in http.refused.take() {
            // A log that is blocked is told of by whoever seals.
            let _ = chronicle.send(Note { name, details }).await;
        }
        if let Err(error) = seal.send(SealNow).await.unwrap_or(Ok(())) {
            tracing::warn!(%error, "sealing while stopping");
        }
        drop((seal, chronicle, reopen_audit));
        storage.shutdown().await;
        // The log's thread ends with its last port, which an actor may still hold: every line was
        // durable when it was answered, so there is nothing to wait for.
        drop(audit);
    }
}
