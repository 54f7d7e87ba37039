//! The command line: a client of the API, and the ways to start and examine a server.
//!
//! To add a command, give it a variant in `commands.rs` (or in its family's file) and a function that
//! takes a `session::Session`; it then calls, reads and prints through that alone.

use std::ffi::OsString;
use std::io::{IsTerminal, Write};
use std::process::ExitCode;

use clap::{CommandFactory, Parser};

use self::call::Call;
use self::client::Client;
use self::commands::{
    AuditFamily, ClientCommand, Command, CommandLine, LocalCommand, StorageCommand,
};
use self::environment::Environment;
use self::failure::Failure;
use self::input::ProcessInput;
use self::output::Output;
use self::session::Session;
use self::settings::{GlobalFlags, Settings};
use self::tokenfile::TokenFiles;

mod arguments;
mod audit;
mod call;
mod client;
mod commands;
mod db;
mod devices;
mod environment;
mod failure;
mod generic;
mod hints;
mod input;
mod jwt;
mod kv;
mod lease;
mod login;
mod operator;
mod output;
mod policy;
mod secrets;
mod session;
mod settings;
mod status;
mod table;
mod token;
mod tokenfile;
mod values;

/// Runs the command that this process was given.
pub fn run() -> ExitCode {
    let arguments = std::env::args_os();
    let (mut out, mut notes) = (std::io::stdout(), std::io::stderr());
    let code = match execute(arguments, &mut out, &mut notes) {
        Ok(()) => 0,
        Err(failure) => {
            report(&failure, &mut notes);
            failure.code()
        }
    };
    // Should standard output be gone there is nowhere left to say so.
    let _ = out.flush();
    ExitCode::from(code)
}

/// Parses the arguments and runs the command.
fn execute(
    arguments: impl IntoIterator<Item = OsString>,
    out: &mut dyn Write,
    notes: &mut dyn Write,
) -> Result<(), Failure> {
    let arguments = arguments::normalise(arguments)?;
    let parsed = match CommandLine::try_parse_from(arguments) {
        Ok(parsed) => parsed,
        Err(error) => {
            // Prints help where that was asked for, on standard output; mistakes on standard error.
            let _ = error.print();
            return Err(Failure::Silent(if error.use_stderr() { failure::LOCAL } else { 0 }));
        }
    };
    match parsed.command {
        Command::Local(LocalCommand::Audit(AuditFamily::Devices(command))) => {
            with_session(&parsed.flags, out, notes, &mut |session| devices::run(&command, session))
        }
        Command::Local(LocalCommand::Audit(AuditFamily::Files(command))) => {
            let json = parsed.flags.format == Some(settings::Format::Json);
            audit::run(&command, json, &|device, value| hashed(&parsed.flags, device, value), out)
        }
        Command::Local(command) => locally(command, out),
        Command::Client(command) => remotely(&command, &parsed.flags, out, notes),
    }
}

/// Runs a command that calls no server.
fn locally(command: LocalCommand, out: &mut dyn Write) -> Result<(), Failure> {
    let text = match command {
        LocalCommand::Server { config, dev_tls, accept_rollback, restored } => {
            let wishes = crate::Wishes { dev_tls, accept_rollback, restored };
            return crate::server_main(config.as_deref(), wishes).map_err(Failure::usage);
        }
        LocalCommand::Storage(StorageCommand::Check { config }) => {
            crate::storage_check(config.as_deref()).map_err(Failure::usage)?
        }
        LocalCommand::Audit(_) => String::new(),
        LocalCommand::Completion { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut CommandLine::command(), "mssm", &mut script);
            String::from_utf8_lossy(&script).into_owned()
        }
        LocalCommand::Version => format!("mssm {}", env!("CARGO_PKG_VERSION")),
    };
    output::written(writeln!(out, "{}", text.trim_end()))
}

