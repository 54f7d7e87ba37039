//! Why a command failed: the exit code, what is printed, and what to do next.

use super::hints;

/// Exit code of mistakes made on this side, and of a server that cannot be reached.
pub(crate) const LOCAL: u8 = 1;
/// Exit code of a server that answered with a refusal, or is sealed.
pub(crate) const REFUSED: u8 = 2;

/// Why a command failed. No variant holds a token or a secret.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Failure {
    /// The command was not understood, or something on this machine is amiss.
    Local {
        /// What is wrong.
        text: String,
        /// What to do next.
        hint: Option<String>,
    },
    /// The server answered with a refusal.
    Refused(Refusal),
    /// All was printed already; only the exit code is left to give.
    Silent(u8),
}

/// What the server said.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Refusal {
    /// The HTTP status.
    pub(crate) status: u16,
    /// The verb that was sent.
    pub(crate) verb: &'static str,
    /// The path that was asked for, without `/v1/`.
    pub(crate) path: String,
    /// Whether a token went along.
    pub(crate) with_token: bool,
    /// The server's own texts.
    pub(crate) texts: Vec<String>,
    /// How the seal stands, where that was asked.
    pub(crate) seal: Seal,
}

/// How a server's seal stands: what has to be done about it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Seal {
    /// Not asked, or open by now.
    #[default]
    Unknown,
    /// The server was never initialised.
    New,
    /// It waits for shares.
    Shares,
    /// The key that it was started with did not open it.
    Key,
}

impl Failure {
    /// A mistake in the command, or on this machine.
    pub(crate) fn usage(text: impl Into<String>) -> Self {
        Self::Local { text: text.into(), hint: None }
    }

    /// The same, with advice.
    pub(crate) fn advised(text: impl Into<String>, hint: impl Into<String>) -> Self {
        Self::Local { text: text.into(), hint: Some(hint.into()) }
    }

    /// The process's exit code.
    pub(crate) fn code(&self) -> u8 {
        match self {
            Self::Local { .. } => LOCAL,
            Self::Refused(_) => REFUSED,
            Self::Silent(code) => *code,
        }
    }

    /// What is printed after `Error: `.
    pub(crate) fn message(&self) -> String {
        match self {
            Self::Local { text, .. } => text.clone(),
            Self::Refused(refusal) => refusal.message(),
            Self::Silent(_) => String::new(),
        }
    }

    /// What to do next, where that is known.
    pub(crate) fn hint(&self) -> Option<String> {
        match self {
            Self::Local { hint, .. } => hint.clone(),
            Self::Refused(refusal) => hints::for_refusal(refusal),
            Self::Silent(_) => None,
        }
    }
}

impl Refusal {
    fn message(&self) -> String {
        let place = format!("{} {}", self.verb, self.path);
        match self.texts.as_slice() {
            [] if self.status == 404 => format!("nothing found at {}", self.path),
            [] => format!("the server answered {} to {place}", self.status),
            [only] => format!("{} ({}, {place})", tidy(only), self.status),
            several => {
                let lines: Vec<String> =
                    several.iter().map(|text| format!("\n  * {}", tidy(text))).collect();
                format!("the server answered {} to {place}:{}", self.status, lines.concat())
            }
        }
    }
}

/// Takes the ornament `1 error occurred:\n\t* ` off, so that the reason stands first.
fn tidy(text: &str) -> String {
    text.trim()
        .trim_start_matches("1 error occurred:")
        .trim_start()
        .trim_start_matches("* ")
        .trim()
        .to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_gives_the_servers_text_its_status_and_the_place() {
        let refusal = Refusal {
            status: 403,
            verb: "GET",
            path: "secret/data/app".to_owned(),
            texts: vec!["1 error occurred:\n\t* permission denied\n\n".to_owned()],
            ..Refusal::default()
        };
        let failure = Failure::Refused(refusal);
        assert_eq!(failure.message(), "permission denied (403, GET secret/data/app)");
        assert_eq!(failure.code(), 2);
    }

    #[test]
    fn a_404_without_texts_says_that_nothing_is_there() {
        let refusal = Refusal { status: 404, path: "secret/x".to_owned(), ..Refusal::default() };
        assert_eq!(Failure::Refused(refusal).message(), "nothing found at secret/x");
    }

    #[test]
    fn local_mistakes_exit_with_one() {
        assert_eq!(Failure::usage("no").code(), 1);
    }
}
