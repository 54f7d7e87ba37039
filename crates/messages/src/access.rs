//! To the owner of tokens and policies, and to its replicas: who asks, and may they.

use std::collections::BTreeMap;
use std::sync::Arc;

use actix::{Message, Recipient};
use mssm_domain::policy::{Capabilities, ParameterRules};
use mssm_domain::{
    Accessor, Caller, CanonicalPath, ErrorKind, Fault, PolicyName, RecordPath, SecretText,
    Timestamp, TokenId, Ttl,
};

use crate::{BarrierError, Panicked, Port};

/// The record whose presence says that a token lives; a lease is written only while it is there.
pub fn token_record(token: TokenId) -> RecordPath {
    RecordPath::new(&["token", &token.hex()])
}

/// The folder of a token's private secrets in a cubbyhole mount, wiped when the token ends.
pub fn cubbyhole_folder(token: TokenId) -> RecordPath {
    RecordPath::new(&["cubbyhole", &token.hex()])
}

/// To a replica: who holds this token, and what may they do on this path?
///
/// Takes down one use of a token with limited uses, durably, before the reply, whatever the
/// decision is.
#[derive(Debug, Message)]
#[rtype(result = "Result<Authorized, AccessError>")]
pub struct Authorize {
    /// The token as it was sent.
    pub token: SecretText,
    /// The path below `/v1/`.
    pub path: CanonicalPath,
    /// True if the request lists: a path then also matches rules with its trailing slash.
    pub listing: bool,
}

/// A living token's holder and their rights on one path.
#[derive(Clone, Debug)]
pub struct Authorized {
    /// Who asks.
    pub caller: Arc<Caller>,
    /// What the token says of its holder, for engines that use it.
    pub metadata: Arc<BTreeMap<String, String>>,
    /// What they may do here; `Deny` alone or nothing at all means no.
    pub capabilities: Capabilities,
    /// What the request's parameters must be, if the rule says.
    pub parameters: Option<Arc<ParameterRules>>,
    /// The policies that decided, for the audit.
    pub granting: Vec<PolicyName>,
    /// True if this was the token's last use: it ends with this request, and leases are refused.
    pub last_use: bool,
    /// The token as that use leaves it, if it was the last: its record is gone.
    pub last_view: Option<Arc<TokenView>>,
}

/// Which token is meant.
#[derive(Debug)]
pub enum TokenRef {
    /// The token's own text.
    Secret(SecretText),
    /// Its public handle.
    Accessor(Accessor),
    /// Its keyed hash, as a caller carries it.
    Id(TokenId),
}

/// Makes a token.
#[derive(Debug, Message)]
#[rtype(result = "Result<NewToken, AccessError>")]
pub struct CreateToken {
    /// Who asks; the parent, unless it is an orphan.
    pub caller: Arc<Caller>,
    /// What it shall be.
    pub wish: TokenWish,
    /// True if the caller has `sudo` on the path (root may skip rules, as Vault's).
    pub sudo: bool,
}

/// What a new token shall be.
#[derive(Debug, Default)]
pub struct TokenWish {
    /// Its text, if the caller chooses it (root only).
    pub id: Option<SecretText>,
    /// Its policies; empty takes the parent's.
    pub policies: Vec<String>,
    /// For people and audits.
    pub metadata: BTreeMap<String, String>,
    /// How long it lives at first.
    pub ttl: Option<Ttl>,
    /// How long it lives at most.
    pub explicit_max_ttl: Option<Ttl>,
    /// If set, every renewal gives this much, without bound.
    pub period: Option<Ttl>,
    /// False for one that cannot be renewed.
    pub renewable: Option<bool>,
    /// How often it may be used; 0 is without limit.
    pub num_uses: u32,
    /// True for a token that does not end with its parent.
    pub orphan: bool,
    /// True if it was asked for at `auth/token/create-orphan`, where an orphan needs no `sudo`.
    pub by_orphan_path: bool,
    /// True to leave out the `default` policy.
    pub no_default_policy: bool,
    /// For people; becomes `token-<name>`.
    pub display_name: Option<String>,
    /// `service` or empty; others are refused.
    pub kind: String,
}

