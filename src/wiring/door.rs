//! From the settings to what the front door is told.

use std::sync::Arc;

use mssm_domain::{BootId, Clock};
use mssm_http::{About, Certificate};
use mssm_storage::StorageKind;

use super::StartError;
use crate::config::{Config, TlsConfig};

pub(super) fn about(config: &Config, boot: BootId, clock: &dyn Clock) -> About {
    About {
        api_addr: config.api_addr.trim_end_matches('/').to_owned(),
        storage_type: storage_name(config.storage.kind),
        open_metrics: config.limits.open_metrics,
        boot,
        started_at: clock.now(),
    }
}

pub(super) fn certificate(config: &Config) -> Result<Arc<Certificate>, StartError> {
    Ok(match &config.tls {
        TlsConfig::Files { certificate, key } => Certificate::load(certificate, key)?,
        TlsConfig::SelfSigned => {
            let host = config.address.ip().to_string();
            let (certificate, key) = mssm_http::ensure_self_signed(&config.storage.folder, &host)?;
            Certificate::load(certificate, key)?
        }
    })
}

const fn storage_name(kind: StorageKind) -> &'static str {
    match kind {
        StorageKind::Embedded => "embedded",
        StorageKind::File => "file",
        StorageKind::Memory => "inmem",
    }
}
