//! The thread that owns one device's log: takes what waits, writes it together, syncs once.

use std::cmp::Ordering;
use std::sync::Arc;

use actix::Message;
use mssm_crypto::chain::CheckpointKey;
use mssm_domain::{Clock, SecretBytes};
use mssm_messages::audit::{
    AuditError, AuditStatus, CompareHead, Entry, ReadStatus, Reopen, Standing, StoreEpoch,
    TellStore,
};
use mssm_messages::seal::{InstallAuditKey, StageError};
use mssm_messages::{Letter, Port};
use tokio::sync::mpsc;

use crate::backend::{AuditBackend, Blocked};
use crate::log::Log;
use crate::prefix::Prefix;
use crate::salt::Salt;
use crate::writing::{Pen, Rotation};

/// How many letters of a kind may wait; whoever writes waits for each answer before the next.
const QUEUE_BOUND: usize = 16;

/// Writes rounds of entries, in order, together; replies once they are with the device.
#[derive(Debug, Message)]
#[rtype(result = "Result<(), AuditError>")]
pub(crate) struct Write(pub(crate) Vec<Arc<Vec<Entry>>>);

/// How one device's log is reached.
#[derive(Clone, Debug)]
pub(crate) struct LogPorts {
    pub(crate) write: Port<Write>,
    pub(crate) install: Port<InstallAuditKey>,
    pub(crate) status: Port<ReadStatus>,
    pub(crate) compare: Port<CompareHead>,
    pub(crate) reopen: Port<Reopen>,
    pub(crate) tell: Port<TellStore>,
}

/// The other ends of the ports.
struct Queues {
    write: mpsc::Receiver<Letter<Write>>,
    install: mpsc::Receiver<Letter<InstallAuditKey>>,
    status: mpsc::Receiver<Letter<ReadStatus>>,
    compare: mpsc::Receiver<Letter<CompareHead>>,
    reopen: mpsc::Receiver<Letter<Reopen>>,
    tell: mpsc::Receiver<Letter<TellStore>>,
}

/// Holds a log, its position, the signing key and the salt. Sends nothing.
pub(crate) struct LogWriter {
    pen: Pen,
    /// What names the device for good; `None` for the log of the configuration, which needs no salt.
    salted: Option<String>,
    status: AuditStatus,
    /// True once this run had a key: what the store knows may be of this run from then on.
    opened: bool,
}

impl LogWriter {
    /// Starts the thread. The log is opened by its first use, so a log that cannot be opened keeps
    /// nobody from asking how the server is. The thread ends when all ports are gone.
    pub(crate) fn start(
        backend: Box<dyn AuditBackend>,
        clock: Arc<dyn Clock>,
        rotation: Rotation,
        device: String,
        salted: Option<String>,
    ) -> std::io::Result<(LogPorts, std::thread::JoinHandle<()>)> {
        let (write, writes) = Port::to_thread(QUEUE_BOUND);
        let (install, installs) = Port::to_thread(QUEUE_BOUND);
        let (status, statuses) = Port::to_thread(QUEUE_BOUND);
        let (compare, comparisons) = Port::to_thread(QUEUE_BOUND);
        let (reopen, reopenings) = Port::to_thread(QUEUE_BOUND);
        let (tell, told) = Port::to_thread(QUEUE_BOUND);
        let queues = Queues {
            write: writes,
            install: installs,
            status: statuses,
            compare: comparisons,
            reopen: reopenings,
            tell: told,
        };
        let mut pen = Pen::new(backend, clock, rotation);
        pen.log.device = device;
        if salted.is_some() {
            pen.log.salt = Salt::Unknown;
        }
        let mut writer = Self { pen, salted, status: AuditStatus::default(), opened: false };
        // Only queues and a clock: no input or output of this runtime.
        let runtime = tokio::runtime::Builder::new_current_thread().build()?;
        let thread = std::thread::Builder::new().name("audit-log".to_owned()).spawn(move || {
            runtime.block_on(writer.run(queues));
        })?;
        Ok((LogPorts { write, install, status, compare, reopen, tell }, thread))
    }

    async fn run(&mut self, mut queues: Queues) {
        loop {
            tokio::select! {
                Some(letter) = queues.write.recv() => {
                    let _ = letter.reply.send(self.write(&letter.message));
                    self.pen.rotate();
                }
                Some(letter) = queues.install.recv() => {
                    let _ = letter.reply.send(self.install(letter.message));
                }
                Some(letter) = queues.status.recv() => {
                    let _ = letter.reply.send(Ok(self.report()));
                }
                Some(letter) = queues.compare.recv() => {
                    let _ = letter.reply.send(self.compare(letter.message));
                }
                Some(letter) = queues.reopen.recv() => {
                    self.pen.reopen();
                    let _ = letter.reply.send(Ok(()));
                }
                Some(letter) = queues.tell.recv() => {
                    let _ = letter.reply.send(self.tell(letter.message.0));
                }
                else => return,
            }
        }
    }

