//! To the minter: passwords that change while their users stay.
//!
//! A root password is that of a connection's own user; a static role's user belongs to somebody
//! else, and only its password is ours.

use actix::Message;
use mssm_domain::{ConnectionName, MountId, RoleName, SecretText, Timestamp};

use crate::engine::EngineError;

/// When a password changes by itself: `None` keeps what is there, zero and empty take it away.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PlanPatch {
    /// Seconds from one change to the next.
    pub rotation_period_secs: Option<u64>,
    /// A schedule of cron, in UTC.
    pub rotation_schedule: Option<String>,
    /// How many seconds after a scheduled time a change may still begin; 0 for no limit.
    pub rotation_window_secs: Option<u64>,
}

/// When a password changes by itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PlanView {
    /// Seconds from one change to the next; 0 if a schedule says when, or nothing does.
    pub rotation_period_secs: u64,
    /// A schedule of cron, in UTC; empty if a period says when, or nothing does.
    pub rotation_schedule: String,
    /// How many seconds after a scheduled time a change may still begin; 0 for no limit.
    pub rotation_window_secs: u64,
}

/// What is known of the changes of a connection's own password.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RootRotationView {
    /// When it changes by itself.
    pub plan: PlanView,
    /// True to leave the plan aside.
    pub disabled: bool,
    /// When it was last changed, if it ever was.
    pub rotated_at: Option<Timestamp>,
    /// True while it is not known which of two passwords holds; both are kept.
    pub in_doubt: bool,
}

/// Changes the password of a connection's own user, to one that only this server knows.
///
/// Replies once the new one was seen to log in and the old one was seen to be refused. Connections
/// that log in to the same server as the same user change together. Until then both passwords are
/// stored and tried, whatever becomes of this server.
#[derive(Clone, Debug, Message)]
#[rtype(result = "Result<(), EngineError>")]
pub struct RotateRoot {
    /// The mount.
    pub mount: MountId,
    /// The connection.
    pub name: ConnectionName,
}

/// A change of a static role's definition: `None` keeps what is there.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StaticRolePatch {
    /// The connection that its users belong to.
    pub db_name: Option<String>,
    /// One user, or two that take turns.
    pub usernames: Option<Vec<String>>,
    /// Statements instead of the built-in `ALTER ROLE … PASSWORD`, with `{{name}}`, `{{username}}`
    /// and `{{password}}`.
    pub rotation_statements: Option<Vec<String>>,
    /// When the password changes by itself.
    pub plan: PlanPatch,
    /// Vault's `credential_type`; only `password` is known.
    pub credential_type: Option<String>,
    /// Rounds of the password's verifier, 4,096 and more.
    pub scram_iterations: Option<u32>,
}

/// Stores a static role, and changes its user's password at once if it is new. Replies warnings.
#[derive(Clone, Debug, Message)]
#[rtype(result = "Result<Vec<String>, EngineError>")]
pub struct WriteStaticRole {
    /// The mount.
    pub mount: MountId,
    /// Its name.
    pub name: RoleName,
    /// What changes.
    pub patch: StaticRolePatch,
}

/// A static role's definition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StaticRoleView {
    /// The connection that its users belong to.
    pub db_name: String,
    /// One user, or two that take turns.
    pub usernames: Vec<String>,
    /// Which of them is handed out.
    pub active: String,
    /// Statements instead of the built-in ones.
    pub rotation_statements: Vec<String>,
    /// When the password changes by itself.
    pub plan: PlanView,
    /// Rounds of the password's verifier.
    pub scram_iterations: u32,
    /// When what is handed out was made, if it was yet.
    pub rotated_at: Option<Timestamp>,
}

/// Reads a static role's definition.
#[derive(Clone, Debug, Message)]
#[rtype(result = "Result<StaticRoleView, EngineError>")]
pub struct ReadStaticRole {
    /// The mount.
    pub mount: MountId,
    /// Its name.
    pub name: RoleName,
}

/// Lists the names of static roles, sorted.
#[derive(Clone, Debug, Message)]
#[rtype(result = "Result<Vec<String>, EngineError>")]
pub struct ListStaticRoles {
    /// The mount.
    pub mount: MountId,
}

/// Forgets a static role; its users stay as they are.
#[derive(Clone, Debug, Message)]
#[rtype(result = "Result<(), EngineError>")]
pub struct DeleteStaticRole {
    /// The mount.
    pub mount: MountId,
    /// Its name.
    pub name: RoleName,
}

/// A static role's user and password.
#[derive(Debug)]
pub struct StaticCredentials {
    /// The user.
    pub username: String,
    /// Its password.
    pub password: SecretText,
    /// When it was made.
    pub rotated_at: Timestamp,
    /// Seconds until it is due to change.
    pub ttl_secs: u64,
    /// When it changes by itself.
    pub plan: PlanView,
    /// What the answer should warn of.
    pub warnings: Vec<String>,
}

/// Reads a static role's password.
#[derive(Clone, Debug, Message)]
#[rtype(result = "Result<StaticCredentials, EngineError>")]
pub struct ReadStaticCredentials {
    /// The mount.
    pub mount: MountId,
    /// The role.
    pub name: RoleName,
}

/// Changes a static role's password now.
#[derive(Clone, Debug, Message)]
#[rtype(result = "Result<(), EngineError>")]
pub struct RotateStaticRole {
    /// The mount.
    pub mount: MountId,
    /// The role.
    pub name: RoleName,
    /// True to change the password of a pair's resting user though it was handed out less than a
    /// period ago.
    pub force: bool,
}
