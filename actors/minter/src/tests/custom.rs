//! A role's own statements of revocation, renewal and rollback, as Vault's users write them.

use std::time::Duration;

use mssm_messages::engine::Outcome;
use mssm_messages::minter::RolePatch;
use mssm_testkit::TestPostgres;

use super::estate::{Admin, Estate, build};
use crate::testing::CREATE;

fn role(field: &str, texts: &[String]) -> RolePatch {
    let mut patch =
        RolePatch { creation_statements: Some(vec![CREATE.to_owned()]), ..RolePatch::default() };
    let texts = Some(texts.to_vec());
    match field {
        "revocation" => patch.revocation_statements = texts,
        "renew" => patch.renew_statements = texts,
        _ => patch.rollback_statements = texts,
    }
    patch
}

/// One text with semicolons, one text a statement, blocks, and statements that forget the role.
#[actix_rt::test]
async fn revocations_as_vaults_users_write_them_end_a_login_that_owns_and_was_granted() {
    let postgres = TestPostgres::shared();
    for admin in [Admin::Superuser, Admin::Limited] {
        let estate = Estate::new(postgres, admin).await;
        let owner = &estate.owner;
        let end =
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = '{{name}}'";
        let variants: [Vec<String>; 6] = [
            vec![format!(
                "REASSIGN OWNED BY \"{{{{name}}}}\" TO {owner}; DROP OWNED BY \"{{{{name}}}}\"; \
                 DROP ROLE IF EXISTS \"{{{{name}}}}\";"
            )],
            vec![
                end.to_owned(),
                "ALTER ROLE \"{{username}}\" NOLOGIN;".to_owned(),
                format!("REASSIGN OWNED BY \"{{{{name}}}}\" TO {owner}"),
                "DROP OWNED BY \"{{name}}\"".to_owned(),
                "DROP USER \"{{name}}\"".to_owned(),
            ],
            vec![format!(
                "DO $do$ BEGIN IF EXISTS (SELECT FROM pg_roles WHERE rolname = '{{{{name}}}}') THEN \
                 EXECUTE format('REASSIGN OWNED BY %I TO {owner}', '{{{{name}}}}'); \
                 EXECUTE format('DROP OWNED BY %I', '{{{{name}}}}'); \
                 EXECUTE format('DROP ROLE %I', '{{{{name}}}}'); END IF; END $do$;"
            )],
            // The role and a grant are forgotten: they go the common way.
            vec![format!("REASSIGN OWNED BY \"{{{{name}}}}\" TO {owner};")],
            vec![format!(
                "DROP TABLE IF EXISTS never; REASSIGN OWNED BY \"{{{{name}}}}\" TO {owner};\n\
                 -- what ; is a comment\n/* DROP TABLE mine.t; */ REVOKE ALL ON orders FROM \"{{{{name}}}}\";"
            )],
            vec![
                format!("REASSIGN OWNED BY {{{{name}}}} TO {owner};"),
                "COMMENT ON ROLE \"{{name}}\" IS 'ended; with END in it'".to_owned(),
            ],
        ];
        for statements in variants {
            estate.rig.role_with("app", role("revocation", &statements)).await.unwrap();
            let login = estate.rig.mint("app").await.unwrap();
            let session = estate.open(&login, 0).await;
            build(&session, &estate.team).await;
            // REASSIGN OWNED takes objects in no order of its own. If a table comes before its schema,
            // PostgreSQL asks this of a new owner unless a superuser reassigns.
            let creates = format!("GRANT CREATE ON SCHEMA mine TO {owner}");
            session.batch_execute(&creates).await.unwrap();
            let grant = format!(
                "SET ROLE {}; GRANT SELECT ON orders TO \"{}\"; RESET ROLE",
                estate.team, login.username
            );
            estate.supers[0].batch_execute(&grant).await.unwrap();
            assert_eq!(estate.rig.revoke(&login).await, Outcome::Gone, "{admin:?} {statements:?}");
            assert!(!postgres.role_exists(&login.username).await);
            assert!(session.query("SELECT 1", &[]).await.is_err());
            let clear = format!(
                "SELECT a FROM mine.t; DROP OWNED BY {owner}; GRANT CREATE ON SCHEMA public TO PUBLIC"
            );
            estate.supers[0].batch_execute(&clear).await.unwrap();
        }
    }
}

