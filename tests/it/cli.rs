//! The command line against a real server: what it prints and how it exits.

use std::io::Write;
use std::process::{Command, Output, Stdio};

use serde_json::{Value, json};

use crate::harness::{Database, Options, Server};

fn out(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[track_caller]
fn good(output: &Output) -> String {
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{} {said}", out(output));
    out(output)
}

#[track_caller]
fn parsed(output: &Output) -> Value {
    let text = good(output);
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

/// A command whose standard input is given.
fn fed(server: &Server, arguments: &[&str], input: &str) -> Output {
    let mut command = server.cli_command(arguments);
    command.env("MSSM_TOKEN", &server.root_token);
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    child.wait_with_output().unwrap()
}

#[test]
fn an_operator_initialises_unseals_seals_and_sees_it_in_exit_codes() {
    let mut server = Server::start(Options::default());
    let bare = |server: &Server, arguments: &[&str]| {
        server.cli_command(arguments).stdin(Stdio::null()).output().unwrap()
    };
    assert_eq!(bare(&server, &["status"]).status.code(), Some(2));
    let init = ["operator", "init", "-key-shares", "3", "-key-threshold", "2", "-format", "json"];
    let founded = parsed(&bare(&server, &init));
    let share = |index: usize| {
        let shares = founded.get("keys_base64").or_else(|| founded.get("unseal_keys_b64")).unwrap();
        shares[index].as_str().unwrap().to_owned()
    };
    let again = bare(&server, &init);
    assert_eq!(again.status.code(), Some(2), "the server refused");
    let sealed = fed(&server, &["operator", "unseal", "-"], &share(0));
    good(&sealed);
    assert_eq!(bare(&server, &["status"]).status.code(), Some(2));
    good(&fed(&server, &["operator", "unseal", "-"], &share(2)));
    let status = bare(&server, &["status"]);
    assert_eq!(status.status.code(), Some(0), "{}", out(&status));
    server.root_token = founded["root_token"].as_str().unwrap().to_owned();
    good(&server.cli(&["operator", "rotate"]));
    good(&server.cli(&["operator", "seal"]));
    assert_eq!(bare(&server, &["status"]).status.code(), Some(2));
    server.stop();
    assert_eq!(bare(&server, &["status"]).status.code(), Some(1), "nobody there is another code");
}

#[test]
fn secrets_are_put_read_and_listed() {
    let server = Server::open();
    good(&server.cli(&["kv", "put", "secret/app", "user=me", "password=canary"]));
    let text = good(&server.cli(&["kv", "get", "secret/app"]));
    assert!(text.contains("user") && text.contains("canary"), "{text}");
    let read = parsed(&server.cli(&["kv", "get", "-format", "json", "secret/app"]));
    assert_eq!(read["data"]["data"], json!({"user": "me", "password": "canary"}));
    let field = good(&server.cli(&["kv", "get", "-field=user", "secret/app"]));
    assert_eq!(field.trim_end(), "me");
    assert!(good(&server.cli(&["kv", "list", "secret"])).contains("app"));
    good(&fed(&server, &["kv", "put", "secret/piped", "password=-"], "from a pipe"));
    let field = good(&server.cli(&["kv", "get", "-field=password", "secret/piped"]));
    assert_eq!(field.trim_end(), "from a pipe");
    good(&server.cli(&["kv", "delete", "secret/app"]));
    assert_eq!(server.cli(&["kv", "get", "secret/none"]).status.code(), Some(2));
}

#[test]
fn policies_tokens_and_logins_are_made() {
    let database = Database::shared();
    let server = Server::open();
    database.configure(&server.root(), "db", "1h", "2h");
    let policy = "path \"db/creds/app\" { capabilities = [\"read\"] }";
    good(&fed(&server, &["policy", "write", "app", "-"], policy));
    assert!(good(&server.cli(&["policy", "read", "app"])).contains("db/creds/app"));
    assert!(good(&server.cli(&["policy", "list"])).contains("default"));
    let made = parsed(
        &server.cli(&["token", "create", "-policy", "app", "-ttl", "1h", "-format", "json"]),
    );
    let token = made["auth"]["client_token"].as_str().unwrap();
    let creds = parsed(&server.cli_as(token, &["db", "creds", "-format", "json", "app"]));
    let lease = creds["lease_id"].as_str().unwrap();
    let (user, password) = (creds["data"]["username"].as_str(), creds["data"]["password"].as_str());
    assert!(database.login(user.unwrap(), password.unwrap()).is_ok());
    let shown = parsed(&server.cli(&["lease", "lookup", "-format", "json", lease]));
    assert_eq!(shown["data"]["id"], json!(lease));
    good(&server.cli(&["lease", "renew", lease]));
    good(&server.cli(&["lease", "revoke", "-sync", lease]));
    assert!(!database.has_role(user.unwrap()));
    let refused = server.cli_as(token, &["policy", "list"]);
    assert_eq!(refused.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&refused.stderr).contains("permission denied"));
    good(&fed(&server, &["token", "revoke", "-"], token));
}

#[test]
fn vaults_own_variables_are_understood() {
    let server = Server::open();
    let ran = Command::new(env!("CARGO_BIN_EXE_mssm"))
        .args(["token", "lookup", "-format", "json"])
        .env_clear()
        .env("VAULT_ADDR", format!("https://127.0.0.1:{}", server.port()))
        .env("VAULT_CACERT", server.certificate_file())
        .env("VAULT_TOKEN", &server.root_token)
        .output()
        .unwrap();
    assert_eq!(parsed(&ran)["data"]["policies"], json!(["root"]));
}

#[test]
fn help_completion_and_mistakes_need_no_server() {
    let run = |arguments: &[&str]| {
        Command::new(env!("CARGO_BIN_EXE_mssm")).args(arguments).env_clear().output().unwrap()
    };
    for arguments in
        [&["--help"][..], &["kv", "--help"], &["operator", "init", "--help"], &["server", "--help"]]
    {
        assert!(good(&run(arguments)).len() > 200, "{arguments:?}");
    }
    for shell in ["bash", "zsh", "fish"] {
        assert!(good(&run(&["completion", shell])).contains("mssm"));
    }
    for arguments in [&["kv", "gett"][..], &["nonsense"], &["kv", "get"]] {
        assert_eq!(run(arguments).status.code(), Some(1), "{arguments:?}");
    }
    let nobody = run(&["status", "-address", "https://127.0.0.1:1"]);
    assert_eq!(nobody.status.code(), Some(1));
    assert!(!nobody.stderr.is_empty());
}

#[test]
fn a_sound_store_is_checked_and_found_sound() {
    for storage in ["embedded", "file"] {
        let mut server = Server::ready(Options { storage, ..Options::default() });
        server.root().post("secret/data/a", json!({"data": {"b": "c"}})).expect(200);
        server.stop();
        let config = server.path("mssm.toml").display().to_string();
        good(&server.cli(&["storage", "check", "--config", &config]));
    }
}
