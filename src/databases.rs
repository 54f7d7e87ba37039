//! Puts the connections, roles and static roles of the configuration file in place whenever the server opens.

use std::rc::Rc;
use std::time::Duration;

use actix::{Actor, Context, Handler, Recipient, ResponseFuture};
use mssm_domain::{CanonicalPath, MountId, RoleName};
use mssm_messages::Port;
use mssm_messages::engine::{EngineError, EngineKind};
use mssm_messages::minter::{Configure, TryConfigured};
use mssm_messages::mounts::ReadTable;
use mssm_messages::rotation::{StaticRolePatch, WriteStaticRole};
use mssm_messages::seal::{Opened, StageError};

use crate::config::DatabaseSettings;

/// The mount that the file's databases are of.
const MOUNT: &str = "db/";
/// How long the minter may take to store definitions.
const DEADLINE: Duration = Duration::from_secs(10);
/// How long it may take to change a static role's password.
const CHANGE_DEADLINE: Duration = Duration::from_secs(50);
/// The pause before a static role is tried again whose database is not there.
const PAUSE: Duration = Duration::from_secs(5);

/// Holds what the file says of databases; tells the minter of the default `db/` mount.
pub(crate) struct ConfiguredDatabases {
    settings: Rc<DatabaseSettings>,
    table: Recipient<ReadTable>,
    minter: Port<Configure>,
    statics: Port<WriteStaticRole>,
}

impl ConfiguredDatabases {
    /// Definitions that are not in place yet.
    pub(crate) fn new(
        settings: DatabaseSettings,
        table: Recipient<ReadTable>,
        minter: Port<Configure>,
        statics: Port<WriteStaticRole>,
    ) -> Self {
        Self { settings: Rc::new(settings), table, minter, statics }
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
        let statics = self.statics.clone();
        Box::pin(async move {
            let databases = settings.read().map_err(|error| StageError(error.to_string()))?;
            let Some(mount) = default_mount(&table).await? else {
                tracing::warn!(
                    "no database mount at db/, so the configured databases are left out"
                );
                return Ok(());
            };
            let (connections, roles) = (databases.connections, databases.roles);
            let prefix = MOUNT.to_owned();
            let configure = Configure { mount, prefix, connections, roles };
            let configured = minter.ask(configure, DEADLINE).await;
            let warnings = configured
                .map_err(|error| StageError(error.to_string()))?
                .map_err(|error| StageError(error.to_string()))?;
            for warning in warnings {
                tracing::warn!(warning, "configured databases");
            }
            // The start does not wait for databases, and these need theirs.
            actix::spawn(async move {
                for (name, patch) in databases.static_roles {
                    write_static(&statics, mount, name, patch).await;
                }
            });
            Ok(())
        })
    }
}

/// Has the minter try what the file defines; told behind the lease manager, since trials need leases.
pub(crate) struct ConfiguredTrials(pub(crate) Port<TryConfigured>);

impl Actor for ConfiguredTrials {
    type Context = Context<Self>;
}

impl Handler<Opened> for ConfiguredTrials {
    type Result = ResponseFuture<Result<(), StageError>>;

    fn handle(&mut self, _msg: Opened, _ctx: &mut Self::Context) -> Self::Result {
        let minter = self.0.clone();
        Box::pin(async move {
            let begun = minter.ask(TryConfigured, DEADLINE).await;
            let begun = begun.map_err(|error| StageError(error.to_string()))?;
            begun.map_err(|error| StageError(error.to_string()))
        })
    }
}

async fn default_mount(table: &Recipient<ReadTable>) -> Result<Option<MountId>, StageError> {
    let stage = |error: &dyn std::fmt::Display| StageError(error.to_string());
    let table = table.send(ReadTable).await.map_err(|error| stage(&error))?;
    let table = table.map_err(|error| stage(&error))?;
    let path = CanonicalPath::parse(MOUNT).map_err(|error| stage(&error))?;
    let mount = table.resolve(&path).map(|(mount, _)| mount);
    Ok(mount.filter(|mount| mount.kind == EngineKind::Database).map(|mount| mount.id))
}

/// Stores a static role, however long its database is away; ends when the server is sealed.
async fn write_static(
    statics: &Port<WriteStaticRole>,
    mount: MountId,
    name: RoleName,
    patch: StaticRolePatch,
) {
    let mut told = false;
    loop {
        let write = WriteStaticRole { mount, name: name.clone(), patch: patch.clone() };
        let why = match statics.ask(write, CHANGE_DEADLINE).await {
            Ok(Ok(warnings)) => {
                for warning in warnings {
                    tracing::warn!(
                        role = name.as_str(),
                        warning,
                        "a static role of the configuration file"
                    );
                }
                return;
            }
            Ok(Err(EngineError::Unavailable(why))) => why,
            Ok(Err(error)) => {
                let role = name.as_str();
                tracing::warn!(role, %error, "a static role of the configuration file is not in place");
                return;
            }
            Err(error) => error.to_string(),
        };
        if !told {
            let role = name.as_str();
            tracing::warn!(
                role,
                why,
                "a static role of the configuration file waits for its database"
            );
            told = true;
        }
        tokio::time::sleep(PAUSE).await;
    }
}
