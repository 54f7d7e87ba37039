//! Ends sessions of logins that are gone: who was half logged in while its login was dropped may show
//! itself only later, and a session outlives its account.

use std::collections::BTreeSet;

use super::blockers::cancel;
use super::locks::end;
use super::marker::genuine;
use super::quote::literals;
use super::survey::there;
use crate::book::{Book, Target};

/// See [`crate::ladder::sweep`]: nothing need be remembered, since the names say whose they are.
pub(crate) async fn sweep(book: &Book, target: &Target) -> Result<usize, String> {
    const LOGINS: &str = "SELECT DISTINCT USER FROM information_schema.PROCESSLIST \
         WHERE USER LIKE 'v-%' AND ID <> CONNECTION_ID()";
    let session = target.revoke.lend().await.map_err(|error| error.public())?;
    cancel(book, &session).await?;
    let names = session.run(LOGINS).await.map_err(|error| error.public())?;
    let names: Vec<String> = names.into_iter().flatten().flatten().collect();
    let cluster = book.cluster().map_err(|error| error.to_string())?;
    let ours = genuine(book.barrier.keys(), cluster, names.iter().map(String::as_str)).await;
    let mut gone: BTreeSet<&str> =
        ours.map_err(|_| "the server is sealed".to_owned())?.into_iter().collect();
    if gone.is_empty() {
        return Ok(0);
    }
    let accounts = session.run(&there(gone.iter().copied())).await;
    for row in accounts.map_err(|error| error.public())? {
        if let Some(Some(name)) = row.first() {
            gone.remove(name.as_str());
        }
    }
    if gone.is_empty() {
        return Ok(0);
    }
    let count = gone.len();
    let names = literals(gone);
    let sessions = format!(
        "SELECT ID FROM information_schema.PROCESSLIST \
         WHERE USER IN ({names}) AND ID <> CONNECTION_ID()"
    );
    end(&session, &sessions).await.map(|()| count)
}
