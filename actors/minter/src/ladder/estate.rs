//! Rung 3: what a login owns and was granted, database by database: handed over, or dropped.
//!
//! Each database is a transaction of its own. One that cannot be reached is named and does not keep
//! the others from being done.

use std::fmt::Write;

use mssm_messages::failpoint;

use super::cleanup::Holdings;
use super::{Case, Ladder, words};
use crate::engine::DbError;
use crate::mint::grant_to_us;
use crate::pool::Live;
use crate::quote::{identifier, literal};

/// Handing over must not queue for long: everybody else would queue behind it.
pub(super) const BRIEFLY: &str = "SET LOCAL lock_timeout = '2s';\n";

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
            // A function that runs with its owner's rights must not come into others' hands.
            let definers = format!(
                "SELECT format('ALTER %s %s SECURITY INVOKER', CASE prokind WHEN 'p' THEN \
                 'PROCEDURE' ELSE 'FUNCTION' END, oid::regprocedure) FROM pg_proc \
                 WHERE proowner = {}::oid AND prosecdef",
                literal(&case.oid)
            );
            // Schemas first: what is in them can be handed only to who may create in them.
            let schemas = format!(
                "SELECT format('ALTER SCHEMA %I OWNER TO %I', nspname, {}) FROM pg_namespace \
                 WHERE nspowner = {}::oid",
                literal(owner),
                literal(&case.oid)
            );
            let first = session.run(&format!("{definers};\n{schemas}")).await?;
            for statement in first.into_iter().flatten().flatten() {
                sql.push_str(&statement);
                sql.push_str(";\n");
            }
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
