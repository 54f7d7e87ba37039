//! Hands every record to every device, and answers once it is where it counts.
//!
//! Each device keeps a log of its own: its own chain, its own salt. A record counts as written when a
//! file has it; while no file takes any, when any other device has it. When none does, in the time
//! that a request may be held up, the request is refused. One that does not answer is waited for once.

mod device;

use std::cell::RefCell;
use std::future::Future;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use actix::Message;
use device::{Device, Round};
use mssm_domain::{Clock, Prefix, SecretBytes};
use mssm_messages::audit::{
    Append, AuditError, AuditStatus, CompareHead, ReadStatus, Reopen, TellStore,
};
use mssm_messages::devices::{DeviceError, ShowHash};
use mssm_messages::seal::{InstallAuditKey, StageError};
use mssm_messages::{Letter, Port};
use tokio::sync::mpsc;
use tokio::task::LocalSet;

use crate::backend::AuditBackend;
use crate::salt::Salt;
use crate::writer::LogWriter;
use crate::writing::Rotation;

/// How many batches of entries may wait; one more is refused as busy.
const QUEUE_BOUND: usize = 4096;
/// How many letters one round serves at most.
const GROUP_BOUND: usize = 512;
/// How long a device may take to say how it does.
const GLANCE: Duration = Duration::from_millis(300);
/// How long the log of the configuration may take to open and to sign, at an unseal.
const OPENING: Duration = Duration::from_secs(8);

/// How others reach the audit.
#[derive(Clone, Debug)]
pub struct AuditPorts {
    /// Writes lines.
    pub append: Port<Append>,
    /// Hands over the signing key, or takes it away.
    pub install: Port<InstallAuditKey>,
    /// How the log of the configuration does, and every device.
    pub status: Port<ReadStatus>,
    /// Whether the log of the configuration holds what it held.
    pub compare: Port<CompareHead>,
    /// Takes up the files that are there now.
    pub reopen: Port<Reopen>,
    /// What the log of the configuration is told of the store.
    pub tell: Port<TellStore>,
    /// Shows a hash as a device does.
    pub show: Port<ShowHash>,
    pub(crate) attach: Port<Attach>,
    pub(crate) detach: Port<Detach>,
}

/// A device besides the log of the configuration.
pub struct ExtraDevice {
    pub(crate) path: Prefix,
    pub(crate) id: String,
    pub(crate) backend: Box<dyn AuditBackend>,
}

/// Adds a device; `tried` has it refused unless it takes a first record.
#[derive(Message)]
#[rtype(result = "Result<(), DeviceError>")]
pub(crate) struct Attach {
    pub(crate) device: ExtraDevice,
    pub(crate) tried: bool,
}

/// Takes a device away.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct Detach(pub(crate) Prefix);

/// What the audit is started with besides its log.
pub struct AuditSettings {
    /// When files are closed.
    pub rotation: Rotation,
    /// How long a request is held up at most.
    pub patience: Duration,
    /// Devices of the configuration besides its log.
    pub devices: Vec<ExtraDevice>,
}

impl Default for AuditSettings {
    /// For whoever has nobody waiting.
    fn default() -> Self {
        let patience = Duration::from_secs(10);
        Self { rotation: Rotation::default(), patience, devices: Vec::new() }
    }
}

/// The other ends of the ports.
struct Queues {
    append: mpsc::Receiver<Letter<Append>>,
    install: mpsc::Receiver<Letter<InstallAuditKey>>,
    status: mpsc::Receiver<Letter<ReadStatus>>,
    reopen: mpsc::Receiver<Letter<Reopen>>,
    show: mpsc::Receiver<Letter<ShowHash>>,
    attach: mpsc::Receiver<Letter<Attach>>,
    detach: mpsc::Receiver<Letter<Detach>>,
}

/// Holds the devices, and the keys for those that are added while the server is open. A thread of
/// its own that never touches a disk: the devices have theirs.
pub struct AuditWriter {
    clock: Arc<dyn Clock>,
    settings: AuditSettings,
    /// The first is the log of the configuration.
    devices: RefCell<Vec<Rc<Device>>>,
    threads: RefCell<Vec<std::thread::JoinHandle<()>>>,
    keys: RefCell<InstallAuditKey>,
    /// What the log of the configuration said last.
    status: RefCell<AuditStatus>,
}

