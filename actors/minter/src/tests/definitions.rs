//! Definitions of connections and roles, as the API and the configuration file write them.

use mssm_domain::{ConnectionName, RoleName, SecretText};
use mssm_messages::engine::{EngineError, Unmount};
use mssm_messages::minter::{
    Configure, ConnectionPatch, DeleteConnection, DeleteRole, ListConnections, ListRoles,
    ReadConnection, ReadRole, RolePatch, TryConfigured, WriteConnection,
};

use crate::engine::DbError;
use crate::testing::{CREATE, FakeDatabase, Rig, fake_patch, no, row};

fn main_name() -> ConnectionName {
    ConnectionName::parse("main").unwrap()
}

#[actix_rt::test]
async fn a_connection_is_tried_before_it_is_stored() {
    let database = FakeDatabase::new();
    let rig = Rig::fake(&database).open().await;
    database.refuse(Some(no("28P01", "password authentication failed for user \"admin\"")));
    let error = rig.connect(fake_patch()).await.unwrap_err();
    let text = "error creating database object: error verifying connection: ERROR: password \
        authentication failed for user \"admin\" (SQLSTATE 28P01)";
    assert_eq!(error, EngineError::Invalid(text.to_owned()));
    assert!(rig.store.is_empty());
    let patch = ConnectionPatch { verify_connection: Some(false), ..fake_patch() };
    rig.connect(patch).await.unwrap();
    assert_eq!(rig.store.len(), 1);
}

#[actix_rt::test]
async fn a_partial_update_keeps_the_rest_and_reading_shows_no_secret() {
    let database = FakeDatabase::new();
    let rig = Rig::fake(&database).open().await;
    rig.connect(fake_patch()).await.unwrap();
    let patch = ConnectionPatch { max_open_connections: Some(7), ..ConnectionPatch::default() };
    rig.connect(patch).await.unwrap();
    let read = ReadConnection { mount: rig.mount, name: main_name() };
    let view = rig.minter.send(read).await.unwrap().unwrap();
    assert_eq!((view.max_open_connections, view.username.as_str()), (7, "admin"));
    assert_eq!(view.allowed_roles, ["app*"]);
    assert!(!format!("{view:?}").contains("adminsecret"));
    let list = ListConnections { mount: rig.mount };
    assert_eq!(rig.minter.send(list).await.unwrap().unwrap(), ["main"]);
}

#[actix_rt::test]
async fn wrong_connections_are_refused_with_the_reason() {
    let rig = Rig::fake(&FakeDatabase::new()).open().await;
    let url = |url: &str| ConnectionPatch {
        connection_url: Some(SecretText::new(url.to_owned())),
        ..fake_patch()
    };
    let cases = [
        (ConnectionPatch { plugin_name: None, ..fake_patch() }, "empty plugin name"),
        (
            ConnectionPatch { plugin_name: Some("mysql".to_owned()), ..fake_patch() },
            "postgresql-database-plugin",
        ),
        (
            ConnectionPatch { connection_url: None, ..fake_patch() },
            "connection_url cannot be empty",
        ),
        (ConnectionPatch { max_open_connections: Some(0), ..fake_patch() }, "1 to 64"),
        (ConnectionPatch { tls_ca: Some("x".to_owned()), ..fake_patch() }, "tls_ca"),
        (url("postgresql://h/x?sslmode=never"), "sslmode"),
        (url("mysql://h/x"), "postgresql://"),
    ];
    for (patch, why) in cases {
        let error = rig.connect(patch).await.unwrap_err().to_string();
        assert!(error.contains(why), "{error}");
    }
    assert!(rig.store.is_empty());
}

#[actix_rt::test]
async fn wrong_roles_are_refused_and_the_statement_is_named() {
    let rig = Rig::fake(&FakeDatabase::new()).open().await;
    let cases: [(&[&str], &str); 5] = [
        (&[], "must not be empty"),
        (&["SELECT 1"], "statement 1"),
        (&[CREATE, "COMMIT"], "statement 2"),
        (&[CREATE, "GRANT {{nmae}} TO x"], "unknown placeholder {{nmae}}"),
        (&[CREATE, "GRANT 'a"], "unterminated string"),
    ];
    for (statements, why) in cases {
        let error = rig.role("app", statements).await.unwrap_err().to_string();
        assert!(error.contains(why), "{error}");
    }
    let with = |change: fn(&mut RolePatch)| {
        let mut patch = RolePatch {
            creation_statements: Some(vec![CREATE.to_owned()]),
            ..RolePatch::default()
        };
        change(&mut patch);
        patch
    };
    let cases = [
        (
            with(|patch| patch.credential_type = Some("rsa_private_key".to_owned())),
            "credential_type",
        ),
        (with(|patch| patch.scram_iterations = Some(0)), "scram_iterations"),
        (
            with(|patch| (patch.default_ttl_secs, patch.max_ttl_secs) = (Some(9), Some(5))),
            "default_ttl",
        ),
        (with(|patch| patch.db_name = Some(String::new())), "empty database name"),
    ];
    for (patch, why) in cases {
        let error = rig.role_with("app", patch).await.unwrap_err().to_string();
        assert!(error.contains(why), "{error}");
    }
    assert!(rig.store.is_empty());
}

