//! What a run asks of a model database, whichever kind it is.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use mssm_minter::{DbError, Dialer, Refusal, Row};
use mssm_storage::MemoryStorage;
use tokio::time::Instant;

use crate::mysql::MySql;
use crate::postgres::Postgres;
use crate::weather::Weather;

/// Which database.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Postgres,
    MySql,
}

impl Kind {
    pub(crate) fn model(
        self,
        weather: &Arc<Weather>,
        records: &Arc<MemoryStorage>,
    ) -> Arc<dyn Model> {
        match self {
            Self::Postgres => Arc::new(Postgres::new(weather, records)),
            Self::MySql => Arc::new(MySql::new(weather, records)),
        }
    }
}

/// How an operator defines it.
pub(crate) struct Definition {
    pub(crate) plugin: &'static str,
    pub(crate) url: &'static str,
    pub(crate) creation: &'static [&'static str],
}

/// A model of a database server.
pub(crate) trait Model: Send + Sync {
    fn definition(&self) -> Definition;

    /// How one run of the server reaches it, until that run is dead.
    fn way(&self, boot: u64, dead: &Arc<AtomicBool>) -> Arc<dyn Dialer>;

    /// An immediate stop, or a start.
    fn set_up(&self, up: bool);

    /// A run of the server died: its idle sessions end, what it sent last goes on to its end.
    fn hang_up(&self, boot: u64);

    /// A login opens a session that nobody closes; false if it is refused.
    fn log_in(&self, user: &str) -> bool;

    fn logins(&self) -> BTreeSet<String>;

    fn can_log_in(&self, user: &str) -> bool;

    /// Sessions whose login is gone or may not log in any more.
    fn stray_sessions(&self) -> usize;

    /// When a login was first kept out.
    fn barred_at(&self, user: &str) -> Option<Instant>;

    /// What was seen that must never be.
    fn violations(&self) -> Vec<String>;
}

/// A refusal.
pub(crate) fn no(code: &str) -> DbError {
    let (severity, message) = ("ERROR".to_owned(), "the model says no".to_owned());
    DbError::Refused(Refusal { code: code.to_owned(), severity, message, done: 0, position: None })
}

/// What stands between `open` and `close` for the first time.
pub(crate) fn between<'a>(text: &'a str, open: &str, close: &str) -> Option<&'a str> {
    text.split_once(open)?.1.split_once(close).map(|(inside, _)| inside)
}

/// The items of a list.
pub(crate) fn listed(list: &str, quote: char) -> Vec<String> {
    list.split(',').map(|item| item.trim().trim_matches(quote).to_owned()).collect()
}

/// A row of an answer.
pub(crate) fn row(fields: &[&str]) -> Row {
    fields.iter().map(|field| Some((*field).to_owned())).collect()
}
