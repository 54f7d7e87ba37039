//! Minting on a real MariaDB.

mod eight;
mod hiding;
mod reconciling;
mod revoking;
mod rotation;
mod tls;
mod wire;

use std::time::Duration;

use futures_util::future::join_all;
use mssm_domain::SecretText;
use mssm_messages::engine::{EngineError, Outcome};
use mssm_messages::minter::{ConnectionPatch, RolePatch};
use mssm_testkit::TestMariaDb;

use super::confirming::confirm;
use crate::testing::Rig;

/// What most roles say.
const CREATE: &str = "CREATE USER '{{name}}'@'%' IDENTIFIED BY '{{password}}'";

/// The definition of a connection to a real server, as its administrator.
fn patch(server: &TestMariaDb) -> ConnectionPatch {
    let (host, port) = (server.host(), server.port());
    let url = format!("{{{{username}}}}:{{{{password}}}}@tcp({host}:{port})/");
    ConnectionPatch {
        plugin_name: Some("mysql-database-plugin".to_owned()),
        connection_url: Some(SecretText::new(url)),
        username: Some(server.admin_user().to_owned()),
        password: Some(SecretText::new(server.admin_password().to_owned())),
        allowed_roles: Some(vec!["*".to_owned()]),
        ..ConnectionPatch::default()
    }
}

/// A minter with a connection, and a database of its own with something in it.
async fn rig(server: &TestMariaDb) -> (Rig, String) {
    let database = server.fresh_database().await;
    let mut admin = server.admin().await;
    admin.run(&format!("CREATE TABLE {database}.orders (id int)")).await;
    let rig = Rig::real(u64::from_str_radix(&database[1..], 16).unwrap()).open().await;
    rig.connect(patch(server)).await.unwrap();
    (rig, database)
}

#[actix_rt::test]
async fn a_login_works_until_it_is_revoked() {
    let server = TestMariaDb::shared();
    let (rig, database) = rig(server).await;
    let grant = format!("GRANT SELECT ON {database}.* TO '{{{{name}}}}'@'%'");
    rig.role("app", &[CREATE, &grant]).await.unwrap();
    let login = rig.mint("app").await.unwrap();
    assert!(login.username.len() <= 32, "{}", login.username);
    let mut session = server.connect(&login.username, &login.password).await.unwrap();
    session.run(&format!("SELECT * FROM {database}.orders")).await;
    let mut admin = server.admin().await;
    let show = format!("SHOW CREATE USER '{}'@'%'", login.username);
    let made = admin.run(&show).await.remove(0).remove(0);
    assert!(made.contains("MAX_USER_CONNECTIONS 10"), "{made}");
    assert!(made.contains("PASSWORD EXPIRE INTERVAL 1 DAY"), "{made}");
    rig.extend(&login, Duration::from_hours(30)).await.unwrap();
    let made = admin.run(&show).await.remove(0).remove(0);
    assert!(made.contains("PASSWORD EXPIRE INTERVAL 2 DAY"), "{made}");
    assert_eq!(rig.revoke(&login).await, Outcome::Gone);
    assert!(session.try_run("SELECT 1").await.is_err(), "the open session ends too");
    assert!(server.connect(&login.username, &login.password).await.is_err());
    assert!(!server.user_exists(&login.username).await);
    assert_eq!(rig.revoke(&login).await, Outcome::Gone, "done twice is done once");
    if let Some(log) = server.log() {
        assert!(log.contains(&login.username), "statements are logged");
        assert!(!log.contains(&login.password), "a hash was sent");
    }
}

#[actix_rt::test]
async fn a_failure_at_any_statement_is_undone_and_says_which_it_was() {
    let server = TestMariaDb::shared();
    let (rig, database) = rig(server).await;
    let mut admin = server.admin().await;
    let statements = [
        CREATE.to_owned(),
        format!("CREATE DATABASE {database}_more"),
        format!("GRANT ALL ON {database}_more.* TO '{{{{name}}}}'@'%'"),
        format!("INSERT INTO {database}.orders VALUES (1)"),
    ];
    let rollback =
        [format!("DROP DATABASE {database}_more"), format!("DELETE FROM {database}.orders")];
    for broken in 0..=statements.len() {
        let mut statements = statements.to_vec();
        let bad = "GRANT SELECT ON nowhere.nothing TO '{{name}}'@'%'".to_owned();
        match broken {
            0 => statements[0].push_str(" REQUIRE NONSENSE"),
            broken => statements.insert(broken, bad),
        }
        let patch = RolePatch {
            creation_statements: Some(statements),
            rollback_statements: Some(rollback.to_vec()),
            ..RolePatch::default()
        };
        rig.role_with("app", patch).await.unwrap();
        let prepared = rig.prepare("app").await.unwrap();
        let lease = rig.lease();
        let error = rig.create(&prepared, &lease).await.unwrap_err();
        assert!(!error.in_doubt, "{error}");
        let place = format!("creation_statements: statement {}: ", broken + 1);
        assert!(error.to_string().starts_with(&place), "{error}");
        let login = Rig::doubtful(prepared, lease);
        assert!(!server.user_exists(&login.username).await, "statement {broken}");
        let left = format!("SHOW DATABASES LIKE '{database}_more'");
        assert!(admin.run(&left).await.is_empty(), "statement {broken}");
        assert!(admin.run(&format!("SELECT * FROM {database}.orders")).await.is_empty());
    }
}

