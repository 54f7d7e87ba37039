//! What the minter needs of a database: a session that runs SQL, and a way to open one.
//!
//! To add a database: implement both, and run the minter's tests over it.

pub(crate) mod postgres;

use futures_util::future::BoxFuture;
use mssm_domain::SecretText;

use crate::spec::Spec;

/// SQLSTATE of a login that was refused for its password.
pub(crate) const WRONG_PASSWORD: &str = "28P01";

/// One row of an answer, as text; `None` is NULL.
pub type Row = Vec<Option<String>>;

/// Why SQL did not do what it says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DbError {
    /// The database said no and undid all of it.
    Refused(Refusal),
    /// No connection could be made; nothing was sent. Says why, without an address.
    Unreachable(String),
    /// The connection ended, or no answer came in time: what became of the SQL is unknown.
    Lost,
    /// All connections are busy; nothing was sent.
    Busy,
}

/// The database's own word.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// SQLSTATE.
    pub code: String,
    /// `ERROR` or `FATAL`.
    pub severity: String,
    /// Its text.
    pub message: String,
    /// How many statements were done before the one that failed (and undone with it).
    pub done: usize,
    /// Where in the text, in characters from 1, if it says so.
    pub position: Option<u32>,
}

impl DbError {
    /// The SQLSTATE, if the database said no.
    pub(crate) fn code(&self) -> &str {
        match self {
            Self::Refused(refusal) => &refusal.code,
            Self::Unreachable(_) | Self::Lost | Self::Busy => "",
        }
    }

    /// True for collisions with others' work that may go well the next time.
    ///
    /// `XX000` is "tuple concurrently updated"; then deadlock and serialisation.
    pub(crate) fn is_transient(&self) -> bool {
        match self {
            Self::Refused(refusal) => match refusal.code.as_str() {
                "40P01" | "40001" => true,
                "XX000" => refusal.message.contains("concurrently"),
                _ => false,
            },
            Self::Unreachable(_) | Self::Lost | Self::Busy => false,
        }
    }

    /// For callers: the database's message, or what happened to the connection.
    pub(crate) fn public(&self) -> String {
        match self {
            Self::Refused(refusal) => {
                // The message of this one names the address that we come from.
                let message = if refusal.message.contains("pg_hba.conf") {
                    "the server's pg_hba.conf does not let this connection in"
                } else {
                    &refusal.message
                };
                format!("{}: {message} (SQLSTATE {})", refusal.severity, refusal.code)
            }
            Self::Unreachable(why) => format!("cannot connect to the database server: {why}"),
            Self::Lost => "the database server did not answer in time".to_owned(),
            Self::Busy => "all connections to the database server are busy, try again".to_owned(),
        }
    }

    /// The same, for callers whose SQL held a password: a message that repeats it, or a verifier, does
    /// not leave.
    pub(crate) fn public_without(&self, password: &SecretText, verifier: Option<&str>) -> String {
        let text = self.public();
        // EXPOSE: looked for in what leaves, so that it does not.
        let spilt = text.contains(password.expose())
            || verifier.is_some_and(|verifier| text.contains(verifier))
            || text.contains("SCRAM-SHA-256$");
        if !spilt {
            return text;
        }
        let code = self.code();
        format!("the database refused it with a message that holds the password (SQLSTATE {code})")
    }
}

/// An open session.
pub trait Session: Send + Sync {
    /// Runs SQL text as one transaction: all of it happens, or nothing.
    ///
    /// Has a deadline of its own; a session that passed it is not usable any more.
    fn run<'a>(&'a self, sql: &'a str) -> BoxFuture<'a, Result<Vec<Row>, DbError>>;

    /// False once the connection is known to be gone.
    fn is_usable(&self) -> bool;
}

/// Opens sessions.
pub trait Dialer: Send + Sync {
    /// Opens one, in another database than the definition's own if one is named.
    fn dial<'a>(
        &'a self,
        spec: &'a Spec,
        database: Option<&'a str>,
    ) -> BoxFuture<'a, Result<Box<dyn Session>, DbError>>;
}
