//! The lease manager: the actor around the book of leases.

use std::collections::BTreeMap;
use std::future::{Future, ready};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use actix::{Actor, AsyncContext, Context, Handler, ResponseFuture};
use mssm_domain::{BootId, Clock, LeaseState, Random, RecordPath};
use mssm_messages::audit::Append;
use mssm_messages::engine::{EngineKind, EnginePorts};
use mssm_messages::lease::{
    Count, CountTarget, Counts, Issue, Issued, LeaseError, LeaseView, List, ListUnreadable, Lookup,
    LookupName, Lost, PrefixRevoked, Renew, Renewed, Revoke, RevokeMount, RevokePrefix,
    RevokeToken, Tidy as TidyAll,
};
use mssm_messages::seal::{Closing, Opened, StageError};
use mssm_messages::{Barrier, Port, guarded, guarded_async};

use crate::outbox::Outbox;
use crate::record::{LeaseRecord, live_folder};
use crate::restore::{Tidy, by_name, restore, tidy_all};
use crate::session::{Ground, Session};
use crate::{issue, renew, revoke};

/// How often it is asked what is due: a lease ends at most so much late.
const TICK: Duration = Duration::from_millis(250);
/// Sweeps over the tombstones are this far apart.
const TIDY_TICKS: u32 = 2_400;
/// How long counting waits for what engines are deciding on.
const DECIDE_PATIENCE: Duration = Duration::from_secs(3);
/// How long closing waits for what is under way.
const CLOSE_PATIENCE: Duration = Duration::from_secs(2);

/// What the lease manager is told once.
#[derive(Clone, Copy, Debug)]
pub struct LeaseConfig {
    /// This run of the server.
    pub boot: BootId,
}

/// Holds every live lease and has what has ended revoked, for ever if need be.
///
/// Writes records through the barrier, sends [`Prepare`](mssm_messages::engine::Prepare), `Create`,
/// `Extend` and `Revoke` to the engines, and events to the audit. Knows nothing of keys, HTTP or
/// SQL. Lives on an arbiter of its own, on which its key replica must be too.
pub struct LeaseManager {
    ground: Rc<Ground>,
    session: Option<Rc<Session>>,
    tidy: Rc<Tidy>,
    ticks: u32,
}

impl LeaseManager {
    /// A lease manager that is not open yet; made on the arbiter on which it will live.
    pub fn new(
        config: LeaseConfig,
        barrier: Barrier,
        engines: BTreeMap<EngineKind, EnginePorts>,
        audit: Port<Append>,
        clock: Arc<dyn Clock>,
        random: Arc<dyn Random>,
    ) -> Self {
        let outbox = Rc::new(Outbox::new(audit, barrier.clone()));
        let ground = Ground { boot: config.boot, barrier, engines, clock, random, outbox };
        Self { ground: Rc::new(ground), session: None, tidy: Rc::default(), ticks: 0 }
    }

    /// Runs a flow of the open session, to its end even if nobody waits for it; a panic in it is
    /// its caller's `Internal`.
    pub(crate) fn serve<T, F>(
        &self,
        flow: impl FnOnce(Rc<Session>) -> F,
    ) -> ResponseFuture<Result<T, LeaseError>>
    where
        T: 'static,
        F: Future<Output = Result<T, LeaseError>> + 'static,
    {
        match &self.session {
            None => Box::pin(ready(Err(LeaseError::Sealed))),
            Some(session) => {
                let flow = flow(Rc::clone(session));
                Box::pin(async move { guarded_async(flow).await.unwrap_or_else(|p| Err(p.into())) })
            }
        }
    }

    fn tick(&mut self) {
        self.ground.outbox.send();
        let Some(session) = &self.session else { return };
        session.tick();
        self.ticks = self.ticks.wrapping_add(1);
        if self.ticks.is_multiple_of(TIDY_TICKS) {
            actix_rt::spawn(Rc::clone(&self.tidy).sweep(Rc::clone(session)));
        }
    }
}

impl Actor for LeaseManager {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        ctx.run_interval(TICK, |manager, _ctx| {
            // A panic is logged where it is caught; the next tick tries again.
            let _ = guarded(|| manager.tick());
        });
    }
}

