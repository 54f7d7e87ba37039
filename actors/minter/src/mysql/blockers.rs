//! Cancels statements of our own logins that hold up a change of users.
//!
//! Whoever may read everything may read the tables of users too, and on MariaDB nobody writes to them for as
//! long as such a statement lasts. So one login could keep all others from being ended.

use super::errors::NO_SUCH_SESSION;
use super::facts::OWN_USER;
use super::marker::genuine;
use super::quote::literal;
use crate::book::Book;
use crate::dialect::Dialect;
use crate::pool::Live;

/// A table that is waited for so much longer than anything takes there is held up.
const PATIENCE_MS: u32 = 500;
/// If it still is then, somebody begins anew as fast as we cancel: `HIGH_PRIORITY` passes who waits to write.
const PATIENCE_WITH_ALL_MS: u32 = 2_000;

/// Cancels what has been running for longer than a session of ours has been waiting for a table, and in
/// the end ends every login's sessions of which one runs anything: then it is true. Which of them it waits
/// for the server does not say.
pub(super) async fn cancel(book: &Book, live: &Live) -> Result<bool, String> {
    let mut with_all = false;
    if live.facts.dialect != Dialect::MariaDb {
        return Ok(with_all);
    }
    let sql = format!(
        "SELECT DISTINCT p.USER, IF(w.waited > {PATIENCE_WITH_ALL_MS}, CONCAT('CONNECTION USER ', \
         QUOTE(p.USER)), CONCAT('QUERY ', p.ID)) \
         FROM information_schema.PROCESSLIST p \
         JOIN (SELECT MAX(TIME_MS) waited FROM information_schema.PROCESSLIST \
         WHERE USER = {OWN_USER} AND STATE = 'Waiting for table level lock') w \
         ON w.waited > {PATIENCE_MS} AND (p.TIME_MS > w.waited OR w.waited > {PATIENCE_WITH_ALL_MS}) \
         WHERE p.USER LIKE 'v-%' AND p.COMMAND <> 'Sleep'"
    );
    let rows = live.run(&sql).await.map_err(|error| error.public())?;
    let running: Vec<[String; 2]> = rows
        .into_iter()
        .filter_map(|row| row.into_iter().flatten().collect::<Vec<_>>().try_into().ok())
        .collect();
    let cluster = book.cluster().map_err(|error| error.to_string())?;
    let ours = genuine(book.barrier.keys(), cluster, running.iter().map(|[user, _]| user.as_str()));
    let ours = ours.await.map_err(|_| "the server is sealed".to_owned())?;
    for [user, what] in running.iter().filter(|[user, _]| ours.contains(user.as_str())) {
        kill(live, what).await?;
        tracing::debug!(user, "a login that holds up the end of others was interrupted");
        with_all |= what.starts_with("CONNECTION");
    }
    Ok(with_all)
}

/// Ends the sessions of each of some logins at once, where the server can: one after the other, the first
/// would be back before the last is gone.
pub(super) async fn end_at_once(
    live: &Live,
    logins: impl Iterator<Item = &str>,
) -> Result<(), String> {
    if live.facts.dialect == Dialect::MariaDb {
        for login in logins {
            kill(live, &format!("CONNECTION USER {}", literal(login))).await?;
        }
    }
    Ok(())
}

async fn kill(live: &Live, what: &str) -> Result<(), String> {
    match live.run(&format!("KILL {what}")).await {
        Ok(_) => Ok(()),
        Err(error) if error.code() == NO_SUCH_SESSION => Ok(()),
        Err(error) => Err(error.public()),
    }
}
