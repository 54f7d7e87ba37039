//! What a role's trial asks PostgreSQL.

use crate::quote::literals;

/// Roles that let a login act as the database server itself.
const SERVER_ROLES: &str = "'pg_execute_server_program', 'pg_write_server_files'";

/// Roles, memberships and slots, but for logins of ours, which come and go.
pub(super) fn snapshot(when: &str) -> String {
    const OURS: &str = "(SELECT objoid FROM pg_shdescription \
         WHERE classoid = 'pg_authid'::regclass AND description LIKE 'mssm2:%')";
    format!(
        "SELECT '{when}', 'role', rolname::text, concat_ws(' ', CASE WHEN rolsuper THEN 'SUPERUSER' END, \
         CASE WHEN rolcreaterole THEN 'CREATEROLE' END, CASE WHEN rolcreatedb THEN 'CREATEDB' END, \
         CASE WHEN rolreplication THEN 'REPLICATION' END, CASE WHEN rolbypassrls THEN 'BYPASSRLS' END, \
         CASE WHEN rolcanlogin THEN 'LOGIN' END) FROM pg_roles WHERE oid NOT IN {OURS} \
         UNION ALL SELECT '{when}', 'member', m.rolname, g.rolname FROM pg_auth_members a \
         JOIN pg_roles m ON m.oid = a.member JOIN pg_roles g ON g.oid = a.roleid \
         WHERE a.member NOT IN {OURS} AND a.roleid NOT IN {OURS} \
         UNION ALL SELECT '{when}', 'slot', slot_name, plugin FROM pg_replication_slots"
    )
}

/// Rights of logins, their own or through a role that they may become, that outlive a revocation.
pub(super) fn rights(names: &[String]) -> String {
    let names = literals(names.iter().map(String::as_str));
    format!(
        "WITH RECURSIVE reach AS (SELECT oid FROM pg_roles WHERE rolname IN ({names}) \
         UNION SELECT a.roleid FROM pg_auth_members a JOIN reach ON a.member = reach.oid), \
         may AS (SELECT r.* FROM pg_roles r JOIN reach USING (oid)) \
         SELECT 'right', '', 'SUPERUSER', '' FROM may WHERE rolsuper \
         UNION SELECT 'right', '', 'CREATEROLE', '' FROM may WHERE rolcreaterole \
         UNION SELECT 'right', '', 'REPLICATION', '' FROM may WHERE rolreplication \
         UNION SELECT 'right', '', 'BYPASSRLS', '' FROM may WHERE rolbypassrls \
         UNION SELECT 'right', '', rolname::text, '' FROM may WHERE rolname IN ({SERVER_ROLES}) \
         UNION SELECT 'right', '', 'the ADMIN OPTION on ' || g.rolname, '' FROM pg_auth_members a \
         JOIN reach ON a.member = reach.oid JOIN pg_roles g ON g.oid = a.roleid WHERE a.admin_option"
    )
}
