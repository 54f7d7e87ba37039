//! MySQL logins and leases compared over HTTPS: who is ended, who is left alone.

use serde_json::json;

use super::{LATE, Shop};
use crate::harness::{Login, Server, eventually};
use crate::reconcile::{events, forgetful, found, keep, reconcile, second};

fn is_gone(shop: &Shop, user: &str) {
    let there = || shop.runtime.block_on(shop.server().user_exists(user));
    eventually("the user is gone", LATE, || (!there()).then_some(()));
}

#[test]
fn a_mysql_login_that_came_back_is_told_in_a_dry_run_and_then_ended_again() {
    let shop = Shop::shared();
    let server = Server::open();
    let root = server.root();
    shop.configure(&root, "1h");
    let (login, other) = (Login::mint(&root, "db/creds/app"), Login::mint(&root, "db/creds/app"));
    root.put("sys/leases/revoke", json!({"lease_id": login.lease, "sync": true})).expect(204);
    let (user, password) = (&login.user, &login.password);
    let vaults = format!("v-toke-app-{}", "4uX0RbY1mRZkJ6aPq2Wv");
    shop.sql(&format!("CREATE USER '{user}'@'%' IDENTIFIED BY '{password}'"));
    shop.sql(&format!("CREATE USER IF NOT EXISTS '{vaults}'@'%'"));
    let dry = server.cli(&["lease", "reconcile", "-dry-run", "-format=json"]);
    let text = String::from_utf8(dry.stdout).unwrap();
    assert!(dry.status.success() && text.contains("came_back") && text.contains(user), "{text}");
    assert!(shop.accepts(&login), "a dry run touches nothing");
    let mut session = shop.login(&login).unwrap();
    assert_eq!(found(&reconcile(&root, false), "came_back"), [user]);
    is_gone(&shop, user);
    assert!(session_is_over(&shop, &mut session));
    assert!(shop.accepts(&other));
    assert!(shop.runtime.block_on(shop.server().user_exists(&vaults)), "it only looks like ours");
    eventually("the audit is told", LATE, || {
        let lines = server.audit_lines();
        let reopened = events(&lines, "lease-reopened");
        (reopened.first()?["details"]["lease_id"] == login.lease.as_str()).then_some(())
    });
    // A lease without a login is settled.
    shop.sql(&format!("DROP USER '{}'@'%'", other.user));
    assert_eq!(found(&reconcile(&root, false), "absent"), [&other.user]);
    eventually("the lease is settled", LATE, || {
        let status = root.put("sys/leases/lookup", json!({"lease_id": other.lease})).status;
        (status == 400).then_some(())
    });
}

fn session_is_over(shop: &Shop, session: &mut mssm_testkit::MariaDbSession) -> bool {
    shop.runtime.block_on(session.try_run("SELECT 1")).is_err()
}

#[test]
fn a_mysql_login_whose_lease_is_lost_is_ended_by_itself_after_the_unseal() {
    let shop = Shop::shared();
    let (mut server, login) = forgetful(|root| shop.configure(root, "1h"));
    std::fs::copy(server.path("copied.log"), server.audit()).unwrap();
    server.again();
    server.unseal();
    is_gone(&shop, &login.user);
    let root = server.root();
    eventually("its lease has ended", LATE, || {
        (root.list("sys/leases/lookup/orphan").status == 404).then_some(())
    });
    assert!(shop.accepts(&Login::mint(&root, "db/creds/app")));
}

#[test]
fn beside_a_living_server_a_copy_of_its_store_makes_ends_and_reconciles_nothing_on_mysql() {
    let shop = Shop::shared();
    let mut server = Server::open();
    shop.configure(&server.root(), "1h");
    let old = Login::mint(&server.root(), "db/creds/app");
    server.stop();
    keep(&server);
    server.again();
    server.unseal();
    let new = Login::mint(&server.root(), "db/creds/app");
    let second = second(&server);
    let beside = second.root();
    beside.get("db/creds/app").refused(503, "another server");
    let told = reconcile(&beside, false);
    assert_eq!(found(&told, "orphan"), [&new.user], "{}", told.text);
    assert!(told.warnings().contains("another server"), "{}", told.text);
    beside.put("sys/leases/revoke", json!({"lease_id": old.lease})).refused(400, "another server");
    assert!(shop.accepts(&old) && shop.accepts(&new));
    // Once the first is gone, the second may.
    server.kill9();
    eventually("the second server mints", LATE, || {
        (beside.get("db/creds/app").status == 200).then_some(())
    });
    is_gone(&shop, &old.user);
}
