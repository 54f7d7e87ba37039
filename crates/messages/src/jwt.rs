//! To the jwt engine: keys that rotate, roles, and the tokens signed with them.
//!
//! A keeper owns what is stored and changes it; a signer on every HTTP worker holds what is in force
//! and answers from it. Both refuse with [`EngineError`].

mod tokens;

use actix::Message;
use mssm_domain::{KeyName, MountId, RoleName, SecretText, Timestamp};

pub use tokens::{Audience, Jwks, ReadJwks, RevokeJti, Sign, Signed, Verified, Verify};

use crate::engine::EngineError;

/// Settings of a mount that change; `None` keeps.
#[derive(Clone, Debug, Message)]
#[rtype(result = "Result<(), EngineError>")]
pub struct WriteConfig {
    /// The mount.
    pub mount: MountId,
    /// Who the tokens say they are from; empty returns to the mount's own address.
    pub issuer: Option<String>,
    /// How long a verifier may keep a copy of the keys.
    pub jwks_max_age_secs: Option<u64>,
}

/// Reads a mount's settings.
#[derive(Clone, Copy, Debug, Message)]
#[rtype(result = "Result<ConfigView, EngineError>")]
pub struct ReadConfig {
    /// The mount.
    pub mount: MountId,
}

/// A mount's settings.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigView {
    /// Who the tokens say they are from; empty for the mount's own address.
    pub issuer: String,
    /// How long a verifier may keep a copy of the keys.
    pub jwks_max_age_secs: u64,
    /// The algorithms of the keys that are there.
    pub algorithms: Vec<&'static str>,
}

/// What a set of keys shall be; `None` keeps, or takes the default.
#[derive(Debug, Default)]
pub struct KeyPatch {
    /// `EdDSA`, `ES256`, `ES384`, `RS256` or `PS256`; cannot change.
    pub algorithm: Option<String>,
    /// The size of RSA keys; cannot change.
    pub rsa_bits: Option<u64>,
    /// A key signs so long; 0: until a rotation is asked for.
    pub rotation_period_secs: Option<u64>,
    /// A key signs so often; 0: without bound.
    pub rotation_count: Option<u64>,
    /// A key verifies so long after it has signed last; no token outlives it.
    pub verification_ttl_secs: Option<u64>,
    /// The roles, by their client id, that may sign with it; `*` is all.
    pub allowed_client_ids: Option<Vec<String>>,
    /// A key from elsewhere in PEM: the first of a new set, the next of one that is there.
    pub private_key: Option<SecretText>,
}

/// Makes a set of keys, or changes its settings. Replies warnings.
#[derive(Debug, Message)]
#[rtype(result = "Result<Vec<String>, EngineError>")]
pub struct WriteKey {
    /// The mount.
    pub mount: MountId,
    /// Its name.
    pub name: KeyName,
    /// What changes.
    pub patch: KeyPatch,
    /// True to refuse (`NotFound`) if there is none yet.
    pub must_exist: bool,
}

/// Has the next key sign from now on, or as soon as it has been public for long enough.
#[derive(Clone, Debug, Message)]
#[rtype(result = "Result<Rotated, EngineError>")]
pub struct RotateKey {
    /// The mount.
    pub mount: MountId,
    /// Which set.
    pub name: KeyName,
    /// The key that signs until then verifies so long, if that is longer than its set says.
    pub verification_ttl_secs: Option<u64>,
}

/// What a wish to rotate led to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rotated {
    /// The key that signs now.
    pub kid: String,
    /// When the next one will; `None` if it does now.
    pub waits_until: Option<Timestamp>,
}

/// Takes previous keys away: those that verify nothing any more, and those that are named, whose
/// tokens end with them. Replies the keys that are gone.
#[derive(Clone, Debug, Message)]
#[rtype(result = "Result<Vec<String>, EngineError>")]
pub struct TrimKey {
    /// The mount.
    pub mount: MountId,
    /// Which set.
    pub name: KeyName,
    /// Which previous keys go though they still verify.
    pub kids: Vec<String>,
}

/// Removes a set that no role signs with; one that is not there is fine.
#[derive(Clone, Debug, Message)]
#[rtype(result = "Result<(), EngineError>")]
pub struct DeleteKey {
    /// The mount.
    pub mount: MountId,
    /// Which.
    pub name: KeyName,
}

/// What a key is to its set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// It signs no more; what it signed verifies.
    Previous,
    /// It signs.
    Current,
    /// It is public and will sign.
    Next,
}

/// One key of a set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyEntry {
    /// Its thumbprint.
    pub kid: String,
    /// What it is to its set.
    pub standing: Standing,
    /// Since when it is public.
    pub published_at: Timestamp,
    /// From when on it signs, or may.
    pub signs_from: Timestamp,
    /// When it verifies no more; `None` if it has not signed for the last time.
    pub verifies_until: Option<Timestamp>,
    /// True if it was made elsewhere.
    pub imported: bool,
    /// The public key as a JWK, in JSON.
    pub jwk: String,
}

