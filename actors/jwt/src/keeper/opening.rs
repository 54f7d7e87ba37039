//! What the keeper does when the server opens: everything is read, one record that cannot be is named.

use std::collections::BTreeMap;
use std::sync::Arc;

use mssm_domain::{MountId, SecretBytes};
use mssm_messages::engine::EngineError;

use super::Core;
use crate::record;
use crate::table::{MountState, Table};

/// How many records are read at a time.
const PAGE: usize = 256;

impl Core {
    pub(super) async fn open(&self) -> Result<(), EngineError> {
        let mut mounts: BTreeMap<MountId, MountState> = BTreeMap::new();
        self.each(record::CONFIG, |bytes| {
            let (mount, settings) = record::config(bytes)?;
            mounts.entry(mount).or_default().settings = settings;
            Ok(())
        })
        .await?;
        self.each(record::KEY, |bytes| {
            let (mount, set) = record::key(bytes)?;
            mounts.entry(mount).or_default().keys.insert(set.name.clone(), Arc::new(set));
            Ok(())
        })
        .await?;
        self.each(record::ROLE, |bytes| {
            let (mount, name, role) = record::role(bytes)?;
            mounts.entry(mount).or_default().roles.insert(name, Arc::new(role));
            Ok(())
        })
        .await?;
        let mounts = mounts.into_iter().map(|(mount, state)| (mount, Arc::new(state)));
        let table = Table(mounts.collect());
        {
            let mut state = self.state.borrow_mut();
            state.tick_from = None;
            state.tidy_from = None;
        }
        self.install(Some(Arc::new(table))).await;
        Ok(())
    }

    async fn each(
        &self,
        kind: &str,
        mut take: impl FnMut(&SecretBytes) -> Result<(), EngineError>,
    ) -> Result<(), EngineError> {
        let folder = record::folder(kind, None);
        let mut after = None;
        loop {
            let page = self.barrier.scan(&folder, after.as_ref(), PAGE).await?;
            let full = page.len() == PAGE;
            after = page.last().map(|(key, _)| key.clone());
            for (_, plain) in page {
                let taken = match plain {
                    Ok(plain) => take(&plain.bytes).is_ok(),
                    Err(_) => false,
                };
                if !taken {
                    // The others are served; this one is not overwritten by anything but a delete.
                    tracing::error!(kind, "a record of the jwt engine cannot be read");
                }
            }
            if !full {
                return Ok(());
            }
        }
    }
}
