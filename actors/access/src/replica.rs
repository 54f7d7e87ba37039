//! The actor on each HTTP worker that answers who asks, and may they.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use actix::{Actor, Addr, Context, Handler, ResponseFuture, WeakAddr};
use mssm_domain::{Caller, CanonicalPath, Clock, PolicyName, Timestamp, TokenId};
use mssm_messages::access::{
    AccessError, AccessPorts, Authorize, Authorized, ReachesBelow, ReadResultantAcl, ResultantAcl,
    TokenView,
};
use mssm_messages::{Barrier, guarded, guarded_async};

use crate::cache::Cache;
use crate::keeper::AccessKeeper;
use crate::policies::Policies;
use crate::policy::{Acl, Asked, EVERYTHING};
use crate::token::{find_living, fingerprint};
use crate::words::{Forget, Install, Policed, Register, Spend};

/// How many tokens are kept, half of it.
const TOKENS_HALF: usize = 5_000;
/// How often a decision begins anew because tokens changed meanwhile.
const TRIES: usize = 8;

/// Holds the policies and the tokens seen lately; decides on its worker's own arbiter.
///
/// Reads token records in place, has limited uses counted by the keeper. What it holds it was told
/// by the keeper, or has read since the keeper last told it to forget. Knows nothing of HTTP.
pub struct AccessReplica {
    desk: Rc<Desk>,
}

struct Desk {
    keeper: Addr<AccessKeeper>,
    barrier: Barrier,
    clock: Arc<dyn Clock>,
    state: RefCell<State>,
}

struct State {
    /// The keeper's number of what is installed.
    epoch: u64,
    policies: Option<Policies>,
    tokens: Cache<TokenId, Rc<Known>>,
    /// Grows with everything the keeper says: what was read before must not be kept.
    changes: u64,
    /// Set by a keeper that has given this replica up: nothing held here may be used any more.
    retired: Arc<AtomicBool>,
    address: Option<WeakAddr<AccessReplica>>,
}

/// Who holds a token, and what it says of them.
#[derive(Clone)]
struct Holder {
    caller: Arc<Caller>,
    metadata: Arc<BTreeMap<String, String>>,
}

/// A token seen lately.
struct Known {
    holder: Holder,
    ancestors: Vec<TokenId>,
    alive_until: Option<Timestamp>,
}

impl AccessReplica {
    /// Starts a replica on the current arbiter; it asks the keeper for the policies by itself.
    pub fn start(
        keeper: &Addr<AccessKeeper>,
        barrier: Barrier,
        clock: Arc<dyn Clock>,
    ) -> AccessPorts {
        let state = State {
            epoch: 0,
            policies: None,
            tokens: Cache::new(TOKENS_HALF),
            changes: 0,
            retired: Arc::new(AtomicBool::new(true)),
            address: None,
        };
        let desk = Desk { keeper: keeper.clone(), barrier, clock, state: RefCell::new(state) };
        let desk = Rc::new(desk);
        let address = Actor::start(Self { desk: Rc::clone(&desk) });
        desk.state.borrow_mut().address = Some(address.downgrade());
        // A keeper that does not answer now is asked again by the first request.
        actix_rt::spawn(async move { desk.ready().await });
        AccessPorts {
            authorize: address.clone().recipient(),
            reaches_below: address.clone().recipient(),
            resultant_acl: address.recipient(),
        }
    }
}

impl Desk {
    /// Registers with the keeper, unless that is done and holds.
    async fn ready(&self) -> Result<(), AccessError> {
        let retired = Arc::new(AtomicBool::new(false));
        let register = {
            let mut state = self.state.borrow_mut();
            if !state.retired.load(Ordering::SeqCst) {
                return Ok(());
            }
            state.forget_all();
            let address = state.address.as_ref().and_then(WeakAddr::upgrade);
            let address = address.ok_or(AccessError::Internal)?;
            Register {
                install: address.clone().recipient(),
                forget: address.recipient(),
                retired: Arc::clone(&retired),
            }
        };
        let policed = self.keeper.send(register).await.map_err(|_| AccessError::Internal)?;
        let mut state = self.state.borrow_mut();
        state.retired = retired;
        state.install(policed);
        Ok(())
    }

    async fn authorize(&self, msg: Authorize) -> Result<Authorized, AccessError> {
        self.ready().await?;
        let Authorize { token, path, listing } = msg;
        let Some(id) = fingerprint(&self.barrier, token).await? else {
            return Err(AccessError::NoToken);
        };
        for _ in 0..TRIES {
            let now = self.clock.now();
            let changes = {
                let mut state = self.state.borrow_mut();
                if let Some(known) = state.known(id, now) {
                    return state.decide(known.holder.clone(), &path, listing, None);
                }
                state.changes
            };
            let living = find_living(&self.barrier, id, now).await?;
            let living = living.ok_or(AccessError::NoToken)?;
            if living.token.view.num_uses > 0 {
                return self.spend(id, &path, listing).await;
            }
            let mut state = self.state.borrow_mut();
            if state.changes != changes {
                // The keeper spoke while this was being read: it may be about this token.
                continue;
            }
            let holder = Holder {
                caller: Arc::new(living.token.caller(living.alive_until)),
                metadata: Arc::new(living.token.view.metadata),
            };
            let known = Known {
                holder: holder.clone(),
                ancestors: living.ancestors,
                alive_until: living.alive_until,
            };
            state.tokens.insert(id, Rc::new(known));
            return state.decide(holder, &path, listing, None);
        }
        Err(AccessError::Internal)
    }

