//! The owner of the mount table.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use actix::{Actor, Context, Handler, Recipient, ResponseFuture};
use futures_util::future::join_all;
use mssm_domain::{Prefix, Random, RecordPath};
use mssm_messages::engine::{EngineKind, Unmount};
use mssm_messages::lease::RevokeMount;
use mssm_messages::mounts::{
    Disable, Enable, InstallTable, Mount, MountError, MountTable, RegisterTable, Tune,
};
use mssm_messages::seal::{Closing, Found, Opened, Seeds, StageError};
use mssm_messages::{Barrier, Changes, Port, PortError, guarded_async};
use tokio::sync::Semaphore;

use crate::{record, rules};

/// How long a replica may take to acknowledge; one that is held up longer is not waited for.
const ACKNOWLEDGE: Duration = Duration::from_secs(1);
/// How long a mount that could not be taken away yet is left alone before the next try.
const PAUSE: Duration = Duration::from_secs(30);
/// Mounts are few ([`rules::MOUNTS_MAX`]); a full page is a store that is not ours.
const PAGE: usize = 500;

/// Holds the mount table; sends it to every replica, has leases ended and engines forget.
///
/// Knows nothing of what is below a mount. Changes are made one after the other.
pub struct MountKeeper(Rc<Core>);

struct Core {
    barrier: Barrier,
    leases: Port<RevokeMount>,
    engines: BTreeMap<EngineKind, Port<Unmount>>,
    random: Arc<dyn Random>,
    /// One change at a time: each is made on the table that the one before left.
    turn: Semaphore,
    state: RefCell<State>,
}

#[derive(Default)]
struct State {
    epoch: u64,
    /// Counts the openings, so that a task of an earlier one knows that it is stale.
    opening: u64,
    table: Option<Arc<MountTable>>,
    replicas: Vec<Recipient<InstallTable>>,
}

impl MountKeeper {
    /// A keeper without a table: it gets one when the server opens.
    pub fn new(
        barrier: Barrier,
        leases: Port<RevokeMount>,
        engines: BTreeMap<EngineKind, Port<Unmount>>,
        random: Arc<dyn Random>,
    ) -> Self {
        let (turn, state) = (Semaphore::new(1), RefCell::default());
        Self(Rc::new(Core { barrier, leases, engines, random, turn, state }))
    }
}

impl Actor for MountKeeper {
    type Context = Context<Self>;
}

impl Handler<RegisterTable> for MountKeeper {
    type Result = ();

    fn handle(&mut self, msg: RegisterTable, _ctx: &mut Self::Context) {
        let mut state = self.0.state.borrow_mut();
        let install = InstallTable { epoch: state.epoch, table: state.table.clone() };
        // Fits always: nothing else is in a new replica's mailbox.
        let _ = msg.0.try_send(install);
        state.replicas.push(msg.0);
    }
}

macro_rules! change {
    ($message:ty, $method:ident) => {
        impl Handler<$message> for MountKeeper {
            type Result = ResponseFuture<<$message as actix::Message>::Result>;

            fn handle(&mut self, msg: $message, _ctx: &mut Self::Context) -> Self::Result {
                let core = Rc::clone(&self.0);
                // A task of its own: a change goes on to its end even if its caller goes away.
                let change = actix_rt::spawn(async move {
                    let _turn = core.turn.acquire().await.map_err(|_| MountError::Internal)?;
                    guarded_async(Core::$method(&core, msg)).await?
                });
                Box::pin(async move { change.await.unwrap_or(Err(MountError::Internal)) })
            }
        }
    };
}

change!(Enable, enable);
change!(Tune, tune);
change!(Disable, disable);

impl Handler<Found> for MountKeeper {
    type Result = Result<Seeds, StageError>;

    fn handle(&mut self, _msg: Found, _ctx: &mut Self::Context) -> Self::Result {
        let seeds = || {
            let mut changes = Changes::new();
            for mount in rules::defaults(self.0.random.as_ref())? {
                changes = changes.put(record::path(mount.id), 0, record::bytes(&mount)?);
            }
            Ok(Seeds { changes, root_token: None })
        };
        seeds().map_err(|error: MountError| StageError(format!("mounts: {error}")))
    }
}

impl Handler<Opened> for MountKeeper {
    type Result = ResponseFuture<Result<(), StageError>>;

    fn handle(&mut self, _msg: Opened, _ctx: &mut Self::Context) -> Self::Result {
        let core = Rc::clone(&self.0);
        Box::pin(async move {
            let loaded = guarded_async(core.load()).await.map_err(MountError::from);
            let table = loaded.and_then(|loaded| loaded);
            let table = table.map_err(|error| StageError(format!("mounts: {error}")))?;
            let leaving = table.iter().any(|mount| mount.leaving);
            core.install(Some(Arc::new(table))).await;
            let opening = core.begin_opening();
            if leaving {
                actix_rt::spawn(async move { core.finish_leaving(opening).await });
            }
            Ok(())
        })
    }
}

impl Handler<Closing> for MountKeeper {
    type Result = ResponseFuture<Result<(), StageError>>;

    fn handle(&mut self, _msg: Closing, _ctx: &mut Self::Context) -> Self::Result {
        let core = Rc::clone(&self.0);
        Box::pin(async move {
            core.install(None).await;
            Ok(())
        })
    }
}

impl Core {
    fn table(&self) -> Result<Arc<MountTable>, MountError> {
        self.state.borrow().table.clone().ok_or(MountError::Sealed)
    }

    fn find(&self, prefix: &Prefix) -> Result<Option<Arc<Mount>>, MountError> {
        Ok(self.table()?.iter().find(|mount| mount.prefix == *prefix).cloned())
    }

