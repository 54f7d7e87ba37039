//! Rung 1 for logins whose roles somebody holds: whoever is before us is ended, if we may.

use std::time::Duration;

use super::access::{NO_RIGHT, bar, check_barred};
use super::cleanup::LOCK_TIMEOUT;
use super::{Case, Ladder, Verdicts, words};
use crate::engine::{DbError, Refusal};
use crate::mint::{grant_to_us, pause};
use crate::pool::Live;
use crate::quote::{identifier, literal};

/// How often an alteration that collided with others' is sent again.
const TRIES: u32 = 10;
/// How long an alteration queues before we end those it waits for.
const PATIENCE: Duration = Duration::from_millis(100);
/// How often we find that we may not end whoever it is before we give up: another's work may be short.
const FOREIGN_LOOKS: u32 = 3;
/// How long one batch goes on with it: where others wait for their access to end, and where nobody does.
const SHORT: Duration = Duration::from_secs(2);
const LONG: Duration = Duration::from_secs(20);

impl Ladder {
    /// Replies those that are barred; the others have their verdict, and lose the sessions that there are.
    pub(super) async fn bar_stuck(
        &self,
        mut cases: Vec<Case>,
        verdicts: &mut Verdicts,
    ) -> Vec<Case> {
        // Not the same ones first each time.
        let mut byte = [0];
        self.book.random.fill(&mut byte);
        let first = usize::from(byte[0]) % cases.len().max(1);
        cases.rotate_left(first);
        let (mut barred, mut open) = (Vec::new(), Vec::new());
        let patience = if self.access_only { SHORT } else { LONG };
        for case in cases {
            if self.is_late(patience) {
                verdicts.fail(&case, "others' turn came before its role could be altered");
                open.push(case);
                continue;
            }
            match self.bar_one(&case).await {
                Ok(()) => barred.push(case),
                Err(error) => {
                    verdicts.fail(&case, words(error));
                    open.push(case);
                }
            }
        }
        // Whoever can still begin a session loses at least those that there are.
        if let Err(why) = self.end_sessions(&open).await {
            tracing::warn!(why, "sessions of logins that could not be barred go on");
        }
        barred
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
        let mut barring = std::pin::pin!(self.session.run(&sql));
        let (why, helper) = tokio::select! {
            barred = &mut barring => return barred.map(|_| ()),
            gave_up = self.press(case) => gave_up,
        };
        // The session is busy until the alteration has ended.
        if let Some(helper) = helper {
            self.give_up(&helper).await;
        }
        barring.await.map(|_| ()).map_err(|_| why)
    }

    /// Ends whoever is before us, again and again; comes back only if that is impossible.
    async fn press(&self, case: &Case) -> (DbError, Option<Live>) {
        tokio::time::sleep(PATIENCE).await;
        let helper = match self.target.revoke.open().await {
            Ok(helper) => helper,
            Err(error) => return (error, None),
        };
        let mut foreign_looks = 0;
        loop {
            match self.end_blocking(&helper, case).await {
                Ok(None) => foreign_looks = 0,
                Ok(Some(holder)) => {
                    foreign_looks += 1;
                    if foreign_looks >= FOREIGN_LOOKS {
                        return (held(&holder), Some(helper));
                    }
                }
                Err(error) => {
                    tracing::warn!(code = error.code(), "what blocks rung 1 could not be ended");
                }
            }
            if let Err(why) = self.end_prepared_through(&helper, std::slice::from_ref(case)).await {
                tracing::warn!(why, "a prepared transaction blocks rung 1");
            }
            tokio::time::sleep(PATIENCE).await;
        }
    }

    /// One round; replies who is before us and may not be ended by us.
    async fn end_blocking(&self, helper: &Live, case: &Case) -> Result<Option<String>, DbError> {
        let blocking = format!(
            "SELECT b.pid, a.usename FROM unnest(pg_blocking_pids({}::int)) AS b (pid) \
             LEFT JOIN pg_stat_activity a USING (pid) WHERE b.pid > 0",
            literal(&self.session.facts.backend.pid)
        );
        let mut foreign = None;
        for row in helper.run(&blocking).await? {
            let mut fields = row.into_iter().map(Option::unwrap_or_default);
            let (pid, user) = (fields.next().unwrap_or_default(), fields.next());
            let end = format!("SELECT pg_terminate_backend({}::int)", literal(&pid));
            match helper.run(&end).await {
                Err(error) if error.code() == NO_RIGHT => {}
                ended => {
                    ended?;
                    continue;
                }
            }
            // The login may have taken our membership back.
            let name = identifier(case.login());
            let again = format!("{}{end}", grant_to_us(&name, &helper.facts));
            if helper.run(&again).await.is_err() {
                let user = user.unwrap_or_default();
                foreign = Some(format!("a session of \"{user}\" (process {pid})"));
            }
        }
        let own = format!(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usesysid = {}::oid",
            literal(&case.oid)
        );
        helper.run(&own).await?;
        Ok(foreign)
    }

    /// The alteration would wait for longer than anybody should wait for it.
    async fn give_up(&self, helper: &Live) {
        let pid = literal(&self.session.facts.backend.pid);
        if let Err(error) = helper.run(&format!("SELECT pg_cancel_backend({pid}::int)")).await {
            tracing::warn!(code = error.code(), "an alteration of a login's role waits on");
        }
    }
}

/// Says who is in the way.
fn held(holder: &str) -> DbError {
    DbError::Refused(Refusal {
        code: LOCK_TIMEOUT.to_owned(),
        severity: "ERROR".to_owned(),
        message: format!(
            "{holder} holds the login's role in an open transaction, and the connection's user may \
             not end it: until that commits, the login is not barred"
        ),
        done: 0,
        position: None,
    })
}
