//! What logins leave to have it run with our rights, and to go on when their lease has ended.

use mssm_messages::engine::Outcome;
use mssm_messages::minter::RolePatch;
use mssm_testkit::TestPostgres;

use super::estate::{Admin, Estate};
use super::revoking::rig;
use crate::testing::{CREATE, Login};

/// Functions and operators that fit what others ask better than PostgreSQL's own, in a schema that
/// is searched by default. They note who ran them.
const TRAPS: &str = "CREATE FUNCTION public.trap() RETURNS void LANGUAGE sql AS \
     'INSERT INTO public.caught VALUES (current_user)'; \
     CREATE FUNCTION public.format(text, text, regprocedure) RETURNS text LANGUAGE sql AS \
     'SELECT public.trap(); SELECT ''SELECT 1'''; \
     CREATE FUNCTION public.same(oid, regclass) RETURNS boolean LANGUAGE sql AS \
     'SELECT public.trap(); SELECT $1 OPERATOR(pg_catalog.=) $2::oid'; \
     CREATE OPERATOR public.= (LEFTARG = oid, RIGHTARG = regclass, FUNCTION = public.same); \
     CREATE FUNCTION public.times(numeric, int) RETURNS numeric LANGUAGE sql AS \
     'SELECT public.trap(); SELECT $1 OPERATOR(pg_catalog.*) $2::numeric'; \
     CREATE OPERATOR public.* (LEFTARG = numeric, RIGHTARG = int, FUNCTION = public.times); \
     CREATE FUNCTION public.secret() RETURNS int SECURITY DEFINER LANGUAGE sql AS 'SELECT 1'";

#[actix_rt::test]
async fn nothing_that_a_login_defines_runs_with_our_rights() {
    let postgres = TestPostgres::shared();
    for admin in [Admin::Superuser, Admin::Limited] {
        let estate = Estate::new(postgres, admin).await;
        for session in &estate.supers {
            let caught = "CREATE TABLE public.caught (who name); GRANT INSERT ON caught TO PUBLIC";
            session.batch_execute(caught).await.unwrap();
        }
        let definition = RolePatch {
            creation_statements: Some(vec![
                CREATE.to_owned(),
                "GRANT SELECT ON orders TO \"{{name}}\"".to_owned(),
            ]),
            revocation_statements: Some(vec!["REVOKE ALL ON orders FROM \"{{name}}\"".to_owned()]),
            renew_statements: Some(vec!["GRANT SELECT ON orders TO \"{{name}}\"".to_owned()]),
            owner: Some(estate.owner.clone()),
            ..RolePatch::default()
        };
        estate.rig.role_with("app", definition).await.unwrap();
        let login = estate.rig.mint("app").await.unwrap();
        for place in 0..3 {
            estate.open(&login, place).await.batch_execute(TRAPS).await.unwrap();
        }
        // Sessions that are opened from now on are asked what there is to know.
        let other = super::rotation::statements(&[]);
        estate.rig.connect(other).await.unwrap();
        estate.rig.mint("app").await.unwrap();
        estate.rig.extend(&login, std::time::Duration::from_hours(1)).await.unwrap();
        assert_eq!(estate.rig.revoke(&login).await, Outcome::Gone, "{admin:?}");
        for session in &estate.supers {
            let caught = session.query("SELECT who::text FROM public.caught", &[]).await.unwrap();
            let caught: Vec<String> = caught.iter().map(|row| row.get(0)).collect();
            assert!(caught.is_empty(), "{admin:?}: {caught:?}");
        }
    }
}

