//! Roles: written over what is there, removed.

use std::rc::Rc;
use std::sync::Arc;

use mssm_messages::Changes;
use mssm_messages::engine::EngineError;
use mssm_messages::jwt::{DeleteRole, WriteRole};

use super::Core;
use crate::record;
use crate::role::{Role, check_client, key_of};

/// The most roles of a mount: all are held in memory by every worker.
const ROLES_MAX: usize = 10_000;

impl Core {
    pub(super) async fn write_role(
        self: Rc<Self>,
        msg: WriteRole,
    ) -> Result<Vec<String>, EngineError> {
        let _turn = self.turn().await?;
        let mut state = self.mount(msg.mount)?.changed();
        let before = state.roles.get(&msg.name).map(Arc::clone);
        if before.is_none() && state.roles.len() >= ROLES_MAX {
            return Err(EngineError::Invalid(format!("there are {ROLES_MAX} roles already")));
        }
        let key = key_of(before.as_deref(), &msg.patch)?;
        let missing = || EngineError::Invalid(format!("cannot find key {:?}", key.as_str()));
        let set = state.keys.get(&key).map(Arc::clone).ok_or_else(missing)?;
        let random = self.random.as_ref();
        let role = Role::patched(before.as_deref(), msg.patch, msg.identity, &set, random)?;
        let warnings = check_client(&msg.name, &role, &set).err().map(|error| error.to_string());
        let bytes = record::role_bytes(msg.mount, &msg.name, &role)?;
        self.store(record::path(record::ROLE, msg.mount, msg.name.as_str()), bytes).await?;
        state.roles.insert(msg.name, Arc::new(role));
        self.install_mount(msg.mount, state).await?;
        Ok(warnings.into_iter().collect())
    }

    pub(super) async fn delete_role(self: Rc<Self>, msg: DeleteRole) -> Result<(), EngineError> {
        let _turn = self.turn().await?;
        let mut state = self.mount(msg.mount)?.changed();
        let path = record::path(record::ROLE, msg.mount, msg.name.as_str());
        self.barrier.commit(Changes::new().delete(path)).await?;
        if state.roles.remove(&msg.name).is_none() {
            return Ok(());
        }
        self.install_mount(msg.mount, state).await
    }
}
