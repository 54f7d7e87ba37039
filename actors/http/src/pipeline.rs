//! The way of a request: authenticated, decided, audited, answered; nothing leaves before that.

use std::rc::Rc;
use std::sync::Arc;

use mssm_domain::policy::Capability;
use mssm_messages::access::{Authorize, Authorized};
use mssm_messages::engine::EngineKind;
use mssm_messages::mounts::{Mount, MountTable, ReadTable};
use mssm_messages::{failpoint, guarded_async};

use crate::answer::Answer;
use crate::call::{Call, Verb};
use crate::door::{NEAR, Worker, ask};
use crate::error::Refusal;
use crate::policy;
use crate::resources;
use crate::trail::{Known, Trail};

/// A request that may go on: who asks, what, and where it goes.
pub(crate) struct Visit {
    pub(crate) worker: Rc<Worker>,
    pub(crate) call: Call,
    pub(crate) authorized: Authorized,
    pub(crate) mount: Arc<Mount>,
    pub(crate) table: Arc<MountTable>,
    rest_at: usize,
}

impl Visit {
    /// The path below the mount.
    pub(crate) fn rest(&self) -> &str {
        self.call.path.as_str().get(self.rest_at..).unwrap_or_default()
    }

    /// The path below the mount, without a trailing slash.
    pub(crate) fn trimmed(&self) -> &str {
        let rest = self.rest();
        rest.strip_suffix('/').unwrap_or(rest)
    }
}

/// Answers a request whose body is there.
pub(crate) async fn answer(worker: Rc<Worker>, call: Call) -> Answer {
    if let Some(open) = resources::open(&worker, &call).await {
        return answer_open(worker, call, open).await;
    }
    match admit(&worker, &call).await {
        Ok(admitted) => proceed(worker, call, admitted).await,
        Err((refusal, known)) => {
            // Sealed, nothing can be decided: such requests are counted, not written down.
            if refusal.is_sealed() {
                return refusal.into_answer();
            }
            let trail = Trail::new(&call, &known);
            let answer = refuse(&call, refusal);
            conclude(&worker, &call, &known, trail, answer).await
        }
    }
}

/// Answers a request whose body cannot be used.
pub(crate) async fn unreadable(worker: &Worker, call: &Call, refusal: Refusal) -> Answer {
    // Sealed, what anybody may send is not written down, whatever is wrong with it.
    let table = ask(&worker.door.mounts.table, ReadTable, NEAR).await;
    if let Err(sealed) = table.map(drop)
        && sealed.is_sealed()
    {
        return sealed.into_answer();
    }
    let known = Known { operation: call.verb.capability(true).name(), ..Known::default() };
    let trail = Trail::new(call, &known);
    conclude(worker, call, &known, trail, refuse(call, refusal)).await
}

struct Admitted {
    known: Known,
    authorized: Authorized,
    mount: Arc<Mount>,
    table: Arc<MountTable>,
    rest_at: usize,
}

/// Who asks, may they, and where does it go?
async fn admit(worker: &Rc<Worker>, call: &Call) -> Result<Admitted, (Refusal, Known)> {
    let door = &worker.door;
    let mut known = Known { operation: call.verb.capability(true).name(), ..Known::default() };
    let table = match ask(&door.mounts.table, ReadTable, NEAR).await {
        Ok(table) => table,
        Err(refusal) => return Err((refusal, known)),
    };
    let system = table.iter().find(|mount| mount.kind == EngineKind::System);
    known.headers = system.filter(|mount| !mount.audit.headers.is_empty()).map(Arc::clone);
    let resolved = table.resolve(&call.path).map(|(mount, rest)| (Arc::clone(mount), rest.len()));
    known.mount = resolved.as_ref().map(|(mount, _)| Arc::clone(mount));
    let Some(token) = &call.token else { return Err((Refusal::no_token(), known)) };
    let question = Authorize {
        token: token.duplicate(),
        path: call.path.clone(),
        listing: call.verb == Verb::List,
    };
    let authorized = ask(&door.access.authorize, question, NEAR).await;
    // EXPOSE: only its hash is kept.
    worker.turnstile.borrow_mut().judged(token.expose().as_bytes(), authorized.is_ok());
    let authorized = match authorized {
        Ok(authorized) => authorized,
        Err(refusal) => return Err((refusal, known)),
    };
    known.caller = Some(Arc::clone(&authorized.caller));
    known.granting = authorized.granting.iter().map(ToString::to_string).collect();
    let capability =
        match policy::decide(worker, call, &authorized, resolved.as_ref().map(|(m, _)| m)).await {
            Ok(capability) => capability,
            Err(refusal) => return Err((refusal, known)),
        };
    known.allowed = true;
    known.operation = capability.name();
    let Some((mount, rest)) = resolved.filter(|(mount, _)| !mount.leaving) else {
        return Err((no_route(call), known));
    };
    let rest_at = call.path.as_str().len().saturating_sub(rest);
    Ok(Admitted { known, authorized, mount, table, rest_at })
}

