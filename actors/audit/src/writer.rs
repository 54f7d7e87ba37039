//! The thread that owns the log: takes what waits, writes it together, syncs once, answers all.

use std::cmp::Ordering;
use std::sync::Arc;

use mssm_crypto::chain::CheckpointKey;
use mssm_domain::{Clock, SecretBytes};
use mssm_messages::audit::{
    Append, AuditError, AuditStatus, CompareHead, Entry, Event, Head, ReadStatus, Standing,
    StoreEpoch, TellStore,
};
use mssm_messages::seal::{InstallAuditKey, StageError};
use mssm_messages::{Letter, Port};
use tokio::sync::mpsc;

use crate::backend::{AuditBackend, Blocked};
use crate::log::{Batch, Log, POSITION_EVERY, Position, told_store};
use crate::prefix::Prefix;

/// How many batches of entries may wait; one more is refused as busy.
const QUEUE_BOUND: usize = 4096;
/// So much of a log's end is read when it is opened: twice what lies between lines that tell its
/// position.
const TAIL_BYTES: u64 = 2 * POSITION_EVERY;
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
    /// What the log is told of the store.
    pub tell: Port<TellStore>,
}

/// The other ends of the ports.
struct Queues {
    append: mpsc::Receiver<Letter<Append>>,
    install: mpsc::Receiver<Letter<InstallAuditKey>>,
    status: mpsc::Receiver<Letter<ReadStatus>>,
    compare: mpsc::Receiver<Letter<CompareHead>>,
    tell: mpsc::Receiver<Letter<TellStore>>,
}

/// Holds the log, its position and the signing key. Sends nothing; answers when lines are durable.
pub struct AuditWriter {
    clock: Arc<dyn Clock>,
    backend: Box<dyn AuditBackend>,
    log: Log,
    open: bool,
    status: AuditStatus,
}

impl AuditWriter {
    /// Starts the thread. The log is opened by its first use, so a log that cannot be opened keeps
    /// nobody from asking how the server is. The thread ends when all ports are gone.
    pub fn start(
        backend: impl AuditBackend,
        clock: Arc<dyn Clock>,
    ) -> std::io::Result<(AuditPorts, std::thread::JoinHandle<()>)> {
        let (append, appends) = Port::to_thread(QUEUE_BOUND);
        let (install, installs) = Port::to_thread(16);
        let (status, statuses) = Port::to_thread(64);
        let (compare, comparisons) = Port::to_thread(16);
        let (tell, told) = Port::to_thread(16);
        let queues = Queues {
            append: appends,
            install: installs,
            status: statuses,
            compare: comparisons,
            tell: told,
        };
        let place = backend.place();
        let mut writer = Self {
            clock,
            backend: Box::new(backend),
            log: Log::default(),
            open: false,
            status: AuditStatus { path: place, ..AuditStatus::default() },
        };
        // Only queues and a clock: no input or output of this runtime.
        let runtime = tokio::runtime::Builder::new_current_thread().build()?;
        let thread = std::thread::Builder::new().name("audit".to_owned()).spawn(move || {
            runtime.block_on(writer.run(queues));
        })?;
        Ok((AuditPorts { append, install, status, compare, tell }, thread))
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
                    let _ = letter.reply.send(self.compare(letter.message.0));
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
        let written = write(&mut self.state(), &entries);
        let answer = self.note(written);
        for letter in letters {
            let _ = letter.reply.send(answer.clone());
        }
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
            self.log.set_key(key);
        }
        let named = self.log.key_line(self.clock.now()).filter(|_| opening);
        let entries: Vec<&Entry> = named.iter().collect();
        let written = write(&mut self.state(), &entries);
        if !opening {
            self.log.set_key(None);
        }
        self.note(written).map_err(|error| StageError(error.to_string()))
    }

    fn report(&mut self) -> AuditStatus {
        if self.open
            && let Err(blocked) = self.backend.inspect()
        {
            self.status.blocked = Some(blocked.0);
        }
        let (public_key, head) = (self.log.public_key(), self.log.position.at());
        AuditStatus { public_key, head, store: self.log.store, ..self.status.clone() }
    }

    /// Looks for the line that followed a head: it names the head's hash.
    fn compare(&mut self, head: Head) -> Result<Standing, AuditError> {
        let written = write(&mut self.state(), &[]);
        self.note(written)?;
        let there = self.log.position.at();
        let standing = match there.count.cmp(&head.count) {
            Ordering::Less => Standing::Cut { found: there.count },
            Ordering::Equal if there == head => Standing::Whole,
            Ordering::Equal => Standing::Another,
            Ordering::Greater => {
                let line = self.backend.find(head.count);
                match line.map_err(|Blocked(reason)| AuditError::Blocked(reason))? {
                    None => Standing::Elsewhere,
                    Some(line) => match Prefix::parse(&line) {
                        Some(prefix) if prefix.prev == hex::encode(head.hash) => Standing::Whole,
                        _ => Standing::Another,
                    },
                }
            }
        };
        self.status.missing = standing.missing(head);
        Ok(standing)
    }

    /// Writes down what is known of the store, here and wherever the log can be taken up.
    fn tell(&mut self, store: StoreEpoch) -> Result<(), AuditError> {
        let line = Log::store_line(self.clock.now(), &store);
        let written = write(&mut self.state(), &[&line]);
        self.note(written)?;
        self.log.store = Some(store);
        Ok(())
    }

    fn state(&mut self) -> Writing<'_> {
        Writing {
            clock: self.clock.as_ref(),
            backend: self.backend.as_mut(),
            log: &mut self.log,
            open: &mut self.open,
        }
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

