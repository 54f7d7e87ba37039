//! Rungs 1 and 2: no new session with the secret, and none left.

use std::collections::{BTreeSet, HashMap};
use std::time::Duration;

use mssm_messages::failpoint;

use super::{Case, Ladder, Verdicts, words};
use crate::engine::{DbError, Row};
use crate::mint::grant_to_us;
use crate::quote::{identifier, literal, literals};

/// How often rung 1 is tried for many at once, before it is done one by one.
const BATCH_TRIES: u32 = 3;
/// How often we look whether sessions that were told to end have: about 5 s in all, or 2 s where others wait.
const LOOKS: u32 = 20;
/// How often we look whether who does not show goes on hiding, and the pause between: 500 ms.
const HIDDEN_LOOKS: u32 = 20;
const HIDDEN_PAUSE: Duration = Duration::from_millis(25);
/// How long rung 1 queues behind others, for many at once and one by one: all wait for that.
const TOGETHER: &str = "SET LOCAL lock_timeout = '200ms';\n";
const ONE_BY_ONE: &str = "SET LOCAL lock_timeout = '25ms';\n";
/// "insufficient privilege".
pub(super) const NO_RIGHT: &str = "42501";

impl Ladder {
    /// Replies those whose access has ended; the others have their verdict.
    pub(super) async fn end_access(&self, cases: Vec<Case>, verdicts: &mut Verdicts) -> Vec<Case> {
        if cases.is_empty() {
            return cases;
        }
        if let Err(why) = self.end_prepared(&cases).await {
            // Rung 1 says whether it stands in the way.
            tracing::warn!(why, "a prepared transaction of a login could not be rolled back");
        }
        failpoint::here("revoke.before_bar");
        let (barred, stuck) = self.bar_all(cases).await;
        failpoint::here("revoke.after_bar");
        let mut ended = self.after_bar(barred, verdicts).await;
        // Nobody else's access waits for those whose roles somebody holds.
        let pressed = self.bar_stuck(stuck, verdicts).await;
        ended.extend(self.after_bar(pressed, verdicts).await);
        ended
    }

    /// Rung 1. Replies those that it bars, and those that somebody keeps from it.
    async fn bar_all(&self, cases: Vec<Case>) -> (Vec<Case>, Vec<Case>) {
        let (mut barred, mut stuck) = (Vec::with_capacity(cases.len()), Vec::new());
        if cases.len() == 1 {
            return (barred, cases);
        }
        let mut all = TOGETHER.to_owned();
        all.extend(cases.iter().map(bar));
        all.push_str(&check_barred(&cases));
        for _ in 0..BATCH_TRIES {
            let Err(error) = self.session.run(&all).await else { return (cases, stuck) };
            tracing::debug!(code = error.code(), "rung 1 did not bar all at once");
            // Those that lock their own role let go together: nobody waits behind them.
            if self.session.run(&end_sessions_of(&cases)).await.is_err() {
                break;
            }
            tokio::time::sleep(HIDDEN_PAUSE).await;
        }
        for case in cases {
            let check = check_barred(std::slice::from_ref(&case));
            let sql = format!("{ONE_BY_ONE}{}{check}", bar(&case));
            let done = self.session.run(&sql).await.is_ok();
            let part = if done { &mut barred } else { &mut stuck };
            part.push(case);
        }
        (barred, stuck)
    }

    /// What follows rung 1, and what makes sure of it. Replies those whose access has ended.
    async fn after_bar(&self, barred: Vec<Case>, verdicts: &mut Verdicts) -> Vec<Case> {
        if barred.is_empty() {
            return barred;
        }
        let stubborn = match self.end_all_sessions(&barred).await {
            Ok(stubborn) => stubborn,
            Err(why) => {
                for case in &barred {
                    verdicts.fail(case, why.clone());
                }
                return Vec::new();
            }
        };
        let (still, barred): (Vec<Case>, Vec<Case>) =
            barred.into_iter().partition(|case| stubborn.contains(&case.oid));
        for case in &still {
            verdicts.fail(case, "sessions of the login do not end");
        }
        if barred.is_empty() {
            return barred;
        }
        self.take_from_members(&barred).await;
        self.tell_of_slots(&barred).await;
        // What a session prepared while rung 1 went on.
        match self.end_prepared(&barred).await {
            Ok(()) => barred,
            Err(why) => {
                for case in &barred {
                    verdicts.fail(case, why.clone());
                }
                Vec::new()
            }
        }
    }

    /// Rung 2: ends every session of the logins, also those that do not show. Replies, by their oids,
    /// those whose sessions do not end.
    async fn end_all_sessions(&self, cases: &[Case]) -> Result<BTreeSet<String>, String> {
        if failpoint::is_planted(failpoint::Fault::SessionsLeft) {
            return Ok(BTreeSet::new());
        }
        let stubborn = self.end_sessions(cases).await?;
        if !cases.is_empty() && self.end_hidden(cases).await? {
            // Some showed themselves meanwhile.
            return self.end_sessions(cases).await;
        }
        Ok(stubborn)
    }

