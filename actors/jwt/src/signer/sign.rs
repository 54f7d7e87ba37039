//! Signing: the set is brought up to date, the claims are made, the key signs.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use mssm_domain::{KeyName, MountId, SecretText};
use mssm_messages::engine::EngineError;
use mssm_messages::jwt::{Sign, Signed};
use tokio::sync::Semaphore;

use super::Desk;
use crate::claims::{self, Wish};
use crate::keyset::KeySet;
use crate::role::check_client;
use crate::table::{Allowance, Reserve, RotateDue};
use crate::template::Facts;
use crate::{make, token};

/// How long a signer waits for the keeper.
const PATIENCE: Duration = Duration::from_secs(10);
/// How often a key rotates away under a signer before it gives up.
const TRIES: usize = 8;

impl Desk {
    pub(super) async fn sign(self: Rc<Self>, msg: Sign) -> Result<Signed, EngineError> {
        let state = self.mount(msg.mount)?;
        let missing = || EngineError::Unknown(format!("role {:?} not found", msg.role.as_str()));
        let role = Arc::clone(state.roles.get(&msg.role).ok_or_else(missing)?);
        let set = self.up_to_date(msg.mount, &role.key).await?;
        check_client(&msg.role, &role, &set)?;
        let facts = Facts {
            caller: &msg.caller,
            metadata: &msg.metadata,
            role: msg.role.as_str(),
            now: self.clock.now(),
            lenient: role.identity,
        };
        let issuer = [&role.issuer, &state.settings.issuer, &msg.address];
        let issuer = issuer.into_iter().find(|issuer| !issuer.is_empty());
        let wish = Wish {
            facts,
            claims: msg.claims.as_ref(),
            ttl_secs: msg.ttl_secs,
            issuer: issuer.map_or("", String::as_str),
        };
        let claims = claims::build(&role, &set, &wish, self.random.as_ref())?;
        let kid = set.current.pair.kid.clone();
        let unsigned = token::unsigned(&role, set.algorithm, &kid, &claims.text);
        let token = self.signed(&set, unsigned).await?;
        Ok(Signed {
            token,
            kid,
            expires_at: claims.expires_at,
            ttl_secs: claims.ttl_secs,
            jti: claims.jti,
            client_id: role.client_id.clone(),
            warnings: claims.warnings,
        })
    }

    async fn signed(&self, set: &KeySet, unsigned: String) -> Result<SecretText, EngineError> {
        let pair = Arc::clone(&set.current.pair);
        let sign = move || {
            let signature = pair.sign(unsigned.as_bytes()).map_err(make::refused)?;
            Ok(SecretText::new(token::signed(unsigned, &signature)))
        };
        if !set.algorithm.is_rsa() {
            return sign();
        }
        // Milliseconds, for which no other request of this worker should wait.
        let turns = Arc::clone(&self.rsa);
        let turn = turns.acquire_owned().await.map_err(|_| EngineError::Internal)?;
        let signed = tokio::task::spawn_blocking(move || {
            let _turn = turn;
            sign()
        });
        signed.await.map_err(|_| EngineError::Internal)?
    }

    fn set(&self, mount: MountId, name: &KeyName) -> Result<Arc<KeySet>, EngineError> {
        let state = self.mount(mount)?;
        let missing = || EngineError::Unknown(format!("key {:?} not found", name.as_str()));
        state.keys.get(name).map(Arc::clone).ok_or_else(missing)
    }

    /// The set after what is due has been done.
    async fn up_to_date(&self, mount: MountId, name: &KeyName) -> Result<Arc<KeySet>, EngineError> {
        let set = self.set(mount, name)?;
        let now = self.clock.now();
        if set.is_due(0, now) && set.is_ripe(now) {
            let due = RotateDue { mount, name: name.clone() };
            // If it cannot rotate now the current key signs on, which breaks no promise: it verifies
            // for its time after it has signed last. The keeper tries again by itself.
            let _ = self.keeper.send(due).timeout(PATIENCE).await;
        }
        let set = self.set(mount, name)?;
        if set.settings.rotation_count == 0 { Ok(set) } else { self.counted(mount, name).await }
    }

    /// The set after this signature has been counted.
    async fn counted(&self, mount: MountId, name: &KeyName) -> Result<Arc<KeySet>, EngineError> {
        let key = (mount, name.clone());
        let gate = {
            let mut state = self.state.borrow_mut();
            let gate =
                state.asking.entry(key.clone()).or_insert_with(|| Rc::new(Semaphore::new(1)));
            Rc::clone(gate)
        };
        for _ in 0..TRIES {
            let set = self.set(mount, name)?;
            if self.take(&key, &set) {
                return Ok(set);
            }
            // One asks for all: what it gets is for those behind it as well.
            let _turn = gate.acquire().await.map_err(|_| EngineError::Internal)?;
            let set = self.set(mount, name)?;
            if self.take(&key, &set) {
                return Ok(set);
            }
            let reserve = Reserve { mount, name: name.clone() };
            let late = |_| EngineError::Unavailable("signatures cannot be counted".to_owned());
            let allowed: Allowance =
                self.keeper.send(reserve).timeout(PATIENCE).await.map_err(late)??;
            self.state.borrow_mut().allowed.insert(key.clone(), allowed);
        }
        Err(EngineError::Unavailable("the key rotates too often, try again".to_owned()))
    }

    /// Takes one signature off what is allowed; false if nothing is, for the key that signs now.
    fn take(&self, key: &(MountId, KeyName), set: &KeySet) -> bool {
        let mut state = self.state.borrow_mut();
        let allowed = state.allowed.get_mut(key);
        match allowed.filter(|allowed| allowed.kid == set.current.pair.kid && allowed.left > 0) {
            Some(allowed) => {
                allowed.left -= 1;
                true
            }
            None => false,
        }
    }
}
