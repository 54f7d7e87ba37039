//! What a session learns of its server, and what it sets.

use std::time::Duration;

use tokio::time::Instant;

use super::locks::Locks;
use crate::dialect::Dialect;
use crate::engine::{DbError, Refusal, Row, Session};
use crate::pool::{Backend, Facts};
use crate::spec::Lane;

/// The server's clock, in milliseconds.
pub(crate) const NOW: &str = "SELECT CAST(UNIX_TIMESTAMP(NOW(3)) * 1000 AS UNSIGNED)";
/// Who we are.
pub(crate) const OWN_USER: &str = "LEFT(USER(), CHAR_LENGTH(USER()) \
     - CHAR_LENGTH(SUBSTRING_INDEX(USER(), '@', -1)) - 1)";
/// Asks for that, and whether the server only follows another, as `t` or `f`.
pub(crate) fn who() -> String {
    format!("SELECT {OWN_USER}, IF(@@global.read_only IN (0, 'OFF'), 'f', 't')")
}
/// The oldest that can lock accounts: MariaDB's, MySQL's.
const OLDEST: (u32, u32) = (100_402, 50_706);

/// Asks, sets what must hold in every session of ours, and takes the locks that name it.
pub(crate) async fn ask(
    session: &dyn Session,
    application: &str,
    lane: Lane,
) -> Result<Facts, DbError> {
    const FACTS: &str = "SELECT VERSION(), CONNECTION_ID(), IFNULL(DATABASE(), '')";
    let rows = session.run(FACTS).await?;
    let fact = |index: usize| field(&rows, index);
    let said = fact(0);
    let maria = said.contains("MariaDB");
    let dialect = if maria { Dialect::MariaDb } else { Dialect::MySql };
    let version = read_version(&said);
    if version < if maria { OLDEST.0 } else { OLDEST.1 } {
        return Err(unfit(
            "the server is too old: MySQL 5.7.6 or MariaDB 10.4.2 can lock accounts",
        ));
    }
    session.run(&settings(dialect, lane)).await?;
    let identity = if maria { "SELECT @@server_uid" } else { "SELECT @@server_uuid" };
    // Old ones do not say.
    let identity = session.run(identity).await.unwrap_or_default();
    let id = fact(1);
    let started = Locks::of(application).take(session, id.parse().unwrap_or(0)).await?;
    let grants = session.run("SHOW GRANTS").await?;
    Ok(Facts {
        dialect,
        version,
        superuser: lacking(&grants).is_empty(),
        database: fact(2),
        backend: Backend { pid: id, started },
        system_identifier: Some(field(&identity, 0)).filter(|id| !id.is_empty()),
        skew_ms: 0,
        looked: Instant::now(),
    })
}

fn field(rows: &[Row], index: usize) -> String {
    rows.first().and_then(|row| row.get(index)).cloned().flatten().unwrap_or_default()
}

fn unfit(why: &str) -> DbError {
    DbError::Refused(Refusal {
        code: "0000".to_owned(),
        severity: "ERROR".to_owned(),
        message: why.to_owned(),
        done: 0,
        position: None,
    })
}

/// `10.11.14-MariaDB-0+deb12u2` is 101114, also behind a `5.5.5-`; `8.0.36` is 80036.
fn read_version(said: &str) -> u32 {
    let said = said.strip_prefix("5.5.5-").unwrap_or(said);
    let mut parts = said.split(|letter: char| !letter.is_ascii_digit());
    let mut part = || parts.next().and_then(|part| part.parse::<u32>().ok()).unwrap_or(0).min(99);
    part() * 10_000 + part() * 100 + part()
}

/// What must hold in a session whatever the server's defaults are.
///
/// `sql_mode`: our quoting holds, and a `GRANT` makes no user. `wait_timeout`: who rests in the pool is
/// not sent away. Metadata and rows: the ladder finds out fast that it is blocked.
fn settings(dialect: Dialect, lane: Lane) -> String {
    let wait_secs = match lane {
        Lane::Mint | Lane::Extend | Lane::Rotate => 5,
        Lane::Revoke => 1,
    };
    // MariaDB waits for its own tables however long it takes, but for a bound on the statement.
    let (mode, bound) = if dialect == Dialect::MariaDb {
        (",NO_AUTO_CREATE_USER", ", max_statement_time = 9")
    } else {
        ("", "")
    };
    format!(
        "SET SESSION sql_mode = 'STRICT_TRANS_TABLES,NO_ENGINE_SUBSTITUTION{mode}', \
         autocommit = 1, time_zone = '+00:00', lock_wait_timeout = {wait_secs}, \
         innodb_lock_wait_timeout = {wait_secs}, wait_timeout = 2592000{bound}"
    )
}

