//! Ends logins on MySQL: no login, no session, no account. Each rung is final when it is done.
//!
//! After rung 2 nobody can begin a session with the secret and none is left, whatever follows.

use std::collections::{BTreeSet, HashMap};
use std::time::Duration;

use mssm_messages::engine::Outcome;
use mssm_messages::failpoint;

use super::blockers::{cancel, end_at_once};
use super::errors::LOCK_TIMEOUT;
use super::facts::AUTHENTICATING;
use super::locks::{Locks, end, end_backends};
use super::mint::later;
use super::quote::{account, literals};
use super::survey::check_place;
use crate::book::{Book, Target};
use crate::dialect::Dialect;
use crate::engine::{DbError, Row};
use crate::ladder::{Case, Verdicts};
use crate::pool::Live;

/// How often an alteration that collided with others' work is sent again.
const TRIES: u32 = 3;
/// How long an alteration waits before we end those it may wait for.
const PATIENCE: Duration = Duration::from_millis(100);
/// How long we let those come back who are as fast as we are.
const AGAIN: Duration = Duration::from_millis(2);
/// How often we look whether those that were logging in while the login was barred are inside by now.
const LOOKS: u32 = 20;

/// A login and its accounts: the same name, from wherever it may come.
struct Found {
    case: Case,
    accounts: Vec<String>,
}

/// What every rung needs.
pub(crate) struct Climb<'a> {
    pub(crate) book: &'a Book,
    pub(crate) target: &'a Target,
    pub(crate) session: &'a Live,
    /// True if others may be waiting for their access to end.
    pub(crate) access_only: bool,
}

