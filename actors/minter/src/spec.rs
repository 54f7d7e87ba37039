//! What it takes to open a session: made once of a connection's definition.

use mssm_domain::{BootId, ClusterId, SecretText};

use crate::dialect::Dialect;
use crate::engine::postgres;
use crate::mysql;
use crate::record::ConnectionRecord;

/// What a session is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Lane {
    /// Making logins.
    Mint,
    /// Extending them; never waits behind making.
    Extend,
    /// Changing passwords of users that stay.
    Rotate,
    /// Ending them; never waits behind making.
    Revoke,
}

/// All that a [`crate::engine::Dialer`] needs.
pub struct Spec {
    pub(crate) place: Place,
    /// Tried if the server refuses the password in `place`: one of them may hold while, or since, it
    /// was changed.
    pub(crate) others: Vec<SecretText>,
}

/// Where a server is, and how a session there begins.
pub(crate) enum Place {
    Postgres(Box<postgres::Place>),
    MySql(Box<mysql::session::Place>),
}

/// The sessions of one run of the server that make logins, as `pg_stat_activity` names them.
///
/// 63 bytes are all there is: a cluster's first 16 digits, a boot's 32.
pub(crate) fn application_name(cluster: ClusterId, boot: BootId, lane: Lane) -> String {
    let lane = match lane {
        Lane::Mint => 'm',
        Lane::Extend => 'e',
        Lane::Rotate => 'p',
        Lane::Revoke => 'r',
    };
    format!("{}{lane}", run_prefix(cluster, boot))
}

/// How the names of all sessions of one run begin.
pub(crate) fn run_prefix(cluster: ClusterId, boot: BootId) -> String {
    format!("{}{}:", cluster_prefix(cluster), boot.uuid().simple())
}

/// How the names of all sessions of all runs begin.
pub(crate) fn cluster_prefix(cluster: ClusterId) -> String {
    let cluster = cluster.uuid().simple().to_string();
    format!("mssm:{}:", cluster.get(..16).unwrap_or(&cluster))
}

impl Spec {
    /// Reads a definition; an error says what is wrong with it.
    pub(crate) fn new(
        record: &ConnectionRecord,
        application: &str,
        lane: Lane,
    ) -> Result<Self, String> {
        let dsn = record.dsn()?;
        let user = dsn.username(&record.username).ok_or("no username")?;
        let password = dsn.password(&record.password);
        let place = match record.dialect()? {
            Dialect::Postgres => {
                let place = postgres::Place::new(&dsn, record, application, lane)?;
                Place::Postgres(Box::new(place))
            }
            Dialect::MySql | Dialect::MariaDb => {
                let place = mysql::session::Place::new(&dsn, record, application, lane)?;
                Place::MySql(Box::new(place))
            }
        };
        let mut others = Vec::new();
        if let Some(password) = &password {
            let differs = |other: &&SecretText| !other.is_same_as(password);
            others.extend(record.rotation.others().filter(differs).map(SecretText::duplicate));
        }
        Ok(Self { place: place.with_login(&user, password.as_ref()), others })
    }

    /// The name that the session says it has; it tells which run of the server opened it, and why.
    pub fn application(&self) -> &str {
        match &self.place {
            Place::Postgres(place) => place.application(),
            Place::MySql(place) => place.application(),
        }
    }

    /// The same, with this password and no other.
    pub(crate) fn with_only(mut self, password: &SecretText) -> Self {
        self.place = self.place.with_password(password);
        self.others.clear();
        self
    }

    /// The same place, as another user.
    pub(crate) fn as_user(&self, user: &str, password: &SecretText) -> Self {
        let place = match &self.place {
            Place::Postgres(place) => Place::Postgres(Box::new(place.for_application())),
            Place::MySql(place) => Place::MySql(Box::new(place.for_application())),
        };
        Self { place: place.with_login(user, Some(password)), others: Vec::new() }
    }
}

impl Place {
    /// The same, with another password.
    pub(crate) fn with_password(&self, password: &SecretText) -> Self {
        match self {
            Self::Postgres(place) => {
                Self::Postgres(Box::new(place.as_ref().clone().with_password(password)))
            }
            Self::MySql(place) => {
                Self::MySql(Box::new(place.as_ref().clone().with_password(password)))
            }
        }
    }

    fn with_login(self, user: &str, password: Option<&SecretText>) -> Self {
        match self {
            Self::Postgres(place) => Self::Postgres(Box::new(place.with_login(user, password))),
            Self::MySql(place) => Self::MySql(Box::new(place.with_login(user, password))),
        }
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    #[test]
    fn a_name_of_an_application_fits() {
        let id = Uuid::from_u128(u128::MAX);
        let name = application_name(ClusterId::from_uuid(id), BootId::from_uuid(id), Lane::Mint);
        assert_eq!(name.len(), 56);
        let (run, all) = (
            run_prefix(ClusterId::from_uuid(id), BootId::from_uuid(id)),
            cluster_prefix(ClusterId::from_uuid(id)),
        );
        assert!(name.starts_with(&run) && run.starts_with(&all) && all.len() == 22, "{run} {all}");
    }
}
