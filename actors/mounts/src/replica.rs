//! The table on one HTTP worker.

use std::sync::Arc;

use actix::{Actor, Addr, Context, Handler};
use mssm_messages::mounts::{
    InstallTable, MountError, MountPorts, MountTable, ReadTable, RegisterTable,
};

use crate::keeper::MountKeeper;

/// Holds the table in force, or none while the server is sealed.
#[derive(Default)]
pub struct MountReplica {
    epoch: u64,
    table: Option<Arc<MountTable>>,
}

impl MountReplica {
    /// Starts a replica on the current arbiter and says how to reach it and the keeper.
    pub fn start(keeper: &Addr<MountKeeper>) -> MountPorts {
        let replica = Actor::start(Self::default());
        // In the keeper's mailbox before this returns, so no table is missed.
        let registration = keeper.send(RegisterTable(replica.clone().recipient()));
        actix_rt::spawn(async move {
            if registration.await.is_err() {
                tracing::error!("mount replica without a keeper");
            }
        });
        MountPorts {
            table: replica.recipient(),
            enable: keeper.clone().into(),
            tune: keeper.clone().into(),
            disable: keeper.clone().into(),
        }
    }
}

impl Actor for MountReplica {
    type Context = Context<Self>;
}

impl Handler<ReadTable> for MountReplica {
    type Result = Result<Arc<MountTable>, MountError>;

    fn handle(&mut self, _msg: ReadTable, _ctx: &mut Self::Context) -> Self::Result {
        self.table.clone().ok_or(MountError::Sealed)
    }
}

impl Handler<InstallTable> for MountReplica {
    type Result = ();

    fn handle(&mut self, msg: InstallTable, _ctx: &mut Self::Context) {
        if msg.epoch > self.epoch {
            self.epoch = msg.epoch;
            self.table = msg.table;
        }
    }
}
