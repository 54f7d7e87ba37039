//! To the minter: the definitions of database connections and roles.
//!
//! Making, extending and ending logins goes through [`crate::engine`], sent by the lease manager.

use actix::Message;
use mssm_domain::{ConnectionId, ConnectionName, MountId, RoleName, SecretBytes, SecretText, Ttl};

use crate::engine::{EngineError, LeaseRules};
use crate::rotation::{PlanPatch, RootRotationView};

/// How a connection to a database server is protected.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DatabaseTls {
    /// No TLS; for sockets and test servers.
    Disable,
    /// TLS, whoever answers.
    Require,
    /// TLS, the server's certificate and name checked.
    VerifyFull,
}

/// A change of a connection's definition: `None` keeps what is there.
#[derive(Debug, Default)]
pub struct ConnectionPatch {
    /// Vault's name for the kind of database; only PostgreSQL's is known.
    pub plugin_name: Option<String>,
    /// `postgresql://…` with `{{username}}` and `{{password}}`, or a libpq key-value string.
    pub connection_url: Option<SecretText>,
    /// The user that makes and ends logins.
    pub username: Option<String>,
    /// That user's password.
    pub password: Option<SecretText>,
    /// Roles that may use it; `*` for all.
    pub allowed_roles: Option<Vec<String>>,
    /// How many connections mint at once, 1 to 64.
    pub max_open_connections: Option<u32>,
    /// PEM of the authority that signed the server's certificate.
    pub tls_ca: Option<String>,
    /// PEM of a client certificate.
    pub tls_certificate: Option<String>,
    /// PEM of the client certificate's key.
    pub tls_key: Option<SecretBytes>,
    /// How logins' passwords reach the database: `scram-sha-256` (default) or `password`.
    pub password_authentication: Option<String>,
    /// Vault's name for the statements that change the root password; kept for the rotation.
    pub root_rotation_statements: Option<Vec<String>>,
    /// The template of user names; empty for the built-in one.
    pub username_template: Option<String>,
    /// When the password changes by itself.
    pub plan: PlanPatch,
    /// True to leave that plan aside.
    pub disable_automated_rotation: Option<bool>,
    /// True to connect before it is stored (the default).
    pub verify_connection: Option<bool>,
}

/// Stores a connection's definition, after it has been tried.
#[derive(Debug, Message)]
#[rtype(result = "Result<Vec<String>, EngineError>")]
pub struct WriteConnection {
    /// The mount.
    pub mount: MountId,
    /// Its name.
    pub name: ConnectionName,
    /// What changes. Replies warnings.
    pub patch: ConnectionPatch,
}

/// A connection's definition without its secrets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConnectionView {
    /// What leases call it; another once it leads to another server.
    pub id: ConnectionId,
    /// Vault's name for the kind of database.
    pub plugin_name: String,
    /// With `{{username}}` and `{{password}}`; a password written into it is not shown.
    pub connection_url: String,
    /// The user that makes and ends logins.
    pub username: String,
    /// Roles that may use it.
    pub allowed_roles: Vec<String>,
    /// How many connections mint at once.
    pub max_open_connections: u32,
    /// How passwords reach the database.
    pub password_authentication: String,
    /// The statements that change the root password.
    pub root_rotation_statements: Vec<String>,
    /// The template of user names.
    pub username_template: String,
    /// What is known of the changes of its password.
    pub rotation: RootRotationView,
    /// True if the server's configuration file defines it.
    pub managed_by_configuration: bool,
}

/// Reads a connection's definition.
#[derive(Clone, Debug, Message)]
#[rtype(result = "Result<ConnectionView, EngineError>")]
pub struct ReadConnection {
    /// The mount.
    pub mount: MountId,
    /// Its name.
    pub name: ConnectionName,
}

/// Lists the names of connections, sorted.
#[derive(Clone, Debug, Message)]
#[rtype(result = "Result<Vec<String>, EngineError>")]
pub struct ListConnections {
    /// The mount.
    pub mount: MountId,
}

/// Removes a connection's definition; refused while leases need it.
#[derive(Clone, Debug, Message)]
#[rtype(result = "Result<(), EngineError>")]
pub struct DeleteConnection {
    /// The mount.
    pub mount: MountId,
    /// Its name.
    pub name: ConnectionName,
}

/// Closes a connection's pool and opens it anew at the next use.
#[derive(Clone, Debug, Message)]
#[rtype(result = "Result<(), EngineError>")]
pub struct ResetConnection {
    /// The mount.
    pub mount: MountId,
    /// Its name.
    pub name: ConnectionName,
}

