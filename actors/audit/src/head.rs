//! Keeps how far the log goes in the sealed store, and in the log how often: each misses what the other lost.
//!
//! The log itself cannot show that its end was cut off at a checkpoint, that its file was deleted,
//! or that an older copy was laid in its place: the store can. The head is stored while it moves,
//! once a second, and once more at sealing, after the last line; no request waits for it.
//! An older copy of the store cannot show its age: the log can, since it is told at unsealing, at
//! sealing and every minute how often the store has kept the head.

use std::cell::Cell;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use actix::{Actor, AsyncContext, Context, Handler, ResponseFuture};
use mssm_domain::{Clock, RecordPath, SecretBytes};
use mssm_messages::audit::{
    Append, AuditStatus, CompareHead, Entry, Event, Head, ReadStatus, StoreEpoch, TellStore,
};
use mssm_messages::seal::{Closing, InstallAuditKey, StageError};
use mssm_messages::{Barrier, Changes};
use serde::{Deserialize, Serialize};

use crate::AuditPorts;
use crate::log::MISSING;
use crate::writer::checkpoint_key;

/// So far behind the log may the stored head be, in time.
const EVERY: Duration = Duration::from_secs(1);
/// The audit thread answers within a sync of the disk; this is many.
const DEADLINE: Duration = Duration::from_secs(10);
/// Two writers of the head meet at sealing at most: one of them tries again.
const TRIES: u32 = 3;
/// So many times is the head stored before the log is told, and at sealing.
const TELL_EVERY: u64 = 60;
/// What is known to be stored at first.
const NOTHING: CompareHead =
    CompareHead { head: Head { count: 0, hash: [0; 32] }, kept_from: None };
/// The form of the record; version 1 knew nothing of closed files.
const VERSION: u32 = 2;

/// What to do when lines of an earlier run are missing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum WhenMissing {
    /// Say so, in the log too, and go on.
    #[default]
    Warn,
    /// Stay sealed.
    Refuse,
}

/// What the keeper of the head is told.
pub struct HeadConfig {
    /// The log.
    pub audit: AuditPorts,
    /// What to do when lines are missing.
    pub when_missing: WhenMissing,
    /// True if the operator knows that the store is an older copy, and wants to go on with it.
    pub accept_rollback: bool,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct HeadRecord {
    version: u32,
    count: u64,
    hash: String,
    /// From version 2 on.
    #[serde(default)]
    kept_from: Option<u64>,
}

/// Stands between the seal and the log's writer: hands the key on once the log is the one it was.
///
/// Holds the head that was stored last. Sends to the log's writer and the store.
pub struct HeadKeeper(Rc<Core>);

struct Core {
    config: HeadConfig,
    barrier: Barrier,
    clock: Arc<dyn Clock>,
    /// True between unsealing and sealing.
    open: Cell<bool>,
    /// True while the head is being stored, so that a slow store is asked once.
    storing: Cell<bool>,
    stored: Cell<CompareHead>,
    /// How often the head was stored, and what of that the log was told last.
    epoch: Cell<u64>,
    told: Cell<u64>,
}

impl HeadKeeper {
    /// A keeper of a log's head in a store.
    pub fn new(config: HeadConfig, barrier: Barrier, clock: Arc<dyn Clock>) -> Self {
        let (open, storing) = (Cell::new(false), Cell::new(false));
        let (stored, epoch, told) = (Cell::new(NOTHING), Cell::new(0), Cell::new(0));
        Self(Rc::new(Core { config, barrier, clock, open, storing, stored, epoch, told }))
    }
}

impl Actor for HeadKeeper {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        ctx.run_interval(EVERY, |keeper, _ctx| {
            let core = Rc::clone(&keeper.0);
            if core.open.get() && !core.storing.replace(true) {
                actix_rt::spawn(async move {
                    if let Err(StageError(error)) = core.follow().await {
                        tracing::warn!(error, "the audit log's head could not be stored");
                    }
                    core.storing.set(false);
                });
            }
        });
    }
}

