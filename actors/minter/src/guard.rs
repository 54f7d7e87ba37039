//! One server of a cluster at a time makes and ends logins on a database: an advisory lock of a
//! session says which.
//!
//! A store that was copied or restored makes a second server with the same cluster id, to which the
//! first one's logins are strays, and which knows its passwords. The one that has the lock says so
//! every few seconds. Who does not get it and sees that neither makes, renews nor ends anything, and
//! changes no password; where it cannot be seen who has the lock, only what compares stands back.
//! Behind a pooler that shares sessions there is no lock to have, and nothing is made.

mod badge;
mod ballast;

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use mssm_domain::{ClusterId, Random, generate_base62};
use mssm_messages::engine::EngineError;
use mssm_messages::failpoint;
use tokio::sync::Mutex;
use tokio::time::Instant;

use self::badge::BEATING;
pub(crate) use self::ballast::{NO_ROOM, has_room};
use crate::book::{Book, Target};
use crate::engine::DbError;
use crate::mysql;
use crate::pool::Live;
use crate::quote::literal;

/// How often who has the lock says so.
const BEAT: Duration = Duration::from_secs(10);
/// How long it is believed that another server has it.
const OTHERS: Duration = Duration::from_secs(2);
/// How long it is believed that another connection of ours has it, or somebody unknown.
const ELSEWHERE: Duration = Duration::from_secs(30);
/// How often it is tried before another server counts as living: one that was killed lets go in
/// milliseconds.
const TRIES: u32 = 20;
/// How often before nobody is known to have it, who may just have let go.
const TRIES_UNKNOWN: u32 = 3;
/// See [`TRIES`].
const PAUSE: Duration = Duration::from_millis(50);
/// A server whose machine is gone loses its session, and the lock, after a minute.
const SETTINGS: &str = "SET tcp_keepalives_idle = 30; SET tcp_keepalives_interval = 10; \
     SET tcp_keepalives_count = 3";
/// Why nothing is made behind a pooler, for connections and whoever uses them.
pub(crate) const SHARED: &str = "the connection leads through a pooler that gives one session of the database to \
     many clients (pool_mode = transaction): logins can be ended there, and not made, renewed or compared; \
     connect to the database itself, or let the pooler keep sessions apart (pool_mode = session)";
/// How often two sessions are compared: others may be using the pooler meanwhile.
const PROBES: u32 = 5;
const PROBE_LEN: usize = 16;

/// Whose the lock is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Standing {
    /// Ours.
    Ours,
    /// A living server's of the same cluster; says which.
    Others(String),
    /// Somebody's of whom nothing is known.
    Unknown,
    /// Nobody's: what is between us and the server gives one session to many.
    Pooled,
}

impl Standing {
    /// Why nothing is made or ended here, if so.
    pub(crate) fn refusal(&self) -> Option<String> {
        match self {
            Self::Ours | Self::Unknown => None,
            Self::Pooled => Some(SHARED.to_owned()),
            Self::Others(which) => Some(format!(
                "another server with the same cluster id is at work on this database server ({which}): this \
                 one neither makes, renews nor ends logins there, nor changes passwords"
            )),
        }
    }

    /// Why nothing is done about differences, if so.
    pub(crate) fn holds_back(&self) -> Option<String> {
        const UNKNOWN: &str =
            "the advisory lock of this cluster is held by a session that is not known to be ours";
        match self {
            Self::Unknown => Some(UNKNOWN.to_owned()),
            Self::Ours | Self::Others(_) | Self::Pooled => self.refusal(),
        }
    }
}

/// One connection's hold on the lock.
#[derive(Default)]
pub(crate) struct Guard {
    held: RefCell<Option<Rc<Live>>>,
    /// The class of the further locks that it has.
    ballast: Cell<Option<i32>>,
    /// What was last seen, and when.
    seen: RefCell<Option<(Standing, Instant)>>,
    beating: Cell<bool>,
    turn: Arc<Mutex<()>>,
}

