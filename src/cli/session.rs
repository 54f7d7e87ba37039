//! What every client command is handed: a way to call, to read and to print.

use super::call::{Answer, Call, Transport, texts_of};
use super::failure::{Failure, Refusal, Seal};
use super::input::Input;
use super::output::Output;
use super::status;
use super::tokenfile::TokenFiles;

/// One run of one client command.
pub(crate) struct Session<'a> {
    /// Sends calls.
    pub(crate) transport: &'a dyn Transport,
    /// Prints.
    pub(crate) output: Output<'a>,
    /// Reads.
    pub(crate) input: &'a mut dyn Input,
    /// Where `login` keeps the token.
    pub(crate) tokens: &'a TokenFiles,
}

impl Session<'_> {
    /// Sends a call and takes nothing but success for an answer; warnings are noted.
    pub(crate) fn ask(&mut self, call: &Call) -> Result<Answer, Failure> {
        let answer = self.attempt(call)?;
        if answer.status < 300 { Ok(answer) } else { Err(self.refused(call, &answer)) }
    }

    /// Sends a call; the answer may be of any status. Warnings are noted.
    pub(crate) fn attempt(&mut self, call: &Call) -> Result<Answer, Failure> {
        let answer = self.transport.send(call)?;
        for warning in answer.texts("warnings") {
            self.output.note(&format!("Warning: {warning}"));
        }
        Ok(answer)
    }

    /// Makes a failure of an answer that is no success.
    pub(crate) fn refused(&self, call: &Call, answer: &Answer) -> Failure {
        Failure::Refused(Refusal {
            status: answer.status,
            verb: call.verb.text(),
            path: call.path.clone(),
            with_token: call.token.is_some() || self.transport.has_token(),
            texts: answer.texts("errors"),
            seal: if answer.status == 503 { self.seal() } else { Seal::Unknown },
        })
    }

    /// Asks how the seal stands, for advice alone.
    fn seal(&self) -> Seal {
        match self.transport.send(&Call::read("sys/seal-status")) {
            Ok(answer) if answer.status == 200 => status::seal(&answer),
            _ => Seal::Unknown,
        }
    }

    /// Reads and prints.
    pub(crate) fn show(&mut self, call: &Call) -> Result<(), Failure> {
        let answer = self.ask(call)?;
        self.output.secret(&answer)
    }

    /// Lists and prints; a list of nothing is a refusal (404), as in Vault's client.
    pub(crate) fn show_names(&mut self, path: &str) -> Result<(), Failure> {
        let answer = self.ask(&Call::list(path))?;
        let names =
            answer.data().and_then(|data| data.get("keys")).map(texts_of).unwrap_or_default();
        self.output.names(&names)
    }

    /// Sends a call whose answer may be empty: prints what came back, or else `done`.
    pub(crate) fn carry_out(&mut self, call: &Call, done: &str) -> Result<(), Failure> {
        let answer = self.ask(call)?;
        if answer.body.is_null() { self.output.done(done) } else { self.output.secret(&answer) }
    }
}

/// Runs commands against a scripted server.
#[cfg(test)]
pub(crate) mod script {
    use std::cell::RefCell;
    use std::collections::VecDeque;

    use super::*;
    use crate::cli::input::ScriptedInput;
    use crate::cli::settings::Format;

    /// Answers calls in their order and keeps what was asked.
    #[derive(Default)]
    pub(crate) struct Script {
        answers: RefCell<VecDeque<Answer>>,
        /// `VERB target body`, one for each call.
        pub(crate) asked: RefCell<Vec<String>>,
        /// What was printed as the result.
        pub(crate) out: RefCell<String>,
        /// What was noted.
        pub(crate) notes: RefCell<String>,
        /// Where `login` keeps tokens.
        pub(crate) home: Option<std::path::PathBuf>,
        /// The format of results.
        pub(crate) format: Format,
        /// The field asked for.
        pub(crate) field: Option<String>,
    }

    impl Script {
        pub(crate) fn new(answers: &[(u16, &str)]) -> Self {
            let parsed = |&(status, body): &(u16, &str)| {
                let body = if body.is_empty() { "null" } else { body };
                Answer { status, body: serde_json::from_str(body).unwrap() }
            };
            Self { answers: RefCell::new(answers.iter().map(parsed).collect()), ..Self::default() }
        }

        /// Runs `command` with a session of this script.
        pub(crate) fn run(
            &self,
            mut input: ScriptedInput,
            command: impl FnOnce(&mut Session<'_>) -> Result<(), Failure>,
        ) -> Result<(), Failure> {
            let (mut out, mut notes) = (Vec::new(), Vec::new());
            let tokens = TokenFiles::below(self.home.clone());
            let mut session = Session {
                transport: self,
                output: Output {
                    out: &mut out,
                    notes: &mut notes,
                    format: self.format,
                    field: self.field.clone(),
                    terminal: false,
                },
                input: &mut input,
                tokens: &tokens,
            };
            let result = command(&mut session);
            *self.out.borrow_mut() = String::from_utf8(out).unwrap();
            *self.notes.borrow_mut() = String::from_utf8(notes).unwrap();
            result
        }
    }

    impl Transport for Script {
        fn send(&self, call: &Call) -> Result<Answer, Failure> {
            let body = call.body.as_ref().map(|body| format!(" {body}")).unwrap_or_default();
            let token = if call.token.is_some() { " (own token)" } else { "" };
            self.asked.borrow_mut().push(format!(
                "{} {}{body}{token}",
                call.verb.text(),
                call.target()
            ));
            Ok(self.answers.borrow_mut().pop_front().expect("an answer is scripted for each call"))
        }

        fn has_token(&self) -> bool {
            true
        }
    }
}

#[cfg(test)]
mod tests {
    use super::script::Script;
    use super::*;
    use crate::cli::input::ScriptedInput;

    #[test]
    fn warnings_are_noted_beside_the_result() {
        let script = Script::new(&[(200, r#"{"data":{"a":1},"warnings":["careful\u001b"]}"#)]);
        script.run(ScriptedInput::default(), |session| session.show(&Call::read("x"))).unwrap();
        assert_eq!(*script.notes.borrow(), "Warning: careful\\u{1b}\n");
        assert_eq!(*script.out.borrow(), "Key    Value\n---    -----\na      1\n");
    }

    #[test]
    fn a_refusal_carries_the_place_and_the_servers_texts() {
        let status = r#"{"type":"shamir","initialized":true,"sealed":true}"#;
        let script = Script::new(&[(503, r#"{"errors":["Vault is sealed"]}"#), (200, status)]);
        let result =
            script.run(ScriptedInput::default(), |session| session.show(&Call::read("/x")));
        let failure = result.unwrap_err();
        assert_eq!(failure.message(), "Vault is sealed (503, GET x)");
        assert_eq!(failure.code(), 2);
        assert!(failure.hint().unwrap().contains("operator unseal"));
    }
}
