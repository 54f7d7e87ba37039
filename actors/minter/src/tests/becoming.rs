//! Which roles a login can become is found out when its role is written.

use mssm_domain::{Caller, Clock, RoleName};
use mssm_messages::engine::EngineError;
use mssm_messages::minter::{RolePatch, Tester, WriteRole};
use mssm_testkit::TestPostgres;

use super::revoking;
use crate::testing::{CREATE, Rig};

/// Rehearses a role that grants something to its logins.
async fn rehearse(rig: &Rig, grant: &str) -> Result<Vec<String>, EngineError> {
    let patch = RolePatch {
        db_name: Some("main".to_owned()),
        creation_statements: Some(vec![CREATE.to_owned(), grant.to_owned()]),
        ..RolePatch::default()
    };
    let caller = Caller::server("test", rig.clock.now()).unwrap();
    let tester = Some(Tester { caller, prefix: "db/".to_owned() });
    let name = RoleName::parse("app").unwrap();
    rig.minter.send(WriteRole { mount: rig.mount, name, patch, tester }).await.unwrap()
}

/// From PostgreSQL 16 on a membership may come without SET. Who inherits still owns what the role owns: an
/// index on a table of its runs functions of one's own as the role, which may set its own password.
#[actix_rt::test]
async fn who_inherits_from_a_role_that_can_log_in_can_become_it() {
    let postgres = TestPostgres::shared();
    let (rig, database) = revoking::rig(postgres).await;
    let admin = postgres.admin(&database.name).await;
    let person = format!("{}_person", database.name);
    admin.batch_execute(&format!("CREATE ROLE {person} LOGIN PASSWORD 'theirs'")).await.unwrap();
    let grant = |how: &str| format!("GRANT {person} TO \"{{{{name}}}}\" {how}");
    let version = admin.query_one("SHOW server_version_num", &[]).await.unwrap();
    let newer = version.get::<_, String>(0).parse::<u32>().unwrap() >= 160_000;
    let becomes = ["", "WITH INHERIT TRUE, SET FALSE", "WITH INHERIT FALSE, SET TRUE"];
    for how in becomes.into_iter().take(if newer { 3 } else { 1 }) {
        let error = rehearse(&rig, &grant(how)).await.unwrap_err().to_string();
        assert!(error.contains(&format!("membership in {person}")), "{how}: {error}");
    }
    if newer {
        rehearse(&rig, &grant("WITH INHERIT FALSE, SET FALSE")).await.unwrap();
    }
}
