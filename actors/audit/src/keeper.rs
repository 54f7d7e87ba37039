//! Keeps which devices there are: those of the configuration, and those that the API added.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use actix::{Actor, Context, Handler, Message, ResponseFuture};
use mssm_domain::{Prefix, Random, RecordPath, SecretBytes, generate_uuid};
use mssm_messages::devices::{Device, DeviceError, DisableDevice, EnableDevice, ListDevices};
use mssm_messages::seal::{Closing, Opened, StageError};
use mssm_messages::{Barrier, Changes, guarded_async};
use serde::{Deserialize, Serialize};
use tokio::sync::Semaphore;

use crate::backend::Keep;
use crate::hub::{Attach, AuditPorts, CONFIGURED, Detach, ExtraDevice};
use crate::sink::Sink;

/// How many devices there may be: each has a thread, and a queue in memory.
const DEVICES_MAX: usize = 8;
/// The hub answers within its own patience; this is many.
const DEADLINE: Duration = Duration::from_secs(10);
/// The format that is written; others are refused.
const FORMAT: u8 = 1;
/// As many records as there may be, and one that should not be there.
const PAGE: usize = 64;

/// A device of the configuration besides its log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfiguredDevice {
    /// As it is shown.
    pub device: Device,
    /// Where it writes to.
    pub sink: Sink,
}

impl ConfiguredDevice {
    /// Ready to be started.
    pub fn extra(&self) -> Result<ExtraDevice, String> {
        let (path, id) = (self.device.path.clone(), self.device.path.to_string());
        Ok(ExtraDevice { path, id, backend: self.sink.backend(Keep::default())? })
    }
}

/// What the keeper of devices is told.
pub struct DevicesConfig {
    /// The log of the configuration.
    pub log: PathBuf,
    /// The other devices of the configuration.
    pub configured: Vec<ConfiguredDevice>,
    /// How the audit is reached.
    pub audit: AuditPorts,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct DeviceRecord {
    format: u8,
    id: String,
    path: String,
    kind: String,
    description: String,
    local: bool,
    options: BTreeMap<String, String>,
}

/// A device that is there.
struct Kept {
    device: Device,
    sink: Sink,
    /// Its record's name; `None` for those of the configuration.
    id: Option<String>,
}

/// Holds the devices. Sends to the audit's hub and the store. One change at a time.
pub struct DeviceKeeper(Rc<Core>);

struct Core {
    log: PathBuf,
    audit: AuditPorts,
    barrier: Barrier,
    random: Arc<dyn Random>,
    turn: Semaphore,
    devices: RefCell<Vec<Kept>>,
}

impl DeviceKeeper {
    /// A keeper that knows the devices of the configuration, and is told of the others at the unseal.
    pub fn new(config: DevicesConfig, barrier: Barrier, random: Arc<dyn Random>) -> Self {
        let DevicesConfig { log, configured, audit } = config;
        let mut devices = Vec::new();
        if let (Ok(path), Ok(sink)) = (Prefix::parse(CONFIGURED), Sink::log(&log)) {
            let options = BTreeMap::from([("file_path".to_owned(), log.display().to_string())]);
            let (kind, description) = ("file".to_owned(), String::new());
            let device = Device { path, kind, description, local: false, options };
            devices.push(Kept { device, sink, id: None });
        }
        let others = configured.into_iter();
        devices.extend(others.map(|one| Kept { device: one.device, sink: one.sink, id: None }));
        let (turn, devices) = (Semaphore::new(1), RefCell::new(devices));
        Self(Rc::new(Core { log, audit, barrier, random, turn, devices }))
    }
}

impl Actor for DeviceKeeper {
    type Context = Context<Self>;
}

macro_rules! change {
    ($message:ty, $method:ident) => {
        impl Handler<$message> for DeviceKeeper {
            type Result = ResponseFuture<<$message as Message>::Result>;

            fn handle(&mut self, msg: $message, _ctx: &mut Self::Context) -> Self::Result {
                let core = Rc::clone(&self.0);
                // A task of its own: a change goes on to its end even if its caller goes away.
                let change = actix_rt::spawn(async move {
                    let _turn = core.turn.acquire().await.map_err(|_| DeviceError::Internal)?;
                    let changed = guarded_async(core.$method(msg)).await;
                    changed.unwrap_or(Err(DeviceError::Internal))
                });
                Box::pin(async move { change.await.unwrap_or(Err(DeviceError::Internal)) })
            }
        }
    };
}

change!(EnableDevice, enable);
change!(DisableDevice, disable);

impl Handler<ListDevices> for DeviceKeeper {
    type Result = Result<Vec<Device>, DeviceError>;

    fn handle(&mut self, _msg: ListDevices, _ctx: &mut Self::Context) -> Self::Result {
        let devices = self.0.devices.borrow();
        let mut listed: Vec<Device> = devices.iter().map(|kept| kept.device.clone()).collect();
        listed.sort_by(|one, other| one.path.cmp(&other.path));
        Ok(listed)
    }
}

impl Handler<Opened> for DeviceKeeper {
    type Result = ResponseFuture<Result<(), StageError>>;

    fn handle(&mut self, _msg: Opened, _ctx: &mut Self::Context) -> Self::Result {
        let core = Rc::clone(&self.0);
        Box::pin(async move {
            let _turn = core.turn.acquire().await.map_err(|error| failed(&error))?;
            core.load().await.map_err(|error| failed(&error))
        })
    }
}

impl Handler<Closing> for DeviceKeeper {
    type Result = ResponseFuture<Result<(), StageError>>;

