//! `mssm secrets`: which engine answers below which path.

use clap::{Args, Subcommand};
use serde_json::{Map, Value, json};

use super::call::Call;
use super::failure::Failure;
use super::session::Session;
use super::settings::Format;
use super::table::cell;
use super::values;

/// What is done with mounts.
#[derive(Debug, Subcommand)]
pub(crate) enum SecretsCommand {
    /// Show all mounts
    List,
    /// Mount an engine
    #[command(after_help = "Examples:
  mssm secrets enable -path=kv -version=2 kv
  mssm secrets enable kv-v2                   the same, at kv-v2/
  mssm secrets enable -path=db database")]
    Enable(EnableArgs),
    /// Unmount an engine: all that it keeps is deleted and its leases end
    Disable {
        /// The mount's path
        path: String,
    },
    /// Change a mount's settings
    #[command(after_help = "Examples:
  mssm secrets tune -default-lease-ttl=10m -max-lease-ttl=1h db")]
    Tune(TuneArgs),
}

/// What a mount is set to.
#[derive(Args, Debug, Default)]
pub(crate) struct Tuning {
    /// What it is for
    #[arg(long, value_name = "TEXT")]
    description: Option<String>,
    /// How long a lease lives unless something else is asked for
    #[arg(long, value_name = "DURATION")]
    default_lease_ttl: Option<String>,
    /// The longest that a lease may live
    #[arg(long, value_name = "DURATION")]
    max_lease_ttl: Option<String>,
    /// The engine's version, for kv
    #[arg(long, value_name = "NUMBER")]
    version: Option<u8>,
    /// key=value for the engine; may be given several times
    #[arg(long, value_name = "K=V")]
    options: Vec<String>,
}

/// Flags of `secrets enable`.
#[derive(Args, Debug)]
pub(crate) struct EnableArgs {
    /// Where to mount it; the engine's name unless given
    #[arg(long, value_name = "PATH")]
    path: Option<String>,
    #[command(flatten)]
    tuning: Tuning,
    /// The engine: kv, kv-v2 or database
    engine: String,
}

/// Flags of `secrets tune`.
#[derive(Args, Debug)]
pub(crate) struct TuneArgs {
    #[command(flatten)]
    tuning: Tuning,
    /// The mount's path
    path: String,
}

/// Runs one of them.
pub(crate) fn run(command: &SecretsCommand, session: &mut Session<'_>) -> Result<(), Failure> {
    match command {
        SecretsCommand::List => list(session),
        SecretsCommand::Enable(args) => enable(args, session),
        SecretsCommand::Disable { path } => {
            let call = Call::delete(&format!("sys/mounts/{}", path.trim_matches('/')));
            session.carry_out(
                &call,
                &format!("Success! Disabled the engine (if it existed) at: {path}"),
            )
        }
        SecretsCommand::Tune(args) => {
            let mut body = times(&args.tuning);
            if let Some(text) = &args.tuning.description {
                body.insert("description".to_owned(), Value::from(text.as_str()));
            }
            if let Some(options) = options(&args.tuning)? {
                body.insert("options".to_owned(), options);
            }
            let call = Call::write(
                &format!("sys/mounts/{}/tune", args.path.trim_matches('/')),
                body.into(),
            );
            session.carry_out(&call, &format!("Success! Tuned the engine at: {}", args.path))
        }
    }
}

fn list(session: &mut Session<'_>) -> Result<(), Failure> {
    let answer = session.ask(&Call::read("sys/mounts"))?;
    let mounts = answer.data().cloned().unwrap_or_default();
    if session.output.format == Format::Json {
        return session.output.json(&Value::Object(mounts));
    }
    let rows: Vec<Vec<String>> =
        mounts.iter().map(|(path, mount)| mount_row(path, mount)).collect();
    session.output.table(&["Path", "Type", "Version", "Accessor", "Description"], &rows)
}

fn mount_row(path: &str, mount: &Value) -> Vec<String> {
    let text = |value: Option<&Value>| {
        value.filter(|value| !value.is_null()).map(cell).unwrap_or_default()
    };
    let version = mount.get("options").and_then(|options| options.get("version"));
    vec![
        path.to_owned(),
        text(mount.get("type")),
        text(version),
        text(mount.get("accessor")),
        text(mount.get("description")),
    ]
}

fn enable(args: &EnableArgs, session: &mut Session<'_>) -> Result<(), Failure> {
    let path = args.path.as_deref().unwrap_or(&args.engine).trim_matches('/');
    let mut body = Map::from_iter([
        ("type".to_owned(), Value::from(args.engine.as_str())),
        ("config".to_owned(), Value::Object(times(&args.tuning))),
    ]);
    if let Some(text) = &args.tuning.description {
        body.insert("description".to_owned(), Value::from(text.as_str()));
    }
    let mut options = options(&args.tuning)?;
    if args.engine == "kv-v2" {
        body.insert("type".to_owned(), Value::from("kv"));
        options.get_or_insert_with(|| json!({ "version": "2" }));
    }
    if let Some(options) = options {
        body.insert("options".to_owned(), options);
    }
    let call = Call::write(&format!("sys/mounts/{path}"), Value::Object(body));
    session.carry_out(&call, &format!("Success! Enabled the {} engine at: {path}/", args.engine))
}

fn times(tuning: &Tuning) -> Map<String, Value> {
    let all = [
        ("default_lease_ttl", &tuning.default_lease_ttl),
        ("max_lease_ttl", &tuning.max_lease_ttl),
    ];
    all.into_iter()
        .filter_map(|(name, time)| {
            time.as_ref().map(|time| (name.to_owned(), Value::from(time.as_str())))
        })
        .collect()
}

fn options(tuning: &Tuning) -> Result<Option<Value>, Failure> {
    let mut given = values::pairs("options", &tuning.options)?;
    if let Some(version) = tuning.version {
        let object = given.get_or_insert_with(|| json!({}));
        if let Value::Object(object) = object {
            object.insert("version".to_owned(), Value::from(version.to_string()));
        }
    }
    Ok(given)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::input::ScriptedInput;
    use crate::cli::session::script::Script;

    fn asked(engine: &str, path: Option<&str>, version: Option<u8>) -> String {
        let script = Script::new(&[(204, "")]);
        let command = SecretsCommand::Enable(EnableArgs {
            path: path.map(str::to_owned),
            tuning: Tuning { version, ..Tuning::default() },
            engine: engine.to_owned(),
        });
        script.run(ScriptedInput::default(), |session| run(&command, session)).unwrap();
        script.asked.take().concat()
    }

    #[test]
    fn an_engine_is_mounted_with_its_version() {
        let body = r#"{"config":{},"options":{"version":"2"},"type":"kv"}"#;
        assert_eq!(asked("kv", Some("/team/"), Some(2)), format!("PUT /v1/sys/mounts/team {body}"));
        assert_eq!(asked("kv-v2", None, None), format!("PUT /v1/sys/mounts/kv-v2 {body}"));
        let plain = r#"PUT /v1/sys/mounts/database {"config":{},"type":"database"}"#;
        assert_eq!(asked("database", None, None), plain);
    }

    #[test]
    fn mounts_are_shown_one_a_line() {
        let body = r#"{"data":{"kv/":{"type":"kv","options":{"version":"2"}},"sys/":{"type":"system","options":null}}}"#;
        let script = Script::new(&[(200, body)]);
        script
            .run(ScriptedInput::default(), |session| run(&SecretsCommand::List, session))
            .unwrap();
        assert_eq!(script.out.borrow().lines().count(), 4);
    }
}
