//! `mssm status`: whether the server is initialised and unsealed; exits with 2 when it is sealed.

use serde_json::Value;

use super::call::{Answer, Call};
use super::failure::{Failure, REFUSED, Seal};
use super::hints;
use super::output::line;
use super::session::Session;
use super::settings::Format;

/// The members of a seal status that are shown, and their headings.
const SHOWN: [(&str, &str); 9] = [
    ("type", "Seal Type"),
    ("initialized", "Initialized"),
    ("sealed", "Sealed"),
    ("n", "Total Shares"),
    ("t", "Threshold"),
    ("version", "Version"),
    ("storage_type", "Storage Type"),
    ("cluster_name", "Cluster Name"),
    ("cluster_id", "Cluster ID"),
];

/// Asks for the status, prints it, and fails silently when the server is sealed.
pub(crate) fn run(session: &mut Session<'_>) -> Result<(), Failure> {
    let answer = session.ask(&Call::read("sys/seal-status"))?;
    print(session, &answer)?;
    let people = session.output.format == Format::Table && session.output.field.is_none();
    if people && let Some(hint) = hints::for_seal(seal(&answer)) {
        session.output.note(&format!("Hint: {hint}"));
    }
    if is_sealed(&answer) { Err(Failure::Silent(REFUSED)) } else { Ok(()) }
}

/// How the seal stands, by a seal status.
pub(crate) fn seal(answer: &Answer) -> Seal {
    if answer.member("initialized").as_bool() == Some(false) {
        return Seal::New;
    }
    match answer.member("type").as_str() {
        _ if !is_sealed(answer) => Seal::Unknown,
        Some("static") => Seal::Key,
        _ => Seal::Shares,
    }
}

/// Whether a seal status says sealed.
pub(crate) fn is_sealed(answer: &Answer) -> bool {
    answer.member("sealed").as_bool().unwrap_or(false)
}

/// Prints a seal status, as `status`, `operator unseal` and `operator status` show it.
pub(crate) fn print(session: &mut Session<'_>, answer: &Answer) -> Result<(), Failure> {
    if session.output.field.is_some() {
        let value = answer.member(session.output.field.as_deref().unwrap_or_default()).clone();
        return session.output.raw(Some(&value));
    }
    if session.output.format == Format::Json {
        return session.output.json(&answer.body);
    }
    let mut rows: Vec<Vec<String>> = Vec::new();
    for (member, heading) in SHOWN {
        let value = answer.member(member);
        if !value.is_null() {
            rows.push(line(heading, value));
        }
        if member == "t" && is_sealed(answer) {
            let progress = format!("{}/{}", answer.member("progress"), answer.member("t"));
            rows.push(line("Unseal Progress", &Value::String(progress)));
        }
    }
    session.output.table(&["Key", "Value"], &rows)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::input::ScriptedInput;
    use crate::cli::session::script::Script;

    const SEALED: &str =
        r#"{"type":"shamir","initialized":true,"sealed":true,"t":3,"n":5,"progress":1}"#;

    #[test]
    fn a_sealed_server_is_shown_with_its_progress_and_exits_with_two() {
        let script = Script::new(&[(200, SEALED)]);
        let failure = script.run(ScriptedInput::default(), run).unwrap_err();
        assert_eq!(failure, Failure::Silent(2));
        assert!(script.out.borrow().contains("Unseal Progress    1/3\n"));
        assert!(script.notes.borrow().contains("operator unseal"));
    }

    #[test]
    fn what_is_to_be_done_about_a_seal_is_said() {
        let cases = [
            (r#"{"type":"shamir","initialized":false,"sealed":true}"#, "mssm operator init"),
            (r#"{"type":"static","initialized":true,"sealed":true}"#, "static key"),
        ];
        for (status, expected) in cases {
            let script = Script::new(&[(200, status)]);
            script.run(ScriptedInput::default(), run).unwrap_err();
            assert!(script.notes.borrow().contains(expected), "{status}");
        }
    }

    #[test]
    fn an_unsealed_server_exits_with_zero() {
        let script = Script::new(&[(200, r#"{"sealed":false,"t":3,"n":5,"version":"2.0"}"#)]);
        assert_eq!(script.run(ScriptedInput::default(), run), Ok(()));
        assert!(script.out.borrow().contains("Sealed          false\n"));
    }
}
