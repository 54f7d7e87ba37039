//! Stands for the lease manager: what it is told there is, and what it is asked for.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use actix::{Actor, Addr, Context, Handler, ResponseFuture};
use mssm_domain::{Clock, ConnectionId, LeaseId, SecretBytes};
use mssm_messages::lease::{self, CountTarget, Issue, Issued, LeaseError};
use mssm_messages::reconcile::{
    Adopt, Describe, Described, EndedLease, EndedPage, Known, KnownPage, ListEnded, ListKnown,
    NoteReconciled, ReconcilePorts, SettleAbsent, Stray,
};

use mssm_testkit::TestClock;

use crate::LeaseManagerPorts;

/// A lease as the stub knows it: its login's name and the engine's bytes.
pub(crate) type Held = (String, SecretBytes);

/// What there is, and what was asked for.
#[derive(Default)]
pub(crate) struct Books {
    /// Active leases of the one connection.
    pub(crate) living: BTreeMap<LeaseId, Held>,
    /// Leases that have ended and are remembered.
    pub(crate) ended: BTreeMap<LeaseId, Held>,
    /// Those that are too young to be settled.
    pub(crate) young: BTreeSet<LeaseId>,
    pub(crate) adopted: Vec<Stray>,
    pub(crate) settled: Vec<LeaseId>,
}

/// The stub; clones are the same one.
#[derive(Clone, Default)]
pub(crate) struct Leases {
    /// How many leases a connection has.
    pub(crate) count: Arc<AtomicU64>,
    /// While it is held, it is still counting.
    pub(crate) counting: Arc<tokio::sync::Mutex<()>>,
    pub(crate) books: Arc<Mutex<Books>>,
    pub(crate) clock: TestClock,
}

impl Leases {
    pub(crate) fn ports(&self) -> LeaseManagerPorts {
        let manager: Addr<Self> = self.clone().start();
        LeaseManagerPorts {
            count: manager.clone().into(),
            issue: manager.clone().into(),
            revoke: manager.clone().into(),
            reconcile: ReconcilePorts::new(&manager),
        }
    }
}

impl Actor for Leases {
    type Context = Context<Self>;
}

impl Handler<CountTarget> for Leases {
    type Result = ResponseFuture<Result<u64, LeaseError>>;

    fn handle(&mut self, _msg: CountTarget, _ctx: &mut Self::Context) -> Self::Result {
        let (count, counting) = (Arc::clone(&self.count), Arc::clone(&self.counting));
        Box::pin(async move {
            let _turn = counting.lock().await;
            Ok(count.load(Ordering::SeqCst))
        })
    }
}

impl Handler<Issue> for Leases {
    type Result = Result<Issued, LeaseError>;

    fn handle(&mut self, _msg: Issue, _ctx: &mut Self::Context) -> Self::Result {
        Err(LeaseError::Busy)
    }
}

impl Handler<lease::Revoke> for Leases {
    type Result = Result<(), LeaseError>;

    fn handle(&mut self, _msg: lease::Revoke, _ctx: &mut Self::Context) -> Self::Result {
        Ok(())
    }
}

impl Handler<ListKnown> for Leases {
    type Result = Result<KnownPage, LeaseError>;

    fn handle(&mut self, msg: ListKnown, _ctx: &mut Self::Context) -> Self::Result {
        // One a page, so that there is more than one.
        let books = self.books.lock().unwrap();
        let at = usize::try_from(msg.after).unwrap();
        let known =
            |lease: &LeaseId| Known { lease: lease.as_str().to_owned(), here: true, active: true };
        let leases: Vec<Known> = books.living.keys().skip(at).take(1).map(known).collect();
        let next = (at + 1 < books.living.len()).then_some(msg.after + 1);
        Ok(KnownPage { leases, next })
    }
}

impl Handler<Describe> for Leases {
    type Result = Result<Vec<Described>, LeaseError>;

    fn handle(&mut self, msg: Describe, _ctx: &mut Self::Context) -> Self::Result {
        let books = self.books.lock().unwrap();
        let described = msg.leases.into_iter().filter_map(|lease| {
            let (name, data) = books.living.get(&lease).or_else(|| books.ended.get(&lease))?;
            let (name, data) = (name.clone(), data.duplicate());
            let settled = books.living.contains_key(&lease) && !books.young.contains(&lease);
            Some(Described { lease, name, data, settled })
        });
        Ok(described.collect())
    }
}

impl Handler<ListEnded> for Leases {
    type Result = Result<EndedPage, LeaseError>;

    fn handle(&mut self, _msg: ListEnded, _ctx: &mut Self::Context) -> Self::Result {
        let books = self.books.lock().unwrap();
        let ended_at = self.clock.now();
        let ended = books.ended.iter().map(|(lease, (_, data))| {
            let text: serde_json::Value = serde_json::from_slice(data.expose()).unwrap();
            let target = ConnectionId::parse(text["connection"].as_str().unwrap()).unwrap();
            let (lease, data) = (lease.clone(), data.duplicate());
            EndedLease { lease, target, ended_at, data }
        });
        Ok(EndedPage { leases: ended.collect(), next: None })
    }
}

impl Handler<Adopt> for Leases {
    type Result = Result<u64, LeaseError>;

    fn handle(&mut self, msg: Adopt, _ctx: &mut Self::Context) -> Self::Result {
        let count = msg.strays.len() as u64;
        self.books.lock().unwrap().adopted.extend(msg.strays);
        Ok(count)
    }
}

impl Handler<SettleAbsent> for Leases {
    type Result = Result<u64, LeaseError>;

    fn handle(&mut self, msg: SettleAbsent, _ctx: &mut Self::Context) -> Self::Result {
        let count = msg.leases.len() as u64;
        self.books.lock().unwrap().settled.extend(msg.leases);
        Ok(count)
    }
}

impl Handler<NoteReconciled> for Leases {
    type Result = Result<(), LeaseError>;

    fn handle(&mut self, _msg: NoteReconciled, _ctx: &mut Self::Context) -> Self::Result {
        Ok(())
    }
}
