//! A mount's settings, and revoked tokens.

use std::rc::Rc;
use std::time::Duration;

use mssm_messages::Changes;
use mssm_messages::engine::EngineError;
use mssm_messages::jwt::{RevokeJti, WriteConfig};

use super::Core;
use crate::keyset::MAX_AGE_MAX_SECS;
use crate::record;
use crate::role::short;
use crate::token::{JTI_MAX, LEEWAY_MAX_SECS};

/// How many revocations are read at a time when they are tidied.
const PAGE: usize = 256;

impl Core {
    pub(super) async fn write_config(self: Rc<Self>, msg: WriteConfig) -> Result<(), EngineError> {
        let _turn = self.turn().await?;
        let mut state = self.mount(msg.mount)?.changed();
        if let Some(issuer) = msg.issuer {
            short("issuer", &issuer)?;
            state.settings.issuer = issuer;
        }
        if let Some(secs) = msg.jwks_max_age_secs {
            if !(1..=MAX_AGE_MAX_SECS).contains(&secs) {
                return Err(EngineError::Invalid(format!(
                    "jwks_max_age must be from 1 s to {MAX_AGE_MAX_SECS} s"
                )));
            }
            let copies = &mut state.settings.copies;
            // Copies that were taken until now may be kept for as long as was said then. Without a
            // key they say nothing: to them every set is a new one.
            if !state.keys.is_empty() {
                copies.older_until = copies.known_from(self.clock.now());
            }
            copies.max_age_secs = secs;
        }
        let bytes = record::config_bytes(msg.mount, &state.settings)?;
        self.store(record::folder(record::CONFIG, Some(msg.mount)), bytes).await?;
        self.install_mount(msg.mount, state).await
    }

    /// Signers look revocations up in the store, so one that is durable is in force.
    pub(super) async fn revoke_jti(self: Rc<Self>, msg: RevokeJti) -> Result<(), EngineError> {
        if msg.jti.is_empty() || msg.jti.len() > JTI_MAX {
            let text = format!("jti must be 1 to {JTI_MAX} bytes");
            return Err(EngineError::Invalid(text));
        }
        let _turn = self.turn().await?;
        let now = self.clock.now();
        let state = self.mount(msg.mount)?;
        // No token that was signed here lives longer than its key verifies. One that an imported key
        // signed elsewhere may: its end is known from the token alone.
        let longest = state.keys.values().map(|set| set.last_verifies_until(now));
        let until = msg.expires_at.unwrap_or_else(|| longest.max().unwrap_or(now));
        if until <= now {
            return Ok(());
        }
        let path = record::revoked_path(msg.mount, &msg.jti);
        let (over, known) = match self.barrier.read(&path).await? {
            Some(plain) => (plain.version, record::revoked(&plain.bytes).map_or(now, |it| it.2)),
            None => (0, now),
        };
        let bytes = record::revoked_bytes(msg.mount, &msg.jti, until.max(known))?;
        Ok(self.barrier.commit(Changes::new().put(path, over, bytes)).await?)
    }

    /// Forgets the revocations of tokens that have ended by themselves.
    pub(super) async fn tidy_revoked(&self) -> Result<(), EngineError> {
        let folder = record::folder(record::REVOKED, None);
        let mut after = None;
        loop {
            let now = self.clock.now();
            let page = self.barrier.scan(&folder, after.as_ref(), PAGE).await?;
            let full = page.len() == PAGE;
            after = page.last().map(|(key, _)| key.clone());
            let mut changes = Changes::new();
            for (_, plain) in page {
                let Ok(plain) = plain else { continue };
                let Ok((mount, jti, until)) = record::revoked(&plain.bytes) else { continue };
                // A verifier's leeway counts too.
                if until.after(Duration::from_secs(LEEWAY_MAX_SECS)) <= now {
                    changes = changes.delete(record::revoked_path(mount, &jti));
                }
            }
            if !changes.is_empty() {
                self.barrier.commit(changes).await?;
            }
            if !full {
                return Ok(());
            }
        }
    }
}
