//! Writes down what the server does by itself: it started, it was opened, it is closed.

use std::sync::Arc;

use actix::{Actor, Context, Handler, Message, ResponseFuture};
use mssm_domain::Clock;
use mssm_messages::Port;
use mssm_messages::audit::{Append, Entry, Event};
use mssm_messages::seal::{Closing, Opened, StageError};

/// Sends events to the audit log. Holds nothing.
pub(crate) struct Chronicle {
    audit: Port<Append>,
    clock: Arc<dyn Clock>,
}

impl Chronicle {
    /// A chronicle over the audit log.
    pub(crate) fn new(audit: Port<Append>, clock: Arc<dyn Clock>) -> Self {
        Self { audit, clock }
    }

    fn note(
        &self,
        name: &'static str,
        details: Vec<(&'static str, String)>,
    ) -> ResponseFuture<Result<(), StageError>> {
        let entry = Entry::Event { time: self.clock.now(), event: Event { name, details } };
        let audit = self.audit.clone();
        Box::pin(async move {
            let written = audit.commit(Append(vec![entry])).await;
            let written = written.map_err(|error| StageError(error.to_string()))?;
            written.map_err(|error| StageError(error.to_string()))
        })
    }
}

impl Actor for Chronicle {
    type Context = Context<Self>;
}

impl Handler<Opened> for Chronicle {
    type Result = ResponseFuture<Result<(), StageError>>;

    fn handle(&mut self, msg: Opened, _ctx: &mut Self::Context) -> Self::Result {
        self.note("unsealed", vec![("cluster", msg.cluster.to_string())])
    }
}

impl Handler<Closing> for Chronicle {
    type Result = ResponseFuture<Result<(), StageError>>;

    fn handle(&mut self, _msg: Closing, _ctx: &mut Self::Context) -> Self::Result {
        self.note("sealing", Vec::new())
    }
}

/// Something else that happened.
#[derive(Clone, Debug, Message)]
#[rtype(result = "Result<(), StageError>")]
pub(crate) struct Note {
    /// What, in kebab case.
    pub(crate) name: &'static str,
    /// Public circumstances.
    pub(crate) details: Vec<(&'static str, String)>,
}

impl Handler<Note> for Chronicle {
    type Result = ResponseFuture<Result<(), StageError>>;

    fn handle(&mut self, msg: Note, _ctx: &mut Self::Context) -> Self::Result {
        self.note(msg.name, msg.details)
    }
}