/// Asks the server how a value stands in its audit log.
fn hashed(flags: &GlobalFlags, device: &str, value: &str) -> Result<String, Failure> {
    let mut hash = Vec::new();
    let path = format!("sys/audit-hash/{}", device.trim_end_matches('/'));
    let call = Call::write(&path, serde_json::json!({ "input": value }));
    with_session(flags, &mut hash, &mut std::io::stderr(), &mut |session| {
        let answer = session.ask(&call)?;
        let hash = answer.data().and_then(|data| data.get("hash")).and_then(|hash| hash.as_str());
        let hash = hash.ok_or_else(|| Failure::usage("the server's answer holds no hash"))?;
        output::written(write!(session.output.out, "{hash}"))
    })?;
    String::from_utf8(hash).map_err(|_| Failure::usage("the server's answer is no hash"))
}

/// Runs a command that calls a server.
fn remotely(
    command: &ClientCommand,
    flags: &GlobalFlags,
    out: &mut dyn Write,
    notes: &mut dyn Write,
) -> Result<(), Failure> {
    with_session(flags, out, notes, &mut |session| commands::run(command, session))
}

fn with_session(
    flags: &GlobalFlags,
    out: &mut dyn Write,
    notes: &mut dyn Write,
    work: &mut dyn FnMut(&mut Session<'_>) -> Result<(), Failure>,
) -> Result<(), Failure> {
    let mut settings = Settings::resolve(flags, &Environment::of_process())?;
    let tokens = TokenFiles::below(settings.home.take());
    let token = settings.token.take().or_else(|| tokens.load());
    let client = Client::new(&settings, token)?;
    let terminal = std::io::stdout().is_terminal();
    let mut session = Session {
        transport: &client,
        output: Output {
            out,
            notes,
            format: settings.format,
            field: flags.field.clone(),
            terminal,
        },
        input: &mut ProcessInput,
        tokens: &tokens,
    };
    if settings.skip_verify {
        session
            .output
            .note("Warning: the server's certificate is not verified: anybody may be answering");
    }
    work(&mut session)
}

/// Prints what went wrong and what to do next.
fn report(failure: &Failure, notes: &mut dyn Write) {
    if matches!(failure, Failure::Silent(_)) {
        return;
    }
    let text = output::harmless_lines(&failure.message());
    let _ = writeln!(notes, "Error: {text}");
    if let Some(hint) = failure.hint() {
        let _ = writeln!(notes, "Hint: {}", output::harmless_lines(&hint));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run_line(line: &str) -> (Result<(), Failure>, String) {
        let (mut out, mut notes) = (Vec::new(), Vec::new());
        let result = execute(line.split_whitespace().map(OsString::from), &mut out, &mut notes);
        (result, String::from_utf8(out).unwrap())
    }

    #[test]
    fn every_shell_gets_a_completion_script() {
        for shell in ["bash", "zsh", "fish"] {
            let (result, script) = run_line(&format!("mssm completion {shell}"));
            assert_eq!(result, Ok(()));
            assert!(script.contains("mssm"), "{shell}");
        }
    }

    #[test]
    fn a_failure_is_printed_with_its_hint_and_without_control_characters() {
        let mut notes = Vec::new();
        report(&Failure::advised("a\u{1b}b", "do c"), &mut notes);
        assert_eq!(String::from_utf8(notes).unwrap(), "Error: a\\u{1b}b\nHint: do c\n");
    }

    #[test]
    fn a_reader_that_has_enough_is_no_failure() {
        struct Gone;
        impl Write for Gone {
            fn write(&mut self, _: &[u8]) -> std::io::Result<usize> {
                Err(std::io::ErrorKind::BrokenPipe.into())
            }
            fn flush(&mut self) -> std::io::Result<()> {
                Ok(())
            }
        }
        let arguments = ["mssm", "completion", "bash"].map(OsString::from);
        let result = execute(arguments, &mut Gone, &mut Vec::new());
        assert_eq!(result, Err(Failure::Silent(0)));
    }

    #[test]
    fn the_version_is_printed() {
        assert!(run_line("mssm version").1.starts_with("mssm "));
    }
}
