//! Nobody's access waits for logins that others hold: their roles, what they own, their sessions.

use std::process::Command;
use std::time::Duration;

use mssm_domain::SecretText;
use mssm_messages::engine::Outcome;
use mssm_messages::minter::{ConnectionPatch, RolePatch};
use mssm_testkit::{TestDatabase, TestPostgres};
use tokio::time::Instant;

use super::revoking;
use crate::testing::{CREATE, Login, Rig, patch};

/// A minter whose user may create roles and nothing more, and a role whose logins somebody inherits.
async fn limited(postgres: &TestPostgres) -> (Rig, TestDatabase) {
    let (rig, database) = revoking::rig(postgres).await;
    let (name, owner) = (format!("{}_admin", database.name), format!("{}_own", database.name));
    let roles = format!(
        "CREATE ROLE {name} LOGIN CREATEROLE PASSWORD 'limited'; CREATE ROLE {owner} NOLOGIN; \
         GRANT {owner} TO {name}; GRANT CREATE ON SCHEMA public TO {owner}"
    );
    postgres.admin(&database.name).await.batch_execute(&roles).await.unwrap();
    let definition = ConnectionPatch {
        username: Some(name),
        password: Some(SecretText::new("limited".to_owned())),
        ..patch(postgres, &database.name)
    };
    rig.connect(definition).await.unwrap();
    let inherited = RolePatch {
        creation_statements: Some(vec![CREATE.to_owned()]),
        owner: Some(owner),
        ..RolePatch::default()
    };
    rig.role_with("inherited", inherited).await.unwrap();
    (rig, database)
}

async fn many(rig: &Rig, role: &str, count: usize) -> Vec<Login> {
    let mut logins = Vec::new();
    for _ in 0..count {
        logins.push(rig.mint(role).await.unwrap());
    }
    logins
}

async fn end_access(rig: &Rig, logins: &[&Login]) -> Vec<Outcome> {
    rig.end(logins, None, true).await.unwrap()
}

#[actix_rt::test]
async fn a_superusers_open_transaction_on_logins_holds_up_nobody_else_and_is_named() {
    let postgres = TestPostgres::shared();
    let (rig, database) = limited(postgres).await;
    let (held, free) = (many(&rig, "app", 8).await, many(&rig, "app", 2).await);
    let foreign = postgres.admin(&database.name).await;
    foreign.batch_execute("BEGIN").await.unwrap();
    let mut sessions = Vec::new();
    for login in &held {
        let alter = format!("ALTER ROLE \"{}\" CONNECTION LIMIT 9", login.username);
        foreign.batch_execute(&alter).await.unwrap();
        let (user, password) = (&login.username, &login.password);
        sessions.push(postgres.connect(user, password, &database.name).await.unwrap());
    }
    let all: Vec<&Login> = held.iter().chain(&free).collect();
    let begun = Instant::now();
    let outcomes = end_access(&rig, &all).await;
    // Pressed one by one for as long as the queue lets them they would take half a minute.
    assert!(begun.elapsed() < Duration::from_secs(16), "{:?}", begun.elapsed());
    assert_eq!(outcomes[8..], [Outcome::Gone, Outcome::Gone]);
    assert!(outcomes[..8].iter().all(|outcome| matches!(outcome, Outcome::Failed(_))));
    let held: Vec<&Login> = held.iter().collect();
    let holder = format!("a session of \"{}\"", postgres.admin_user());
    let named =
        |outcome: &Outcome| matches!(outcome, Outcome::Failed(why) if why.contains(&holder));
    let outcomes = rig.revoke_all(&held[..2], None).await.unwrap();
    assert!(outcomes.iter().all(named), "{outcomes:?}");
    for session in &sessions {
        assert!(session.query("SELECT 1", &[]).await.is_err(), "sessions end all the same");
    }
    foreign.batch_execute("COMMIT").await.unwrap();
    assert!(end_access(&rig, &held).await.iter().all(|outcome| *outcome == Outcome::Gone));
}

