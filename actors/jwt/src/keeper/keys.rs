//! Sets of keys: begun, changed, trimmed, removed.

use std::rc::Rc;
use std::sync::Arc;

use mssm_crypto::jose::{Algorithm, RSA_BITS_MIN};
use mssm_domain::{KeyName, MountId, Ttl};
use mssm_messages::Changes;
use mssm_messages::engine::EngineError;
use mssm_messages::jwt::{DeleteKey, KeyPatch, TrimKey, WriteKey};

use super::Core;
use crate::keyset::{KeySet, Pair, Settings};
use crate::role::names;
use crate::table::MountState;
use crate::{make, record};

/// The most sets of a mount: all their public keys are one answer.
const KEYS_MAX: usize = 256;
/// How long a key signs and verifies where nobody says.
const PERIOD_SECS: u64 = 86_400;
/// The shortest that a key signs.
const PERIOD_MIN_SECS: u64 = 60;

fn invalid(text: impl Into<String>) -> EngineError {
    EngineError::Invalid(text.into())
}

impl Core {
    pub(super) async fn write_key(
        self: Rc<Self>,
        msg: WriteKey,
    ) -> Result<Vec<String>, EngineError> {
        let WriteKey { mount, name, patch, must_exist } = msg;
        match self.mount(mount)?.keys.get(&name) {
            Some(set) => self.change_key(mount, Arc::clone(set), patch).await,
            None if must_exist => Err(EngineError::NotFound),
            None => self.begin_key(mount, name, patch).await,
        }
    }

    async fn begin_key(
        &self,
        mount: MountId,
        name: KeyName,
        patch: KeyPatch,
    ) -> Result<Vec<String>, EngineError> {
        let algorithm = algorithm(patch.algorithm.as_deref())?;
        let settings = settings(None, &patch)?;
        let bits = patch.rsa_bits.map(usize::try_from).transpose();
        let bits = bits.map_err(|_| invalid("rsa_bits is too large"))?.unwrap_or(RSA_BITS_MIN);
        let first = match patch.private_key {
            Some(pem) => make::import(&self.making, algorithm, pem).await?,
            None => make::generate(&self.making, algorithm, bits).await?,
        };
        // Those that follow an imported key are as large as it is, or the next size that is made.
        let bits = match first.public.rsa_bits() {
            0 => 0,
            bits => bits.next_multiple_of(1024),
        };
        let next = make::generate(&self.making, algorithm, bits).await?;
        let _turn = self.turn().await?;
        let mut state = self.mount(mount)?.changed();
        if state.keys.contains_key(&name) {
            return Err(invalid("the key has just been made by another, try again"));
        }
        if state.keys.len() >= KEYS_MAX {
            return Err(invalid(format!("there are {KEYS_MAX} keys already")));
        }
        unknown(&state, &first)?;
        let (copies, now) = (state.settings.copies, self.clock.now());
        let set = KeySet::begin((name, settings), (first, next), bits, copies, now);
        let warnings = warnings(&set, &state);
        self.put_key(mount, &mut state, set).await?;
        self.install_mount(mount, state).await?;
        Ok(warnings)
    }

    async fn change_key(
        &self,
        mount: MountId,
        set: Arc<KeySet>,
        patch: KeyPatch,
    ) -> Result<Vec<String>, EngineError> {
        if patch.algorithm.as_deref().is_some_and(|name| name != set.algorithm.name()) {
            return Err(invalid("the algorithm of a key cannot change: make another key"));
        }
        if patch.rsa_bits.is_some_and(|bits| bits != set.rsa_bits as u64) {
            return Err(invalid("the size of a key cannot change: make another key"));
        }
        let settings = settings(Some(&set.settings), &patch)?;
        let next = match patch.private_key {
            Some(pem) => Some(make::import(&self.making, set.algorithm, pem).await?),
            None => None,
        };
        let _turn = self.turn().await?;
        let mut state = self.mount(mount)?.changed();
        let mut set = KeySet::clone(state.key(&set.name)?);
        let ttl = settings.verification_ttl_secs;
        let mut roles = state.roles.values();
        if roles.any(|role| role.key == set.name && role.max_ttl_secs > ttl) {
            return Err(invalid(format!(
                "unable to update key {:?} because it is currently referenced by one or more roles \
                 with a token ttl greater than {ttl} seconds",
                set.name.as_str()
            )));
        }
        if let Some(next) = next {
            unknown(&state, &next)?;
            set = set.with_next(next, state.settings.copies, self.clock.now());
        }
        set = set.with_settings(settings);
        let warnings = warnings(&set, &state);
        self.put_key(mount, &mut state, set).await?;
        self.install_mount(mount, state).await?;
        Ok(warnings)
    }

