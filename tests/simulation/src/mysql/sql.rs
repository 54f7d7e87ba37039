//! What the model's accounts, locks and sessions make of one statement; each is final.

use mssm_minter::{DbError, Row};
use tokio::time::Instant;

use super::State;
use crate::model::{between, listed, no, row};

/// The texts in quotes, in order; those that ours send hold no quote.
fn quoted(sql: &str) -> impl Iterator<Item = &str> {
    sql.split('\'').skip(1).step_by(2)
}

/// The users of the accounts that a statement names.
fn users(sql: &str) -> Vec<String> {
    quoted(sql).step_by(2).map(str::to_owned).collect()
}

fn names(sql: &str) -> Vec<String> {
    listed(between(sql, " IN (", ")").unwrap_or_default(), '\'')
}

fn rows<'a>(fields: impl Iterator<Item = &'a str>) -> Vec<Row> {
    fields.map(|field| row(&[field])).collect()
}

impl State {
    pub(super) fn run(&mut self, id: u64, sql: &str) -> Result<Vec<Row>, DbError> {
        let nothing = ["SET SESSION", "DO 0", "SELECT 'mssm guard'", "GRANT "];
        if nothing.iter().any(|beginning| sql.starts_with(beginning)) {
            return Ok(Vec::new());
        }
        // Nobody poses as a server here, and no statement holds up another.
        if sql.starts_with("SELECT DISTINCT p.ID") || sql.starts_with("SELECT DISTINCT p.USER") {
            return Ok(Vec::new());
        }
        if sql.contains("IS_USED_LOCK") {
            return Ok(self.held(id, sql));
        }
        if sql.starts_with("SELECT GET_LOCK(") {
            return Ok(vec![quoted(sql).map(|name| Some(self.take(id, name))).collect()]);
        }
        if sql.starts_with("DO RELEASE_LOCK") {
            let mine: Vec<&str> = quoted(sql).collect();
            self.locks.retain(|name, holder| *holder != id || !mine.contains(&name.as_str()));
            return Ok(Vec::new());
        }
        if sql.starts_with("KILL CONNECTION USER") {
            let name = quoted(sql).next().unwrap();
            self.users.retain(|_, user| user != name);
            return Ok(Vec::new());
        }
        if let Some(number) = sql.strip_prefix("KILL CONNECTION ") {
            return self.kill(number.parse().unwrap());
        }
        if sql.contains("PROCESSLIST") {
            return Ok(self.processes(sql));
        }
        if sql.contains("read_only") {
            return Ok(vec![row(&["admin", "f"])]);
        }
        self.change(sql).unwrap_or_else(|| Ok(self.look(sql)))
    }

    fn take(&mut self, id: u64, name: &str) -> String {
        let free = self.locks.get(name).is_none_or(|holder| !self.threads.contains_key(holder));
        if free {
            self.locks.insert(name.to_owned(), id);
        }
        if self.locks.get(name) == Some(&id) { "1" } else { "0" }.to_owned()
    }

    fn holder(&self, name: &str) -> Option<u64> {
        self.locks.get(name).copied().filter(|holder| self.threads.contains_key(holder))
    }

    /// The three questions that ours ask of locks.
    fn held(&self, own: u64, sql: &str) -> Vec<Row> {
        let all: Vec<&str> = quoted(sql).collect();
        let found: Vec<u64> = if sql.starts_with("SELECT id, id IN (") {
            let (guard, ours) = all.split_last().unwrap();
            let Some(holder) = self.holder(guard) else { return vec![vec![None, None]] };
            let known = ours.iter().any(|name| self.holder(name) == Some(holder));
            return vec![row(&[&holder.to_string(), if known { "1" } else { "0" }])];
        } else if sql.contains(" own)") {
            let pair = |pair: &[&str]| {
                self.holder(pair[0]).filter(|holder| self.holder(pair[1]) != Some(*holder))
            };
            all.chunks(2).filter_map(pair).collect()
        } else {
            let meant = |pair: &[&str]| {
                let holder = self.holder(pair[0])?;
                (holder.to_string() == pair[1] && holder != own).then_some(holder)
            };
            all.chunks(2).filter_map(meant).collect()
        };
        found.iter().map(|id| row(&[&id.to_string()])).collect()
    }

    fn kill(&mut self, id: u64) -> Result<Vec<Row>, DbError> {
        if self.users.remove(&id).is_some() {
            return Ok(Vec::new());
        }
        let Some(thread) = self.threads.get_mut(&id) else { return Err(no("1094")) };
        (thread.closing, thread.what) = (true, true);
        if !thread.busy {
            self.threads.remove(&id);
        }
        Ok(Vec::new())
    }

    fn processes(&self, sql: &str) -> Vec<Row> {
        if sql.starts_with("SELECT DISTINCT USER") {
            return rows(self.users.values().map(String::as_str));
        }
        if sql.contains("unauthenticated user") {
            return Vec::new();
        }
        let names = names(sql);
        let theirs = self.users.iter().filter(|(_, user)| names.contains(user));
        theirs.map(|(id, _)| row(&[&id.to_string()])).collect()
    }

    /// What a statement about users changes; `None` if it changes nothing.
    fn change(&mut self, sql: &str) -> Option<Result<Vec<Row>, DbError>> {
        let done = Ok(Vec::new());
        if let Some(name) = between(sql, "CREATE USER '", "'") {
            if self.accounts.contains_key(name) {
                return Some(Err(no("1396")));
            }
            self.accounts.insert(name.to_owned(), true);
            return Some(done);
        }
        if let Some(list) = sql.strip_prefix("DROP USER IF EXISTS ") {
            for name in users(list) {
                self.accounts.remove(&name);
            }
            return Some(done);
        }
        let list = sql.strip_prefix("ALTER USER ")?;
        let named = users(list);
        if named.iter().any(|name| !self.accounts.contains_key(name)) {
            return Some(Err(no("1396")));
        }
        for name in named.into_iter().filter(|_| sql.ends_with(" ACCOUNT LOCK")) {
            self.barred.entry(name.clone()).or_insert_with(Instant::now);
            self.accounts.insert(name, false);
        }
        Some(done)
    }

    /// What is asked of the accounts.
    fn look(&self, sql: &str) -> Vec<Row> {
        let accounts = self.accounts.keys().map(String::as_str);
        if let Some(after) = between(sql, "User > '", "'") {
            return rows(accounts.filter(|name| *name > after).take(1_000));
        }
        if sql.contains("SUBSTRING(User, -20, 10) IN (") {
            let halves = names(sql);
            let is_one =
                |name: &&str| halves.iter().any(|half| name[name.len() - 20..].starts_with(half));
            return rows(accounts.filter(is_one));
        }
        if let Some(name) = between(sql, "FROM mysql.global_priv WHERE User = '", "'") {
            let there = self.accounts.contains_key(name);
            return there.then(|| row(&["%", "0"])).into_iter().collect();
        }
        assert!(sql.contains("FROM mysql.user WHERE User IN ("), "the model does not know: {sql}");
        let (names, host) = (names(sql), if sql.contains("User, Host") { "%" } else { "" });
        let there = accounts.filter(|name| names.contains(&(*name).to_owned()));
        there.map(|name| row(&[name, host])).collect()
    }
}
