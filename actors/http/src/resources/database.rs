//! Database mounts: connections, roles, and the logins made of them.

use mssm_domain::{ConnectionName, MountId, RoleName, SecretText, Ttl};
use mssm_messages::engine::EngineError;
use mssm_messages::minter::{
    ConnectionPatch, ConnectionView, DeleteConnection, DeleteRole, ListConnections, ListRoles,
    ReadConnection, ReadRole, ResetConnection, RolePatch, RoleView, Tester, WriteConnection,
    WriteRole,
};

use super::{creds, overdue, rotations};
use crate::answer::Answer;
use crate::body::Body;
use crate::call::Verb;
use crate::door::{FAR, Worker, ask, commit, put};
use crate::error::{Refusal, malformed};
use crate::json::Object;
use crate::pipeline::Visit;

/// Answers below such a mount.
pub(crate) async fn answer(visit: &Visit) -> Result<Answer, Refusal> {
    let path = visit.trimmed();
    let (head, name) = path.split_once('/').unwrap_or((path, ""));
    let minter = &visit.worker.door.minter;
    let mount = visit.mount.id;
    match (head, name, visit.call.verb) {
        ("config", "", Verb::List) => {
            Ok(keys(ask(&minter.list_connections, ListConnections { mount }, FAR).await?))
        }
        ("roles", "", Verb::List) => {
            Ok(keys(ask(&minter.list_roles, ListRoles { mount }, FAR).await?))
        }
        ("config", name, verb) if !name.is_empty() => connection(visit, name, verb).await,
        ("roles", name, verb) if !name.is_empty() => role(visit, name, verb).await,
        ("creds", name, Verb::Read) if !name.is_empty() => creds::issue(visit, name).await,
        ("reset", name, Verb::Write) if !name.is_empty() => {
            let name = ConnectionName::parse(name).map_err(|error| malformed(&error))?;
            ask(&minter.reset_connection, ResetConnection { mount, name }, FAR).await?;
            Ok(Answer::done())
        }
        ("static-roles" | "static-creds" | "rotate-role" | "rotate-root", name, _) => {
            rotations::answer(visit, head, name).await
        }
        ("config" | "roles" | "creds" | "reset", _, _) => Err(Refusal::unsupported_operation()),
        _ => Err(Refusal::unsupported_path()),
    }
}

/// True if a connection or a role is there already.
pub(crate) async fn exists(
    worker: &Worker,
    mount: MountId,
    role: bool,
    name: &str,
) -> Result<bool, Refusal> {
    let minter = &worker.door.minter;
    let absent = if role {
        let Ok(name) = RoleName::parse(name) else { return Ok(true) };
        put(&minter.read_role, ReadRole { mount, name }, FAR).await?.err()
    } else {
        let Ok(name) = ConnectionName::parse(name) else { return Ok(true) };
        put(&minter.read_connection, ReadConnection { mount, name }, FAR).await?.err()
    };
    match absent {
        None => Ok(true),
        Some(EngineError::NotFound) => Ok(false),
        Some(error) => Err(error.into()),
    }
}

/// Names, or a plain 404 if there is none.
pub(super) fn keys(names: Vec<String>) -> Answer {
    if names.is_empty() { Refusal::not_found().into_answer() } else { Answer::keys(names) }
}

async fn connection(visit: &Visit, name: &str, verb: Verb) -> Result<Answer, Refusal> {
    let minter = &visit.worker.door.minter;
    let mount = visit.mount.id;
    let name = ConnectionName::parse(name).map_err(|error| malformed(&error))?;
    match verb {
        Verb::Read => {
            let message = ReadConnection { mount, name };
            let view = ask(&minter.read_connection, message, FAR).await?;
            Ok(Answer::data(overdue::of_connection(&visit.worker, view.id, show(&view)).await))
        }
        Verb::Write => {
            let message = WriteConnection { mount, name, patch: patch(&visit.call.body)? };
            Ok(Answer::done_with(commit(&minter.write_connection, message).await?))
        }
        Verb::Delete => {
            commit(&minter.delete_connection, DeleteConnection { mount, name }).await?;
            Ok(Answer::done())
        }
        Verb::List | Verb::Patch => Err(Refusal::unsupported_operation()),
    }
}

fn patch(body: &Body) -> Result<ConnectionPatch, Refusal> {
    // Accepted for the sake of clients that send them always; pools here have their own bounds.
    for ignored in ["max_idle_connections", "max_connection_lifetime", "plugin_version"] {
        let _ = body.raw(ignored);
    }
    let open = body.number("max_open_connections")?.map(u32::try_from).transpose();
    // MySQL's field holds both in one text.
    let both = body.text("tls_certificate_key")?;
    let key = match &both {
        Some(both) => Some(SecretText::new(both.clone())),
        None => body.secret("private_key")?,
    };
    Ok(ConnectionPatch {
        plugin_name: body.text("plugin_name")?,
        connection_url: body.secret("connection_url")?,
        username: body.text("username")?,
        password: body.secret("password")?,
        allowed_roles: body.list("allowed_roles")?,
        max_open_connections: open
            .map_err(|_| Refusal::invalid("max_open_connections is too large"))?,
        tls_ca: body.text("tls_ca")?,
        tls_certificate: body.text("tls_certificate")?.or(both),
        tls_key: key.map(SecretText::into_bytes),
        password_authentication: body.text("password_authentication")?,
        root_rotation_statements: match body.statements("root_rotation_statements")? {
            Some(statements) => Some(statements),
            None => body.statements("root_credentials_rotate_statements")?,
        },
        username_template: body.text("username_template")?,
        plan: rotations::plan(body)?,
        disable_automated_rotation: body.flag("disable_automated_rotation")?,
        verify_connection: body.flag("verify_connection")?,
    })
}

