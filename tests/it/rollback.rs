//! A store that was replaced by an older copy of itself.

use std::fs;
use std::path::Path;

use serde_json::json;

use crate::harness::{Options, Server};

fn copy_folder(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
    }
}

/// A token that was revoked after the copy was made would be valid again.
#[test]
fn an_older_copy_of_the_store_stays_sealed_until_that_is_accepted() {
    let mut server = Server::ready(Options::default());
    let revoked = server.with_new_token(json!({"policies": ["default"]}));
    server.stop();
    let backup = server.path("backup");
    copy_folder(&server.data(), &backup);

    server.again();
    server.unseal();
    revoked.get("auth/token/lookup-self").expect(200);
    revoked.post("auth/token/revoke-self", json!({})).expect(204);
    server.stop();
    copy_folder(&backup, &server.data());

    server.again();
    let refused = server.client().put("sys/unseal", json!({"key": server.shares[0]}));
    assert!(refused.status >= 500, "{}", refused.text);
    assert!(server.log().contains("older than the audit log"), "the operator is told");
    revoked.get("auth/token/lookup-self").refused(503, "sealed");
    server.stop();

    server.arguments = vec!["--accept-rollback"];
    server.again();
    server.unseal();
    revoked.get("auth/token/lookup-self").expect(200);
    assert!(server.audit_text().contains("store-rolled-back"), "it is written down");
    server.stop();

    server.arguments.clear();
    server.again();
    server.unseal();
    server.root().get("auth/token/lookup-self").expect(200);
}
