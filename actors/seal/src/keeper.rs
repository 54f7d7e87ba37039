//! The seal keeper: the shell around the changes of state.

use std::cell::Cell;
use std::rc::Rc;
use std::sync::Arc;

use actix::{Actor, Context, Handler, Message, ResponseFuture};
use mssm_domain::{Clock, Random, SecretBytes, Term};
use mssm_messages::audit::Append;
use mssm_messages::index::InstallIndex;
use mssm_messages::seal::{
    AutoUnseal, Distrust, Founded, Init, InstallAuditKey, KeyStatus, ReadKeyStatus, ResetUnseal,
    Rotate, SealError, SealKind, SealNow, SealStatus, Stages, Status, Unseal, Used,
};
use mssm_messages::storage::StoragePort;
use mssm_messages::{Port, guarded};

use crate::replica::Register;
use crate::rotation::spawn_settle;
use crate::state::Core;

/// Where the root key comes from.
#[derive(Debug)]
pub enum RootKeySource {
    /// From shares that people enter.
    Shamir,
    /// From a file or the environment, read before the start: 32 bytes, or why there are none.
    Static(Result<SecretBytes, String>),
}

impl RootKeySource {
    /// How the root key is kept.
    pub const fn kind(&self) -> SealKind {
        match self {
            Self::Shamir => SealKind::Shamir,
            Self::Static(_) => SealKind::Static,
        }
    }
}

/// What a keeper stands on.
pub struct KeeperConfig {
    /// Where the root key comes from.
    pub root_key: RootKeySource,
    /// Where the seal's own records lie.
    pub storage: StoragePort,
    /// What installation times are read from.
    pub clock: Arc<dyn Clock>,
    /// What keys, shares and nonces are made of.
    pub random: Arc<dyn Random>,
    /// The commit thread's index over the store; `None` where the store keeps none.
    pub index: Option<Port<InstallIndex>>,
    /// True if the operator wants to go on with records that were put back.
    pub accept_rollback: bool,
}

/// Holds the root key and the keyring while unsealed, and the shares entered while sealed.
///
/// Sends `Found`, `Opened` and `Closing` to owners, `InstallAuditKey` to the audit log, keys to
/// replicas. Knows nothing of HTTP, tokens or records.
pub struct SealKeeper {
    core: Rc<Core>,
    /// True while a task is on its way to write the counts down.
    settling: Rc<Cell<bool>>,
}

impl SealKeeper {
    /// A sealed keeper.
    pub fn new(config: KeeperConfig) -> Self {
        Self { core: Rc::new(Core::new(config)), settling: Rc::default() }
    }
}

impl Actor for SealKeeper {
    type Context = Context<Self>;
}

/// Whom the keeper tells: sent once by the wiring, before anyone may found or unseal.
///
/// Not part of the configuration, because owners need replicas, and replicas the keeper.
#[derive(Clone, Default, Message)]
#[rtype(result = "()")]
pub struct Link {
    /// Who is asked and told, in order of opening.
    pub stages: Stages,
    /// The audit log's writer: gets its key before the first opener, loses it after the last closer.
    pub audit: Option<Port<InstallAuditKey>>,
    /// Where it is written down that keys were changed.
    pub events: Option<Port<Append>>,
}

impl Handler<Link> for SealKeeper {
    type Result = ();

    fn handle(&mut self, msg: Link, _ctx: &mut Self::Context) {
        self.core.link(msg);
    }
}

macro_rules! changes_state {
    ($message:ty, $reply:ty, |$core:ident, $msg:ident| $work:expr) => {
        impl Handler<$message> for SealKeeper {
            type Result = ResponseFuture<Result<$reply, SealError>>;

            fn handle(&mut self, $msg: $message, _ctx: &mut Self::Context) -> Self::Result {
                let $core = Rc::clone(&self.core);
                Box::pin(async move { $core.change($work).await })
            }
        }
    };
}

changes_state!(Init, Founded, |core, msg| core.init(msg));
changes_state!(Unseal, SealStatus, |core, msg| core.unseal(&msg.0));
changes_state!(ResetUnseal, SealStatus, |core, _msg| async { core.reset_unseal() });
changes_state!(AutoUnseal, SealStatus, |core, _msg| core.auto_unseal());
changes_state!(SealNow, (), |core, _msg| core.seal());
changes_state!(Distrust, (), |core, msg| core.distrust(&msg.0));
changes_state!(Rotate, Term, |core, _msg| core.rotate());

impl Handler<Status> for SealKeeper {
    type Result = Result<SealStatus, SealError>;

    fn handle(&mut self, _msg: Status, _ctx: &mut Self::Context) -> Self::Result {
        guarded(|| self.core.status())?
    }
}

impl Handler<ReadKeyStatus> for SealKeeper {
    type Result = Result<KeyStatus, SealError>;

    fn handle(&mut self, _msg: ReadKeyStatus, _ctx: &mut Self::Context) -> Self::Result {
        guarded(|| self.core.key_status())?
    }
}

impl Handler<Used> for SealKeeper {
    type Result = ();

    fn handle(&mut self, msg: Used, _ctx: &mut Self::Context) {
        if self.core.count(msg) && !self.settling.replace(true) {
            let (core, settling) = (Rc::clone(&self.core), Rc::clone(&self.settling));
            spawn_settle(core, settling);
        }
    }
}

impl Handler<Register> for SealKeeper {
    type Result = ResponseFuture<()>;

    fn handle(&mut self, msg: Register, _ctx: &mut Self::Context) -> Self::Result {
        // At once, so that no order misses it; keys follow when nothing else is under way.
        self.core.register(msg.0);
        let core = Rc::clone(&self.core);
        Box::pin(async move {
            if let Err(error) = core.change(core.refresh()).await {
                tracing::error!(%error, "a new key replica got no keys");
            }
        })
    }
}