/// A change of a role's definition: `None` keeps what is there.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RolePatch {
    /// The connection that it is made on.
    pub db_name: Option<String>,
    /// Statements that make a login, with `{{name}}`, `{{username}}`, `{{password}}`,
    /// `{{expiration}}`, `{{role}}`.
    pub creation_statements: Option<Vec<String>>,
    /// Statements that clean up before the login is dropped; rungs 1 and 2 run whatever they say.
    pub revocation_statements: Option<Vec<String>>,
    /// Kept for compatibility: a failed creation is rolled back as a whole.
    pub rollback_statements: Option<Vec<String>>,
    /// Statements instead of the built-in `ALTER ROLE … VALID UNTIL`.
    pub renew_statements: Option<Vec<String>>,
    /// The lifetime; zero seconds leaves it to the mount.
    pub default_ttl_secs: Option<u64>,
    /// The longest that renewals may reach; zero seconds leaves it to the mount.
    pub max_ttl_secs: Option<u64>,
    /// Vault's `credential_type`; only `password` is known.
    pub credential_type: Option<String>,
    /// The role that is handed what a login owns when it ends; must not log in itself.
    pub owner: Option<String>,
    /// True if leases outlive the token that they were issued to.
    pub orphan_leases: Option<bool>,
    /// The same token gets the same login again within this time; zero seconds turns it off.
    pub reuse_window_secs: Option<u64>,
    /// At most so many leases at once; zero: no bound.
    pub max_leases: Option<u32>,
    /// A token that has so many leases gets no more; zero: no bound.
    pub max_leases_per_token: Option<u32>,
    /// Rounds of the password's verifier, 1 to 4,096 and more.
    pub scram_iterations: Option<u32>,
    /// True to let logins have rights that outlive their revocation, as `CREATEROLE`.
    pub allow_privileged: Option<bool>,
    /// False to store it without a self-test, marked as not verified.
    pub verify: Option<bool>,
}

/// For whom a self-test makes its login: the login's lease is theirs, or the server's own.
#[derive(Clone, Debug)]
pub struct Tester {
    /// Who writes the role.
    pub caller: mssm_domain::Caller,
    /// The mount's path, as `db/`.
    pub prefix: String,
}

/// Stores a role's definition once a login was made, used and ended by it. Replies warnings.
#[derive(Clone, Debug, Message)]
#[rtype(result = "Result<Vec<String>, EngineError>")]
pub struct WriteRole {
    /// The mount.
    pub mount: MountId,
    /// Its name.
    pub name: RoleName,
    /// What changes.
    pub patch: RolePatch,
    /// Who has it tried; without, it is stored as not verified.
    pub tester: Option<Tester>,
}

/// A role's definition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RoleView {
    /// The connection that it is made on.
    pub db_name: String,
    /// Statements that make a login.
    pub creation_statements: Vec<String>,
    /// Statements that clean up.
    pub revocation_statements: Vec<String>,
    /// Kept for compatibility.
    pub rollback_statements: Vec<String>,
    /// Statements that move the end.
    pub renew_statements: Vec<String>,
    /// The lifetime, if it has its own.
    pub default_ttl: Option<Ttl>,
    /// The bound, if it has its own.
    pub max_ttl: Option<Ttl>,
    /// Who is handed what a login owns.
    pub owner: Option<String>,
    /// What it says of its leases.
    pub rules: LeaseRules,
    /// Rounds of the password's verifier.
    pub scram_iterations: u32,
    /// True if logins may have rights that outlive their revocation.
    pub allow_privileged: bool,
    /// True if a login was made, used and ended by this very definition.
    pub verified: bool,
    /// True if the server's configuration file defines it.
    pub managed_by_configuration: bool,
}

/// Reads a role's definition.
#[derive(Clone, Debug, Message)]
#[rtype(result = "Result<RoleView, EngineError>")]
pub struct ReadRole {
    /// The mount.
    pub mount: MountId,
    /// Its name.
    pub name: RoleName,
}

/// Lists the names of roles, sorted.
#[derive(Clone, Debug, Message)]
#[rtype(result = "Result<Vec<String>, EngineError>")]
pub struct ListRoles {
    /// The mount.
    pub mount: MountId,
}

/// Removes a role's definition; its leases keep what they need to end.
#[derive(Clone, Debug, Message)]
#[rtype(result = "Result<(), EngineError>")]
pub struct DeleteRole {
    /// The mount.
    pub mount: MountId,
    /// Its name.
    pub name: RoleName,
}

/// Applies what the configuration file defines to a mount, when the server opens.
///
/// Shown as managed by configuration, refused to be changed through the API. A connection is not
/// tried here: a database that is down must not keep the server from opening.
#[derive(Debug, Message)]
#[rtype(result = "Result<Vec<String>, EngineError>")]
pub struct Configure {
    /// The mount.
    pub mount: MountId,
    /// Its path, as `db/`.
    pub prefix: String,
    /// Connections by name.
    pub connections: Vec<(ConnectionName, ConnectionPatch)>,
    /// Roles by name.
    pub roles: Vec<(RoleName, RolePatch)>,
}

/// Has tried what was configured since the server opened, and the log told what comes of it. Sent once
/// leases are open, which trials need; replies before any has begun.
#[derive(Clone, Copy, Debug, Message)]
#[rtype(result = "Result<(), EngineError>")]
pub struct TryConfigured;
