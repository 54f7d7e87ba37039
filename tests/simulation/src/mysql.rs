//! A model of MariaDB, as far as the minter's statements go: accounts that each statement changes for
//! good, named locks, sessions that a KILL reaches only when they look, and a server that stops.

mod sql;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, MutexGuard};

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
    /// Whether each may log in.
    accounts: BTreeMap<String, bool>,
    /// Of each whether it was told to end: the statement that it is at may not be done any more.
    threads: Ends<bool>,
    /// Sessions of logins.
    users: BTreeMap<u64, String>,
    /// Named locks, and which thread holds each; those of threads that are gone are free.
    locks: BTreeMap<String, u64>,
    barred: BTreeMap<String, Instant>,
    violations: Vec<String>,
}

/// The server; clones are the same one.
#[derive(Clone)]
pub(crate) struct MySql(Ground<State>);

impl MySql {
    pub(crate) fn new(weather: &Arc<Weather>, records: &Arc<MemoryStorage>) -> Self {
        let state = State { up: true, next: 40, ..State::default() };
        Self(Ground::new(state, weather, records))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.state()
    }
}

impl Model for MySql {
    fn definition(&self) -> Definition {
        Definition {
            plugin: "mysql-database-plugin",
            url: "tcp(127.0.0.1)/",
            creation: &[
                "CREATE USER '{{name}}'@'%' IDENTIFIED BY '{{password}}'",
                "GRANT SELECT ON shop.* TO '{{name}}'@'%'",
            ],
        }
    }

    fn way(&self, boot: u64, dead: &Arc<AtomicBool>) -> Arc<dyn Dialer> {
        Arc::new(Way { server: self.clone(), boot, dead: Arc::clone(dead) })
    }

    fn set_up(&self, up: bool) {
        let mut state = self.state();
        state.up = up;
        if !up {
            state.threads.clear();
            state.users.clear();
        }
    }

    fn hang_up(&self, boot: u64) {
        self.state().threads.hang_up(boot);
    }

    fn log_in(&self, user: &str) -> bool {
        let mut state = self.state();
        if !state.up || state.accounts.get(user) != Some(&true) {
            return false;
        }
        state.next += 1;
        let id = state.next;
        state.users.insert(id, user.to_owned());
        true
    }

    fn logins(&self) -> BTreeSet<String> {
        self.state().accounts.keys().cloned().collect()
    }

    fn can_log_in(&self, user: &str) -> bool {
        self.state().accounts.get(user) == Some(&true)
    }

    fn stray_sessions(&self) -> usize {
        let state = self.state();
        state.users.values().filter(|user| state.accounts.get(*user) != Some(&true)).count()
    }

    fn barred_at(&self, user: &str) -> Option<Instant> {
        self.state().barred.get(user).copied()
    }

    fn violations(&self) -> Vec<String> {
        self.state().violations.clone()
    }
}

impl Server for MySql {
    fn weather(&self) -> &Weather {
        &self.0.weather
    }

    fn connect(&self, _application: &str, boot: u64) -> Result<u64, DbError> {
        let mut state = self.state();
        if !state.up {
            return Err(DbError::Unreachable("the model is down".to_owned()));
        }
        state.next += 1;
        let id = state.next;
        state.threads.open(id, boot, false);
        Ok(id)
    }

    fn set_busy(&self, id: u64, busy: bool) {
        self.state().threads.set_busy(id, busy);
    }

    fn hang_up_one(&self, id: u64) {
        self.state().threads.hang_up_one(id);
    }

    fn lives(&self, id: u64) -> bool {
        self.state().threads.get(&id).is_some_and(|thread| !thread.what)
    }

    fn facts(&self, id: u64, sql: &str) -> Option<Vec<Row>> {
        if sql.starts_with("SELECT VERSION()") {
            Some(vec![row(&["10.11.14-MariaDB", &id.to_string(), ""])])
        } else if sql.contains("@@server_uid") {
            Some(vec![row(&["model"])])
        } else if sql == "SHOW GRANTS" {
            Some(vec![row(&["GRANT ALL PRIVILEGES ON *.* TO `admin`@`%`"])])
        } else if sql.contains("UNIX_TIMESTAMP(NOW(3))") {
            Some(self.0.now())
        } else {
            None
        }
    }

    async fn execute(&self, id: u64, sql: &str) -> Result<Vec<Row>, DbError> {
        tokio::time::sleep(self.0.weather.span()).await;
        // Who is told to end before a change has begun does not make it, or does.
        let told = self.state().threads.get(&id).is_none_or(|thread| thread.what);
        if told && self.0.weather.random.below(2) == 0 || !self.state().threads.contains_key(&id) {
            return Err(DbError::Lost);
        }
        if self.0.weather.chance(1) {
            let transient = self.0.weather.random.below(2) == 0;
            return Err(no(if transient { "1213" } else { "1142" }));
        }
        if let Some(name) = between(sql, "CREATE USER '", "'")
            && let Some(violation) = self.0.violation(name)
        {
            self.state().violations.push(violation);
        }
        let answer = self.state().run(id, sql);
        tokio::time::sleep(self.0.weather.way()).await;
        if self.lives(id) { answer } else { Err(DbError::Lost) }
    }
}
