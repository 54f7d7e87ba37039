//! Opening the server with its root key, and closing it.

use std::sync::Arc;
use std::time::Duration;

use actix::{Message, Recipient};
use mssm_crypto::Key32;
use mssm_crypto::envelope::EnvelopeKey;
use mssm_crypto::keyring::Keyring;
use mssm_crypto::shares::{Share, is_committed};
use mssm_domain::{ClusterId, SecretBytes, SecretText};
use mssm_locked::LockedBytes;
use mssm_messages::index::Standing;
use mssm_messages::seal::{
    Closing, InstallAuditKey, Opened, SealError, SealKind, SealStatus, StageError,
};

use crate::attempt::Attempt;
use crate::keeper::{Link, RootKeySource};
use crate::record::SealConfigRecord;
use crate::state::{Core, State, Unsealed};

/// How long an owner may take to open: what takes longer is loaded after its reply.
pub(crate) const OPENING: Duration = Duration::from_secs(30);
/// How long an owner may take to finish before keys go; then they go all the same.
const CLOSING: Duration = Duration::from_secs(2);

impl Core {
    pub(crate) async fn unseal(&self, share: &SecretText) -> Result<SealStatus, SealError> {
        if self.is_unsealed() {
            return self.status();
        }
        let config = self.vault.load_config()?.ok_or(SealError::NotInitialized)?;
        self.check_kind(&config)?;
        if config.kind == SealKind::Static {
            return self.auto_unseal().await;
        }
        let number = Share::parse_text(share).ok().map(|share| share.index());
        let root = match &mut *self.state.borrow_mut() {
            State::Sealed(attempt) => attempt.enter(&config, share, self.random.as_ref())?,
            State::Unsealed(_) => None,
        };
        if let Some(root) = root {
            self.open(&root, config).await?;
        }
        Ok(SealStatus { share: number, ..self.status()? })
    }

    pub(crate) fn reset_unseal(&self) -> Result<SealStatus, SealError> {
        if let State::Sealed(attempt) = &mut *self.state.borrow_mut() {
            *attempt = Attempt::default();
        }
        self.status()
    }

    pub(crate) async fn auto_unseal(&self) -> Result<SealStatus, SealError> {
        if self.is_unsealed() || self.source.kind() != SealKind::Static {
            return self.status();
        }
        // Before it is needed: whoever starts a new server hears at once that its key is of no use.
        let root = self.static_key()?;
        let Some(config) = self.vault.load_config()? else { return self.status() };
        self.check_kind(&config)?;
        // EXPOSE: only its hash is compared.
        if !is_committed(root.expose(), &config.commitment) {
            return Err(SealError::StaticKey(
                "it is not the key that this store was founded with".to_owned(),
            ));
        }
        self.open(&root, config).await?;
        self.status()
    }

    pub(crate) async fn seal(&self) -> Result<(), SealError> {
        if !self.is_unsealed() {
            self.state.replace(State::Sealed(Attempt::default()));
            return Ok(());
        }
        self.close().await
    }

    pub(crate) fn static_key(&self) -> Result<Key32, SealError> {
        let RootKeySource::Static(source) = &self.source else {
            return Err(SealError::StaticKey("none is configured".to_owned()));
        };
        let bytes = source.as_ref().map_err(|error| SealError::StaticKey(error.clone()))?;
        // EXPOSE: this is the root key.
        Key32::copy_of(bytes.expose())
            .ok_or_else(|| SealError::StaticKey("it must have 32 bytes".to_owned()))
    }

    fn check_kind(&self, config: &SealConfigRecord) -> Result<(), SealError> {
        if config.kind == self.source.kind() {
            return Ok(());
        }
        Err(SealError::Store(format!(
            "record seal-config says seal kind {}, the configuration says {}; set it to {}",
            config.kind.name(),
            self.source.kind().name(),
            config.kind.name()
        )))
    }

