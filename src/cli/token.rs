//! `mssm token`: creating, examining, renewing and revoking tokens.

use clap::{Args, Subcommand};
use mssm_domain::SecretText;
use serde_json::{Map, Value, json};

use super::call::{Call, texts_of};
use super::failure::Failure;
use super::input;
use super::session::Session;
use super::settings::Format;
use super::values;

/// What is done with tokens.
#[derive(Debug, Subcommand)]
pub(crate) enum TokenCommand {
    /// Create a child of your token
    #[command(after_help = "Examples:
  mssm token create -policy=app -ttl=1h
  mssm token create -policy=app -ttl=10m -use-limit=5 -display-name=batch
  MSSM_TOKEN=$(mssm token create -policy=app -field=token) mssm kv get secret/app")]
    Create(Box<CreateArgs>),
    /// Show a token's rights and remaining life: your own unless another is named
    #[command(after_help = "Examples:
  mssm token lookup
  mssm token lookup -accessor 3yDDGgXnB6Kp3hJgvC6jJJ1R
  mssm token lookup - < token.txt")]
    Lookup(Whose),
    /// Lengthen a token's life: your own unless another is named
    Renew {
        #[command(flatten)]
        whose: Whose,
        /// How long it should live from now on, such as 1h
        #[arg(long, short = 'i', value_name = "DURATION")]
        increment: Option<String>,
    },
    /// End a token, with all its children and leases
    #[command(after_help = "Examples:
  mssm token revoke -self
  mssm token revoke -accessor 3yDDGgXnB6Kp3hJgvC6jJJ1R
  mssm token revoke - < token.txt")]
    Revoke {
        #[command(flatten)]
        whose: Whose,
        /// End your own token
        #[arg(long = "self")]
        own: bool,
    },
    /// Show what a token may do at paths: your own unless another is named
    #[command(after_help = "Examples:
  mssm token capabilities secret/data/app
  mssm token capabilities -accessor 3yDDGgXnB6Kp3hJgvC6jJJ1R secret/data/app db/creds/app")]
    Capabilities {
        /// Name the token by its accessor
        #[arg(long, value_name = "ACCESSOR")]
        accessor: Option<String>,
        /// The paths to ask about; a first `-` reads the token from standard input
        #[arg(required = true, value_name = "PATH")]
        paths: Vec<String>,
    },
}

/// Which token is meant.
#[derive(Args, Debug, Default)]
pub(crate) struct Whose {
    /// `-` reads the token from standard input
    #[arg(value_name = "-")]
    source: Option<String>,
    /// Name the token by its accessor
    #[arg(long, value_name = "ACCESSOR", conflicts_with = "source")]
    accessor: Option<String>,
}

/// Flags of `token create`.
#[derive(Args, Debug, Default)]
pub(crate) struct CreateArgs {
    /// A policy of the new token; may be given several times
    #[arg(long, value_name = "NAME")]
    policy: Vec<String>,
    /// How long it lives, such as 1h
    #[arg(long, value_name = "DURATION")]
    ttl: Option<String>,
    /// The longest it can live, whatever its renewals
    #[arg(long, value_name = "DURATION")]
    explicit_max_ttl: Option<String>,
    /// Renewable for ever, by this much each time
    #[arg(long, value_name = "DURATION")]
    period: Option<String>,
    /// A name to recognise it by
    #[arg(long, value_name = "NAME")]
    display_name: Option<String>,
    /// Let it outlive your token
    #[arg(long)]
    orphan: bool,
    /// Leave the policy `default` out
    #[arg(long)]
    no_default_policy: bool,
    /// Whether it can be renewed
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    renewable: Option<bool>,
    /// How many requests it is good for; 0 means any number
    #[arg(long, value_name = "COUNT")]
    use_limit: Option<u64>,
    /// key=value to keep with it; may be given several times
    #[arg(long, value_name = "K=V")]
    metadata: Vec<String>,
    /// `service` or `batch`
    #[arg(long = "type", value_name = "TYPE")]
    kind: Option<String>,
    /// Create it against this token role
    #[arg(long, value_name = "NAME")]
    role: Option<String>,
}

