//! A lease: what it names and when it ends. Never what it protects.

use crate::{Accessor, LeaseId, Timestamp, Ttl};

/// A promise that something which was handed out ends, and when.
///
/// Holds no password; what is needed to end the credential stays sealed in the store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lease {
    /// Its id, which clients hold.
    pub id: LeaseId,
    /// When it was issued.
    pub issued_at: Timestamp,
    /// When it ends, unless it is renewed or revoked before.
    pub expires_at: Timestamp,
    /// The latest end that renewals can reach.
    pub ends_at_most: Timestamp,
    /// What a renewal gives when it does not say.
    pub ttl: Ttl,
    /// True if it can be renewed at all.
    pub renewable: bool,
    /// When it was last renewed.
    pub renewed_at: Option<Timestamp>,
    /// The accessor of the token that it was issued to, and ends with.
    pub holder: Accessor,
}

/// Where a lease is in its life; `Ending` is final, nothing returns from it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum LeaseState {
    /// Recorded; its credential is being made, or nobody knows (`in doubt`).
    Pending,
    /// Handed out.
    Active,
    /// To be revoked; tried until it is done.
    Ending,
    /// Done; kept as a tombstone so that what comes back is known.
    Ended,
}