impl AuditWriter {
    /// Starts the audit. The log is opened by its first use, so a log that cannot be opened keeps
    /// nobody from asking how the server is. The threads end when all ports are gone.
    pub fn start(
        log: impl AuditBackend,
        clock: Arc<dyn Clock>,
        mut settings: AuditSettings,
    ) -> std::io::Result<(AuditPorts, std::thread::JoinHandle<()>)> {
        let (place, devices) = (log.place(), std::mem::take(&mut settings.devices));
        let (log, log_thread) = LogWriter::start(
            Box::new(log),
            Arc::clone(&clock),
            settings.rotation,
            CONFIGURED.to_owned(),
            None,
        )?;
        let (append, appends) = Port::to_thread(QUEUE_BOUND);
        let (install, installs) = Port::to_thread(16);
        let (status, statuses) = Port::to_thread(QUEUE_BOUND);
        let (reopen, reopenings) = Port::to_thread(16);
        let (show, shown) = Port::to_thread(64);
        let (attach, attached) = Port::to_thread(16);
        let (detach, detached) = Port::to_thread(16);
        let queues = Queues {
            append: appends,
            install: installs,
            status: statuses,
            reopen: reopenings,
            show: shown,
            attach: attached,
            detach: detached,
        };
        let (compare, tell) = (log.compare.clone(), log.tell.clone());
        // Only queues and a clock: no input or output of this runtime.
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build()?;
        let thread = std::thread::Builder::new().name("audit".to_owned()).spawn(move || {
            let hub = Rc::new(Self {
                clock,
                settings,
                devices: RefCell::default(),
                threads: RefCell::new(vec![log_thread]),
                keys: RefCell::new(InstallAuditKey { seed: None, salts: None }),
                status: RefCell::default(),
            });
            let local = LocalSet::new();
            local.block_on(&runtime, Rc::clone(&hub).run(place, log, devices, queues));
            drop(local);
            // Their ports went with the devices.
            hub.devices.take();
            for thread in hub.threads.take() {
                let _ = thread.join();
            }
        })?;
        let ports =
            AuditPorts { append, install, status, compare, reopen, tell, show, attach, detach };
        Ok((ports, thread))
    }

    async fn run(
        self: Rc<Self>,
        place: String,
        log: crate::writer::LogPorts,
        devices: Vec<ExtraDevice>,
        queues: Queues,
    ) {
        if let Ok(path) = Prefix::parse(CONFIGURED) {
            self.adopt(Device::new(path, String::new(), place, true, log));
        }
        for device in devices {
            let (path, attached) = (device.path.clone(), self.attach(device, false).await);
            if let Err(error) = attached {
                tracing::error!(device = %path, %error, "an audit device could not be started");
            }
        }
        tokio::join!(
            self.write(queues.append),
            serve(queues.install, |keys| self.install(keys)),
            serve(queues.status, |ReadStatus| async { Ok(self.report().await) }),
            serve(queues.reopen, |Reopen| self.reopen()),
            serve(queues.show, |asked| std::future::ready(self.show(&asked))),
            serve(queues.attach, |asked| self.attach(asked.device, asked.tried)),
            serve(queues.detach, |Detach(path)| {
                self.detach(&path);
                std::future::ready(())
            }),
        );
    }

    fn adopt(&self, device: Device) -> Rc<Device> {
        let device = Rc::new(device);
        self.devices.borrow_mut().push(Rc::clone(&device));
        tokio::task::spawn_local(Rc::clone(&device).feed(Arc::clone(&self.clock)));
        device
    }

    /// Writes what waits, one round after the other. Who waited for a round is answered while the
    /// next one is written.
    async fn write(&self, mut queue: mpsc::Receiver<Letter<Append>>) {
        while let Some(first) = queue.recv().await {
            let mut letters = vec![first];
            while letters.len() < GROUP_BOUND {
                let Ok(letter) = queue.try_recv() else { break };
                letters.push(letter);
            }
            let entries =
                letters.iter_mut().flat_map(|letter| std::mem::take(&mut letter.message.0));
            let answer = self.round(Rc::new(Round::new(entries.collect()))).await;
            tokio::task::spawn_local(async move {
                // The next round goes to the devices first, if anybody waits for one.
                tokio::task::yield_now().await;
                for letter in letters {
                    let _ = letter.reply.send(answer.clone());
                }
            });
        }
    }

    async fn round(&self, round: Rc<Round>) -> Result<(), AuditError> {
        let devices = self.devices.borrow().clone();
        for device in &devices {
            device.push(&round);
        }
        let decided = tokio::time::timeout(self.settings.patience, round.decided()).await;
        if decided.is_err() {
            for device in &devices {
                device.fall_behind();
            }
        }
        let taken = round.is_taken();
        round.settle(taken);
        // Who did not take it may be given it again.
        for device in &devices {
            device.wake();
        }
        if taken { Ok(()) } else { Err(AuditError::Blocked(reasons(&devices))) }
    }

    /// Hands the keys on; those of the log of the configuration decide.
    async fn install(&self, keys: InstallAuditKey) -> Result<(), StageError> {
        let devices = self.devices.borrow().clone();
        self.keys.replace(duplicate(&keys));
        let mut installed = Ok(());
        for (number, device) in devices.iter().enumerate() {
            let deadline = if number == 0 { OPENING } else { self.settings.patience };
            let told = device.log.install.ask(duplicate(&keys), deadline).await;
            let told = told.unwrap_or_else(|error| Err(StageError(error.to_string())));
            if number == 0 {
                installed = told;
            } else if let Err(error) = told {
                tracing::warn!(device = %device.path, %error, "an audit device takes no first record");
            }
        }
        installed
    }

