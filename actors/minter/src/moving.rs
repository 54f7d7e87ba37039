//! Where a connection's password goes: what sends it elsewhere must bring it.
//!
//! Else whoever may write a definition, and not read its password, could have it sent to a server of their own.

use mssm_domain::SecretText;
use mssm_messages::engine::EngineError;
use mssm_messages::minter::{ConnectionPatch, DatabaseTls};

use crate::record::ConnectionRecord;

/// Where a password goes, and how surely.
pub(crate) struct Way {
    hosts: Vec<(String, u16)>,
    tls: DatabaseTls,
    authority: String,
}

impl Way {
    /// The way of a definition; none if it is not complete.
    pub(crate) fn of(record: &ConnectionRecord) -> Option<Self> {
        let dsn = record.dsn().ok()?;
        let tls = dsn.tls(!record.tls_ca.is_empty());
        Some(Self { hosts: dsn.hosts, tls, authority: record.tls_ca.clone() })
    }

    /// True if what went this way goes no less surely, and nowhere else, by the other.
    fn covers(&self, other: &Self) -> bool {
        let surely = match (&self.tls, &other.tls) {
            (DatabaseTls::VerifyFull, DatabaseTls::VerifyFull) => self.authority == other.authority,
            (DatabaseTls::VerifyFull, _) | (DatabaseTls::Require, DatabaseTls::Disable) => false,
            (DatabaseTls::Require | DatabaseTls::Disable, _) => true,
        };
        surely && other.hosts.iter().all(|host| self.hosts.contains(host))
    }
}

/// Which password a change brings.
#[derive(Clone, Copy)]
pub(crate) struct Brought {
    field: bool,
    url: bool,
}

impl Brought {
    /// By a request, before it is taken over.
    pub(crate) const fn by(patch: &ConnectionPatch) -> Self {
        Self { field: patch.password.is_some(), url: patch.connection_url.is_some() }
    }
}

/// An error if a definition as it is now would send elsewhere a password that the change did not bring. What was
/// kept for the way before is forgotten with it.
pub(crate) fn check(
    before: Option<&Way>,
    record: &mut ConnectionRecord,
    brought: Brought,
) -> Result<(), EngineError> {
    let dsn = record.dsn().map_err(EngineError::Invalid)?;
    let after = Way::of(record);
    if before.zip(after.as_ref()).is_some_and(|(before, after)| before.covers(after)) {
        return Ok(());
    }
    let spelled = dsn.spells_password();
    let sends =
        dsn.password(&record.password).is_some() || record.rotation.others().next().is_some();
    if sends && !if spelled { brought.url } else { brought.field } {
        return Err(EngineError::Invalid(NEEDED.to_owned()));
    }
    if !brought.field {
        record.password = SecretText::new(String::new());
    }
    Ok(())
}

const NEEDED: &str = "this changes where the password is sent (host, port, socket, TLS or tls_ca), and the one that is \
     stored is not sent there: write password with it. If nobody knows it since it was rotated, give the user a new one \
     in the database, or make another user there, and write username and password with the change; or leave the \
     address as it is";