    /// Writes a set down and puts it into a mount's new state.
    pub(super) async fn put_key(
        &self,
        mount: MountId,
        state: &mut MountState,
        set: KeySet,
    ) -> Result<(), EngineError> {
        let bytes = record::key_bytes(mount, &set)?;
        self.store(record::path(record::KEY, mount, set.name.as_str()), bytes).await?;
        state.keys.insert(set.name.clone(), Arc::new(set));
        Ok(())
    }

    pub(super) async fn trim_key(self: Rc<Self>, msg: TrimKey) -> Result<Vec<String>, EngineError> {
        let _turn = self.turn().await?;
        let mut state = self.mount(msg.mount)?.changed();
        let set = KeySet::clone(state.key(&msg.name)?);
        let signs = |kid: &String| *kid == set.current.pair.kid || *kid == set.next.pair.kid;
        if msg.kids.iter().any(signs) {
            return Err(invalid("only previous keys can be trimmed: rotate first"));
        }
        if let Some(kid) = msg.kids.iter().find(|kid| !set.has(kid)) {
            return Err(invalid(format!("the key has no previous key {kid:?}")));
        }
        let (set, gone) = set.trimmed(&msg.kids, self.clock.now());
        if !gone.is_empty() {
            self.put_key(msg.mount, &mut state, set).await?;
            self.install_mount(msg.mount, state).await?;
        }
        Ok(gone)
    }

    pub(super) async fn delete_key(self: Rc<Self>, msg: DeleteKey) -> Result<(), EngineError> {
        let _turn = self.turn().await?;
        let mut state = self.mount(msg.mount)?.changed();
        let using = state.roles.iter().filter(|(_, role)| role.key == msg.name);
        let using: Vec<&str> = using.map(|(name, _)| name.as_str()).collect();
        if !using.is_empty() {
            return Err(invalid(format!(
                "unable to delete key {:?} because it is currently referenced by these roles: {}",
                msg.name.as_str(),
                using.join(", ")
            )));
        }
        let place = |kind| record::path(kind, msg.mount, msg.name.as_str());
        let changes = Changes::new().delete(place(record::KEY)).delete(place(record::USED));
        self.barrier.commit(changes).await?;
        if state.keys.remove(&msg.name).is_none() {
            return Ok(());
        }
        self.install_mount(msg.mount, state).await
    }
}

/// The algorithm of a name; Ed25519 where there is none.
fn algorithm(name: Option<&str>) -> Result<Algorithm, EngineError> {
    let Some(name) = name else { return Ok(Algorithm::EdDsa) };
    Algorithm::parse(name).ok_or_else(|| {
        let known = Algorithm::ALL.map(Algorithm::name).join(", ");
        invalid(format!("unknown signing algorithm: there are {known}"))
    })
}

/// The settings with what a patch says.
fn settings(before: Option<&Settings>, patch: &KeyPatch) -> Result<Settings, EngineError> {
    let mut settings = before.cloned().unwrap_or(Settings {
        rotation_period_secs: PERIOD_SECS,
        rotation_count: 0,
        verification_ttl_secs: PERIOD_SECS,
        allowed_client_ids: vec!["*".to_owned()],
    });
    let period = patch.rotation_period_secs.unwrap_or(settings.rotation_period_secs);
    if (period > 0 && period < PERIOD_MIN_SECS) || period > Ttl::MAX_SECS {
        return Err(invalid("rotation_period must be at least one minute, or 0 for none"));
    }
    let ttl = patch.verification_ttl_secs.unwrap_or(settings.verification_ttl_secs);
    lifetime(ttl)?;
    if period > 0 && ttl > period.saturating_mul(10) {
        return Err(invalid("verification_ttl cannot be longer than 10x rotation_period"));
    }
    settings.rotation_period_secs = period;
    settings.verification_ttl_secs = ttl;
    settings.rotation_count = patch.rotation_count.unwrap_or(settings.rotation_count);
    if let Some(ids) = &patch.allowed_client_ids {
        names("allowed_client_ids", ids)?;
        settings.allowed_client_ids.clone_from(ids);
    }
    Ok(settings)
}

/// A verification lifetime within bounds.
pub(super) fn lifetime(secs: u64) -> Result<(), EngineError> {
    Ttl::from_secs(secs)
        .map(drop)
        .map_err(|_| invalid("verification_ttl must be from 1 s to 10 years"))
}

/// Refuses a key that is in a set already: what it signed would be of both.
fn unknown(state: &MountState, pair: &Pair) -> Result<(), EngineError> {
    if state.keys.values().any(|set| set.has(&pair.kid)) {
        return Err(invalid("this private key is in use already"));
    }
    Ok(())
}

fn warnings(set: &KeySet, state: &MountState) -> Vec<String> {
    let period = set.settings.rotation_period_secs;
    let age = state.settings.copies.max_age_secs;
    if period == 0 || period > age {
        return Vec::new();
    }
    vec![format!(
        "rotation_period is not longer than the mount's jwks_max_age of {age} s: rotations wait until \
         the next key has been public for that long"
    )]
}