fn show(view: &ConnectionView) -> Object {
    let mut details = Object::new()
        .text("connection_url", &view.connection_url)
        .number("max_open_connections", view.max_open_connections.into())
        .text("password_authentication", &view.password_authentication)
        .text("username", &view.username);
    if !view.username_template.is_empty() {
        details = details.text("username_template", &view.username_template);
    }
    let object = Object::new()
        .texts("allowed_roles", &view.allowed_roles)
        .object("connection_details", details)
        .text("password_policy", "")
        .text("plugin_name", &view.plugin_name)
        .text("plugin_version", "")
        .texts("root_credentials_rotate_statements", &view.root_rotation_statements);
    managed(rotations::show_root(object, &view.rotation), view.managed_by_configuration)
}

fn managed(object: Object, by_configuration: bool) -> Object {
    if by_configuration { object.flag("managed_by_configuration", true) } else { object }
}

async fn role(visit: &Visit, name: &str, verb: Verb) -> Result<Answer, Refusal> {
    let minter = &visit.worker.door.minter;
    let mount = visit.mount.id;
    let name = RoleName::parse(name).map_err(|error| malformed(&error))?;
    match verb {
        Verb::Read => {
            let message = ReadRole { mount, name };
            Ok(Answer::data(show_role(&ask(&minter.read_role, message, FAR).await?)))
        }
        Verb::Write => {
            let caller = visit.authorized.caller.as_ref().clone();
            let tester = Tester { caller, prefix: visit.mount.prefix.to_string() };
            let message = WriteRole {
                mount,
                name,
                patch: role_patch(&visit.call.body)?,
                tester: Some(tester),
            };
            Ok(Answer::done_with(commit(&minter.write_role, message).await?))
        }
        Verb::Delete => {
            commit(&minter.delete_role, DeleteRole { mount, name }).await?;
            Ok(Answer::done())
        }
        Verb::List | Verb::Patch => Err(Refusal::unsupported_operation()),
    }
}

fn role_patch(body: &Body) -> Result<RolePatch, Refusal> {
    // Shown, and sent back by who reads a role to write it; the self-test says it, not the caller.
    let _ = body.raw("verified");
    let rounds = body.number("scram_iterations")?.map(u32::try_from).transpose();
    Ok(RolePatch {
        db_name: body.text("db_name")?,
        creation_statements: body.statements("creation_statements")?,
        revocation_statements: body.statements("revocation_statements")?,
        rollback_statements: body.statements("rollback_statements")?,
        renew_statements: body.statements("renew_statements")?,
        default_ttl_secs: body.duration("default_ttl")?,
        max_ttl_secs: body.duration("max_ttl")?,
        credential_type: body.text("credential_type")?,
        owner: body.text("owner")?,
        orphan_leases: body.flag("orphan_leases")?,
        reuse_window_secs: body.duration("reuse_window")?,
        max_leases: bound(body, "max_leases")?,
        max_leases_per_token: bound(body, "max_leases_per_token")?,
        scram_iterations: rounds.map_err(|_| Refusal::invalid("scram_iterations is too large"))?,
        allow_privileged: body.flag("allow_privileged")?,
        verify: body.flag("verify")?,
    })
}

/// A number of leases.
fn bound(body: &Body, name: &str) -> Result<Option<u32>, Refusal> {
    let number = body.number(name)?.map(u32::try_from).transpose();
    number.map_err(|_| Refusal::invalid(format!("{name} is too large")))
}

fn show_role(view: &RoleView) -> Object {
    let secs = |ttl: Option<Ttl>| ttl.map_or(0, Ttl::secs);
    let mut object = Object::sized(1024)
        .flag("allow_privileged", view.allow_privileged)
        .texts("creation_statements", &view.creation_statements)
        .text("credential_type", "password")
        .text("db_name", &view.db_name)
        .number("default_ttl", secs(view.default_ttl))
        .number("max_leases", view.rules.max_leases.into())
        .number("max_leases_per_token", view.rules.max_leases_per_token.into())
        .number("max_ttl", secs(view.max_ttl))
        .flag("orphan_leases", view.rules.orphan)
        .texts("renew_statements", &view.renew_statements)
        .number("reuse_window", secs(view.rules.reuse_window))
        .texts("revocation_statements", &view.revocation_statements)
        .texts("rollback_statements", &view.rollback_statements)
        .number("scram_iterations", view.scram_iterations.into())
        .flag("verified", view.verified);
    if let Some(owner) = &view.owner {
        object = object.text("owner", owner);
    }
    managed(object, view.managed_by_configuration)
}