    /// Has the keeper take down one use, durably, and decides.
    async fn spend(
        &self,
        id: TokenId,
        path: &CanonicalPath,
        listing: bool,
    ) -> Result<Authorized, AccessError> {
        let spent = self.keeper.send(Spend(id)).await.map_err(|_| AccessError::Internal)??;
        let mut state = self.state.borrow_mut();
        let last_view = spent.last_view.map(Arc::new);
        let holder = Holder { caller: Arc::new(spent.caller), metadata: Arc::new(spent.metadata) };
        state.decide(holder, path, listing, last_view)
    }

    /// What a caller's policies allow, or `Sealed`.
    fn acl(&self, policies: &Vec<PolicyName>) -> Result<Rc<Acl>, AccessError> {
        let mut state = self.state.borrow_mut();
        if state.retired.load(Ordering::SeqCst) {
            return Err(AccessError::Internal);
        }
        Ok(state.policies.as_mut().ok_or(AccessError::Sealed)?.acl(policies))
    }
}

impl State {
    fn known(&mut self, id: TokenId, now: Timestamp) -> Option<Rc<Known>> {
        let known = self.tokens.get(&id)?;
        if known.alive_until.is_some_and(|end| end <= now) {
            // It may have been renewed; the records know.
            self.tokens.remove(&id);
            return None;
        }
        Some(known)
    }

    fn decide(
        &mut self,
        Holder { caller, metadata }: Holder,
        path: &CanonicalPath,
        listing: bool,
        last_view: Option<Arc<TokenView>>,
    ) -> Result<Authorized, AccessError> {
        if self.retired.load(Ordering::SeqCst) {
            return Err(AccessError::Internal);
        }
        let acl = self.policies.as_mut().ok_or(AccessError::Sealed)?.acl(&caller.policies);
        let last_use = last_view.is_some();
        if acl.is_root() {
            let granting = vec![PolicyName::root()];
            let capabilities = EVERYTHING;
            let parameters = None;
            return Ok(Authorized {
                caller,
                metadata,
                capabilities,
                parameters,
                granting,
                last_use,
                last_view,
            });
        }
        let granted = if listing {
            acl.decide(path.as_str(), Asked::Listing)
        } else {
            // Whatever answers takes `a/` for `a`, so the rules for `a` are those that count: a
            // slash at the end must not lead around them to a wider pattern.
            acl.decide(path.trim_folder(), Asked::Request)
        };
        Ok(Authorized {
            caller,
            metadata,
            capabilities: granted.map(|granted| granted.capabilities).unwrap_or_default(),
            parameters: granted.and_then(|granted| granted.parameters.clone()),
            granting: granted.map(|granted| granted.granting.clone()).unwrap_or_default(),
            last_use,
            last_view,
        })
    }

    fn forget_all(&mut self) {
        self.policies = None;
        self.tokens.clear();
        self.changes += 1;
    }

    fn install(&mut self, policed: Policed) {
        if policed.epoch < self.epoch {
            return;
        }
        self.epoch = policed.epoch;
        self.changes += 1;
        match (policed.policies, &mut self.policies) {
            (Some(set), Some(policies)) => policies.replace(set),
            (Some(set), none) => *none = Some(Policies::new(set)),
            // Sealed: nobody is known any more.
            (None, _) => self.forget_all(),
        }
    }

    /// Forgets tokens and all their descendants.
    fn forget(&mut self, tokens: &[TokenId]) {
        self.changes += 1;
        let gone: std::collections::HashSet<TokenId> = tokens.iter().copied().collect();
        self.tokens.retain(|id, known| {
            !gone.contains(id) && !known.ancestors.iter().any(|id| gone.contains(id))
        });
    }
}

impl Actor for AccessReplica {
    type Context = Context<Self>;
}

impl Handler<Authorize> for AccessReplica {
    type Result = ResponseFuture<Result<Authorized, AccessError>>;

    fn handle(&mut self, msg: Authorize, _ctx: &mut Self::Context) -> Self::Result {
        let desk = Rc::clone(&self.desk);
        Box::pin(async move { guarded_async(desk.authorize(msg)).await? })
    }
}

impl Handler<ReachesBelow> for AccessReplica {
    type Result = Result<bool, AccessError>;

    fn handle(&mut self, msg: ReachesBelow, _ctx: &mut Self::Context) -> Self::Result {
        guarded(|| Ok(self.desk.acl(&msg.caller.policies)?.reaches_below(&msg.prefix)))?
    }
}

impl Handler<ReadResultantAcl> for AccessReplica {
    type Result = Result<ResultantAcl, AccessError>;

    fn handle(&mut self, msg: ReadResultantAcl, _ctx: &mut Self::Context) -> Self::Result {
        guarded(|| Ok(self.desk.acl(&msg.caller.policies)?.resultant()))?
    }
}

impl Handler<Install> for AccessReplica {
    type Result = ();

    fn handle(&mut self, msg: Install, _ctx: &mut Self::Context) -> Self::Result {
        self.desk.state.borrow_mut().install(msg.0);
    }
}

impl Handler<Forget> for AccessReplica {
    type Result = ();

    fn handle(&mut self, msg: Forget, _ctx: &mut Self::Context) -> Self::Result {
        self.desk.state.borrow_mut().forget(&msg.0);
    }
}
