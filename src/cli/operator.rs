//! `mssm operator`: initialising, unsealing, sealing and rotating.

use clap::{Args, Subcommand};
use serde_json::{Map, Value, json};

use super::call::{Answer, Call, texts_of};
use super::failure::Failure;
use super::input;
use super::session::Session;
use super::settings::Format;
use super::status;

/// What an operator does.
#[derive(Debug, Subcommand)]
pub(crate) enum OperatorCommand {
    /// Initialise a new server: prints the unseal shares and the first token, once
    #[command(after_help = "Examples:
  mssm operator init
  mssm operator init -key-shares=1 -key-threshold=1 -format=json > init.json
  mssm operator init -status        exits with 0 when initialised, 2 when not")]
    Init(InitArgs),
    /// Hand in one share of the unseal key
    #[command(
        after_help = "A share is asked for without showing it, or read from standard input: never from the
command line, where every user of this machine could see it.

Examples:
  mssm operator unseal                  asks for one share
  mssm operator unseal - < share.txt    reads shares, one a line
  mssm operator unseal -reset           forgets the shares handed in so far"
    )]
    Unseal(UnsealArgs),
    /// Seal the server: it forgets its keys until it is unsealed again
    Seal,
    /// Begin to encrypt with a new key; what is stored stays readable
    Rotate,
    /// Show whether the server is initialised and unsealed
    Status,
    /// Show the encryption key's number and age
    KeyStatus,
}

/// Flags of `operator init`.
#[derive(Args, Debug)]
pub(crate) struct InitArgs {
    /// Number of shares that the unseal key is split into
    #[arg(long, short = 'n', default_value_t = 5)]
    key_shares: u8,
    /// Number of shares that unseal the server
    #[arg(long, short = 't', default_value_t = 3)]
    key_threshold: u8,
    /// Only say whether the server is initialised
    #[arg(long)]
    status: bool,
}

/// Flags of `operator unseal`.
#[derive(Args, Debug)]
pub(crate) struct UnsealArgs {
    /// `-` reads shares from standard input, one a line
    #[arg(value_name = "-")]
    source: Option<String>,
    /// Forget the shares handed in so far
    #[arg(long)]
    reset: bool,
}

/// Runs one of them.
pub(crate) fn run(command: &OperatorCommand, session: &mut Session<'_>) -> Result<(), Failure> {
    match command {
        OperatorCommand::Init(args) if args.status => init_status(session),
        OperatorCommand::Init(args) => init(args, session),
        OperatorCommand::Unseal(args) => unseal(args, session),
        OperatorCommand::Seal => {
            session.carry_out(&Call::write("sys/seal", json!({})), "Success! The server is sealed.")
        }
        OperatorCommand::Rotate => {
            session.ask(&Call::write("sys/rotate", json!({})))?;
            session.output.done("Success! Rotated the key.")?;
            session.show(&Call::read("sys/key-status"))
        }
        OperatorCommand::Status => status::run(session),
        OperatorCommand::KeyStatus => session.show(&Call::read("sys/key-status")),
    }
}

fn init_status(session: &mut Session<'_>) -> Result<(), Failure> {
    let answer = session.ask(&Call::read("sys/init"))?;
    let initialised = answer.member("initialized").as_bool().unwrap_or(false);
    match session.output.format {
        Format::Json => session.output.json(&answer.body)?,
        Format::Table if initialised => session.output.done("The server is initialized")?,
        Format::Table => session.output.done("The server is not initialized")?,
    }
    if initialised { Ok(()) } else { Err(Failure::Silent(super::failure::REFUSED)) }
}

fn init(args: &InitArgs, session: &mut Session<'_>) -> Result<(), Failure> {
    let body = json!({
        "secret_shares": args.key_shares,
        "secret_threshold": args.key_threshold,
    });
    let answer = session.ask(&Call::write("sys/init", body))?;
    if session.output.format == Format::Json || session.output.field.is_some() {
        let shown = vaults_shape(args, &answer);
        return session.output.object(&shown, &Value::Object(shown.clone()));
    }
    let shares = answer.texts("keys_base64");
    let numbered = shares.iter().zip(1..);
    let lines: Vec<String> =
        numbered.map(|(share, number)| format!("Unseal Key {number}: {share}\n")).collect();
    let token = answer.member("root_token").as_str().unwrap_or_default();
    let text = format!("{}\nInitial Root Token: {token}\n", lines.concat());
    session.output.text(&text)?;
    if shares.is_empty() {
        session.output.note(
            "\nInitialized. The key that the server was started with unseals it: keep a copy of it. The
token is shown only now.",
        );
        return Ok(());
    }
    session.output.note(&format!(
        "\nInitialized with {} shares, of which {} unseal. They are shown only now: give each to another
person, and keep none of them where the server runs. Then: `mssm operator unseal`.",
        args.key_shares, args.key_threshold
    ));
    Ok(())
}

