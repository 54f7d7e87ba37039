//! What is in force, as the keeper hands it to every signer: immutable, shared, replaced as a whole.

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};

use actix::{Message, Recipient};
use mssm_crypto::jose::{Algorithm, PublicKey};
use mssm_domain::{KeyName, MountId, RoleName, Timestamp};
use mssm_messages::engine::EngineError;
use mssm_messages::jwt::ConfigView;

use crate::keyset::{Copies, KeySet};
use crate::role::Role;

/// How long verifiers may keep copies of the keys where nobody says.
const MAX_AGE_SECS: u64 = 300;

/// A mount's settings.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Settings {
    /// Empty for the mount's own address.
    pub(crate) issuer: String,
    pub(crate) copies: Copies,
}

impl Default for Settings {
    fn default() -> Self {
        let older_until = Timestamp::from_unix_ms(0);
        Self { issuer: String::new(), copies: Copies { max_age_secs: MAX_AGE_SECS, older_until } }
    }
}

/// One mount: its settings, keys and roles.
#[derive(Clone, Debug, Default)]
pub(crate) struct MountState {
    pub(crate) settings: Settings,
    pub(crate) keys: BTreeMap<KeyName, Arc<KeySet>>,
    pub(crate) roles: BTreeMap<RoleName, Arc<Role>>,
    jwks: OnceLock<Arc<str>>,
}

impl MountState {
    /// A copy to be changed.
    pub(crate) fn changed(&self) -> Self {
        Self { jwks: OnceLock::new(), ..self.clone() }
    }

    /// A set of keys.
    pub(crate) fn key(&self, name: &KeyName) -> Result<&Arc<KeySet>, EngineError> {
        self.keys.get(name).ok_or(EngineError::NotFound)
    }

    /// All public keys as a JWK set; made once.
    pub(crate) fn jwks(&self) -> Arc<str> {
        let make = || {
            let keys = self.keys.values().flat_map(|set| set.public());
            let keys: Vec<String> = keys.map(PublicKey::to_jwk).collect();
            format!("{{\"keys\":[{}]}}", keys.join(",")).into()
        };
        Arc::clone(self.jwks.get_or_init(make))
    }

    /// The settings as they are shown.
    pub(crate) fn config(&self) -> ConfigView {
        let mut algorithms: Vec<_> = self.keys.values().map(|set| set.algorithm).collect();
        algorithms.sort_unstable();
        algorithms.dedup();
        ConfigView {
            issuer: self.settings.issuer.clone(),
            jwks_max_age_secs: self.settings.copies.max_age_secs,
            algorithms: algorithms.into_iter().map(Algorithm::name).collect(),
        }
    }
}

/// All mounts; one that has nothing yet is not in it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Table(pub(crate) BTreeMap<MountId, Arc<MountState>>);

impl Table {
    /// A mount, empty if it has nothing yet.
    pub(crate) fn mount(&self, mount: MountId) -> Arc<MountState> {
        self.0.get(&mount).cloned().unwrap_or_default()
    }

    /// The table with one mount changed, or taken away.
    pub(crate) fn with(&self, mount: MountId, state: Option<MountState>) -> Self {
        let mut table = self.clone();
        match state {
            Some(state) => table.0.insert(mount, Arc::new(state)),
            None => table.0.remove(&mount),
        };
        table
    }
}

/// From the keeper to a signer: this from now on (`None`: sealed). Older epochs are ignored.
#[derive(Clone, Debug, Message)]
#[rtype(result = "()")]
pub(crate) struct Install {
    pub(crate) epoch: u64,
    pub(crate) table: Option<Arc<Table>>,
}

/// From a signer to the keeper: send me everything from now on, beginning with what is in force.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct Register(pub(crate) Recipient<Install>);

/// From a signer: the set may be due. Replies when it has rotated, or need not or cannot yet.
#[derive(Clone, Debug, Message)]
#[rtype(result = "Result<(), EngineError>")]
pub(crate) struct RotateDue {
    pub(crate) mount: MountId,
    pub(crate) name: KeyName,
}

/// From a signer: I am about to sign. Replies for which key, and how often before I ask again.
#[derive(Clone, Debug, Message)]
#[rtype(result = "Result<Allowance, EngineError>")]
pub(crate) struct Reserve {
    pub(crate) mount: MountId,
    pub(crate) name: KeyName,
}

/// How often a signer may sign before it asks again; counted as used, durably.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Allowance {
    pub(crate) kid: String,
    pub(crate) left: u64,
}