#[actix_rt::test]
async fn what_logins_own_or_were_granted_holds_up_nobodys_access() {
    let postgres = TestPostgres::shared();
    let (rig, database) = limited(postgres).await;
    let admin = postgres.admin(&database.name).await;
    let (laden, plain) = (many(&rig, "inherited", 2).await, rig.mint("app").await.unwrap());
    let mut sessions = Vec::new();
    for (number, login) in laden.iter().enumerate() {
        let (user, password) = (&login.username, &login.password);
        let session = postgres.connect(user, password, &database.name).await.unwrap();
        session.batch_execute(&format!("CREATE TABLE held{number} (a int)")).await.unwrap();
        sessions.push(session);
    }
    let reader = postgres.admin(&database.name).await;
    reader.batch_execute("BEGIN; SELECT * FROM held0; SELECT * FROM held1").await.unwrap();
    let all = [&laden[0], &plain, &laden[1]];
    let outcomes = end_access(&rig, &all).await;
    assert_eq!(outcomes, [Outcome::Unfinished, Outcome::Gone, Outcome::Unfinished]);
    for session in &sessions {
        assert!(session.query("SELECT 1", &[]).await.is_err());
    }
    let outcomes = rig.revoke_all(&[&laden[0], &laden[1]], None).await.unwrap();
    let waits =
        |outcome: &Outcome| matches!(outcome, Outcome::AccessEnded(why) if why.contains("55P03"));
    assert!(outcomes.iter().all(waits), "{outcomes:?}");
    reader.batch_execute("COMMIT").await.unwrap();
    let outcomes = rig.revoke_all(&[&laden[0], &laden[1]], None).await.unwrap();
    assert_eq!(outcomes, [Outcome::Gone, Outcome::Gone]);

    // A grant that is not committed yet holds the role itself, for all that go with it.
    let several = many(&rig, "app", 3).await;
    admin.batch_execute("CREATE TABLE given (a int); BEGIN").await.unwrap();
    let grant = format!("GRANT SELECT ON given TO \"{}\"", several[1].username);
    admin.batch_execute(&grant).await.unwrap();
    let several: Vec<&Login> = several.iter().collect();
    let outcomes = end_access(&rig, &several).await;
    assert!(outcomes.iter().all(|outcome| *outcome == Outcome::Unfinished), "{outcomes:?}");
    let again = postgres.connect(&several[1].username, &several[1].password, &database.name);
    assert!(again.await.is_err());
    admin.batch_execute("ROLLBACK").await.unwrap();
    let outcomes = rig.revoke_all(&several, None).await.unwrap();
    assert!(outcomes.iter().all(|outcome| *outcome == Outcome::Gone), "{outcomes:?}");
}

/// Stops a backend as a debugger or a hanging disk would, until this is dropped.
struct Stopped(String);

impl Stopped {
    fn new(pid: i32) -> Self {
        signal("-STOP", &pid.to_string());
        Self(pid.to_string())
    }
}

impl Drop for Stopped {
    fn drop(&mut self) {
        signal("-CONT", &self.0);
    }
}

fn signal(which: &str, pid: &str) {
    assert!(Command::new("kill").args([which, pid]).status().unwrap().success());
}

#[actix_rt::test]
async fn a_session_that_does_not_end_keeps_no_other_login() {
    let postgres = TestPostgres::private();
    if postgres.log().is_none() {
        return; // Its processes are not on this machine.
    }
    let (rig, database) = limited(&postgres).await;
    let (stuck, free) = (rig.mint("app").await.unwrap(), rig.mint("app").await.unwrap());
    let session = postgres.connect(&stuck.username, &stuck.password, &database.name).await.unwrap();
    let pid: i32 = session.query_one("SELECT pg_backend_pid()", &[]).await.unwrap().get(0);
    let stopped = Stopped::new(pid);
    let outcomes = end_access(&rig, &[&stuck, &free]).await;
    assert!(matches!(&outcomes[0], Outcome::Failed(why) if why.contains("do not end")));
    assert_eq!(outcomes[1], Outcome::Gone);
    drop(stopped);
    assert_eq!(rig.revoke(&stuck).await, Outcome::Gone);
    assert!(session.query("SELECT 1", &[]).await.is_err());
}