    /// Opens the keyring and the server; on an error all is closed again.
    pub(crate) async fn open(
        &self,
        root: &Key32,
        config: SealConfigRecord,
    ) -> Result<(), SealError> {
        // EXPOSE: expanded to open the keyring, and kept in locked pages.
        let envelope = EnvelopeKey::new(root.expose());
        let mut stored = self.vault.load_keyring(&envelope, config.cluster)?;
        let standing = self.open_index(&stored.keyring).await?;
        let sources = (self.clock.as_ref(), self.random.as_ref());
        if self.index.is_some()
            && !stored.keyring.is_indexed()
            && let Err(error) = self.vault.mark_indexed(&envelope, &mut stored, sources).await
        {
            self.close_index().await;
            return Err(error);
        }
        let keyring = stored.keyring;
        let open = Unsealed {
            root: LockedBytes::copy_of(root.expose()).map_err(no_memory)?,
            keyring: lock(&keyring.encode())?,
            newest: keyring.newest(),
            config,
        };
        self.install(Arc::clone(&open.keyring)).await;
        if let Err(error) = self.tell_opened(open.config.cluster, &keyring, &standing).await {
            tracing::error!(%error, "unsealing failed: sealing again");
            // What failed first is what the caller needs to know.
            let _ = self.close().await;
            return Err(error);
        }
        if LockedBytes::any_refused() {
            tracing::warn!("key pages could not be locked into memory: raise the limit memlock");
        }
        tracing::info!(term = %open.newest.term, "unsealed");
        self.state.replace(State::Unsealed(open));
        Ok(())
    }

    async fn tell_opened(
        &self,
        cluster: ClusterId,
        keyring: &Keyring,
        standing: &Standing,
    ) -> Result<(), SealError> {
        let Link { stages, audit, events: _ } = self.link.borrow().clone();
        if let Some(audit) = audit {
            let [seed, salts] = keyring.audit_keys().map(Some);
            audit.ask(InstallAuditKey { seed, salts }, OPENING).await??;
        }
        self.write_down_accepted(keyring, &standing.accepted).await?;
        for opener in &stages.openers {
            tell(opener, Opened { cluster }, OPENING).await?;
        }
        Ok(())
    }

    /// Closes owners, wipes keys everywhere. Goes through to its end whatever fails on the way.
    pub(crate) async fn close(&self) -> Result<(), SealError> {
        let Link { stages, audit, events: _ } = self.link.borrow().clone();
        for closer in stages.closers.iter().rev() {
            if let Err(error) = tell(closer, Closing, CLOSING).await {
                tracing::warn!(%error, "an owner did not close in order");
            }
        }
        let followed = self.drop_keys().await;
        if self.is_unsealed() && !self.uncounted.borrow().is_empty() {
            let counted = actix_rt::time::timeout(CLOSING, self.rewrite(false)).await;
            if !matches!(counted, Ok(Ok(_))) {
                tracing::warn!("the use of keys could not be written down before sealing");
            }
        }
        self.close_index().await;
        if let Some(audit) = audit {
            let told = audit.ask(InstallAuditKey { seed: None, salts: None }, CLOSING).await;
            if !matches!(told, Ok(Ok(()))) {
                tracing::warn!(?told, "the audit log did not close in order");
            }
        }
        self.state.replace(State::Sealed(Attempt::default()));
        tracing::info!("sealed");
        if followed.silent > 0 {
            let text =
                format!("{} key replicas did not confirm that keys are gone", followed.silent);
            return Err(StageError(text).into());
        }
        Ok(())
    }
}

pub(crate) async fn tell<T: Send + 'static, M>(
    owner: &Recipient<M>,
    message: M,
    deadline: Duration,
) -> Result<T, SealError>
where
    M: Message<Result = Result<T, StageError>> + Send + 'static,
{
    match owner.send(message).timeout(deadline).await {
        Ok(reply) => Ok(reply?),
        Err(error) => Err(StageError(format!("an owner of state: {error}")).into()),
    }
}

pub(crate) fn lock(bytes: &SecretBytes) -> Result<Arc<LockedBytes>, SealError> {
    // EXPOSE: moved into locked pages; the original is wiped.
    LockedBytes::copy_of(bytes.expose()).map(Arc::new).map_err(no_memory)
}

pub(crate) fn no_memory(error: mssm_locked::NoMemory) -> SealError {
    SealError::Store(error.to_string())
}