/// A token just made, or renewed (then without its text unless the caller sent it).
#[derive(Debug)]
pub struct NewToken {
    /// The token's text, seen only here.
    pub token: Option<SecretText>,
    /// What is known of it.
    pub view: TokenView,
    /// What the answer should warn of.
    pub warnings: Vec<String>,
}

/// What is known of a token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenView {
    /// Its keyed hash.
    pub id: TokenId,
    /// Its public handle.
    pub accessor: Accessor,
    /// Its policies, sorted.
    pub policies: Vec<PolicyName>,
    /// For people and audits.
    pub metadata: BTreeMap<String, String>,
    /// For people.
    pub display_name: String,
    /// Where it was made, as `auth/token/create`.
    pub path: String,
    /// When it was made.
    pub issued_at: Timestamp,
    /// How long it was to live at first; `None` without end.
    pub creation_ttl: Option<Ttl>,
    /// When it ends; `None` without end.
    pub expires_at: Option<Timestamp>,
    /// How long it lives at most.
    pub explicit_max_ttl: Option<Ttl>,
    /// What every renewal gives.
    pub period: Option<Ttl>,
    /// True if it can be renewed.
    pub renewable: bool,
    /// When it was last renewed.
    pub renewed_at: Option<Timestamp>,
    /// Uses left; 0 is without limit.
    pub num_uses: u32,
    /// True if it has no parent.
    pub orphan: bool,
}

/// Looks a token up.
#[derive(Debug, Message)]
#[rtype(result = "Result<TokenView, AccessError>")]
pub struct LookupToken(pub TokenRef);

/// Moves a token's end to now plus the increment, within its bounds.
#[derive(Debug, Message)]
#[rtype(result = "Result<NewToken, AccessError>")]
pub struct RenewToken {
    /// Which.
    pub token: TokenRef,
    /// How far from now; `None` takes its first lifetime.
    pub increment: Option<Ttl>,
}

/// Ends a token, its children (or makes them orphans), its leases and its cubbyhole.
///
/// Replies once the token is dead, durably, on every replica; what it leaves ends in order. False
/// if there was none: done twice is done once.
#[derive(Debug, Message)]
#[rtype(result = "Result<bool, AccessError>")]
pub struct RevokeToken {
    /// Which.
    pub token: TokenRef,
    /// True to let its children live on as orphans.
    pub keep_children: bool,
}

/// Lists the accessors of all living tokens, sorted.
#[derive(Clone, Copy, Debug, Message)]
#[rtype(result = "Result<Vec<Accessor>, AccessError>")]
pub struct ListAccessors;

/// Removes what dead tokens have left behind; runs by itself too.
#[derive(Clone, Copy, Debug, Message)]
#[rtype(result = "Result<u64, AccessError>")]
pub struct TidyTokens;

/// Asks what a token may do on paths; replies one set each, in order.
///
/// An empty set, or one with `Deny`, means nothing. Root's sets hold everything but `Deny`; that it
/// is root is told by [`LookupToken`].
#[derive(Debug, Message)]
#[rtype(result = "Result<Vec<Capabilities>, AccessError>")]
pub struct ReadCapabilities {
    /// Whose.
    pub token: TokenRef,
    /// On which paths.
    pub paths: Vec<CanonicalPath>,
}

/// To a replica: does any of the caller's rules reach below this prefix?
#[derive(Clone, Debug, Message)]
#[rtype(result = "Result<bool, AccessError>")]
pub struct ReachesBelow {
    /// Who.
    pub caller: Arc<Caller>,
    /// The prefix, as `secret/`.
    pub prefix: String,
}

/// To a replica: all the rules of a caller, for `sys/internal/ui/resultant-acl`.
#[derive(Clone, Debug, Message)]
#[rtype(result = "Result<ResultantAcl, AccessError>")]
pub struct ReadResultantAcl {
    /// Who.
    pub caller: Arc<Caller>,
}

/// All the rules of a caller.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ResultantAcl {
    /// True if everything is allowed.
    pub root: bool,
    /// Rights by exact path.
    pub exact: Vec<(String, Capabilities)>,
    /// Rights by pattern.
    pub patterns: Vec<(String, Capabilities)>,
}

