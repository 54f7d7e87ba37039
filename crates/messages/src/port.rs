//! How one actor reaches another: a bounded way to hand over a message and wait for its reply.

use std::fmt;
use std::time::Duration;

use actix::dev::ToEnvelope;
use actix::{Actor, Addr, Handler, Message, Recipient};
use tokio::sync::{mpsc, oneshot};

/// Why a message did not get its reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PortError {
    /// The queue is full; nothing was handed over.
    #[error("busy")]
    Busy,
    /// The receiver is gone.
    #[error("stopped")]
    Stopped,
    /// No reply in time; whether the message was handled is unknown.
    #[error("no reply in time")]
    TimedOut,
}

/// A message in the queue of an actor that has a thread of its own (storage, audit).
pub struct Letter<M: Message> {
    /// What it says.
    pub message: M,
    /// Where the reply goes; nobody may be waiting any more.
    pub reply: oneshot::Sender<M::Result>,
}

enum Way<M: Message + Send + 'static>
where
    M::Result: Send,
{
    Actor(Recipient<M>),
    Thread(mpsc::Sender<Letter<M>>),
}

/// A way to send `M` to whoever handles it.
pub struct Port<M: Message + Send + 'static>(Way<M>)
where
    M::Result: Send;

impl<M: Message + Send + 'static> Clone for Port<M>
where
    M::Result: Send,
{
    fn clone(&self) -> Self {
        Self(match &self.0 {
            Way::Actor(recipient) => Way::Actor(recipient.clone()),
            Way::Thread(queue) => Way::Thread(queue.clone()),
        })
    }
}

impl<M: Message + Send + 'static> fmt::Debug for Port<M>
where
    M::Result: Send,
{
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(std::any::type_name::<Self>())
    }
}

impl<A, M> From<Addr<A>> for Port<M>
where
    A: Actor + Handler<M>,
    A::Context: ToEnvelope<A, M>,
    M: Message + Send + 'static,
    M::Result: Send,
{
    fn from(address: Addr<A>) -> Self {
        Self(Way::Actor(address.recipient()))
    }
}

impl<M: Message + Send + 'static> From<Recipient<M>> for Port<M>
where
    M::Result: Send,
{
    fn from(recipient: Recipient<M>) -> Self {
        Self(Way::Actor(recipient))
    }
}

impl<M: Message + Send + 'static> Port<M>
where
    M::Result: Send,
{
    /// A port to an actor with a thread of its own, and the queue that the thread reads.
    ///
    /// `bound` letters may wait; one more is refused as [`PortError::Busy`].
    pub fn to_thread(bound: usize) -> (Self, mpsc::Receiver<Letter<M>>) {
        let (sender, receiver) = mpsc::channel(bound);
        (Self(Way::Thread(sender)), receiver)
    }

    /// Hands the message over and waits for the reply, at most `deadline` long.
    ///
    /// If the caller goes away, an actor that has not begun yet may skip the message: for what
    /// must happen there is [`Self::commit`].
    pub async fn ask(&self, message: M, deadline: Duration) -> Result<M::Result, PortError> {
        match &self.0 {
            Way::Actor(recipient) => {
                recipient.send(message).timeout(deadline).await.map_err(|error| match error {
                    actix::MailboxError::Closed => PortError::Stopped,
                    actix::MailboxError::Timeout => PortError::TimedOut,
                })
            }
            Way::Thread(queue) => {
                let reply = Self::post(queue, message)?;
                match tokio::time::timeout(deadline, reply).await {
                    Ok(reply) => reply.map_err(|_| PortError::Stopped),
                    Err(_) => Err(PortError::TimedOut),
                }
            }
        }
    }

    /// Hands over what must happen: it is handled to its end even if the caller goes away.
    ///
    /// Waits for the reply without a deadline of its own; the receiver has one.
    pub async fn commit(&self, message: M) -> Result<M::Result, PortError> {
        match &self.0 {
            Way::Actor(recipient) => {
                let reply = recipient.send(message);
                // A task of its own holds the reply's receiver, so the message is never skipped.
                match actix_rt::spawn(reply).await {
                    Ok(reply) => reply.map_err(|_| PortError::Stopped),
                    Err(_) => Err(PortError::Stopped),
                }
            }
            Way::Thread(queue) => Self::post(queue, message)?.await.map_err(|_| PortError::Stopped),
        }
    }

    fn post(
        queue: &mpsc::Sender<Letter<M>>,
        message: M,
    ) -> Result<oneshot::Receiver<M::Result>, PortError> {
        let (reply, receiver) = oneshot::channel();
        queue.try_send(Letter { message, reply }).map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => PortError::Busy,
            mpsc::error::TrySendError::Closed(_) => PortError::Stopped,
        })?;
        Ok(receiver)
    }
}
