//! A model of PostgreSQL, as far as the minter's statements go: roles, sessions, locks on names of
//! roles that are being made, answers that get lost, and a server that stops.

mod sql;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use mssm_minter::{DbError, Dialer, Refusal, Row, Session, Spec};
use mssm_storage::MemoryStorage;
use mssm_testkit::TestClock;
use tokio::sync::oneshot;
use tokio::time::Instant;

use crate::disk::has_lease;
use crate::weather::Weather;

const DEADLINE: Duration = Duration::from_secs(10);

#[derive(Default)]
struct State {
    up: bool,
    next: u64,
    roles: BTreeMap<String, Role>,
    /// Names that an open transaction is making, and whose backend that is.
    creating: BTreeMap<String, u64>,
    backends: BTreeMap<u64, Backend>,
    /// Sessions of logins, by the oid of their role.
    users: BTreeMap<u64, String>,
    barred: BTreeMap<String, Instant>,
    /// Whose backend has the advisory lock.
    lock: Option<u64>,
    violations: Vec<String>,
}

struct Role {
    oid: String,
    login: bool,
    comment: String,
}

struct Backend {
    application: String,
    boot: u64,
    busy: bool,
    closing: bool,
}

/// The server; clones are the same one.
#[derive(Clone)]
pub(crate) struct Postgres {
    state: Arc<Mutex<State>>,
    weather: Arc<Weather>,
    records: Arc<MemoryStorage>,
    clock: TestClock,
}

/// How one run of the server reaches it.
pub(crate) struct Way {
    pub(crate) postgres: Postgres,
    pub(crate) boot: u64,
    pub(crate) dead: Arc<AtomicBool>,
}

struct Link {
    postgres: Postgres,
    pid: u64,
    dead: Arc<AtomicBool>,
    usable: AtomicBool,
}

fn no(code: &str) -> DbError {
    let (severity, message) = ("ERROR".to_owned(), "the model says no".to_owned());
    DbError::Refused(Refusal { code: code.to_owned(), severity, message, done: 0, position: None })
}

/// What stands between `open` and `close` for the first time.
fn between<'a>(text: &'a str, open: &str, close: &str) -> Option<&'a str> {
    text.split_once(open)?.1.split_once(close).map(|(inside, _)| inside)
}

fn listed(list: &str, quote: char) -> Vec<String> {
    list.split(',').map(|item| item.trim().trim_matches(quote).to_owned()).collect()
}

fn row(fields: &[&str]) -> Row {
    fields.iter().map(|field| Some((*field).to_owned())).collect()
}

