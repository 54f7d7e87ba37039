//! Rotation: the next key signs, the one before verifies, and another is made public.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use mssm_domain::{KeyName, MountId, Timestamp};
use mssm_messages::audit::{Append, Entry, Event};
use mssm_messages::engine::EngineError;
use mssm_messages::guarded_async;
use mssm_messages::jwt::{RotateKey, Rotated};

use super::Core;
use super::keys::lifetime;
use crate::keyset::KeySet;
use crate::make;
use crate::record::{self, UsedRecord};
use crate::table::{Allowance, Reserve, RotateDue, Table};

/// How long what failed is left alone before the next try.
const PAUSE: Duration = Duration::from_secs(10);
/// How often ended revocations are forgotten.
const TIDY: Duration = Duration::from_mins(10);
/// Of how many parts a count is handed out, at least: each worker may waste one of them.
const PARTS: u64 = 100;
/// The most signatures that are handed out at once.
const PART_MAX: u64 = 1000;

/// How long the audit log may take.
const LOG: Duration = Duration::from_secs(15);

/// Says that a set is being rotated, until it is dropped.
struct Rotating<'a> {
    core: &'a Core,
    key: (MountId, KeyName),
}

impl<'a> Rotating<'a> {
    /// `None` if another is at it.
    fn begin(core: &'a Core, mount: MountId, name: &KeyName) -> Option<Self> {
        let key = (mount, name.clone());
        let free = core.state.borrow_mut().rotating.insert(key.clone());
        free.then_some(Self { core, key })
    }
}

impl Drop for Rotating<'_> {
    fn drop(&mut self) {
        self.core.state.borrow_mut().rotating.remove(&self.key);
    }
}

impl Core {
    /// Rotates if that is due and may be.
    pub(super) async fn rotate_due(self: Rc<Self>, msg: RotateDue) -> Result<(), EngineError> {
        let used = self.used(msg.mount, &msg.name).await?;
        self.rotate_if_due(msg.mount, &msg.name, used).await
    }

    /// The new key is made before anything changes, so signers never wait for it: who comes while
    /// it is being made goes on with the current one.
    async fn rotate_if_due(
        &self,
        mount: MountId,
        name: &KeyName,
        used: u64,
    ) -> Result<(), EngineError> {
        let set = Arc::clone(self.mount(mount)?.key(name)?);
        let now = self.clock.now();
        if !set.is_due(used, now) || !set.is_ripe(now) {
            return Ok(());
        }
        let Some(_rotating) = Rotating::begin(self, mount, name) else { return Ok(()) };
        let pair = make::generate(&self.making, set.algorithm, set.rsa_bits).await?;
        let _turn = self.turn().await?;
        let mut state = self.mount(mount)?.changed();
        let now = self.clock.now();
        let set = KeySet::clone(state.key(name)?);
        // Its settings, or its next key, may be others by now.
        if !set.is_due(used, now) || !set.is_ripe(now) {
            return Ok(());
        }
        let set = set.rotated(pair, state.settings.copies, now);
        let kid = set.current.pair.kid.clone();
        self.put_key(mount, &mut state, set).await?;
        self.install_mount(mount, state).await?;
        tracing::info!(key = %name, kid, "signing key rotated");
        self.write_down(mount, name, kid);
        Ok(())
    }

    /// The key is in use already: a log that takes nothing does not undo that, and nobody waits.
    fn write_down(&self, mount: MountId, name: &KeyName, kid: String) {
        let details = vec![("mount", mount.to_string()), ("key", name.to_string()), ("kid", kid)];
        let event = Event { name: "signing-key-rotated", details };
        let entry = Entry::Event { time: self.clock.now(), event };
        let events = self.events.clone();
        actix_rt::spawn(async move {
            let written = events.ask(Append(vec![entry]), LOG).await;
            if !matches!(written, Ok(Ok(()))) {
                tracing::error!(?written, "a rotation could not be written to the audit log");
            }
        });
    }

    /// Rotates on demand: at once if the next key has been public for long enough, else then.
    pub(super) async fn rotate_key(self: Rc<Self>, msg: RotateKey) -> Result<Rotated, EngineError> {
        let before = {
            let _turn = self.turn().await?;
            let mut state = self.mount(msg.mount)?.changed();
            let mut set = KeySet::clone(state.key(&msg.name)?);
            if set.is_full() {
                let text = "too many previous keys still verify: trim some, or wait for their end";
                return Err(EngineError::Invalid(text.to_owned()));
            }
            if let Some(secs) = msg.verification_ttl_secs {
                lifetime(secs)?;
                set = set.with_life(secs);
            }
            set.asked = true;
            let before = set.current.pair.kid.clone();
            self.put_key(msg.mount, &mut state, set).await?;
            self.install_mount(msg.mount, state).await?;
            before
        };
        self.rotate_if_due(msg.mount, &msg.name, 0).await?;
        let state = self.mount(msg.mount)?;
        let set = state.key(&msg.name)?;
        let kid = set.current.pair.kid.clone();
        let waits_until = (kid == before).then_some(set.next.signs_from);
        Ok(Rotated { kid, waits_until })
    }

