//! The owner of tokens and policies: their only writer.

mod ending;
mod pages;
mod policies;
mod replicas;
#[cfg(test)]
mod tests;
mod tokens;

use std::cell::RefCell;
use std::collections::{BTreeMap, HashMap};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use actix::{Actor, Addr, Context, Handler, ResponseFuture};
use mssm_domain::{
    Accessor, Clock, ExpiryIndex, PolicyName, Random, RecordPath, Timestamp, TokenId,
};
use mssm_messages::access::{
    AccessError, CreateToken, DeletePolicy, ListAccessors, ListPolicies, LookupToken, NewToken,
    ReadCapabilities, ReadPolicy, RenewToken, RevokeToken, TidyTokens, TokenPorts, TokenView,
    WritePolicy,
};
use mssm_messages::audit::Append;
use mssm_messages::lease;
use mssm_messages::seal::{Closing, Found, Opened, Seeds, StageError};
use mssm_messages::{Barrier, Port, guarded, guarded_async};
use tokio::sync::Mutex;

use crate::policies::Policies;
use crate::words::{Policed, Register, Spend, Spent};
use replicas::Replicas;

/// How often what is due is looked for.
const TICK: Duration = Duration::from_millis(250);
/// How many records are read at once, so that nothing holds up the arbiter for long.
const PAGE: usize = 128;
/// How many tokens are changed side by side.
const PLACES: usize = 64;

/// Holds the policies and what ends when; sends revocations to the lease manager.
///
/// Every change is durable, and known to every replica, before it is answered. Knows nothing of
/// HTTP and nothing of keys.
pub struct AccessKeeper {
    desk: Rc<Desk>,
}

/// What the keeper's handlers share on its arbiter.
struct Desk {
    barrier: Barrier,
    lease_revoke: Port<lease::RevokeToken>,
    audit: Port<Append>,
    clock: Arc<dyn Clock>,
    random: Arc<dyn Random>,
    replicas: Replicas,
    /// One change of policies at a time, from reading to telling the replicas.
    policy_change: Mutex<()>,
    /// Who counts a use or renews waits here for its turn, so that however many use one token at once none of
    /// them is refused for having lost a race. A token's place is by its hash.
    using: [Mutex<()>; PLACES],
    /// Whoever changes a token's record has its turn here too; who ends it waits for one of the others at most.
    changing: [Mutex<()>; PLACES],
    /// Long questions about what is allowed are answered one after the other.
    judging: Mutex<()>,
    open: RefCell<Option<Open>>,
    /// Numbers each opening; what began in an earlier one stops.
    opening: std::cell::Cell<u64>,
}

/// What is known while unsealed.
struct Open {
    policies: Policies,
    /// The versions of the policies' records.
    versions: HashMap<PolicyName, u64>,
    /// What ends when.
    expiry: ExpiryIndex<TokenId>,
    /// Dead tokens whose leavings are to be removed, by when to try; the number keeps their order.
    endings: BTreeMap<(Timestamp, u64), TokenId>,
    next_ending: u64,
    /// True while somebody removes leavings.
    draining: bool,
    next_tidy: Timestamp,
}

impl AccessKeeper {
    /// A keeper that waits to be told that the server opened.
    pub fn new(
        barrier: Barrier,
        lease_revoke: Port<lease::RevokeToken>,
        audit: Port<Append>,
        clock: Arc<dyn Clock>,
        random: Arc<dyn Random>,
    ) -> Self {
        let desk = Desk {
            barrier,
            lease_revoke,
            audit,
            clock,
            random,
            replicas: Replicas::default(),
            policy_change: Mutex::new(()),
            using: std::array::from_fn(|_| Mutex::new(())),
            changing: std::array::from_fn(|_| Mutex::new(())),
            judging: Mutex::new(()),
            open: RefCell::new(None),
            opening: std::cell::Cell::new(0),
        };
        Self { desk: Rc::new(desk) }
    }

    /// How others reach it.
    pub fn ports(address: &Addr<Self>) -> TokenPorts {
        TokenPorts {
            create: address.clone().into(),
            renew: address.clone().into(),
            revoke: address.clone().into(),
            lookup: address.clone().into(),
            accessors: address.clone().into(),
            tidy: address.clone().into(),
            capabilities: address.clone().into(),
            list_policies: address.clone().into(),
            read_policy: address.clone().into(),
            write_policy: address.clone().into(),
            delete_policy: address.clone().into(),
        }
    }
}

