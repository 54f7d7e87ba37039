//! A connection in use.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;

use mssm_domain::ClusterId;
use mssm_messages::engine::EngineError;

use super::Book;
use crate::guard::Guard;
use crate::pool::{Facts, Sessions};
use crate::record::ConnectionRecord;
use crate::spec::{Lane, Spec, application_name};
use crate::sweep::Sweep;

/// How many sessions extend logins at once, on each connection.
const EXTEND_SESSIONS: usize = 2;
/// How many end them: the lease manager sends at most five batches, and one more looks around.
const REVOKE_SESSIONS: usize = 6;

/// A connection in use: its definition and its lanes.
pub(crate) struct Target {
    pub(crate) record: ConnectionRecord,
    pub(super) version: u64,
    /// Which server it leads to, once that is known.
    pub(super) server: RefCell<Option<String>>,
    pub(crate) mint: Sessions,
    pub(crate) extend: Sessions,
    pub(crate) revoke: Sessions,
    warmed: Cell<bool>,
    pub(crate) guard: Rc<Guard>,
    pub(crate) sweep: Sweep,
}

impl Target {
    pub(super) fn new(
        book: &Book,
        cluster: ClusterId,
        (version, record): (u64, ConnectionRecord),
        guard: Rc<Guard>,
    ) -> Result<Self, EngineError> {
        let lane = |lane, bound| {
            let spec = Spec::new(&record, &application_name(cluster, book.boot, lane), lane)?;
            Sessions::new(Arc::clone(&book.dialer), spec, Arc::clone(&book.clock), (lane, bound))
        };
        let bound = usize::try_from(record.max_open_connections).unwrap_or(1);
        let mint = lane(Lane::Mint, bound).map_err(EngineError::Invalid)?;
        let extend = lane(Lane::Extend, EXTEND_SESSIONS).map_err(EngineError::Invalid)?;
        let revoke = lane(Lane::Revoke, REVOKE_SESSIONS).map_err(EngineError::Invalid)?;
        let server = RefCell::new(record.system_identifier.clone());
        let (warmed, sweep) = (Cell::new(false), Sweep::new());
        Ok(Self { record, version, server, mint, extend, revoke, warmed, guard, sweep })
    }

    /// False if the session leads to another server than the connection did.
    pub(crate) fn is_same_server(&self, seen: &Facts) -> bool {
        !seen.contradict(self.server.borrow().as_deref())
    }

    /// Has a session for revocation opened, once: a user who takes all slots of the server must
    /// not be able to shut it out.
    pub(crate) fn warm(self: &Rc<Self>) {
        if !self.warmed.replace(true) {
            let target = Rc::clone(self);
            actix_rt::spawn(async move {
                if let Err(error) = target.revoke.lend().await {
                    tracing::warn!(?error, "no session for revocation could be opened ahead");
                    target.warmed.set(false);
                }
            });
        }
    }
}
