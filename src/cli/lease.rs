//! `mssm lease`: how long what was handed out still lives, and ending it early.

use clap::{Args, Subcommand};
use serde_json::{Map, Value, json};

use super::call::Call;
use super::failure::Failure;
use super::session::Session;

/// What is done with leases.
#[derive(Debug, Subcommand)]
pub(crate) enum LeaseCommand {
    /// Show a lease's times
    Lookup {
        /// The lease's id, or with -username the name of a database login
        id: String,
        /// Find the lease of a database login, also one that has ended
        #[arg(long)]
        username: bool,
    },
    /// Read every lease anew, and remove what nothing needs
    Tidy,
    /// Name the leases whose records cannot be read
    Quarantine,
    /// Compare the logins that are there with the leases, and end or settle what differs
    #[command(after_help = "Examples:
  mssm lease reconcile -dry-run
  mssm lease reconcile -connection=main")]
    Reconcile {
        /// Touch nothing, say what would be done
        #[arg(long)]
        dry_run: bool,
        /// The store was restored: end from now on what it does not know
        #[arg(long)]
        confirm: bool,
        /// Only this connection
        #[arg(long, value_name = "NAME")]
        connection: Option<String>,
        /// Only connections of this mount, such as db/
        #[arg(long, value_name = "PATH")]
        mount: Option<String>,
    },
    /// Name the logins that the server failed to end so far, the oldest first; it tries on
    Overdue,
    /// Lengthen a lease
    #[command(after_help = "Examples:
  mssm lease renew db/creds/app/0e8ye4lSkTX6vWwXNRr5ulFl
  mssm lease renew -increment=1h db/creds/app/0e8ye4lSkTX6vWwXNRr5ulFl")]
    Renew {
        /// How long it should live from now on, such as 1h
        #[arg(long, short = 'i', value_name = "DURATION")]
        increment: Option<String>,
        /// The lease's id
        id: String,
    },
    /// End a lease, or all below a prefix
    #[command(after_help = "Examples:
  mssm lease revoke db/creds/app/0e8ye4lSkTX6vWwXNRr5ulFl
  mssm lease revoke -prefix db/creds/app
  mssm lease revoke -prefix -force db/       forgets them even if the database refuses")]
    Revoke(RevokeArgs),
    /// Name the leases below a prefix, such as db/creds/app
    List {
        /// The prefix
        prefix: String,
    },
    /// Count leases: all of them, unless a type is given
    Count {
        /// `irrevocable`: only those that the server failed to end so far (Vault counts no others)
        #[arg(long = "type", value_name = "TYPE")]
        kind: Option<String>,
    },
}

/// Flags of `lease revoke`.
#[derive(Args, Debug)]
pub(crate) struct RevokeArgs {
    /// End every lease that begins with this
    #[arg(long)]
    prefix: bool,
    /// With -prefix: forget the leases even where the login cannot be ended
    #[arg(long, short = 'f', requires = "prefix")]
    force: bool,
    /// Wait until they have ended
    #[arg(long)]
    sync: bool,
    /// The lease's id, or the prefix
    id: String,
}

/// Runs one of them.
pub(crate) fn run(command: &LeaseCommand, session: &mut Session<'_>) -> Result<(), Failure> {
    match command {
        LeaseCommand::Lookup { id, username } => {
            let field = if *username { "username" } else { "lease_id" };
            session.show(&Call::write("sys/leases/lookup", json!({ field: id })))
        }
        LeaseCommand::Tidy => session.show(&Call::write("sys/leases/tidy", json!({}))),
        LeaseCommand::Overdue => {
            session.show(&Call::read("sys/leases").query("type", "irrevocable"))
        }
        LeaseCommand::Quarantine => session.show(&Call::read("sys/leases/quarantine")),
        LeaseCommand::Reconcile { dry_run, confirm, connection, mount } => {
            let mut body = Map::from_iter([("dry_run".to_owned(), Value::from(*dry_run))]);
            if *confirm {
                body.insert("confirm".to_owned(), Value::from(true));
            }
            for (name, value) in [("connection", connection), ("mount", mount)] {
                if let Some(value) = value {
                    body.insert(name.to_owned(), Value::from(value.as_str()));
                }
            }
            session.show(&Call::write("sys/leases/reconcile", Value::Object(body)))
        }
        LeaseCommand::Renew { increment, id } => {
            let mut body = Map::from_iter([("lease_id".to_owned(), Value::from(id.as_str()))]);
            if let Some(increment) = increment {
                body.insert("increment".to_owned(), Value::from(increment.as_str()));
            }
            session.show(&Call::write("sys/leases/renew", Value::Object(body)))
        }
        LeaseCommand::Revoke(args) => revoke(args, session),
        LeaseCommand::List { prefix } => {
            session.show_names(&format!("sys/leases/lookup/{}", prefix.trim_matches('/')))
        }
        LeaseCommand::Count { kind } => {
            let call = Call::read("sys/leases/count");
            session.show(&match kind {
                Some(kind) => call.query("type", kind.as_str()),
                None => call,
            })
        }
    }
}

