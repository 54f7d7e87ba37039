//! What the keeper holds, and the turn that every change of it waits for.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::future::Future;
use std::sync::Arc;

use actix::dev::ToEnvelope;
use actix::{Addr, Handler, Message};
use futures_util::lock::Mutex;
use mssm_crypto::keyring::TermInfo;
use mssm_domain::{Clock, Random, Term};
use mssm_locked::LockedBytes;
use mssm_messages::index::InstallIndex;
use mssm_messages::seal::{KeyStatus, SealError, SealStatus, Used};
use mssm_messages::{Port, guarded_async};

use crate::attempt::Attempt;
use crate::keeper::{KeeperConfig, Link, RootKeySource};
use crate::record::SealConfigRecord;
use crate::replica::{KeyReplica, Stale};
use crate::roster::{Followed, Order, Roster};
use crate::vault::Vault;

/// How many counted seals may be lost in a crash; far less than the reserve before the bound.
const COUNT_EVERY: u64 = 1 << 20;

/// What the keeper holds. Sealed, it holds no key.
pub(crate) enum State {
    Sealed(Attempt),
    Unsealed(Unsealed),
}

/// What an unsealed keeper holds.
pub(crate) struct Unsealed {
    pub(crate) root: LockedBytes,
    /// The encoded keyring, for replicas that come later.
    pub(crate) keyring: Arc<LockedBytes>,
    pub(crate) newest: TermInfo,
    pub(crate) config: SealConfigRecord,
}

/// What the keeper's handlers and their tasks share on its arbiter; never borrowed across an await.
pub(crate) struct Core {
    pub(crate) source: RootKeySource,
    pub(crate) vault: Vault,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) random: Arc<dyn Random>,
    pub(crate) link: RefCell<Link>,
    pub(crate) state: RefCell<State>,
    roster: RefCell<Roster>,
    pub(crate) index: Option<Port<InstallIndex>>,
    pub(crate) accept_rollback: bool,
    /// What was found while the server was unsealed; it stays sealed until a restart.
    pub(crate) distrusted: RefCell<Option<String>>,
    /// Seals that were reported and are not yet written down.
    pub(crate) uncounted: RefCell<BTreeMap<Term, u64>>,
    /// Held through each change of state.
    turn: Mutex<()>,
}

impl Core {
    pub(crate) fn new(config: KeeperConfig) -> Self {
        Self {
            source: config.root_key,
            vault: Vault::new(config.storage),
            clock: config.clock,
            random: config.random,
            link: RefCell::default(),
            state: RefCell::new(State::Sealed(Attempt::default())),
            roster: RefCell::default(),
            index: config.index,
            accept_rollback: config.accept_rollback,
            distrusted: RefCell::default(),
            uncounted: RefCell::default(),
            turn: Mutex::new(()),
        }
    }

    /// Runs a change of state when its turn comes; a panic in it seals.
    pub(crate) async fn change<T>(
        &self,
        work: impl Future<Output = Result<T, SealError>>,
    ) -> Result<T, SealError> {
        let _turn = self.turn.lock().await;
        match guarded_async(work).await {
            Ok(result) => result,
            Err(panicked) => {
                tracing::error!("a change of the seal panicked: sealing");
                if guarded_async(self.close()).await.is_err() {
                    // Closing panicked too: keys go without ceremony.
                    self.state.replace(State::Sealed(Attempt::default()));
                    self.drop_keys().await;
                    self.close_index().await;
                }
                Err(panicked.into())
            }
        }
    }

    pub(crate) fn link(&self, link: Link) {
        self.link.replace(link);
    }

    pub(crate) fn status(&self) -> Result<SealStatus, SealError> {
        if let State::Unsealed(open) = &*self.state.borrow() {
            return Ok(SealStatus {
                share: None,
                kind: open.config.kind,
                initialized: true,
                sealed: false,
                threshold: open.config.threshold,
                shares: open.config.shares,
                entered: Vec::new(),
                nonce: String::new(),
                cluster: Some(open.config.cluster),
            });
        }
        let config = self.vault.load_config()?;
        let (entered, nonce) = match &*self.state.borrow() {
            State::Sealed(attempt) => (attempt.entered(), attempt.nonce().to_owned()),
            State::Unsealed(_) => Default::default(),
        };
        Ok(SealStatus {
            share: None,
            kind: config.as_ref().map_or(self.source.kind(), |config| config.kind),
            initialized: config.is_some(),
            sealed: true,
            threshold: config.as_ref().map_or(0, |config| config.threshold),
            shares: config.as_ref().map_or(0, |config| config.shares),
            entered,
            nonce,
            cluster: None,
        })
    }

    pub(crate) fn key_status(&self) -> Result<KeyStatus, SealError> {
        match &*self.state.borrow() {
            State::Sealed(_) => Err(SealError::Sealed),
            State::Unsealed(open) => Ok(KeyStatus {
                term: open.newest.term,
                installed_at: open.newest.installed_at,
                encryptions: self.seals(open),
            }),
        }
    }

    /// Takes in a report; true if the keyring should be rewritten (see [`Self::settle`]).
    pub(crate) fn count(&self, used: Used) -> bool {
        let mut uncounted = self.uncounted.borrow_mut();
        let term = uncounted.entry(used.term).or_default();
        *term = term.saturating_add(used.encryptions);
        uncounted.values().sum::<u64>() >= COUNT_EVERY
    }

    /// Takes a replica in at once, so that no order misses it.
    pub(crate) fn register(&self, replica: Addr<KeyReplica>) {
        self.roster.borrow_mut().add(replica);
    }

    /// Gives keys to replicas that came while the server was unsealed.
    pub(crate) async fn refresh(&self) -> Result<(), SealError> {
        let keyring = match &*self.state.borrow() {
            State::Sealed(_) => return Ok(()),
            State::Unsealed(open) => Arc::clone(&open.keyring),
        };
        self.install(keyring).await;
        Ok(())
    }

    pub(crate) fn is_unsealed(&self) -> bool {
        matches!(&*self.state.borrow(), State::Unsealed(_))
    }

    pub(crate) fn seals(&self, open: &Unsealed) -> u64 {
        let uncounted = self.uncounted.borrow().get(&open.newest.term).copied();
        open.newest.seals.saturating_add(uncounted.unwrap_or(0))
    }

    pub(crate) async fn install(&self, keyring: Arc<LockedBytes>) {
        let order = self.roster.borrow_mut().install(keyring);
        self.give(order).await;
    }

    pub(crate) async fn drop_keys(&self) -> Followed {
        let order = self.roster.borrow_mut().drop_keys();
        self.give(order).await
    }

    async fn give<M>(&self, order: Order<M>) -> Followed
    where
        M: Message<Result = Result<Option<Used>, Stale>> + Clone + Send + 'static,
        KeyReplica: Handler<M>,
        <KeyReplica as actix::Actor>::Context: ToEnvelope<KeyReplica, M>,
    {
        let (followed, gone) = order.give().await;
        self.roster.borrow_mut().forget(&gone);
        for used in &followed.used {
            self.count(*used);
        }
        followed
    }
}
