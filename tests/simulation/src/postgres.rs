//! A model of PostgreSQL, as far as the minter's statements go: roles, sessions, locks on names of
//! roles that are being made, answers that get lost, and a server that stops.

mod sql;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use mssm_minter::{DbError, Dialer, Row};
use mssm_storage::MemoryStorage;
use mssm_testkit::TestClock;
use tokio::time::Instant;

use crate::disk::has_lease;
use crate::link::{Server, Way};
use crate::model::{Definition, Model, between, no, row};
use crate::weather::Weather;

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
}

impl Model for Postgres {
    fn definition(&self) -> Definition {
        Definition {
            plugin: "postgresql-database-plugin",
            url: "postgresql://127.0.0.1/app",
            creation: &["CREATE ROLE \"{{name}}\" LOGIN PASSWORD '{{password}}'"],
        }
    }

    fn way(&self, boot: u64, dead: &Arc<AtomicBool>) -> Arc<dyn Dialer> {
        Arc::new(Way { server: self.clone(), boot, dead: Arc::clone(dead) })
    }

    /// An immediate stop: open transactions are undone, every session ends; roles stay.
    fn set_up(&self, up: bool) {
        let mut state = self.state();
        state.up = up;
        if !up {
            state.backends.clear();
            state.users.clear();
            state.creating.clear();
        }
    }

    fn hang_up(&self, boot: u64) {
        let mut state = self.state();
        state.backends.retain(|_, backend| backend.boot != boot || backend.busy);
        for backend in state.backends.values_mut().filter(|backend| backend.boot == boot) {
            backend.closing = true;
        }
    }

    fn log_in(&self, user: &str) -> bool {
        let mut state = self.state();
        let role = state.roles.get(user).filter(|role| role.login && state.up);
        let Some(oid) = role.map(|role| role.oid.clone()) else { return false };
        state.next += 1;
        let pid = state.next;
        state.users.insert(pid, oid);
        true
    }

    fn logins(&self) -> BTreeSet<String> {
        self.state().roles.keys().cloned().collect()
    }

    fn can_log_in(&self, user: &str) -> bool {
        self.state().roles.get(user).is_some_and(|role| role.login)
    }

    fn stray_sessions(&self) -> usize {
        let state = self.state();
        let living = |oid: &String| state.roles.values().any(|role| role.login && role.oid == *oid);
        state.users.values().filter(|oid| !living(oid)).count()
    }

    fn barred_at(&self, user: &str) -> Option<Instant> {
        self.state().barred.get(user).copied()
    }

    fn violations(&self) -> Vec<String> {
        self.state().violations.clone()
    }
}

impl Server for Postgres {
    fn weather(&self) -> &Weather {
        &self.weather
    }

    fn connect(&self, application: &str, boot: u64) -> Result<u64, DbError> {
        let mut state = self.state();
        if !state.up {
            return Err(DbError::Unreachable("the model is down".to_owned()));
        }
        state.next += 1;
        let (pid, application) = (state.next, application.to_owned());
        state.backends.insert(pid, Backend { application, boot, busy: false, closing: false });
        Ok(pid)
    }

    fn set_busy(&self, pid: u64, busy: bool) {
        let mut state = self.state();
        if let Some(backend) = state.backends.get_mut(&pid) {
            backend.busy = busy;
            if !busy && backend.closing {
                state.backends.remove(&pid);
            }
        }
    }

    fn hang_up_one(&self, pid: u64) {
        let mut state = self.state();
        match state.backends.get_mut(&pid) {
            Some(backend) if backend.busy => backend.closing = true,
            _ => drop(state.backends.remove(&pid)),
        }
    }

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

    fn lives(&self, pid: u64) -> bool {
        self.state().backends.contains_key(&pid)
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
