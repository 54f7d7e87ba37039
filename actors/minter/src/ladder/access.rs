//! Rungs 1 and 2: no new session with the secret, and none left.

use std::collections::HashMap;
use std::time::Duration;

use mssm_messages::failpoint;

use super::{Case, Ladder, Verdicts, words};
use crate::engine::{DbError, Row};
use crate::mint::{grant_to_us, pause};
use crate::quote::{identifier, literal, literals};

/// How often an alteration that collided with others' is sent again.
const TRIES: u32 = 10;
/// How often rung 1 is tried for many at once, before it is done one by one.
const BATCH_TRIES: u32 = 3;
/// How often we look whether sessions that were told to end have: about 5 s in all.
const LOOKS: u32 = 20;
/// How often we look whether who does not show goes on hiding, and the pause between: 500 ms.
const HIDDEN_LOOKS: u32 = 20;
const HIDDEN_PAUSE: Duration = Duration::from_millis(25);
/// How long an alteration queues before we end those it waits for.
const PATIENCE: Duration = Duration::from_millis(100);
/// "insufficient privilege".
const NO_RIGHT: &str = "42501";

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
        let (barred, open) = self.bar_all(cases, verdicts).await;
        failpoint::here("revoke.after_bar");
        // Whoever can still begin a session loses at least those that there are.
        if let Err(why) = self.end_sessions(&open).await {
            tracing::warn!(why, "sessions of logins that could not be barred go on");
        }
        if let Err(why) = self.end_all_sessions(&barred).await {
            for case in &barred {
                verdicts.fail(case, why.clone());
            }
            return Vec::new();
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

    /// Rung 1. Replies those that it bars, and those that it does not: they have their verdict.
    async fn bar_all(&self, cases: Vec<Case>, verdicts: &mut Verdicts) -> (Vec<Case>, Vec<Case>) {
        let (mut barred, mut open) = (Vec::with_capacity(cases.len()), Vec::new());
        if cases.len() > 1 {
            let mut all: String = cases.iter().map(bar).collect();
            all.push_str(&check_barred(&cases));
            for _ in 0..BATCH_TRIES {
                let Err(error) = self.session.run(&all).await else { return (cases, open) };
                tracing::debug!(code = error.code(), "rung 1 did not bar all at once");
                // Those that lock their own role let go together: nobody waits behind them.
                if self.session.run(&end_sessions_of(&cases)).await.is_err() {
                    break;
                }
                tokio::time::sleep(HIDDEN_PAUSE).await;
            }
        }
        for case in cases {
            match self.bar_one(&case).await {
                Ok(()) => barred.push(case),
                Err(error) => {
                    verdicts.fail(&case, words(error));
                    open.push(case);
                }
            }
        }
        (barred, open)
    }

    async fn bar_one(&self, case: &Case) -> Result<(), DbError> {
        let mut tries = 0;
        loop {
            tries += 1;
            match self.bar_pressing(case).await {
                Err(error) if error.is_transient() && tries < TRIES => {
                    pause(self.book.random.as_ref()).await;
                }
                done => return done,
            }
        }
    }

    /// The login itself may hold the lock that bars it: the alteration keeps its place in the
    /// queue while another session ends whoever is before it.
    async fn bar_pressing(&self, case: &Case) -> Result<(), DbError> {
        let check = check_barred(std::slice::from_ref(case));
        let sql = format!("SET LOCAL lock_timeout = '4s';\n{}{check}", bar(case));
        tokio::select! {
            barred = self.session.run(&sql) => barred.map(|_| ()),
            error = self.press(case) => Err(error),
        }
    }

    /// Ends whoever is before us, again and again; comes back only if that is impossible.
    async fn press(&self, case: &Case) -> DbError {
        let facts = &self.session.facts;
        tokio::time::sleep(PATIENCE).await;
        let helper = match self.target.revoke.open().await {
            Ok(helper) => helper,
            Err(error) => return error,
        };
        let end = format!(
            "SELECT pg_terminate_backend(pid) FROM unnest(pg_blocking_pids({}::int)) AS pid \
             WHERE pid > 0;\nSELECT pg_terminate_backend(pid) FROM pg_stat_activity \
             WHERE usesysid = {}::oid",
            literal(&facts.backend.pid),
            literal(&case.oid)
        );
        loop {
            if let Err(error) = helper.run(&end).await {
                tracing::warn!(code = error.code(), "what blocks rung 1 could not be ended");
            }
            if let Err(why) = self.end_prepared_through(&helper, std::slice::from_ref(case)).await {
                tracing::warn!(why, "a prepared transaction blocks rung 1");
            }
            tokio::time::sleep(PATIENCE).await;
        }
    }

    /// Rung 2: ends every session of the logins, also those that do not show.
    async fn end_all_sessions(&self, cases: &[Case]) -> Result<(), String> {
        if failpoint::is_planted(failpoint::Fault::SessionsLeft) {
            return Ok(());
        }
        self.end_sessions(cases).await?;
        if !cases.is_empty() && self.end_hidden(cases).await? {
            // Some showed themselves meanwhile.
            self.end_sessions(cases).await?;
        }
        Ok(())
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

    /// Ends sessions until none is seen.
    async fn end_sessions(&self, cases: &[Case]) -> Result<(), String> {
        if cases.is_empty() {
            return Ok(());
        }
        let sql = end_sessions_of(cases);
        let mut granted = false;
        for look in 0..LOOKS {
            match self.session.run(&sql).await {
                Ok(rows) if rows.is_empty() => return Ok(()),
                Ok(_) => {}
                Err(error) if error.code() == NO_RIGHT && !granted => {
                    granted = true;
                    self.grant_all(cases).await.map_err(words)?;
                    continue;
                }
                Err(error) => return Err(words(error)),
            }
            tokio::time::sleep(Duration::from_millis(5 << look.min(6))).await;
        }
        Err("sessions of the login do not end".to_owned())
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
    async fn end_prepared_through(
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
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity \
         WHERE usesysid IN (SELECT unnest(ARRAY[{oids}]::oid[]))"
    )
}

/// After rung 1: fails, and undoes it, if another role has one of the names by now.
fn check_barred(cases: &[Case]) -> String {
    let oids = literals(cases.iter().map(|case| case.oid.as_str()));
    format!(
        "SELECT (CASE WHEN EXISTS (SELECT FROM pg_roles WHERE rolcanlogin \
         AND oid IN (SELECT unnest(ARRAY[{oids}]::oid[]))) THEN 'the login was renamed meanwhile' \
         ELSE '1' END)::int"
    )
}

/// Rung 1 for one login.
fn bar(case: &Case) -> String {
    let name = identifier(case.login());
    let hold = case.hold();
    format!("{hold}ALTER ROLE {name} NOLOGIN VALID UNTIL '-infinity' PASSWORD NULL;\n")
}
