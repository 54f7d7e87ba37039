//! `mssm audit enable|disable|list`: where a running server writes its audit log besides the file of its settings.

use clap::{Args, Subcommand};
use serde_json::{Map, Value};

use super::call::Call;
use super::failure::Failure;
use super::session::Session;
use super::settings::Format;
use super::table::cell;
use super::values;

/// What is done with a server's audit devices.
#[derive(Debug, Subcommand)]
pub(crate) enum DeviceCommand {
    /// Add a device to the running server
    #[command(after_help = "Examples:
  mssm audit enable file file_path=/var/log/mssm/second.log
  mssm audit enable -path=collector -description='the collector' socket address=10.0.0.7:6514 socket_type=tcp
  mssm audit enable syslog tag=mssm facility=AUTH
  mssm audit enable http uri=https://collector.example/mssm ca_cert=@/etc/mssm/collector.pem")]
    Enable(EnableArgs),
    /// Take a device away that was added so
    Disable {
        /// The device's path
        path: String,
    },
    /// Show all devices
    List {
        /// Their options too
        #[arg(long)]
        detailed: bool,
    },
}

/// Flags of `audit enable`.
#[derive(Args, Debug)]
pub(crate) struct EnableArgs {
    /// Its path; its type unless given
    #[arg(long, value_name = "PATH")]
    path: Option<String>,
    /// What it is for
    #[arg(long, value_name = "TEXT")]
    description: Option<String>,
    /// Taken for Vault's sake: one server is always local
    #[arg(long)]
    local: bool,
    /// The type: file, socket, syslog or http
    kind: String,
    /// Its options; @FILE stands for a file's text
    #[arg(value_name = "K=V")]
    options: Vec<String>,
}

/// Runs one of them.
pub(crate) fn run(command: &DeviceCommand, session: &mut Session<'_>) -> Result<(), Failure> {
    match command {
        DeviceCommand::Enable(args) => enable(args, session),
        DeviceCommand::Disable { path } => {
            let path = path.trim_matches('/');
            let done = format!("Success! Disabled audit device (if it was enabled) at: {path}/");
            session.carry_out(&Call::delete(&format!("sys/audit/{path}")), &done)
        }
        DeviceCommand::List { detailed } => list(*detailed, session),
    }
}

fn enable(args: &EnableArgs, session: &mut Session<'_>) -> Result<(), Failure> {
    let path = args.path.as_deref().unwrap_or(&args.kind).trim_matches('/');
    let mut body = Map::from_iter([
        ("type".to_owned(), Value::from(args.kind.as_str())),
        ("local".to_owned(), Value::from(args.local)),
    ]);
    if let Some(text) = &args.description {
        body.insert("description".to_owned(), Value::from(text.as_str()));
    }
    if let Some(mut options) = values::pairs("options", &args.options)? {
        let given = options.as_object_mut().into_iter().flat_map(Map::iter_mut);
        for (name, value) in given {
            let Some(file) = value.as_str().and_then(|text| text.strip_prefix('@')) else {
                continue;
            };
            let text = std::fs::read_to_string(file).map_err(|error| {
                Failure::usage(format!("cannot read the file of {name}: {error}"))
            })?;
            *value = Value::from(text);
        }
        body.insert("options".to_owned(), options);
    }
    let done = format!("Success! Enabled the {} audit device at: {path}/", args.kind);
    session.carry_out(&Call::write(&format!("sys/audit/{path}"), body.into()), &done)
}

fn list(detailed: bool, session: &mut Session<'_>) -> Result<(), Failure> {
    let answer = session.ask(&Call::read("sys/audit"))?;
    let devices = answer.data().cloned().unwrap_or_default();
    if session.output.format == Format::Json {
        return session.output.json(&Value::Object(devices));
    }
    let member = |device: &Value, name: &str| device.get(name).map(cell).unwrap_or_default();
    let rows: Vec<Vec<String>> = devices
        .iter()
        .map(|(path, device)| {
            let mut row = vec![path.clone(), member(device, "type"), member(device, "description")];
            if detailed {
                row.push(member(device, "options"));
            }
            row
        })
        .collect();
    let mut headings = vec!["Path", "Type", "Description"];
    if detailed {
        headings.push("Options");
    }
    session.output.table(&headings, &rows)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::input::ScriptedInput;
    use crate::cli::session::script::Script;

    fn asked(options: &[&str], path: Option<&str>) -> (Result<(), Failure>, String) {
        let script = Script::new(&[(204, "")]);
        let command = DeviceCommand::Enable(EnableArgs {
            path: path.map(str::to_owned),
            description: Some("a copy".to_owned()),
            local: false,
            kind: "file".to_owned(),
            options: options.iter().map(|&option| option.to_owned()).collect(),
        });
        let result = script.run(ScriptedInput::default(), |session| run(&command, session));
        (result, script.asked.take().concat())
    }

    #[test]
    fn a_device_is_added_with_its_options_where_its_type_says_or_its_path() {
        let body = r#"{"description":"a copy","local":false,"options":{"file_path":"/a=b"},"type":"file"}"#;
        let (result, sent) = asked(&["file_path=/a=b"], None);
        assert_eq!((result, sent), (Ok(()), format!("PUT /v1/sys/audit/file {body}")));
        let (_, sent) = asked(&["file_path=/a=b"], Some("/second/"));
        assert_eq!(sent, format!("PUT /v1/sys/audit/second {body}"));
    }

    #[test]
    fn an_option_is_read_from_a_file_or_the_mistake_is_told_without_asking() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("ca.pem");
        std::fs::write(&file, "text").unwrap();
        assert!(
            asked(&[&format!("ca_cert=@{}", file.display())], None)
                .1
                .contains(r#""ca_cert":"text""#)
        );
        for wrong in ["file_path", "ca_cert=@/not/there"] {
            let (result, sent) = asked(&[wrong], None);
            assert!(result.is_err() && sent.is_empty(), "{wrong}: {sent}");
        }
    }

    #[test]
    fn devices_are_shown_one_a_line() {
        let body = r#"{"data":{"file/":{"type":"file","description":"","options":{"file_path":"/a"}},"second/":{"type":"socket","description":"d","options":{}}}}"#;
        for detailed in [false, true] {
            let script = Script::new(&[(200, body)]);
            let list = DeviceCommand::List { detailed };
            script.run(ScriptedInput::default(), |session| run(&list, session)).unwrap();
            let shown = script.out.take();
            assert_eq!((shown.lines().count(), shown.contains("/a")), (4, detailed), "{shown}");
        }
    }
}
