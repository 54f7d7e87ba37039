//! A model of PostgreSQL, as far as the minter's statements go: roles, sessions, locks on names of
//! roles that are being made, answers that get lost, and a server that stops.

mod sql;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, MutexGuard};
use std::time::Duration;

use mssm_minter::{DbError, Dialer, Row};
use mssm_storage::MemoryStorage;
use tokio::time::Instant;

use crate::ground::{Ends, Ground};
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
    /// Of each the application that it says it is.
    backends: Ends<String>,
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

/// The server; clones are the same one.
#[derive(Clone)]
pub(crate) struct Postgres(Ground<State>);

impl Postgres {
    pub(crate) fn new(weather: &Arc<Weather>, records: &Arc<MemoryStorage>) -> Self {
        let state = State { up: true, next: 16_384, ..State::default() };
        Self(Ground::new(state, weather, records))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.state()
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
        tokio::time::sleep(self.0.weather.span()).await;
        let mut state = self.state();
        if state.creating.get(name) == Some(&pid) {
            state.creating.remove(name);
        }
        if !state.backends.contains_key(&pid) {
            return Err(DbError::Lost);
        }
        state.violations.extend(self.0.violation(name));
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
        self.state().backends.hang_up(boot);
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
        &self.0.weather
    }

    fn connect(&self, application: &str, boot: u64) -> Result<u64, DbError> {
        let mut state = self.state();
        if !state.up {
            return Err(DbError::Unreachable("the model is down".to_owned()));
        }
        state.next += 1;
        let pid = state.next;
        state.backends.open(pid, boot, application.to_owned());
        Ok(pid)
    }

    fn set_busy(&self, pid: u64, busy: bool) {
        self.state().backends.set_busy(pid, busy);
    }

    fn hang_up_one(&self, pid: u64) {
        self.state().backends.hang_up_one(pid);
    }

    async fn execute(&self, pid: u64, sql: &str) -> Result<Vec<Row>, DbError> {
        tokio::time::sleep(self.0.weather.span()).await;
        if !self.lives(pid) {
            return Err(DbError::Lost);
        }
        if self.0.weather.chance(1) {
            return Err(no("40P01"));
        }
        let answer = match between(sql, "CREATE ROLE \"", "\"") {
            Some(name) => self.create(pid, name, sql).await,
            None => self.state().run(pid, sql),
        };
        tokio::time::sleep(self.0.weather.way()).await;
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
            Some(self.0.now())
        } else {
            None
        }
    }
}
