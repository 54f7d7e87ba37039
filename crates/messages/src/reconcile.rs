//! To the minter and the lease manager: the logins that are there, compared with the leases.
//!
//! The minter compares, since it alone reads databases and markers; the lease manager says which
//! leases there are, ends what has none, and settles those whose login is gone.

use actix::dev::ToEnvelope;
use actix::{Actor, Addr, Handler, Message};
use mssm_domain::{
    ConnectionId, ConnectionName, LeaseId, MountId, RoleName, SecretBytes, StoredKey, Timestamp,
};

use crate::Port;
use crate::engine::{EngineError, EngineKind};
use crate::lease::LeaseError;

/// To the minter: compares the marked logins of connections with the leases, and ends or settles
/// what differs.
#[derive(Clone, Debug, Message)]
#[rtype(result = "Result<Vec<ConnectionReport>, EngineError>")]
pub struct Reconcile {
    /// The mount; `None` for all.
    pub mount: Option<MountId>,
    /// The connection; `None` for all.
    pub connection: Option<ConnectionName>,
    /// True to touch nothing, and say what would be done.
    pub dry_run: bool,
    /// True to end from now on what a restored store does not know.
    pub confirm: bool,
}

/// What one connection's comparison found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConnectionReport {
    /// The connection's mount.
    pub mount: MountId,
    /// Its name.
    pub connection: String,
    /// Why it was not compared, or why nothing was done about what was found.
    pub held_back: Option<String>,
    /// Logins with a marker of ours.
    pub marked: u64,
    /// Leases of this connection.
    pub leases: u64,
    /// What differs; so many that an answer can hold them, the next run finds the others.
    pub findings: Vec<Finding>,
}

/// One difference.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// What it is.
    pub kind: FindingKind,
    /// The login, by its present name.
    pub login: String,
    /// The lease that it had, has, or gets.
    pub lease: Option<String>,
    /// True if something was begun about it; in a dry run, if it would be.
    pub acts: bool,
}

/// How logins and leases can differ.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FindingKind {
    /// A login of ours that no lease ends: it is ended.
    Orphan,
    /// A login whose lease has ended: it is ended again.
    CameBack,
    /// A login whose name somebody changed: its lease ends it by its oid.
    Renamed,
    /// A role with a marker that is not its own: told, never touched.
    Forged,
    /// A login that has lost its marker: its lease ends it by its name.
    Unmarked,
    /// A lease whose login is not there: it is settled.
    Absent,
}

impl FindingKind {
    /// All of them.
    pub const ALL: [Self; 6] =
        [Self::Orphan, Self::CameBack, Self::Renamed, Self::Forged, Self::Unmarked, Self::Absent];

    /// The name on the wire.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Orphan => "orphan",
            Self::CameBack => "came_back",
            Self::Renamed => "renamed",
            Self::Forged => "forged",
            Self::Unmarked => "unmarked",
            Self::Absent => "absent",
        }
    }
}

/// To the lease manager: lists the leases that live, some at a time. Waits until all are loaded.
#[derive(Clone, Copy, Debug, Message)]
#[rtype(result = "Result<KnownPage, LeaseError>")]
pub struct ListKnown {
    /// The connection whose leases are told from the others.
    pub target: ConnectionId,
    /// Where the page before ended; 0 to begin.
    pub after: u32,
}

/// Some of the leases.
#[derive(Clone, Debug)]
pub struct KnownPage {
    /// Which, in no order.
    pub leases: Vec<Known>,
    /// Where the next page begins; `None` at the end.
    pub next: Option<u32>,
}

/// A lease, or what cannot be read and once was one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Known {
    /// Its id.
    pub lease: String,
    /// True if it is one of the connection's.
    pub here: bool,
    /// True if its login has been handed out and is not being ended.
    pub active: bool,
}

/// To the lease manager: what is known of some leases, living or ended; those that are unknown are
/// left out.
#[derive(Clone, Debug, Message)]
#[rtype(result = "Result<Vec<Described>, LeaseError>")]
pub struct Describe {
    /// Which.
    pub leases: Vec<LeaseId>,
}

/// What is known of a lease.
#[derive(Debug)]
pub struct Described {
    /// The lease.
    pub lease: LeaseId,
    /// The public name of what was made.
    pub name: String,
    /// The engine's own bytes.
    pub data: SecretBytes,
    /// True if it is active: its login was made, and nothing of its making is on its way any more.
    pub settled: bool,
}

