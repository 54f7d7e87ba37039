//! The actor on each HTTP worker that signs, verifies and shows what is in force.

mod sign;
mod verify;

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;

use actix::{Actor, Addr, Context, Handler, ResponseFuture};
use mssm_domain::{Clock, KeyName, MountId, Random};
use mssm_messages::engine::EngineError;
use mssm_messages::jwt::{
    ConfigView, Jwks, KeyView, ListKeys, ListRoles, ReadConfig, ReadJwks, ReadKey, ReadRole,
    RoleView, Sign, Signed, Verified, Verify,
};
use mssm_messages::keys::KeyError;
use mssm_messages::{Barrier, BarrierError, guarded, guarded_async};
use tokio::sync::Semaphore;

use crate::keeper::JwtKeeper;
use crate::table::{Allowance, Install, MountState, Register, Table};

/// How many RSA signatures a worker makes at once, each on a thread of its own.
const RSA_AT_ONCE: usize = 4;

/// Holds the table in force, or none while the server is sealed; signs with the keys in it.
///
/// Asks the keeper to rotate what is due, and how often it may sign where that is counted. Looks
/// revocations up in the store. Knows nothing of HTTP.
pub struct JwtSigner(Rc<Desk>);

pub(crate) struct Desk {
    keeper: Addr<JwtKeeper>,
    barrier: Barrier,
    clock: Arc<dyn Clock>,
    random: Arc<dyn Random>,
    rsa: Arc<Semaphore>,
    state: RefCell<State>,
}

#[derive(Default)]
struct State {
    epoch: u64,
    table: Option<Arc<Table>>,
    /// How often each counted key may sign before the keeper is asked again.
    allowed: HashMap<(MountId, KeyName), Allowance>,
    /// Who asks the keeper for one.
    asking: HashMap<(MountId, KeyName), Rc<Semaphore>>,
}

impl JwtSigner {
    /// Starts a signer on the current arbiter; the keeper sends it what is in force.
    pub fn start(
        keeper: &Addr<JwtKeeper>,
        barrier: Barrier,
        clock: Arc<dyn Clock>,
        random: Arc<dyn Random>,
    ) -> Addr<Self> {
        let (rsa, state) = (Arc::new(Semaphore::new(RSA_AT_ONCE)), RefCell::default());
        let desk = Desk { keeper: keeper.clone(), barrier, clock, random, rsa, state };
        let signer = Actor::start(Self(Rc::new(desk)));
        // In the keeper's mailbox before this returns, so that no table is missed.
        let registration = keeper.send(Register(signer.clone().recipient()));
        actix_rt::spawn(async move {
            if registration.await.is_err() {
                tracing::error!("jwt signer without a keeper");
            }
        });
        signer
    }
}

impl Actor for JwtSigner {
    type Context = Context<Self>;
}

impl Desk {
    fn mount(&self, mount: MountId) -> Result<Arc<MountState>, EngineError> {
        let state = self.state.borrow();
        let table = state.table.as_ref().ok_or(BarrierError::Key(KeyError::Sealed))?;
        Ok(table.mount(mount))
    }
}

impl Handler<Install> for JwtSigner {
    type Result = ();

    fn handle(&mut self, msg: Install, _ctx: &mut Self::Context) {
        let mut state = self.0.state.borrow_mut();
        if msg.epoch > state.epoch {
            state.epoch = msg.epoch;
            if msg.table.is_none() {
                state.allowed.clear();
                state.asking.clear();
            }
            state.table = msg.table;
        }
    }
}

impl Handler<Sign> for JwtSigner {
    type Result = ResponseFuture<Result<Signed, EngineError>>;

    fn handle(&mut self, msg: Sign, _ctx: &mut Self::Context) -> Self::Result {
        let desk = Rc::clone(&self.0);
        Box::pin(async move { guarded_async(desk.sign(msg)).await? })
    }
}

impl Handler<Verify> for JwtSigner {
    type Result = ResponseFuture<Result<Verified, EngineError>>;

    fn handle(&mut self, msg: Verify, _ctx: &mut Self::Context) -> Self::Result {
        let desk = Rc::clone(&self.0);
        Box::pin(async move { guarded_async(desk.verify(msg)).await? })
    }
}

macro_rules! show {
    ($($message:ty => $reply:ty, $show:expr;)*) => {
        $(impl Handler<$message> for JwtSigner {
            type Result = Result<$reply, EngineError>;

            fn handle(&mut self, msg: $message, _ctx: &mut Self::Context) -> Self::Result {
                let show: fn(&MountState, &$message) -> Result<$reply, EngineError> = $show;
                guarded(|| show(&*self.0.mount(msg.mount)?, &msg))?
            }
        })*
    };
}

show! {
    ReadConfig => ConfigView, |mount, _msg| Ok(mount.config());
    ReadKey => KeyView, |mount, msg| Ok(mount.key(&msg.name)?.view());
    ReadRole => RoleView, |mount, msg| {
        mount.roles.get(&msg.name).map(|role| role.view()).ok_or(EngineError::NotFound)
    };
    ListKeys => Vec<String>, |mount, _msg| Ok(mount.keys.keys().map(ToString::to_string).collect());
    ListRoles => Vec<String>, |mount, _msg| Ok(mount.roles.keys().map(ToString::to_string).collect());
    ReadJwks => Jwks, |mount, _msg| {
        Ok(Jwks { json: mount.jwks(), max_age_secs: mount.settings.copies.max_age_secs })
    };
}