impl Handler<InstallAuditKey> for HeadKeeper {
    type Result = ResponseFuture<Result<(), StageError>>;

    fn handle(&mut self, msg: InstallAuditKey, _ctx: &mut Self::Context) -> Self::Result {
        let core = Rc::clone(&self.0);
        Box::pin(async move {
            if msg.seed.is_none() {
                core.open.set(false);
                return core.hand_on(msg).await;
            }
            core.open_log(msg).await
        })
    }
}

impl Handler<Closing> for HeadKeeper {
    type Result = ResponseFuture<Result<(), StageError>>;

    fn handle(&mut self, _msg: Closing, _ctx: &mut Self::Context) -> Self::Result {
        let core = Rc::clone(&self.0);
        Box::pin(async move {
            if !core.open.replace(false) {
                return Ok(());
            }
            core.store(false).await?;
            core.tell().await?;
            // Behind the line that said so.
            core.store(false).await
        })
    }
}

fn failed(error: impl std::fmt::Display) -> StageError {
    StageError(format!("audit log: {error}"))
}

impl Core {
    /// Compares the log with the stored head, and has it signed from now on.
    async fn open_log(&self, key: InstallAuditKey) -> Result<(), StageError> {
        let (kept, epoch) = self.load().await?;
        let missing = match kept {
            None => None,
            Some(kept) => {
                let compared = self.config.audit.compare.ask(kept, DEADLINE).await;
                let standing = compared.map_err(failed)?.map_err(failed)?;
                standing.missing(kept.head).map(|what| (what, kept.head))
            }
        };
        let told = self.told_of(&key).await?;
        // It is told at every unseal, and each file repeats it.
        let unspoken = kept.filter(|_| told.is_none() && epoch > 1).map(|kept| kept.head);
        let missing =
            missing.or(unspoken.map(|head| ("each signed line about this store".to_owned(), head)));
        if let Some((what, _)) = &missing {
            tracing::error!(what, "the audit log does not hold what was written to it");
            if self.config.when_missing == WhenMissing::Refuse {
                return Err(StageError(format!(
                    "audit log: missing {what}; put the files back, or set audit.when_missing to \"warn\""
                )));
            }
        }
        let older = self.older(told, epoch)?;
        self.hand_on(key).await?;
        self.say_of_another().await?;
        let replaces = missing.is_some();
        if let Some(told) = older {
            let details = vec![("store", epoch.to_string()), ("log", told.to_string())];
            self.say("store-rolled-back", details).await?;
        }
        if let Some((what, head)) = missing {
            let details = vec![
                ("missing", what),
                ("stored_count", head.count.to_string()),
                ("stored_head", hex::encode(head.hash)),
            ];
            self.say(MISSING, details).await?;
        }
        self.store(replaces).await?;
        self.tell().await?;
        self.open.set(true);
        Ok(())
    }

    /// How often the store had kept the head when the log heard of it.
    async fn told_of(&self, key: &InstallAuditKey) -> Result<Option<u64>, StageError> {
        let Some(seed) = &key.seed else { return Ok(None) };
        let public = checkpoint_key(seed)?.public();
        let stores = self.status().await?.stores;
        Ok(stores.iter().find(|told| told.key == public).map(|told| told.epoch))
    }

    /// That, if this store knows of less.
    fn older(&self, told: Option<u64>, epoch: u64) -> Result<Option<u64>, StageError> {
        let Some(told) = told.filter(|told| *told > epoch) else {
            return Ok(None);
        };
        tracing::error!(told, epoch, "the store is older than the audit log");
        if self.config.accept_rollback {
            return Ok(Some(told));
        }
        Err(StageError(format!(
            "the store is older than the audit log (state {epoch}, the log knows of {told}): a copy of \
             it was put back, and what was changed or revoked since is as it was; if that is meant, \
             start the server with -accept-rollback"
        )))
    }

    /// Says so if it was another store that kept the log until now.
    async fn say_of_another(&self) -> Result<(), StageError> {
        let status = self.status().await?;
        let key = status.stores.last().map(|told| told.key);
        let Some(key) = key.filter(|key| Some(*key) != status.public_key) else { return Ok(()) };
        tracing::error!("the audit log was another store's until now");
        self.say("log-of-another-store", vec![("key", hex::encode(key))]).await
    }

