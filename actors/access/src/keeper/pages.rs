//! Walks over records of a kind, page by page.

use mssm_domain::{RecordPath, StoredKey};
use mssm_messages::access::AccessError;
use mssm_messages::{Barrier, Plain};

use super::PAGE;

/// Walks over all records of a kind, page by page; those that do not open are logged and passed.
pub(super) struct Pages {
    folder: RecordPath,
    after: Option<StoredKey>,
    done: bool,
}

impl Pages {
    pub(super) const fn new(folder: RecordPath) -> Self {
        Self { folder, after: None, done: false }
    }

    /// The next page, `None` after the last.
    pub(super) async fn next(
        &mut self,
        barrier: &Barrier,
    ) -> Result<Option<Vec<Plain>>, AccessError> {
        if self.done {
            return Ok(None);
        }
        let page = barrier.scan(&self.folder, self.after.as_ref(), PAGE).await?;
        self.done = page.len() < PAGE;
        self.after = page.last().map(|(key, _)| key.clone());
        let all = page.len();
        let plain: Vec<Plain> = page.into_iter().filter_map(|(_, plain)| plain.ok()).collect();
        if plain.len() < all {
            tracing::error!(records = all - plain.len(), kind = ?self.folder, "unreadable records");
        }
        Ok(Some(plain))
    }
}
