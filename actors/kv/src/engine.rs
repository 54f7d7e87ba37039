//! The actor: hands each message to the function that answers it.

use std::sync::Arc;

use actix::{Actor, Context, Handler, ResponseFuture};
use mssm_domain::{Clock, MountId, RecordPath};
use mssm_messages::engine::{EngineError, SecretsEngine, Unmount};
use mssm_messages::kv::{
    ChangeVersions, DeleteMetadata, DeletePlain, Exists, ListPlain, ListVersioned, PatchVersion,
    ReadConfig, ReadMetadata, ReadPlain, ReadSubkeys, ReadVersion, Space, WriteConfig,
    WriteMetadata, WritePlain, WriteVersion,
};
use mssm_messages::{Barrier, guarded_async};

use crate::{plain, versioned};

/// Answers for static secrets. Holds only the barrier and the clock; sends nothing else.
pub struct KvEngine {
    barrier: Barrier,
    clock: Arc<dyn Clock>,
}

impl KvEngine {
    /// An engine over the barrier of its own arbiter.
    pub fn new(barrier: Barrier, clock: Arc<dyn Clock>) -> Self {
        Self { barrier, clock }
    }
}

impl Actor for KvEngine {
    type Context = Context<Self>;
}

impl SecretsEngine for KvEngine {}

impl Handler<Unmount> for KvEngine {
    type Result = ResponseFuture<Result<(), EngineError>>;

    fn handle(&mut self, msg: Unmount, _ctx: &mut Self::Context) -> Self::Result {
        let barrier = self.barrier.clone();
        Box::pin(async move { guarded_async(forget(&barrier, msg.mount)).await? })
    }
}

async fn forget(barrier: &Barrier, mount: MountId) -> Result<(), EngineError> {
    barrier.delete_all(&Space::Mount(mount).folder()).await?;
    barrier.delete_all(&RecordPath::new(&["kv2", &mount.to_string()])).await?;
    Ok(())
}

macro_rules! answer {
    ($($message:ty => $function:path,)*) => {
        $(impl Handler<$message> for KvEngine {
            type Result = ResponseFuture<<$message as actix::Message>::Result>;

            fn handle(&mut self, msg: $message, _ctx: &mut Self::Context) -> Self::Result {
                let (barrier, clock) = (self.barrier.clone(), Arc::clone(&self.clock));
                Box::pin(async move {
                    guarded_async($function(&barrier, clock.as_ref(), msg)).await?
                })
            }
        })*
    };
}

answer! {
    ReadPlain => plain::read,
    WritePlain => plain::write,
    DeletePlain => plain::delete,
    ListPlain => plain::list,
    Exists => versioned::exists,
    ReadVersion => versioned::read,
    WriteVersion => versioned::write,
    PatchVersion => versioned::patch,
    ChangeVersions => versioned::change,
    ReadSubkeys => versioned::subkeys,
    ReadMetadata => versioned::read_metadata,
    WriteMetadata => versioned::write_metadata,
    DeleteMetadata => versioned::delete_metadata,
    ListVersioned => versioned::list,
    ReadConfig => versioned::read_config,
    WriteConfig => versioned::write_config,
}