impl Postgres {
    pub(crate) fn new(weather: &Arc<Weather>, records: &Arc<MemoryStorage>) -> Self {
        let state = State { up: true, next: 16_384, ..State::default() };
        Self {
            state: Arc::new(Mutex::new(state)),
            weather: Arc::clone(weather),
            records: Arc::clone(records),
            clock: TestClock::following_tokio(),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    /// An immediate stop: open transactions are undone, every session ends; roles stay.
    pub(crate) fn set_up(&self, up: bool) {
        let mut state = self.state();
        state.up = up;
        if !up {
            state.backends.clear();
            state.users.clear();
            state.creating.clear();
        }
    }

    /// A run of the server died: its idle sessions end, what it sent last goes on to its end.
    pub(crate) fn hang_up(&self, boot: u64) {
        let mut state = self.state();
        state.backends.retain(|_, backend| backend.boot != boot || backend.busy);
        for backend in state.backends.values_mut().filter(|backend| backend.boot == boot) {
            backend.closing = true;
        }
    }

    /// A login opens a session that nobody closes; false if it is refused.
    pub(crate) fn log_in(&self, user: &str) -> bool {
        let mut state = self.state();
        let role = state.roles.get(user).filter(|role| role.login && state.up);
        let Some(oid) = role.map(|role| role.oid.clone()) else { return false };
        state.next += 1;
        let pid = state.next;
        state.users.insert(pid, oid);
        true
    }

    pub(crate) fn roles(&self) -> BTreeSet<String> {
        self.state().roles.keys().cloned().collect()
    }

    pub(crate) fn can_log_in(&self, user: &str) -> bool {
        self.state().roles.get(user).is_some_and(|role| role.login)
    }

    /// Sessions whose role is gone or may not log in any more.
    pub(crate) fn stray_sessions(&self) -> usize {
        let state = self.state();
        let living = |oid: &String| state.roles.values().any(|role| role.login && role.oid == *oid);
        state.users.values().filter(|oid| !living(oid)).count()
    }

    pub(crate) fn barred_at(&self, user: &str) -> Option<Instant> {
        self.state().barred.get(user).copied()
    }

    pub(crate) fn violations(&self) -> Vec<String> {
        self.state().violations.clone()
    }

    fn lives(&self, pid: u64) -> bool {
        self.state().backends.contains_key(&pid)
    }

    /// What one backend does with one text of SQL; goes on whoever waits for it.
    async fn execute(&self, pid: u64, sql: &str) -> Result<Vec<Row>, DbError> {
        tokio::time::sleep(self.weather.span()).await;
        if !self.lives(pid) {
            return Err(DbError::Lost);
        }
        if self.weather.chance(1) {
            return Err(no("40P01"));
        }
        let answer = match between(sql, "CREATE ROLE \"", "\"") {
            Some(name) => self.create(pid, name, sql).await,
            None => self.state().run(pid, sql),
        };
        tokio::time::sleep(self.weather.span() / 4).await;
        if self.lives(pid) { answer } else { Err(DbError::Lost) }
    }

    async fn create(&self, pid: u64, name: &str, sql: &str) -> Result<Vec<Row>, DbError> {
        let fence = sql.contains("NOLOGIN");
        let begun = Instant::now();
        loop {
            {
                let mut state = self.state();
                if state.roles.contains_key(name) {
                    return Err(no("42710"));
                }
                if !state.creating.contains_key(name) {
                    state.creating.insert(name.to_owned(), pid);
                    break;
                }
            }
            if begun.elapsed() > Duration::from_secs(5) {
                return Err(no("55P03"));
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        tokio::time::sleep(self.weather.span()).await;
        let mut state = self.state();
        if state.creating.get(name) == Some(&pid) {
            state.creating.remove(name);
        }
        if !state.backends.contains_key(&pid) {
            return Err(DbError::Lost);
        }
        if !has_lease(&self.records, name) {
            state.violations.push(format!("1: \"{name}\" was made without a lease in the store"));
        }
        state.next += 1;
        let oid = state.next.to_string();
        let comment = between(sql, "\" IS '", "'").unwrap_or_default().to_owned();
        state.roles.insert(name.to_owned(), Role { oid: oid.clone(), login: !fence, comment });
        Ok(vec![row(&[&oid])])
    }

    fn facts(&self, pid: u64, sql: &str) -> Option<Vec<Row>> {
        let pid = pid.to_string();
        if sql.contains("server_version_num") {
            Some(vec![row(&["150018", "t", "app", &pid, &format!("began {pid}")])])
        } else if sql.contains("pg_control_system") {
            Some(vec![row(&["7"])])
        } else if sql.contains("clock_timestamp") {
            let now = mssm_domain::Clock::now(&self.clock).unix_ms().to_string();
            Some(vec![row(&[&now])])
        } else {
            None
        }
    }
}

impl Dialer for Way {
    fn dial<'a>(
        &'a self,
        spec: &'a Spec,
        _database: Option<&'a str>,
    ) -> BoxFuture<'a, Result<Box<dyn Session>, DbError>> {
        let (postgres, dead) = (self.postgres.clone(), Arc::clone(&self.dead));
        let (application, boot) = (spec.application().to_owned(), self.boot);
        async move {
            tokio::time::sleep(postgres.weather.span()).await;
            if dead.load(Ordering::SeqCst) {
                return std::future::pending().await;
            }
            let mut state = postgres.state();
            if !state.up {
                return Err(DbError::Unreachable("the model is down".to_owned()));
            }
            state.next += 1;
            let pid = state.next;
            state.backends.insert(pid, Backend { application, boot, busy: false, closing: false });
            drop(state);
            let link = Link { postgres, pid, dead, usable: AtomicBool::new(true) };
            Ok(Box::new(link) as Box<dyn Session>)
        }
        .boxed()
    }
}

impl Session for Link {
    fn run<'a>(&'a self, sql: &'a str) -> BoxFuture<'a, Result<Vec<Row>, DbError>> {
        async move {
            if self.dead.load(Ordering::SeqCst) {
                return std::future::pending().await;
            }
            if let Some(facts) = self.postgres.facts(self.pid, sql) {
                return Ok(facts);
            }
            let (reply, answer) = oneshot::channel();
            let (postgres, pid, text) = (self.postgres.clone(), self.pid, sql.to_owned());
            if let Some(backend) = postgres.state().backends.get_mut(&pid) {
                backend.busy = true;
            }
            actix_rt::spawn(async move {
                let done = postgres.execute(pid, &text).await;
                {
                    let mut state = postgres.state();
                    if let Some(backend) = state.backends.get_mut(&pid) {
                        backend.busy = false;
                        if backend.closing {
                            state.backends.remove(&pid);
                        }
                    }
                }
                let _ = reply.send(done);
            });
            let patience = if self.postgres.weather.chance(2) {
                Duration::from_millis(self.postgres.weather.random.below(20))
            } else {
                DEADLINE
            };
            let answer = tokio::time::timeout(patience, answer).await;
            if self.dead.load(Ordering::SeqCst) {
                return std::future::pending().await;
            }
            let answer =
                answer.map_or(Err(DbError::Lost), |answer| answer.unwrap_or(Err(DbError::Lost)));
            if answer == Err(DbError::Lost) {
                self.usable.store(false, Ordering::SeqCst);
            }
            answer
        }
        .boxed()
    }

    fn is_usable(&self) -> bool {
        self.usable.load(Ordering::SeqCst) && self.postgres.lives(self.pid)
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        let mut state = self.postgres.state();
        match state.backends.get_mut(&self.pid) {
            Some(backend) if backend.busy => backend.closing = true,
            _ => drop(state.backends.remove(&self.pid)),
        }
    }
}
