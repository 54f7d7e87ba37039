//! Cancels statements of our own logins that hold up a change of users.
//!
//! Whoever may read everything may read the tables of users too, and on MariaDB nobody writes to them for as
//! long as such a statement lasts. So one login could keep all others from being ended.

use super::errors::NO_SUCH_SESSION;
use super::marker::genuine;
use crate::book::Book;
use crate::dialect::Dialect;
use crate::pool::Live;

/// Cancels what has been running for longer than one of our sessions has been waiting for a table. Which
/// of them it waits for the server does not say; the logins and their sessions stay.
pub(super) async fn cancel(book: &Book, helper: &Live, waiting: &Live) -> Result<(), String> {
    if waiting.facts.dialect != Dialect::MariaDb {
        return Ok(());
    }
    let sql = format!(
        "SELECT p.ID, p.USER FROM information_schema.PROCESSLIST p \
         JOIN information_schema.PROCESSLIST w ON w.ID = {} AND w.STATE = 'Waiting for table level lock' \
         WHERE p.USER LIKE 'v-%' AND p.COMMAND <> 'Sleep' AND p.TIME_MS > w.TIME_MS",
        waiting.facts.backend.pid
    );
    let rows = helper.run(&sql).await.map_err(|error| error.public())?;
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
        match helper.run(&format!("KILL QUERY {id}")).await {
            Ok(_) => tracing::warn!(
                "a statement of a login that held up the end of others was cancelled"
            ),
            Err(error) if error.code() == NO_SUCH_SESSION => {}
            Err(error) => return Err(error.public()),
        }
    }
    Ok(())
}
