//! Rungs 3 and 4: what to do with what the login owns and was granted, and then the role itself.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::Duration;

use mssm_messages::engine::Outcome;
use mssm_messages::failpoint;

use super::estate::BRIEFLY;
use super::{Case, Ladder, Verdicts, words};
use crate::dialect::Dialect;
use crate::engine::DbError;
use crate::engine::postgres::OWN_PATH;
use crate::mint::{failed_statement, pause, run_later};
use crate::pool::Live;
use crate::quote::{identifier, identifiers, literal, literals};

/// How often a statement that collided with others' is sent again.
const TRIES: u32 = 10;
/// After this time nothing more is begun in one batch: who asked waits a minute for it.
const CLEANING: Duration = Duration::from_secs(20);
/// "canceling statement due to lock timeout".
pub(super) const LOCK_TIMEOUT: &str = "55P03";
/// "role does not exist".
const NO_SUCH_ROLE: &str = "42704";

/// What the server knows to depend on a login.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Holdings {
    /// Objects owned, by database; default privileges and user mappings are nobody's to inherit.
    owned: BTreeMap<String, u64>,
    /// All databases where something has to be done.
    pub(super) databases: BTreeSet<String>,
    /// True if something of the whole server depends on it.
    pub(super) shared: bool,
}

impl Ladder {
    pub(super) async fn clean_up(&self, cases: Vec<Case>, verdicts: &mut Verdicts) {
        if cases.is_empty() {
            return;
        }
        let mut holdings = match self.find_holdings(&cases).await {
            Ok(holdings) => holdings,
            Err(error) => {
                let why = words(error);
                for case in &cases {
                    verdicts.set(case, Outcome::AccessEnded(why.clone()));
                }
                return;
            }
        };
        let (plain, laden): (Vec<Case>, Vec<Case>) = cases.into_iter().partition(|case| {
            let bare = !holdings.contains_key(&case.oid) && !case.renamed;
            bare && case.credential.revocation_statements.is_empty()
        });
        self.drop_all(&plain, verdicts).await;
        for case in laden {
            // Their access has ended: that of others comes first.
            if self.access_only || self.is_late(CLEANING) {
                verdicts.set(&case, Outcome::Unfinished);
                continue;
            }
            let held = holdings.remove(&case.oid).unwrap_or_default();
            let outcome = match self.unburden(&case, held).await {
                Ok(()) => self.drop_one(&case).await,
                Err(why) => Outcome::AccessEnded(why),
            };
            let outcome = match (&case.credential.probe, outcome) {
                (Some(probe), Outcome::AccessEnded(why)) => {
                    self.book.candidates.note(case.credential.mount, probe, &why);
                    self.sweep_probe(&case).await
                }
                (_, outcome) => outcome,
            };
            verdicts.set(&case, outcome);
        }
    }

    /// Nobody was given this login: what it owns came of its role's own statements, seconds ago.
    async fn sweep_probe(&self, case: &Case) -> Outcome {
        let held = match self.find_held(case).await {
            Ok(held) => held,
            Err(why) => return Outcome::AccessEnded(why),
        };
        match self.hand_over_all(case, &held, None).await {
            Ok(()) => self.drop_one(case).await,
            Err(why) => Outcome::AccessEnded(why),
        }
    }

    async fn find_holdings(&self, cases: &[Case]) -> Result<HashMap<String, Holdings>, DbError> {
        let oids = literals(cases.iter().map(|case| case.oid.as_str()));
        let sql = format!(
            "SELECT s.refobjid, d.datname, s.dbid = 0, count(*) FILTER (WHERE s.deptype = 'o' \
             AND s.classid NOT IN ('pg_default_acl'::regclass, 'pg_user_mapping'::regclass)) FROM pg_shdepend s \
             LEFT JOIN pg_database d ON d.oid = s.dbid \
             WHERE s.refclassid = 'pg_authid'::regclass \
             AND s.refobjid IN (SELECT unnest(ARRAY[{oids}]::oid[])) GROUP BY 1, 2, 3"
        );
        let mut holdings: HashMap<String, Holdings> = HashMap::new();
        for row in self.session.run(&sql).await? {
            let mut fields = row.into_iter();
            let mut field = || fields.next().flatten();
            let (oid, database, shared) = (field(), field(), field());
            let owned = field().and_then(|count| count.parse().ok()).unwrap_or(0);
            let held = holdings.entry(oid.unwrap_or_default()).or_default();
            held.shared |= shared.as_deref() == Some("t");
            if owned > 0 {
                let place = database.clone().unwrap_or_else(|| "the whole server".to_owned());
                held.owned.insert(place, owned);
            }
            if let Some(database) = database {
                held.databases.insert(database);
            }
        }
        Ok(holdings)
    }

    /// Rung 3. What a role's own statements leave goes the way of all others.
    async fn unburden(&self, case: &Case, held: Holdings) -> Result<(), String> {
        let custom = &case.credential.revocation_statements;
        let held = if custom.is_empty() {
            held
        } else {
            self.run_custom(case, custom).await?;
            self.find_held(case).await?
        };
        if held == Holdings::default() {
            return Ok(());
        }
        let owner = case.credential.owner.as_deref();
        match owner {
            Some(owner) => self.check_owner(owner).await?,
            None if !held.owned.is_empty() => return Err(says_owned(&held)),
            None => {}
        }
        // What a self-test's login owns is dropped: nobody is to inherit what nobody made.
        let owner = if case.credential.probe.is_some() { None } else { owner };
        self.hand_over_all(case, &held, owner).await
    }