#[actix_rt::test]
async fn a_role_is_read_listed_and_deleted() {
    let rig = Rig::fake(&FakeDatabase::new()).open().await;
    let warnings = rig.role("app", &[CREATE]).await.unwrap();
    assert!(warnings[0].contains("no connection"), "{warnings:?}");
    let name = RoleName::parse("app").unwrap();
    let read = ReadRole { mount: rig.mount, name: name.clone() };
    let view = rig.minter.send(read.clone()).await.unwrap().unwrap();
    assert_eq!((view.db_name.as_str(), view.scram_iterations), ("main", 4096));
    assert_eq!(view.default_ttl, None);
    let list = ListRoles { mount: rig.mount };
    assert_eq!(rig.minter.send(list).await.unwrap().unwrap(), ["app"]);
    rig.minter.send(DeleteRole { mount: rig.mount, name }).await.unwrap().unwrap();
    assert_eq!(rig.minter.send(read).await.unwrap(), Err(EngineError::NotFound));
}

#[actix_rt::test]
async fn an_owner_that_could_lend_its_rights_is_refused() {
    let database = FakeDatabase::new();
    let rig = Rig::fake(&database).open().await;
    rig.connect(fake_patch()).await.unwrap();
    let patch = || RolePatch {
        creation_statements: Some(vec![CREATE.to_owned()]),
        owner: Some("boss".to_owned()),
        ..RolePatch::default()
    };
    let error = rig.role_with("app", patch()).await.unwrap_err().to_string();
    assert!(error.contains("does not exist"), "{error}");
    database.answer("rolcanlogin", Ok(vec![row(&["t", "t"])]));
    let error = rig.role_with("app", patch()).await.unwrap_err().to_string();
    assert!(error.contains("superuser"), "{error}");
    database.answer("rolcanlogin", Ok(vec![row(&["f", "t"])]));
    assert!(rig.role_with("app", patch()).await.unwrap().is_empty());
    database.answer("rolcanlogin", Err(DbError::Lost));
    let warnings = rig.role_with("app", patch()).await.unwrap();
    assert!(warnings[0].contains("was not checked"), "{warnings:?}");
}

#[actix_rt::test]
async fn a_connection_that_leases_need_stays_and_stays_where_it_is() {
    let database = FakeDatabase::new();
    let rig = Rig::fake(&database).open().await;
    rig.connect(fake_patch()).await.unwrap();
    rig.leases.count.store(3, std::sync::atomic::Ordering::SeqCst);
    let delete = DeleteConnection { mount: rig.mount, name: main_name() };
    let error = rig.minter.send(delete).await.unwrap().unwrap_err().to_string();
    assert!(error.contains("3 leases"), "{error}");
    database.set_identity("8");
    let error = rig.connect(fake_patch()).await.unwrap_err().to_string();
    assert!(error.contains("another database server"), "{error}");
}

/// Lets a change come so far that the lease manager counts for it.
async fn settle() {
    for _ in 0..200 {
        tokio::task::yield_now().await;
    }
}

#[actix_rt::test]
async fn nothing_is_decided_on_a_connection_that_is_being_deleted() {
    let rig = Rig::fake(&FakeDatabase::new()).open().await;
    rig.connect(fake_patch()).await.unwrap();
    rig.role("app", &[CREATE]).await.unwrap();
    rig.prepare("app").await.unwrap();
    for left in [1, 0] {
        rig.leases.count.store(left, std::sync::atomic::Ordering::SeqCst);
        let counting = rig.leases.counting.lock().await;
        let delete = DeleteConnection { mount: rig.mount, name: main_name() };
        let deleting = actix_rt::spawn(rig.minter.send(delete.clone()));
        settle().await;
        let error = rig.prepare("app").await.unwrap_err();
        assert!(matches!(&error, EngineError::Unavailable(text) if text.contains("try again")));
        assert_eq!(rig.minter.send(delete).await.unwrap().unwrap_err(), error);
        drop(counting);
        assert_eq!(deleting.await.unwrap().unwrap().is_err(), left > 0);
        assert_eq!(rig.prepare("app").await.is_ok(), left > 0);
    }
}

#[actix_rt::test]
async fn nothing_is_decided_on_a_connection_that_moves_to_another_server() {
    let database = FakeDatabase::new();
    let rig = Rig::fake(&database).open().await;
    rig.connect(fake_patch()).await.unwrap();
    rig.role("app", &[CREATE]).await.unwrap();
    let first = rig.prepare("app").await.unwrap();
    database.set_identity("8");
    let counting = rig.leases.counting.lock().await;
    let moving = WriteConnection { mount: rig.mount, name: main_name(), patch: fake_patch() };
    let moving = actix_rt::spawn(rig.minter.send(moving));
    settle().await;
    let error = rig.prepare("app").await.unwrap_err();
    assert!(matches!(&error, EngineError::Unavailable(text) if text.contains("try again")));
    drop(counting);
    moving.await.unwrap().unwrap().unwrap();
    assert_ne!(rig.prepare("app").await.unwrap().target, first.target);
    assert!(!rig.create(&first, &rig.lease()).await.unwrap_err().in_doubt);
}

