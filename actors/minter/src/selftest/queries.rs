//! What a role's trial asks PostgreSQL.

use crate::pool::DETOURS;
use crate::quote::literals;

/// Roles that let a login act as the database server itself.
const SERVER_ROLES: &str = "'pg_execute_server_program', 'pg_write_server_files'";

/// Roles, memberships and slots, but for logins of ours, which come and go.
pub(super) fn snapshot(when: &str) -> String {
    // A value, so that it is looked up by its key: as a join or a list PostgreSQL takes the descriptions that
    // begin so for few, and goes through some ten thousand logins for each of them.
    let others = |oid: &str| {
        format!(
            "coalesce((SELECT s.description FROM pg_shdescription s WHERE s.objoid = {oid} \
             AND s.classoid = 'pg_authid'::regclass), '') NOT LIKE 'mssm2:%'"
        )
    };
    let (role, member, group) = (others("r.oid"), others("a.member"), others("a.roleid"));
    format!(
        "SELECT '{when}', 'role', rolname::text, concat_ws(' ', CASE WHEN rolsuper THEN 'SUPERUSER' END, \
         CASE WHEN rolcreaterole THEN 'CREATEROLE' END, CASE WHEN rolcreatedb THEN 'CREATEDB' END, \
         CASE WHEN rolreplication THEN 'REPLICATION' END, CASE WHEN rolbypassrls THEN 'BYPASSRLS' END, \
         CASE WHEN rolcanlogin THEN 'LOGIN' END) FROM pg_roles r WHERE {role} \
         UNION ALL SELECT '{when}', 'member', m.rolname, g.rolname FROM pg_auth_members a \
         JOIN pg_roles m ON m.oid = a.member JOIN pg_roles g ON g.oid = a.roleid \
         WHERE {member} AND {group} \
         UNION ALL SELECT '{when}', 'slot', slot_name, plugin FROM pg_replication_slots"
    )
}

/// Rights of logins, their own or through a role that they may become, that outlive a revocation; and
/// whether they can do what the owner of the connection's database can. That is told, and too much where it
/// could keep us from ending them: where no other database lets us in.
pub(super) fn rights(names: &[String]) -> String {
    let names = literals(names.iter().map(String::as_str));
    let detours = literals(DETOURS);
    // Who may become a role that can log in may give it a password. From PostgreSQL 16 on a member may be
    // kept from that; but who inherits its rights owns its tables, and an index of a function of one's own
    // on one of them runs that function as the role.
    const BECOMES: &str = "(coalesce((to_jsonb(a) ->> 'set_option')::boolean, true) \
         OR coalesce((to_jsonb(a) ->> 'inherit_option')::boolean, true))";
    format!(
        "WITH RECURSIVE reach AS (SELECT oid FROM pg_roles WHERE rolname IN ({names}) \
         UNION SELECT a.roleid FROM pg_auth_members a JOIN reach ON a.member = reach.oid), \
         became AS (SELECT oid FROM pg_roles WHERE rolname IN ({names}) \
         UNION SELECT a.roleid FROM pg_auth_members a JOIN became ON a.member = became.oid WHERE {BECOMES}), \
         may AS (SELECT r.* FROM pg_roles r JOIN reach USING (oid)) \
         SELECT 'right', '', 'SUPERUSER', '' FROM may WHERE rolsuper \
         UNION SELECT 'right', '', 'CREATEROLE', '' FROM may WHERE rolcreaterole \
         UNION SELECT 'right', '', 'REPLICATION', '' FROM may WHERE rolreplication \
         UNION SELECT 'right', '', 'BYPASSRLS', '' FROM may WHERE rolbypassrls \
         UNION SELECT 'right', '', rolname::text, '' FROM may WHERE rolname IN ({SERVER_ROLES}) \
         UNION SELECT 'right', '', 'membership in ' || rolname || ' (it can log in, and its members set its password)', '' \
         FROM pg_roles JOIN became USING (oid) WHERE rolcanlogin AND rolname NOT IN ({names}) \
         UNION SELECT 'right', '', 'the ADMIN OPTION on ' || g.rolname, '' FROM pg_auth_members a \
         JOIN reach ON a.member = reach.oid JOIN pg_roles g ON g.oid = a.roleid WHERE a.admin_option \
         UNION SELECT CASE WHEN EXISTS (SELECT FROM pg_database e WHERE e.datname IN ({detours}) \
         AND e.oid <> d.oid AND e.datallowconn AND has_database_privilege(session_user, e.oid, 'CONNECT') \
         AND NOT EXISTS (SELECT FROM reach WHERE reach.oid = e.datdba)) THEN 'note' ELSE 'right' END, '', \
         'the rights of \"' || o.rolname || '\", which owns the connection''s database', d.datname::text \
         FROM may o JOIN pg_database d ON d.datdba = o.oid AND d.datname = current_database()"
    )
}

/// Warnings of what a login can do that owns the connection's database.
pub(super) fn notes(facts: &[(String, [String; 3])]) -> Vec<String> {
    let notes = facts.iter().filter(|(what, _)| what == "note");
    let say = |(_, [_, right, database]): &(String, [String; 3])| {
        format!(
            "logins have {right}: it can let nobody in any more (ALTER DATABASE \"{database}\"); then none \
             are made, and those that are there are ended by way of another database"
        )
    };
    notes.map(say).collect()
}