    async fn find_held(&self, case: &Case) -> Result<Holdings, String> {
        let mut holdings = self.find_holdings(std::slice::from_ref(case)).await.map_err(words)?;
        Ok(holdings.remove(&case.oid).unwrap_or_default())
    }

    /// The role's own statements; a refusal says which.
    async fn run_custom(&self, case: &Case, custom: &[String]) -> Result<(), String> {
        if self.session.detour {
            return Err(
                "revocation_statements: the connection's database lets nobody in".to_owned()
            );
        }
        let mut sql = BRIEFLY.to_owned();
        sql.push_str(&case.hold());
        let mut lengths = vec![sql.chars().count(), OWN_PATH.len()];
        sql.push_str(OWN_PATH);
        for statement in Dialect::Postgres.split_all(custom).map_err(|error| error.to_string())? {
            let text = run_later(&case.credential, &[statement], None);
            let text = text.map_err(|error| error.to_string())?;
            lengths.push(text.chars().count());
            sql.push_str(&text);
        }
        let done = self.insist(&self.session, &sql).await;
        done.map_err(|error| {
            let number = match &error {
                DbError::Refused(refusal) => failed_statement(refusal, &lengths),
                _ => None,
            };
            // The first two are ours.
            let place = number.filter(|number| *number > 2);
            let place = place.map_or(String::new(), |number| format!("statement {}: ", number - 2));
            format!("revocation_statements: {place}{}", words(error))
        })
    }

    /// An owner that may log in or is mighty would give the login's code its rights.
    async fn check_owner(&self, owner: &str) -> Result<(), String> {
        let sql = owner_query(owner);
        let rows = self.session.run(&sql).await.map_err(words)?;
        let row = rows.into_iter().next().map(|row| row.into_iter().flatten().collect::<Vec<_>>());
        match row.as_deref() {
            None => Err(format!("the owner \"{owner}\" does not exist")),
            Some([unfit, ..]) if unfit == "t" => Err(unfit_owner(owner)),
            Some(_) => Ok(()),
        }
    }

    pub(super) async fn insist(&self, session: &Live, sql: &str) -> Result<(), DbError> {
        let mut tries = 0;
        loop {
            tries += 1;
            match session.run(sql).await {
                Ok(_) => return Ok(()),
                Err(error) if error.is_transient() && tries < TRIES => {
                    pause(self.book.random.as_ref()).await;
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// Rung 4 for many at once; if one cannot go, each for itself.
    async fn drop_all(&self, cases: &[Case], verdicts: &mut Verdicts) {
        if cases.is_empty() {
            return;
        }
        let names = identifiers(cases.iter().map(Case::login));
        failpoint::here("revoke.before_drops");
        let sql = format!("DROP ROLE {names};\n{}", check_dropped(cases));
        let dropped = self.session.run(&sql).await;
        failpoint::here("revoke.after_drops");
        // Each of them may wait as long.
        let waits = matches!(&dropped, Err(error) if error.code() == LOCK_TIMEOUT);
        if dropped.is_ok() {
            for case in cases {
                self.book.settle(&case.lease);
                verdicts.set(case, Outcome::Gone);
            }
            return;
        }
        for case in cases {
            if self.access_only && waits || self.is_late(CLEANING) {
                verdicts.set(case, Outcome::Unfinished);
                continue;
            }
            let outcome = self.drop_one(case).await;
            verdicts.set(case, outcome);
        }
    }

    async fn drop_one(&self, case: &Case) -> Outcome {
        let check = check_dropped(std::slice::from_ref(case));
        let sql = format!("{}DROP ROLE {};\n{check}", case.hold(), identifier(case.login()));
        failpoint::here("revoke.before_drop");
        let dropped = self.insist(&self.session, &sql).await;
        failpoint::here("revoke.after_drop");
        match dropped {
            Ok(()) => {}
            Err(error) if error.code() == NO_SUCH_ROLE => {}
            Err(error) => return Outcome::AccessEnded(words(error)),
        }
        self.book.settle(&case.lease);
        Outcome::Gone
    }
}

/// After a drop: fails, and undoes it, if it took another role that has the name by now.
fn check_dropped(cases: &[Case]) -> String {
    let oids = literals(cases.iter().map(|case| case.oid.as_str()));
    format!(
        "SELECT (CASE WHEN EXISTS (SELECT FROM pg_roles WHERE oid IN (SELECT unnest(ARRAY[{oids}]::oid[]))) \
         THEN 'the login was renamed meanwhile' ELSE '1' END)::int"
    )
}

fn says_owned(held: &Holdings) -> String {
    let count: u64 = held.owned.values().sum();
    let places: Vec<&str> = held.owned.keys().map(String::as_str).collect();
    let places = places.join(", ");
    format!("it owns {count} objects in {places}; configure the role's `owner` to hand them over")
}

/// Asks whether a role may be handed what logins own: first column true if it is unfit, second
/// true if we can act for it.
pub(crate) fn owner_query(owner: &str) -> String {
    let owner = literal(owner);
    format!(
        "SELECT rolsuper OR rolcanlogin OR rolname = current_user, \
         pg_has_role(current_user, oid, 'USAGE') FROM pg_roles WHERE rolname = {owner}"
    )
}

/// Why a role may not be an owner.
pub(crate) fn unfit_owner(owner: &str) -> String {
    format!(
        "the owner \"{owner}\" is a superuser, can log in or is the connection's own user: what a \
         login left behind would run with its rights"
    )
}
