//! Counting seals and adding data keys: what is rewritten in the stored keyring.

use std::cell::Cell;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use mssm_crypto::Key32;
use mssm_crypto::envelope::EnvelopeKey;
use mssm_crypto::keyring::{Keyring, TermInfo};
use mssm_domain::Term;
use mssm_messages::audit::{Append, Entry, Event};
use mssm_messages::seal::{SealError, Used};

use crate::opening::lock;
use crate::state::{Core, State};

/// The audit thread answers within a sync of the disk.
const DEADLINE: Duration = Duration::from_secs(10);

impl Core {
    pub(crate) async fn rotate(&self) -> Result<Term, SealError> {
        self.rewrite(true).await.map(|newest| newest.term)
    }

    /// Writes the counts down, and rotates if the bound is near.
    pub(crate) async fn settle(&self) -> Result<(), SealError> {
        let due = match &*self.state.borrow() {
            State::Sealed(_) => return Ok(()),
            State::Unsealed(open) => {
                self.seals(open) >= Keyring::SEALS_MAX - Keyring::SEALS_RESERVE
            }
        };
        self.rewrite(due).await.map(drop)
    }

    /// Writes the counts, and a new term if asked, into the stored keyring; then hands it out.
    pub(crate) async fn rewrite(&self, rotate: bool) -> Result<TermInfo, SealError> {
        let (root, cluster, newest) = match &*self.state.borrow() {
            State::Sealed(_) => return Err(SealError::Sealed),
            // EXPOSE: expanded to open and seal the keyring.
            State::Unsealed(open) => {
                let root = Key32::copy_of(open.root.expose()).ok_or(SealError::Internal)?;
                (EnvelopeKey::new(root.expose()), open.config.cluster, open.newest)
            }
        };
        let mut stored = self.vault.load_keyring(&root, cluster)?;
        if stored.keyring.newest().term < newest.term {
            return Err(SealError::Store(
                "record keyring is older than the keys in use; restore the store from a backup"
                    .to_owned(),
            ));
        }
        let counted = self.uncounted.take();
        for (term, seals) in &counted {
            stored.keyring.count(*term, *seals);
        }
        let sources = (self.clock.as_ref(), self.random.as_ref());
        if rotate && stored.keyring.rotate(sources.0.now(), sources.1).is_err() {
            return Err(SealError::Store("record keyring takes no more terms".to_owned()));
        }
        if (rotate || !counted.is_empty())
            && let Err(error) = self.vault.replace(&root, &stored, sources).await
        {
            for (term, encryptions) in counted {
                self.count(Used { term, encryptions });
            }
            return Err(error);
        }
        let (keyring, newest) = (lock(&stored.keyring.encode())?, stored.keyring.newest());
        if let State::Unsealed(open) = &mut *self.state.borrow_mut() {
            (open.keyring, open.newest) = (Arc::clone(&keyring), newest);
        }
        if rotate {
            self.install(keyring).await;
            tracing::info!(term = %newest.term, "rotated");
            self.write_down_rotation(newest.term).await;
        }
        Ok(newest)
    }
}

impl Core {
    /// The key is in use already: a log that takes nothing does not undo that.
    async fn write_down_rotation(&self, term: Term) {
        let Some(events) = self.link.borrow().events.clone() else { return };
        let event = Event { name: "key-rotated", details: vec![("term", term.to_string())] };
        let entry = Entry::Event { time: self.clock.now(), event };
        let written = events.ask(Append(vec![entry]), DEADLINE).await;
        if !matches!(written, Ok(Ok(()))) {
            tracing::error!(?written, "a rotation could not be written to the audit log");
        }
    }
}

/// A task of the keeper's own that changes state; an error has nobody else to go to.
pub(crate) fn spawn_settle(core: Rc<Core>, settling: Rc<Cell<bool>>) {
    actix_rt::spawn(async move {
        if let Err(error) = core.change(core.settle()).await {
            tracing::error!(%error, "the use of keys could not be written down");
        }
        settling.set(false);
    });
}
