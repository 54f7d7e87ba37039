//! The mint in doubt: a login that is not there may still come, until that is made impossible.

use std::time::Duration;

use mssm_domain::BootId;
use mssm_messages::failpoint;

use super::{Case, Ladder, words};
use crate::pool::Backend;
use crate::quote::{identifier, literal};
use crate::spec::{Lane, application_name};

/// How often we look whether backends that were told to end have.
const LOOKS: u32 = 20;

impl Ladder {
    /// True if the login is there after all; false if it is not and never will be.
    ///
    /// Its name is taken by a role that cannot log in: that waits for a mint in flight, and then
    /// either finds its login, or no late mint can commit any more. The fence goes once the
    /// mint's backend is known to be gone.
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
        let fenced = self.session.run(&fence).await;
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

    /// Who may still have the SQL, as a condition on `pg_stat_activity`.
    ///
    /// Of this very run we know the one backend, if it was sent at all; of an earlier one, all that
    /// made logins.
    fn minting(&self, case: &Case, boot: BootId) -> Result<String, String> {
        if boot != self.book.boot {
            let cluster = self.book.cluster().map_err(|error| error.to_string())?;
            let name = application_name(cluster, boot, Lane::Mint);
            return Ok(format!("application_name = {}", literal(&name)));
        }
        Ok(match self.book.under_way(&case.lease) {
            Some(Backend { pid, started }) => {
                let (pid, started) = (literal(&pid), literal(&started));
                format!("pid = {pid}::int AND backend_start = {started}::timestamptz")
            }
            None => "false".to_owned(),
        })
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
