//! Minting on a database that says what it is told to.

use mssm_messages::engine::{CreateError, EngineError, Outcome};
use mssm_messages::minter::RolePatch;
use mssm_messages::seal::Closing;

use crate::engine::DbError;
use crate::testing::{CREATE, FakeDatabase, Rig, fake_patch, no, row};

async fn rig(database: &FakeDatabase) -> Rig {
    let rig = Rig::fake(database).open().await;
    rig.connect(fake_patch()).await.unwrap();
    rig.role("app", &[CREATE, "GRANT readonly TO \"{{name}}\";"]).await.unwrap();
    database.asked();
    rig
}

#[actix_rt::test]
async fn a_login_is_made_by_one_message_that_has_no_password_in_it() {
    let database = FakeDatabase::new();
    let rig = rig(&database).await;
    let prepared = rig.prepare("app").await.unwrap();
    assert!(database.asked().is_empty(), "preparing touches no database");
    let secret = rig.create(&prepared, &rig.lease()).await.unwrap().secret;
    let (username, password) = (secret[0].1.expose(), secret[1].1.expose());
    assert_eq!((secret[0].0, secret[1].0), ("username", "password"));
    assert_eq!(password.len(), 24);
    let asked = database.asked();
    assert_eq!(asked.len(), 1, "{asked:?}");
    let sql = &asked[0];
    assert!(
        sql.contains(&format!("\nCREATE ROLE \"{username}\" LOGIN PASSWORD 'SCRAM-SHA-256$4096:"))
    );
    assert!(sql.contains("VALID UNTIL '2027-01-15 08:01:05+00'"), "{sql}");
    assert!(sql.contains("CONNECTION LIMIT 10"));
    assert!(sql.contains(&format!("GRANT readonly TO \"{username}\"")));
    assert!(sql.contains(&format!("COMMENT ON ROLE \"{username}\" IS 'mssm2:")));
    assert!(!sql.contains("CURRENT_USER"), "a superuser needs no membership");
    assert!(!sql.contains(password));
}

#[actix_rt::test]
async fn an_admin_without_superuser_becomes_a_member_of_the_login() {
    let database = FakeDatabase::new();
    database.set_superuser(false);
    let rig = rig(&database).await;
    let login = rig.mint("app").await.unwrap();
    let grant = format!("GRANT \"{}\" TO CURRENT_USER;", login.username);
    assert!(database.asked()[0].contains(&grant));
}

#[actix_rt::test]
async fn a_template_that_forgets_the_end_gets_one() {
    let database = FakeDatabase::new();
    let rig = rig(&database).await;
    rig.role("app2", &["CREATE ROLE \"{{name}}\" CONNECTION LIMIT 2 -- no end\n"]).await.unwrap();
    rig.mint("app2").await.unwrap();
    let asked = database.asked();
    assert!(asked[0].contains("\nVALID UNTIL '2027-01-15 08:01:05+00'"), "{asked:?}");
    assert!(!asked[0].contains("LIMIT 10"));
}

#[actix_rt::test]
async fn plain_passwords_are_sent_only_where_the_connection_says_so() {
    let database = FakeDatabase::new();
    let rig = rig(&database).await;
    let mut patch = fake_patch();
    patch.password_authentication = Some("password".to_owned());
    rig.connect(patch).await.unwrap();
    let login = rig.mint("app").await.unwrap();
    assert!(database.asked()[0].contains(&login.password));
}

#[actix_rt::test]
async fn unknown_roles_connections_and_roles_that_are_not_allowed_are_told_apart() {
    let database = FakeDatabase::new();
    let rig = rig(&database).await;
    let error = rig.prepare("nope").await.unwrap_err();
    assert_eq!(error, EngineError::Unknown("unknown role: nope".to_owned()));
    let patch = RolePatch {
        db_name: Some("nodb".to_owned()),
        creation_statements: Some(vec![CREATE.to_owned()]),
        ..RolePatch::default()
    };
    rig.role_with("app3", patch).await.unwrap();
    let text = "failed to find entry for connection with name: \"nodb\"";
    assert_eq!(rig.prepare("app3").await.unwrap_err(), EngineError::Unknown(text.to_owned()));
    rig.role("other", &[CREATE]).await.unwrap();
    let text = "\"other\" is not an allowed role";
    assert_eq!(rig.prepare("other").await.unwrap_err(), EngineError::Forbidden(text.to_owned()));
}

#[actix_rt::test]
async fn a_database_that_is_down_is_unavailable_and_leaves_no_doubt() {
    let database = FakeDatabase::new();
    let rig = rig(&database).await;
    rig.role("app2", &[CREATE]).await.unwrap();
    // The session that verified was not kept; the next one cannot be made.
    database.refuse(Some(DbError::Unreachable("connection refused".to_owned())));
    let error = rig.mint("app2").await.err().unwrap();
    let text = "cannot connect to the database server: connection refused";
    let expected = EngineError::Unavailable(text.to_owned());
    assert_eq!(error, CreateError { error: expected, in_doubt: false });
}

