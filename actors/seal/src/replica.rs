//! The key replica: seals, opens, hides and hashes for whoever shares its arbiter.

use std::sync::Arc;

use actix::{Actor, Addr, AsyncContext, Context, Handler, Message};
use mssm_crypto::keyring::Keyring;
use mssm_domain::{Clock, Random, SecretBytes, StoredKey, StoredRecord};
use mssm_locked::{LockedBytes, wipe_stack};
use mssm_messages::guarded;
use mssm_messages::keys::{Fingerprint, HideNames, KeyError, KeysPort, Open, Seal, ShowNames};
use mssm_messages::seal::Used;

use crate::keeper::SealKeeper;
use crate::keyset::KeySet;

/// How many seals go by between two reports to the keeper.
const REPORT_EVERY: u64 = 65_536;

/// Holds a copy of the keys for one arbiter and uses them only inside a synchronous handler, so
/// that its acknowledgement of the order to wipe them means that no use is in progress.
///
/// Sends [`Used`] to the keeper now and then. Knows nothing of what it seals.
pub struct KeyReplica {
    keeper: Addr<SealKeeper>,
    clock: Arc<dyn Clock>,
    random: Arc<dyn Random>,
    /// The newest epoch seen; what is not newer is refused.
    epoch: u64,
    keys: Option<KeySet>,
    unreported: u64,
}

impl KeyReplica {
    /// Starts a replica on the current arbiter and says how to reach it; it asks the keeper for
    /// keys by itself and gets them while the server is unsealed.
    pub fn start(
        keeper: &Addr<SealKeeper>,
        clock: Arc<dyn Clock>,
        random: Arc<dyn Random>,
    ) -> KeysPort {
        let replica = Actor::start(Self::new(keeper.clone(), clock, random));
        // In the keeper's mailbox before this returns: whatever the caller asks of the keeper next
        // finds the replica there.
        register(keeper, replica.clone());
        KeysPort {
            seal: replica.clone().recipient(),
            open: replica.clone().recipient(),
            hide: replica.clone().recipient(),
            show: replica.clone().recipient(),
            fingerprint: replica.recipient(),
        }
    }

    fn new(keeper: Addr<SealKeeper>, clock: Arc<dyn Clock>, random: Arc<dyn Random>) -> Self {
        Self { keeper, clock, random, epoch: 0, keys: None, unreported: 0 }
    }

    /// Runs work with the keys. A panic in it costs its caller an answer and this replica its keys,
    /// which may be half way through a computation; the keeper sends them anew.
    fn with_keys<T>(
        &mut self,
        ctx: &Context<Self>,
        work: impl FnOnce(&mut KeySet, &dyn Clock, &dyn Random) -> Result<T, KeyError>,
    ) -> Result<T, KeyError> {
        let keys = self.keys.as_mut().ok_or(KeyError::Sealed)?;
        let (clock, random) = (self.clock.as_ref(), self.random.as_ref());
        guarded(|| work(keys, clock, random)).unwrap_or_else(|_| {
            self.start_over(ctx);
            Err(KeyError::Damaged)
        })
    }

    fn start_over(&mut self, ctx: &Context<Self>) {
        self.forget();
        register(&self.keeper, ctx.address());
    }

    /// Wipes the keys, and what was opened, sealed and parsed on this thread: that went through buffers
    /// on its stack. Those below this frame are wiped now, those of less depth by a task of its own.
    fn forget(&mut self) {
        self.keys = None;
        wipe_stack();
        actix_rt::spawn(async { wipe_stack() });
    }

    fn count(&mut self, seals: u64) {
        self.unreported = self.unreported.saturating_add(seals);
        let Some(keys) = &self.keys else { return };
        if self.unreported < REPORT_EVERY {
            return;
        }
        let used = Used { term: keys.newest(), encryptions: self.unreported };
        // A full mailbox keeps the count for the next time; the reserve before the bound is large.
        if self.keeper.try_send(used).is_ok() {
            self.unreported = 0;
        }
    }

    fn check_epoch(&mut self, epoch: u64) -> Result<(), Stale> {
        if epoch <= self.epoch {
            return Err(Stale);
        }
        self.epoch = epoch;
        Ok(())
    }

    /// What was sealed since the last report, which now is the caller's to count.
    fn take_unreported(&mut self) -> Option<Used> {
        let term = self.keys.as_ref()?.newest();
        Some(Used { term, encryptions: std::mem::take(&mut self.unreported) })
    }
}

impl Actor for KeyReplica {
    type Context = Context<Self>;
}

impl Handler<Seal> for KeyReplica {
    type Result = Result<Vec<(StoredKey, StoredRecord)>, KeyError>;

    fn handle(&mut self, msg: Seal, ctx: &mut Self::Context) -> Self::Result {
        let seals = msg.0.len() as u64;
        let sealed = self.with_keys(ctx, |keys, clock, random| {
            let now = clock.now();
            msg.0.iter().map(|plain| keys.seal(plain, now, random)).collect()
        })?;
        self.count(seals);
        Ok(sealed)
    }
}

impl Handler<Open> for KeyReplica {
    type Result = Result<Vec<Result<SecretBytes, KeyError>>, KeyError>;

    fn handle(&mut self, msg: Open, ctx: &mut Self::Context) -> Self::Result {
        self.with_keys(ctx, |keys, _, _| {
            Ok(msg.0.iter().map(|(key, record)| keys.open(key, record)).collect())
        })
    }
}

impl Handler<HideNames> for KeyReplica {
    type Result = Result<Vec<StoredKey>, KeyError>;

    fn handle(&mut self, msg: HideNames, ctx: &mut Self::Context) -> Self::Result {
        self.with_keys(ctx, |keys, _, _| msg.0.iter().map(|path| keys.hide(path)).collect())
    }
}

