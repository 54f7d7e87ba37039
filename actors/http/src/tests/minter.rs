//! A minter that has one role, and answers little.

use super::world::{fake, nobody};
use crate::door::MinterPorts;

/// Ports to it.
pub(super) fn ports() -> MinterPorts {
    MinterPorts {
        write_connection: nobody().into(),
        read_connection: nobody().into(),
        list_connections: fake(|_| Ok(Vec::new())).into(),
        delete_connection: nobody().into(),
        reset_connection: nobody().into(),
        write_role: fake(|_| Ok(Vec::new())).into(),
        read_role: nobody().into(),
        list_roles: fake(|_| Ok(vec!["app".to_owned()])).into(),
        delete_role: nobody().into(),
        reconcile: nobody().into(),
        rotate_root: nobody().into(),
        write_static_role: nobody().into(),
        read_static_role: nobody().into(),
        list_static_roles: nobody().into(),
        delete_static_role: nobody().into(),
        read_static_credentials: nobody().into(),
        rotate_static_role: nobody().into(),
    }
}