impl Desk {
    /// Looks at, or changes, what is known while unsealed.
    fn with_open<T>(&self, work: impl FnOnce(&mut Open) -> T) -> Result<T, AccessError> {
        self.open.borrow_mut().as_mut().map(work).ok_or(AccessError::Sealed)
    }

    fn is_open(&self) -> bool {
        self.open.borrow().is_some()
    }
}

impl Actor for AccessKeeper {
    type Context = Context<Self>;

    fn started(&mut self, _ctx: &mut Self::Context) {
        let desk = Rc::downgrade(&self.desk);
        actix_rt::spawn(async move {
            let mut ticks = actix_rt::time::interval(TICK);
            ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
            loop {
                ticks.tick().await;
                let Some(desk) = desk.upgrade() else { break };
                // A panic is logged by the guard; the next tick begins anew.
                let _ = guarded_async(desk.tick()).await;
            }
        });
    }
}

macro_rules! handled {
    ($message:ty, $reply:ty, $error:ty, $method:ident) => {
        impl Handler<$message> for AccessKeeper {
            type Result = ResponseFuture<Result<$reply, $error>>;

            fn handle(&mut self, msg: $message, _ctx: &mut Self::Context) -> Self::Result {
                let desk = Rc::clone(&self.desk);
                Box::pin(async move { guarded_async(desk.$method(msg)).await? })
            }
        }
    };
}

handled!(CreateToken, NewToken, AccessError, create);
handled!(LookupToken, TokenView, AccessError, lookup);
handled!(RenewToken, NewToken, AccessError, renew);
handled!(RevokeToken, bool, AccessError, revoke);
handled!(ListAccessors, Vec<Accessor>, AccessError, list_accessors);
handled!(TidyTokens, u64, AccessError, tidy);
handled!(ReadCapabilities, Vec<mssm_domain::policy::Capabilities>, AccessError, capabilities);
handled!(ReadPolicy, String, AccessError, read_policy);
handled!(WritePolicy, Vec<String>, AccessError, write_policy);
handled!(DeletePolicy, (), AccessError, delete_policy);
handled!(Spend, Spent, AccessError, spend);

impl Handler<ListPolicies> for AccessKeeper {
    type Result = Result<Vec<PolicyName>, AccessError>;

    fn handle(&mut self, _msg: ListPolicies, _ctx: &mut Self::Context) -> Self::Result {
        guarded(|| self.desk.list_policies())?
    }
}

macro_rules! staged {
    ($message:ty, $reply:ty, $method:ident) => {
        impl Handler<$message> for AccessKeeper {
            type Result = ResponseFuture<Result<$reply, StageError>>;

            fn handle(&mut self, msg: $message, _ctx: &mut Self::Context) -> Self::Result {
                let desk = Rc::clone(&self.desk);
                let stage = async move {
                    guarded_async(desk.$method(msg)).await.unwrap_or(Err(AccessError::Internal))
                };
                Box::pin(async move {
                    stage.await.map_err(|error| StageError(format!("tokens and policies: {error}")))
                })
            }
        }
    };
}

staged!(Found, Seeds, found);
staged!(Opened, (), open);
staged!(Closing, (), close);

impl Handler<Register> for AccessKeeper {
    type Result = Policed;

    fn handle(&mut self, msg: Register, _ctx: &mut Self::Context) -> Self::Result {
        self.desk.replicas.add(msg)
    }
}

/// The record of an accessor.
fn accessor_record(accessor: &Accessor) -> RecordPath {
    RecordPath::new(&["accessor", accessor.as_str()])
}

/// The record of a token's child.
fn child_record(parent: TokenId, child: TokenId) -> RecordPath {
    children_folder(parent).child(&child.hex())
}

/// The folder of a token's children.
fn children_folder(parent: TokenId) -> RecordPath {
    RecordPath::new(&["children", &parent.hex()])
}

/// The record of a token whose leavings are being removed.
fn ending_record(token: TokenId) -> RecordPath {
    RecordPath::new(&["token-ending", &token.hex()])
}

/// The record of a policy. The name may hold slashes; its hexadecimal form is one segment.
fn policy_record(name: &PolicyName) -> RecordPath {
    RecordPath::new(&["policy", &hex::encode(name.as_str())])
}