#[actix_rt::test]
async fn no_error_says_a_password_or_the_beginning_of_one() {
    let server = TestMariaDb::shared();
    let (rig, _) = rig(server).await;
    let patch = ConnectionPatch {
        password_authentication: Some("password".to_owned()),
        ..ConnectionPatch::default()
    };
    rig.connect(patch).await.unwrap();
    let padding = "x".repeat(55);
    let cut = format!("SELEKT '{padding}{{{{password}}}}'");
    for statement in [cut.as_str(), "SELEKT '{{password}}'"] {
        rig.role("app", &[CREATE, statement]).await.unwrap();
        let prepared = rig.prepare("app").await.unwrap();
        let error = rig.create(&prepared, &rig.lease()).await.unwrap_err().to_string();
        assert!(
            error.contains("statement 2: the database refused it with a message that"),
            "{error}"
        );
    }
}

#[actix_rt::test]
async fn sixteen_at_once_all_succeed() {
    let server = TestMariaDb::shared();
    let (rig, database) = rig(server).await;
    let grant = format!("GRANT SELECT ON {database}.* TO '{{{{name}}}}'@'%'");
    rig.role("app", &[CREATE, &grant]).await.unwrap();
    let logins = join_all((0..16).map(|_| rig.mint("app"))).await;
    let logins: Vec<_> = logins.into_iter().map(Result::unwrap).collect();
    let mut session = server.connect(&logins[7].username, &logins[7].password).await.unwrap();
    session.run(&format!("SELECT * FROM {database}.orders")).await;
    let all: Vec<_> = logins.iter().collect();
    let outcomes = rig.revoke_all(&all, None).await.unwrap();
    assert!(outcomes.iter().all(|outcome| *outcome == Outcome::Gone), "{outcomes:?}");
    for login in &logins {
        assert!(!server.user_exists(&login.username).await);
    }
}

#[actix_rt::test]
async fn a_server_that_is_down_is_unavailable_in_time_and_comes_back() {
    let server = TestMariaDb::private();
    let (rig, _) = rig(&server).await;
    rig.role("app", &[CREATE]).await.unwrap();
    let login = rig.mint("app").await.unwrap();
    server.crash();
    let refused = tokio::time::timeout(Duration::from_secs(8), rig.mint("app")).await.unwrap();
    let error = refused.err().unwrap();
    assert!(matches!(error.error, EngineError::Unavailable(_)), "{error}");
    let error = rig.revoke_all(&[&login], None).await.unwrap_err();
    assert!(matches!(error, EngineError::Unavailable(_)), "{error}");
    server.start();
    assert_eq!(rig.revoke(&login).await, Outcome::Gone);
    let next = rig.mint("app").await.unwrap();
    assert_eq!(rig.revoke(&next).await, Outcome::Gone);
}

#[actix_rt::test]
async fn a_wrong_password_of_the_administrator_is_told_as_mariadb_tells_it() {
    let server = TestMariaDb::shared();
    let (rig, _) = rig(server).await;
    let wrong = ConnectionPatch {
        password: Some(SecretText::new("wrong@:/%'\"".to_owned())),
        ..patch(server)
    };
    let error = rig.connect(wrong).await.unwrap_err().to_string();
    let begins = "error creating database object: error verifying connection: ERROR: Access denied \
        for user 'mssm_admin' (using password: YES)";
    assert!(error.starts_with(begins), "{error}");
    assert!(!error.contains(server.host()), "no address: {error}");
}

