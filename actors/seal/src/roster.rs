//! All replicas, told together: an order is done when each has followed or is gone.

use std::sync::Arc;
use std::time::Duration;

use actix::dev::ToEnvelope;
use actix::{Addr, Handler, MailboxError, Message};
use futures_util::future::join_all;
use mssm_locked::LockedBytes;
use mssm_messages::seal::Used;

use crate::replica::{DropKeys, Install, KeyReplica, Stale, StartOver};

/// How long a replica may take to acknowledge. Nothing on an arbiter takes more than 1 ms, so one
/// that is silent for a whole second is stuck.
const DEADLINE: Duration = Duration::from_secs(1);

/// The replicas that are there, and the number of the newest order.
#[derive(Default)]
pub(crate) struct Roster {
    epoch: u64,
    replicas: Vec<Addr<KeyReplica>>,
}

/// What an order brought back.
#[derive(Default)]
pub(crate) struct Followed {
    /// What was sealed and not reported before.
    pub(crate) used: Vec<Used>,
    /// How many did not answer in time; they wipe their keys as soon as they wake.
    pub(crate) silent: usize,
}

impl Roster {
    /// Takes a replica in, once.
    pub(crate) fn add(&mut self, replica: Addr<KeyReplica>) {
        if !self.replicas.contains(&replica) {
            self.replicas.push(replica);
        }
    }

    /// An order to all to install a keyring; await it after the borrow of this has ended.
    pub(crate) fn install(&mut self, keyring: Arc<LockedBytes>) -> Order<Install> {
        self.epoch += 1;
        self.order(Install { epoch: self.epoch, keyring })
    }

    /// An order to all to wipe their keys.
    pub(crate) fn drop_keys(&mut self) -> Order<DropKeys> {
        self.epoch += 1;
        self.order(DropKeys { epoch: self.epoch })
    }

    /// Forgets those that are gone.
    pub(crate) fn forget(&mut self, gone: &[Addr<KeyReplica>]) {
        self.replicas.retain(|replica| !gone.contains(replica));
    }

    fn order<M>(&self, message: M) -> Order<M> {
        Order { message, replicas: self.replicas.clone() }
    }
}

/// A message for several replicas.
pub(crate) struct Order<M> {
    message: M,
    replicas: Vec<Addr<KeyReplica>>,
}

impl<M> Order<M>
where
    M: Message<Result = Result<Option<Used>, Stale>> + Clone + Send + 'static,
    KeyReplica: Handler<M>,
    <KeyReplica as actix::Actor>::Context: ToEnvelope<KeyReplica, M>,
{
    /// Gives the order; returns what came back, and who is gone.
    pub(crate) async fn give(self) -> (Followed, Vec<Addr<KeyReplica>>) {
        let asked = self.replicas.iter().map(|replica| {
            let message = self.message.clone();
            async move { (replica, replica.send(message).timeout(DEADLINE).await) }
        });
        let (mut followed, mut gone) = (Followed::default(), Vec::new());
        for (replica, answer) in join_all(asked).await {
            match answer {
                Ok(Ok(used)) => followed.used.extend(used),
                // A newer order has overtaken this one.
                Ok(Err(Stale)) => {}
                Err(MailboxError::Closed) => gone.push(replica.clone()),
                Err(MailboxError::Timeout) => {
                    tracing::error!("a key replica does not answer: it must start over");
                    followed.silent += 1;
                    start_over(replica.clone());
                    gone.push(replica.clone());
                }
            }
        }
        (followed, gone)
    }
}

/// Has a silent replica wipe its keys as soon as it wakes, however late.
fn start_over(replica: Addr<KeyReplica>) {
    actix_rt::spawn(async move {
        // An error means that it is gone.
        let _ = replica.send(StartOver).await;
    });
}
