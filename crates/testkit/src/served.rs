//! A throw-away server that a script of this repository looks after, and takes away with its caller.

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::{Mutex, PoisonError};

/// The script, and how it is spoken to.
pub(crate) struct Served(Mutex<Script>);

struct Script {
    name: &'static str,
    script: Child,
    orders: Option<ChildStdin>,
    answers: BufReader<ChildStdout>,
}

impl Served {
    /// Starts `scripts/<name>`; replies where the server is, and where its log.
    pub(crate) fn launch(name: &'static str, options: &[&Path]) -> (Self, String, PathBuf) {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../scripts").join(name);
        // A session of its own: a signal to the tests' process group must not end the clean-up.
        let mut script = Command::new("setsid")
            .arg(script)
            .args(options)
            .arg("serve")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| panic!("scripts/{name}: {error}"));
        let (Some(orders), Some(answers)) = (script.stdin.take(), script.stdout.take()) else {
            panic!("scripts/{name} has no pipes");
        };
        let answers = BufReader::new(answers);
        let mut script = Script { name, script, orders: Some(orders), answers };
        let url = script.read("URL ");
        let log = script.read("LOG ");
        (Self(Mutex::new(script)), url, PathBuf::from(log))
    }

    /// Gives an order and waits until it is done.
    pub(crate) fn order(&self, order: &str) {
        let mut script = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let sent = script.orders.as_mut().map(|orders| writeln!(orders, "{order}"));
        assert!(matches!(sent, Some(Ok(()))), "scripts/{} is gone", script.name);
        script.read("ok");
    }
}

impl Script {
    /// The rest of the script's next line, which begins as told.
    fn read(&mut self, beginning: &str) -> String {
        let mut line = String::new();
        match self.answers.read_line(&mut line) {
            Ok(_) => {}
            Err(error) => panic!("scripts/{}: {error}", self.name),
        }
        match line.trim_end().strip_prefix(beginning) {
            Some(rest) => rest.to_owned(),
            None => panic!("scripts/{} says {line:?}, not {beginning:?}", self.name),
        }
    }
}

impl Drop for Script {
    fn drop(&mut self) {
        // The end of its input tells the script to take the server away.
        drop(self.orders.take());
        let _ = self.script.wait();
    }
}

/// What the caller of the tests says of a server.
#[expect(clippy::disallowed_methods, reason = "how the caller of the tests names a server")]
pub(crate) fn setting(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}