    /// How often the current key of a set has signed, at most.
    async fn used(&self, mount: MountId, name: &KeyName) -> Result<u64, EngineError> {
        let state = self.mount(mount)?;
        let set = state.key(name)?;
        if set.settings.rotation_count == 0 {
            return Ok(0);
        }
        let path = record::path(record::USED, mount, name.as_str());
        let Some(plain) = self.barrier.read(&path).await? else { return Ok(0) };
        let record = record::used(&plain.bytes)?;
        Ok(if record.kid == set.current.pair.kid { record.used } else { 0 })
    }

    /// Counts signatures before they are made, in parts; rotates first if there are none left.
    ///
    /// What is handed out and not used (a worker that ends, a rotation) counts as used. So a key
    /// never signs more often than was counted, and rotates early by one part a worker at most.
    /// A next key that is too new for it is not forced: the current one signs on.
    pub(super) async fn reserve(self: Rc<Self>, msg: Reserve) -> Result<Allowance, EngineError> {
        let Reserve { mount, name } = msg;
        let used = self.used(mount, &name).await?;
        self.rotate_if_due(mount, &name, used).await?;
        let _turn = self.turn().await?;
        let (kid, count) = {
            let state = self.mount(mount)?;
            let set = state.key(&name)?;
            (set.current.pair.kid.clone(), set.settings.rotation_count)
        };
        let used = self.used(mount, &name).await?;
        let part = (count / PARTS).clamp(1, PART_MAX);
        // The last part is what is left; beyond the count, parts go on until the next key signs.
        let left = if used < count { part.min(count - used) } else { part };
        let record = UsedRecord::new(kid.clone(), used.saturating_add(left));
        let path = record::path(record::USED, mount, name.as_str());
        self.store(path, record::used_bytes(&record)?).await?;
        Ok(Allowance { kid, left })
    }

    /// Rotates and tidies what is due. One at a time; what fails is tried again after a pause.
    pub(super) async fn tick(&self) {
        let now = self.clock.now();
        {
            let mut state = self.state.borrow_mut();
            let waits = state.tick_from.is_some_and(|from| now < from);
            if state.ticking || state.table.is_none() || waits {
                return;
            }
            state.ticking = true;
        }
        // A panic must not leave this "ticking" for ever.
        let done = guarded_async(self.catch_up()).await.unwrap_or(Err(EngineError::Internal));
        let mut state = self.state.borrow_mut();
        state.ticking = false;
        state.tick_from = done.is_err().then(|| now.after(PAUSE));
        if let Err(error) = done
            && state.table.is_some()
        {
            tracing::warn!(%error, "keeping signing keys");
        }
    }

    async fn catch_up(&self) -> Result<(), EngineError> {
        let table = self.table()?;
        let mut failed = None;
        for (mount, name) in due(&table, self.clock.now()) {
            // One that fails does not hold up the others.
            if let Err(error) = self.tend(mount, &name).await {
                failed = Some(error);
            }
        }
        let now = self.clock.now();
        let waits = self.state.borrow().tidy_from.is_some_and(|from| now < from);
        if !waits {
            self.tidy_revoked().await?;
            self.state.borrow_mut().tidy_from = Some(now.after(TIDY));
        }
        failed.map_or(Ok(()), Err)
    }

    async fn tend(&self, mount: MountId, name: &KeyName) -> Result<(), EngineError> {
        let used = self.used(mount, name).await?;
        self.rotate_if_due(mount, name, used).await?;
        let _turn = self.turn().await?;
        let state = self.mount(mount)?;
        let now = self.clock.now();
        let set = state.key(name)?;
        if !set.has_ended(now) && !set.is_ahead(now) {
            return Ok(());
        }
        let set = KeySet::clone(set).redated(state.settings.copies, now).without_ended(now);
        let mut state = state.changed();
        self.put_key(mount, &mut state, set).await?;
        self.install_mount(mount, state).await
    }
}

/// The sets for which there is something to do. Those that rotate by count are due when they are
/// used, but an over-used one waits here for its next key.
fn due(table: &Table, now: Timestamp) -> Vec<(MountId, KeyName)> {
    let mut found = Vec::new();
    for (mount, state) in &table.0 {
        for (name, set) in &state.keys {
            let rotates =
                set.is_ripe(now) && (set.is_due(0, now) || set.settings.rotation_count > 0);
            if rotates || set.has_ended(now) || set.is_ahead(now) {
                found.push((*mount, name.clone()));
            }
        }
    }
    found
}
