//! From a refusal to a status and the words in `{"errors":[…]}`.

use actix_web::http::StatusCode;
use mssm_domain::{ErrorKind, Fault, Invalid};
use mssm_messages::PortError;

use crate::answer::Answer;

/// Vault's text for what policy forbids; clients look for the words in it.
const DENIED: &str = "1 error occurred:\n\t* permission denied\n\n";

/// A request that is not granted.
#[derive(Debug)]
pub(crate) struct Refusal {
    /// The status.
    pub(crate) status: StatusCode,
    /// The texts for the caller, which hold no value and no secret.
    pub(crate) errors: Vec<String>,
    /// The cause, for the server's log.
    pub(crate) cause: Option<String>,
    /// True if the connection cannot be used again, since a body was left unread.
    pub(crate) close: bool,
}

impl Refusal {
    /// A refusal with one text.
    pub(crate) fn new(status: StatusCode, error: impl Into<String>) -> Self {
        Self { status, errors: vec![error.into()], cause: None, close: false }
    }

    /// The request makes no sense: says how.
    pub(crate) fn invalid(error: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, error)
    }

    /// Nothing is there.
    pub(crate) fn not_found() -> Self {
        Self { status: StatusCode::NOT_FOUND, errors: Vec::new(), cause: None, close: false }
    }

    /// The mount is there, the route is not.
    pub(crate) fn unsupported_path() -> Self {
        Self::new(StatusCode::NOT_FOUND, "1 error occurred:\n\t* unsupported path\n\n")
    }

    /// The route is there, the verb is not.
    pub(crate) fn unsupported_operation() -> Self {
        let text = "1 error occurred:\n\t* unsupported operation\n\n";
        Self::new(StatusCode::METHOD_NOT_ALLOWED, text)
    }

    /// No token, or none that lives.
    pub(crate) fn no_token() -> Self {
        Self::new(StatusCode::FORBIDDEN, "permission denied")
    }

    /// The same, in the words for a caller without a token if it says that a token is none.
    pub(crate) fn into_no_token(self) -> Self {
        if self.status == StatusCode::FORBIDDEN { Self::no_token() } else { self }
    }

    /// Policy says no.
    pub(crate) fn denied() -> Self {
        Self::new(StatusCode::FORBIDDEN, DENIED)
    }

    /// A fault of ours.
    pub(crate) fn internal(cause: impl Into<String>) -> Self {
        Self {
            cause: Some(cause.into()),
            ..Self::new(StatusCode::INTERNAL_SERVER_ERROR, "internal error")
        }
    }

    /// The same, and the connection ends.
    pub(crate) fn closing(self) -> Self {
        Self { close: true, ..self }
    }

    /// True if this says that the server is sealed.
    pub(crate) fn is_sealed(&self) -> bool {
        self.status == StatusCode::SERVICE_UNAVAILABLE
            && self.errors.iter().any(|error| error == "Vault is sealed")
    }

    /// The answer that tells the caller.
    pub(crate) fn into_answer(self) -> Answer {
        Answer::errors(self.status, self.errors, self.close)
    }
}

/// One status a kind.
const fn status(kind: ErrorKind) -> StatusCode {
    match kind {
        ErrorKind::Conflict | ErrorKind::Invalid => StatusCode::BAD_REQUEST,
        ErrorKind::Forbidden | ErrorKind::Unauthenticated => StatusCode::FORBIDDEN,
        ErrorKind::Internal => StatusCode::INTERNAL_SERVER_ERROR,
        ErrorKind::NotFound => StatusCode::NOT_FOUND,
        ErrorKind::Sealed | ErrorKind::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
        ErrorKind::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
        ErrorKind::TooMany => StatusCode::TOO_MANY_REQUESTS,
        ErrorKind::WrongVerb => StatusCode::METHOD_NOT_ALLOWED,
    }
}

impl<E: Fault> From<E> for Refusal {
    fn from(error: E) -> Self {
        let status = status(error.kind());
        // What is our fault or passes by itself is for the operator to read.
        let cause = status.is_server_error().then(|| error.to_string());
        Self { status, errors: error.public(), cause, close: false }
    }
}

/// The refusal of a word that does not parse; its text never holds the word.
pub(crate) fn malformed(error: &Invalid) -> Refusal {
    Refusal::invalid(error.to_string())
}

/// The refusal when another actor did not answer; `committed` if it may have acted all the same.
pub(crate) fn unreachable(error: PortError) -> Refusal {
    let text = match error {
        PortError::Busy => "too many requests wait, try again",
        PortError::Stopped => "the server is stopping",
        PortError::TimedOut => "no answer within the time limit; the outcome is unknown",
    };
    Refusal {
        cause: Some(error.to_string()),
        ..Refusal::new(StatusCode::SERVICE_UNAVAILABLE, text)
    }
}

#[cfg(test)]
mod tests {
    use mssm_messages::access::AccessError;
    use mssm_messages::kv::KvError;

    use super::*;

    #[test]
    fn an_error_becomes_a_status_and_its_public_text() {
        let refusal = Refusal::from(KvError::NotFound);
        assert_eq!((refusal.status.as_u16(), refusal.errors.len()), (404, 0));
        let refusal = Refusal::from(KvError::CheckAndSet);
        assert_eq!(refusal.status.as_u16(), 400);
        let refusal = Refusal::from(AccessError::NoToken);
        assert_eq!(refusal.errors, ["permission denied"]);
        assert!(Refusal::from(AccessError::Sealed).is_sealed());
        assert!(Refusal::from(AccessError::Internal).cause.is_some());
    }
}
