//! What the minter needs of a database: a session that runs SQL, and a way to open one.
//!
//! To add a database: implement both, and run the minter's tests over it.

mod answer;
pub(crate) mod postgres;

use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use mssm_domain::SecretText;

use crate::mysql;
use crate::spec::{Place, Spec};

/// How long a connection may take to be made.
const CONNECT_DEADLINE: Duration = Duration::from_secs(5);

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
    /// PostgreSQL's SQLSTATE; MySQL's number, which says more than its SQLSTATE.
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

    /// True if a login was refused for its password.
    pub(crate) fn is_wrong_password(&self) -> bool {
        matches!(self.code(), "28P01" | mysql::errors::ACCESS_DENIED)
    }

    /// True if another database of a PostgreSQL server may let us in where this one does not: what is wrong is not
    /// who we are (class 28), nor that the server starts or stops.
    pub(crate) fn is_of_the_database(&self) -> bool {
        matches!(self, Self::Refused(refusal) if !refusal.code.starts_with("28") && refusal.code != "57P03")
    }

    /// True for collisions with others' work that may go well the next time.
    ///
    /// `XX000` is "tuple concurrently updated"; then deadlock and serialisation, of both kinds of server.
    pub(crate) fn is_transient(&self) -> bool {
        match self {
            Self::Refused(refusal) => match refusal.code.as_str() {
                "40P01" | "40001" | mysql::errors::DEADLOCK => true,
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
                let Refusal { severity, code, .. } = refusal;
                // MySQL's own numbers have four digits.
                let what = if code.len() == 5 { "SQLSTATE" } else { "error" };
                format!("{severity}: {message} ({what} {code})")
            }
            Self::Unreachable(why) => format!("cannot connect to the database server: {why}"),
            Self::Lost => "the database server did not answer in time".to_owned(),
            Self::Busy => "all connections to the database server are busy, try again".to_owned(),
        }
    }

    /// True if a message that repeats some of the SQL could end within a password: MySQL's do.
    fn cuts_short(&self, password: &SecretText, verifier: Option<&str>) -> bool {
        let Self::Refused(refusal) = self else { return false };
        let begins = |text: &str| text.get(..5).is_some_and(|text| refusal.message.contains(text));
        // EXPOSE: looked for in what leaves, so that it does not.
        refusal.code == mysql::errors::SYNTAX
            && (begins(password.expose()) || verifier.is_some_and(begins))
    }

    /// The same, for callers whose SQL held a password: a message that repeats it, or a verifier, does
    /// not leave.
    pub(crate) fn public_without(&self, password: &SecretText, verifier: Option<&str>) -> String {
        let text = self.public();
        // EXPOSE: looked for in what leaves, so that it does not.
        let spilt = text.contains(password.expose())
            || verifier.is_some_and(|verifier| text.contains(verifier))
            || text.contains("SCRAM-SHA-256$")
            || self.cuts_short(password, verifier);
        if !spilt {
            return text;
        }
        let code = self.code();
        format!("the database refused it with a message that holds the password (SQLSTATE {code})")
    }
}

/// An open session.
pub trait Session: Send + Sync {
    /// Runs SQL text as one transaction: all of it happens, or nothing. MySQL's sessions take one
    /// statement at a time, since nothing undoes a change of users there.
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

/// Opens sessions on real servers.
pub(crate) struct Servers;

impl Dialer for Servers {
    fn dial<'a>(
        &'a self,
        spec: &'a Spec,
        database: Option<&'a str>,
    ) -> BoxFuture<'a, Result<Box<dyn Session>, DbError>> {
        let work = async move {
            let late = |_| DbError::Unreachable("no answer in time".to_owned());
            tokio::time::timeout(CONNECT_DEADLINE, dial_any(spec, database)).await.map_err(late)?
        };
        work.boxed()
    }
}

/// Tries one password after the other, as long as it is the password that is refused.
async fn dial_any(spec: &Spec, database: Option<&str>) -> Result<Box<dyn Session>, DbError> {
    let mut tried = dial(&spec.place, database).await;
    for other in &spec.others {
        match &tried {
            Err(error) if error.is_wrong_password() => {}
            _ => break,
        }
        tried = dial(&spec.place.with_password(other), database).await;
    }
    tried
}

async fn dial(place: &Place, database: Option<&str>) -> Result<Box<dyn Session>, DbError> {
    match place {
        Place::Postgres(place) => postgres::dial(place, database).await,
        Place::MySql(place) => mysql::session::dial(place, database).await,
    }
}
