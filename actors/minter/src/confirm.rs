//! Whether what was handed out still logs in: its user may have changed the password.

use std::rc::Rc;

use mssm_messages::engine::{Confirm, EngineError};
use mssm_messages::failpoint;

use crate::book::{Book, damaged};
use crate::mint::find_target;
use crate::mysql;
use crate::quote::literal;
use crate::record::{CredentialRecord, decode};

/// See [`Confirm`].
pub(crate) async fn confirm(book: &Rc<Book>, msg: Confirm) -> Result<bool, EngineError> {
    let credential: CredentialRecord = decode(&msg.data).map_err(damaged)?;
    let password = msg.secret.into_iter().find(|(name, _)| *name == "password");
    let Some((_, password)) = password else { return Ok(true) };
    let target = find_target(book, credential.mount, &credential.connection_name).await?;
    let unavailable = |error: crate::DbError| EngineError::Unavailable(error.public());
    let session = target.mint.lend().await.map_err(unavailable)?;
    if !target.record.is_postgres() {
        let holds = mysql::confirm::holds(&session, &credential.username, &password).await;
        return holds.map_err(unavailable);
    }
    let sql = format!(
        "SELECT rolcanlogin, rolpassword FROM pg_authid WHERE rolname = {}",
        literal(&credential.username)
    );
    failpoint::here("confirm.before_look");
    let rows = session.run(&sql).await;
    failpoint::here("confirm.after_look");
    let rows = match rows {
        Ok(rows) => rows,
        // Only superusers may read it; then nobody can tell.
        Err(error) if error.code() == "42501" => return Ok(true),
        Err(error) => return Err(unavailable(error)),
    };
    let Some(row) = rows.into_iter().next() else { return Ok(false) };
    let mut fields = row.into_iter();
    let may_log_in = fields.next().flatten().as_deref() == Some("t");
    let Some(verifier) = fields.next().flatten().filter(|_| may_log_in) else { return Ok(false) };
    let work = move || mssm_crypto::scram::matches(&password, &verifier);
    let matches = tokio::task::spawn_blocking(work).await.map_err(|_| EngineError::Internal)?;
    // Another kind of verifier than ours: the database made it of the password that it was sent.
    Ok(matches.unwrap_or(true))
}
