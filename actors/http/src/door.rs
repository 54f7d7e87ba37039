//! What one worker needs to answer: the ways to every actor, and the one way to ask them.

use std::cell::RefCell;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use actix::dev::ToEnvelope;
use actix::{Actor, Addr, Handler, Message, Recipient};
use mssm_domain::{BootId, Clock, Fault, Random, RequestId, Timestamp, generate_uuid};
use mssm_messages::access::{AccessPorts, TokenPorts};
use mssm_messages::audit::{Append, AuditStatus, Entry, Event, ReadStatus};
use mssm_messages::devices::{DisableDevice, EnableDevice, ListDevices, ShowHash};
use mssm_messages::keys::KeysPort;
use mssm_messages::kv::KvPorts;
use mssm_messages::mounts::MountPorts;
use mssm_messages::{Port, PortError, jwt, lease, minter, reconcile, rotation, seal};

use crate::error::{Refusal, unreachable};
use crate::glance::Glance;
use crate::limits::Gate;
use crate::metrics::Metrics;
use crate::rates::Turnstile;

/// The longest wait for an actor on the worker's own arbiter, which answers in microseconds.
pub(crate) const NEAR: Duration = Duration::from_secs(10);
/// The longest wait for an actor elsewhere; shorter than the request's minute.
pub(crate) const FAR: Duration = Duration::from_secs(50);
/// The longest wait for the audit, which answers by itself within its own, shorter patience.
pub(crate) const LOG: Duration = Duration::from_secs(15);