#[actix_rt::test]
async fn a_refusal_names_the_statement_and_leaves_no_doubt() {
    let database = FakeDatabase::new();
    let rig = rig(&database).await;
    let DbError::Refused(mut refusal) = no("42704", "role \"readonly\" does not exist") else {
        panic!("a refusal");
    };
    refusal.done = 2;
    database.answer("CREATE ROLE", Err(DbError::Refused(refusal)));
    let error = rig.mint("app").await.err().unwrap();
    let text = "creation_statements: statement 2: ERROR: role \"readonly\" does not exist (SQLSTATE 42704)";
    let expected = EngineError::Refused(text.to_owned());
    assert_eq!(error, CreateError { error: expected, in_doubt: false });
}

#[actix_rt::test]
async fn a_message_that_holds_the_verifier_does_not_leave() {
    let database = FakeDatabase::new();
    let rig = rig(&database).await;
    let message = "syntax error at or near \"'SCRAM-SHA-256$4096:abc'\"";
    database.answer("CREATE ROLE", Err(no("42601", message)));
    let error = rig.mint("app").await.err().unwrap().to_string();
    assert!(error.contains("42601") && !error.contains("abc"), "{error}");
}

#[actix_rt::test]
async fn collisions_are_tried_again_ten_times_and_no_more() {
    let database = FakeDatabase::new();
    let rig = rig(&database).await;
    let collision = || Err(no("XX000", "tuple concurrently updated"));
    for _ in 0..9 {
        database.answer("CREATE ROLE", collision());
    }
    rig.mint("app").await.unwrap();
    assert_eq!(database.asked().iter().filter(|sql| sql.contains("CREATE ROLE")).count(), 10);
    for _ in 0..10 {
        database.answer("CREATE ROLE", collision());
    }
    let error = rig.mint("app").await.err().unwrap();
    assert!(!error.in_doubt);
}

#[actix_rt::test]
async fn a_lost_answer_is_in_doubt_and_is_fenced_by_its_very_backend() {
    let database = FakeDatabase::new();
    let rig = rig(&database).await;
    database.answer("CREATE ROLE", Err(DbError::Lost));
    let prepared = rig.prepare("app").await.unwrap();
    let lease = rig.lease();
    let error = rig.create(&prepared, &lease).await.unwrap_err();
    assert!(error.in_doubt);
    let login = Rig::doubtful(prepared, lease);
    database.asked();
    database.answer("pg_is_in_recovery", Ok(vec![vec![Some("f".to_owned()), None, None]]));
    database.answer("pg_terminate_backend", Ok(vec![row(&["t"])]));
    let outcome = rig.revoke_all(&[&login], Some(rig.boot)).await.unwrap();
    assert_eq!(outcome, [Outcome::Gone]);
    let asked = database.asked();
    let place = |needle: &str| asked.iter().position(|sql| sql.contains(needle)).unwrap();
    assert!(
        asked.iter().any(|sql| sql.contains("pid = '42'::int AND backend_start = '2027-01-01'"))
    );
    assert!(place("pg_terminate_backend") < place("NOLOGIN"));
    assert!(place("NOLOGIN") < place("DROP ROLE"));
}

#[actix_rt::test]
async fn while_sealed_nothing_is_known() {
    let database = FakeDatabase::new();
    let rig = rig(&database).await;
    let login = rig.mint("app").await.unwrap();
    rig.minter.send(Closing).await.unwrap().unwrap();
    assert_eq!(rig.prepare("app").await.unwrap_err().to_string(), "sealed");
    assert!(rig.revoke_all(&[&login], None).await.is_err());
    assert!(rig.connect(fake_patch()).await.is_err());
}

#[actix_rt::test]
async fn a_role_that_changed_under_a_mint_makes_nothing() {
    let database = FakeDatabase::new();
    let rig = rig(&database).await;
    let prepared = rig.prepare("app").await.unwrap();
    rig.role("app", &[CREATE]).await.unwrap();
    let error = rig.create(&prepared, &rig.lease()).await.unwrap_err();
    assert!(!error.in_doubt);
    assert!(database.asked().is_empty());
}

#[actix_rt::test]
async fn where_the_clocks_differ_by_more_than_a_minute_no_login_is_made() {
    for (ahead_ms, makes) in [(0, true), (60_000, true), (61_000, false)] {
        let database = FakeDatabase::new();
        database.set_ahead_ms(ahead_ms);
        let rig = rig(&database).await;
        let minted = rig.mint("app").await;
        if makes {
            minted.unwrap();
            continue;
        }
        let refused = minted.err().unwrap();
        assert!(!refused.in_doubt && refused.to_string().contains("by 61 s"), "{refused}");
        assert!(!database.asked().iter().any(|sql| sql.contains("CREATE ROLE")));
    }
}