/// Lists the policies' names, sorted, `root` last.
#[derive(Clone, Copy, Debug, Message)]
#[rtype(result = "Result<Vec<PolicyName>, AccessError>")]
pub struct ListPolicies;

/// Reads a policy's text as it was written.
#[derive(Clone, Debug, Message)]
#[rtype(result = "Result<String, AccessError>")]
pub struct ReadPolicy(pub PolicyName);

/// Writes a policy; in force on every worker before the reply.
#[derive(Clone, Debug, Message)]
#[rtype(result = "Result<Vec<String>, AccessError>")]
pub struct WritePolicy {
    /// Its name.
    pub name: PolicyName,
    /// HCL or JSON. Replies warnings.
    pub text: String,
}

/// Deletes a policy; one that is not there is fine.
#[derive(Clone, Debug, Message)]
#[rtype(result = "Result<(), AccessError>")]
pub struct DeletePolicy(pub PolicyName);

/// How a worker reaches the replica on its own arbiter.
#[derive(Clone)]
pub struct AccessPorts {
    /// Who asks, and may they.
    pub authorize: Recipient<Authorize>,
    /// Whether anything is allowed below a prefix.
    pub reaches_below: Recipient<ReachesBelow>,
    /// All rules of a caller.
    pub resultant_acl: Recipient<ReadResultantAcl>,
}

/// How others reach the owner of tokens and policies.
#[derive(Clone, Debug)]
pub struct TokenPorts {
    /// Makes a token.
    pub create: Port<CreateToken>,
    /// Renews one.
    pub renew: Port<RenewToken>,
    /// Ends one.
    pub revoke: Port<RevokeToken>,
    /// Looks one up.
    pub lookup: Port<LookupToken>,
    /// Lists the living.
    pub accessors: Port<ListAccessors>,
    /// Removes what the dead left.
    pub tidy: Port<TidyTokens>,
    /// What a token may do.
    pub capabilities: Port<ReadCapabilities>,
    /// Lists policies.
    pub list_policies: Port<ListPolicies>,
    /// Reads a policy.
    pub read_policy: Port<ReadPolicy>,
    /// Writes a policy.
    pub write_policy: Port<WritePolicy>,
    /// Deletes a policy.
    pub delete_policy: Port<DeletePolicy>,
}

/// Why access was refused, or tokens and policies not changed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AccessError {
    /// No token, none that lives, or one of another store.
    #[error("permission denied")]
    NoToken,
    /// The caller may not.
    #[error("permission denied")]
    Denied,
    /// The token that was asked about is not there.
    #[error("bad token")]
    BadToken,
    /// The accessor that was asked about is not there.
    #[error("invalid accessor")]
    BadAccessor,
    /// What was asked for is wrong; says how, for the caller.
    #[error("{0}")]
    Invalid(String),
    /// No such policy.
    #[error("no such policy")]
    NoPolicy,
    /// The records of tokens and policies.
    #[error(transparent)]
    Barrier(#[from] BarrierError),
    /// Nothing is known while sealed.
    #[error("sealed")]
    Sealed,
    /// A handler panicked, or another actor did not answer.
    #[error("internal error")]
    Internal,
}

impl From<Panicked> for AccessError {
    fn from(_: Panicked) -> Self {
        Self::Internal
    }
}

impl Fault for AccessError {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::NoToken => ErrorKind::Unauthenticated,
            Self::Denied | Self::BadToken => ErrorKind::Forbidden,
            Self::BadAccessor | Self::Invalid(_) => ErrorKind::Invalid,
            Self::NoPolicy => ErrorKind::NotFound,
            Self::Barrier(error) => error.kind(),
            Self::Sealed => ErrorKind::Sealed,
            Self::Internal => ErrorKind::Internal,
        }
    }

    fn public(&self) -> Vec<String> {
        match self {
            Self::NoPolicy => Vec::new(),
            Self::Barrier(error) => error.public(),
            Self::Sealed => vec!["Vault is sealed".to_owned()],
            Self::NoToken
            | Self::Denied
            | Self::BadToken
            | Self::BadAccessor
            | Self::Invalid(_)
            | Self::Internal => vec![self.to_string()],
        }
    }
}