/// The JSON that Vault's client prints after an initialisation.
fn vaults_shape(args: &InitArgs, answer: &Answer) -> Map<String, Value> {
    let shape = json!({
        "unseal_keys_b64": texts_of(answer.member("keys_base64")),
        "unseal_keys_hex": texts_of(answer.member("keys")),
        "unseal_shares": args.key_shares,
        "unseal_threshold": args.key_threshold,
        "recovery_keys_b64": texts_of(answer.member("recovery_keys_base64")),
        "recovery_keys_hex": texts_of(answer.member("recovery_keys")),
        "root_token": answer.member("root_token"),
    });
    shape.as_object().cloned().unwrap_or_default()
}

fn unseal(args: &UnsealArgs, session: &mut Session<'_>) -> Result<(), Failure> {
    let from_stdin = match args.source.as_deref() {
        None => false,
        Some("-") => true,
        // The share is not repeated; it stands in the shell's history already.
        Some(_) => {
            return Err(Failure::advised(
                "a share is not taken from the command line, where others can see it",
                "pipe it: `mssm operator unseal - < share.txt`, or leave it out to be asked. Consider this share known to others",
            ));
        }
    };
    if args.reset {
        let answer = session.ask(&Call::write("sys/unseal", json!({ "reset": true })))?;
        return status::print(session, &answer);
    }
    let given = input::secret(session.input, from_stdin, "Unseal share (not shown): ")?;
    let mut last = Answer::default();
    // EXPOSE: the shares go to the server, which needs them to unseal.
    for share in given.expose().lines().map(str::trim).filter(|line| !line.is_empty()) {
        last = session.ask(&Call::write("sys/unseal", json!({ "key": share })))?;
        if !status::is_sealed(&last) {
            break;
        }
    }
    status::print(session, &last)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::input::ScriptedInput;
    use crate::cli::session::script::Script;

    const SEALED: (u16, &str) = (200, r#"{"sealed":true,"t":2,"n":3,"progress":1}"#);
    const OPEN: (u16, &str) = (200, r#"{"sealed":false,"t":2,"n":3,"progress":0}"#);

    fn unseal_with(source: Option<&str>) -> OperatorCommand {
        OperatorCommand::Unseal(UnsealArgs { source: source.map(str::to_owned), reset: false })
    }

    #[test]
    fn shares_are_handed_in_line_by_line_until_the_server_is_open() {
        let script = Script::new(&[SEALED, OPEN]);
        let input = ScriptedInput::new("one\n\n two \nthree\n");
        script.run(input, |session| run(&unseal_with(Some("-")), session)).unwrap();
        let expected =
            [r#"PUT /v1/sys/unseal {"key":"one"}"#, r#"PUT /v1/sys/unseal {"key":"two"}"#];
        assert_eq!(*script.asked.borrow(), expected);
        assert!(!script.out.borrow().contains("one"));
    }

    #[test]
    fn a_share_on_the_command_line_is_refused_and_not_repeated() {
        let script = Script::new(&[]);
        let command = unseal_with(Some("c2hhcmU="));
        let failure =
            script.run(ScriptedInput::default(), |session| run(&command, session)).unwrap_err();
        assert!(!format!("{failure:?}").contains("c2hhcmU="));
        assert!(failure.hint().unwrap().contains("mssm operator unseal -"));
        assert!(script.asked.borrow().is_empty());
    }

    #[test]
    fn an_initialisation_shows_every_share_and_the_token() {
        let answer = r#"{"keys":["00","01"],"keys_base64":["AA==","AQ=="],"root_token":"s.root"}"#;
        let args = InitArgs { key_shares: 2, key_threshold: 2, status: false };
        let command = OperatorCommand::Init(args);
        let mut script = Script::new(&[(200, answer), (200, answer)]);
        script.run(ScriptedInput::default(), |session| run(&command, session)).unwrap();
        let expected = "Unseal Key 1: AA==\nUnseal Key 2: AQ==\n\nInitial Root Token: s.root\n";
        assert_eq!(*script.out.borrow(), expected);
        script.format = Format::Json;
        script.run(ScriptedInput::default(), |session| run(&command, session)).unwrap();
        let printed: Value = serde_json::from_str(&script.out.borrow()).unwrap();
        assert_eq!(printed["unseal_keys_b64"], json!(["AA==", "AQ=="]));
    }

    #[test]
    fn without_shares_nobody_is_told_to_hand_them_out() {
        let answer = r#"{"keys":[],"keys_base64":[],"root_token":"s.root"}"#;
        let args = InitArgs { key_shares: 5, key_threshold: 3, status: false };
        let script = Script::new(&[(200, answer)]);
        let command = OperatorCommand::Init(args);
        script.run(ScriptedInput::default(), |session| run(&command, session)).unwrap();
        assert_eq!(*script.out.borrow(), "\nInitial Root Token: s.root\n");
        assert!(!script.notes.borrow().contains("shares"));
    }
}