impl Handler<ShowNames> for KeyReplica {
    type Result = Result<Vec<Result<String, KeyError>>, KeyError>;

    fn handle(&mut self, msg: ShowNames, ctx: &mut Self::Context) -> Self::Result {
        self.with_keys(ctx, |keys, _, _| Ok(msg.0.iter().map(|key| keys.show(key)).collect()))
    }
}

impl Handler<Fingerprint> for KeyReplica {
    type Result = Result<Vec<[u8; 32]>, KeyError>;

    fn handle(&mut self, msg: Fingerprint, ctx: &mut Self::Context) -> Self::Result {
        self.with_keys(ctx, |keys, _, _| {
            Ok(msg.items.iter().map(|item| keys.fingerprint(msg.purpose, item)).collect())
        })
    }
}

fn register(keeper: &Addr<SealKeeper>, replica: Addr<KeyReplica>) {
    let registration = keeper.send(Register(replica));
    actix_rt::spawn(async move {
        if registration.await.is_err() {
            tracing::error!("key replica without a keeper");
        }
    });
}

/// From a replica to the keeper: it is there and wants keys.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct Register(pub(crate) Addr<KeyReplica>);

/// The keeper's order was overtaken by a newer one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Stale;

/// From the keeper: these are the keys now. Replies what was sealed with those before.
#[derive(Clone, Message)]
#[rtype(result = "Result<Option<Used>, Stale>")]
pub(crate) struct Install {
    pub(crate) epoch: u64,
    /// The encoded keyring.
    pub(crate) keyring: Arc<LockedBytes>,
}

impl Handler<Install> for KeyReplica {
    type Result = Result<Option<Used>, Stale>;

    fn handle(&mut self, msg: Install, _ctx: &mut Self::Context) -> Self::Result {
        self.check_epoch(msg.epoch)?;
        let used = self.take_unreported();
        // EXPOSE: expanded into the keys that this replica holds.
        let keys = guarded(|| Keyring::decode(msg.keyring.expose()).map(|ring| KeySet::new(&ring)));
        self.keys = keys.ok().and_then(Result::ok);
        if self.keys.is_none() {
            tracing::error!("a keyring could not be installed");
        }
        Ok(used)
    }
}

/// From the keeper: wipe the keys. Replies once they are wiped, with what was sealed.
#[derive(Clone, Copy, Message)]
#[rtype(result = "Result<Option<Used>, Stale>")]
pub(crate) struct DropKeys {
    pub(crate) epoch: u64,
}

impl Handler<DropKeys> for KeyReplica {
    type Result = Result<Option<Used>, Stale>;

    fn handle(&mut self, msg: DropKeys, _ctx: &mut Self::Context) -> Self::Result {
        self.check_epoch(msg.epoch)?;
        let used = self.take_unreported();
        self.forget();
        Ok(used)
    }
}

/// From the keeper, to one that did not answer in time and counts as gone: wipe the keys, and come
/// back as a new one.
#[derive(Clone, Copy, Message)]
#[rtype(result = "()")]
pub(crate) struct StartOver;

impl Handler<StartOver> for KeyReplica {
    type Result = ();

    fn handle(&mut self, _msg: StartOver, ctx: &mut Self::Context) {
        self.start_over(ctx);
    }
}

#[cfg(test)]
mod tests {
    use mssm_domain::RecordPath;
    use mssm_testkit::{MemoryStore, SeededRandom, TestClock};

    use super::*;
    use crate::{KeeperConfig, RootKeySource};

    fn replica() -> KeyReplica {
        let (clock, random) = (Arc::new(TestClock::new()), Arc::new(SeededRandom::new(3)));
        let keeper = SealKeeper::new(KeeperConfig {
            root_key: RootKeySource::Shamir,
            storage: MemoryStore::new().port(),
            clock: clock.clone(),
            random: random.clone(),
            index: None,
            accept_rollback: false,
        });
        KeyReplica::new(keeper.start(), clock, random)
    }

    fn keyring() -> Keyring {
        Keyring::generate(TestClock::START, &SeededRandom::new(4))
    }

    #[actix_rt::test]
    async fn orders_that_are_not_newer_are_refused() {
        let replica = replica().start();
        let keyring = Arc::new(LockedBytes::copy_of(keyring().encode().expose()).unwrap());
        let install = |epoch| Install { epoch, keyring: Arc::clone(&keyring) };
        let hide = || HideNames(vec![RecordPath::new(&["a"])]);
        assert!(replica.send(install(2)).await.unwrap().is_ok());
        for epoch in [0, 1, 2] {
            assert_eq!(replica.send(DropKeys { epoch }).await.unwrap().err(), Some(Stale));
        }
        assert!(replica.send(hide()).await.unwrap().is_ok());
        assert!(replica.send(DropKeys { epoch: 3 }).await.unwrap().is_ok());
        assert_eq!(replica.send(hide()).await.unwrap(), Err(KeyError::Sealed));
        assert_eq!(replica.send(install(3)).await.unwrap().err(), Some(Stale));
        assert_eq!(replica.send(hide()).await.unwrap(), Err(KeyError::Sealed));
    }

    #[actix_rt::test]
    async fn seals_are_reported_now_and_then_and_with_the_last_order() {
        let mut replica = replica();
        replica.keys = Some(KeySet::new(&keyring()));
        replica.count(REPORT_EVERY - 1);
        assert_eq!(replica.unreported, REPORT_EVERY - 1);
        replica.count(1);
        assert_eq!(replica.unreported, 0);
        replica.count(5);
        let used = replica.take_unreported().unwrap();
        assert_eq!((used.encryptions, used.term.number()), (5, 1));
        assert_eq!(replica.unreported, 0);
    }
}