    async fn say(
        &self,
        name: &'static str,
        details: Vec<(&'static str, String)>,
    ) -> Result<(), StageError> {
        let entry = Entry::Event { time: self.clock.now(), event: Event { name, details } };
        let appended = self.config.audit.append.ask(Append(vec![entry]), DEADLINE).await;
        appended.map_err(failed)?.map_err(failed)
    }

    async fn status(&self) -> Result<AuditStatus, StageError> {
        self.config.audit.status.ask(ReadStatus, DEADLINE).await.map_err(failed)?.map_err(failed)
    }

    /// Stores the head, and now and then tells the log how often that was.
    async fn follow(&self) -> Result<(), StageError> {
        self.store(false).await?;
        if self.epoch.get() >= self.told.get().saturating_add(TELL_EVERY) {
            self.tell().await?;
        }
        Ok(())
    }

    /// Tells the log how often the store, durably, has kept the head.
    async fn tell(&self) -> Result<(), StageError> {
        let epoch = self.epoch.get();
        let Some(key) = self.status().await?.public_key else { return Ok(()) };
        let store = TellStore(StoreEpoch { key, epoch });
        self.config.audit.tell.ask(store, DEADLINE).await.map_err(failed)?.map_err(failed)?;
        self.told.set(epoch);
        Ok(())
    }

    async fn hand_on(&self, key: InstallAuditKey) -> Result<(), StageError> {
        self.config.audit.install.ask(key, DEADLINE).await.map_err(failed)?
    }

    /// The stored head and its record's version; 0 if there is none.
    async fn load(&self) -> Result<(Option<CompareHead>, u64), StageError> {
        let record = self.barrier.read(&path()).await.map_err(failed)?;
        let Some(record) = record else { return Ok((None, 0)) };
        // EXPOSE: a number and a hash.
        let head = decode(record.bytes.expose());
        let head = head.ok_or_else(|| failed("the record audit-head is damaged"))?;
        Ok((Some(head), record.version))
    }

    /// Stores how far the log goes; `replaces` an older head that went further.
    async fn store(&self, replaces: bool) -> Result<(), StageError> {
        let AuditStatus { head, kept_from, .. } = self.status().await?;
        let now = CompareHead { head, kept_from };
        if now == self.stored.get() && !replaces {
            return Ok(());
        }
        for _ in 0..TRIES {
            let (there, version) = self.load().await?;
            if !replaces && there.is_some_and(|there| there.head.count > head.count) {
                self.epoch.set(version);
                return Ok(());
            }
            let changes = Changes::new().put(path(), version, encode(now)?);
            match self.barrier.commit(changes).await {
                Ok(()) => {
                    self.stored.set(now);
                    self.epoch.set(version.saturating_add(1));
                    return Ok(());
                }
                Err(error) if error.failed_expectation().is_some() => {}
                Err(error) => return Err(failed(error)),
            }
        }
        Err(failed("its head is written by somebody else"))
    }
}

fn path() -> RecordPath {
    RecordPath::new(&["audit-head"])
}

fn encode(kept: CompareHead) -> Result<SecretBytes, StageError> {
    let CompareHead { head, kept_from } = kept;
    let (count, hash) = (head.count, hex::encode(head.hash));
    let record = HeadRecord { version: VERSION, count, hash, kept_from };
    serde_json::to_vec(&record).map(SecretBytes::new).map_err(failed)
}

fn decode(bytes: &[u8]) -> Option<CompareHead> {
    let record: HeadRecord = serde_json::from_slice(bytes).ok()?;
    let mut hash = [0; 32];
    hex::decode_to_slice(record.hash, &mut hash).ok()?;
    let head = Head { count: record.count, hash };
    let kept = CompareHead { head, kept_from: record.kept_from };
    (1..=VERSION).contains(&record.version).then_some(kept)
}

#[cfg(test)]
mod tests;
