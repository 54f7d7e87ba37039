//! Bounded lanes of sessions to one database, and what each session knows of its server.

use std::sync::Arc;
use std::time::Duration;

use deadpool::Runtime;
use deadpool::managed::{
    Manager, Metrics, Object, Pool, PoolError, QueueMode, RecycleError, RecycleResult, TimeoutType,
};
use mssm_domain::{Clock, SecretText, Timestamp};
use tokio::time::Instant;

use crate::dialect::Dialect;
use crate::engine::{DbError, Dialer, Row, Session};
use crate::mysql;
use crate::spec::{Lane, Place, Spec};

/// How long a caller waits for a free session, or for a new one to open.
const WAIT: Duration = Duration::from_secs(5);
/// By way of which databases logins are ended where the connection's own lets nobody in.
pub(crate) const DETOURS: [&str; 2] = ["postgres", "template1"];
/// How old a look at the database's clock may be.
const CLOCK_AGE: Duration = Duration::from_mins(1);
/// Clocks that differ by more are worth a word to the operator.
const SKEW_WORTH_MENTIONING_MS: i64 = 5_000;
/// Where they differ by more one of them is wrong, and no login is made: the database's own end of
/// it, by either clock, could be far from its lease's.
const SKEW_MAX_MS: i64 = 60_000;

/// A backend of the database, named so that another with the same number is not meant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Backend {
    pub(crate) pid: String,
    pub(crate) started: String,
}

/// What a session knows of its server.
#[derive(Clone, Debug)]
pub(crate) struct Facts {
    /// Whose SQL it speaks.
    pub(crate) dialect: Dialect,
    /// As `150018` for PostgreSQL 15.18, `101114` for MariaDB 10.11.14, `80036` for MySQL 8.0.36.
    pub(crate) version: u32,
    /// True if nothing is forbidden to us; for MySQL, if nothing is that ending logins takes.
    pub(crate) superuser: bool,
    pub(crate) database: String,
    pub(crate) backend: Backend,
    /// Which server, if we may know.
    pub(crate) system_identifier: Option<String>,
    /// How far the database's clock is ahead of ours.
    pub(crate) skew_ms: i64,
    pub(crate) looked: Instant,
}

impl Facts {
    /// True if this is another server than the one that was known.
    ///
    /// MySQL's ids are of a server and not of its data: after a failover it is another, and the logins
    /// are there all the same.
    pub(crate) fn contradict(&self, known: Option<&str>) -> bool {
        let both = known.zip(self.system_identifier.as_deref());
        self.dialect.is_postgres() && both.is_some_and(|(known, seen)| known != seen)
    }

    /// Why no login is made, if the clocks differ too much.
    pub(crate) fn wrong_clock(&self) -> Option<String> {
        let secs = self.skew_ms / 1000;
        (self.skew_ms.abs() > SKEW_MAX_MS).then(|| {
            format!("the database's clock differs from this server's by {secs} s: no login is made until they agree")
        })
    }

    /// What the database's clock will show when ours shows `at`.
    pub(crate) fn on_their_clock(&self, at: Timestamp) -> Timestamp {
        Timestamp::from_unix_ms(at.unix_ms().saturating_add_signed(self.skew_ms))
    }
}

/// A session and what it knows.
pub(crate) struct Live {
    session: Box<dyn Session>,
    pub(crate) facts: Facts,
    /// True if the connection's own database lets nobody in, and this is another of its server.
    pub(crate) detour: bool,
}

impl Live {
    /// Opens a session and asks what there is to know.
    pub(crate) async fn open(
        dialer: &dyn Dialer,
        spec: &Spec,
        database: Option<&str>,
        clock: &dyn Clock,
    ) -> Result<Self, DbError> {
        let session = dialer.dial(spec, database).await?;
        let mut facts = match &spec.place {
            Place::Postgres(_) => Self::ask(session.as_ref()).await?,
            Place::MySql(place) => {
                mysql::facts::ask(session.as_ref(), place.application(), place.lane()).await?
            }
        };
        facts.skew_ms = measure_skew_ms(session.as_ref(), facts.dialect, clock).await?;
        Ok(Self { session, facts, detour: false })
    }

    async fn ask(session: &dyn Session) -> Result<Facts, DbError> {
        const FACTS: &str = "SELECT current_setting('server_version_num'), \
             (SELECT rolsuper FROM pg_roles WHERE rolname = current_user), current_database(), \
             pg_backend_pid(), (SELECT backend_start FROM pg_stat_activity \
             WHERE pid = pg_backend_pid())";
        const IDENTITY: &str = "SELECT system_identifier FROM pg_control_system()";
        let rows = session.run(FACTS).await?;
        let fact = |index: usize| {
            let row = rows.first().and_then(|row| row.get(index));
            row.cloned().flatten().unwrap_or_default()
        };
        // Not for everybody to ask; then the server is known by its name alone.
        let identity = session.run(IDENTITY).await.unwrap_or_default();
        Ok(Facts {
            dialect: Dialect::Postgres,
            version: fact(0).parse().unwrap_or(0),
            superuser: fact(1) == "t",
            database: fact(2),
            backend: Backend { pid: fact(3), started: fact(4) },
            system_identifier: identity
                .into_iter()
                .next()
                .and_then(|row| row.into_iter().next()?),
            skew_ms: 0,
            looked: Instant::now(),
        })
    }

    /// False once the connection is known to be gone.
    pub(crate) fn is_usable(&self) -> bool {
        self.session.is_usable()
    }

    /// The session by itself.
    pub(crate) fn session(&self) -> &dyn Session {
        self.session.as_ref()
    }

