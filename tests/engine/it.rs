//! Vouchers, an engine that was added from outside: everything that leases promise holds for them.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use serde_json::json;

use crate::harness::{Options, Server, eventually};

const SOON: Duration = Duration::from_secs(20);

fn ready() -> Server {
    let server = Server::ready(Options::default());
    server.root().post("sys/mounts/voucher", json!({"type": "voucher"})).expect(204);
    server
}

fn service(server: &Server) -> PathBuf {
    server.data().with_extension("vouchers")
}

#[test]
fn a_voucher_is_leased_renewed_seen_by_the_command_line_audited_and_revoked() {
    let server = ready();
    let root = server.root();
    let answer = root.get("voucher/creds/app").expect(200);
    let (lease, name) = (answer.text_at("/lease_id"), answer.text_at("/data/username"));
    let file = service(&server).join(&name);
    let made = fs::read_to_string(&file).unwrap();
    assert!(made.contains(&answer.text_at("/data/password")), "the service knows it");

    root.put("sys/leases/renew", json!({"lease_id": lease, "increment": 7200})).expect(200);
    assert_ne!(fs::read_to_string(&file).unwrap(), made, "its end has moved");

    let shown = server.cli(&["lease", "lookup", &lease]);
    assert!(String::from_utf8_lossy(&shown.stdout).contains(&lease));
    let shown = server.cli(&["lease", "lookup", "-username", &name]);
    assert!(String::from_utf8_lossy(&shown.stdout).contains(&lease));

    root.put("sys/leases/revoke", json!({"lease_id": lease, "sync": true})).expect(204);
    assert!(!file.exists());
    let lines = server.audit_lines();
    let of_lease = |line: &&serde_json::Value| line.to_string().contains(&lease);
    assert!(lines.iter().filter(of_lease).count() >= 2, "made and handed out");
}

#[test]
fn a_voucher_ends_with_nobody_asking_and_with_its_token_and_its_mount() {
    let server = ready();
    let root = server.root();
    root.post("sys/mounts/voucher/tune", json!({"default_lease_ttl": "1s"})).expect(204);
    let name = root.get("voucher/creds/app").expect(200).text_at("/data/username");
    eventually("it expires", SOON, || (!service(&server).join(&name).exists()).then_some(()));

    root.post("sys/mounts/voucher/tune", json!({"default_lease_ttl": "1h"})).expect(204);
    let client = server.limited("app", "path \"voucher/creds/*\" { capabilities = [\"read\"] }");
    let name = client.get("voucher/creds/app").expect(200).text_at("/data/username");
    root.delete("sys/policies/acl/app").expect(204);
    client.get("voucher/creds/app").refused(403, "permission denied");
    root.delete("sys/mounts/voucher").expect(204);
    eventually("it goes with its mount", SOON, || {
        (!service(&server).join(&name).exists()).then_some(())
    });
}

#[test]
fn a_voucher_without_a_lease_is_ended_after_the_unseal_and_what_has_no_marker_stays() {
    let mut server = ready();
    let name = server.root().get("voucher/creds/app").expect(200).text_at("/data/username");
    let (known, service) = (service(&server).join(&name), service(&server));
    let text = fs::read_to_string(&known).unwrap();
    server.kill9();
    let mut lines: Vec<&str> = text.lines().collect();
    lines[0] = "voucher/creds/app/000000000000000000000000";
    let (stray, foreign) = (service.join("voucher-stray"), service.join("other"));
    fs::write(&stray, lines.join("\n")).unwrap();
    fs::write(&foreign, "somebody else's").unwrap();
    server.again();
    server.unseal();
    eventually("the stray ends", SOON, || (!stray.exists()).then_some(()));
    assert!(foreign.exists() && known.exists());
}