#[actix_rt::test]
async fn credentials_with_every_special_character_log_in() {
    let server = TestMariaDb::shared();
    let (rig, database) = rig(server).await;
    let mut admin = server.admin().await;
    let (user, password) = (format!("a'd\"m@i:n/%`{database}"), "p'a\"s@s:w/o)r%d\\");
    let account = crate::mysql::quote::account(&user, "%");
    let quoted = crate::mysql::quote::literal(password);
    admin.run(&format!("CREATE USER {account} IDENTIFIED BY {quoted}")).await;
    let connect = || ConnectionPatch {
        username: Some(user.clone()),
        password: Some(SecretText::new(password.to_owned())),
        ..patch(server)
    };
    let error = rig.connect(connect()).await.unwrap_err().to_string();
    assert!(error.contains("needs CREATE USER, PROCESS and CONNECTION ADMIN"), "{error}");
    // As in production: no ALL PRIVILEGES.
    let rights = "CREATE USER, PROCESS, CONNECTION ADMIN ON *.*";
    admin.run(&format!("GRANT {rights} TO {account}")).await;
    admin.run(&format!("GRANT SELECT ON mysql.* TO {account}")).await;
    rig.connect(connect()).await.unwrap();
    rig.role("app", &[CREATE]).await.unwrap();
    let login = rig.mint("app").await.unwrap();
    let mut session = server.connect(&login.username, &login.password).await.unwrap();
    assert_eq!(rig.revoke(&login).await, Outcome::Gone);
    assert!(session.try_run("SELECT 1").await.is_err());
    admin.run(&format!("DROP USER {account}")).await;
}

/// Catalogue: CVE-2026-39946.
#[actix_rt::test]
async fn hostile_names_of_callers_and_roles_make_a_plain_login() {
    let server = TestMariaDb::shared();
    let (rig, database) = rig(server).await;
    let insert =
        format!("INSERT INTO {database}.names VALUES ('\\'{{{{role}}}}; -- {{{{name}}}}')");
    let mut admin = server.admin().await;
    admin.run(&format!("CREATE TABLE {database}.names (name text)")).await;
    rig.role("_.@-a", &[CREATE, &insert]).await.unwrap();
    let prepared = rig.prepare_as("a'\"\n`;--\u{202e}", "_.@-a").await.unwrap();
    let lease = rig.lease();
    rig.create(&prepared, &lease).await.unwrap();
    let login = Rig::doubtful(prepared, lease);
    assert!(login.username.starts_with("v-a___-__"), "{}", login.username);
    let said = admin.run(&format!("SELECT name FROM {database}.names")).await.remove(0).remove(0);
    assert_eq!(said, format!("'_.@-a; -- {}", login.username));
    assert_eq!(rig.revoke(&login).await, Outcome::Gone);
}

#[actix_rt::test]
async fn a_password_is_confirmed_until_its_user_changes_it_or_may_not_log_in() {
    let server = TestMariaDb::shared();
    let (rig, _) = rig(server).await;
    rig.role("app", &[CREATE]).await.unwrap();
    let mut admin = server.admin().await;
    let ends = [
        "ALTER USER '?'@'%' IDENTIFIED BY 'other'",
        "ALTER USER '?'@'%' ACCOUNT LOCK",
        "DROP USER '?'@'%'",
    ];
    for end in ends {
        let login = rig.mint("app").await.unwrap();
        assert_eq!(confirm(&rig, &login).await, Ok(true), "{end}");
        admin.run(&end.replace('?', &login.username)).await;
        assert_eq!(confirm(&rig, &login).await, Ok(false), "{end}");
        assert_eq!(rig.revoke(&login).await, Outcome::Gone);
    }
}

#[actix_rt::test]
async fn a_role_is_of_its_connections_kind() {
    let server = TestMariaDb::shared();
    let (rig, _) = rig(server).await;
    let postgres = "CREATE ROLE \"{{name}}\" LOGIN PASSWORD '{{password}}'";
    let error = rig.role("app", &[postgres]).await.unwrap_err().to_string();
    assert!(error.contains("must be CREATE USER"), "{error}");
    let owner = RolePatch {
        creation_statements: Some(vec![CREATE.to_owned()]),
        owner: Some("somebody".to_owned()),
        ..RolePatch::default()
    };
    assert!(rig.role_with("app", owner).await.is_err());
    let plugin = ConnectionPatch {
        plugin_name: Some("postgresql-database-plugin".to_owned()),
        ..ConnectionPatch::default()
    };
    assert!(rig.connect(plugin).await.is_err(), "a connection stays what it is");
    // Before there is a connection, the statements say whose they are.
    let early = RolePatch {
        db_name: Some("later".to_owned()),
        creation_statements: Some(vec![CREATE.to_owned()]),
        ..RolePatch::default()
    };
    rig.role_with("early", early).await.unwrap();
}