    async fn load(&self) -> Result<MountTable, MountError> {
        let page = self.barrier.scan(&record::folder(), None, PAGE).await?;
        if page.len() == PAGE {
            return Err(MountError::Invalid(format!("{PAGE} mounts and more")));
        }
        let mut mounts = Vec::with_capacity(page.len());
        for (_, plain) in page {
            let plain = plain.map_err(mssm_messages::BarrierError::from)?;
            mounts.push(Arc::new(record::mount(&plain.bytes)?));
        }
        // A store from before a mount that every server has gets it now.
        let lacks = |wanted: &Mount| !mounts.iter().any(|mount| mount.prefix == wanted.prefix);
        let defaults = rules::defaults(self.random.as_ref())?;
        let missing: Vec<_> =
            defaults.into_iter().filter(|mount| mount.built_in && lacks(mount)).collect();
        for mount in missing {
            self.store(&mount).await?;
            mounts.push(Arc::new(mount));
        }
        Ok(MountTable::new(mounts))
    }

    fn begin_opening(&self) -> u64 {
        let mut state = self.state.borrow_mut();
        state.opening += 1;
        state.opening
    }

    /// Puts a table in force everywhere.
    async fn install(&self, table: Option<Arc<MountTable>>) {
        let (epoch, replicas) = {
            let mut state = self.state.borrow_mut();
            state.epoch += 1;
            state.table.clone_from(&table);
            (state.epoch, state.replicas.clone())
        };
        let told = replicas.iter().map(|replica| {
            // A task of its own waits for the reply: a replica that is held up past the deadline
            // still finds the table in its mailbox, before whatever it is asked later.
            let reply = actix_rt::spawn(replica.send(InstallTable { epoch, table: table.clone() }));
            async move { !matches!(tokio::time::timeout(ACKNOWLEDGE, reply).await, Ok(Ok(Err(_)))) }
        });
        if !join_all(told).await.into_iter().all(|there| there) {
            self.state.borrow_mut().replicas.retain(Recipient::connected);
        }
    }

    /// Writes a mount down over the version that is there.
    async fn store(&self, mount: &Mount) -> Result<(), MountError> {
        let path: RecordPath = record::path(mount.id);
        let over = self.barrier.read(&path).await?.map_or(0, |plain| plain.version);
        Ok(self.barrier.commit(Changes::new().put(path, over, record::bytes(mount)?)).await?)
    }

    async fn enable(core: &Rc<Self>, msg: Enable) -> Result<Arc<Mount>, MountError> {
        let table = core.table()?;
        let mount = rules::enable(&table, msg, core.random.as_ref())?;
        core.store(&mount).await?;
        let mount = Arc::new(mount);
        // The table of now: there is none if the server closed meanwhile.
        core.install(Some(Arc::new(rules::with(&*core.table()?, (*mount).clone())))).await;
        Ok(mount)
    }

    async fn tune(core: &Rc<Self>, msg: Tune) -> Result<(), MountError> {
        let Some(mount) = core.find(&msg.prefix)? else {
            return Err(MountError::Unknown(msg.prefix.to_string()));
        };
        let tuned = rules::tune(&mount, &msg.patch)?;
        core.store(&tuned).await?;
        core.install(Some(Arc::new(rules::with(&*core.table()?, tuned)))).await;
        Ok(())
    }

    async fn disable(core: &Rc<Self>, msg: Disable) -> Result<(), MountError> {
        match core.find(&msg.prefix)? {
            None => Ok(()),
            Some(mount) if mount.built_in => Err(MountError::BuiltIn(msg.prefix.to_string())),
            Some(mount) => core.remove(&mount).await,
        }
    }

    /// Takes a mount away, from whatever step an earlier try came to.
    async fn remove(&self, mount: &Mount) -> Result<(), MountError> {
        if !mount.leaving {
            // It stops answering before its leases end, so that no new one can begin.
            let leaving = Mount { leaving: true, ..mount.clone() };
            self.store(&leaving).await?;
            self.install(Some(Arc::new(rules::with(&*self.table()?, leaving)))).await;
        }
        let unreachable = |error: PortError| MountError::Invalid(format!("try again: {error}"));
        let left = self.leases.commit(RevokeMount { mount: mount.id }).await;
        match left.map_err(unreachable)? {
            Ok(0) => {}
            Ok(left) => return Err(MountError::LeasesLeft(left)),
            Err(error) => return Err(MountError::Invalid(format!("leases: {error}"))),
        }
        if let Some(engine) = self.engines.get(&mount.kind) {
            engine.commit(Unmount { mount: mount.id }).await.map_err(unreachable)??;
        }
        self.barrier.commit(Changes::new().delete(record::path(mount.id))).await?;
        let mounts = rules::without(&*self.table()?, mount.id);
        self.install(Some(Arc::new(MountTable::new(mounts)))).await;
        Ok(())
    }

    /// Goes on with what a crash or a database that was down interrupted, until it is done or the
    /// server closes.
    async fn finish_leaving(self: Rc<Self>, opening: u64) {
        loop {
            tokio::time::sleep(PAUSE).await;
            let Ok(_turn) = self.turn.acquire().await else { return };
            let Ok(table) = self.table() else { return };
            // Closed and opened anew meanwhile: that opening has its own task.
            if self.state.borrow().opening != opening {
                return;
            }
            let leaving: Vec<_> = table.iter().filter(|mount| mount.leaving).cloned().collect();
            if leaving.is_empty() {
                return;
            }
            for mount in leaving {
                if let Err(error) = self.remove(&mount).await {
                    tracing::warn!(mount = %mount.prefix, %error, "mount not taken away yet");
                }
            }
        }
    }
}