impl Climb<'_> {
    /// Climbs all rungs; an error is shared by those that have no verdict yet.
    pub(crate) async fn climb(
        &self,
        cases: Vec<Case>,
        verdicts: &mut Verdicts,
    ) -> Result<(), String> {
        check_place(self.session).await?;
        failpoint::here("mysql.revoke_before_look");
        self.end_minting(&cases).await?;
        let there = self.find(cases, verdicts).await?;
        failpoint::here("mysql.revoke_after_look");
        if there.is_empty() {
            return Ok(());
        }
        failpoint::here("mysql.revoke_before_access");
        let barred = self.bar(there, verdicts).await;
        failpoint::here("mysql.revoke_after_bar");
        if let Err(why) = self.end_logins(&barred).await {
            for found in &barred {
                verdicts.fail(&found.case, why.clone());
            }
            return Ok(());
        }
        failpoint::here("mysql.revoke_after_access");
        self.remove(barred, verdicts).await;
        Ok(())
    }

    /// Ends whoever may still make one of the logins, and sees them gone: from then on what is not
    /// there will not come.
    async fn end_minting(&self, cases: &[Case]) -> Result<(), String> {
        let doubtful: Vec<&Case> = cases.iter().filter(|case| case.in_doubt.is_some()).collect();
        let backends: Vec<_> =
            doubtful.iter().flat_map(|case| self.book.under_way(&case.lease)).collect();
        end_backends(self.session, &backends).await?;
        let boot = self.book.boot;
        if doubtful.iter().any(|case| case.in_doubt.is_some_and(|other| other != boot)) {
            let cluster = self.book.cluster().map_err(|error| error.to_string())?;
            Locks::of_run(cluster, boot).end_earlier(self.session).await?;
        }
        for case in doubtful {
            self.book.settle(&case.lease);
        }
        Ok(())
    }

    /// Replies the logins that are there; the others have their verdict.
    async fn find(&self, cases: Vec<Case>, verdicts: &mut Verdicts) -> Result<Vec<Found>, String> {
        let names = literals(cases.iter().map(Case::login));
        let sql = format!("SELECT User, Host FROM mysql.user WHERE User IN ({names})");
        let rows = self.look(&sql).await?;
        let mut accounts: HashMap<String, Vec<String>> = HashMap::new();
        for row in rows {
            let mut fields = row.into_iter().map(Option::unwrap_or_default);
            if let (Some(user), Some(host)) = (fields.next(), fields.next()) {
                let login = account(&user, &host);
                accounts.entry(user).or_default().push(login);
            }
        }
        let (mut there, mut absent) = (Vec::new(), Vec::new());
        for case in cases {
            match accounts.remove(case.login()) {
                Some(accounts) => there.push(Found { case, accounts }),
                None => absent.push(case),
            }
        }
        let renamed = self.find_marked(&absent).await?;
        for case in absent {
            match renamed.get(&case.marker) {
                Some(name) => verdicts
                    .fail(&case, format!("the login seems to have been renamed to \"{name}\"")),
                None => verdicts.set(&case, Outcome::Gone),
            }
        }
        Ok(there)
    }

    /// Asks of the tables of users; again after whoever held that up has been cancelled.
    async fn look(&self, sql: &str) -> Result<Vec<Row>, String> {
        for _ in 1..TRIES {
            match self.session.run(sql).await {
                Err(error) if error.code() == LOCK_TIMEOUT => {
                    cancel(self.book, self.session).await?;
                }
                said => return said.map_err(|error| error.public()),
            }
        }
        self.session.run(sql).await.map_err(|error| error.public())
    }

    /// Accounts that bear the markers of logins that are not there, where the server holds markers.
    async fn find_marked(&self, absent: &[Case]) -> Result<HashMap<String, String>, String> {
        let facts = &self.session.facts;
        if absent.is_empty() || facts.dialect != Dialect::MySql || facts.version < 80_021 {
            return Ok(HashMap::new());
        }
        let markers = literals(absent.iter().map(|case| case.marker.as_str()));
        let sql = format!(
            "SELECT ATTRIBUTE->>'$.mssm', USER FROM information_schema.USER_ATTRIBUTES \
             WHERE ATTRIBUTE->>'$.mssm' IN ({markers})"
        );
        let rows = self.session.run(&sql).await.map_err(|error| error.public())?;
        let pairs = rows.into_iter().filter_map(|row| {
            let mut fields = row.into_iter().flatten();
            Some((fields.next()?, fields.next()?))
        });
        Ok(pairs.collect())
    }

    /// Rung 1. Replies those that it bars; the others have their verdict, and lose the sessions that
    /// there are.
    async fn bar(&self, there: Vec<Found>, verdicts: &mut Verdicts) -> Vec<Found> {
        let all: Vec<&str> = there.iter().flat_map(Found::accounts).collect();
        let lock = |accounts: &[&str]| format!("ALTER USER {} ACCOUNT LOCK", accounts.join(", "));
        failpoint::here("mysql.revoke_before_bar");
        if self.insist(&lock(&all), &there).await.is_ok() {
            return there;
        }
        let (mut barred, mut open) = (Vec::with_capacity(there.len()), Vec::new());
        for found in there {
            let sql = lock(&found.accounts().collect::<Vec<_>>());
            match self.insist(&sql, std::slice::from_ref(&found)).await {
                Ok(()) => barred.push(found),
                Err(error) => {
                    verdicts.fail(&found.case, error.public());
                    open.push(found);
                }
            }
        }
        if let Err(why) = end(self.session, &sessions_of(&open)).await {
            tracing::warn!(why, "sessions of logins that could not be barred go on");
        }
        barred
    }

    /// Sends a statement, again after a collision. A login may itself hold what it waits for, or another
    /// of ours: as long as it waits another session ends the logins' own, and cancels what blocks.
    async fn insist(&self, sql: &str, logins: &[Found]) -> Result<(), DbError> {
        let mut tries = 0;
        loop {
            tries += 1;
            let sent = tokio::select! {
                sent = self.session.run(sql) => sent,
                error = self.press(logins) => Err(error),
            };
            match sent {
                Ok(_) => return Ok(()),
                Err(error) if tries < TRIES && error.code() == LOCK_TIMEOUT => {}
                Err(error) if tries < TRIES && error.is_transient() => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// Does so again and again; comes back only if that is impossible.
    async fn press(&self, logins: &[Found]) -> DbError {
        tokio::time::sleep(PATIENCE).await;
        let helper = match self.target.revoke.visit(&self.session.facts.database).await {
            Ok(helper) => helper,
            Err(error) => return error,
        };
        loop {
            let names = logins.iter().map(|found| found.case.login());
            if let Err(why) = end_at_once(&helper, names).await {
                tracing::warn!(why, "sessions of a login that blocks go on");
            }
            if let Err(why) = end(&helper, &sessions_of(logins)).await {
                tracing::warn!(why, "sessions of a login that blocks go on");
            }
            let again = match cancel(self.book, &helper).await {
                Ok(true) => AGAIN,
                Ok(false) => PATIENCE,
                Err(why) => {
                    tracing::warn!(why, "a statement that blocks goes on");
                    PATIENCE
                }
            };
            tokio::time::sleep(again).await;
        }
    }

    /// Rung 2: ends every session of the logins, also of those that were logging in meanwhile.
    async fn end_logins(&self, logins: &[Found]) -> Result<(), String> {
        if logins.is_empty() || failpoint::is_planted(failpoint::Fault::SessionsLeft) {
            return Ok(());
        }
        let sessions = sessions_of(logins);
        let entering = self.entering().await?;
        end(self.session, &sessions).await?;
        for _ in 0..LOOKS {
            // Whoever had passed the lock before it was there shows a name within moments; the others
            // will find it.
            if entering.is_disjoint(&self.entering().await?) {
                break;
            }
            tokio::time::sleep(AUTHENTICATING).await;
        }
        if entering.is_empty() { Ok(()) } else { end(self.session, &sessions).await }
    }

    /// Sessions that have not said, or not proved, who they are.
    async fn entering(&self) -> Result<BTreeSet<String>, String> {
        const ENTERING: &str = "SELECT ID FROM information_schema.PROCESSLIST \
             WHERE USER = 'unauthenticated user'";
        let rows = self.session.run(ENTERING).await.map_err(|error| error.public())?;
        Ok(rows.into_iter().flatten().flatten().collect())
    }

    /// Rungs 3 and 4: what the role says, and then the accounts.
    async fn remove(&self, barred: Vec<Found>, verdicts: &mut Verdicts) {
        let (plain, laden): (Vec<Found>, Vec<Found>) = barred
            .into_iter()
            .partition(|found| found.case.credential.revocation_statements.is_empty());
        self.drop_all(&plain, verdicts).await;
        for found in laden {
            if self.access_only {
                verdicts.set(&found.case, Outcome::Unfinished);
                continue;
            }
            let custom = self.run_custom(&found.case).await;
            let probe = found.case.credential.probe.as_deref();
            match (custom, probe) {
                (Ok(()), _) => self.drop_all(std::slice::from_ref(&found), verdicts).await,
                (Err(why), Some(probe)) => {
                    // Nobody was given this login: its role is refused, and it goes all the same.
                    self.book.candidates.note(found.case.credential.mount, probe, &why);
                    self.drop_all(std::slice::from_ref(&found), verdicts).await;
                }
                (Err(why), None) => verdicts.set(&found.case, Outcome::AccessEnded(why)),
            }
        }
    }

    /// The role's own statements; a refusal says which.
    async fn run_custom(&self, case: &Case) -> Result<(), String> {
        let credential = &case.credential;
        let dialect = self.session.facts.dialect;
        let texts = later(dialect, credential, &credential.revocation_statements, None);
        for (index, text) in texts.map_err(|error| error.to_string())?.iter().enumerate() {
            let ran = self.session.run(text).await;
            ran.map_err(|error| {
                let number = index + 1;
                format!("revocation_statements: statement {number}: {}", error.public())
            })?;
        }
        Ok(())
    }

    /// Rung 4 for many at once; if one cannot go, each for itself.
    async fn drop_all(&self, logins: &[Found], verdicts: &mut Verdicts) {
        if logins.is_empty() {
            return;
        }
        failpoint::here("mysql.revoke_before_drops");
        let accounts: Vec<&str> = logins.iter().flat_map(Found::accounts).collect();
        let dropped = self.insist(&drop_users(&accounts), logins).await;
        failpoint::here("mysql.revoke_after_drops");
        if let (Err(_), [_, _, ..]) = (&dropped, logins) {
            for found in logins {
                Box::pin(self.drop_all(std::slice::from_ref(found), verdicts)).await;
            }
            return;
        }
        // A session outlives its account: one that came in between must not.
        let left = end(self.session, &sessions_of(logins)).await;
        for found in logins {
            let outcome = match (&dropped, &left) {
                (Ok(()), Ok(())) => Outcome::Gone,
                (_, Err(why)) => Outcome::Failed(why.clone()),
                (Err(error), Ok(())) => Outcome::AccessEnded(error.public()),
            };
            verdicts.set(&found.case, outcome);
        }
    }
}

impl Found {
    fn accounts(&self) -> impl Iterator<Item = &str> {
        self.accounts.iter().map(String::as_str)
    }
}

fn drop_users(accounts: &[&str]) -> String {
    format!("DROP USER IF EXISTS {}", accounts.join(", "))
}

/// Finds the sessions of logins.
fn sessions_of(logins: &[Found]) -> String {
    let names = literals(logins.iter().map(|found| found.case.login()));
    format!(
        "SELECT ID FROM information_schema.PROCESSLIST \
         WHERE USER IN ({names}) AND ID <> CONNECTION_ID()"
    )
}
