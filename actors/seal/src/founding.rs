//! Founding a new store.

use mssm_crypto::Key32;
use mssm_crypto::keyring::Keyring;
use mssm_crypto::shares;
use mssm_domain::SecretText;
use mssm_messages::Changes;
use mssm_messages::seal::{Found, Founded, Init, SealError, SealKind, StageError};

use crate::keeper::RootKeySource;
use crate::opening::{OPENING, lock, tell};
use crate::record::SealConfigRecord;
use crate::state::Core;

impl Core {
    pub(crate) async fn init(&self, msg: Init) -> Result<Founded, SealError> {
        if self.is_unsealed() || self.vault.load_config()?.is_some() {
            return Err(SealError::AlreadyInitialized);
        }
        let random = self.random.as_ref();
        let (root, shares) = match &self.source {
            RootKeySource::Shamir => {
                check_numbers(&msg)?;
                let root = Key32::generate(random);
                // EXPOSE: split into the shares that are the caller's only copy.
                let shares = shares::split(root.expose(), msg.shares, msg.threshold, random)
                    .map_err(|_| SealError::Configuration("shares and threshold do not fit"))?;
                (root, shares)
            }
            RootKeySource::Static(_) if (msg.shares, msg.threshold) != (0, 0) => {
                return Err(SealError::Configuration("a static key has no shares"));
            }
            RootKeySource::Static(_) => (self.static_key()?, Vec::new()),
        };
        let keyring = Keyring::generate(self.clock.now(), random);
        let config = SealConfigRecord {
            kind: self.source.kind(),
            shares: msg.shares,
            threshold: msg.threshold,
            set: shares.first().map_or([0; 4], shares::Share::set),
            // EXPOSE: only its hash is stored.
            commitment: shares::commit(root.expose()),
            cluster: keyring.cluster(),
        };
        self.open_index(&keyring).await?;
        let founded = self.found(&config, &root, &keyring).await;
        self.drop_keys().await;
        self.close_index().await;
        let root_token = founded?;
        tracing::info!(cluster = %config.cluster, "store founded");
        if config.kind == SealKind::Static
            && let Err(error) = self.open(&root, config).await
        {
            // The store is founded: its token must reach the caller. Status says that it is sealed.
            tracing::error!(%error, "the new store did not open");
        }
        Ok(Founded { shares: shares.iter().map(shares::Share::encode).collect(), root_token })
    }

    /// Collects what a new store begins with and commits it; returns the root token.
    ///
    /// Replicas have the new keys meanwhile, since founders hash tokens; the caller takes them away.
    async fn found(
        &self,
        config: &SealConfigRecord,
        root: &Key32,
        keyring: &Keyring,
    ) -> Result<SecretText, SealError> {
        self.install(lock(&keyring.encode())?).await;
        let founders = self.link.borrow().stages.founders.clone();
        let (mut seeds, mut root_token) = (Changes::new(), None);
        for founder in founders {
            let part = tell(&founder, Found, OPENING).await?;
            seeds = seeds.and(part.changes);
            root_token = root_token.or(part.root_token);
        }
        let Some(root_token) = root_token else {
            return Err(StageError("no founder made a root token".to_owned()).into());
        };
        let sources = (self.clock.as_ref(), self.random.as_ref());
        self.vault.found(config, root, keyring, seeds, sources).await?;
        Ok(root_token)
    }
}

const fn check_numbers(msg: &Init) -> Result<(), SealError> {
    Err(SealError::Configuration(match (msg.shares, msg.threshold) {
        (0, _) => "shares must be at least one",
        (_, 0) => "threshold must be at least one",
        (shares, threshold) if threshold > shares => "threshold cannot be larger than shares",
        (shares, 1) if shares > 1 => "threshold must be greater than one for multiple shares",
        _ => return Ok(()),
    }))
}
