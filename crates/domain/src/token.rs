//! Who asks.

use crate::{Accessor, Invalid, PolicyName, Timestamp, TokenId};

/// What kind of token this is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TokenKind {
    /// Stored, renewable, revocable.
    Service,
}

/// An authenticated caller: what a living token says of its holder. Cheap to share, holds no token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Caller {
    /// The token's keyed hash.
    pub token: TokenId,
    /// The token's public handle.
    pub accessor: Accessor,
    /// For people: `token`, `root`, `token-ci`.
    pub display_name: String,
    /// Its policies, sorted.
    pub policies: Vec<PolicyName>,
    /// What kind of token it is.
    pub kind: TokenKind,
    /// When the token was issued.
    pub issued_at: Timestamp,
    /// When the token ends; `None` for a root token without end.
    pub expires_at: Option<Timestamp>,
}

impl Caller {
    /// The server itself, which has no token, under a name for people.
    pub fn server(display_name: &str, now: Timestamp) -> Result<Self, Invalid> {
        Ok(Self {
            token: TokenId::SERVER,
            accessor: Accessor::parse(&"0".repeat(24))?,
            display_name: display_name.to_owned(),
            policies: Vec::new(),
            kind: TokenKind::Service,
            issued_at: now,
            expires_at: None,
        })
    }

    /// True if no token asks, but the server itself.
    pub fn is_server(&self) -> bool {
        self.token == TokenId::SERVER
    }

    /// True if one of the policies is `root`.
    pub fn is_root(&self) -> bool {
        self.policies.iter().any(PolicyName::is_root)
    }
}