#[actix_rt::test]
async fn nobody_else_becomes_a_login_that_has_ended() {
    let postgres = TestPostgres::shared();
    for admin in [Admin::Superuser, Admin::Limited] {
        let estate = Estate::new(postgres, admin).await;
        estate.role(false).await;
        let login = estate.rig.mint("app").await.unwrap();
        let friend = format!("{}_friend", estate.database(0));
        let create = format!("CREATE ROLE {friend} LOGIN PASSWORD 'friend'");
        estate.supers[0].batch_execute(&create).await.unwrap();
        let session = estate.open(&login, 0).await;
        session.batch_execute("CREATE TABLE mine (a int)").await.unwrap();
        let share = format!("GRANT \"{}\" TO {friend}", login.username);
        if session.batch_execute(&share).await.is_err() {
            // From PostgreSQL 16 on it may not; who made it may.
            let maker = format!("SET SESSION AUTHORIZATION {}_admin; ", estate.database(0));
            let maker = if admin == Admin::Limited { maker } else { String::new() };
            estate.supers[0]
                .batch_execute(&format!("{maker}{share}; RESET SESSION AUTHORIZATION"))
                .await
                .unwrap();
        }
        let other = postgres.connect(&friend, "friend", estate.database(0)).await.unwrap();
        let become_it = format!("SET ROLE \"{}\"; RESET ROLE", login.username);
        other.batch_execute(&become_it).await.unwrap();
        let outcome = estate.rig.revoke(&login).await;
        assert!(
            matches!(&outcome, Outcome::AccessEnded(why) if why.contains("owns 1")),
            "{outcome:?}"
        );
        let refused = other.batch_execute(&become_it).await.unwrap_err();
        assert!(
            refused.as_db_error().unwrap().message().contains("permission denied"),
            "{refused}"
        );
        session.batch_execute("SELECT 1").await.unwrap_err();
        estate.supers[0].batch_execute("DROP TABLE mine").await.unwrap();
        assert_eq!(estate.rig.revoke(&login).await, Outcome::Gone, "{admin:?}");
    }
}

/// Somebody gives a login another name, and its own to another role, while rung 1 waits for it.
#[actix_rt::test]
async fn a_role_that_takes_a_logins_name_at_the_moment_of_its_end_is_not_harmed() {
    let postgres = TestPostgres::shared();
    for many in [false, true] {
        let (rig, database) = rig(postgres).await;
        let (login, other) = (rig.mint("app").await.unwrap(), rig.mint("app").await.unwrap());
        let admin = postgres.admin(&database.name).await;
        let swap = format!(
            "BEGIN; ALTER ROLE \"{0}\" RENAME TO {1}_renamed; CREATE ROLE \"{0}\" LOGIN",
            login.username, database.name
        );
        admin.batch_execute(&swap).await.unwrap();
        let swapping = async {
            let waits =
                "SELECT 1 FROM pg_stat_activity WHERE datname = $1 AND wait_event_type = 'Lock'";
            let watch = postgres.admin("postgres").await;
            while watch.query(waits, &[&database.name]).await.unwrap().is_empty() {
                tokio::task::yield_now().await;
            }
            // In time, or it is ended for standing in the way.
            admin.batch_execute("COMMIT").await.is_ok()
        };
        let logins: Vec<&Login> = if many { vec![&login, &other] } else { vec![&login] };
        let (outcomes, swapped) = tokio::join!(rig.revoke_all(&logins, None), swapping);
        let outcomes = outcomes.unwrap();
        if swapped {
            assert!(matches!(&outcomes[0], Outcome::Failed(_)), "{outcomes:?}");
            let look = "SELECT rolcanlogin FROM pg_roles WHERE rolname = $1";
            let row = postgres.admin("postgres").await.query_one(look, &[&login.username]).await;
            assert!(row.unwrap().get::<_, bool>(0), "{many}: the other role is as it was");
        }
        if many {
            assert_eq!(outcomes[1], Outcome::Gone);
        }
        assert_eq!(rig.revoke(&login).await, Outcome::Gone);
        assert!(!postgres.role_exists(&format!("{}_renamed", database.name)).await);
        assert_eq!(postgres.role_exists(&login.username).await, swapped);
    }
}
