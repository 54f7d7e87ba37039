//! What is overdue: `sys/leases?type=irrevocable`, and how each connection's revocations do.

use mssm_domain::ConnectionId;
use mssm_messages::lease::{Count, LaneView, LeftBehind, ListOverdue};

use crate::answer::Answer;
use crate::call::Verb;
use crate::door::{FAR, NEAR, Worker, ask, put};
use crate::error::Refusal;
use crate::json::{Object, list};
use crate::pipeline::Visit;

/// As many as Vault answers at once.
const MOST: usize = 10_000;

/// GET `sys/leases?type=irrevocable`: the leases whose end has failed so far, the oldest first. They
/// are tried on.
pub(crate) async fn answer(visit: &Visit) -> Result<Answer, Refusal> {
    if visit.call.verb != Verb::Read {
        return Err(Refusal::unsupported_operation());
    }
    if visit.call.query.get("type") != Some("irrevocable") {
        return Err(Refusal::invalid("type must be \"irrevocable\""));
    }
    let leases = &visit.worker.door.leases;
    let counts = put(&leases.count, Count, FAR).await??;
    let overdue = ask(&leases.overdue, ListOverdue { limit: MOST }, FAR).await?;
    let shown = overdue.iter().map(|one| {
        Object::new()
            .text("lease_id", one.lease.as_str())
            .text("error", one.error.as_deref().unwrap_or_default())
            .text("username", &one.name)
            .number("attempts", one.attempts.into())
            .number("overdue_seconds", one.secs)
    });
    Ok(Answer::data(
        Object::new()
            .number("lease_count", counts.overdue)
            .number("oldest_overdue_seconds", counts.overdue_oldest_secs)
            .object("counts", Object::new())
            .raw("leases", &list(shown)),
    ))
}

/// Adds what is overdue, or cannot be read, to what the server says of its health; nothing if that cannot be said now.
pub(crate) async fn health(worker: &Worker, object: Object) -> Object {
    match worker.lease_counts().await {
        Some(counts) => object
            .number("overdue_revocations", counts.overdue)
            .number("oldest_overdue_seconds", counts.overdue_oldest_secs)
            .number("quarantined_leases", counts.unreadable),
        None => object,
    }
}

/// How the revocations of a connection do.
pub(crate) async fn of_connection(worker: &Worker, id: ConnectionId, object: Object) -> Object {
    let counts = put(&worker.door.leases.count, Count, NEAR).await;
    let lanes = counts.ok().and_then(Result::ok).map(|counts| counts.lanes).unwrap_or_default();
    let lane = lanes.into_iter().find(|lane| lane.target == id);
    let lane = lane.unwrap_or(LaneView { target: id, waiting: 0, down_secs: None });
    let object = object.text("connection_id", &id.to_string());
    let object = object.number("revocations_waiting", lane.waiting);
    match lane.down_secs {
        Some(secs) => object.number("unanswered_seconds", secs),
        None => object.null("unanswered_seconds"),
    }
}

/// What an ending by force left, in words.
pub(crate) fn left_behind(left: &[LeftBehind]) -> Vec<String> {
    let words = |one: &LeftBehind| {
        format!(
            "lease {} is forgotten, but its login \"{}\" may be there still, with its sessions ({}); \
             it is looked for every ten minutes and ended when it can be",
            one.lease, one.name, one.why
        )
    };
    left.iter().map(words).collect()
}