impl Guard {
    /// Whose the lock is; takes it if it can be had.
    pub(crate) async fn check(&self, book: &Book, target: &Target) -> Result<Standing, DbError> {
        if let Some(standing) = self.fresh() {
            return Ok(standing);
        }
        let _turn = self.turn.lock().await;
        if let Some(standing) = self.fresh() {
            return Ok(standing);
        }
        self.held.take();
        let cluster = book.cluster().map_err(sealed)?;
        let standing = self.take(book, target, cluster).await?;
        self.seen.replace(Some((standing.clone(), Instant::now())));
        Ok(standing)
    }

    fn fresh(&self) -> Option<Standing> {
        let seen = self.seen.borrow();
        let (standing, at) = seen.as_ref()?;
        let held = self.held.borrow();
        let believed = match &*held {
            // While it is being asked it cannot be asked anything else.
            Some(live) => self.beating.get() || live.is_usable(),
            None if matches!(standing, Standing::Others(_)) => at.elapsed() < OTHERS,
            None => at.elapsed() < ELSEWHERE,
        };
        believed.then(|| standing.clone())
    }

    async fn take(
        &self,
        book: &Book,
        target: &Target,
        cluster: ClusterId,
    ) -> Result<Standing, DbError> {
        failpoint::here("guard.before_session");
        let live = target.revoke.open().await?;
        let postgres = live.facts.dialect.is_postgres();
        if postgres && is_shared(&live, &target.revoke.open().await?, book.random.as_ref()).await? {
            return Ok(Standing::Pooled);
        }
        if postgres {
            self.ballast.set(Some(ballast::load(&live, book.random.as_ref()).await?));
            badge::wear(book, cluster, &live).await?;
        } else {
            live.run(mysql::locks::GUARD_SETTINGS).await?;
        }
        let mut standing = Standing::Unknown;
        for tried in 1..=TRIES {
            let taken = try_lock(cluster, &live).await?;
            standing = who_has_it(book, cluster, &live, taken).await?;
            match standing {
                Standing::Ours if taken => {
                    live.run(BEATING).await?;
                    failpoint::here("guard.said");
                    self.held.replace(Some(Rc::new(live)));
                    break;
                }
                Standing::Ours => break,
                Standing::Unknown if tried >= TRIES_UNKNOWN => break,
                Standing::Unknown | Standing::Others(_) | Standing::Pooled => {}
            }
            tokio::time::sleep(PAUSE).await;
        }
        Ok(standing)
    }

    /// Says that we have the lock, if we do.
    async fn beat(&self, book: &Book) {
        let Some(live) = self.held.borrow().clone() else { return };
        if self.beating.replace(true) {
            return;
        }
        failpoint::here("guard.before_beat");
        if say(book, &live).await.is_err() {
            self.held.take();
        } else if live.facts.dialect.is_postgres() && self.ballast.get().is_none() {
            // As soon as there is room again.
            self.ballast.set(ballast::load(&live, book.random.as_ref()).await.ok());
        }
        failpoint::here("guard.after_beat");
        self.beating.set(false);
    }
}

async fn say(book: &Book, live: &Live) -> Result<(), DbError> {
    if live.facts.dialect.is_postgres() {
        badge::wear(book, book.cluster().map_err(sealed)?, live).await?;
    }
    live.run(BEATING).await.map(|_| ())
}

fn sealed<E>(_: E) -> DbError {
    DbError::Unreachable("the server is sealed".to_owned())
}

async fn try_lock(cluster: ClusterId, live: &Live) -> Result<bool, DbError> {
    let (take, taken) = if live.facts.dialect.is_postgres() {
        (format!("SELECT pg_try_advisory_lock({})", key(cluster)), "t")
    } else {
        (mysql::locks::take_guard(cluster), "1")
    };
    failpoint::here("guard.before_lock");
    let rows = live.run(&take).await?;
    failpoint::here("guard.after_lock");
    let said = rows.first().and_then(|row| row.first().cloned().flatten());
    Ok(said.as_deref() == Some(taken))
}

