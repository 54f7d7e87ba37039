//! `sys/leases/*` and the old `sys/renew`, `sys/revoke*`.

use actix_web::http::StatusCode;
use mssm_domain::{LeaseId, LeaseState, Timestamp};
use mssm_messages::lease::{
    Count, LeaseError, LeaseView, List, ListUnreadable, Lookup, LookupName, Renew, Renewed, Revoke,
    RevokePrefix, Tidy,
};

use crate::answer::{Answer, LeasePart};
use crate::call::Verb;
use crate::door::{FAR, ask, commit, put};
use crate::error::{Refusal, unreachable};
use crate::json::Object;
use crate::pipeline::Visit;
use crate::resources::kv1::page;
use crate::resources::overdue::left_behind;
use crate::resources::reconcile;
use crate::resources::tokens::{left, ttl};
use crate::resources::{named_twice, one_name};

/// Answers `sys/leases/<path>`, and what stood directly below `sys/` before.
pub(crate) async fn answer(visit: &Visit, path: &str) -> Result<Answer, Refusal> {
    let (head, tail) = path.split_once('/').unwrap_or((path, ""));
    if matches!(head, "count" | "quarantine" | "reconcile" | "tidy") && !tail.is_empty() {
        // Rules name the one path.
        return Err(Refusal::unsupported_path());
    }
    match (head, visit.call.verb) {
        ("lookup", Verb::Write) => lookup(visit, tail).await,
        ("lookup", Verb::List) => list(visit, tail).await,
        ("renew", Verb::Write) => renew(visit, tail).await,
        ("revoke", Verb::Write) => revoke(visit, tail).await,
        ("revoke-prefix", Verb::Write) => revoke_prefix(visit, tail, false).await,
        ("revoke-force", Verb::Write) => revoke_prefix(visit, tail, true).await,
        ("count", Verb::Read) => count(visit).await,
        ("quarantine", Verb::Read) => {
            let leases = put(&visit.worker.door.leases.unreadable, ListUnreadable, FAR).await??;
            let count = leases.len() as u64;
            Ok(Answer::data(Object::new().number("lease_count", count).texts("leases", &leases)))
        }
        ("reconcile", Verb::Write) => reconcile::answer(visit).await,
        ("tidy", Verb::Write) => {
            let text = if ask(&visit.worker.door.leases.tidy, Tidy, FAR).await? {
                "Tidy operation successfully started. Any information from the operation will be \
                 printed to the server's log."
            } else {
                "Tidy operation already in progress."
            };
            let answer = Answer::empty_envelope().with_status(StatusCode::ACCEPTED);
            Ok(answer.warn(vec![text.to_owned()]))
        }
        (
            "lookup" | "renew" | "revoke" | "revoke-prefix" | "revoke-force" | "count" | "tidy"
            | "quarantine" | "reconcile",
            _,
        ) => Err(Refusal::unsupported_operation()),
        _ => Err(Refusal::unsupported_path()),
    }
}

/// The lease that a request names in its body or in its path.
fn named(visit: &Visit, tail: &str) -> Result<Option<LeaseId>, Refusal> {
    let body = &visit.call.body;
    let text = one_name(&[body.text("lease_id")?, body.text("url_lease_id")?], tail)?;
    if text.is_empty() {
        return Err(Refusal::invalid("lease_id must be specified"));
    }
    Ok(LeaseId::parse(&text).ok())
}

async fn lookup(visit: &Visit, tail: &str) -> Result<Answer, Refusal> {
    if let Some(name) = visit.call.body.text("username")?.filter(|name| !name.is_empty()) {
        if !tail.is_empty() {
            return Err(named_twice());
        }
        let door = &visit.worker.door;
        let view = ask(&door.leases.lookup_name, LookupName { name }, FAR).await?;
        return Ok(Answer::data(show(&view, door.clock.now())));
    }
    let lease = named(visit, tail)?.ok_or_else(|| Refusal::from(LeaseError::Unknown))?;
    let door = &visit.worker.door;
    let view = ask(&door.leases.lookup, Lookup { lease }, FAR).await?;
    Ok(Answer::data(show(&view, door.clock.now())))
}

