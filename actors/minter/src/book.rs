//! What the minter knows while the server is open: definitions in use, and what it has under way.

mod target;
mod turns;

use std::cell::RefCell;
use std::collections::{HashMap, HashSet};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use mssm_domain::{BootId, Clock, ClusterId, ConnectionId, LeaseId, MountId, Random, RecordPath};
use mssm_messages::engine::EngineError;
use mssm_messages::keys::KeyError;
use mssm_messages::lease::CountTarget;
use mssm_messages::{Barrier, BarrierError, Changes};
use serde::Serialize;
use serde::de::DeserializeOwned;

pub(crate) use self::target::Target;
pub(crate) use self::turns::{Leaving, Making};
use crate::engine::Dialer;
use crate::guard::Guard;
use crate::minter::LeaseManagerPorts;
use crate::pool::Backend;
use crate::reconcile::Watch;
use crate::record::{ConnectionRecord, RecordError, RoleRecord, decode, encode};
use crate::rolecheck::says;
use crate::roles::Untried;
use crate::rotation::Agenda;
use crate::selftest::Candidates;
use crate::sweep::Ended;

/// How long the lease manager may take to count.
const COUNT_DEADLINE: Duration = Duration::from_secs(5);

/// A role in use: its definition, read and split.
pub(crate) struct Role {
    pub(crate) record: RoleRecord,
    pub(crate) version: u64,
    pub(crate) statements: Vec<String>,
    /// True if a statement sets a connection limit.
    pub(crate) limits: bool,
    /// True if a statement sets an end.
    pub(crate) ends: bool,
}

#[derive(Default)]
struct State {
    cluster: Option<ClusterId>,
    /// Counts the changes of definitions, so that what was read before one is not kept after it.
    changes: u64,
    targets: HashMap<(MountId, String), Rc<Target>>,
    /// Who has the lock of a connection; kept while its password changes.
    guards: HashMap<(MountId, String), Rc<Guard>>,
    roles: HashMap<(MountId, String), Rc<Role>>,
    /// SQL that was sent and whose outcome is not known: which backend has it.
    under_way: HashMap<LeaseId, Vec<Backend>>,
    /// Leases whose login is being made at this moment.
    making: HashSet<LeaseId>,
    /// Connections that are about to go, or to lead elsewhere.
    leaving: HashSet<(MountId, String)>,
}

impl Role {
    /// Reads and splits a definition.
    pub(crate) fn new(record: RoleRecord, version: u64) -> Result<Self, EngineError> {
        let split = record.dialect.split_all(&record.creation_statements);
        let statements = split.map_err(|error| EngineError::Invalid(error.to_string()))?;
        let limits = says(&statements, &["connection", "limit"]);
        let ends = says(&statements, &["valid", "until"]);
        Ok(Self { record, version, statements, limits, ends })
    }
}

/// Shared by the minter's own tasks, on its one thread; never borrowed across an await.
pub(crate) struct Book {
    pub(crate) boot: BootId,
    pub(crate) barrier: Barrier,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) random: Arc<dyn Random>,
    pub(crate) dialer: Arc<dyn Dialer>,
    pub(crate) leases: LeaseManagerPorts,
    /// Which passwords are due to change.
    pub(crate) agenda: Agenda,
    pub(crate) candidates: Candidates,
    /// What the configuration file defines, until it is tried.
    pub(crate) untried: RefCell<Option<Untried>>,
    pub(crate) watch: Watch,
    /// Whose sessions can still show themselves.
    pub(crate) ended: Ended,
    state: RefCell<State>,
}

/// Where a connection's definition lies.
pub(crate) fn connection_path(mount: MountId, name: &str) -> RecordPath {
    RecordPath::new(&["db", &mount.to_string(), "config", name])
}

/// Where a role's definition lies.
pub(crate) fn role_path(mount: MountId, name: &str) -> RecordPath {
    RecordPath::new(&["db", &mount.to_string(), "role", name])
}

/// A record of ours that cannot be read is damage.
pub(crate) fn damaged(error: RecordError) -> EngineError {
    tracing::error!(%error, "a definition cannot be read");
    EngineError::Barrier(BarrierError::Key(KeyError::Damaged))
}

fn changing() -> EngineError {
    EngineError::Unavailable("the connection is being changed or deleted, try again".to_owned())
}

