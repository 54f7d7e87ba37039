//! What who has the lock calls itself: proof that a server of this cluster does.
//!
//! `mssm:guard:<boot, 16 digits>:<time, 8>:<MAC, 26>`: PostgreSQL shows 63 bytes of a session's name, to
//! everybody and of any user's. The MAC's key is in every copy of a store and nowhere else. It covers who is
//! logged in, so that nobody can read a badge and wear it, and the time, so that a silent server is known.

use std::time::Duration;

use mssm_domain::{BootId, ClusterId, same_in_constant_time};

use super::sealed;
use crate::book::Book;
use crate::engine::{DbError, Row};
use crate::marker::{fingerprints, prefix};
use crate::mint::grant_to_us;
use crate::pool::Live;
use crate::quote::{identifier, literal};
use crate::spec::{cluster_prefix, run_prefix};

const BEGINNING: &str = "mssm:guard:";
const BOOT_CHARS: usize = 16;
/// 104 bits.
const MAC_CHARS: usize = 26;
/// Who has not said anything for so many seconds holds nobody back.
const SILENT: u64 = 60;
/// How often we look whether a session that was told to end has, and the pause between: about 2 s in all.
const LOOKS: u32 = 100;
const PAUSE: Duration = Duration::from_millis(20);
/// "insufficient privilege".
const NO_RIGHT: &str = "42501";
/// What who has the lock says; all that earlier versions say.
pub(super) const BEATING: &str = "SELECT 'mssm guard'";

/// What a session's name claims.
#[derive(Debug, PartialEq, Eq)]
struct Badge<'a> {
    boot: &'a str,
    time: u64,
    mac: &'a str,
}

impl<'a> Badge<'a> {
    fn parse(name: &'a str) -> Option<Self> {
        let mut parts = name.strip_prefix(BEGINNING)?.split(':');
        let (boot, time, mac) = (parts.next()?, parts.next()?, parts.next()?);
        let time = u64::from_str_radix(time, 16).ok()?;
        (boot.len() == BOOT_CHARS && mac.len() == MAC_CHARS).then_some(Self { boot, time, mac })
    }
}

fn short(boot: BootId) -> String {
    boot.uuid().simple().to_string().chars().take(BOOT_CHARS).collect()
}

fn claim(cluster: ClusterId, boot: &str, user: &str, time: u64) -> String {
    format!("guard1\0{cluster}\0{boot}\0{user}\0{time}")
}

async fn macs(book: &Book, claims: Vec<String>) -> Result<Vec<String>, DbError> {
    let made = fingerprints(book.barrier.keys(), claims).await.map_err(sealed)?;
    Ok(made.iter().map(|mac| mac.chars().take(MAC_CHARS).collect()).collect())
}

/// Puts on the badge of this moment.
pub(super) async fn wear(book: &Book, cluster: ClusterId, live: &Live) -> Result<(), DbError> {
    const WHO: &str = "SELECT usesysid, extract(epoch FROM clock_timestamp())::bigint \
         FROM pg_stat_activity WHERE pid = pg_backend_pid()";
    let rows = live.run(WHO).await?;
    let said = |index: usize| rows.first().and_then(|row| row.get(index)?.as_deref());
    let (user, time) = (said(0).unwrap_or_default(), said(1).and_then(|time| time.parse().ok()));
    let (time, boot) = (time.unwrap_or_default(), short(book.boot));
    let mac = macs(book, vec![claim(cluster, &boot, user, time)]).await?.pop().unwrap_or_default();
    let name = format!("{BEGINNING}{boot}:{time:08x}:{mac}");
    live.run(&format!("SET application_name = {}", literal(&name))).await?;
    Ok(())
}

/// A session that has the lock in some database of the server.
pub(super) struct Holder {
    /// True if it is the database that was asked.
    pub(super) here: bool,
    /// True if it is ours.
    pub(super) ours: bool,
    /// What an operator may know of it, if it is another server's.
    pub(super) others: Option<String>,
}

