//! What was handed out with an answer, and ends if the answer does not reach its caller.

use std::fmt;

use actix::Arbiter;
use mssm_domain::{Accessor, LeaseId};
use mssm_messages::access::{RevokeToken, TokenRef};
use mssm_messages::lease::Lost;
use mssm_messages::{Port, PortError};

enum What {
    Lease(LeaseId, Port<Lost>),
    Token(Accessor, Port<RevokeToken>),
}

/// Ends a lease or a token when it is dropped before [`Self::delivered`]: whoever loses the answer,
/// be it a closed connection, a full audit log or a panic, loses this with it.
pub(crate) struct Handed(Option<What>);

impl Handed {
    /// Watches over a lease.
    pub(crate) fn lease(lease: LeaseId, lost: Port<Lost>) -> Self {
        Self(Some(What::Lease(lease, lost)))
    }

    /// Watches over a token.
    pub(crate) fn token(accessor: Accessor, revoke: Port<RevokeToken>) -> Self {
        Self(Some(What::Token(accessor, revoke)))
    }

    /// The answer has left: nothing is to be ended.
    pub(crate) fn delivered(&mut self) {
        self.0 = None;
    }
}

impl fmt::Debug for Handed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Handed(..)")
    }
}

impl Drop for Handed {
    fn drop(&mut self) {
        let Some(what) = self.0.take() else { return };
        let ending = async move {
            let ended: Result<(), String> = match what {
                What::Lease(lease, port) => {
                    tracing::warn!(%lease, "the answer was lost, so its lease ends unless it is shared or has a key");
                    flat(port.commit(Lost { lease }).await)
                }
                What::Token(accessor, port) => {
                    tracing::warn!(%accessor, "the answer was lost, so its token ends");
                    let token = TokenRef::Accessor(accessor);
                    flat(
                        port.commit(RevokeToken { token, keep_children: false })
                            .await
                            .map(|reply| reply.map(|_| ())),
                    )
                }
            };
            if let Err(error) = ended {
                tracing::error!(%error, "what was handed out could not be ended; its expiry will");
            }
        };
        // A drop may happen while the thread goes down: then its expiry ends it.
        if !Arbiter::try_current().is_some_and(|arbiter| arbiter.spawn(ending)) {
            tracing::error!("an answer was lost while stopping; its expiry ends what it held");
        }
    }
}

fn flat<E: std::error::Error>(reply: Result<Result<(), E>, PortError>) -> Result<(), String> {
    match reply {
        Ok(Ok(())) => Ok(()),
        Ok(Err(error)) => Err(error.to_string()),
        Err(error) => Err(error.to_string()),
    }
}