impl Book {
    pub(crate) fn new(
        boot: BootId,
        leases: LeaseManagerPorts,
        barrier: Barrier,
        clock: Arc<dyn Clock>,
        random: Arc<dyn Random>,
        dialer: Arc<dyn Dialer>,
    ) -> Self {
        Self {
            boot,
            barrier,
            clock,
            random,
            dialer,
            leases,
            agenda: Agenda::default(),
            candidates: Candidates::default(),
            untried: RefCell::default(),
            watch: Watch::default(),
            ended: Ended::default(),
            state: RefCell::default(),
        }
    }

    /// Begins to serve a store.
    pub(crate) fn open(&self, cluster: ClusterId) {
        self.state.borrow_mut().cluster = Some(cluster);
    }

    /// Forgets every secret and closes every session.
    pub(crate) fn close(&self) {
        self.agenda.clear();
        self.untried.take();
        let mut state = self.state.borrow_mut();
        state.cluster = None;
        state.changes += 1;
        state.roles.clear();
        state.guards.clear();
        for (_, target) in state.targets.drain() {
            target.mint.close();
            target.extend.close();
            target.revoke.close();
        }
    }

    /// The store that is open; an error while sealed.
    pub(crate) fn cluster(&self) -> Result<ClusterId, EngineError> {
        let sealed = || EngineError::Barrier(BarrierError::Key(KeyError::Sealed));
        self.state.borrow().cluster.ok_or_else(sealed)
    }

    /// Forgets a connection that changes. Whoever uses it goes on to the end; then its sessions
    /// close.
    pub(crate) fn forget_connection(&self, mount: MountId, name: &str) {
        let mut state = self.state.borrow_mut();
        state.changes += 1;
        let key = (mount, name.to_owned());
        state.targets.remove(&key);
        state.guards.remove(&key);
    }

    /// Forgets how a connection logs in, and nothing else: it leads where it did, and its lock stays.
    pub(crate) fn forget_password(&self, mount: MountId, name: &str) {
        let mut state = self.state.borrow_mut();
        state.changes += 1;
        state.targets.remove(&(mount, name.to_owned()));
    }

    /// Forgets a role that changes.
    pub(crate) fn forget_role(&self, mount: MountId, name: &str) {
        let mut state = self.state.borrow_mut();
        state.changes += 1;
        state.roles.remove(&(mount, name.to_owned()));
    }

    /// Forgets everything of a mount.
    pub(crate) fn forget_mount(&self, mount: MountId) {
        self.agenda.remove_mount(mount);
        let mut state = self.state.borrow_mut();
        state.changes += 1;
        state.roles.retain(|(of, _), _| *of != mount);
        state.targets.retain(|(of, _), _| *of != mount);
        state.guards.retain(|(of, _), _| *of != mount);
    }

    /// Notes that a connection may be about to go, until the reply is dropped: that must be after
    /// it was forgotten. Leases are to be counted after this, not before.
    pub(crate) fn leave(
        self: &Rc<Self>,
        mount: MountId,
        name: &str,
    ) -> Result<Leaving, EngineError> {
        let key = (mount, name.to_owned());
        if !self.state.borrow_mut().leaving.insert(key.clone()) {
            return Err(changing());
        }
        Ok(Leaving { book: Rc::clone(self), key })
    }

    /// An error while a connection may be about to go.
    pub(crate) fn check_stays(&self, mount: MountId, name: &str) -> Result<(), EngineError> {
        let leaving = self.state.borrow().leaving.contains(&(mount, name.to_owned()));
        if leaving { Err(changing()) } else { Ok(()) }
    }

    /// Notes that a lease's login is being made, until the reply is dropped.
    pub(crate) fn make(self: &Rc<Self>, lease: &LeaseId) -> Making {
        self.state.borrow_mut().making.insert(lease.clone());
        Making { book: Rc::clone(self), lease: lease.clone() }
    }

    /// True while a lease's login is being made: it may be tried again, so nothing ends it yet.
    pub(crate) fn is_making(&self, lease: &LeaseId) -> bool {
        self.state.borrow().making.contains(lease)
    }

    /// Notes that a lease's SQL is sent, and to whom.
    pub(crate) fn begin(&self, lease: &LeaseId, backend: Backend) {
        self.state.borrow_mut().under_way.entry(lease.clone()).or_default().push(backend);
    }

    /// Notes that the outcome of a lease's SQL is known.
    pub(crate) fn settle(&self, lease: &LeaseId) {
        self.state.borrow_mut().under_way.remove(lease);
    }

