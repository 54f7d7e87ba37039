//! The thread that owns the log: takes what waits, writes it together, syncs once, answers all.

use std::cmp::Ordering;
use std::sync::Arc;

use mssm_crypto::chain::CheckpointKey;
use mssm_domain::{Clock, SecretBytes};
use mssm_messages::audit::{
    Append, AuditError, AuditStatus, CompareHead, Entry, ReadStatus, Reopen, Standing, StoreEpoch,
    TellStore,
};
use mssm_messages::seal::{InstallAuditKey, StageError};
use mssm_messages::{Letter, Port};
use tokio::sync::mpsc;

use crate::backend::{AuditBackend, Blocked};
use crate::log::Log;
use crate::prefix::Prefix;
use crate::writing::{Pen, Rotation};

/// How many batches of entries may wait; one more is refused as busy.
const QUEUE_BOUND: usize = 4096;
/// How many letters one sync serves at most.
const GROUP_BOUND: usize = 512;

/// How others reach the audit log.
#[derive(Clone, Debug)]
pub struct AuditPorts {
    /// Writes lines.
    pub append: Port<Append>,
    /// Hands over the signing key, or takes it away.
    pub install: Port<InstallAuditKey>,
    /// How the log does.
    pub status: Port<ReadStatus>,
    /// Whether the log holds what it held.
    pub compare: Port<CompareHead>,
    /// Takes up the file that is there now.
    pub reopen: Port<Reopen>,
    /// What the log is told of the store.
    pub tell: Port<TellStore>,
}

/// The other ends of the ports.
struct Queues {
    append: mpsc::Receiver<Letter<Append>>,
    install: mpsc::Receiver<Letter<InstallAuditKey>>,
    status: mpsc::Receiver<Letter<ReadStatus>>,
    compare: mpsc::Receiver<Letter<CompareHead>>,
    reopen: mpsc::Receiver<Letter<Reopen>>,
    tell: mpsc::Receiver<Letter<TellStore>>,
}

/// Holds the log, its position and the signing key. Sends nothing; answers when lines are durable.
pub struct AuditWriter {
    pen: Pen,
    status: AuditStatus,
}

impl AuditWriter {
    /// Starts the thread. The log is opened by its first use, so a log that cannot be opened keeps
    /// nobody from asking how the server is. The thread ends when all ports are gone.
    pub fn start(
        backend: impl AuditBackend,
        clock: Arc<dyn Clock>,
        rotation: Rotation,
    ) -> std::io::Result<(AuditPorts, std::thread::JoinHandle<()>)> {
        let (append, appends) = Port::to_thread(QUEUE_BOUND);
        let (install, installs) = Port::to_thread(16);
        let (status, statuses) = Port::to_thread(64);
        let (compare, comparisons) = Port::to_thread(16);
        let (reopen, reopenings) = Port::to_thread(16);
        let (tell, told) = Port::to_thread(16);
        let queues = Queues {
            append: appends,
            install: installs,
            status: statuses,
            compare: comparisons,
            reopen: reopenings,
            tell: told,
        };
        let place = backend.place();
        let mut writer = Self {
            pen: Pen::new(backend, clock, rotation),
            status: AuditStatus { path: place, ..AuditStatus::default() },
        };
        // Only queues and a clock: no input or output of this runtime.
        let runtime = tokio::runtime::Builder::new_current_thread().build()?;
        let thread = std::thread::Builder::new().name("audit".to_owned()).spawn(move || {
            runtime.block_on(writer.run(queues));
        })?;
        Ok((AuditPorts { append, install, status, compare, reopen, tell }, thread))
    }

    async fn run(&mut self, mut queues: Queues) {
        loop {
            tokio::select! {
                Some(letter) = queues.append.recv() => self.append(letter, &mut queues.append),
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

    /// Writes what one letter, and all that wait behind it, say.
    fn append(&mut self, first: Letter<Append>, queue: &mut mpsc::Receiver<Letter<Append>>) {
        let mut letters = vec![first];
        while letters.len() < GROUP_BOUND {
            let Ok(letter) = queue.try_recv() else { break };
            letters.push(letter);
        }
        let entries: Vec<&Entry> = letters.iter().flat_map(|letter| &letter.message.0).collect();
        let written = self.pen.write(&entries);
        let answer = self.note(written);
        for letter in letters {
            let _ = letter.reply.send(answer.clone());
        }
        self.pen.rotate();
    }

    /// Takes the signing key and signs what was written without one; or signs once more and
    /// forgets the key.
    fn install(&mut self, message: InstallAuditKey) -> Result<(), StageError> {
        let key = match &message.seed {
            Some(seed) => Some(checkpoint_key(seed)?),
            None => None,
        };
        let opening = key.is_some();
        if opening {
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
        let (public_key, head, store) = (log.public_key(), log.position.at(), log.store);
        let (kept_from, lost) = (self.pen.backend.kept_from(), self.pen.backend.lost());
        AuditStatus { lost, public_key, head, kept_from, store, ..self.status.clone() }
    }

    /// Looks for the line that followed a head, which names the head's hash, and for the files
    /// that were there.
    fn compare(&mut self, asked: CompareHead) -> Result<Standing, AuditError> {
        let written = self.pen.write(&[]);
        self.note(written)?;
        let head = asked.head;
        let there = self.pen.log.position.at();
        let mut standing = match there.count.cmp(&head.count) {
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
        let gap = asked.kept_from.and_then(|from| self.pen.backend.gap(from));
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
        self.pen.log.store = Some(store);
        Ok(())
    }

    fn note(&mut self, written: Result<u64, Blocked>) -> Result<(), AuditError> {
        match written {
            Ok(lines) => {
                if self.status.blocked.take().is_some() {
                    tracing::info!("the audit log can be written again");
                }
                self.status.lines += lines;
                self.status.syncs += u64::from(lines > 0);
                Ok(())
            }
            Err(Blocked(reason)) => {
                if self.status.blocked.as_deref() != Some(reason.as_str()) {
                    tracing::error!(
                        reason,
                        "the audit log cannot be written, requests are refused"
                    );
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