fn revoke(args: &RevokeArgs, session: &mut Session<'_>) -> Result<(), Failure> {
    let id = args.id.trim_matches('/');
    if !args.prefix {
        check_exists(id, session)?;
    }
    let call = match (args.prefix, args.force) {
        (false, _) => {
            Call::write("sys/leases/revoke", json!({ "lease_id": id, "sync": args.sync }))
        }
        (true, false) => {
            Call::write(&format!("sys/leases/revoke-prefix/{id}"), json!({ "sync": args.sync }))
        }
        (true, true) => Call::write(&format!("sys/leases/revoke-force/{id}"), json!({})),
    };
    session.ask(&call)?;
    let whose = if args.prefix { "the leases below" } else { "the lease" };
    // Without -sync the server has only taken note: it ends the login now, or at its next attempt.
    let done =
        if args.sync || args.force { "Success! Ended" } else { "All set: the server is ending" };
    session.output.done(&format!("{done} {whose}: {id}"))
}

/// Refuses what is no lease: the server ends anything gladly, and a prefix that was taken for a lease
/// would look ended. A token that may end leases but not look them up goes on.
fn check_exists(id: &str, session: &mut Session<'_>) -> Result<(), Failure> {
    let call = Call::write("sys/leases/lookup", json!({ "lease_id": id }));
    let answer = session.attempt(&call)?;
    let unknown = answer.status == 400 || answer.status == 404;
    if unknown { Err(session.refused(&call, &answer)) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::input::ScriptedInput;
    use crate::cli::session::script::Script;

    fn asked(command: &LeaseCommand) -> String {
        let script = Script::new(&[(200, r#"{"data":{"keys":["a"]}}"#), (200, "")]);
        script.run(ScriptedInput::default(), |session| run(command, session)).unwrap();
        script.asked.take().pop().unwrap()
    }

    fn revoke_args(prefix: bool, force: bool) -> LeaseCommand {
        LeaseCommand::Revoke(RevokeArgs {
            prefix,
            force,
            sync: true,
            id: "db/creds/app/".to_owned(),
        })
    }

    #[test]
    fn leases_are_ended_one_by_one_by_prefix_or_by_force() {
        let cases = [
            (false, false, r#"PUT /v1/sys/leases/revoke {"lease_id":"db/creds/app","sync":true}"#),
            (true, false, r#"PUT /v1/sys/leases/revoke-prefix/db/creds/app {"sync":true}"#),
            (true, true, "PUT /v1/sys/leases/revoke-force/db/creds/app {}"),
        ];
        for (prefix, force, expected) in cases {
            assert_eq!(asked(&revoke_args(prefix, force)), expected);
        }
    }

    #[test]
    fn what_is_no_lease_is_not_said_to_have_ended() {
        let script = Script::new(&[(400, r#"{"errors":["invalid lease"]}"#)]);
        let command = revoke_args(false, false);
        let failure =
            script.run(ScriptedInput::default(), |session| run(&command, session)).unwrap_err();
        assert_eq!(failure.code(), 2);
        assert!(failure.hint().unwrap().contains("-prefix"));
        assert_eq!(*script.out.borrow(), "");
    }

    #[test]
    fn a_token_that_may_not_look_leases_up_may_still_end_them() {
        let script = Script::new(&[(403, r#"{"errors":["permission denied"]}"#), (204, "")]);
        let command = revoke_args(false, false);
        script.run(ScriptedInput::default(), |session| run(&command, session)).unwrap();
        assert_eq!(script.asked.borrow().len(), 2);
    }

    #[test]
    fn a_renewal_names_the_lease_in_its_body() {
        let renew = LeaseCommand::Renew { increment: Some("1h".to_owned()), id: "l/1".to_owned() };
        assert_eq!(
            asked(&renew),
            r#"PUT /v1/sys/leases/renew {"increment":"1h","lease_id":"l/1"}"#
        );
    }

    #[test]
    fn logins_and_leases_are_compared_everywhere_or_on_one_connection() {
        let reconcile = |dry_run, connection: Option<&str>| LeaseCommand::Reconcile {
            dry_run,
            confirm: false,
            connection: connection.map(str::to_owned),
            mount: None,
        };
        let all = r#"PUT /v1/sys/leases/reconcile {"dry_run":true}"#;
        assert_eq!(asked(&reconcile(true, None)), all);
        let one = r#"PUT /v1/sys/leases/reconcile {"connection":"main","dry_run":false}"#;
        assert_eq!(asked(&reconcile(false, Some("main"))), one);
    }

    #[test]
    fn leases_are_listed_by_prefix_and_counted_by_type() {
        let list = LeaseCommand::List { prefix: "db/creds/app/".to_owned() };
        assert_eq!(asked(&list), "LIST /v1/sys/leases/lookup/db/creds/app");
        let count = LeaseCommand::Count { kind: None };
        assert_eq!(asked(&count), "GET /v1/sys/leases/count");
        let count = LeaseCommand::Count { kind: Some("irrevocable".to_owned()) };
        assert_eq!(asked(&count), "GET /v1/sys/leases/count?type=irrevocable");
    }
}
