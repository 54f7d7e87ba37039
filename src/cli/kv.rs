//! `mssm kv`: secrets by key, on both versions of the engine.

use clap::{Args, Subcommand};
use serde_json::{Map, Value, json};

use super::call::{Answer, Call};
use super::failure::Failure;
use super::session::Session;
use super::settings::Format;
use super::values;

mod metadata;
mod place;

pub(crate) use metadata::MetadataCommand;
use place::{Part, Place};

/// What is done with keys.
#[derive(Debug, Subcommand)]
pub(crate) enum KvCommand {
    /// Read a secret
    #[command(after_help = "Examples:
  mssm kv get secret/app
  mssm kv get -mount=secret -field=password app
  mssm kv get -version=2 secret/app")]
    Get {
        #[command(flatten)]
        at: At,
        /// This version in place of the latest
        #[arg(long, value_name = "NUMBER")]
        version: Option<u64>,
    },
    /// Write a secret: all its values are replaced
    #[command(
        after_help = "What stands on a command line can be seen by others: prefer @FILE and -.

Examples:
  mssm kv put secret/app user=app password=@password.txt
  mssm kv put -cas=0 secret/app @app.json           only if there is none yet
  printf '{\"port\": 5432}' | mssm kv put secret/app -"
    )]
    Put(WriteArgs),
    /// Change some values of a secret, and keep the others (version 2)
    #[command(after_help = "Examples:
  mssm kv patch secret/app password=@new.txt
  printf '{\"user\": null}' | mssm kv patch secret/app -    takes `user` out")]
    Patch(WriteArgs),
    /// Delete the latest version, or those named; version 2 can undelete them
    Delete {
        #[command(flatten)]
        at: At,
        /// Versions to delete, separated by commas
        #[arg(long, value_name = "NUMBERS", value_delimiter = ',')]
        versions: Vec<u64>,
    },
    /// Bring deleted versions back
    Undelete(VersionArgs),
    /// Destroy versions for good
    Destroy(VersionArgs),
    /// Name the secrets below a path
    List(At),
    /// What is known about a secret beside its values
    #[command(subcommand)]
    Metadata(MetadataCommand),
}

/// Where a secret is.
#[derive(Args, Debug)]
pub(crate) struct At {
    /// The mount, when it is not the beginning of the path
    #[arg(long, value_name = "PATH")]
    mount: Option<String>,
    /// The secret's path
    path: String,
}

/// What `put` and `patch` take.
#[derive(Args, Debug)]
pub(crate) struct WriteArgs {
    #[command(flatten)]
    at: At,
    /// Write only if this is the current version; 0 means that there is none (version 2)
    #[arg(long, value_name = "VERSION")]
    cas: Option<u64>,
    /// key=value, key=@FILE, key=-, @FILE.json, or - for JSON on standard input
    #[arg(required = true, value_name = "DATA")]
    data: Vec<String>,
}

/// What `undelete` and `destroy` take.
#[derive(Args, Debug)]
pub(crate) struct VersionArgs {
    #[command(flatten)]
    at: At,
    /// The versions, separated by commas
    #[arg(long, required = true, value_name = "NUMBERS", value_delimiter = ',')]
    versions: Vec<u64>,
}

/// Runs one of them.
pub(crate) fn run(command: &KvCommand, session: &mut Session<'_>) -> Result<(), Failure> {
    match command {
        KvCommand::Get { at, version } => get(at, *version, session),
        KvCommand::Put(args) => put(args, session),
        KvCommand::Patch(args) => patch(args, session),
        KvCommand::Delete { at, versions } => delete(at, versions, session),
        KvCommand::Undelete(args) => on_versions(Part::Undelete, args, session),
        KvCommand::Destroy(args) => on_versions(Part::Destroy, args, session),
        KvCommand::List(at) => {
            let place = Place::find(at, session)?;
            let path = if place.versioned { place.part(Part::Metadata) } else { place.plain() };
            session.show_names(&path)
        }
        KvCommand::Metadata(command) => metadata::run(command, session),
    }
}

