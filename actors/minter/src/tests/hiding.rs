//! Logins whose sessions are past their password and do not show yet.

use mssm_messages::engine::Outcome;
use mssm_testkit::TestPostgres;

use super::estate::{Admin, Estate};

#[actix_rt::test]
async fn a_login_that_sleeps_before_it_shows_is_ended_too() {
    let postgres = TestPostgres::shared();
    for admin in [Admin::Superuser, Admin::Limited] {
        let estate = Estate::new(postgres, admin).await;
        estate.role(false).await;
        let login = estate.rig.mint("app").await.unwrap();
        let database = estate.database(0);
        let (user, password) = (&login.username, &login.password);
        let hiding = postgres.connect_with(user, password, database, "-c post_auth_delay=20");
        let revoking = async {
            // Past its authentication, and nobody's to see.
            let sql = "SELECT l.pid FROM pg_locks l JOIN pg_database d ON d.oid = l.objid \
                WHERE l.locktype = 'object' AND d.datname = $1 \
                AND l.pid NOT IN (SELECT pid FROM pg_stat_activity WHERE usesysid IS NOT NULL)";
            while estate.supers[0].query(sql, &[&database]).await.unwrap().is_empty() {
                tokio::task::yield_now().await;
            }
            estate.rig.revoke(&login).await
        };
        let (session, outcome) = tokio::join!(hiding, revoking);
        assert_eq!(outcome, Outcome::Gone, "{admin:?}");
        if let Ok(session) = session {
            let asked = session.query("SELECT 1", &[]).await;
            assert!(asked.is_err(), "{admin:?}: it cannot do anything");
        }
    }
}