fn no_route(call: &Call) -> Refusal {
    let text = format!("no handler for route \"{}\". route entry not found.", call.shown_path());
    Refusal { errors: vec![text], ..Refusal::not_found() }
}

/// Does what is allowed. What changes something runs in a task of its own, so that it is carried
/// through and written down even if the caller goes away in the middle of it.
async fn proceed(worker: Rc<Worker>, call: Call, admitted: Admitted) -> Answer {
    let Admitted { known, authorized, mount, table, rest_at } = admitted;
    let visit = Visit { worker, call, authorized, mount, table, rest_at };
    if resources::changes(&visit) {
        let task = actix_rt::spawn(async move {
            let mut trail = Trail::new(&visit.call, &known);
            if let Err(refusal) = trail.open(&visit.worker.door, &visit.call, &known).await {
                return refuse(&visit.call, refusal);
            }
            visited(&visit, &known, trail).await
        });
        // The task's panics are caught inside; what is left is that the worker stops.
        return task.await.unwrap_or_else(|error| {
            Refusal::internal(format!("request task failed: {error}")).into_answer()
        });
    }
    let trail = Trail::new(&visit.call, &known);
    visited(&visit, &known, trail).await
}

/// Has the resource answer, and writes the answer down.
async fn visited(visit: &Visit, known: &Known, trail: Trail) -> Answer {
    let answer = match guarded_async(resources::answer(visit)).await {
        Ok(Ok(answer)) => with_warnings(visit, answer),
        Ok(Err(refusal)) => refuse(&visit.call, refusal),
        Err(_) => {
            visit.worker.metrics.panicked();
            refuse(&visit.call, Refusal::internal("the handler panicked"))
        }
    };
    conclude(&visit.worker, &visit.call, known, trail, answer).await
}

/// The few paths that need no token.
async fn answer_open(worker: Rc<Worker>, call: Call, open: resources::Open) -> Answer {
    if !open.audited() {
        return match open.answer(&worker, &call).await {
            Ok(answer) => held(&worker, &call, answer),
            Err(refusal) => refuse(&call, refusal),
        };
    }
    let task = actix_rt::spawn(async move {
        let known = Known { operation: Capability::Update.name(), ..Known::default() };
        let mut trail = Trail::new(&call, &known);
        if let Err(refusal) = trail.open(&worker.door, &call, &known).await {
            return refuse(&call, refusal);
        }
        let answer = match guarded_async(open.answer(&worker, &call)).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(refusal)) => refuse(&call, refusal),
            Err(_) => refuse(&call, Refusal::internal("the handler panicked")),
        };
        conclude(&worker, &call, &known, trail, answer).await
    });
    task.await.unwrap_or_else(|error| {
        Refusal::internal(format!("request task failed: {error}")).into_answer()
    })
}

/// Writes the answer down; what cannot be written down does not leave, and what it handed out ends.
async fn conclude(
    worker: &Worker,
    call: &Call,
    known: &Known,
    trail: Trail,
    answer: Answer,
) -> Answer {
    let answer = held(worker, call, answer);
    let leased = answer.lease.is_some();
    if leased {
        failpoint::here("answer.before_line");
    }
    let written = trail.close(&worker.door, call, known, &answer).await;
    if leased {
        failpoint::here("answer.after_line");
    }
    match written {
        Ok(()) => answer,
        Err(refusal) => refuse(call, refusal),
    }
}

/// An answer that there is room for until it is read, or a refusal: then what it handed out ends.
fn held(worker: &Worker, call: &Call, answer: Answer) -> Answer {
    match worker.gate.answer(answer.size()) {
        Ok(held) => answer.with_held(held),
        Err(refusal) => refuse(call, refusal),
    }
}

/// Names the members of the body that meant nothing.
fn with_warnings(visit: &Visit, answer: Answer) -> Answer {
    let unknown = visit.call.body.unknown();
    if unknown.is_empty() {
        return answer;
    }
    let names = unknown.join(" ");
    answer.warn(vec![format!("Endpoint ignored these unrecognized parameters: [{names}]")])
}

/// Turns a refusal into its answer, and tells the operator the cause.
fn refuse(call: &Call, refusal: Refusal) -> Answer {
    if let Some(cause) = &refusal.cause {
        tracing::error!(request = %call.id, path = call.shown_path(), %cause, "request failed");
    }
    refusal.into_answer()
}