    /// Whoever may become one of the logins by a login of its own could go on with its rights for as long
    /// as its role stays: before PostgreSQL 16 a login may grant itself to anybody.
    async fn take_from_members(&self, cases: &[Case]) {
        let oids = literals(cases.iter().map(|case| case.oid.as_str()));
        let by = if self.session.facts.version >= 160_000 {
            "format(' GRANTED BY %I CASCADE', g.rolname)"
        } else {
            "' CASCADE'"
        };
        let sql = format!(
            "SELECT format('REVOKE %I FROM %I', r.rolname, m.rolname) || {by} FROM pg_auth_members a \
             JOIN pg_roles r ON r.oid = a.roleid JOIN pg_roles m ON m.oid = a.member \
             LEFT JOIN pg_roles g ON g.oid = a.grantor WHERE a.roleid IN (SELECT unnest(ARRAY[{oids}]::oid[])) AND m.rolname <> current_user"
        );
        let found = self.session.run(&sql).await;
        for revoke in found.unwrap_or_default().into_iter().flatten().flatten() {
            match self.session.run(&revoke).await {
                Ok(_) => tracing::warn!(
                    revoke,
                    "others might become a login that has ended, and may not any more"
                ),
                Err(error) => {
                    let why = words(error);
                    tracing::warn!(revoke, why, "others may become a login that has ended");
                }
            }
        }
    }

    /// A replication slot has no owner and keeps the server's log for ever: those that nobody uses
    /// once a login that may make some is gone are told. Others' may be among them, so none is dropped.
    async fn tell_of_slots(&self, cases: &[Case]) {
        let replicates = |case: &&Case| case.replicates;
        let logins: Vec<&str> = cases.iter().filter(replicates).map(Case::login).collect();
        if logins.is_empty() {
            return;
        }
        const IDLE: &str = "SELECT slot_name FROM pg_replication_slots WHERE NOT active";
        let logins = logins.join(", ");
        match self.session.run(IDLE).await {
            Ok(slots) if slots.is_empty() => {}
            Ok(slots) => {
                let slots: Vec<String> = slots.into_iter().flatten().flatten().collect();
                let slots = slots.join(", ");
                tracing::warn!(
                    logins,
                    slots,
                    "a login that may make replication slots has ended, and nobody uses these slots: drop those that nobody needs"
                );
            }
            Err(error) => {
                tracing::warn!(
                    logins,
                    code = error.code(),
                    "replication slots that an ended login may have made could not be listed"
                );
            }
        }
    }

    /// Ends sessions until none is seen. Replies, by their oids, those whose sessions do not end.
    pub(super) async fn end_sessions(&self, cases: &[Case]) -> Result<BTreeSet<String>, String> {
        let mut left = BTreeSet::new();
        if cases.is_empty() {
            return Ok(left);
        }
        let sql = end_sessions_of(cases);
        let mut granted = false;
        for look in 0..if self.access_only { LOOKS / 2 } else { LOOKS } {
            left = match self.session.run(&sql).await {
                Ok(rows) => rows.into_iter().filter_map(|row| row.into_iter().nth(1)?).collect(),
                Err(error) if error.code() == NO_RIGHT && !granted => {
                    granted = true;
                    self.grant_all(cases).await.map_err(words)?;
                    continue;
                }
                Err(error) => return Err(words(error)),
            };
            if left.is_empty() {
                break;
            }
            tokio::time::sleep(Duration::from_millis(5 << look.min(6))).await;
        }
        Ok(left)
    }

    /// Ends who has logged in and sleeps before it shows (`post_auth_delay`, which any user may ask
    /// for); true if there was anybody who did not show.
    ///
    /// Whose session it is cannot be seen. Others are hidden for milliseconds only, or until they
    /// have proved who they are: a lock on the database tells who is past that.
    pub(super) async fn end_hidden(&self, cases: &[Case]) -> Result<bool, String> {
        let mut hidden = self.look_hidden().await?;
        let found = !hidden.is_empty();
        for _ in 0..HIDDEN_LOOKS {
            if hidden.is_empty() {
                return Ok(found);
            }
            tokio::time::sleep(HIDDEN_PAUSE).await;
            let now = self.look_hidden().await?;
            hidden = now.into_iter().filter(|(pid, _)| hidden.contains_key(pid)).collect();
        }
        let pids: Vec<&str> =
            hidden.iter().filter(|(_, inside)| **inside).map(|(pid, _)| pid.as_str()).collect();
        if pids.is_empty() {
            return Ok(found);
        }
        tracing::warn!(count = pids.len(), "sessions that hide are ended");
        if !self.session.facts.superuser {
            self.grant_all(cases).await.map_err(words)?;
        }
        for pid in pids {
            let end = format!("SELECT pg_terminate_backend({}::int)", literal(pid));
            match self.session.run(&end).await {
                Ok(_) => {}
                // We are members of every login of ours: this is somebody else's.
                Err(error) if error.code() == NO_RIGHT => {}
                Err(error) => return Err(words(error)),
            }
        }
        Ok(found)
    }

