//! Opens the store, and gives its commit thread ways to say that it cannot go on.

use mssm_messages::index::Findings;
use mssm_messages::storage::StoragePort;
use mssm_storage::{OpenError, StorageConfig, StorageHandle};
use tokio::sync::{mpsc, oneshot};

/// An open store, and what it may have to say later.
pub(super) struct Store {
    pub(super) port: StoragePort,
    pub(super) handle: StorageHandle,
    pub(super) poisoned: oneshot::Receiver<String>,
    pub(super) distrusted: mpsc::Receiver<Findings>,
}

pub(super) fn open(config: &StorageConfig) -> Result<Store, OpenError> {
    let (poison, poisoned) = oneshot::channel();
    // One is enough: what is found first seals.
    let (distrust, distrusted) = mpsc::channel(1);
    let on_poison = move |reason| {
        let _ = poison.send(reason);
    };
    let on_distrust = move |findings| {
        let _ = distrust.try_send(findings);
    };
    let (port, handle) = mssm_storage::open(config, on_poison, on_distrust)?;
    Ok(Store { port, handle, poisoned, distrusted })
}