/// To the lease manager: lists ended leases that are remembered, some at a time.
#[derive(Clone, Debug, Message)]
#[rtype(result = "Result<EndedPage, LeaseError>")]
pub struct ListEnded {
    /// Where the page before ended.
    pub after: Option<StoredKey>,
    /// True for those alone that ended within the last hour.
    pub lately: bool,
}

/// Some of the ended leases.
#[derive(Debug)]
pub struct EndedPage {
    /// Which.
    pub leases: Vec<EndedLease>,
    /// Where the next page begins; `None` at the end.
    pub next: Option<StoredKey>,
}

/// What is remembered of a lease that has ended.
#[derive(Debug)]
pub struct EndedLease {
    /// The lease.
    pub lease: LeaseId,
    /// Where its login was.
    pub target: ConnectionId,
    /// When it ended.
    pub ended_at: Timestamp,
    /// The engine's own bytes.
    pub data: SecretBytes,
}

/// To the lease manager: ends logins that no lease ends. Each gets a lease that is ending, its own of
/// before where that is remembered; replies how many were not being ended already.
#[derive(Debug, Message)]
#[rtype(result = "Result<u64, LeaseError>")]
pub struct Adopt {
    /// Who ends them.
    pub engine: EngineKind,
    /// Which.
    pub strays: Vec<Stray>,
}

/// A login that no lease ends.
#[derive(Debug)]
pub struct Stray {
    /// The lease that it had, or one that is named for it.
    pub lease: LeaseId,
    /// The mount of the connection where it was found.
    pub mount: MountId,
    /// That connection.
    pub target: ConnectionId,
    /// What stands for the role that it was made by.
    pub role: RoleName,
    /// The login.
    pub name: String,
    /// The engine's bytes for a lease that is not remembered.
    pub data: SecretBytes,
}

/// To the lease manager: ends active leases whose login is not there.
#[derive(Clone, Debug, Message)]
#[rtype(result = "Result<u64, LeaseError>")]
pub struct SettleAbsent {
    /// Which. Replies how many were not ending already.
    pub leases: Vec<LeaseId>,
}

/// To the lease manager: what a run did, for the audit and the counters.
#[derive(Clone, Debug, Message)]
#[rtype(result = "Result<(), LeaseError>")]
pub struct NoteReconciled {
    /// What it found.
    pub reports: Vec<ConnectionReport>,
    /// True if the server ran it by itself: a request is written down as such.
    pub automatic: bool,
    /// True if it touched nothing.
    pub dry_run: bool,
}

/// How often was compared, and what came of it, since the server opened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ReconcileCounts {
    /// Runs.
    pub runs: u64,
    /// When the last one ended, in seconds since 1970; 0 before the first.
    pub last_unix_secs: u64,
    /// What the last one found, as [`FindingKind::ALL`].
    pub found: [u64; FindingKind::ALL.len()],
    /// Connections that the last one could not compare, or did nothing about.
    pub held_back: u64,
    /// Logins whose end was begun.
    pub ended_total: u64,
    /// Leases that were settled.
    pub settled_total: u64,
}

/// How the minter reaches the lease manager to compare.
#[derive(Clone, Debug)]
pub struct ReconcilePorts {
    /// Lists leases.
    pub known: Port<ListKnown>,
    /// Tells of some.
    pub describe: Port<Describe>,
    /// Lists ended ones.
    pub ended: Port<ListEnded>,
    /// Ends logins without a lease.
    pub adopt: Port<Adopt>,
    /// Ends leases without a login.
    pub settle: Port<SettleAbsent>,
    /// Takes a run's outcome.
    pub note: Port<NoteReconciled>,
}

impl ReconcilePorts {
    /// The ports of the lease manager.
    pub fn new<A>(address: &Addr<A>) -> Self
    where
        A: Actor
            + Handler<ListKnown>
            + Handler<Describe>
            + Handler<ListEnded>
            + Handler<Adopt>
            + Handler<SettleAbsent>
            + Handler<NoteReconciled>,
        A::Context: ToEnvelope<A, ListKnown>
            + ToEnvelope<A, Describe>
            + ToEnvelope<A, ListEnded>
            + ToEnvelope<A, Adopt>
            + ToEnvelope<A, SettleAbsent>
            + ToEnvelope<A, NoteReconciled>,
    {
        Self {
            known: address.clone().into(),
            describe: address.clone().into(),
            ended: address.clone().into(),
            adopt: address.clone().into(),
            settle: address.clone().into(),
            note: address.clone().into(),
        }
    }
}
