//! What kinds of refusal there are; the front door turns each into one status.

/// How a refusal looks from outside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorKind {
    /// What was asked collides with what is there (400, as Vault answers it).
    Conflict,
    /// The caller may not do this (403).
    Forbidden,
    /// A fault of ours (500).
    Internal,
    /// The request makes no sense as sent (400).
    Invalid,
    /// Nothing is there (404).
    NotFound,
    /// The server is sealed or not initialised (503).
    Sealed,
    /// The request is larger than a limit (413).
    TooLarge,
    /// Too much is in flight (429).
    TooMany,
    /// No token, or none that is alive (403).
    Unauthenticated,
    /// Something needed does not answer; trying later may help (503).
    Unavailable,
    /// The path exists, the verb does not (405).
    WrongVerb,
}

/// An error that can leave the server: it knows its kind and what the caller may read of it.
pub trait Fault: std::error::Error {
    /// The kind, which decides the status.
    fn kind(&self) -> ErrorKind;

    /// What the caller is told; never a secret. An empty list is Vault's plain 404.
    fn public(&self) -> Vec<String>;
}
