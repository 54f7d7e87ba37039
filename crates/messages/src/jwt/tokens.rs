//! Tokens: signed, verified, revoked, and the public keys that verify them elsewhere.

use std::collections::BTreeMap;
use std::sync::Arc;

use actix::Message;
use mssm_domain::{Caller, Document, MountId, RoleName, SecretText, Timestamp};

use crate::engine::EngineError;

/// Signs a token.
#[derive(Debug, Message)]
#[rtype(result = "Result<Signed, EngineError>")]
pub struct Sign {
    /// The mount.
    pub mount: MountId,
    /// The role that was asked for.
    pub role: RoleName,
    /// Who asks.
    pub caller: Arc<Caller>,
    /// What the caller's token says of its holder.
    pub metadata: Arc<BTreeMap<String, String>>,
    /// The claims that the caller sets: a JSON object.
    pub claims: Option<Document>,
    /// How long it shall live; `None` takes the role's.
    pub ttl_secs: Option<u64>,
    /// `iss` where neither role nor mount has one.
    pub address: String,
}

/// A token just signed.
#[derive(Debug)]
pub struct Signed {
    /// The token in its compact form.
    pub token: SecretText,
    /// The key that signed it.
    pub kid: String,
    /// When it ends.
    pub expires_at: Timestamp,
    /// How long it lives.
    pub ttl_secs: u64,
    /// Its `jti`, if it has one.
    pub jti: Option<String>,
    /// The role's `client_id`; may be empty.
    pub client_id: String,
    /// What the answer should warn of.
    pub warnings: Vec<String>,
}

/// For whom a token must be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Audience {
    /// That is not asked.
    Any,
    /// One of these is named in `aud`; with none, `aud` must not be there.
    OneOf(Vec<String>),
}

/// Checks a token of this mount: form, key, signature, times, audience, revocation.
///
/// `Invalid` says what is wrong with a token.
#[derive(Debug, Message)]
#[rtype(result = "Result<Verified, EngineError>")]
pub struct Verify {
    /// The mount.
    pub mount: MountId,
    /// The token in its compact form.
    pub token: SecretText,
    /// For whom it must be.
    pub audience: Audience,
    /// What `iss` must be.
    pub issuer: Option<String>,
    /// What `typ` must be.
    pub token_type: Option<String>,
    /// How far the clocks of who signed and who verifies may be apart.
    pub leeway_secs: u64,
    /// True to let one pass that is revoked.
    pub even_revoked: bool,
}

/// A token that holds.
#[derive(Debug)]
pub struct Verified {
    /// Its header: a JSON object.
    pub header: Document,
    /// Its claims: a JSON object.
    pub claims: Document,
    /// Its `jti`, if it has one.
    pub jti: Option<String>,
    /// When it ends.
    pub expires_at: Timestamp,
}

/// Has a token's `jti` hold no more until the token's end.
#[derive(Clone, Debug, Message)]
#[rtype(result = "Result<(), EngineError>")]
pub struct RevokeJti {
    /// The mount.
    pub mount: MountId,
    /// Which.
    pub jti: String,
    /// When the token ends by itself; `None` if that is not known.
    pub expires_at: Option<Timestamp>,
}

/// The public keys of a mount.
#[derive(Clone, Copy, Debug, Message)]
#[rtype(result = "Result<Jwks, EngineError>")]
pub struct ReadJwks {
    /// The mount.
    pub mount: MountId,
}

/// All public keys, and how long a copy is good.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Jwks {
    /// A JWK set (RFC 7517), in JSON.
    pub json: Arc<str>,
    /// No key that is not in it signs within so many seconds.
    pub max_age_secs: u64,
}