/// What ending logins takes and the connection's user does not have.
pub(crate) fn lacking(grants: &[Row]) -> Vec<&'static str> {
    let granted = |rights: &[&str]| {
        grants.iter().flatten().flatten().any(|grant| {
            let grant = grant.to_ascii_uppercase();
            let everywhere = grant.split_once(" ON *.* TO ").map(|(list, _)| list);
            let list = everywhere.and_then(|list| list.strip_prefix("GRANT ")).unwrap_or_default();
            list.split(',').any(|right| {
                let right = right.trim();
                right == "ALL PRIVILEGES" || rights.contains(&right)
            })
        })
    };
    let needs: [(&'static str, &[&str]); 3] = [
        ("CREATE USER", &["CREATE USER"]),
        ("PROCESS", &["PROCESS"]),
        ("CONNECTION ADMIN", &["CONNECTION ADMIN", "CONNECTION_ADMIN", "SUPER"]),
    ];
    let mut lacking: Vec<&'static str> =
        needs.iter().filter(|(_, any)| !granted(any)).map(|(name, _)| *name).collect();
    let reads_users = grants.iter().flatten().flatten().any(|grant| {
        let (list, place) = grant.split_once(" ON `mysql`.* TO ").unwrap_or_default();
        !place.is_empty() && (list.contains("SELECT") || list.contains("ALL PRIVILEGES"))
    });
    if !reads_users && !granted(&["SELECT"]) {
        lacking.push("SELECT");
    }
    lacking
}

/// What a user must be told who cannot end what it makes.
pub(crate) const LACKS: &str = "the connection's user needs CREATE USER, PROCESS and CONNECTION ADMIN \
     (or SUPER) on *.*, and SELECT on mysql.*: without them logins could be made that it cannot end";

/// How long a look at who is logging in lasts.
pub(crate) const AUTHENTICATING: Duration = Duration::from_millis(25);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read_whoever_made_the_server() {
        let cases = [
            ("10.11.14-MariaDB-0+deb12u2", 101_114),
            ("5.5.5-10.4.2-MariaDB-log", 100_402),
            ("8.0.36", 80_036),
            ("8.4.0-commercial", 80_400),
            ("", 0),
        ];
        for (said, version) in cases {
            assert_eq!(read_version(said), version, "{said}");
        }
    }

    #[test]
    fn rights_that_count_are_those_on_everything() {
        let row = |text: &str| vec![Some(text.to_owned())];
        let all = [row("GRANT ALL PRIVILEGES ON *.* TO `a`@`%` WITH GRANT OPTION")];
        assert!(lacking(&all).is_empty());
        let some = [
            row("GRANT PROCESS, CREATE USER ON *.* TO `a`@`%`"),
            row("GRANT ALL PRIVILEGES ON `shop`.* TO `a`@`%`"),
            row("GRANT SELECT ON `mysql`.* TO `a`@`%`"),
        ];
        assert_eq!(lacking(&some), ["CONNECTION ADMIN"]);
        let eight = [
            row("GRANT SELECT, PROCESS, CREATE USER ON *.* TO `a`@`%`"),
            row("GRANT CONNECTION_ADMIN,ROLE_ADMIN ON *.* TO `a`@`%`"),
        ];
        assert!(lacking(&eight).is_empty());
        assert_eq!(lacking(&[]).len(), 4);
    }

    #[test]
    fn a_grant_makes_no_user_on_either_kind_of_server() {
        assert!(settings(Dialect::MariaDb, Lane::Mint).contains("NO_AUTO_CREATE_USER"));
        // It is an error there, and a grant makes none anyway.
        assert!(!settings(Dialect::MySql, Lane::Mint).contains("NO_AUTO_CREATE_USER"));
    }
}