macro_rules! ports {
    ($(#[$doc:meta])* $name:ident { $($(#[$field_doc:meta])* $field:ident: $message:ty,)* }) => {
        $(#[$doc])*
        #[derive(Clone, Debug)]
        pub struct $name {
            $($(#[$field_doc])* pub $field: Port<$message>,)*
        }

        impl $name {
            /// The ports of one actor.
            pub fn new<A>(address: &Addr<A>) -> Self
            where
                A: Actor $(+ Handler<$message>)*,
                A::Context: Sized $(+ ToEnvelope<A, $message>)*,
            {
                Self { $($field: address.clone().into(),)* }
            }
        }
    };
}

ports! {
    /// How the front door reaches the seal keeper.
    SealPorts {
        /// Founds a store.
        init: seal::Init,
        /// How things stand.
        status: seal::Status,
        /// Enters a share.
        unseal: seal::Unseal,
        /// Forgets the shares entered.
        reset: seal::ResetUnseal,
        /// Unseals with the static key.
        auto_unseal: seal::AutoUnseal,
        /// Wipes every key.
        seal: seal::SealNow,
        /// Adds a data key.
        rotate: seal::Rotate,
        /// The newest data key.
        key_status: seal::ReadKeyStatus,
    }
}

ports! {
    /// How the front door reaches the lease manager.
    LeasePorts {
        /// Has a credential made.
        issue: lease::Issue,
        /// Moves a lease's end.
        renew: lease::Renew,
        /// Says that an answer did not arrive.
        lost: lease::Lost,
        /// Ends a lease.
        revoke: lease::Revoke,
        /// Ends leases by prefix.
        revoke_prefix: lease::RevokePrefix,
        /// Looks a lease up.
        lookup: lease::Lookup,
        /// Looks a lease up by the name of what was made.
        lookup_name: lease::LookupName,
        /// Names the leases that cannot be read.
        unreadable: lease::ListUnreadable,
        /// Tidies up.
        tidy: lease::Tidy,
        /// Lists leases.
        list: lease::List,
        /// Lists those whose end fails so far.
        overdue: lease::ListOverdue,
        /// Counts leases.
        count: lease::Count,
    }
}

ports! {
    /// How the front door reaches the minter's definitions.
    MinterPorts {
        /// Stores a connection.
        write_connection: minter::WriteConnection,
        /// Reads a connection.
        read_connection: minter::ReadConnection,
        /// Lists connections.
        list_connections: minter::ListConnections,
        /// Removes a connection.
        delete_connection: minter::DeleteConnection,
        /// Opens a connection's pool anew.
        reset_connection: minter::ResetConnection,
        /// Stores a role.
        write_role: minter::WriteRole,
        /// Reads a role.
        read_role: minter::ReadRole,
        /// Lists roles.
        list_roles: minter::ListRoles,
        /// Removes a role.
        delete_role: minter::DeleteRole,
        /// Compares logins and leases.
        reconcile: reconcile::Reconcile,
        /// Changes a connection's own password.
        rotate_root: rotation::RotateRoot,
        /// Stores a static role.
        write_static_role: rotation::WriteStaticRole,
        /// Reads a static role.
        read_static_role: rotation::ReadStaticRole,
        /// Lists static roles.
        list_static_roles: rotation::ListStaticRoles,
        /// Forgets a static role.
        delete_static_role: rotation::DeleteStaticRole,
        /// Reads a static role's password.
        read_static_credentials: rotation::ReadStaticCredentials,
        /// Changes a static role's password.
        rotate_static_role: rotation::RotateStaticRole,
    }
}

ports! {
    /// How the front door reaches the owner of signing keys.
    JwtKeeperPorts {
        /// Changes a mount's settings.
        write_config: jwt::WriteConfig,
        /// Makes keys or changes them.
        write_key: jwt::WriteKey,
        /// Rotates a key.
        rotate_key: jwt::RotateKey,
        /// Takes previous keys away.
        trim_key: jwt::TrimKey,
        /// Removes keys.
        delete_key: jwt::DeleteKey,
        /// Stores a role.
        write_role: jwt::WriteRole,
        /// Removes a role.
        delete_role: jwt::DeleteRole,
        /// Revokes a signed token.
        revoke: jwt::RevokeJti,
    }
}

ports! {
    /// How the front door reaches the signer on its own arbiter.
    JwtSignerPorts {
        /// Signs.
        sign: jwt::Sign,
        /// Verifies.
        verify: jwt::Verify,
        /// Reads a mount's settings.
        config: jwt::ReadConfig,
        /// Reads keys.
        read_key: jwt::ReadKey,
        /// Lists keys.
        list_keys: jwt::ListKeys,
        /// Reads a role.
        read_role: jwt::ReadRole,
        /// Lists roles.
        list_roles: jwt::ListRoles,
        /// All public keys of a mount.
        jwks: jwt::ReadJwks,
    }
}

/// How the front door reaches the jwt engine.
#[derive(Clone, Debug)]
pub struct JwtPorts {
    /// Changes what is stored.
    pub keeper: JwtKeeperPorts,
    /// Answers from what is in force.
    pub signer: JwtSignerPorts,
}

ports! {
    /// How the front door reaches the keeper of audit devices.
    DevicePorts {
        /// Adds a device.
        enable: EnableDevice,
        /// Takes a device away.
        disable: DisableDevice,
        /// Lists the devices.
        list: ListDevices,
    }
}

/// How the front door reaches the audit log.
#[derive(Clone, Debug)]
pub struct AuditPorts {
    /// Writes lines.
    pub append: Port<Append>,
    /// How the devices do.
    pub status: Port<ReadStatus>,
    /// Shows a hash as a device does.
    pub show: Port<ShowHash>,
    /// The keeper of its devices.
    pub devices: DevicePorts,
}

/// The ways out of one worker; made on the worker's own arbiter, where its replicas live.
#[derive(Clone)]
pub struct FrontDoor {
    /// The worker's access replica.
    pub access: AccessPorts,
    /// The owner of tokens and policies.
    pub tokens: TokenPorts,
    /// The worker's mount table and the keeper of mounts.
    pub mounts: MountPorts,
    /// The jwt engine: its owner, and the worker's signer.
    pub jwt: JwtPorts,
    /// The worker's kv engine.
    pub kv: KvPorts,
    /// The worker's key replica.
    pub keys: KeysPort,
    /// The lease manager.
    pub leases: LeasePorts,
    /// The minter.
    pub minter: MinterPorts,
    /// The seal keeper.
    pub seal: SealPorts,
    /// The audit log.
    pub audit: AuditPorts,
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// Request ids come from it.
    pub random: Arc<dyn Random>,
    /// What is the same on all workers.
    pub about: Arc<About>,
}

/// What the server says of itself.
#[derive(Clone, Debug)]
pub struct About {
    /// Where others reach the server, as `https://mssm.example:8200`.
    pub api_addr: String,
    /// The name of the storage, for `sys/seal-status`.
    pub storage_type: &'static str,
    /// True to answer `sys/metrics` without a token.
    pub open_metrics: bool,
    /// This run of the server.
    pub boot: BootId,
    /// When it started.
    pub started_at: Timestamp,
}

/// A front door behind its bounds, as one worker shares it among its requests.
pub(crate) struct Worker {
    pub(crate) door: FrontDoor,
    pub(crate) gate: Arc<Gate>,
    pub(crate) turnstile: RefCell<Turnstile>,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) glances: Glances,
}

/// What strangers may ask about as often as they like is asked once at a time.
#[derive(Default)]
pub(crate) struct Glances {
    log: Glance<Option<AuditStatus>>,
    leases: Glance<Option<lease::Counts>>,
}

impl Worker {
    /// A new request's id.
    pub(crate) fn request_id(&self) -> RequestId {
        RequestId::from_uuid(generate_uuid(self.door.random.as_ref()))
    }

    /// How the audit log does, if it says so in time.
    pub(crate) async fn log_status(&self) -> Option<AuditStatus> {
        let port = self.door.audit.status.clone();
        let ask = || async move { port.ask(ReadStatus, NEAR).await.ok()?.ok() };
        self.glances.log.of(ask).await
    }

    /// How the leases do, if their manager says so in time.
    pub(crate) async fn lease_counts(&self) -> Option<lease::Counts> {
        let port = self.door.leases.count.clone();
        let ask = || async move { port.ask(lease::Count, NEAR).await.ok()?.ok() };
        self.glances.leases.of(ask).await
    }
}

/// Something that a message can be put to.
pub(crate) trait Asked<M: Message> {
    /// Puts it, and waits at most so long.
    fn put(
        &self,
        message: M,
        deadline: Duration,
    ) -> impl Future<Output = Result<M::Result, PortError>>;
}

impl<M: Message + Send + 'static> Asked<M> for Port<M>
where
    M::Result: Send,
{
    async fn put(&self, message: M, deadline: Duration) -> Result<M::Result, PortError> {
        self.ask(message, deadline).await
    }
}

impl<M: Message + Send + 'static> Asked<M> for Recipient<M>
where
    M::Result: Send,
{
    async fn put(&self, message: M, deadline: Duration) -> Result<M::Result, PortError> {
        self.send(message).timeout(deadline).await.map_err(|error| match error {
            actix::MailboxError::Closed => PortError::Stopped,
            actix::MailboxError::Timeout => PortError::TimedOut,
        })
    }
}

/// Asks an actor, at most `deadline` long: the one way from here to any of them.
pub(crate) async fn ask<M, T, E>(
    whom: &impl Asked<M>,
    message: M,
    deadline: Duration,
) -> Result<T, Refusal>
where
    M: Message<Result = Result<T, E>>,
    E: Fault,
{
    Ok(put(whom, message, deadline).await??)
}

/// The same, with the receiver's own error beside a refusal, for who decides by it.
pub(crate) async fn put<M: Message>(
    whom: &impl Asked<M>,
    message: M,
    deadline: Duration,
) -> Result<M::Result, Refusal> {
    whom.put(message, deadline).await.map_err(unreachable)
}

/// Hands over what must happen: carried through even if the caller goes away, and so without a
/// deadline of its own; the receiver has one, and the request around this has one too.
pub(crate) async fn commit<M, T, E>(whom: &Port<M>, message: M) -> Result<T, Refusal>
where
    M: Message<Result = Result<T, E>> + Send + 'static,
    M::Result: Send,
    E: Fault,
{
    Ok(whom.commit(message).await.map_err(unreachable)??)
}

/// Writes down what happened; what has happened already is not undone by a log that takes nothing.
pub(crate) async fn write_down(
    door: &FrontDoor,
    name: &'static str,
    details: Vec<(&'static str, String)>,
) {
    let entry = Entry::Event { time: door.clock.now(), event: Event { name, details } };
    if let Err(error) = ask(&door.audit.append, Append(vec![entry]), LOG).await {
        tracing::error!(name, cause = ?error.cause, "could not be written to the audit log");
    }
}
