//! Cancels statements of our own logins that hold up a change of users.
//!
//! Whoever may read everything may read the tables of users too, and on MariaDB nobody writes to them for as
//! long as such a statement lasts. So one login could keep all others from being ended.

use super::errors::NO_SUCH_SESSION;
use super::facts::OWN_USER;
use super::marker::genuine;
use crate::book::Book;
use crate::dialect::Dialect;
use crate::pool::Live;

/// A table that is waited for so much longer than anything takes there is held up.
const PATIENCE_MS: u32 = 500;

/// Cancels what has been running for longer than a session of ours has been waiting for a table. Which
/// of them it waits for the server does not say; the logins and their sessions stay.
pub(super) async fn cancel(book: &Book, live: &Live) -> Result<(), String> {
    if live.facts.dialect != Dialect::MariaDb {
        return Ok(());
    }
    let sql = format!(
        "SELECT p.ID, p.USER FROM information_schema.PROCESSLIST p \
         JOIN (SELECT MAX(TIME_MS) waited FROM information_schema.PROCESSLIST \
         WHERE USER = {OWN_USER} AND STATE = 'Waiting for table level lock') w \
         ON w.waited > {PATIENCE_MS} AND p.TIME_MS > w.waited \
         WHERE p.USER LIKE 'v-%' AND p.COMMAND <> 'Sleep'"
    );
    let rows = live.run(&sql).await.map_err(|error| error.public())?;
    let running: Vec<(String, String)> = rows
        .into_iter()
        .filter_map(|row| {
            let mut fields = row.into_iter().flatten();
            Some((fields.next()?, fields.next()?))
        })
        .collect();
    let cluster = book.cluster().map_err(|error| error.to_string())?;
    let ours = genuine(book.barrier.keys(), cluster, running.iter().map(|(_, user)| user.as_str()));
    let ours = ours.await.map_err(|_| "the server is sealed".to_owned())?;
    for (id, _) in running.iter().filter(|(_, user)| ours.contains(user.as_str())) {
        match live.run(&format!("KILL QUERY {id}")).await {
            Ok(_) => tracing::warn!(
                "a statement of a login that held up the end of others was cancelled"
            ),
            Err(error) if error.code() == NO_SUCH_SESSION => {}
            Err(error) => return Err(error.public()),
        }
    }
    Ok(())
}