#[actix_rt::test]
async fn another_server_is_another_connection() {
    let database = FakeDatabase::new();
    let rig = Rig::fake(&database).open().await;
    rig.connect(fake_patch()).await.unwrap();
    rig.role("app", &[CREATE]).await.unwrap();
    let first = rig.prepare("app").await.unwrap().target;
    rig.connect(fake_patch()).await.unwrap();
    assert_eq!(rig.prepare("app").await.unwrap().target, first);
    database.set_identity("8");
    rig.connect(fake_patch()).await.unwrap();
    assert_ne!(rig.prepare("app").await.unwrap().target, first);
}

#[actix_rt::test]
async fn the_configuration_file_defines_without_a_database_and_is_not_overruled() {
    let database = FakeDatabase::new();
    database.refuse(Some(DbError::Lost));
    let rig = Rig::fake(&database).open().await;
    let configure = |named: bool| {
        let patch = RolePatch {
            db_name: Some("main".to_owned()),
            creation_statements: Some(vec![CREATE.to_owned()]),
            ..RolePatch::default()
        };
        let connection = ConnectionPatch { plugin_name: None, ..fake_patch() };
        let connections = vec![(main_name(), connection)];
        let roles = vec![(RoleName::parse("app").unwrap(), patch)];
        let mut all = Configure { mount: rig.mount, prefix: String::new(), connections, roles };
        if !named {
            (all.connections, all.roles) = (Vec::new(), Vec::new());
        }
        all
    };
    rig.minter.send(configure(true)).await.unwrap().unwrap();
    let commits = rig.store.commits();
    let first = rig.prepare("app").await.unwrap().target;
    rig.minter.send(configure(true)).await.unwrap().unwrap();
    assert_eq!(rig.store.commits(), commits, "nothing changed, nothing is written");
    assert_eq!(rig.prepare("app").await.unwrap().target, first);
    let refused = rig.connect(fake_patch()).await.unwrap_err().to_string();
    assert!(refused.contains("configuration file"), "{refused}");
    assert!(rig.role("app", &[CREATE]).await.is_err());
    let name = RoleName::parse("app").unwrap();
    assert!(rig.minter.send(DeleteRole { mount: rig.mount, name }).await.unwrap().is_err());
    let warnings = rig.minter.send(configure(false)).await.unwrap().unwrap();
    assert_eq!(warnings.len(), 2);
    assert!(rig.role("app", &[CREATE]).await.is_ok());
}

#[actix_rt::test]
async fn what_the_file_defines_is_tried_when_leases_are_open_and_not_before() {
    let database = FakeDatabase::new();
    let rig = Rig::fake(&database).open().await;
    let connections = vec![(main_name(), fake_patch())];
    let patch = RolePatch {
        db_name: Some("main".to_owned()),
        creation_statements: Some(vec![CREATE.to_owned()]),
        ..RolePatch::default()
    };
    let roles = vec![(RoleName::parse("app").unwrap(), patch)];
    let configure = Configure { mount: rig.mount, prefix: String::new(), connections, roles };
    rig.minter.send(configure).await.unwrap().unwrap();
    let rehearsed =
        || database.asked().iter().any(|sql| sql.starts_with("BEGIN ISOLATION LEVEL REPEATABLE"));
    for _ in 0..1000 {
        tokio::task::yield_now().await;
    }
    assert!(!rehearsed());
    rig.minter.send(TryConfigured).await.unwrap().unwrap();
    while !rehearsed() {
        tokio::task::yield_now().await;
    }
}

#[actix_rt::test]
async fn a_password_that_the_file_does_not_have_now_leaves_the_one_before() {
    let database = FakeDatabase::new();
    let rig = Rig::fake(&database).open().await;
    let configure = |password: Option<&str>| {
        let password = password.map(|text| mssm_domain::SecretText::new(text.to_owned()));
        let connections = vec![(main_name(), ConnectionPatch { password, ..fake_patch() })];
        Configure { mount: rig.mount, prefix: String::new(), connections, roles: Vec::new() }
    };
    rig.minter.send(configure(Some("first"))).await.unwrap().unwrap();
    let commits = rig.store.commits();
    rig.minter.send(configure(None)).await.unwrap().unwrap();
    assert_eq!(rig.store.commits(), commits, "the password is what it was");
    rig.minter.send(configure(Some("second"))).await.unwrap().unwrap();
    assert_eq!(rig.store.commits(), commits + 1);
}

#[actix_rt::test]
async fn a_mount_that_goes_away_takes_its_definitions_with_it() {
    let rig = Rig::fake(&FakeDatabase::new()).open().await;
    rig.connect(fake_patch()).await.unwrap();
    rig.role("app", &[CREATE]).await.unwrap();
    rig.prepare("app").await.unwrap();
    rig.minter.send(Unmount { mount: rig.mount }).await.unwrap().unwrap();
    assert!(rig.store.is_empty());
    assert!(rig.prepare("app").await.is_err());
}
