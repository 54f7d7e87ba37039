//! Rung 3: what a login owns and was granted, database by database: handed over, or dropped.
//!
//! Each database is a transaction of its own. One that cannot be reached is named and does not keep
//! the others from being done.

use std::fmt::Write;

use mssm_messages::failpoint;

use super::cleanup::Holdings;
use super::{Case, Ladder, words};
use crate::engine::{DbError, Row};
use crate::mint::grant_to_us;
use crate::pool::Live;
use crate::quote::{identifier, literal};

/// Handing over must not queue for long: everybody else would queue behind it.
pub(super) const BRIEFLY: &str = "SET LOCAL lock_timeout = '2s';\n";
/// Tables, views, sequences and large objects that are handed over in one transaction. Each holds locks,
/// of which the whole server has some ten thousand: a login that made more would have all others refused.
const PORTION: usize = 200;

impl Ladder {
    /// Without an owner what there is is dropped.
    pub(super) async fn hand_over_all(
        &self,
        case: &Case,
        held: &Holdings,
        owner: Option<&str>,
    ) -> Result<(), String> {
        let here = self.session.facts.database.as_str();
        let mut databases: Vec<&str> = held.databases.iter().map(String::as_str).collect();
        if databases.is_empty() && held.shared {
            databases.push(here);
        }
        let mut wrongs = Vec::new();
        for database in databases {
            if let Err(why) = self.hand_over_in(database, case, owner).await {
                wrongs.push(format!("database \"{database}\": {why}"));
            }
        }
        if wrongs.is_empty() { Ok(()) } else { Err(wrongs.join("; ")) }
    }

    async fn hand_over_in(
        &self,
        database: &str,
        case: &Case,
        owner: Option<&str>,
    ) -> Result<(), String> {
        let there;
        let session: &Live = if database == self.session.facts.database {
            &self.session
        } else {
            there = self.visit(database).await?;
            &there
        };
        self.hand_over(session, case, owner).await.map_err(words)
    }

    /// What is more than a transaction should hold, some at a time; the rest is left to it.
    async fn hand_over_portions(
        &self,
        session: &Live,
        case: &Case,
        owner: &str,
        first: &str,
    ) -> Result<(), DbError> {
        loop {
            let some = session.run(&portion(case, owner)).await?;
            if some.len() < PORTION {
                return Ok(());
            }
            let mut sql = first.to_owned();
            append(&mut sql, session.run(&schemas(case, owner)).await?);
            append(&mut sql, some);
            self.insist(session, &sql).await?;
        }
    }

    async fn hand_over(
        &self,
        session: &Live,
        case: &Case,
        owner: Option<&str>,
    ) -> Result<(), DbError> {
        let name = identifier(case.login());
        let mut sql = BRIEFLY.to_owned();
        sql.push_str(&case.hold());
        if !session.facts.superuser {
            // A login may have taken our membership back.
            sql.push_str(&grant_to_us(&name, &session.facts));
        }
        let mut code = Vec::new();
        if let Some(owner) = owner {
            code = find_code(session, case).await?;
            self.hand_over_portions(session, case, owner, &sql).await?;
            // A function that runs with its owner's rights must not come into others' hands.
            let definers = format!(
                "SELECT format('ALTER %s %s SECURITY INVOKER', CASE prokind WHEN 'p' THEN \
                 'PROCEDURE' ELSE 'FUNCTION' END, oid::regprocedure) FROM pg_proc \
                 WHERE proowner = {}::oid AND prosecdef",
                literal(&case.oid)
            );
            let first = format!("{definers};\n{}", schemas(case, owner));
            append(&mut sql, session.run(&first).await?);
            let _ = writeln!(sql, "REASSIGN OWNED BY {name} TO {};", identifier(owner));
        }
        let _ = write!(sql, "DROP OWNED BY {name}");
        failpoint::here("revoke.before_hand_over");
        let handed = self.insist(session, &sql).await;
        failpoint::here("revoke.after_hand_over");
        handed?;
        if !code.is_empty() {
            let (lease, login, database) = (&case.lease, case.login(), &session.facts.database);
            let code = code.join(", ");
            tracing::warn!(%lease, login, database, owner, code, "code that an ended login wrote stays in its owner's name");
        }
        Ok(())
    }
}

/// Schemas first: what is in them can be handed only to who may create in them.
fn schemas(case: &Case, owner: &str) -> String {
    let (owner, oid) = (literal(owner), literal(&case.oid));
    format!(
        "SELECT format('ALTER SCHEMA %I OWNER TO %I', nspname, {owner}) FROM pg_namespace \
         WHERE nspowner = {oid}::oid"
    )
}

/// The next portion; a column's own sequence goes with its table.
fn portion(case: &Case, owner: &str) -> String {
    let (owner, oid) = (literal(owner), literal(&case.oid));
    format!(
        "SELECT format('ALTER TABLE %I.%I OWNER TO %I', n.nspname, c.relname, {owner}) \
         FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE c.relowner = {oid}::oid \
         AND c.relkind IN ('r', 'p', 'v', 'm', 'f', 'S') AND NOT EXISTS (SELECT FROM pg_depend d \
         WHERE c.relkind = 'S' AND d.classid = 'pg_class'::regclass AND d.objid = c.oid \
         AND d.deptype IN ('a', 'i')) \
         UNION ALL SELECT format('ALTER LARGE OBJECT %s OWNER TO %I', oid, {owner}) \
         FROM pg_largeobject_metadata WHERE lomowner = {oid}::oid LIMIT {PORTION}"
    )
}

/// Puts statements that a query replied behind others.
fn append(sql: &mut String, statements: Vec<Row>) {
    for statement in statements.into_iter().flatten().flatten() {
        sql.push_str(&statement);
        sql.push_str(";\n");
    }
}

/// What a login leaves that runs by itself or when others touch it, by kind.
async fn find_code(session: &Live, case: &Case) -> Result<Vec<String>, DbError> {
    let oid = literal(&case.oid);
    let sql = format!(
        "SELECT count(*) || ' ' || kind FROM ( \
         SELECT 'functions' AS kind FROM pg_proc WHERE proowner = {oid}::oid \
         UNION ALL SELECT 'views' FROM pg_class WHERE relowner = {oid}::oid \
         AND relkind IN ('v', 'm') \
         UNION ALL SELECT 'triggers' FROM pg_trigger t JOIN pg_class c ON c.oid = t.tgrelid \
         WHERE c.relowner = {oid}::oid AND NOT t.tgisinternal \
         UNION ALL SELECT 'rules' FROM pg_rewrite r JOIN pg_class c ON c.oid = r.ev_class \
         WHERE c.relowner = {oid}::oid AND r.rulename <> '_RETURN' \
         UNION ALL SELECT 'indexes of expressions' FROM pg_index i \
         JOIN pg_class c ON c.oid = i.indexrelid WHERE c.relowner = {oid}::oid \
         AND (i.indexprs IS NOT NULL OR i.indpred IS NOT NULL) \
         UNION ALL SELECT 'foreign servers' FROM pg_foreign_server WHERE srvowner = {oid}::oid \
         UNION ALL SELECT 'subscriptions' FROM pg_subscription s \
         JOIN pg_database d ON d.oid = s.subdbid AND d.datname = current_database() \
         WHERE s.subowner = {oid}::oid) found GROUP BY kind ORDER BY 1"
    );
    Ok(session.run(&sql).await?.into_iter().flatten().flatten().collect())
}