impl Handler<Issue> for LeaseManager {
    type Result = ResponseFuture<Result<Issued, LeaseError>>;

    fn handle(&mut self, msg: Issue, _ctx: &mut Self::Context) -> Self::Result {
        self.serve(|session| issue::issue(session, msg))
    }
}

impl Handler<Lost> for LeaseManager {
    type Result = ResponseFuture<Result<(), LeaseError>>;

    fn handle(&mut self, msg: Lost, _ctx: &mut Self::Context) -> Self::Result {
        self.serve(|session| async move {
            if session.repeats.lose(msg.lease.as_str()) {
                revoke::revoke(session, Revoke { lease: msg.lease, sync: false }).await?;
            }
            Ok(())
        })
    }
}

impl Handler<Renew> for LeaseManager {
    type Result = ResponseFuture<Result<Renewed, LeaseError>>;

    fn handle(&mut self, msg: Renew, _ctx: &mut Self::Context) -> Self::Result {
        self.serve(|session| renew::renew(session, msg))
    }
}

impl Handler<Revoke> for LeaseManager {
    type Result = ResponseFuture<Result<(), LeaseError>>;

    fn handle(&mut self, msg: Revoke, _ctx: &mut Self::Context) -> Self::Result {
        self.serve(|session| revoke::revoke(session, msg))
    }
}

impl Handler<RevokePrefix> for LeaseManager {
    type Result = ResponseFuture<Result<PrefixRevoked, LeaseError>>;

    fn handle(&mut self, msg: RevokePrefix, _ctx: &mut Self::Context) -> Self::Result {
        self.serve(|session| revoke::revoke_prefix(session, msg))
    }
}

impl Handler<RevokeToken> for LeaseManager {
    type Result = ResponseFuture<Result<u64, LeaseError>>;

    fn handle(&mut self, msg: RevokeToken, _ctx: &mut Self::Context) -> Self::Result {
        self.serve(|session| revoke::revoke_token(session, msg))
    }
}

impl Handler<RevokeMount> for LeaseManager {
    type Result = ResponseFuture<Result<u64, LeaseError>>;

    fn handle(&mut self, msg: RevokeMount, _ctx: &mut Self::Context) -> Self::Result {
        self.serve(|session| revoke::revoke_mount(session, msg))
    }
}

impl Handler<Lookup> for LeaseManager {
    type Result = ResponseFuture<Result<LeaseView, LeaseError>>;

    fn handle(&mut self, msg: Lookup, _ctx: &mut Self::Context) -> Self::Result {
        self.serve(|session| async move {
            let found = session.read(msg.lease.as_str()).await?;
            let (_, mut record) = found.ok_or(LeaseError::Unknown)?;
            // Expiry is judged at use: the tick may not have come round yet.
            let over = session.follow(&mut record) <= session.judged_now();
            match record.state {
                LeaseState::Ended => Err(LeaseError::Unknown),
                LeaseState::Active if over => Err(LeaseError::Unknown),
                _ => Ok(view(record)),
            }
        })
    }
}

fn view(record: LeaseRecord) -> LeaseView {
    let LeaseRecord { lease, state, name, error, ended_at, .. } = record;
    LeaseView { lease, state, name, revoke_error: error, ended_at }
}

impl Handler<LookupName> for LeaseManager {
    type Result = ResponseFuture<Result<LeaseView, LeaseError>>;

    fn handle(&mut self, msg: LookupName, _ctx: &mut Self::Context) -> Self::Result {
        self.serve(|session| async move {
            let mut record = by_name(&session, &msg.name).await?;
            session.follow(&mut record);
            Ok(view(record))
        })
    }
}

impl Handler<ListUnreadable> for LeaseManager {
    type Result = Result<Vec<String>, LeaseError>;

    fn handle(&mut self, _msg: ListUnreadable, _ctx: &mut Self::Context) -> Self::Result {
        let session = self.session.as_ref().ok_or(LeaseError::Sealed)?;
        Ok(session.unreadable.borrow().iter().cloned().collect())
    }
}