/// Whose it is. `Ours` and not taken now: another connection of ours to the same database has it.
///
/// PostgreSQL's locks are a database's: who has this one in another database of the server is at work
/// there too, and came first.
async fn who_has_it(
    book: &Book,
    cluster: ClusterId,
    live: &Live,
    taken: bool,
) -> Result<Standing, DbError> {
    if !live.facts.dialect.is_postgres() {
        if taken {
            return Ok(Standing::Ours);
        }
        return mysql::locks::guard_holder(live, cluster, book.boot).await;
    }
    let holders = badge::holders(book, cluster, live, key(cluster)).await?;
    let ours = taken || holders.iter().any(|holder| holder.here && holder.ours);
    if let Some(which) = holders.into_iter().find_map(|holder| holder.others) {
        if taken {
            live.run(&format!("SELECT pg_advisory_unlock({})", key(cluster))).await?;
        }
        return Ok(Standing::Others(which));
    }
    if ours {
        return Ok(Standing::Ours);
    }
    badge::end_logins(cluster, live, "", &badge::waiting(key(cluster))).await;
    Ok(Standing::Unknown)
}

/// An error where another server is at work, or where it cannot be known whose a session is.
pub(crate) async fn allow(book: &Book, target: &Target) -> Result<(), EngineError> {
    allow_unless(book, target, false).await
}

/// The same for what ends access: that is tried behind a pooler too.
pub(crate) async fn allow_ending(book: &Book, target: &Target) -> Result<(), EngineError> {
    allow_unless(book, target, true).await
}

async fn allow_unless(book: &Book, target: &Target, ending: bool) -> Result<(), EngineError> {
    let standing = target.guard.check(book, target).await;
    let standing = standing.map_err(|error| EngineError::Unavailable(error.public()))?;
    match standing.refusal() {
        Some(_) if ending && standing == Standing::Pooled => Ok(()),
        Some(why) => Err(EngineError::Unavailable(why)),
        None => Ok(()),
    }
}

/// True if what one session sets is another's to see, or its own no more: a pooler gives the server's
/// sessions to whoever has a transaction. Behind it no lock is anybody's, and no mint can be fenced.
pub(crate) async fn is_shared(
    one: &Live,
    other: &Live,
    random: &dyn Random,
) -> Result<bool, DbError> {
    const READ: &str = "SELECT 'pooled', current_setting('mssm.session', true)";
    if !one.facts.dialect.is_postgres() {
        return Ok(false);
    }
    for _ in 0..PROBES {
        let said = generate_base62(random, PROBE_LEN);
        one.run(&format!("SET SESSION mssm.session = {}", literal(&said))).await?;
        let said = Some(said);
        let read = async |live: &Live| -> Result<Option<Option<String>>, DbError> {
            Ok(live.run(READ).await?.first().and_then(|row| row.get(1).cloned()))
        };
        let others = read(other).await?.is_some_and(|theirs| theirs == said);
        if others || read(one).await?.is_some_and(|ours| ours != said) {
            return Ok(true);
        }
    }
    Ok(false)
}

/// The lock's number: the cluster id's first half.
fn key(cluster: ClusterId) -> i64 {
    i64::from_ne_bytes(cluster.uuid().as_u64_pair().0.to_ne_bytes())
}

/// Has every connection in use say that it has its lock; called every second.
pub(crate) fn beat(book: &Rc<Book>) {
    let targets = book.targets();
    if targets.is_empty() || !book.watch.beat_is_due(BEAT) {
        return;
    }
    for target in targets {
        let book = Rc::clone(book);
        actix_rt::spawn(async move { target.guard.beat(&book).await });
    }
}