/// The parts of the writer that a batch needs.
struct Writing<'a> {
    clock: &'a dyn Clock,
    backend: &'a mut dyn AuditBackend,
    log: &'a mut Log,
    open: &'a mut bool,
}

/// Writes entries and their checkpoint; returns how many lines it took.
fn write(writing: &mut Writing<'_>, entries: &[&Entry]) -> Result<u64, Blocked> {
    let now = writing.clock.now();
    let opening = if *writing.open { Vec::new() } else { open(writing)? };
    if let Err(blocked) = writing.backend.inspect() {
        // This batch is refused; the next one opens anew, and goes on if that is safe.
        *writing.open = false;
        return Err(blocked);
    }
    let batch = render(writing.log, now, opening.iter().chain(entries.iter().copied()))?;
    if batch.lines == 0 {
        return Ok(0);
    }
    writing.backend.append(&batch.bytes)?;
    *writing.open = true;
    let lines = batch.lines;
    writing.log.accept(batch);
    Ok(lines)
}

fn render<'a>(
    log: &Log,
    now: mssm_domain::Timestamp,
    entries: impl IntoIterator<Item = &'a Entry>,
) -> Result<Batch, Blocked> {
    log.batch(now, entries).map_err(|error| Blocked(format!("an entry cannot be written: {error}")))
}

/// Opens the log and says what must be written first.
///
/// A log that was in use goes on only in the lines it knows, or in an empty file.
fn open(writing: &mut Writing<'_>) -> Result<Vec<Entry>, Blocked> {
    let now = writing.clock.now();
    let mut there = There::default();
    let mut found = writing.backend.open(TAIL_BYTES, &mut |line| there.take(line))?;
    if there.lines > 0 && there.position.is_none() {
        // Lines so long that none in the tail tells the position.
        there = There::default();
        found.torn =
            found.torn.or(writing.backend.open(u64::MAX, &mut |line| there.take(line))?.torn);
    }
    writing.log.store = there.store.or(writing.log.store);
    let mut first = Vec::new();
    match there.position {
        None if there.lines == 0 => first.push(writing.log.first_line(now)),
        Some(position) if writing.log.position.count() == 0 => {
            writing.log.resume(position, there.untold);
        }
        Some(position) if writing.log.position == position => {}
        _ => {
            let place = writing.backend.place();
            return Err(Blocked(format!(
                "{place} does not hold the lines that were written to it: move it away for \
                 inspection, a new file goes on with the chain"
            )));
        }
    }
    if let Some(aside) = found.torn {
        tracing::warn!(aside, "the audit log ended in a torn line, which was set aside");
        let details = vec![("moved_to", aside)];
        first.push(Entry::Event { time: now, event: Event { name: "torn-line", details } });
    }
    Ok(first)
}

/// Where the lines of a log lead, from the last one that tells a position.
#[derive(Default)]
struct There {
    position: Option<Position>,
    store: Option<StoreEpoch>,
    untold: u64,
    lines: u64,
}

impl There {
    fn take(&mut self, line: &[u8]) {
        self.lines += 1;
        if tells_of_the_log(line) {
            if let Some(before) = Position::before(line) {
                self.position = Some(before);
                self.untold = 0;
            }
            self.store = told_store(line).or(self.store);
        }
        self.untold += line.len() as u64 + 1;
        if let Some(position) = &mut self.position {
            position.append(line);
        }
    }
}

/// A cheap look before a line is parsed: only events of the log itself can tell its position.
fn tells_of_the_log(line: &[u8]) -> bool {
    const SIGN: &[u8] = b"\"event\":\"log-";
    line.get(..256).unwrap_or(line).windows(SIGN.len()).any(|window| window == SIGN)
}
