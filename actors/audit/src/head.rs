//! Keeps how far the log goes in the sealed store, so that lines that are gone are missed at the next unseal.
//!
//! The log itself cannot show that its end was cut off at a checkpoint, that its file was deleted,
//! or that an older copy was laid in its place: the store can. The head is stored while it moves,
//! once a second, and once more at sealing, after the last line; no request waits for it.

use std::cell::Cell;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use actix::{Actor, AsyncContext, Context, Handler, ResponseFuture};
use mssm_domain::{Clock, RecordPath, SecretBytes};
use mssm_messages::audit::{Append, CompareHead, Entry, Event, Head, ReadStatus};
use mssm_messages::seal::{Closing, InstallAuditKey, StageError};
use mssm_messages::{Barrier, Changes};
use serde::{Deserialize, Serialize};

use crate::AuditPorts;

/// So far behind the log may the stored head be, in time.
const EVERY: Duration = Duration::from_secs(1);
/// The audit thread answers within a sync of the disk; this is many.
const DEADLINE: Duration = Duration::from_secs(10);
/// Two writers of the head meet at sealing at most: one of them tries again.
const TRIES: u32 = 3;
/// The form of the record.
const VERSION: u32 = 1;

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
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct HeadRecord {
    version: u32,
    count: u64,
    hash: String,
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
    stored: Cell<Head>,
}

impl HeadKeeper {
    /// A keeper of a log's head in a store.
    pub fn new(config: HeadConfig, barrier: Barrier, clock: Arc<dyn Clock>) -> Self {
        let (open, storing) = (Cell::new(false), Cell::new(false));
        Self(Rc::new(Core { config, barrier, clock, open, storing, stored: Cell::default() }))
    }
}

impl Actor for HeadKeeper {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        ctx.run_interval(EVERY, |keeper, _ctx| {
            let core = Rc::clone(&keeper.0);
            if core.open.get() && !core.storing.replace(true) {
                actix_rt::spawn(async move {
                    if let Err(StageError(error)) = core.store(false).await {
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
        Box::pin(
            async move { if core.open.replace(false) { core.store(false).await } else { Ok(()) } },
        )
    }
}

fn failed(error: impl std::fmt::Display) -> StageError {
    StageError(format!("audit log: {error}"))
}

impl Core {
    /// Compares the log with the stored head, and has it signed from now on.
    async fn open_log(&self, key: InstallAuditKey) -> Result<(), StageError> {
        let missing = match self.load().await?.0 {
            None => None,
            Some(head) => {
                let compared = self.config.audit.compare.ask(CompareHead(head), DEADLINE).await;
                let standing = compared.map_err(failed)?.map_err(failed)?;
                standing.missing(head).map(|what| (what, head))
            }
        };
        if let Some((what, _)) = &missing {
            tracing::error!(what, "the audit log does not hold what was written to it");
            if self.config.when_missing == WhenMissing::Refuse {
                return Err(StageError(format!(
                    "audit log: missing {what}; put the files back, or set audit.when_missing to \"warn\""
                )));
            }
        }
        self.hand_on(key).await?;
        let replaces = missing.is_some();
        if let Some((what, head)) = missing {
            let details = vec![
                ("missing", what),
                ("stored_count", head.count.to_string()),
                ("stored_head", hex::encode(head.hash)),
            ];
            let event = Event { name: "log-missing", details };
            let entry = Entry::Event { time: self.clock.now(), event };
            let appended = self.config.audit.append.ask(Append(vec![entry]), DEADLINE).await;
            appended.map_err(failed)?.map_err(failed)?;
        }
        self.store(replaces).await?;
        self.open.set(true);
        Ok(())
    }

    async fn hand_on(&self, key: InstallAuditKey) -> Result<(), StageError> {
        self.config.audit.install.ask(key, DEADLINE).await.map_err(failed)?
    }

    /// The stored head and its record's version; 0 if there is none.
    async fn load(&self) -> Result<(Option<Head>, u64), StageError> {
        let record = self.barrier.read(&path()).await.map_err(failed)?;
        let Some(record) = record else { return Ok((None, 0)) };
        // EXPOSE: a number and a hash.
        let head = decode(record.bytes.expose());
        let head = head.ok_or_else(|| failed("the record audit-head is damaged"))?;
        Ok((Some(head), record.version))
    }

    /// Stores how far the log goes; `replaces` an older head that went further.
    async fn store(&self, replaces: bool) -> Result<(), StageError> {
        let status = self.config.audit.status.ask(ReadStatus, DEADLINE).await;
        let head = status.map_err(failed)?.map_err(failed)?.head;
        if head == self.stored.get() && !replaces {
            return Ok(());
        }
        for _ in 0..TRIES {
            let (there, version) = self.load().await?;
            if !replaces && there.is_some_and(|there| there.count >= head.count) {
                return Ok(());
            }
            let changes = Changes::new().put(path(), version, encode(head)?);
            match self.barrier.commit(changes).await {
                Ok(()) => {
                    self.stored.set(head);
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

fn encode(head: Head) -> Result<SecretBytes, StageError> {
    let record = HeadRecord { version: VERSION, count: head.count, hash: hex::encode(head.hash) };
    serde_json::to_vec(&record).map(SecretBytes::new).map_err(failed)
}

fn decode(bytes: &[u8]) -> Option<Head> {
    let record: HeadRecord = serde_json::from_slice(bytes).ok()?;
    let mut hash = [0; 32];
    hex::decode_to_slice(record.hash, &mut hash).ok()?;
    (record.version == VERSION).then_some(Head { count: record.count, hash })
}

#[cfg(test)]
mod tests;