/// Who has the lock, in any database of the server; we may be among them.
///
/// Anybody who may connect can take it, a login that is to be ended among them: so only a badge is
/// believed, and, for servers of earlier versions, what somebody says as our own user.
pub(super) async fn holders(
    book: &Book,
    cluster: ClusterId,
    live: &Live,
    key: i64,
) -> Result<Vec<Holder>, DbError> {
    let (all, own) = (cluster_prefix(cluster), run_prefix(cluster, book.boot));
    let sql = format!(
        "SELECT d.datname = current_database(), a.usename = session_user AND starts_with(a.application_name, {}) \
         AND NOT starts_with(a.application_name, {}) AND a.query = {} \
         AND a.query_start > clock_timestamp() - interval '{SILENT} s', a.usesysid, \
         extract(epoch FROM clock_timestamp())::bigint, a.application_name, \
         'logged in as \"' || a.usename || '\" to \"' || d.datname || '\", process ' || a.pid \
         FROM {} AND l.granted AND l.mode = 'ExclusiveLock'",
        literal(&all),
        literal(&own),
        literal(BEATING),
        sessions(key)
    );
    let rows = live.run(&sql).await?;
    let text = |row: &Row, index: usize| row.get(index).cloned().flatten().unwrap_or_default();
    let claims = rows.iter().map(|row| {
        let (user, name) = (text(row, 2), text(row, 4));
        let badge = Badge::parse(&name);
        badge.map_or(String::new(), |badge| claim(cluster, badge.boot, &user, badge.time))
    });
    let genuine = macs(book, claims.collect()).await?;
    let ours = short(book.boot);
    let holder = |(row, mac): (&Row, &String)| {
        let name = text(row, 4);
        let badge = Badge::parse(&name).filter(|badge| same_in_constant_time(badge.mac, mac));
        let now: u64 = text(row, 3).parse().unwrap_or(0);
        let lives = |badge: &Badge| badge.boot != ours && now.abs_diff(badge.time) <= SILENT;
        let others = text(row, 1) == "t" || badge.as_ref().is_some_and(lives);
        Holder {
            here: text(row, 0) == "t",
            ours: badge.is_some_and(|badge| badge.boot == ours),
            others: others.then(|| text(row, 5)),
        }
    };
    Ok(rows.iter().zip(&genuine).map(holder).collect())
}

/// Sessions that have the lock in some mode, or wait for it.
fn sessions(key: i64) -> String {
    format!(
        "pg_locks l JOIN pg_stat_activity a ON a.pid = l.pid JOIN pg_database d ON d.oid = l.database \
         WHERE l.locktype = 'advisory' AND l.objsubid = 1 \
         AND ((l.classid::bigint << 32) | l.objid::bigint) = {key}"
    )
}

/// Logins of ours have no business with the lock: who has it, or waits for it, loses the session.
pub(super) fn waiting(key: i64) -> String {
    format!("{} AND d.datname = current_database()", sessions(key))
}

/// Ends sessions `a` of our logins, once other statements are done.
pub(super) async fn end_logins(cluster: ClusterId, live: &Live, first: &str, which: &str) {
    let ours = format!(
        "FROM {which} AND starts_with(shobj_description(a.usesysid, 'pg_authid'), {})",
        literal(&prefix(cluster))
    );
    let end = format!("SELECT pg_terminate_backend(a.pid) {ours}");
    let mut sql = format!("{first}{end}");
    for look in 0..LOOKS {
        let ended = match live.run(&sql).await {
            // A login may have taken our membership back.
            Err(error) if error.code() == NO_RIGHT => end_singly(live, &ours).await,
            ended => ended.map(|ended| ended.len()),
        };
        match ended {
            Ok(0) => return,
            Ok(count) if look == 0 => {
                tracing::warn!(count, "logins that took too much of the server's locks are ended");
            }
            Ok(_) => {}
            Err(error) => {
                let why = error.public();
                tracing::warn!(why, "a login that took the server's locks could not be ended");
                return;
            }
        }
        sql.clone_from(&end);
        tokio::time::sleep(PAUSE).await;
    }
}

async fn end_singly(live: &Live, ours: &str) -> Result<usize, DbError> {
    let found = live.run(&format!("SELECT a.pid, a.usename {ours}")).await?;
    for row in &found {
        let [Some(pid), Some(name)] = row.as_slice() else { continue };
        let again = grant_to_us(&identifier(name), &live.facts);
        let end = format!("{again}SELECT pg_terminate_backend({}::int)", literal(pid));
        live.run(&end).await?;
    }
    Ok(found.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_badge_fits_and_what_is_none_is_not_read_as_one() {
        let (boot, mac) = ("b".repeat(BOOT_CHARS), "c".repeat(MAC_CHARS));
        let name = format!("{BEGINNING}{boot}:{:08x}:{mac}", u32::MAX);
        assert_eq!(name.len(), 63);
        let badge = Badge { boot: &boot, time: u64::from(u32::MAX), mac: &mac };
        assert_eq!(Badge::parse(&name), Some(badge));
        for text in ["", "mssm:guard:", "mssm:guard:b:1:c", &name[1..], &name[..62]] {
            assert_eq!(Badge::parse(text), None, "{text}");
        }
    }
}