fn get(at: &At, version: Option<u64>, session: &mut Session<'_>) -> Result<(), Failure> {
    let place = Place::find(at, session)?;
    if !place.versioned {
        if version.is_some() {
            return Err(place.has_no_versions());
        }
        let answer = session.ask(&Call::read(&place.plain()))?;
        let data = answer.data().cloned().unwrap_or_default();
        return session.output.object(&data, &answer.body);
    }
    let mut call = Call::read(&place.part(Part::Data));
    if let Some(version) = version {
        call = call.query("version", version.to_string());
    }
    let answer = session.attempt(&call)?;
    // A deleted version is a 404 that still tells about the version.
    let told = answer.data().is_some_and(|data| data.contains_key("metadata"));
    if answer.status >= 300 && !(answer.status == 404 && told) {
        return Err(session.refused(&call, &answer));
    }
    print_version(&call.path, &answer, session)
}

fn print_version(path: &str, answer: &Answer, session: &mut Session<'_>) -> Result<(), Failure> {
    let part = |name: &str| -> Map<String, Value> {
        let part = answer.data().and_then(|data| data.get(name)).and_then(Value::as_object);
        part.cloned().unwrap_or_default()
    };
    let (values, about) = (part("data"), part("metadata"));
    if session.output.field.is_some() || session.output.format == Format::Json {
        return session.output.object(&values, &answer.body);
    }
    session.output.text("======= Metadata =======\n")?;
    let mut rows = vec![vec!["path".to_owned(), path.to_owned()]];
    rows.extend(super::table::rows_of(&about));
    session.output.table(&["Key", "Value"], &rows)?;
    if values.is_empty() {
        return Ok(());
    }
    session.output.text("\n========= Data =========\n")?;
    session.output.table(&["Key", "Value"], &super::table::rows_of(&values))
}

fn put(args: &WriteArgs, session: &mut Session<'_>) -> Result<(), Failure> {
    let data = Value::Object(values::parse(&args.data, session.input)?);
    let place = Place::find(&args.at, session)?;
    if place.versioned {
        let call = Call::write(&place.part(Part::Data), versioned_body(data, args.cas));
        return session.show(&call);
    }
    if args.cas.is_some() {
        return Err(place.has_no_versions());
    }
    let path = place.plain();
    session.carry_out(&Call::write(&path, data), &format!("Success! Data written to: {path}"))
}

fn patch(args: &WriteArgs, session: &mut Session<'_>) -> Result<(), Failure> {
    let data = Value::Object(values::parse(&args.data, session.input)?);
    let place = Place::find(&args.at, session)?;
    if !place.versioned {
        return Err(place.has_no_versions());
    }
    session.show(&Call::patch(&place.part(Part::Data), versioned_body(data, args.cas)))
}

fn versioned_body(data: Value, cas: Option<u64>) -> Value {
    match cas {
        Some(version) => json!({ "data": data, "options": { "cas": version } }),
        None => json!({ "data": data, "options": {} }),
    }
}

fn delete(at: &At, versions: &[u64], session: &mut Session<'_>) -> Result<(), Failure> {
    let place = Place::find(at, session)?;
    let call = match (place.versioned, versions) {
        (true, []) => Call::delete(&place.part(Part::Data)),
        (true, some) => Call::write(&place.part(Part::Delete), json!({ "versions": some })),
        (false, []) => Call::delete(&place.plain()),
        (false, _) => return Err(place.has_no_versions()),
    };
    let done = format!("Success! Data deleted (if it existed) at: {}", call.path);
    session.carry_out(&call, &done)
}

fn on_versions(part: Part, args: &VersionArgs, session: &mut Session<'_>) -> Result<(), Failure> {
    let place = Place::find(&args.at, session)?;
    if !place.versioned {
        return Err(place.has_no_versions());
    }
    let path = place.part(part);
    let done = format!("Success! Data written to: {path}");
    session.carry_out(&Call::write(&path, json!({ "versions": args.versions })), &done)
}

#[cfg(test)]
mod tests;