    async fn report(&self) -> AuditStatus {
        let devices = self.devices.borrow().clone();
        let Some(log) = devices.first() else { return AuditStatus::default() };
        if !log.is_behind()
            && let Ok(Ok(status)) = log.log.status.ask(ReadStatus, GLANCE).await
        {
            self.status.replace(status);
        }
        let mut status = self.status.borrow().clone();
        status.devices = devices.iter().map(|device| device.status()).collect();
        // What an inspection found that no record has met yet.
        if let Some(first) = status.devices.first_mut() {
            let found = status.blocked.take().map(|reason| log.without_place(&reason));
            first.blocked = first.blocked.take().or(found);
        }
        let all: Option<Vec<&String>> =
            status.devices.iter().map(|device| device.blocked.as_ref()).collect();
        status.blocked = all.and_then(|all| all.first().map(|reason| (*reason).clone()));
        status
    }

    async fn reopen(&self) -> Result<(), AuditError> {
        let devices = self.devices.borrow().clone();
        for device in devices {
            let _ = device.log.reopen.ask(Reopen, GLANCE).await;
        }
        Ok(())
    }

    fn show(&self, asked: &ShowHash) -> Result<[u8; 32], DeviceError> {
        let devices = self.devices.borrow();
        let device = devices.iter().find(|device| device.path == asked.device);
        let device = device.ok_or_else(|| DeviceError::Unknown(asked.device.clone()))?;
        let keys = self.keys.borrow();
        let salt = match &keys.salts {
            _ if device.id.is_empty() => Salt::Bare,
            Some(salts) => Salt::derive(salts, &device.id),
            None => Salt::Unknown,
        };
        salt.shown(&asked.hash).ok_or(DeviceError::Internal)
    }

    async fn attach(&self, extra: ExtraDevice, tried: bool) -> Result<(), DeviceError> {
        let ExtraDevice { path, id, backend } = extra;
        let (place, keeps_files) = (backend.place(), backend.keeps_files());
        let rotation = if keeps_files { self.settings.rotation } else { Rotation::default() };
        let clock = Arc::clone(&self.clock);
        let name = path.as_str().trim_end_matches('/').to_owned();
        let started = LogWriter::start(backend, clock, rotation, name, Some(id.clone()));
        let (log, thread) = started.map_err(|error| DeviceError::Refused(error.to_string()))?;
        let keys = duplicate(&self.keys.borrow());
        let told = match keys.seed {
            Some(_) => log.install.ask(keys, self.settings.patience).await,
            None => Ok(Ok(())),
        };
        if tried {
            let told = told.map_err(|_| format!("{place} does not answer"));
            let told = told.and_then(|told| told.map_err(|StageError(reason)| reason));
            told.map_err(DeviceError::Refused)?;
        }
        self.adopt(Device::new(path, id, place, keeps_files, log));
        self.threads.borrow_mut().push(thread);
        Ok(())
    }

    fn detach(&self, path: &Prefix) {
        let mut devices = self.devices.borrow_mut();
        let position = devices.iter().position(|device| device.path == *path);
        // The log of the configuration stays whatever comes.
        let Some(position) = position.filter(|position| *position > 0) else { return };
        devices.remove(position).leave();
        self.threads.borrow_mut().retain(|thread| !thread.is_finished());
    }
}

/// The path of the configuration's log.
pub(crate) const CONFIGURED: &str = "file";

/// Why nobody takes anything, for the operator's eyes.
fn reasons(devices: &[Rc<Device>]) -> String {
    let reason = |device: &Rc<Device>| device.problem().unwrap_or_default();
    if let [only] = devices {
        return reason(only);
    }
    let named = devices.iter().map(|device| format!("{}: {}", device.path, reason(device)));
    named.collect::<Vec<_>>().join("; ")
}

fn duplicate(keys: &InstallAuditKey) -> InstallAuditKey {
    let copy = |key: &Option<SecretBytes>| key.as_ref().map(SecretBytes::duplicate);
    InstallAuditKey { seed: copy(&keys.seed), salts: copy(&keys.salts) }
}

/// Answers letters, one after the other, until nobody can write any more.
async fn serve<M, F, A>(mut queue: mpsc::Receiver<Letter<M>>, answer: F)
where
    M: Message + Send + 'static,
    M::Result: Send,
    F: Fn(M) -> A,
    A: Future<Output = M::Result>,
{
    while let Some(letter) = queue.recv().await {
        let _ = letter.reply.send(answer(letter.message).await);
    }
}

#[cfg(test)]
mod tests;