    fn write(&mut self, Write(rounds): &Write) -> Result<(), AuditError> {
        let entries: Vec<&Entry> = rounds.iter().flat_map(|round| round.iter()).collect();
        let written = self.pen.write(&entries);
        self.note(written)
    }

    /// Takes the signing key and signs what was written without one; or signs once more and
    /// forgets the key.
    fn install(&mut self, message: InstallAuditKey) -> Result<(), StageError> {
        let key = match &message.seed {
            Some(seed) => Some(checkpoint_key(seed)?),
            None => None,
        };
        let opening = key.is_some();
        if let Some(device) = &self.salted {
            let salts = message.salts.as_ref();
            self.pen.log.salt = salts.map_or(Salt::Unknown, |salts| Salt::derive(salts, device));
        }
        if opening {
            self.opened = true;
            self.pen.log.set_key(key);
        }
        let named = self.pen.log.key_line(self.pen.clock.now()).filter(|_| opening);
        let entries: Vec<&Entry> = named.iter().collect();
        let written = self.pen.write(&entries);
        if !opening {
            self.pen.log.set_key(None);
        }
        self.note(written).map_err(|error| StageError(error.to_string()))
    }

    fn report(&mut self) -> AuditStatus {
        if self.pen.is_open()
            && let Err(blocked) = self.pen.backend.inspect()
        {
            self.status.blocked = Some(blocked.0);
        }
        let log = &self.pen.log;
        let (public_key, head, stores) =
            (log.public_key(), log.position.at(), log.stores.all().to_vec());
        let kept_from = self.pen.kept_from();
        let missing = self.status.missing.clone().or_else(|| self.pen.missing());
        AuditStatus { public_key, head, kept_from, missing, stores, ..self.status.clone() }
    }

    /// Looks for the line that followed a head, which names the head's hash, and for the files
    /// that were there.
    fn compare(&mut self, asked: CompareHead) -> Result<Standing, AuditError> {
        let written = self.pen.write(&[]);
        self.note(written)?;
        let head = asked.head;
        let there = self.pen.log.position.at();
        // Of what this run has written since nothing was there for the store to know.
        let taken_up = self.pen.taken_up.filter(|count| !self.opened && *count < head.count);
        let mut standing = match there.count.cmp(&head.count) {
            _ if taken_up.is_some() => Standing::Cut { found: taken_up.unwrap_or_default() },
            Ordering::Less => Standing::Cut { found: there.count },
            Ordering::Equal if there == head => Standing::Whole,
            Ordering::Equal => Standing::Another,
            Ordering::Greater => {
                let line = self.pen.backend.find(head.count);
                match line.map_err(|Blocked(reason)| AuditError::Blocked(reason))? {
                    None => Standing::Elsewhere,
                    Some(line) => match Prefix::parse(&line) {
                        Some(prefix) if prefix.prev == hex::encode(head.hash) => Standing::Whole,
                        _ => Standing::Another,
                    },
                }
            }
        };
        let gap = asked.kept_from.and_then(|from| self.pen.gap(from));
        if let (Standing::Whole, Some((first, last))) = (standing, gap) {
            standing = Standing::FileGone { first, last };
        }
        self.status.missing = standing.missing(head);
        Ok(standing)
    }

    /// Writes down what is known of the store, here and wherever the log can be taken up.
    fn tell(&mut self, store: StoreEpoch) -> Result<(), AuditError> {
        let line = Log::store_line(self.pen.clock.now(), &store);
        let written = self.pen.write(&[&line]);
        self.note(written)?;
        self.pen.log.stores.note(store);
        Ok(())
    }

    fn note(&mut self, written: Result<u64, Blocked>) -> Result<(), AuditError> {
        match written {
            Ok(lines) => {
                if self.status.blocked.take().is_some() {
                    tracing::info!(
                        device = self.pen.backend.place(),
                        "the audit device takes records again"
                    );
                }
                self.status.lines += lines;
                self.status.syncs += u64::from(lines > 0);
                Ok(())
            }
            Err(Blocked(reason)) => {
                if self.status.blocked.as_deref() != Some(reason.as_str()) {
                    tracing::error!(reason, "an audit device takes nothing");
                }
                self.status.blocked = Some(reason.clone());
                Err(AuditError::Blocked(reason))
            }
        }
    }
}

/// The signing key of a seed.
pub(crate) fn checkpoint_key(seed: &SecretBytes) -> Result<CheckpointKey, StageError> {
    // EXPOSE: becomes the signing key, which wipes itself.
    let seed = <&[u8; 32]>::try_from(seed.expose())
        .map_err(|_| StageError("the audit key's seed is not 32 bytes".to_owned()))?;
    Ok(CheckpointKey::from_seed(seed))
}
