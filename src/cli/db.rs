//! `mssm db`: database connections, roles, and logins that live for minutes.

use clap::{Args, Subcommand};
use serde_json::{Map, Value};

use super::call::Call;
use super::failure::Failure;
use super::session::Session;
use super::values;

/// What is done with databases.
#[derive(Debug, Subcommand)]
pub(crate) enum DbCommand {
    /// Connections to databases
    #[command(subcommand)]
    Config(EntryCommand),
    /// Roles: which SQL makes a login, and how long it lives
    #[command(subcommand)]
    Role(EntryCommand),
    /// Static roles: users that stay, whose passwords change by a plan
    #[command(
        subcommand,
        after_help = "Examples:
  mssm db static-role write app db_name=main username=app rotation_period=24h
  mssm db static-role write app db_name=main usernames=app_blue,app_green \\
      rotation_schedule='0 3 * * *'          two users that take turns: no login is ever refused
  mssm db static-creds app
  mssm db rotate-role app"
    )]
    StaticRole(EntryCommand),
    /// Get the password of a static role
    StaticCreds(Named),
    /// Change the password of a static role now
    RotateRole {
        #[command(flatten)]
        named: Named,
        /// Also if the other user of a pair was handed out less than a period ago
        #[arg(long)]
        force: bool,
    },
    /// Change the password of a connection's own user, to one that only the server knows
    #[command(
        after_help = "Connections that log in to the same server as the same user change together.
Nobody can read the new password: keep another superuser of the database.

Examples:
  mssm db rotate-root main
  mssm db config write main rotation_period=720h       changes it by itself from now on"
    )]
    RotateRoot(Named),
    /// Get a new login for a role
    #[command(after_help = "Examples:
  mssm db creds app
  mssm db creds -mount=database -format=json app
  mssm lease revoke LEASE_ID        ends the login before its time")]
    Creds(Named),
}

/// What is done with connections and with roles alike.
#[derive(Debug, Subcommand)]
pub(crate) enum EntryCommand {
    /// Write one
    #[command(
        after_help = "What stands on a command line can be seen by others: prefer password=- or password=@FILE.
One line break at the end of a connection's password is left off; all else is sent as it is.

Examples:
  mssm db config write main plugin_name=postgresql-database-plugin allowed_roles=app \\
      connection_url='postgresql://{{username}}:{{password}}@db.example:5432/app' \\
      username=mssm password=@password.txt
  mssm db role write app db_name=main creation_statements=@create.sql default_ttl=10m max_ttl=1h"
    )]
    Write {
        #[command(flatten)]
        named: Named,
        /// key=value, key=@FILE, key=-, @FILE.json, or - for JSON on standard input
        #[arg(required = true, value_name = "DATA")]
        data: Vec<String>,
    },
    /// Show one; passwords are never shown
    Read(Named),
    /// Name them all
    List {
        /// The mount of the database engine
        #[arg(long, default_value = "db", value_name = "PATH")]
        mount: String,
    },
    /// Delete one
    Delete(Named),
}

/// One entry on a mount.
#[derive(Args, Debug)]
pub(crate) struct Named {
    /// The mount of the database engine
    #[arg(long, default_value = "db", value_name = "PATH")]
    mount: String,
    /// Its name
    name: String,
}

impl Named {
    fn path(&self, kind: &str) -> String {
        format!("{}/{kind}/{}", self.mount.trim_matches('/'), self.name)
    }
}

/// Runs one of them.
pub(crate) fn run(command: &DbCommand, session: &mut Session<'_>) -> Result<(), Failure> {
    match command {
        DbCommand::Config(command) => entry("config", command, session),
        DbCommand::Role(command) => entry("roles", command, session),
        DbCommand::StaticRole(command) => entry("static-roles", command, session),
        DbCommand::StaticCreds(named) => session.show(&Call::read(&named.path("static-creds"))),
        DbCommand::RotateRole { named, force } => {
            let mut body = Map::new();
            if *force {
                body.insert("force".to_owned(), Value::Bool(true));
            }
            let call = Call::write(&named.path("rotate-role"), Value::Object(body));
            session.carry_out(&call, "Success! The password was changed")
        }
        DbCommand::RotateRoot(named) => {
            let call = Call::write(&named.path("rotate-root"), Value::Object(Map::new()));
            session.carry_out(&call, "Success! The password was changed")
        }
        DbCommand::Creds(named) => session.show(&Call::read(&named.path("creds"))),
    }
}

