//! Asks for the logins that a comparison with the leases is about; their names are their markers.

use super::marker::HALF;
use super::quote::{literal, literals};
use crate::engine::Row;
use crate::mysql::facts::{LACKS, who};
use crate::pool::Live;

/// Names that may be ours, in order, behind one.
pub(crate) fn page(after: &str, most: usize) -> String {
    let after = literal(after);
    format!(
        "SELECT DISTINCT User FROM mysql.user WHERE User LIKE 'v-%' AND User > {after} \
         ORDER BY User LIMIT {most}"
    )
}

/// Names whose half that says the lease is one of these.
pub(crate) fn again(halves: &[String]) -> String {
    let halves = literals(halves.iter().map(String::as_str));
    let whole = 2 * HALF;
    format!(
        "SELECT DISTINCT User FROM mysql.user WHERE User LIKE 'v-%' \
         AND SUBSTRING(User, -{whole}, {HALF}) IN ({halves})"
    )
}

/// Those of some names that are there, and nothing else: users have no number.
pub(crate) fn there<'a>(names: impl IntoIterator<Item = &'a str>) -> String {
    let names = literals(names);
    format!("SELECT DISTINCT User, '' FROM mysql.user WHERE User IN ({names})")
}

/// Only the word of a server that leads counts, and only if it shows us all there is.
pub(crate) async fn check_place(session: &Live) -> Result<(), String> {
    if !session.facts.superuser {
        return Err(LACKS.to_owned());
    }
    let rows: Vec<Row> = session.run(&who()).await.map_err(|error| error.public())?;
    match rows.first().and_then(|row| row.get(1)?.as_deref()) {
        Some("f") => Ok(()),
        _ => Err("the connection leads to a server that only follows (read_only)".to_owned()),
    }
}