    /// Runs SQL as one transaction.
    pub(crate) async fn run(&self, sql: &str) -> Result<Vec<Row>, DbError> {
        self.session.run(sql).await
    }
}

async fn measure_skew_ms(
    session: &dyn Session,
    dialect: Dialect,
    clock: &dyn Clock,
) -> Result<i64, DbError> {
    const NOW: &str = "SELECT (extract(epoch FROM clock_timestamp()) * 1000)::bigint";
    let now = if dialect.is_postgres() { NOW } else { mysql::facts::NOW };
    let rows = session.run(now).await?;
    let theirs = rows.first().and_then(|row| row.first()?.as_ref()?.parse::<i64>().ok());
    let ours = i64::try_from(clock.now().unix_ms()).unwrap_or(i64::MAX);
    let skew_ms = theirs.map_or(0, |theirs| theirs.saturating_sub(ours));
    if skew_ms.abs() > SKEW_WORTH_MENTIONING_MS {
        tracing::warn!(skew_ms, "the database's clock differs from ours");
    }
    Ok(skew_ms)
}

/// Opens sessions for a pool and looks them over between uses.
pub(crate) struct Opener {
    dialer: Arc<dyn Dialer>,
    spec: Spec,
    clock: Arc<dyn Clock>,
    lane: Lane,
}

impl Opener {
    /// Opens a session in the connection's own database. What ends logins goes by way of another if that one is
    /// gone or lets nobody in: its owner decides that, whom a login may be a member of.
    async fn open(&self) -> Result<Live, DbError> {
        let ends = self.lane == Lane::Revoke && matches!(self.spec.place, Place::Postgres(_));
        if !ends {
            return self.open_in(None).await;
        }
        let error = match self.open_in(None).await {
            Err(error) if error.is_of_the_database() => error,
            tried => return tried,
        };
        for database in DETOURS {
            if let Ok(live) = self.open_in(Some(database)).await {
                let why = error.public();
                tracing::warn!(why, database, "logins are ended by way of another database");
                return Ok(Live { detour: true, ..live });
            }
        }
        Err(error)
    }

    async fn open_in(&self, database: Option<&str>) -> Result<Live, DbError> {
        let opening = Live::open(self.dialer.as_ref(), &self.spec, database, self.clock.as_ref());
        Box::pin(opening).await
    }
}

impl Manager for Opener {
    type Type = Live;
    type Error = DbError;

    async fn create(&self) -> Result<Live, DbError> {
        self.open().await
    }

    async fn recycle(&self, live: &mut Live, _metrics: &Metrics) -> RecycleResult<DbError> {
        if !live.session.is_usable() {
            return Err(RecycleError::message("the session has ended"));
        }
        if live.detour {
            return Err(RecycleError::message("the connection's own database may be open again"));
        }
        if !live.facts.dialect.is_postgres() {
            // Nobody hears of the end of a session there until it is used.
            live.session.run("DO 0").await?;
        }
        if live.facts.looked.elapsed() > CLOCK_AGE {
            live.facts.skew_ms =
                measure_skew_ms(live.session.as_ref(), live.facts.dialect, self.clock.as_ref())
                    .await?;
            live.facts.looked = Instant::now();
        }
        Ok(())
    }
}

/// Sessions of one kind to one server, never more than its bound.
pub(crate) struct Sessions {
    pool: Pool<Opener>,
}

/// A session that goes back when it is dropped.
pub(crate) type Lent = Object<Opener>;

impl Sessions {
    /// A pool that opens sessions as they are needed.
    pub(crate) fn new(
        dialer: Arc<dyn Dialer>,
        spec: Spec,
        clock: Arc<dyn Clock>,
        (lane, bound): (Lane, usize),
    ) -> Result<Self, String> {
        let pool = Pool::builder(Opener { dialer, spec, clock, lane })
            .max_size(bound)
            .queue_mode(QueueMode::Lifo)
            .wait_timeout(Some(WAIT))
            .create_timeout(Some(WAIT))
            .recycle_timeout(Some(WAIT))
            .runtime(Runtime::Tokio1)
            .build();
        Ok(Self { pool: pool.map_err(|error| error.to_string())? })
    }

    /// Borrows a session.
    pub(crate) async fn lend(&self) -> Result<Lent, DbError> {
        self.pool.get().await.map_err(|error| match error {
            PoolError::Backend(error) => error,
            PoolError::Timeout(TimeoutType::Wait)
            | PoolError::NoRuntimeSpecified
            | PoolError::PostCreateHook(_) => DbError::Busy,
            PoolError::Timeout(_) => DbError::Unreachable("no answer in time".to_owned()),
            PoolError::Closed => DbError::Unreachable("the connection was closed".to_owned()),
        })
    }

    /// Opens a session outside the pool, in another database of the same server.
    pub(crate) async fn visit(&self, database: &str) -> Result<Live, DbError> {
        self.pool.manager().open_in(Some(database)).await
    }

    /// Logs in as somebody else, as an application would, and out again.
    pub(crate) async fn try_login(&self, user: &str, password: &str) -> Result<(), DbError> {
        let Opener { dialer, spec, .. } = self.pool.manager();
        let password = SecretText::new(password.to_owned());
        let session = dialer.dial(&spec.as_user(user, &password), None).await?;
        session.run("SELECT 1").await.map(|_| ())
    }

    /// Opens a session outside the pool.
    pub(crate) async fn open(&self) -> Result<Live, DbError> {
        self.pool.manager().open().await
    }

    /// Closes every session; those lent close when they come back.
    pub(crate) fn close(&self) {
        self.pool.close();
    }
}
