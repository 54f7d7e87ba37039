//! What `mssm kv` asks of a server, on both versions of the engine.

use clap::Parser;

use super::*;
use crate::cli::input::ScriptedInput;
use crate::cli::session::script::Script;

const V1: (u16, &str) = (200, r#"{"data":{"path":"kv1/","type":"kv","options":{"version":"1"}}}"#);
const V2: (u16, &str) =
    (200, r#"{"data":{"path":"team/kv/","type":"kv","options":{"version":"2"}}}"#);

#[derive(Parser)]
struct Line {
    #[command(subcommand)]
    command: KvCommand,
}

fn run_line(script: &Script, line: &str, stdin: &str) -> Result<(), Failure> {
    let words = std::iter::once("kv").chain(line.split_whitespace());
    let parsed = Line::try_parse_from(words).unwrap();
    script.run(ScriptedInput::new(stdin), |session| run(&parsed.command, session))
}

/// The second call that `line` leads to, after the question about the mount.
fn asked(mount: (u16, &str), line: &str) -> String {
    let script = Script::new(&[mount, (200, r#"{"data":{}}"#)]);
    run_line(&script, line, r#"{"n":1}"#).unwrap();
    let asked = script.asked.borrow();
    asked[1].clone()
}

#[test]
fn each_command_asks_for_the_path_of_its_version() {
    let cases = [
        (V1, "get kv1/a/b", "GET /v1/kv1/a/b"),
        (V2, "get team/kv/a/b", "GET /v1/team/kv/data/a/b"),
        (V2, "get --mount team/kv a", "GET /v1/team/kv/data/a"),
        (V2, "get --version 3 team/kv/a", "GET /v1/team/kv/data/a?version=3"),
        (V1, "put kv1/a x=1", r#"PUT /v1/kv1/a {"x":"1"}"#),
        (V2, "put team/kv/a x=1", r#"PUT /v1/team/kv/data/a {"data":{"x":"1"},"options":{}}"#),
        (
            V2,
            "put --cas 0 team/kv/a -",
            r#"PUT /v1/team/kv/data/a {"data":{"n":1},"options":{"cas":0}}"#,
        ),
        (V2, "patch team/kv/a x=1", r#"PATCH /v1/team/kv/data/a {"data":{"x":"1"},"options":{}}"#),
        (V1, "delete kv1/a", "DELETE /v1/kv1/a"),
        (V2, "delete team/kv/a", "DELETE /v1/team/kv/data/a"),
        (V2, "delete --versions 1,2 team/kv/a", r#"PUT /v1/team/kv/delete/a {"versions":[1,2]}"#),
        (V2, "undelete --versions 1 team/kv/a", r#"PUT /v1/team/kv/undelete/a {"versions":[1]}"#),
        (V2, "destroy --versions 1 team/kv/a", r#"PUT /v1/team/kv/destroy/a {"versions":[1]}"#),
        (V1, "list kv1", "LIST /v1/kv1"),
        (V2, "list team/kv/", "LIST /v1/team/kv/metadata"),
        (V2, "list team/kv/a", "LIST /v1/team/kv/metadata/a"),
        (V2, "metadata get team/kv/a", "GET /v1/team/kv/metadata/a"),
        (V2, "metadata delete team/kv/a", "DELETE /v1/team/kv/metadata/a"),
        (
            V2,
            "metadata put --max-versions 5 --cas-required team/kv/a",
            r#"PUT /v1/team/kv/metadata/a {"cas_required":true,"max_versions":5}"#,
        ),
    ];
    for (mount, line, expected) in cases {
        assert_eq!(asked(mount, line), expected, "{line}");
    }
}

#[test]
fn the_mount_is_asked_for_with_the_whole_path() {
    let script = Script::new(&[V2, (200, "{}")]);
    run_line(&script, "get team/kv/a/b", "").unwrap();
    assert_eq!(script.asked.borrow()[0], "GET /v1/sys/internal/ui/mounts/team/kv/a/b");
}

#[test]
fn a_version_is_shown_with_its_metadata_and_a_field_alone() {
    let body = r#"{"data":{"data":{"password":"p","n":1.50},"metadata":{"version":2}}}"#;
    let mut script = Script::new(&[V2, (200, body), V2, (200, body)]);
    run_line(&script, "get team/kv/a", "").unwrap();
    assert!(script.out.borrow().contains("version    2\n"));
    assert!(script.out.borrow().contains("n           1.50\n"), "{}", script.out.borrow());
    script.field = Some("password".to_owned());
    run_line(&script, "get team/kv/a", "").unwrap();
    assert_eq!(*script.out.borrow(), "p");
}

#[test]
fn a_deleted_version_still_shows_its_metadata() {
    let body = r#"{"data":{"data":null,"metadata":{"deletion_time":"2026-01-01T00:00:00Z"}}}"#;
    let script = Script::new(&[V2, (404, body)]);
    run_line(&script, "get team/kv/a", "").unwrap();
    assert!(script.out.borrow().contains("2026-01-01"));
}

#[test]
fn a_missing_secret_is_a_refusal_that_names_the_path() {
    let script = Script::new(&[V2, (404, r#"{"errors":[]}"#)]);
    let failure = run_line(&script, "get team/kv/a", "").unwrap_err();
    assert_eq!(failure.message(), "nothing found at team/kv/data/a");
    assert_eq!(failure.code(), 2);
}

#[test]
fn what_needs_versions_is_refused_on_version_1_before_anything_is_written() {
    for line in [
        "put --cas 1 kv1/a x=1",
        "patch kv1/a x=1",
        "undelete --versions 1 kv1/a",
        "metadata get kv1/a",
    ] {
        let script = Script::new(&[V1]);
        assert_eq!(run_line(&script, line, "").unwrap_err().code(), 1, "{line}");
    }
}

#[test]
fn data_that_is_not_understood_is_refused_before_anything_is_sent() {
    let script = Script::new(&[]);
    assert_eq!(run_line(&script, "put kv1/a nonsense", "").unwrap_err().code(), 1);
}
