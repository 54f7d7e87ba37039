//! `mssm login`: takes a token from a prompt or a pipe, proves it, and keeps it for later commands.

use clap::Args;
use serde_json::json;

use super::call::Call;
use super::failure::Failure;
use super::input;
use super::session::Session;
use super::table;

/// Flags of `login`.
#[derive(Args, Debug)]
pub(crate) struct LoginArgs {
    /// `-` reads the token or password from standard input
    #[arg(value_name = "-")]
    source: Option<String>,
    /// How to log in; userpass is for other servers, MSSM itself takes tokens only
    #[arg(long, default_value = "token", value_parser = ["token", "userpass"])]
    method: String,
    /// User name, for userpass
    #[arg(long, value_name = "NAME")]
    username: Option<String>,
    /// Where the userpass method is mounted
    #[arg(long, default_value = "userpass")]
    path: String,
    /// Prove the token, but do not keep it
    #[arg(long)]
    no_store: bool,
}

/// Logs in.
pub(crate) fn run(args: &LoginArgs, session: &mut Session<'_>) -> Result<(), Failure> {
    let from_stdin = match args.source.as_deref() {
        None => false,
        Some("-") => true,
        // What was given is not repeated; it stands in the shell's history already.
        Some(_) => {
            return Err(Failure::advised(
                "a token or password is not taken from the command line, where others can see it",
                "pipe it: `mssm login - < token.txt`, or leave it out to be asked",
            ));
        }
    };
    let token = if args.method == "userpass" {
        password_login(args, from_stdin, session)?
    } else {
        input::secret(session.input, from_stdin, "Token (not shown): ")?
    };
    let about = session.ask(&Call::read("auth/token/lookup-self").with_token(token.duplicate()))?;
    if !args.no_store {
        let path = session.tokens.store(&token)?;
        session.output.note(&format!("Success! The token is kept in {}.", path.display()));
    }
    let mut shown = about.data().cloned().unwrap_or_default();
    // The token itself is not printed: it is in the file.
    shown.remove("id");
    let wanted =
        ["accessor", "display_name", "expire_time", "policies", "renewable", "ttl", "type"];
    if session.output.format == super::settings::Format::Table && session.output.field.is_none() {
        shown.retain(|name, _| wanted.contains(&name.as_str()));
        return session.output.table(&["Key", "Value"], &table::rows_of(&shown));
    }
    session.output.object(&shown, &json!({ "data": shown }))
}

fn password_login(
    args: &LoginArgs,
    from_stdin: bool,
    session: &mut Session<'_>,
) -> Result<mssm_domain::SecretText, Failure> {
    let name =
        args.username.as_ref().ok_or_else(|| Failure::usage("userpass needs -username=NAME"))?;
    let password = input::secret(session.input, from_stdin, "Password (not shown): ")?;
    let path = format!("auth/{}/login/{name}", args.path.trim_matches('/'));
    // EXPOSE: the server needs the password to check it.
    let answer = session.ask(&Call::write(&path, json!({ "password": password.expose() })))?;
    let token = answer.member("auth").get("client_token").and_then(|token| token.as_str());
    token
        .map(|token| mssm_domain::SecretText::new(token.to_owned()))
        .ok_or_else(|| Failure::usage("the server answered without a token"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::input::ScriptedInput;
    use crate::cli::session::script::Script;

    fn args(source: Option<&str>) -> LoginArgs {
        LoginArgs {
            source: source.map(str::to_owned),
            method: "token".to_owned(),
            username: None,
            path: "userpass".to_owned(),
            no_store: false,
        }
    }

    const ABOUT: &str = r#"{"data":{"id":"s.secret","ttl":60,"policies":["default"]}}"#;

    #[test]
    fn a_proven_token_is_kept_and_not_printed() {
        let home = tempfile::tempdir().unwrap();
        let mut script = Script::new(&[(200, ABOUT)]);
        script.home = Some(home.path().to_owned());
        script.run(ScriptedInput::typing("s.secret"), |session| run(&args(None), session)).unwrap();
        assert_eq!(std::fs::read_to_string(home.path().join(".mssm-token")).unwrap(), "s.secret");
        assert!(script.out.borrow().contains("policies    [default]"));
        assert!(!format!("{}{}", script.out.borrow(), script.notes.borrow()).contains("s.secret"));
        assert_eq!(*script.asked.borrow(), ["GET /v1/auth/token/lookup-self (own token)"]);
    }

    #[test]
    fn a_token_that_the_server_refuses_is_not_kept() {
        let home = tempfile::tempdir().unwrap();
        let mut script = Script::new(&[(403, r#"{"errors":["permission denied"]}"#)]);
        script.home = Some(home.path().to_owned());
        let result =
            script.run(ScriptedInput::new("bad"), |session| run(&args(Some("-")), session));
        assert_eq!(result.unwrap_err().code(), 2);
        assert!(!home.path().join(".mssm-token").exists());
    }

    #[test]
    fn a_token_on_the_command_line_is_refused_and_not_repeated() {
        let script = Script::new(&[]);
        let result =
            script.run(ScriptedInput::default(), |session| run(&args(Some("s.arg")), session));
        assert!(!format!("{result:?}").contains("s.arg"));
    }
}