/// A set of keys.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyView {
    /// How it signs.
    pub algorithm: &'static str,
    /// The size of its RSA keys; 0 of others.
    pub rsa_bits: u64,
    /// A key signs so long; 0: until a rotation is asked for.
    pub rotation_period_secs: u64,
    /// A key signs so often; 0: without bound.
    pub rotation_count: u64,
    /// A key verifies so long after it has signed last.
    pub verification_ttl_secs: u64,
    /// The roles, by their client id, that may sign with it.
    pub allowed_client_ids: Vec<String>,
    /// Its keys, oldest first.
    pub keys: Vec<KeyEntry>,
    /// When the next key signs; `None` if nothing is planned.
    pub rotates_at: Option<Timestamp>,
}

/// Reads a set of keys, without what is private.
#[derive(Clone, Debug, Message)]
#[rtype(result = "Result<KeyView, EngineError>")]
pub struct ReadKey {
    /// The mount.
    pub mount: MountId,
    /// Which.
    pub name: KeyName,
}

/// Lists the sets of keys, sorted.
#[derive(Clone, Copy, Debug, Message)]
#[rtype(result = "Result<Vec<String>, EngineError>")]
pub struct ListKeys {
    /// The mount.
    pub mount: MountId,
}

/// What a role shall be; `None` keeps, or takes the default.
#[derive(Clone, Debug, Default)]
pub struct RolePatch {
    /// The set of keys that it signs with.
    pub key: Option<String>,
    /// `iss`; empty takes the mount's.
    pub issuer: Option<String>,
    /// `aud`: one is text, several are a list.
    pub audience: Option<Vec<String>>,
    /// `sub`, a template.
    pub subject: Option<String>,
    /// Further claims: a JSON object, a template.
    pub claims: Option<String>,
    /// The claims that a caller may set; `*` is all that are not the engine's own.
    pub allowed_claims: Option<Vec<String>>,
    /// How long a token lives if the caller does not say.
    pub ttl_secs: Option<u64>,
    /// How long it may live.
    pub max_ttl_secs: Option<u64>,
    /// `nbf`: `now` or `none`.
    pub not_before: Option<String>,
    /// `nbf` lies so long before `iat`, for verifiers whose clocks are behind.
    pub not_before_leeway_secs: Option<u64>,
    /// `jti`: `random` or `none`.
    pub jti: Option<String>,
    /// Further members of the header: a JSON object.
    pub headers: Option<String>,
    /// `typ`: `JWT` or `at+jwt` (RFC 9068).
    pub token_type: Option<String>,
    /// `client_id` of an access token, and what keys know the role by.
    pub client_id: Option<String>,
}

/// A role.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RoleView {
    /// The set of keys that it signs with.
    pub key: KeyName,
    /// `iss`; empty for the mount's.
    pub issuer: String,
    /// `aud`.
    pub audience: Vec<String>,
    /// `sub`, a template.
    pub subject: String,
    /// Further claims: a JSON object, a template; may be empty.
    pub claims: String,
    /// The claims that a caller may set.
    pub allowed_claims: Vec<String>,
    /// How long a token lives if the caller does not say.
    pub ttl_secs: u64,
    /// How long it may live.
    pub max_ttl_secs: u64,
    /// `now` or `none`.
    pub not_before: &'static str,
    /// `nbf` lies so long before `iat`.
    pub not_before_leeway_secs: u64,
    /// `random` or `none`.
    pub jti: &'static str,
    /// Further members of the header: a JSON object; may be empty.
    pub headers: String,
    /// `JWT` or `at+jwt`.
    pub token_type: &'static str,
    /// `client_id`; may be empty.
    pub client_id: String,
}

/// Makes a role or changes it. Replies warnings.
#[derive(Clone, Debug, Message)]
#[rtype(result = "Result<Vec<String>, EngineError>")]
pub struct WriteRole {
    /// The mount.
    pub mount: MountId,
    /// Its name.
    pub name: RoleName,
    /// What changes.
    pub patch: RolePatch,
    /// True for one of Vault's identity tokens, whose claims and defaults are Vault's.
    pub identity: bool,
}

/// Reads a role.
#[derive(Clone, Debug, Message)]
#[rtype(result = "Result<RoleView, EngineError>")]
pub struct ReadRole {
    /// The mount.
    pub mount: MountId,
    /// Which.
    pub name: RoleName,
}

/// Lists the roles, sorted.
#[derive(Clone, Copy, Debug, Message)]
#[rtype(result = "Result<Vec<String>, EngineError>")]
pub struct ListRoles {
    /// The mount.
    pub mount: MountId,
}

/// Removes a role; one that is not there is fine.
#[derive(Clone, Debug, Message)]
#[rtype(result = "Result<(), EngineError>")]
pub struct DeleteRole {
    /// The mount.
    pub mount: MountId,
    /// Which.
    pub name: RoleName,
}
