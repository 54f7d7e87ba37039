//! Whether a password that was handed out still is the login's, where the server keeps a hash that we
//! can make.

use mssm_domain::{SecretText, same_in_constant_time};

use super::password::verifier;
use super::quote::literal;
use crate::dialect::Dialect;
use crate::engine::DbError;
use crate::pool::Live;

/// False if the login is gone, may not log in, or has another password.
pub(crate) async fn holds(
    live: &Live,
    username: &str,
    password: &SecretText,
) -> Result<bool, DbError> {
    let (columns, table) = if live.facts.dialect == Dialect::MariaDb {
        (
            "JSON_VALUE(Priv, '$.authentication_string'), JSON_VALUE(Priv, '$.account_locked')",
            "mysql.global_priv",
        )
    } else {
        ("authentication_string, account_locked", "mysql.user")
    };
    let sql = format!("SELECT {columns} FROM {table} WHERE User = {}", literal(username));
    let rows = live.run(&sql).await?;
    let known = verifier(password);
    let holds = |row: &Vec<Option<String>>| {
        let field = |index: usize| row.get(index).cloned().flatten().unwrap_or_default();
        let (hash, locked) = (field(0), field(1));
        // Of other plugins' hashes nothing is known.
        let same = !hash.starts_with('*') || same_in_constant_time(hash, &known);
        same && !matches!(locked.as_str(), "1" | "true" | "Y")
    };
    Ok(!rows.is_empty() && rows.iter().all(holds))
}
