//! Root passwords on a real PostgreSQL.

use std::time::Duration;

use mssm_domain::{ConnectionName, SecretText};
use mssm_messages::engine::EngineError;
use mssm_messages::minter::{Configure, ConnectionPatch, ReadConnection, WriteConnection};
use mssm_messages::rotation::{PlanPatch, RotateRoot};
use mssm_messages::storage::StorageError;
use mssm_testkit::{MemoryStore, TestDatabase, TestPostgres};
use tokio_postgres::Client;

use crate::minter::Tick;
use crate::testing::{CREATE, FakeDatabase, Rig, fake_patch, no, patch, real_now, row};

pub(super) const ALTER: &str = "ALTER ROLE {{name}} PASSWORD '{{password}}'";
pub(super) const FIRST: &str = "first";

/// A database, and a user of it whose password is to change.
pub(super) struct Place {
    pub(super) postgres: &'static TestPostgres,
    pub(super) database: TestDatabase,
    pub(super) admin: Client,
    pub(super) user: String,
}

impl Place {
    pub(super) async fn new() -> Self {
        let postgres = TestPostgres::shared();
        let database = postgres.fresh_database().await;
        let admin = postgres.admin(&database.name).await;
        let user = format!("{}_user", database.name);
        let place = Self { postgres, database, admin, user };
        place.sql(&format!("CREATE ROLE {} LOGIN CREATEROLE PASSWORD '{FIRST}'", place.user)).await;
        place
    }

    pub(super) async fn sql(&self, sql: &str) {
        self.admin.batch_execute(sql).await.unwrap();
    }

    pub(super) async fn accepts(&self, user: &str, password: &str) -> bool {
        self.postgres.connect(user, password, &self.database.name).await.is_ok()
    }

    /// A server whose connections log in as the user.
    pub(super) fn as_user(&self) -> ConnectionPatch {
        ConnectionPatch {
            username: Some(self.user.clone()),
            password: Some(SecretText::new(FIRST.to_owned())),
            ..patch(self.postgres, &self.database.name)
        }
    }

    pub(super) async fn rig(&self, patch: ConnectionPatch) -> Rig {
        let rig = self.rig_over(&MemoryStore::new()).await;
        rig.connect(patch).await.unwrap();
        rig.role("app", &[CREATE]).await.unwrap();
        rig
    }

    /// What a crash leaves: another run over the same records.
    pub(super) async fn rig_over(&self, store: &MemoryStore) -> Rig {
        let seed = u64::from_str_radix(&self.database.name[1..], 16).unwrap();
        let seed = seed.wrapping_add(store.commits());
        Rig::real_over(seed, store).open().await
    }

    /// Waits until a session of ours sleeps in the database.
    pub(super) async fn until_asleep(&self) {
        let sql = format!(
            "SELECT 1 FROM pg_stat_activity WHERE datname = '{}' AND wait_event = 'PgSleep'",
            self.database.name
        );
        while self.admin.query(&sql, &[]).await.unwrap().is_empty() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}

impl Rig {
    pub(super) async fn rotate_root(&self) -> Result<(), EngineError> {
        let name = ConnectionName::parse("main").unwrap();
        self.minter.send(RotateRoot { mount: self.mount, name }).await.unwrap()
    }

    async fn connection(&self, name: &str, patch: ConnectionPatch) -> Result<(), EngineError> {
        let name = ConnectionName::parse(name).unwrap();
        let write = WriteConnection { mount: self.mount, name, patch };
        self.minter.send(write).await.unwrap().map(|_| ())
    }

    pub(super) async fn in_doubt(&self) -> bool {
        let name = ConnectionName::parse("main").unwrap();
        let read = ReadConnection { mount: self.mount, name };
        self.minter.send(read).await.unwrap().unwrap().rotation.in_doubt
    }

