//! What the keeper and its replicas say to each other, and to nobody else.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use actix::{Message, MessageResponse, Recipient};
use mssm_domain::{Caller, TokenId};
use mssm_messages::access::{AccessError, TokenView};

use crate::policies::PolicySet;

/// From a replica: tell me everything from now on. Replies what is in force.
#[derive(Message)]
#[rtype(result = "Policed")]
pub(crate) struct Register {
    /// Takes policies.
    pub(crate) install: Recipient<Install>,
    /// Takes what must be forgotten.
    pub(crate) forget: Recipient<Forget>,
    /// Set when the keeper gives the replica up, since it did not answer in time.
    pub(crate) retired: Arc<AtomicBool>,
}

/// The policies in force (`None`: sealed) and their number, which grows.
#[derive(Clone, Debug, MessageResponse)]
pub(crate) struct Policed {
    pub(crate) epoch: u64,
    pub(crate) policies: Option<Arc<PolicySet>>,
}

/// To a replica: these policies from now on. Older ones than what is there are ignored.
#[derive(Clone, Debug, Message)]
#[rtype(result = "()")]
pub(crate) struct Install(pub(crate) Policed);

/// To a replica: these tokens have changed or ended; they and their descendants are to be read anew.
#[derive(Clone, Debug, Message)]
#[rtype(result = "()")]
pub(crate) struct Forget(pub(crate) Arc<[TokenId]>);

/// From a replica: take down one use of this token, durably.
#[derive(Clone, Copy, Debug, Message)]
#[rtype(result = "Result<Spent, AccessError>")]
pub(crate) struct Spend(pub(crate) TokenId);

/// A use taken down.
#[derive(Clone, Debug)]
pub(crate) struct Spent {
    /// Who asks.
    pub(crate) caller: Caller,
    /// What the token says of its holder.
    pub(crate) metadata: BTreeMap<String, String>,
    /// The token as this leaves it, if it was the last.
    pub(crate) last_view: Option<TokenView>,
}
