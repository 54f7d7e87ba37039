//! `mssm read|write|list|delete`: any path of the API.

use clap::Args;
use serde_json::{Map, Value};

use super::call::Call;
use super::failure::{Failure, REFUSED};
use super::session::Session;
use super::values;

/// What `read`, `list` and `delete` take.
#[derive(Args, Debug)]
pub(crate) struct PathArgs {
    /// The path, without /v1/
    path: String,
}

/// What `write` takes.
#[derive(Args, Debug)]
pub(crate) struct WriteArgs {
    /// Write without data
    #[arg(long, short = 'f')]
    force: bool,
    /// The path, without /v1/
    path: String,
    /// key=value, key=@FILE, key=-, @FILE.json, or - for JSON on standard input
    #[arg(value_name = "DATA")]
    data: Vec<String>,
}

/// Reads a path.
pub(crate) fn read(args: &PathArgs, session: &mut Session<'_>) -> Result<(), Failure> {
    let call = Call::read(&args.path);
    let answer = session.attempt(&call)?;
    let is_done = answer.status < 300;
    let wraps = |body: &Map<String, Value>| {
        ["request_id", "errors"].iter().any(|name| body.contains_key(*name))
    };
    // Some paths answer without the usual wrapper: then all of it is shown, also if the status says,
    // as that of sys/health does, that the server is sealed.
    match answer.body.as_object().filter(|body| !body.is_empty() && !wraps(body)) {
        Some(bare) => session.output.object(bare, &answer.body)?,
        None if is_done => session.output.secret(&answer)?,
        None => return Err(session.refused(&call, &answer)),
    }
    if is_done { Ok(()) } else { Err(Failure::Silent(REFUSED)) }
}

/// Writes to a path.
pub(crate) fn write(args: &WriteArgs, session: &mut Session<'_>) -> Result<(), Failure> {
    if args.data.is_empty() && !args.force {
        return Err(Failure::advised(
            "there is no data to write",
            "give key=value, or -force to write without",
        ));
    }
    let body = Value::Object(values::parse(&args.data, session.input)?);
    let call = Call::write(&args.path, body);
    let done = format!("Success! Data written to: {}", call.path);
    session.carry_out(&call, &done)
}

/// Lists a path.
pub(crate) fn list(args: &PathArgs, session: &mut Session<'_>) -> Result<(), Failure> {
    session.show_names(args.path.trim_end_matches('/'))
}

/// Deletes a path.
pub(crate) fn delete(args: &PathArgs, session: &mut Session<'_>) -> Result<(), Failure> {
    let call = Call::delete(&args.path);
    let done = format!("Success! Data deleted (if it existed) at: {}", call.path);
    session.carry_out(&call, &done)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::input::ScriptedInput;
    use crate::cli::session::script::Script;

    #[test]
    fn an_answer_without_a_wrapper_is_shown_whole() {
        let script = Script::new(&[(200, r#"{"initialized":true}"#)]);
        let args = PathArgs { path: "sys/init".to_owned() };
        script.run(ScriptedInput::default(), |session| read(&args, session)).unwrap();
        assert!(script.out.borrow().contains("initialized    true"));
    }

    #[test]
    fn what_a_sealed_server_says_of_itself_is_shown() {
        let health = r#"{"sealed":true,"audit_blocked_reason":"the file was cut"}"#;
        let script = Script::new(&[(503, health)]);
        let args = PathArgs { path: "sys/health".to_owned() };
        let read = script.run(ScriptedInput::default(), |session| read(&args, session));
        assert_eq!(read.unwrap_err().code(), 2);
        assert!(script.out.borrow().contains("the file was cut"));
    }

    #[test]
    fn writing_nothing_must_be_meant() {
        let args = |force| WriteArgs { force, path: "/sys/rotate".to_owned(), data: Vec::new() };
        let script = Script::new(&[(204, "")]);
        assert!(
            script.run(ScriptedInput::default(), |session| write(&args(false), session)).is_err()
        );
        script.run(ScriptedInput::default(), |session| write(&args(true), session)).unwrap();
        assert_eq!(*script.asked.borrow(), ["PUT /v1/sys/rotate {}"]);
        assert_eq!(*script.out.borrow(), "Success! Data written to: sys/rotate\n");
    }
}