/// The token that a command is about.
enum Subject {
    Own,
    Accessor(String),
    Token(SecretText),
}

impl Whose {
    fn subject(&self, session: &mut Session<'_>) -> Result<Subject, Failure> {
        match (&self.accessor, self.source.as_deref()) {
            (Some(accessor), _) => Ok(Subject::Accessor(accessor.clone())),
            (None, None) => Ok(Subject::Own),
            (None, Some("-")) => input::secret(session.input, true, "").map(Subject::Token),
            // What was given is not repeated: it may be a token.
            (None, Some(_)) => Err(Failure::advised(
                "a token is not taken from the command line, where others can see it",
                "pipe it with `-` (`mssm token lookup - < token.txt`), or name it with -accessor",
            )),
        }
    }
}

/// Runs one of them.
pub(crate) fn run(command: &TokenCommand, session: &mut Session<'_>) -> Result<(), Failure> {
    match command {
        TokenCommand::Create(args) => create(args, session),
        TokenCommand::Lookup(whose) => {
            let call = match whose.subject(session)? {
                Subject::Own => Call::read("auth/token/lookup-self"),
                other => about("auth/token/lookup", other, Map::new()),
            };
            session.show(&call)
        }
        TokenCommand::Renew { whose, increment } => {
            let mut body = Map::new();
            if let Some(increment) = increment {
                body.insert("increment".to_owned(), Value::from(increment.as_str()));
            }
            let subject = whose.subject(session)?;
            session.show(&about("auth/token/renew", subject, body))
        }
        TokenCommand::Revoke { whose, own } => {
            let subject = whose.subject(session)?;
            if *own != matches!(subject, Subject::Own) {
                return Err(Failure::usage(
                    "say which token to end: -self, -accessor, or `-` for standard input",
                ));
            }
            let call = about("auth/token/revoke", subject, Map::new());
            session.carry_out(
                &call,
                "Success! Revoked the token: its children and leases end with it.",
            )
        }
        TokenCommand::Capabilities { accessor, paths } => {
            capabilities(accessor.as_deref(), paths, session)
        }
    }
}

/// `PATH-self`, `PATH-accessor`, or `PATH` with the token in the body.
fn about(path: &str, subject: Subject, mut body: Map<String, Value>) -> Call {
    match subject {
        Subject::Own => Call::write(&format!("{path}-self"), Value::Object(body)),
        Subject::Accessor(accessor) => {
            body.insert("accessor".to_owned(), Value::from(accessor));
            Call::write(&format!("{path}-accessor"), Value::Object(body))
        }
        Subject::Token(token) => {
            // EXPOSE: the server finds the token by itself.
            body.insert("token".to_owned(), Value::from(token.expose()));
            Call::write(path, Value::Object(body))
        }
    }
}

fn create(args: &CreateArgs, session: &mut Session<'_>) -> Result<(), Failure> {
    let all = [
        ("policies", (!args.policy.is_empty()).then(|| Value::from(args.policy.clone()))),
        ("ttl", args.ttl.clone().map(Value::from)),
        ("explicit_max_ttl", args.explicit_max_ttl.clone().map(Value::from)),
        ("period", args.period.clone().map(Value::from)),
        ("display_name", args.display_name.clone().map(Value::from)),
        ("no_parent", args.orphan.then_some(Value::Bool(true))),
        ("no_default_policy", args.no_default_policy.then_some(Value::Bool(true))),
        ("renewable", args.renewable.map(Value::Bool)),
        ("num_uses", args.use_limit.map(Value::from)),
        ("meta", values::pairs("metadata", &args.metadata)?),
        ("type", args.kind.clone().map(Value::from)),
    ];
    let given =
        all.into_iter().filter_map(|(name, value)| value.map(|value| (name.to_owned(), value)));
    let path = match &args.role {
        Some(role) => format!("auth/token/create/{role}"),
        None => "auth/token/create".to_owned(),
    };
    session.show(&Call::write(&path, Value::Object(given.collect())))
}

