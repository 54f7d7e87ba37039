//! Replication slots that a rehearsal made: they know no transaction, so no rollback removes them.

use std::collections::BTreeSet;

use crate::pool::Live;
use crate::quote::literal;

/// The slots that there are, if the statements may make some.
pub(super) async fn before(session: &Live, statements: &[String]) -> Option<BTreeSet<String>> {
    let names = |text: &String| text.to_ascii_lowercase().contains("replication_slot");
    if statements.iter().any(names) { find(session, "").await } else { None }
}

/// Drops those that have come since; what cannot be dropped is told in the log.
pub(super) async fn take_away(session: &Live, before: Option<BTreeSet<String>>) {
    let Some(before) = before else { return };
    // What was refused half-way is still open.
    let Some(after) = find(session, "ROLLBACK;\n").await else { return };
    for slot in after.difference(&before) {
        let drop = format!("SELECT pg_drop_replication_slot({})", literal(slot));
        if let Err(error) = session.run(&drop).await {
            let why = error.public();
            tracing::warn!(
                slot,
                why,
                "a replication slot that a role on trial made stays: drop it"
            );
        }
    }
}

async fn find(session: &Live, first: &str) -> Option<BTreeSet<String>> {
    let sql = format!("{first}SELECT slot_name FROM pg_replication_slots WHERE NOT active");
    let rows = session.run(&sql).await.ok()?;
    Some(rows.into_iter().flatten().flatten().collect())
}