    pub(super) async fn tick(&self) {
        self.minter.send(Tick).await.unwrap();
    }
}

pub(super) fn statements(texts: &[&str]) -> ConnectionPatch {
    let texts = texts.iter().map(|text| (*text).to_owned()).collect();
    ConnectionPatch { root_rotation_statements: Some(texts), ..ConnectionPatch::default() }
}

#[actix_rt::test]
async fn a_root_password_changes_and_the_server_goes_on() {
    let place = Place::new().await;
    let rig = place.rig(place.as_user()).await;
    for _ in 0..3 {
        rig.rotate_root().await.unwrap();
        assert!(!place.accepts(&place.user, FIRST).await);
        rig.mint("app").await.unwrap();
    }
    let next = place.rig_over(&rig.store).await;
    next.mint("app").await.unwrap();
    next.rotate_root().await.unwrap();
    next.mint("app").await.unwrap();
    // The one before is kept: a failover or a restored backup may bring it back.
    let before = "SELECT rolpassword FROM pg_authid WHERE rolname = $1";
    let verifier = place.admin.query_one(before, &[&place.user]).await.unwrap();
    next.rotate_root().await.unwrap();
    let verifier: String = verifier.get(0);
    place.sql(&format!("ALTER ROLE {} PASSWORD '{verifier}'", place.user)).await;
    let restored = place.rig_over(&next.store).await;
    restored.mint("app").await.unwrap();
}

#[actix_rt::test]
async fn connections_that_share_a_root_user_change_together() {
    let place = Place::new().await;
    let rig = place.rig(place.as_user()).await;
    rig.connection("other", place.as_user()).await.unwrap();
    let db_name = Some("other".to_owned());
    let creation_statements = Some(vec![CREATE.to_owned()]);
    let role =
        mssm_messages::minter::RolePatch { db_name, creation_statements, ..Default::default() };
    rig.role_with("beside", role).await.unwrap();
    rig.rotate_root().await.unwrap();
    assert!(!place.accepts(&place.user, FIRST).await);
    rig.mint("app").await.unwrap();
    rig.mint("beside").await.unwrap();
}

#[actix_rt::test]
async fn a_client_killed_mid_rotation_behind_a_sleep_is_not_locked_out_later() {
    let place = Place::new().await;
    let rig = place.rig(place.as_user()).await;
    rig.connect(statements(&["SELECT pg_sleep(2)", ALTER])).await.unwrap();
    let minter = rig.minter.clone();
    let name = ConnectionName::parse("main").unwrap();
    let lost = minter.send(RotateRoot { mount: rig.mount, name });
    let lost = actix_rt::spawn(lost);
    place.until_asleep().await;
    // The next run sees what the last one stored; the ALTER is still in flight.
    let next = place.rig_over(&rig.store.copy()).await;
    next.mint("app").await.unwrap();
    while next.in_doubt().await {
        next.tick().await;
    }
    // The sleep would be over by now.
    assert!(lost.await.unwrap().unwrap().is_err());
    let last = place.rig_over(&next.store).await;
    last.mint("app").await.unwrap();
    last.connect(statements(&[ALTER])).await.unwrap();
    last.rotate_root().await.unwrap();
    last.mint("app").await.unwrap();
}

#[actix_rt::test]
async fn a_rotation_that_the_store_did_not_hear_the_end_of_is_settled_later() {
    let place = Place::new().await;
    let rig = place.rig(place.as_user()).await;
    rig.store.pass_next();
    rig.store.fail_next(StorageError::NoSpace("full".to_owned()));
    let unknown = rig.rotate_root().await.unwrap_err();
    assert!(matches!(unknown, EngineError::Unavailable(_)), "{unknown}");
    assert!(rig.in_doubt().await);
    assert!(!place.accepts(&place.user, FIRST).await, "the database has the new one");
    rig.mint("app").await.unwrap();
    let next = place.rig_over(&rig.store).await;
    next.mint("app").await.unwrap();
    while next.in_doubt().await {
        next.tick().await;
    }
    next.mint("app").await.unwrap();
}

#[actix_rt::test]
async fn nothing_is_sent_that_is_not_stored() {
    let place = Place::new().await;
    let rig = place.rig(place.as_user()).await;
    for error in [StorageError::NoSpace("full".to_owned()), StorageError::Unknown(String::new())] {
        rig.store.fail_next(error);
        rig.rotate_root().await.unwrap_err();
        assert!(place.accepts(&place.user, FIRST).await);
    }
    rig.store.doubt_next();
    rig.rotate_root().await.unwrap_err();
    assert!(place.accepts(&place.user, FIRST).await);
    rig.rotate_root().await.unwrap();
    rig.mint("app").await.unwrap();
}

#[actix_rt::test]
async fn a_rotation_that_the_database_refuses_changes_nothing() {
    let place = Place::new().await;
    let rig = place.rig(place.as_user()).await;
    for (texts, words) in [
        (&[ALTER, "SELECT 1/0"][..], "division by zero"),
        (&["SELECT '{{password}}'"][..], "still the one before"),
    ] {
        rig.connect(statements(texts)).await.unwrap();
        let refused = rig.rotate_root().await.unwrap_err();
        assert!(refused.to_string().contains(words), "{refused}");
        assert!(!rig.in_doubt().await);
        assert!(place.accepts(&place.user, FIRST).await);
        rig.mint("app").await.unwrap();
    }
    let spilling = ["DO $$ BEGIN RAISE EXCEPTION '{{password}}'; END $$"];
    rig.connect(statements(&spilling)).await.unwrap();
    let refused = rig.rotate_root().await.unwrap_err();
    assert!(refused.to_string().contains("holds the password"), "{refused}");
}

#[actix_rt::test]
async fn an_operator_may_say_anew_what_the_password_is_while_it_is_in_doubt() {
    let place = Place::new().await;
    let rig = place.rig(place.as_user()).await;
    rig.store.pass_next();
    rig.store.fail_next(StorageError::NoSpace("full".to_owned()));
    rig.rotate_root().await.unwrap_err();
    place.sql(&format!("ALTER ROLE {} PASSWORD 'by hand'", place.user)).await;
    let anew = |verify| ConnectionPatch {
        password: Some(SecretText::new("by hand".to_owned())),
        verify_connection: Some(verify),
        ..ConnectionPatch::default()
    };
    rig.tick().await;
    assert!(rig.in_doubt().await, "neither logs in, so neither is given up");
    assert!(rig.connect(anew(false)).await.is_err());
    rig.connect(anew(true)).await.unwrap();
    assert!(!rig.in_doubt().await);
    rig.mint("app").await.unwrap();
    rig.rotate_root().await.unwrap();
}

#[actix_rt::test]
async fn a_root_password_changes_by_a_plan() {
    let place = Place::new().await;
    let rig = place.rig(place.as_user()).await;
    let plan = PlanPatch { rotation_period_secs: Some(3600), ..PlanPatch::default() };
    rig.connect(ConnectionPatch { plan, ..ConnectionPatch::default() }).await.unwrap();
    rig.clock.advance(Duration::from_mins(59));
    rig.tick().await;
    assert!(place.accepts(&place.user, FIRST).await, "not yet");
    rig.clock.advance(Duration::from_mins(1));
    let next = place.rig_over(&rig.store).await;
    next.clock.set(mssm_domain::Clock::now(&rig.clock));
    while place.accepts(&place.user, FIRST).await {
        next.tick().await;
    }
    next.clock.set(real_now());
    next.mint("app").await.unwrap();
}

#[actix_rt::test]
async fn what_cannot_be_rotated_is_refused_clearly() {
    let rig = Rig::fake(&FakeDatabase::new()).open().await;
    let spelled = ConnectionPatch {
        connection_url: Some(SecretText::new("postgresql://a:b@127.0.0.1/app".to_owned())),
        ..fake_patch()
    };
    rig.connect(spelled).await.unwrap();
    let refused = rig.rotate_root().await.unwrap_err();
    assert!(matches!(&refused, EngineError::Invalid(text) if text.contains("connection_url")));
    let none = ConnectionPatch { password: Some(SecretText::new(String::new())), ..fake_patch() };
    rig.connect(none).await.unwrap();
    let refused = rig.rotate_root().await.unwrap_err();
    assert!(matches!(&refused, EngineError::Invalid(text) if text.contains("no password")));
    // A server that lets everybody in proves nothing.
    let database = FakeDatabase::new();
    let rig = Rig::fake(&database).open().await;
    rig.connect(fake_patch()).await.unwrap();
    database.answer("session_user", Ok(vec![row(&["admin", "f"])]));
    database.answer("session_user", Ok(vec![row(&["admin", "f"])]));
    let refused = rig.rotate_root().await.unwrap_err();
    assert!(matches!(&refused, EngineError::Invalid(text) if text.contains("any password")));
    assert!(!database.asked().iter().any(|sql| sql.contains("ALTER")));
}

#[actix_rt::test]
async fn while_both_passwords_log_in_neither_is_given_up() {
    let database = FakeDatabase::new();
    let rig = Rig::fake(&database).open().await;
    rig.connect(fake_patch()).await.unwrap();
    // The one with the lock and another beside it, our own session, and the password that must be refused; after that the
    // server lets all in.
    for _ in 0..3 {
        database.next_login(None);
    }
    database.next_login(Some(no("28P01", "password authentication failed")));
    for _ in 0..8 {
        database.answer("session_user", Ok(vec![row(&["admin", "f"])]));
    }
    let unknown = rig.rotate_root().await.unwrap_err();
    assert!(unknown.to_string().contains("both passwords log in"), "{unknown}");
    assert!(rig.in_doubt().await);
    assert!(rig.rotate_root().await.is_err(), "no second one before the first is settled");
    let altered = database.asked().iter().filter(|sql| sql.contains("ALTER")).count();
    assert_eq!(altered, 1);
}

#[actix_rt::test]
async fn a_password_that_the_configuration_file_has_anew_ends_a_doubt() {
    let place = Place::new().await;
    let rig = place.rig(patch(place.postgres, &place.database.name)).await;
    let configure = |password: &str| {
        let plan = PlanPatch { rotation_period_secs: Some(3600), ..PlanPatch::default() };
        let patch = ConnectionPatch {
            password: Some(SecretText::new(password.to_owned())),
            plan,
            ..place.as_user()
        };
        let connections = vec![(ConnectionName::parse("main").unwrap(), patch)];
        let (mount, prefix) = (rig.mount, String::new());
        rig.minter.send(Configure { mount, prefix, connections, roles: Vec::new() })
    };
    configure(FIRST).await.unwrap().unwrap();
    rig.rotate_root().await.unwrap();
    // The file still has the first one.
    configure(FIRST).await.unwrap().unwrap();
    rig.mint("app").await.unwrap();
    rig.rotate_root().await.unwrap();
    rig.store.pass_next();
    rig.store.fail_next(StorageError::NoSpace("full".to_owned()));
    rig.rotate_root().await.unwrap_err();
    place.sql(&format!("ALTER ROLE {} PASSWORD 'by hand'", place.user)).await;
    rig.rotate_root().await.unwrap_err();
    configure("by hand").await.unwrap().unwrap();
    rig.mint("app").await.unwrap();
    rig.rotate_root().await.unwrap();
    assert!(!rig.in_doubt().await && !place.accepts(&place.user, "by hand").await);
    rig.mint("app").await.unwrap();
}