    fn handle(&mut self, _msg: Closing, _ctx: &mut Self::Context) -> Self::Result {
        let core = Rc::clone(&self.0);
        Box::pin(async move {
            let _turn = core.turn.acquire().await.map_err(|error| failed(&error))?;
            // Where they write to is known while the store is open only.
            let added = |kept: &mut Kept| kept.id.is_some();
            let gone: Vec<Kept> = core.devices.borrow_mut().extract_if(.., added).collect();
            for kept in gone {
                core.detach(&kept.device.path).await;
            }
            Ok(())
        })
    }
}

fn failed(error: &dyn std::fmt::Display) -> StageError {
    StageError(format!("audit devices: {error}"))
}

impl Core {
    async fn enable(&self, EnableDevice(device): EnableDevice) -> Result<(), DeviceError> {
        let sink = Sink::parse(&device.kind, &device.options, &self.log);
        let sink = sink.map_err(DeviceError::Invalid)?;
        self.fits(&device, &sink)?;
        sink.check().map_err(DeviceError::Invalid)?;
        let id = generate_uuid(self.random.as_ref()).to_string();
        let record = encode(&device, &id)?;
        self.attach(&device, &sink, &id, true).await?;
        let stored = Changes::new().put(record_path(&id), 0, record);
        if let Err(error) = self.barrier.commit(stored).await {
            self.detach(&device.path).await;
            return Err(error.into());
        }
        self.devices.borrow_mut().push(Kept { device, sink, id: Some(id) });
        Ok(())
    }

    /// Neither its path nor its place is another one's.
    fn fits(&self, device: &Device, sink: &Sink) -> Result<(), DeviceError> {
        let devices = self.devices.borrow();
        if devices.len() >= DEVICES_MAX {
            return Err(DeviceError::TooMany(devices.len()));
        }
        for kept in devices.iter() {
            let (there, wished) = (kept.device.path.as_str(), device.path.as_str());
            if there.starts_with(wished) || wished.starts_with(there) {
                return Err(DeviceError::Taken(kept.device.path.clone()));
            }
            if kept.sink.meets(sink) {
                return Err(DeviceError::SamePlace(kept.device.path.clone()));
            }
        }
        Ok(())
    }

    async fn disable(&self, DisableDevice(path): DisableDevice) -> Result<(), DeviceError> {
        let found = self
            .devices
            .borrow()
            .iter()
            .find(|kept| kept.device.path == path)
            .map(|kept| kept.id.clone());
        let id = match found {
            None => return Ok(()),
            Some(None) => return Err(DeviceError::Configured(path)),
            Some(Some(id)) => id,
        };
        self.barrier.commit(Changes::new().delete(record_path(&id))).await?;
        self.devices.borrow_mut().retain(|kept| kept.device.path != path);
        self.detach(&path).await;
        Ok(())
    }

    /// Adds what the store knows of; one that cannot be reached is there all the same.
    async fn load(&self) -> Result<(), DeviceError> {
        let page = self.barrier.scan(&folder(), None, PAGE).await?;
        for (_, plain) in page {
            let record = plain.ok().and_then(|plain| decode(&plain.bytes));
            let Some((device, id)) = record else {
                tracing::error!("the record of an audit device cannot be read; it is left out");
                continue;
            };
            let sink = Sink::parse(&device.kind, &device.options, &self.log);
            let fits = sink.map_err(DeviceError::Invalid).and_then(|sink| {
                self.fits(&device, &sink)?;
                sink.check().map_err(DeviceError::Invalid)?;
                Ok(sink)
            });
            let started = match fits {
                Ok(sink) => self.attach(&device, &sink, &id, false).await.map(|()| sink),
                Err(error) => Err(error),
            };
            match started {
                Ok(sink) => self.devices.borrow_mut().push(Kept { device, sink, id: Some(id) }),
                Err(error) => {
                    tracing::error!(device = %device.path, %error, "an audit device is left out");
                }
            }
        }
        Ok(())
    }

    async fn attach(
        &self,
        device: &Device,
        sink: &Sink,
        id: &str,
        tried: bool,
    ) -> Result<(), DeviceError> {
        let backend = sink.backend(Keep::default()).map_err(DeviceError::Invalid)?;
        let device = ExtraDevice { path: device.path.clone(), id: id.to_owned(), backend };
        let attached = self.audit.attach.ask(Attach { device, tried }, DEADLINE).await;
        attached.map_err(|_| DeviceError::Internal)?
    }

    async fn detach(&self, path: &Prefix) {
        if self.audit.detach.ask(Detach(path.clone()), DEADLINE).await.is_err() {
            tracing::warn!(device = %path, "an audit device could not be taken away");
        }
    }
}

fn folder() -> RecordPath {
    RecordPath::new(&["audit-device"])
}

fn record_path(id: &str) -> RecordPath {
    folder().child(id)
}

fn encode(device: &Device, id: &str) -> Result<SecretBytes, DeviceError> {
    let record = DeviceRecord {
        format: FORMAT,
        id: id.to_owned(),
        path: device.path.to_string(),
        kind: device.kind.clone(),
        description: device.description.clone(),
        local: device.local,
        options: device.options.clone(),
    };
    serde_json::to_vec(&record).map(SecretBytes::new).map_err(|_| DeviceError::Internal)
}

fn decode(bytes: &SecretBytes) -> Option<(Device, String)> {
    // EXPOSE: options hold no secret.
    let record: DeviceRecord = serde_json::from_slice(bytes.expose()).ok()?;
    let DeviceRecord { format, id, path, kind, description, local, options } = record;
    let path = Prefix::parse(&path).ok()?;
    (format == FORMAT).then_some((Device { path, kind, description, local, options }, id))
}

#[cfg(test)]
mod tests;