/// Statements run in the connection's own database; elsewhere the role's owner inherits.
#[actix_rt::test]
async fn what_revocation_statements_leave_in_other_databases_goes_the_common_way() {
    let postgres = TestPostgres::shared();
    let estate = Estate::new(postgres, Admin::Superuser).await;
    let statements = ["DROP OWNED BY \"{{name}}\" CASCADE".to_owned()];
    for owner in [None, Some(estate.owner.clone())] {
        let patch = RolePatch { owner: owner.clone(), ..role("revocation", &statements) };
        estate.rig.role_with("app", patch).await.unwrap();
        let login = estate.rig.mint("app").await.unwrap();
        for place in 0..2 {
            build(&estate.open(&login, place).await, &estate.team).await;
        }
        let outcome = estate.rig.revoke(&login).await;
        let left = estate.count(&login.username, true).await;
        assert_eq!(left[0], 0, "as the role says");
        if owner.is_some() {
            assert_eq!(outcome, Outcome::Gone);
            estate.supers[1].batch_execute("SELECT a FROM mine.t").await.unwrap();
        } else {
            let Outcome::AccessEnded(why) = outcome else { panic!("{outcome:?}") };
            assert!(why.contains(estate.database(1)) && left[1] > 15, "{why}");
            let clear = format!("DROP OWNED BY \"{}\" CASCADE", login.username);
            estate.supers[1].batch_execute(&clear).await.unwrap();
            assert_eq!(estate.rig.revoke(&login).await, Outcome::Gone);
        }
    }
}

#[actix_rt::test]
async fn renewals_as_vaults_users_write_them_move_the_end() {
    let postgres = TestPostgres::shared();
    for admin in [Admin::Superuser, Admin::Limited] {
        let estate = Estate::new(postgres, admin).await;
        for text in [
            "ALTER ROLE \"{{name}}\" VALID UNTIL '{{expiration}}';",
            "ALTER USER {{username}} WITH VALID UNTIL {{expiration}}",
        ] {
            estate.rig.role_with("app", role("renew", &[text.to_owned()])).await.unwrap();
            let login = estate.rig.mint("app").await.unwrap();
            estate.rig.extend(&login, Duration::from_hours(1)).await.unwrap();
            let sql =
                "SELECT rolvaliduntil > now() + interval '59 min' FROM pg_roles WHERE rolname = $1";
            let row = estate.supers[0].query_one(sql, &[&login.username]).await.unwrap();
            assert!(row.get::<_, bool>(0), "{admin:?} {text}");
            assert_eq!(estate.rig.revoke(&login).await, Outcome::Gone);
        }
    }
}

/// A creation is one transaction, so there is nothing for them to do; Vault's plugin does the same.
#[actix_rt::test]
async fn a_failed_creation_is_undone_as_a_whole_and_rollback_statements_are_kept_and_not_run() {
    let postgres = TestPostgres::shared();
    let estate = Estate::new(postgres, Admin::Superuser).await;
    let patch = RolePatch {
        creation_statements: Some(vec![
            CREATE.to_owned(),
            "CREATE SCHEMA theirs AUTHORIZATION \"{{name}}\"".to_owned(),
            "SELECT 1 / 0".to_owned(),
        ]),
        ..role("rollback", &["CREATE SCHEMA rolled_back; DROP ROLE \"{{name}}\"".to_owned()])
    };
    let warnings = estate.rig.role_with("app", patch).await.unwrap();
    assert!(warnings.iter().any(|text| text.contains("rollback_statements")), "{warnings:?}");
    let prepared = estate.rig.prepare("app").await.unwrap();
    let lease = estate.rig.lease();
    let error = estate.rig.create(&prepared, &lease).await.unwrap_err();
    assert!(!error.in_doubt && error.to_string().contains("statement 3"), "{error}");
    let sql = "SELECT count(*) FROM pg_namespace WHERE nspname IN ('theirs', 'rolled_back')";
    let row = estate.supers[0].query_one(sql, &[]).await.unwrap();
    assert_eq!(row.get::<_, i64>(0), 0);
}
