//! `mssm policy`: who may do what at which path.

use clap::Subcommand;
use serde_json::json;

use super::call::Call;
use super::failure::Failure;
use super::session::Session;
use super::settings::Format;

/// What is done with policies.
#[derive(Debug, Subcommand)]
pub(crate) enum PolicyCommand {
    /// Name all policies
    List,
    /// Print a policy's text
    Read {
        /// The policy's name
        name: String,
    },
    /// Write a policy from a file or from standard input
    #[command(after_help = "Examples:
  mssm policy write app app.hcl
  echo 'path \"secret/data/app/*\" { capabilities = [\"read\"] }' | mssm policy write app -")]
    Write {
        /// The policy's name
        name: String,
        /// The file that holds it; `-` is standard input
        file: String,
    },
    /// Delete a policy; tokens that carry it lose what it gave
    Delete {
        /// The policy's name
        name: String,
    },
}

/// Runs one of them.
pub(crate) fn run(command: &PolicyCommand, session: &mut Session<'_>) -> Result<(), Failure> {
    let place = |name: &str| format!("sys/policies/acl/{name}");
    match command {
        PolicyCommand::List => session.show_names("sys/policies/acl"),
        PolicyCommand::Read { name } => read(&place(name), session),
        PolicyCommand::Write { name, file } => {
            let policy = if file == "-" {
                session.input.read_all()?
            } else {
                session.input.read_file(file)?
            };
            let call = Call::write(&place(name), json!({ "policy": policy }));
            session.carry_out(&call, &format!("Success! Wrote policy: {name}"))
        }
        PolicyCommand::Delete { name } => {
            let call = Call::delete(&place(name));
            session.carry_out(&call, &format!("Success! Deleted policy (if it existed): {name}"))
        }
    }
}

fn read(path: &str, session: &mut Session<'_>) -> Result<(), Failure> {
    let answer = session.ask(&Call::read(path))?;
    if session.output.format == Format::Json || session.output.field.is_some() {
        return session.output.secret(&answer);
    }
    let text = answer.data().and_then(|data| data.get("policy")).and_then(|policy| policy.as_str());
    let text = text.unwrap_or_default().trim_end();
    session.output.text(&format!("{text}\n"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::input::ScriptedInput;
    use crate::cli::session::script::Script;

    #[test]
    fn a_policy_is_written_from_standard_input() {
        let script = Script::new(&[(204, "")]);
        let command = PolicyCommand::Write { name: "app".to_owned(), file: "-".to_owned() };
        script.run(ScriptedInput::new("path \"x\" {}"), |session| run(&command, session)).unwrap();
        let expected = r#"PUT /v1/sys/policies/acl/app {"policy":"path \"x\" {}"}"#;
        assert_eq!(*script.asked.borrow(), [expected]);
        assert_eq!(*script.out.borrow(), "Success! Wrote policy: app\n");
    }

    #[test]
    fn a_policy_is_printed_as_it_was_written() {
        let script = Script::new(&[(200, r#"{"data":{"name":"a","policy":"path \"x\" {\n}\n"}}"#)]);
        let command = PolicyCommand::Read { name: "a".to_owned() };
        script.run(ScriptedInput::default(), |session| run(&command, session)).unwrap();
        assert_eq!(*script.out.borrow(), "path \"x\" {\n}\n");
    }
}