    /// Backends that hold locks and do not show, and whether they are past authentication.
    ///
    /// From PostgreSQL 18 on they are listed from the beginning, but not yet as anybody's.
    async fn look_hidden(&self) -> Result<HashMap<String, bool>, String> {
        const HIDDEN: &str = "SELECT l.pid, bool_or(l.locktype = 'object' \
             AND l.classid = 'pg_database'::regclass) FROM pg_locks l WHERE l.pid IS NOT NULL \
             AND NOT EXISTS (SELECT FROM pg_stat_activity a WHERE a.pid = l.pid \
             AND (a.usesysid IS NOT NULL OR a.datid IS NOT NULL)) GROUP BY 1";
        let rows = self.session.run(HIDDEN).await.map_err(words)?;
        let backend = |row: Row| {
            let mut fields = row.into_iter().flatten();
            Some((fields.next()?, fields.next().as_deref() == Some("t")))
        };
        Ok(rows.into_iter().filter_map(backend).collect())
    }

    async fn grant_all(&self, cases: &[Case]) -> Result<Vec<Row>, DbError> {
        if cases.is_empty() {
            return Ok(Vec::new());
        }
        let facts = &self.session.facts;
        let grants = cases.iter().map(|case| grant_to_us(&identifier(case.login()), facts));
        self.session.run(&grants.collect::<String>()).await
    }

    async fn end_prepared(&self, cases: &[Case]) -> Result<(), String> {
        self.end_prepared_through(&self.session, cases).await
    }

    /// Rolls back what the logins left prepared: it survives restarts, and holds its locks.
    ///
    /// A login that may become another role leaves it in that one's name. So whatever our own
    /// session waits for counts too, and whatever holds a lock on the login's role.
    pub(super) async fn end_prepared_through(
        &self,
        session: &crate::pool::Live,
        cases: &[Case],
    ) -> Result<(), String> {
        let names = literals(cases.iter().map(Case::login));
        let oids = literals(cases.iter().map(|case| case.oid.as_str()));
        let sql = format!(
            "SELECT gid, database, owner FROM pg_prepared_xacts WHERE owner IN ({names}) \
             OR transaction IN (SELECT transactionid FROM pg_locks \
             WHERE pid = {}::int AND NOT granted) \
             OR transaction IN (SELECT t.transactionid FROM pg_locks r \
             JOIN pg_locks t ON t.virtualtransaction = r.virtualtransaction \
             WHERE r.locktype = 'object' AND r.classid = 'pg_authid'::regclass \
             AND r.objid IN (SELECT unnest(ARRAY[{oids}]::oid[])) AND r.pid IS NULL \
             AND t.locktype = 'transactionid' AND t.granted AND t.pid IS NULL)",
            literal(&self.session.facts.backend.pid)
        );
        for row in session.run(&sql).await.map_err(words)? {
            let mut fields = row.into_iter().flatten();
            let (Some(gid), Some(database), Some(owner)) =
                (fields.next(), fields.next(), fields.next())
            else {
                continue;
            };
            let there = self.visit(&database).await?;
            if !there.facts.superuser {
                let role = identifier(&owner);
                let mut become_owner = format!("SET ROLE {role}");
                if cases.iter().any(|case| case.login() == owner) {
                    // It may have taken our membership back.
                    become_owner.insert_str(0, &grant_to_us(&role, &there.facts));
                }
                there.run(&become_owner).await.map_err(words)?;
            }
            there.run(&format!("ROLLBACK PREPARED {}", literal(&gid))).await.map_err(words)?;
        }
        Ok(())
    }
}

/// One round of rung 2.
fn end_sessions_of(cases: &[Case]) -> String {
    let oids = literals(cases.iter().map(|case| case.oid.as_str()));
    format!(
        "SELECT pg_terminate_backend(pid), usesysid FROM pg_stat_activity \
         WHERE usesysid IN (SELECT unnest(ARRAY[{oids}]::oid[]))"
    )
}

/// After rung 1: fails, and undoes it, if another role has one of the names by now.
pub(super) fn check_barred(cases: &[Case]) -> String {
    let oids = literals(cases.iter().map(|case| case.oid.as_str()));
    format!(
        "SELECT (CASE WHEN EXISTS (SELECT FROM pg_roles WHERE rolcanlogin \
         AND oid IN (SELECT unnest(ARRAY[{oids}]::oid[]))) THEN 'the login was renamed meanwhile' \
         ELSE '1' END)::int"
    )
}

/// Rung 1 for one login.
pub(super) fn bar(case: &Case) -> String {
    let name = identifier(case.login());
    let hold = case.hold();
    format!("{hold}ALTER ROLE {name} NOLOGIN VALID UNTIL '-infinity' PASSWORD NULL;\n")
}
