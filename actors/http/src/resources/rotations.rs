//! Database mounts: passwords that change while their users stay.

use mssm_domain::{ConnectionName, MountId, RoleName, Timestamp};
use mssm_messages::engine::EngineError;
use mssm_messages::rotation::{
    DeleteStaticRole, ListStaticRoles, PlanPatch, PlanView, ReadStaticCredentials, ReadStaticRole,
    RootRotationView, RotateRoot, RotateStaticRole, StaticRolePatch, StaticRoleView,
    WriteStaticRole,
};

use super::database::keys;
use crate::answer::Answer;
use crate::body::Body;
use crate::call::Verb;
use crate::door::{FAR, Worker, ask, commit, put};
use crate::error::{Refusal, malformed};
use crate::json::Object;
use crate::pipeline::Visit;

/// Answers what concerns rotation; the paths that others answer too come with a name.
pub(crate) async fn answer(visit: &Visit, head: &str, name: &str) -> Result<Answer, Refusal> {
    let minter = &visit.worker.door.minter;
    let mount = visit.mount.id;
    match (head, name, visit.call.verb) {
        ("static-roles", "", Verb::List) => {
            Ok(keys(ask(&minter.list_static_roles, ListStaticRoles { mount }, FAR).await?))
        }
        (_, "", _) => Err(Refusal::unsupported_operation()),
        ("static-roles", name, verb) => static_role(visit, name, verb).await,
        ("static-creds", name, Verb::Read) => credentials(visit, name).await,
        ("rotate-role", name, Verb::Write) => {
            let name = RoleName::parse(name).map_err(|error| malformed(&error))?;
            let force = visit.call.body.flag("force")?.unwrap_or(false);
            commit(&minter.rotate_static_role, RotateStaticRole { mount, name, force }).await?;
            Ok(Answer::done())
        }
        ("rotate-root", name, Verb::Write) => {
            let name = ConnectionName::parse(name).map_err(|error| malformed(&error))?;
            commit(&minter.rotate_root, RotateRoot { mount, name }).await?;
            Ok(Answer::done())
        }
        _ => Err(Refusal::unsupported_operation()),
    }
}

/// True if a static role is there already.
pub(crate) async fn exists(worker: &Worker, mount: MountId, name: &str) -> Result<bool, Refusal> {
    let Ok(name) = RoleName::parse(name) else { return Ok(true) };
    let read = ReadStaticRole { mount, name };
    match put(&worker.door.minter.read_static_role, read, FAR).await? {
        Ok(_) => Ok(true),
        Err(EngineError::NotFound) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// What a body says of when a password changes by itself.
pub(crate) fn plan(body: &Body) -> Result<PlanPatch, Refusal> {
    Ok(PlanPatch {
        rotation_period_secs: body.duration("rotation_period")?,
        rotation_schedule: body.text("rotation_schedule")?,
        rotation_window_secs: body.duration("rotation_window")?,
    })
}

/// What a connection's answer says of the changes of its password; nothing if there is nothing.
pub(crate) fn show_root(object: Object, view: &RootRotationView) -> Object {
    let mut object = show_plan(object, &view.plan);
    if view.disabled {
        object = object.flag("disable_automated_rotation", true);
    }
    if let Some(at) = view.rotated_at {
        object = object.text("last_vault_rotation", &at.rfc3339());
    }
    if view.in_doubt { object.flag("rotation_in_doubt", true) } else { object }
}

fn show_plan(object: Object, plan: &PlanView) -> Object {
    if plan.rotation_period_secs > 0 {
        return object.number("rotation_period", plan.rotation_period_secs);
    }
    if plan.rotation_schedule.is_empty() {
        return object;
    }
    object
        .text("rotation_schedule", &plan.rotation_schedule)
        .number("rotation_window", plan.rotation_window_secs)
}

async fn static_role(visit: &Visit, name: &str, verb: Verb) -> Result<Answer, Refusal> {
    let minter = &visit.worker.door.minter;
    let mount = visit.mount.id;
    let name = RoleName::parse(name).map_err(|error| malformed(&error))?;
    match verb {
        Verb::Read => {
            let message = ReadStaticRole { mount, name };
            Ok(Answer::data(show(&ask(&minter.read_static_role, message, FAR).await?)))
        }
        Verb::Write => {
            let message = WriteStaticRole { mount, name, patch: patch(&visit.call.body)? };
            Ok(Answer::done_with(commit(&minter.write_static_role, message).await?))
        }
        Verb::Delete => {
            commit(&minter.delete_static_role, DeleteStaticRole { mount, name }).await?;
            Ok(Answer::done())
        }
        Verb::List | Verb::Patch => Err(Refusal::unsupported_operation()),
    }
}

fn patch(body: &Body) -> Result<StaticRolePatch, Refusal> {
    let rounds = body.number("scram_iterations")?.map(u32::try_from).transpose();
    let (one, pair) = (body.text("username")?, body.list("usernames")?);
    if one.is_some() && pair.is_some() {
        return Err(Refusal::invalid("username and usernames exclude each other"));
    }
    Ok(StaticRolePatch {
        db_name: body.text("db_name")?,
        usernames: pair.or_else(|| one.map(|name| vec![name])),
        rotation_statements: body.statements("rotation_statements")?,
        plan: plan(body)?,
        credential_type: body.text("credential_type")?,
        scram_iterations: rounds.map_err(|_| Refusal::invalid("scram_iterations is too large"))?,
    })
}

fn show(view: &StaticRoleView) -> Object {
    let object = Object::sized(512)
        .text("credential_type", "password")
        .text("db_name", &view.db_name)
        .maybe("last_vault_rotation", view.rotated_at.map(Timestamp::rfc3339).as_deref());
    let object = show_plan(object, &view.plan)
        .texts("rotation_statements", &view.rotation_statements)
        .number("scram_iterations", view.scram_iterations.into())
        .text("username", &view.active);
    if view.usernames.len() > 1 { object.texts("usernames", &view.usernames) } else { object }
}

async fn credentials(visit: &Visit, name: &str) -> Result<Answer, Refusal> {
    let name = RoleName::parse(name).map_err(|_| Refusal::invalid("unknown role"))?;
    let message = ReadStaticCredentials { mount: visit.mount.id, name };
    let read = ask(&visit.worker.door.minter.read_static_credentials, message, FAR).await?;
    let object = Object::sized(512)
        .text("last_vault_rotation", &read.rotated_at.rfc3339())
        .secret("password", &read.password);
    let object =
        show_plan(object, &read.plan).number("ttl", read.ttl_secs).text("username", &read.username);
    Ok(Answer::data(object).warn(read.warnings))
}