    /// Notes that the outcome of what one backend had is known.
    pub(crate) fn answered(&self, lease: &LeaseId, backend: &Backend) {
        if let Some(backends) = self.state.borrow_mut().under_way.get_mut(lease) {
            backends.retain(|other| other != backend);
        }
    }

    /// Who has SQL of a lease whose outcome is not known.
    pub(crate) fn under_way(&self, lease: &LeaseId) -> Vec<Backend> {
        self.state.borrow().under_way.get(lease).cloned().unwrap_or_default()
    }

    /// The connections in use.
    pub(crate) fn targets(&self) -> Vec<Rc<Target>> {
        self.state.borrow().targets.values().cloned().collect()
    }

    /// A connection, ready to be used: as it is defined at the moment of the reply.
    pub(crate) async fn target(
        &self,
        mount: MountId,
        name: &str,
    ) -> Result<Option<Rc<Target>>, EngineError> {
        let key = (mount, name.to_owned());
        loop {
            let cluster = self.cluster()?;
            let (known, changes) = {
                let state = self.state.borrow();
                (state.targets.get(&key).cloned(), state.changes)
            };
            if known.is_some() {
                return Ok(known);
            }
            let path = connection_path(mount, name);
            let read = self.read::<ConnectionRecord>(&path).await?;
            if self.state.borrow().changes != changes {
                // What was read may be gone by now.
                continue;
            }
            let Some((version, record)) = read else { return Ok(None) };
            let guard = Rc::clone(self.state.borrow_mut().guards.entry(key.clone()).or_default());
            let target = Rc::new(Target::new(self, cluster, (version, record), guard)?);
            // Two that read at once must not keep two pools.
            let mut state = self.state.borrow_mut();
            return Ok(Some(Rc::clone(state.targets.entry(key).or_insert(target))));
        }
    }

    /// A role, ready to be used.
    pub(crate) async fn role(
        &self,
        mount: MountId,
        name: &str,
    ) -> Result<Option<Rc<Role>>, EngineError> {
        self.cluster()?;
        let key = (mount, name.to_owned());
        let (known, changes) = {
            let state = self.state.borrow();
            (state.roles.get(&key).cloned(), state.changes)
        };
        if known.is_some() {
            return Ok(known);
        }
        let Some((version, record)) = self.read::<RoleRecord>(&role_path(mount, name)).await?
        else {
            return Ok(None);
        };
        let role = Rc::new(Role::new(record, version)?);
        let mut state = self.state.borrow_mut();
        if state.changes == changes {
            state.roles.insert(key, Rc::clone(&role));
        }
        Ok(Some(role))
    }

    /// Reads a definition.
    pub(crate) async fn read<R: DeserializeOwned>(
        &self,
        path: &RecordPath,
    ) -> Result<Option<(u64, R)>, EngineError> {
        let Some(plain) = self.barrier.read(path).await? else { return Ok(None) };
        Ok(Some((plain.version, decode(&plain.bytes).map_err(damaged)?)))
    }

    /// Writes a definition over a version of it.
    pub(crate) async fn write<R: Serialize>(
        &self,
        path: RecordPath,
        over: u64,
        record: &R,
    ) -> Result<(), EngineError> {
        let bytes = encode(record).map_err(damaged)?;
        Ok(self.barrier.commit(Changes::new().put(path, over, bytes)).await?)
    }

    /// How many leases need a connection's definition.
    pub(crate) async fn count_leases(&self, target: ConnectionId) -> Result<u64, EngineError> {
        let busy = || EngineError::Unavailable("the lease manager does not answer".to_owned());
        let count = self.leases.count.ask(CountTarget { target }, COUNT_DEADLINE).await;
        count.map_err(|_| busy())?.map_err(|_| busy())
    }

    /// Writes down which server a connection leads to, the first time it is seen. Best effort:
    /// what is not written now is learnt again at the next use.
    pub(crate) async fn learn(&self, mount: MountId, name: &str, target: &Target, seen: &str) {
        if target.server.borrow().is_some() {
            return;
        }
        target.server.replace(Some(seen.to_owned()));
        let path = connection_path(mount, name);
        let Ok(Some((version, mut record))) = self.read::<ConnectionRecord>(&path).await else {
            return;
        };
        if version == target.version && record.system_identifier.is_none() {
            record.system_identifier = Some(seen.to_owned());
            if let Err(error) = self.write(path, version, &record).await {
                tracing::debug!(%error, "which server a connection leads to was not written down");
            }
        }
    }
}
