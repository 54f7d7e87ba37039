//! The real program is killed amid minting and ending MySQL logins; then logins and leases are compared.

use std::os::unix::process::ExitStatusExt;
use std::time::Duration;

use serde_json::json;

use super::{LATE, Shop};
use crate::harness::{Client, Login, Options, Server, eventually};

/// How long what a kill left may take to be gone.
const SETTLED: Duration = Duration::from_mins(1);

/// Asks for logins until nobody answers.
fn mint_until_it_dies(root: &Client) -> Vec<Login> {
    let mut logins = Vec::new();
    while let Ok(answer) = root.try_send("GET", "db/creds/app", &[], None) {
        if answer.status != 200 {
            break;
        }
        logins.push(Login::of(&answer));
    }
    logins
}

/// What was answered lives; every login has its lease, and every lease its login.
fn only_leased_logins_are_left(shop: &Shop, root: &Client, known: &[Login], after: &str) {
    eventually(&format!("logins and leases agree after {after}"), SETTLED, || {
        let minted = shop.minted();
        let leases = root.list("sys/leases/lookup/db/creds/app/");
        let leases = if leases.status == 404 { 0 } else { leases.keys().len() };
        let there = known.iter().all(|login| minted.contains(&login.user));
        (there && leases == minted.len()).then_some(())
    });
}

#[test]
fn after_kill_9_amid_minting_no_login_is_without_a_lease() {
    let shop = Shop::private();
    let mut server = Server::open();
    shop.configure(&server.root(), "1h");
    let mut known = Vec::new();
    for round in 1..=3 {
        let root = server.root();
        known.extend(std::thread::scope(|scope| {
            let mint = || mint_until_it_dies(&root);
            let threads: Vec<_> = (0..8).map(|_| scope.spawn(mint)).collect();
            eventually("some logins are made", SETTLED, || {
                (shop.minted().len() > 12 * round).then_some(())
            });
            server.kill9();
            threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect::<Vec<_>>()
        }));
        server.again();
        server.unseal();
        only_leased_logins_are_left(&shop, &server.root(), &known, "a kill");
    }
    assert!(known.iter().all(|login| shop.accepts(login)));
    let all = server.root().put("sys/leases/revoke-prefix/db/creds/app", json!({"sync": true}));
    all.expect(204);
    assert_eq!(shop.minted(), Vec::<String>::new());
}

#[test]
fn killed_at_every_step_of_a_mint_and_of_an_end_no_login_is_without_a_lease() {
    const ABORTED: i32 = 6;
    let shop = Shop::private();
    let seal = "kind = \"static\"\nkey_file = \"{folder}/root.key\"".to_owned();
    let files = vec![("root.key", "5a".repeat(32))];
    let mut server = Server::start(Options { seal, files, ..Options::default() });
    let founded = server.client().put("sys/init", json!({})).expect(200);
    server.root_token = founded.text_at("/root_token");
    let _ = server.client().put("sys/unseal", json!({}));
    let mut role = shop.role("1h");
    role["verify"] = json!(false);
    server.root().post("db/config/main", shop.connection()).expect(204);
    let written = server.root().post("db/roles/app", role);
    assert!(written.status < 300, "{}", written.text);
    let mint = ["before_session", "before_sql", "between_statements:1", "between_statements:2"];
    let mint = mint.into_iter().chain(["between_statements:3", "after_sql"]);
    let end = ["before_look", "after_look", "before_access", "before_bar", "after_bar"];
    let end = end.into_iter().chain(["after_access", "before_drops", "after_drops"]);
    let points = mint.map(|point| format!("mint_{point}"));
    for point in points.chain(end.map(|point| format!("revoke_{point}"))) {
        server.kill9();
        assert!(server.again_until(&format!("mysql.{point}")), "it opens");
        let root = server.root();
        eventually("it opens by itself", LATE, || {
            (root.get("sys/health").status == 200).then_some(())
        });
        let mut known = Vec::new();
        if let Ok(answer) = root.try_send("GET", "db/creds/app", &[], None)
            && answer.status == 200
        {
            let login = Login::of(&answer);
            let ending = json!({"lease_id": login.lease, "sync": true}).to_string();
            let put = root.try_send("PUT", "sys/leases/revoke", &[], Some(&ending));
            // Whether it was revoked is not known if no answer came.
            known.extend(put.is_ok().then_some(login));
        }
        let mut status = None;
        eventually(&format!("{point} is met"), LATE, || {
            status = server.ended();
            status.map(|_| ())
        });
        assert_eq!(status.and_then(|status| status.signal()), Some(ABORTED), "{point}");
        assert!(known.is_empty(), "{point}: it was killed before it answered");
        server.again();
        let root = server.root();
        eventually("it opens by itself", LATE, || {
            (root.get("sys/health").status == 200).then_some(())
        });
        only_leased_logins_are_left(&shop, &root, &[], &point);
        root.put("sys/leases/revoke-prefix/db/creds/app", json!({"sync": true})).expect(204);
        assert_eq!(shop.minted(), Vec::<String>::new(), "{point}");
    }
}
