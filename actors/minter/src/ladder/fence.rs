//! The mint in doubt: a login that is not there may still come, until that is made impossible.

use std::collections::BTreeSet;
use std::time::Duration;

use mssm_domain::BootId;
use mssm_messages::failpoint;

use super::{Case, Ladder, words};
use crate::engine::DbError;
use crate::pool::Backend;
use crate::quote::{identifier, literal};
use crate::spec::{cluster_prefix, run_prefix};

/// How often we look whether backends that were told to end have.
const LOOKS: u32 = 20;

impl Ladder {
    /// True if the login is there after all; false if it is not and never will be.
    ///
    /// Its name is taken by a role that cannot log in: that waits for a mint in flight, and then
    /// either finds its login, or no late mint can commit any more. The fence goes once the
    /// mint's backend is known to be gone. A fence whose answer was lost may come late as well:
    /// its backend is ended like the mint's.
    pub(super) async fn fence(&self, case: &Case, boot: BootId) -> Result<bool, String> {
        const DUPLICATES: [&str; 2] = ["42710", "23505"];
        let backends = self.minting(case, boot)?;
        self.end_backends(&backends).await?;
        let name = identifier(case.login());
        let fence = format!(
            "SET LOCAL lock_timeout = '5s';\nCREATE ROLE {name} NOLOGIN;\n\
             COMMENT ON ROLE {name} IS {}",
            literal(&case.marker)
        );
        failpoint::here("fence.before_create");
        self.book.begin(&case.lease, self.session.facts.backend.clone());
        let fenced = self.session.run(&fence).await;
        if !matches!(fenced, Err(DbError::Lost)) {
            self.book.answered(&case.lease, &self.session.facts.backend);
        }
        failpoint::here("fence.after_create");
        match fenced {
            Ok(_) => {}
            Err(error) if DUPLICATES.contains(&error.code()) => return Ok(true),
            Err(error) => return Err(words(error)),
        }
        // None of them can have come back: a mint is sent once. A last look before it goes.
        self.end_backends(&backends).await?;
        failpoint::here("fence.before_drop");
        self.session.run(&format!("DROP ROLE {name}")).await.map_err(words)?;
        failpoint::here("fence.after_drop");
        self.book.settle(&case.lease);
        Ok(false)
    }

    /// Ends whoever may still make a login, or a fence in its place, behind the ladder's back: one
    /// that is there was made by the mint, but an earlier run's fence may come when it is gone.
    pub(super) async fn end_late(&self, cases: &[Case]) -> Result<(), String> {
        let doubtful = cases.iter().filter_map(|case| Some((case, case.in_doubt?)));
        let backends: Result<BTreeSet<String>, String> =
            doubtful.map(|(case, boot)| self.minting(case, boot)).collect();
        let backends = backends?.into_iter().collect::<Vec<_>>().join(" OR ");
        if backends.is_empty() { Ok(()) } else { self.end_backends(&backends).await }
    }

    /// Who may still have the SQL, as a condition on `pg_stat_activity`.
    ///
    /// Of this very run we know each backend; of earlier ones, which may have been more than the
    /// one that made the login, all of this cluster.
    fn minting(&self, case: &Case, boot: BootId) -> Result<String, String> {
        let mut backends: Vec<String> = Vec::new();
        if boot != self.book.boot {
            let cluster = self.book.cluster().map_err(|error| error.to_string())?;
            // Not those of this run: a rotation of ours may be under way.
            backends.push(format!(
                "(starts_with(application_name, {}) AND NOT starts_with(application_name, {}))",
                literal(&cluster_prefix(cluster)),
                literal(&run_prefix(cluster, self.book.boot))
            ));
        }
        for Backend { pid, started } in self.book.under_way(&case.lease) {
            let (pid, started) = (literal(&pid), literal(&started));
            backends.push(format!("(pid = {pid}::int AND backend_start = {started}::timestamptz)"));
        }
        Ok(if backends.is_empty() { "false".to_owned() } else { backends.join(" OR ") })
    }

    async fn end_backends(&self, condition: &str) -> Result<(), String> {
        let sql =
            format!("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE {condition}");
        for look in 0..LOOKS {
            if self.session.run(&sql).await.map_err(words)?.is_empty() {
                return Ok(());
            }
            tokio::time::sleep(Duration::from_millis(5 << look.min(6))).await;
        }
        Err("the session that was making the login does not end".to_owned())
    }
}
