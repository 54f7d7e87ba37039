//! Where the command line reads from: standard input, files, and a prompt that shows nothing.

use std::io::{IsTerminal, Read};

use mssm_domain::SecretText;

use super::failure::Failure;

/// The largest file or standard input that is read, in bytes: what Vault takes as a request. MSSM
/// takes less unless its configuration says otherwise, which only the server knows.
const INPUT_BYTES_MAX: u64 = 32 * 1024 * 1024;

/// What a command may read.
pub(crate) trait Input {
    /// All of standard input, as text.
    fn read_all(&mut self) -> Result<String, Failure>;

    /// A file, as text.
    fn read_file(&mut self, path: &str) -> Result<String, Failure>;

    /// Asks the person at the terminal, without showing the answer.
    fn prompt(&mut self, question: &str) -> Result<SecretText, Failure>;

    /// Whether standard input is a terminal.
    fn is_terminal(&self) -> bool;
}

/// Reads a secret: from the terminal with a prompt, or from standard input when that is piped or `-`.
pub(crate) fn secret(
    input: &mut dyn Input,
    from_stdin: bool,
    question: &str,
) -> Result<SecretText, Failure> {
    let given = if from_stdin || !input.is_terminal() {
        SecretText::new(input.read_all()?)
    } else {
        input.prompt(question)?
    };
    // EXPOSE: only the white space around it is looked at and taken off.
    let trimmed = SecretText::new(given.expose().trim().to_owned());
    // EXPOSE: only whether there is anything.
    if trimmed.expose().is_empty() {
        return Err(Failure::usage("nothing was given on standard input"));
    }
    Ok(trimmed)
}

/// The process's own standard input and files.
pub(crate) struct ProcessInput;

impl Input for ProcessInput {
    fn read_all(&mut self) -> Result<String, Failure> {
        limited(std::io::stdin().lock(), "standard input")
    }

    fn read_file(&mut self, path: &str) -> Result<String, Failure> {
        let file = std::fs::File::open(path)
            .map_err(|error| Failure::usage(format!("cannot open {path}: {error}")))?;
        limited(file, path)
    }

    fn prompt(&mut self, question: &str) -> Result<SecretText, Failure> {
        rpassword::prompt_password(question)
            .map(SecretText::new)
            .map_err(|error| Failure::usage(format!("cannot read from the terminal: {error}")))
    }

    fn is_terminal(&self) -> bool {
        std::io::stdin().is_terminal()
    }
}

fn limited(from: impl Read, place: &str) -> Result<String, Failure> {
    let mut text = String::new();
    from.take(INPUT_BYTES_MAX + 1)
        .read_to_string(&mut text)
        .map_err(|error| Failure::usage(format!("cannot read {place} as text: {error}")))?;
    if text.len() as u64 > INPUT_BYTES_MAX {
        return Err(Failure::usage(format!(
            "{place} is larger than 32 MiB, and no more is read (a server takes 2 MiB unless it is configured otherwise)"
        )));
    }
    Ok(text)
}

/// A test's input.
#[cfg(test)]
#[derive(Default)]
pub(crate) struct ScriptedInput {
    stdin: String,
    files: std::collections::BTreeMap<String, String>,
    typed: Option<String>,
}

#[cfg(test)]
impl ScriptedInput {
    pub(crate) fn new(stdin: &str) -> Self {
        Self { stdin: stdin.to_owned(), ..Self::default() }
    }

    pub(crate) fn with_file(mut self, path: &str, text: &str) -> Self {
        self.files.insert(path.to_owned(), text.to_owned());
        self
    }

    /// Makes standard input a terminal at which `text` is typed.
    pub(crate) fn typing(text: &str) -> Self {
        Self { typed: Some(text.to_owned()), ..Self::default() }
    }
}

#[cfg(test)]
impl Input for ScriptedInput {
    fn read_all(&mut self) -> Result<String, Failure> {
        Ok(std::mem::take(&mut self.stdin))
    }

    fn read_file(&mut self, path: &str) -> Result<String, Failure> {
        self.files.get(path).cloned().ok_or_else(|| Failure::usage(format!("cannot open {path}")))
    }

    fn prompt(&mut self, _question: &str) -> Result<SecretText, Failure> {
        Ok(SecretText::new(self.typed.clone().unwrap_or_default()))
    }

    fn is_terminal(&self) -> bool {
        self.typed.is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_too_large_to_read_is_refused_with_the_bounds_that_there_are() {
        let bytes = |count| std::io::repeat(b'a').take(count);
        assert!(limited(bytes(INPUT_BYTES_MAX), "f").is_ok());
        let failure = limited(bytes(INPUT_BYTES_MAX + 1), "f").unwrap_err();
        assert!(failure.message().contains("f is larger than 32 MiB"), "{failure:?}");
        assert!(failure.message().contains("a server takes 2 MiB unless"), "{failure:?}");
    }

    #[test]
    fn a_secret_comes_from_the_prompt_at_a_terminal_and_from_a_pipe_otherwise() {
        let typed = secret(&mut ScriptedInput::typing("typed"), false, "?").unwrap();
        assert_eq!(typed.expose(), "typed");
        let piped = secret(&mut ScriptedInput::new(" piped\n"), false, "?").unwrap();
        assert_eq!(piped.expose(), "piped");
        assert!(secret(&mut ScriptedInput::new("\n"), true, "?").is_err());
    }
}