fn entry(kind: &str, command: &EntryCommand, session: &mut Session<'_>) -> Result<(), Failure> {
    match command {
        EntryCommand::Write { named, data } => {
            let path = named.path(kind);
            let mut body = values::parse(data, session.input)?;
            if kind == "config" {
                trim_password(&mut body);
            }
            let body = Value::Object(body);
            session
                .carry_out(&Call::write(&path, body), &format!("Success! Data written to: {path}"))
        }
        EntryCommand::Read(named) => session.show(&Call::read(&named.path(kind))),
        EntryCommand::List { mount } => {
            session.show_names(&format!("{}/{kind}", mount.trim_matches('/')))
        }
        EntryCommand::Delete(named) => {
            let path = named.path(kind);
            let done = format!("Success! Data deleted (if it existed) at: {path}");
            session.carry_out(&Call::delete(&path), &done)
        }
    }
}

/// Leaves off the line break with which editors and `echo` end a file: no database would take the
/// password with it.
fn trim_password(body: &mut Map<String, Value>) {
    if let Some(Value::String(password)) = body.get_mut("password")
        && password.ends_with('\n')
    {
        password.pop();
        if password.ends_with('\r') {
            password.pop();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::input::ScriptedInput;
    use crate::cli::session::script::Script;

    fn asked(command: &DbCommand) -> String {
        let script = Script::new(&[(200, r#"{"data":{"keys":["a"]}}"#)]);
        script.run(ScriptedInput::new("hunter2"), |session| run(command, session)).unwrap();
        script.asked.take().concat()
    }

    fn named(mount: &str) -> Named {
        Named { mount: mount.to_owned(), name: "app".to_owned() }
    }

    #[test]
    fn connections_roles_and_logins_each_have_their_path() {
        assert_eq!(asked(&DbCommand::Creds(named("db"))), "GET /v1/db/creds/app");
        let read = DbCommand::Config(EntryCommand::Read(named("/pg/")));
        assert_eq!(asked(&read), "GET /v1/pg/config/app");
        let read = DbCommand::StaticRole(EntryCommand::Read(named("db")));
        assert_eq!(asked(&read), "GET /v1/db/static-roles/app");
        assert_eq!(asked(&DbCommand::StaticCreds(named("db"))), "GET /v1/db/static-creds/app");
        let rotate = DbCommand::RotateRole { named: named("db"), force: true };
        assert_eq!(asked(&rotate), r#"PUT /v1/db/rotate-role/app {"force":true}"#);
        assert_eq!(asked(&DbCommand::RotateRoot(named("db"))), "PUT /v1/db/rotate-root/app {}");
        let list = DbCommand::Role(EntryCommand::List { mount: "db".to_owned() });
        assert_eq!(asked(&list), "LIST /v1/db/roles");
    }

    #[test]
    fn a_password_loses_one_line_break_at_its_end_and_nothing_else_does() {
        let sent = |role: bool, text: &str| {
            let script = Script::new(&[(200, "{}")]);
            let input = ScriptedInput::new(text).with_file("f", text);
            let from = if role { "password=-" } else { "password=@f" };
            let data = vec![from.to_owned(), "other=@f".to_owned()];
            let write = EntryCommand::Write { named: named("db"), data };
            let write = if role { DbCommand::Role(write) } else { DbCommand::Config(write) };
            script.run(input, |session| run(&write, session)).unwrap();
            let asked = script.asked.take().concat();
            let body = &asked[asked.find('{').unwrap()..];
            let body: Value = serde_json::from_str(body).unwrap();
            assert_eq!(body["other"], text);
            body["password"].as_str().unwrap().to_owned()
        };
        let cases = [("a", "a"), ("a\n", "a"), ("a\r\n", "a"), ("a\n\n", "a\n"), (" a \n", " a ")];
        for (text, expected) in cases {
            assert_eq!(sent(false, text), expected, "{text:?}");
            assert_eq!(sent(true, text), text, "a role has no password to trim");
        }
    }

    #[test]
    fn a_password_can_come_from_standard_input() {
        let data = vec!["username=u".to_owned(), "password=-".to_owned()];
        let write = DbCommand::Config(EntryCommand::Write { named: named("db"), data });
        assert_eq!(asked(&write), r#"PUT /v1/db/config/app {"password":"hunter2","username":"u"}"#);
    }
}
