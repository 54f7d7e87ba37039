//! The owner of keys, roles and settings: the only one that changes what is stored.

mod config;
mod keys;
mod opening;
mod roles;
mod rotation;

use std::cell::RefCell;
use std::collections::HashSet;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use actix::{Actor, AsyncContext, Context, Handler, Message, Recipient, ResponseFuture};
use futures_util::future::join_all;
use mssm_domain::{Clock, KeyName, MountId, Random, RecordPath, SecretBytes, Timestamp};
use mssm_messages::audit::Append;
use mssm_messages::engine::{EngineError, SecretsEngine, Unmount};
use mssm_messages::jwt::{
    DeleteKey, DeleteRole, RevokeJti, RotateKey, Rotated, TrimKey, WriteConfig, WriteKey, WriteRole,
};
use mssm_messages::seal::{Closing, Opened, StageError};
use mssm_messages::{Barrier, BarrierError, Changes, Port, guarded_async};
use tokio::sync::Semaphore;

use crate::make::AT_ONCE;
use crate::record;
use crate::table::{Allowance, Install, MountState, Register, Reserve, RotateDue, Table};

/// How often it is looked which keys are due.
const TICK: Duration = Duration::from_secs(1);
/// How long a signer may take to acknowledge; one that is held up longer is not waited for.
const ACKNOWLEDGE: Duration = Duration::from_secs(1);

/// Holds what is in force, sends it to every signer, rotates keys in time.
///
/// Reads and writes through the barrier. Changes are made one after the other. Knows nothing of
/// tokens that are signed, nor of HTTP.
pub struct JwtKeeper(Rc<Core>);

pub(crate) struct Core {
    barrier: Barrier,
    /// Rotations are written down through it.
    events: Port<Append>,
    clock: Arc<dyn Clock>,
    random: Arc<dyn Random>,
    /// One change at a time: each is made on the table that the one before left.
    turn: Semaphore,
    /// RSA keys being made.
    making: Arc<Semaphore>,
    state: RefCell<State>,
}

#[derive(Default)]
struct State {
    epoch: u64,
    table: Option<Arc<Table>>,
    signers: Vec<Recipient<Install>>,
    /// Sets whose next key is being made.
    rotating: HashSet<(MountId, KeyName)>,
    /// When work that failed, or that need not be done often, is done next.
    tick_from: Option<Timestamp>,
    tidy_from: Option<Timestamp>,
    ticking: bool,
}

impl JwtKeeper {
    /// A keeper with nothing in force: it serves once it is told [`Opened`].
    pub fn new(
        barrier: Barrier,
        events: Port<Append>,
        clock: Arc<dyn Clock>,
        random: Arc<dyn Random>,
    ) -> Self {
        let (turn, making) = (Semaphore::new(1), Arc::new(Semaphore::new(AT_ONCE)));
        Self(Rc::new(Core {
            barrier,
            events,
            clock,
            random,
            turn,
            making,
            state: RefCell::default(),
        }))
    }
}

impl Actor for JwtKeeper {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        ctx.run_interval(TICK, |_keeper, ctx| ctx.notify(Tick));
    }
}

impl SecretsEngine for JwtKeeper {}

/// The keeper's word to itself: keys may be due, and something to be tidied.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct Tick;

impl Handler<Tick> for JwtKeeper {
    type Result = ResponseFuture<()>;

    fn handle(&mut self, _msg: Tick, _ctx: &mut Self::Context) -> Self::Result {
        let core = Rc::clone(&self.0);
        Box::pin(async move { core.tick().await })
    }
}

impl Handler<Register> for JwtKeeper {
    type Result = ();

    fn handle(&mut self, msg: Register, _ctx: &mut Self::Context) {
        let mut state = self.0.state.borrow_mut();
        let install = Install { epoch: state.epoch, table: state.table.clone() };
        // Fits always: nothing else is in a new signer's mailbox.
        let _ = msg.0.try_send(install);
        state.signers.push(msg.0);
    }
}

