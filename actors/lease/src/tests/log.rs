//! The audit that tests listen to.

use actix::{Actor, Context, Handler};
use mssm_domain::Timestamp;
use mssm_messages::audit::{Append, AuditError, Entry};

use super::rig::Shared;

/// The audit: takes events unless it is blocked.
#[derive(Default)]
pub(crate) struct Log {
    pub(crate) names: Vec<(&'static str, bool)>,
    pub(crate) times: Vec<Timestamp>,
    pub(crate) blocked: bool,
}

pub(super) struct FakeAudit(pub(super) Shared<Log>);

impl Actor for FakeAudit {
    type Context = Context<Self>;
}

impl Handler<Append> for FakeAudit {
    type Result = Result<(), AuditError>;

    fn handle(&mut self, msg: Append, _ctx: &mut Self::Context) -> Self::Result {
        let mut log = self.0.lock().unwrap();
        if log.blocked {
            return Err(AuditError::Blocked("told to".to_owned()));
        }
        for entry in msg.0 {
            if let Entry::Event { event, time } = entry {
                log.times.push(time);
                let late = event.details.iter().any(|(name, _)| *name == "late");
                log.names.push((event.name, late));
            }
        }
        Ok(())
    }
}