fn show(view: &LeaseView, now: Timestamp) -> Object {
    let lease = &view.lease;
    let path = lease.id.as_str().rsplit_once('/').map_or("", |(path, _)| path);
    let late = lease.expires_at.until(now).as_secs();
    let seconds = match left(now.until(lease.expires_at)) {
        _ if view.state == LeaseState::Ended => "0".to_owned(),
        0 if late > 0 => format!("-{late}"),
        seconds => seconds.to_string(),
    };
    let alive = view.state == LeaseState::Active;
    let state = match view.state {
        LeaseState::Pending => "pending",
        LeaseState::Active => "active",
        LeaseState::Ending => "ending",
        LeaseState::Ended => "ended",
    };
    let mut object = Object::new()
        .text("id", lease.id.as_str())
        .text("issue_time", &lease.issued_at.rfc3339())
        .text("expire_time", &lease.expires_at.rfc3339())
        .maybe("last_renewal", lease.renewed_at.map(Timestamp::rfc3339).as_deref())
        .flag("renewable", lease.renewable && alive)
        .raw("ttl", &seconds)
        .text("path", path)
        .text("state", state);
    if let Some(ended) = view.ended_at {
        object = object.text("end_time", &ended.rfc3339());
    }
    if !view.name.is_empty() {
        object = object.text("username", &view.name);
    }
    if let Some(error) = &view.revoke_error {
        object = object.text("revoke_error", error);
    }
    object
}

async fn list(visit: &Visit, tail: &str) -> Result<Answer, Refusal> {
    let prefix = if tail.is_empty() { String::new() } else { format!("{tail}/") };
    let (after, limit) = page(visit)?;
    let names = ask(&visit.worker.door.leases.list, List { prefix, after, limit }, FAR).await?;
    if names.is_empty() {
        return Err(Refusal::not_found());
    }
    Ok(Answer::keys(names))
}

async fn renew(visit: &Visit, tail: &str) -> Result<Answer, Refusal> {
    let missing = || Refusal::invalid("lease not found");
    let increment = ttl(&visit.call.body, "increment")?;
    let lease = named(visit, tail)?.ok_or_else(missing)?;
    let caller = visit.authorized.caller.as_ref().clone();
    let message = Renew { lease, increment, caller };
    let reply = visit.worker.door.leases.renew.commit(message).await.map_err(unreachable)?;
    match reply {
        Ok(renewed) => Ok(show_renewed(renewed, visit.worker.door.clock.now())),
        Err(LeaseError::Unknown) => Err(missing()),
        Err(error) => Err(error.into()),
    }
}

fn show_renewed(renewed: Renewed, now: Timestamp) -> Answer {
    let lease = renewed.lease;
    let since = lease.renewed_at.unwrap_or(now);
    let part = LeasePart {
        renewable: lease.renewable,
        seconds: left(since.until(lease.expires_at)),
        id: lease.id,
    };
    Answer::empty_envelope().with_lease(part).warn(renewed.warnings)
}

/// 204 when access has ended, 202 when it was only asked for.
fn ended(sync: bool) -> Answer {
    if sync { Answer::done() } else { Answer::done().with_status(StatusCode::ACCEPTED) }
}

async fn revoke(visit: &Visit, tail: &str) -> Result<Answer, Refusal> {
    let sync = visit.call.body.flag("sync")?.unwrap_or(true);
    // What cannot be a lease is as gone as one that has ended.
    let Some(lease) = named(visit, tail)? else { return Ok(Answer::done()) };
    commit(&visit.worker.door.leases.revoke, Revoke { lease, sync }).await?;
    Ok(ended(sync))
}

async fn revoke_prefix(visit: &Visit, tail: &str, force: bool) -> Result<Answer, Refusal> {
    let sync = visit.call.body.flag("sync")?.unwrap_or(true);
    let in_body = visit.call.body.text("prefix")?.map(|text| text.trim_matches('/').to_owned());
    let prefix = one_name(&[in_body], tail)?;
    if prefix.is_empty() {
        return Err(Refusal::invalid("prefix must be specified"));
    }
    let message = RevokePrefix { prefix, sync, force };
    let revoked = commit(&visit.worker.door.leases.revoke_prefix, message).await?;
    if revoked.left.is_empty() {
        return Ok(ended(sync || force));
    }
    Ok(Answer::empty_envelope().warn(left_behind(&revoked.left)))
}

/// GET `sys/leases/count`: with `type=irrevocable` those whose end has failed so far, else all.
async fn count(visit: &Visit) -> Result<Answer, Refusal> {
    let irrevocable = match visit.call.query.get("type") {
        None | Some("") => false,
        Some("irrevocable") => true,
        Some(_) => return Err(Refusal::invalid("type must be \"irrevocable\"")),
    };
    let counts = put(&visit.worker.door.leases.count, Count, FAR).await??;
    if irrevocable {
        let object = Object::new().number("lease_count", counts.overdue);
        return Ok(Answer::data(object.object("counts", Object::new())));
    }
    let mut by_mount = Object::new();
    for (id, number) in &counts.by_mount {
        if let Some(mount) = visit.table.iter().find(|mount| mount.id == *id) {
            by_mount = by_mount.number(&mount.accessor, *number);
        }
    }
    let all = counts.active + counts.pending + counts.ending;
    Ok(Answer::data(
        Object::new()
            .number("lease_count", all)
            .number("quarantined", counts.unreadable)
            .object("counts", by_mount),
    ))
}
