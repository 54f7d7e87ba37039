//! Which connections log in as whom: what shares a user shares its password.

use mssm_domain::{ErrorKind, Fault, MountId};
use mssm_messages::BarrierError;
use mssm_messages::engine::EngineError;

use super::mounts;
use crate::book::{Book, connection_path};
use crate::connections::names;
use crate::record::ConnectionRecord;

/// A connection and the version of its record.
pub(super) struct Member {
    pub(super) mount: MountId,
    pub(super) name: String,
    pub(super) version: u64,
    pub(super) record: ConnectionRecord,
}

/// All connections of all mounts.
pub(super) async fn all(book: &Book) -> Result<Vec<Member>, EngineError> {
    let mut found = Vec::new();
    for mount in mounts(book).await? {
        for name in names(book, &connection_path(mount, "")).await? {
            let read = book.read::<ConnectionRecord>(&connection_path(mount, &name)).await;
            match read {
                Ok(Some((version, record))) => found.push(Member { mount, name, version, record }),
                Ok(None) => {}
                // One that cannot be read logs in nowhere.
                Err(EngineError::Barrier(BarrierError::Key(error)))
                    if error.kind() != ErrorKind::Sealed => {}
                Err(error) => return Err(error),
            }
        }
    }
    Ok(found)
}

/// Every connection that logs in to the same server as the same user with the same password, this one among them.
///
/// One with another password is not let in, or leads to a server that only says that it is the same: the new password
/// must not go there.
pub(super) async fn sharing(
    book: &Book,
    record: &ConnectionRecord,
) -> Result<Vec<Member>, EngineError> {
    let mut members = all(book).await?;
    members.retain(|member| member.record.id == record.id || is_same_user(record, &member.record));
    Ok(members)
}

/// True if both log in to the same server as the same user; by the server's own word, or else by its
/// address.
fn is_same_user(one: &ConnectionRecord, other: &ConnectionRecord) -> bool {
    let place = |record: &ConnectionRecord| {
        let dsn = record.dsn().ok()?;
        let password = dsn.password(&record.password)?;
        Some((dsn.username(&record.username)?, dsn.hosts, password))
    };
    let (Some((name, hosts, password)), Some((other_name, other_hosts, other_password))) =
        (place(one), place(other))
    else {
        return false;
    };
    // MySQL's ids change while its data stay.
    let id_is_final = one.dialect().is_ok_and(|dialect| dialect.is_postgres());
    let same_server = match (&one.system_identifier, &other.system_identifier) {
        (Some(one), Some(other)) if one == other || id_is_final => one == other,
        _ => hosts.iter().any(|host| other_hosts.contains(host)),
    };
    let same_login = name == other_name && password.is_same_as(&other_password);
    same_login && same_server && one.dialect() == other.dialect()
}

/// True if a user of this connection's server is the root user of some connection.
pub(super) async fn is_root_user(
    book: &Book,
    record: &ConnectionRecord,
    username: &str,
) -> Result<bool, EngineError> {
    let is = |member: &Member| {
        let dsn = member.record.dsn().ok();
        let user = dsn.and_then(|dsn| dsn.username(&member.record.username));
        let here = match (&record.system_identifier, &member.record.system_identifier) {
            (Some(one), Some(other)) => one == other,
            _ => true,
        };
        here && user.as_deref() == Some(username)
    };
    Ok(all(book).await?.iter().any(is))
}

#[cfg(test)]
mod tests {
    use mssm_domain::{ConnectionId, SecretText};
    use uuid::Uuid;

    use super::*;

    fn record(url: &str, password: &str) -> ConnectionRecord {
        let mut record = ConnectionRecord::new(ConnectionId::from_uuid(Uuid::nil()));
        record.plugin_name = "postgresql-database-plugin".to_owned();
        record.connection_url = SecretText::new(format!("postgresql://{url}"));
        record.username = "admin".to_owned();
        record.password = SecretText::new(password.to_owned());
        record.system_identifier = Some("7".to_owned());
        record
    }

    #[test]
    fn a_server_that_only_says_that_it_is_the_same_gets_no_new_password() {
        let one = record("db.x/app", "theirs");
        for (url, password, same) in [
            ("10.0.0.1/app", "theirs", true),
            ("admin:theirs@10.0.0.1/app", "", true),
            ("evil.x/app", "mine", false),
            ("evil.x/app", "", false),
            ("evil.x,db.x/app", "mine", false),
        ] {
            assert_eq!(is_same_user(&one, &record(url, password)), same, "{url} {password}");
        }
    }
}