impl Handler<TidyAll> for LeaseManager {
    type Result = Result<bool, LeaseError>;

    fn handle(&mut self, _msg: TidyAll, _ctx: &mut Self::Context) -> Self::Result {
        let session = self.session.as_ref().ok_or(LeaseError::Sealed)?;
        if session.tidying.replace(true) {
            return Ok(false);
        }
        let (session, tidy) = (Rc::clone(session), Rc::clone(&self.tidy));
        actix_rt::spawn(async move {
            if guarded_async(tidy_all(Rc::clone(&session), tidy)).await.is_err() {
                session.tidying.set(false);
            }
        });
        Ok(true)
    }
}

impl Handler<List> for LeaseManager {
    type Result = ResponseFuture<Result<Vec<String>, LeaseError>>;

    fn handle(&mut self, msg: List, _ctx: &mut Self::Context) -> Self::Result {
        self.serve(|session| async move {
            let folder: RecordPath = live_folder().child(&msg.prefix);
            let after = msg.after.as_deref().map(|after| after.trim_end_matches('/'));
            let children = session.ground.barrier.list(&folder, after, msg.limit).await?;
            let mut names = Vec::with_capacity(children.len());
            for child in children {
                if child.is_record {
                    names.push(child.name.clone());
                }
                if child.is_folder {
                    names.push(child.name + "/");
                }
            }
            Ok(names)
        })
    }
}

impl Handler<Count> for LeaseManager {
    type Result = Result<Counts, LeaseError>;

    fn handle(&mut self, _msg: Count, _ctx: &mut Self::Context) -> Self::Result {
        let session = self.session.as_ref().ok_or(LeaseError::Sealed)?;
        let book = session.book.borrow();
        let tally = book.tally();
        Ok(Counts {
            active: tally.active,
            pending: tally.pending,
            ending: tally.ending,
            overdue: book.overdue_count(),
            overdue_oldest_secs: book.overdue_secs(session.uptime()),
            lanes: book.lane_views(session.uptime()),
            issued_total: session.issued_total.get(),
            ended_total: session.ended_total.get(),
            failures_total: session.failures_total.get(),
            unreadable: session.unreadable.borrow().len() as u64,
            reconcile: session.reconciled.get(),
            by_mount: book.places().active_by_mount(),
        })
    }
}

impl Handler<CountTarget> for LeaseManager {
    type Result = ResponseFuture<Result<u64, LeaseError>>;

    fn handle(&mut self, msg: CountTarget, _ctx: &mut Self::Context) -> Self::Result {
        self.serve(|session| async move {
            revoke::restored(&session).await?;
            // Whoever asks has seen to it that nothing new is decided for the target: what was
            // decided before is counted too, so that none can come after the answer.
            if !session.until_decided(DECIDE_PATIENCE).await {
                return Err(LeaseError::NotYet("leases are still being decided on".to_owned()));
            }
            if session.is_closed() {
                return Err(LeaseError::Sealed);
            }
            Ok(session.book.borrow().places().count_where(|place| place.target == msg.target))
        })
    }
}

impl Handler<Opened> for LeaseManager {
    type Result = Result<(), StageError>;

    fn handle(&mut self, _msg: Opened, _ctx: &mut Self::Context) -> Self::Result {
        if self.session.is_some() {
            return Ok(());
        }
        self.ground.outbox.open(self.ground.clock.now());
        let session = Session::new(Rc::clone(&self.ground));
        self.session = Some(Rc::clone(&session));
        actix_rt::spawn(async move {
            // A panic is logged where it is caught; counting and unmounting then say "not yet".
            let _ = guarded_async(restore(session)).await;
        });
        Ok(())
    }
}

impl Handler<Closing> for LeaseManager {
    type Result = ResponseFuture<Result<(), StageError>>;

    fn handle(&mut self, _msg: Closing, _ctx: &mut Self::Context) -> Self::Result {
        let session = self.session.take();
        let outbox = Rc::clone(&self.ground.outbox);
        Box::pin(async move {
            if let Some(session) = session {
                session.close(CLOSE_PATIENCE).await;
            }
            outbox.flush().await;
            Ok(())
        })
    }
}
