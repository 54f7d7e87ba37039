//! Puts the connections and roles of the configuration file in place whenever the server opens.

use std::rc::Rc;
use std::time::Duration;

use actix::{Actor, Context, Handler, Recipient, ResponseFuture};
use mssm_domain::{CanonicalPath, MountId};
use mssm_messages::Port;
use mssm_messages::engine::EngineKind;
use mssm_messages::minter::Configure;
use mssm_messages::mounts::ReadTable;
use mssm_messages::seal::{Opened, StageError};

use crate::config::DatabaseSettings;

/// How long the minter may take to store definitions.
const DEADLINE: Duration = Duration::from_secs(10);

/// Holds what the file says of databases; tells the minter of the default `db/` mount.
pub(crate) struct ConfiguredDatabases {
    settings: Rc<DatabaseSettings>,
    table: Recipient<ReadTable>,
    minter: Port<Configure>,
}

impl ConfiguredDatabases {
    /// Definitions that are not in place yet.
    pub(crate) fn new(
        settings: DatabaseSettings,
        table: Recipient<ReadTable>,
        minter: Port<Configure>,
    ) -> Self {
        Self { settings: Rc::new(settings), table, minter }
    }
}

impl Actor for ConfiguredDatabases {
    type Context = Context<Self>;
}

impl Handler<Opened> for ConfiguredDatabases {
    type Result = ResponseFuture<Result<(), StageError>>;

    fn handle(&mut self, _msg: Opened, _ctx: &mut Self::Context) -> Self::Result {
        let settings = Rc::clone(&self.settings);
        let (table, minter) = (self.table.clone(), self.minter.clone());
        Box::pin(async move {
            let databases = settings.read().map_err(|error| StageError(error.to_string()))?;
            let Some(mount) = default_mount(&table).await? else {
                tracing::warn!(
                    "no database mount at db/, so the configured databases are left out"
                );
                return Ok(());
            };
            let (connections, roles) = (databases.connections, databases.roles);
            let configured = minter.ask(Configure { mount, connections, roles }, DEADLINE).await;
            let warnings = configured
                .map_err(|error| StageError(error.to_string()))?
                .map_err(|error| StageError(error.to_string()))?;
            for warning in warnings {
                tracing::warn!(warning, "configured databases");
            }
            Ok(())
        })
    }
}

async fn default_mount(table: &Recipient<ReadTable>) -> Result<Option<MountId>, StageError> {
    let stage = |error: &dyn std::fmt::Display| StageError(error.to_string());
    let table = table.send(ReadTable).await.map_err(|error| stage(&error))?;
    let table = table.map_err(|error| stage(&error))?;
    let path = CanonicalPath::parse("db/").map_err(|error| stage(&error))?;
    let mount = table.resolve(&path).map(|(mount, _)| mount);
    Ok(mount.filter(|mount| mount.kind == EngineKind::Database).map(|mount| mount.id))
}
