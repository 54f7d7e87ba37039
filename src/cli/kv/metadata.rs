//! `mssm kv metadata`: a secret's settings and the history of its versions.

use clap::{Args, Subcommand};
use serde_json::{Map, Value};

use super::At;
use super::place::{Part, Place};
use crate::cli::call::{Answer, Call};
use crate::cli::failure::Failure;
use crate::cli::session::Session;
use crate::cli::settings::Format;
use crate::cli::table::{cell, rows_of};
use crate::cli::values;

/// What is done with metadata.
#[derive(Debug, Subcommand)]
pub(crate) enum MetadataCommand {
    /// Show a secret's settings and versions
    Get(At),
    /// Set how many versions are kept, for how long, and what is noted about them
    #[command(after_help = "Examples:
  mssm kv metadata put -max-versions=5 -delete-version-after=720h secret/app
  mssm kv metadata put -custom-metadata=owner=payments secret/app")]
    Put(PutArgs),
    /// Delete a secret with all its versions, for good
    Delete(At),
}

/// Flags of `kv metadata put`.
#[derive(Args, Debug)]
pub(crate) struct PutArgs {
    #[command(flatten)]
    at: At,
    /// How many versions are kept
    #[arg(long, value_name = "COUNT")]
    max_versions: Option<u64>,
    /// Whether every write must give -cas
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    cas_required: Option<bool>,
    /// How long a version lives, such as 720h
    #[arg(long, value_name = "DURATION")]
    delete_version_after: Option<String>,
    /// key=value to note; may be given several times
    #[arg(long, value_name = "K=V")]
    custom_metadata: Vec<String>,
}

/// Runs one of them.
pub(super) fn run(command: &MetadataCommand, session: &mut Session<'_>) -> Result<(), Failure> {
    match command {
        MetadataCommand::Get(at) => {
            let path = metadata_path(at, session)?;
            let answer = session.ask(&Call::read(&path))?;
            print(&answer, session)
        }
        MetadataCommand::Put(args) => {
            let path = metadata_path(&args.at, session)?;
            let call = Call::write(&path, body(args)?);
            session.carry_out(&call, &format!("Success! Data written to: {path}"))
        }
        MetadataCommand::Delete(at) => {
            let path = metadata_path(at, session)?;
            let done = format!("Success! Data deleted (if it existed) at: {path}");
            session.carry_out(&Call::delete(&path), &done)
        }
    }
}

fn metadata_path(at: &At, session: &mut Session<'_>) -> Result<String, Failure> {
    let place = Place::find(at, session)?;
    if place.versioned { Ok(place.part(Part::Metadata)) } else { Err(place.has_no_versions()) }
}

fn body(args: &PutArgs) -> Result<Value, Failure> {
    let all = [
        ("max_versions", args.max_versions.map(Value::from)),
        ("cas_required", args.cas_required.map(Value::Bool)),
        ("delete_version_after", args.delete_version_after.clone().map(Value::from)),
        ("custom_metadata", values::pairs("custom-metadata", &args.custom_metadata)?),
    ];
    let given =
        all.into_iter().filter_map(|(name, value)| value.map(|value| (name.to_owned(), value)));
    Ok(Value::Object(given.collect()))
}

fn print(answer: &Answer, session: &mut Session<'_>) -> Result<(), Failure> {
    let mut settings = answer.data().cloned().unwrap_or_default();
    if session.output.format == Format::Json || session.output.field.is_some() {
        return session.output.object(&settings, &answer.body);
    }
    let versions: Map<String, Value> = settings
        .remove("versions")
        .and_then(|versions| versions.as_object().cloned())
        .unwrap_or_default();
    session.output.table(&["Key", "Value"], &rows_of(&settings))?;
    let mut numbered: Vec<(u64, &Value)> =
        versions.iter().map(|(number, about)| (number.parse().unwrap_or(0), about)).collect();
    numbered.sort_by_key(|(number, _)| *number);
    let rows: Vec<Vec<String>> = numbered
        .iter()
        .map(|(number, about)| {
            let member = |name: &str| cell(about.get(name).unwrap_or(&Value::Null));
            vec![
                number.to_string(),
                member("created_time"),
                member("deletion_time"),
                member("destroyed"),
            ]
        })
        .collect();
    session.output.text("\n")?;
    session.output.table(&["Version", "Created", "Deleted", "Destroyed"], &rows)
}
