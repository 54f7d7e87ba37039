//! Passwords of users that stay: what they are changed by, and whose they may be.

use mssm_messages::engine::EngineError;

use super::mint::is_minted;
use super::quote::{literal, literals};
use crate::engine::DbError;
use crate::pool::Live;

/// How a user's password is changed, wherever the user may come from; `None` where that is
/// PostgreSQL's way.
///
/// Also of our own user: MariaDB does nothing on `ALTER USER CURRENT_USER()`, and says that it did.
pub(crate) async fn default(live: &Live, username: &str) -> Result<Option<String>, DbError> {
    if live.facts.dialect.is_postgres() {
        return Ok(None);
    }
    let sql = format!("SELECT Host FROM mysql.user WHERE User = {}", literal(username));
    let hosts = live.run(&sql).await?;
    let accounts =
        hosts.iter().flatten().flatten().map(|host| {
            format!("'{{{{name}}}}'@{} IDENTIFIED BY '{{{{password}}}}'", literal(host))
        });
    let accounts = accounts.collect::<Vec<_>>().join(", ");
    // Of nobody: refused by the server, in its own words.
    let nobody = || "'{{name}}'@'%' IDENTIFIED BY '{{password}}'".to_owned();
    let accounts = if accounts.is_empty() { nobody() } else { accounts };
    Ok(Some(format!("ALTER USER {accounts}")))
}

/// What only the server can say of a static role's users.
pub(crate) async fn check_users<'a>(
    live: &Live,
    names: impl Iterator<Item = &'a str> + Clone,
) -> Result<Vec<String>, EngineError> {
    let sql = format!("SELECT User FROM mysql.user WHERE User IN ({})", literals(names.clone()));
    let rows = live.run(&sql).await;
    let rows = rows.map_err(|error| EngineError::Unavailable(error.public()))?;
    for name in names {
        if is_minted(name) {
            return Err(EngineError::Invalid(format!(
                "\"{name}\" is named as a login that was made for a lease, and would end with it"
            )));
        }
        if !rows.iter().flatten().flatten().any(|user| user == name) {
            return Err(EngineError::Invalid(format!("the database has no user \"{name}\"")));
        }
    }
    Ok(Vec::new())
}