macro_rules! change {
    ($($message:ty => $reply:ty, $method:ident;)*) => {
        $(impl Handler<$message> for JwtKeeper {
            type Result = ResponseFuture<Result<$reply, EngineError>>;

            fn handle(&mut self, msg: $message, _ctx: &mut Self::Context) -> Self::Result {
                let core = Rc::clone(&self.0);
                // A task of its own: a change goes on to its end even if its caller goes away.
                let change = actix_rt::spawn(async move {
                    guarded_async(core.$method(msg)).await?
                });
                Box::pin(async move { change.await.unwrap_or(Err(EngineError::Internal)) })
            }
        })*
    };
}

change! {
    WriteConfig => (), write_config;
    WriteKey => Vec<String>, write_key;
    RotateKey => Rotated, rotate_key;
    TrimKey => Vec<String>, trim_key;
    DeleteKey => (), delete_key;
    WriteRole => Vec<String>, write_role;
    DeleteRole => (), delete_role;
    RevokeJti => (), revoke_jti;
    RotateDue => (), rotate_due;
    Reserve => Allowance, reserve;
    Unmount => (), unmount;
}

impl Handler<Opened> for JwtKeeper {
    type Result = ResponseFuture<Result<(), StageError>>;

    fn handle(&mut self, _msg: Opened, _ctx: &mut Self::Context) -> Self::Result {
        let core = Rc::clone(&self.0);
        Box::pin(async move {
            let opened = guarded_async(core.open()).await.map_err(EngineError::from);
            opened.and_then(|opened| opened).map_err(|error| StageError(format!("jwt: {error}")))
        })
    }
}

impl Handler<Closing> for JwtKeeper {
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
    fn table(&self) -> Result<Arc<Table>, EngineError> {
        let sealed = || BarrierError::Key(mssm_messages::keys::KeyError::Sealed);
        self.state.borrow().table.clone().ok_or_else(|| sealed().into())
    }

    fn mount(&self, mount: MountId) -> Result<Arc<MountState>, EngineError> {
        Ok(self.table()?.mount(mount))
    }

    /// Puts a table in force everywhere.
    async fn install(&self, table: Option<Arc<Table>>) {
        let (epoch, signers) = {
            let mut state = self.state.borrow_mut();
            state.epoch += 1;
            state.table.clone_from(&table);
            (state.epoch, state.signers.clone())
        };
        let told = signers.iter().map(|signer| {
            // A task of its own waits for the reply: a signer that is held up past the deadline
            // still finds the table in its mailbox, before whatever it is asked later.
            let reply = actix_rt::spawn(signer.send(Install { epoch, table: table.clone() }));
            async move { !matches!(tokio::time::timeout(ACKNOWLEDGE, reply).await, Ok(Ok(Err(_)))) }
        });
        if !join_all(told).await.into_iter().all(|there| there) {
            self.state.borrow_mut().signers.retain(Recipient::connected);
        }
    }

    /// Puts one mount's new state in force; the table is that of now, of which there is none if the
    /// server closed meanwhile.
    async fn install_mount(&self, mount: MountId, state: MountState) -> Result<(), EngineError> {
        let table = self.table()?.with(mount, Some(state));
        self.install(Some(Arc::new(table))).await;
        Ok(())
    }

    async fn turn(&self) -> Result<tokio::sync::SemaphorePermit<'_>, EngineError> {
        self.turn.acquire().await.map_err(|_| EngineError::Internal)
    }

    /// Writes a record down over the version that is there.
    async fn store(&self, path: RecordPath, bytes: SecretBytes) -> Result<(), EngineError> {
        Ok(self.barrier.commit(self.over(path, bytes).await?).await?)
    }

    async fn over(&self, path: RecordPath, bytes: SecretBytes) -> Result<Changes, EngineError> {
        let over = self.barrier.read(&path).await?.map_or(0, |plain| plain.version);
        Ok(Changes::new().put(path, over, bytes))
    }

    async fn unmount(self: Rc<Self>, msg: Unmount) -> Result<(), EngineError> {
        let _turn = self.turn().await?;
        for kind in record::FOLDERS {
            self.barrier.delete_all(&record::folder(kind, Some(msg.mount))).await?;
        }
        let table = self.table()?.with(msg.mount, None);
        self.install(Some(Arc::new(table))).await;
        Ok(())
    }
}
