//! What the model's roles and sessions make of one text of SQL.

use mssm_minter::{DbError, Row};
use tokio::time::Instant;

use super::{Role, State};
use crate::ground::End;
use crate::model::{between, listed, no, row};

impl State {
    pub(super) fn run(&mut self, pid: u64, sql: &str) -> Result<Vec<Row>, DbError> {
        if sql.starts_with("SELECT pg_terminate_backend") {
            return Ok(self.terminate(pid, sql));
        }
        if let Some(rows) = self.guard(pid, sql) {
            return Ok(rows);
        }
        if sql == "SELECT 'role', pg_is_in_recovery()" {
            return Ok(vec![row(&["role", "f"])]);
        }
        if sql.starts_with("SELECT d.objoid") || sql.starts_with("SELECT r.oid") {
            return Ok(self.marked(sql));
        }
        if sql.starts_with("SELECT r.rolname, r.oid FROM pg_roles") {
            let names = listed(between(sql, "ARRAY[", "]").unwrap_or_default(), '\'');
            let there = names.iter().filter_map(|name| Some((name, self.roles.get(name)?)));
            return Ok(there.map(|(name, role)| row(&[name, &role.oid])).collect());
        }
        if sql.contains("pg_is_in_recovery") {
            let names = listed(between(sql, " IN (", ")").unwrap_or_default(), '\'');
            let there = names.iter().filter_map(|name| Some((name, self.roles.get(name)?)));
            let rows: Vec<Row> =
                there.map(|(name, role)| row(&["f", name, &role.oid, &role.comment])).collect();
            let none = vec![Some("f".to_owned()), None, None];
            return Ok(if rows.is_empty() { vec![none] } else { rows });
        }
        if sql.contains("NOLOGIN") {
            let names: Vec<&str> = sql.split("ALTER ROLE \"").skip(1).collect();
            let names: Vec<&str> = names.iter().filter_map(|rest| rest.split('"').next()).collect();
            if names.iter().any(|name| !self.roles.contains_key(*name)) {
                return Err(no("42704"));
            }
            for name in names {
                self.barred.entry(name.to_owned()).or_insert_with(Instant::now);
                self.roles.get_mut(name).unwrap().login = false;
            }
            return Ok(Vec::new());
        }
        if let Some(name) = between(sql, "ALTER ROLE \"", "\"") {
            return if self.roles.contains_key(name) { Ok(Vec::new()) } else { Err(no("42704")) };
        }
        if let Some(list) = sql.strip_prefix("DROP ROLE ") {
            let names = listed(list.split(';').next().unwrap_or_default(), '"');
            if names.iter().any(|name| !self.roles.contains_key(name)) {
                return Err(no("42704"));
            }
            for name in &names {
                self.roles.remove(name);
            }
            return Ok(Vec::new());
        }
        let nothing = [
            "pg_prepared_xacts",
            "pg_shdescription",
            "pg_shdepend",
            "pg_locks",
            "pg_auth_members",
            "pg_blocking_pids",
        ];
        assert!(nothing.iter().any(|table| sql.contains(table)), "the model does not know: {sql}");
        Ok(Vec::new())
    }

    /// What is asked about the lock of the one server at work.
    fn guard(&mut self, pid: u64, sql: &str) -> Option<Vec<Row>> {
        if sql.contains("tcp_keepalives")
            || sql == "SELECT 'mssm guard'"
            || sql.contains("mssm.session")
        {
            return Some(Vec::new());
        }
        if sql.starts_with("SELECT pg_try_advisory_lock") {
            if self.lock.is_none_or(|holder| !self.backends.contains_key(&holder)) {
                self.lock = Some(pid);
            }
            return Some(vec![row(&[if self.lock == Some(pid) { "t" } else { "f" }])]);
        }
        if sql.starts_with("SELECT usesysid, extract") {
            return Some(vec![row(&["10", "0"])]);
        }
        if let Some(name) = between(sql, "SET application_name = '", "'") {
            if let Some(backend) = self.backends.get_mut(&pid) {
                name.clone_into(&mut backend.what);
            }
            return Some(Vec::new());
        }
        if sql.starts_with("SELECT d.datname = current_database()") {
            let holder = self.lock.and_then(|holder| self.backends.get(&holder));
            let told = |holder: &End<String>| row(&["t", "f", "10", "0", &holder.what, "another"]);
            return Some(holder.map(told).into_iter().collect());
        }
        None
    }

    /// Roles with a marker, behind an oid or of some oids.
    fn marked(&self, sql: &str) -> Vec<Row> {
        let after = between(sql, "d.objoid > '", "'").and_then(|oid| oid.parse::<u64>().ok());
        let oids = between(sql, "ARRAY[", "]").map(|oids| listed(oids, '\''));
        let mut roles: Vec<(u64, &String, &Role)> = self
            .roles
            .iter()
            .filter_map(|(name, role)| Some((role.oid.parse().ok()?, name, role)))
            .filter(|(oid, _, role)| {
                after.is_none_or(|after| *oid > after)
                    && oids.as_ref().is_none_or(|oids| oids.contains(&role.oid))
            })
            .collect();
        roles.sort_by_key(|(oid, ..)| *oid);
        roles.iter().map(|(_, name, role)| row(&[&role.oid, name, &role.comment])).collect()
    }

    fn terminate(&mut self, own: u64, sql: &str) -> Vec<Row> {
        let doomed: Vec<(u64, String)> = if let Some(oids) = between(sql, "ARRAY[", "]") {
            let oids = listed(oids, '\'');
            let theirs = self.users.iter().filter(|(_, oid)| oids.contains(oid));
            theirs.map(|(pid, oid)| (*pid, oid.clone())).collect()
        } else {
            let ours = between(sql, "starts_with(application_name, '", "'");
            let spared = listed(between(sql, "NOT IN (", ")").unwrap_or_default(), '\'');
            let named = |backend: &End<String>| {
                let application = &backend.what;
                ours.is_some_and(|ours| application.starts_with(ours))
                    && !spared.contains(application)
            };
            let pids: Vec<&str> = sql.split("(pid = '").skip(1).collect();
            let pids: Vec<u64> =
                pids.iter().filter_map(|rest| rest.split('\'').next()?.parse().ok()).collect();
            let doomed = self
                .backends
                .iter()
                .filter(|(pid, backend)| **pid != own && (named(backend) || pids.contains(pid)));
            doomed.map(|(pid, _)| (*pid, "10".to_owned())).collect()
        };
        for (pid, _) in &doomed {
            self.users.remove(pid);
            self.backends.remove(pid);
        }
        doomed.iter().map(|(_, oid)| row(&["t", oid])).collect()
    }
}
