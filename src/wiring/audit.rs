//! Starts the audit: its log, its devices, and who is between them and the seal.

use std::sync::Arc;
use std::thread::JoinHandle;

use actix::{Actor, Addr};
use mssm_audit::{
    AuditPorts, AuditSettings, AuditWriter, ConfiguredDevice, DeviceKeeper, DevicesConfig,
    FileBackend, HeadConfig, HeadKeeper,
};
use mssm_domain::Clock;

use super::{Ground, StartError};
use crate::config::AuditConfig;

/// Who is between the seal and the audit.
pub(super) struct Log {
    pub(super) head: Addr<HeadKeeper>,
    pub(super) devices: Addr<DeviceKeeper>,
}

/// Starts the log and the devices of the configuration.
pub(super) fn start(
    config: &AuditConfig,
    clock: &Arc<dyn Clock>,
) -> Result<(AuditPorts, JoinHandle<()>), StartError> {
    let extra = |device: &ConfiguredDevice| {
        device.extra().map_err(|problem| StartError::Audit(device.device.path.clone(), problem))
    };
    let devices = config.devices.iter().map(extra).collect::<Result<_, _>>()?;
    let log = FileBackend::keeping(&config.file, config.keep);
    let (rotation, patience) = (config.rotation, config.patience);
    let settings = AuditSettings { rotation, patience, devices };
    Ok(AuditWriter::start(log, Arc::clone(clock), settings)?)
}

/// Starts those who know the store.
pub(super) fn keepers(
    config: AuditConfig,
    accept_rollback: bool,
    audit: &AuditPorts,
    ground: &Ground,
) -> Log {
    let (audit, when_missing) = (audit.clone(), config.when_missing);
    let head = HeadConfig { audit: audit.clone(), when_missing, accept_rollback };
    let head = HeadKeeper::new(head, ground.barrier().1, Arc::clone(&ground.clock)).start();
    let devices = DevicesConfig { log: config.file, configured: config.devices, audit };
    let (barrier, random) = (ground.barrier().1, Arc::clone(&ground.random));
    Log { head, devices: DeviceKeeper::new(devices, barrier, random).start() }
}