fn capabilities(
    accessor: Option<&str>,
    paths: &[String],
    session: &mut Session<'_>,
) -> Result<(), Failure> {
    let (piped, paths) = match paths {
        [first, rest @ ..] if first == "-" => (true, rest),
        all => (false, all),
    };
    if paths.is_empty() || (piped && accessor.is_some()) {
        return Err(Failure::usage("say at which path, and name the token in one way only"));
    }
    let call = match accessor {
        Some(accessor) => Call::write(
            "sys/capabilities-accessor",
            json!({ "accessor": accessor, "paths": paths }),
        ),
        None if piped => {
            let token = input::secret(session.input, true, "")?;
            // EXPOSE: the server finds the token by itself.
            Call::write("sys/capabilities", json!({ "token": token.expose(), "paths": paths }))
        }
        None => Call::write("sys/capabilities-self", json!({ "paths": paths })),
    };
    let answer = session.ask(&call)?;
    let found = |path: &String| {
        let data = answer.member("data").get(path);
        data.or_else(|| answer.body.get(path)).map(texts_of).unwrap_or_default().join(", ")
    };
    match (session.output.format, paths) {
        (Format::Json, _) => session.output.json(answer.member("data")),
        (Format::Table, [only]) => session.output.done(&found(only)),
        (Format::Table, several) => {
            let rows: Vec<Vec<String>> =
                several.iter().map(|path| vec![path.clone(), found(path)]).collect();
            session.output.table(&["Path", "Capabilities"], &rows)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::input::ScriptedInput;
    use crate::cli::session::script::Script;

    fn asked(command: &TokenCommand, stdin: &str, answer: &str) -> Result<String, Failure> {
        let script = Script::new(&[(200, answer)]);
        script.run(ScriptedInput::new(stdin), |session| run(command, session))?;
        Ok(script.asked.borrow().join(";"))
    }

    fn whose(source: Option<&str>, accessor: Option<&str>) -> Whose {
        Whose { source: source.map(str::to_owned), accessor: accessor.map(str::to_owned) }
    }

    #[test]
    fn a_token_is_looked_up_by_itself_by_accessor_or_from_a_pipe() {
        let cases = [
            (whose(None, None), "GET /v1/auth/token/lookup-self"),
            (whose(None, Some("acc")), r#"PUT /v1/auth/token/lookup-accessor {"accessor":"acc"}"#),
            (whose(Some("-"), None), r#"PUT /v1/auth/token/lookup {"token":"s.piped"}"#),
        ];
        for (whose, expected) in cases {
            let call = asked(&TokenCommand::Lookup(whose), "s.piped\n", r#"{"data":{}}"#);
            assert_eq!(call.unwrap(), expected);
        }
        let failure = asked(&TokenCommand::Lookup(whose(Some("s.arg"), None)), "", "").unwrap_err();
        assert!(!format!("{failure:?}").contains("s.arg"));
    }

    #[test]
    fn only_what_was_given_is_sent_on_creation() {
        let args = CreateArgs {
            policy: vec!["app".to_owned()],
            ttl: Some("1h".to_owned()),
            renewable: Some(false),
            ..CreateArgs::default()
        };
        let call = asked(&TokenCommand::Create(Box::new(args)), "", r#"{"auth":{}}"#).unwrap();
        let body = r#"{"policies":["app"],"renewable":false,"ttl":"1h"}"#;
        assert_eq!(call, format!("PUT /v1/auth/token/create {body}"));
    }

    #[test]
    fn revoking_ones_own_token_must_be_said() {
        let command = |own| TokenCommand::Revoke { whose: Whose::default(), own };
        assert!(asked(&command(false), "", "").is_err());
        assert_eq!(asked(&command(true), "", "").unwrap(), "PUT /v1/auth/token/revoke-self {}");
    }
}
