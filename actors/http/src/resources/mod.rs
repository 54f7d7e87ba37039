//! What lies below each path: one file a resource.

mod audit;
mod classes;
mod creds;
mod database;
mod jwt;
mod kv1;
mod kv2;
mod leases;
mod metrics;
mod mounts;
mod oidc;
mod overdue;
mod policies;
mod reconcile;
mod rotations;
mod seal;
mod sys;
mod tokens;
mod ui;
mod wellknown;

use actix_web::http::Method;
use mssm_domain::Caller;
use mssm_messages::engine::EngineKind;
use mssm_messages::kv::{Exists, KvPath, Space};
use mssm_messages::mounts::Mount;

use crate::answer::Answer;
use crate::call::{Call, Verb};
use crate::door::{NEAR, Worker, ask};
use crate::error::Refusal;
use crate::pipeline::Visit;
pub(crate) use classes::{class, vital};
use wellknown::WellKnown;

/// The paths that are answered without a token, most of them also while sealed.
#[derive(Clone, Debug)]
pub(crate) enum Open {
    /// `sys/health`.
    Health,
    /// `sys/seal-status`.
    SealStatus,
    /// `sys/leader`.
    Leader,
    /// `sys/init`, asked.
    ReadInit,
    /// `sys/init`, done.
    Init,
    /// `sys/unseal`.
    Unseal,
    /// `sys/metrics`, where the configuration opens it.
    Metrics,
    /// `sys/internal/ui/mounts` without a token.
    Mounts,
    /// What verifiers of signed tokens ask.
    WellKnown(WellKnown),
}

impl Open {
    fn of(path: &str, verb: Verb) -> Option<Self> {
        match (path, verb) {
            ("sys/health", Verb::Read) => Some(Self::Health),
            ("sys/seal-status", Verb::Read) => Some(Self::SealStatus),
            ("sys/leader", Verb::Read) => Some(Self::Leader),
            ("sys/init", Verb::Read) => Some(Self::ReadInit),
            ("sys/init", Verb::Write) => Some(Self::Init),
            ("sys/unseal", Verb::Write) => Some(Self::Unseal),
            _ => None,
        }
    }

    /// True for what changes something, and is written down.
    pub(crate) const fn audited(&self) -> bool {
        matches!(self, Self::Init | Self::Unseal)
    }

    /// Answers.
    pub(crate) async fn answer(&self, worker: &Worker, call: &Call) -> Result<Answer, Refusal> {
        match self {
            Self::Health => seal::health(worker, call).await,
            Self::SealStatus => seal::status(worker).await,
            Self::Leader => Ok(seal::leader()),
            Self::ReadInit => seal::read_init(worker).await,
            Self::Init => seal::init(worker, call).await,
            Self::Unseal => seal::unseal(worker, call).await,
            Self::Metrics => Ok(metrics::answer(worker).await),
            Self::Mounts => ui::shown_to_all(worker).await,
            Self::WellKnown(document) => document.answer(worker).await,
        }
    }
}

/// The open path of a request, if it is one.
pub(crate) async fn open(worker: &Worker, call: &Call) -> Option<Open> {
    if let Some(document) = wellknown::asked(worker, call).await {
        return Some(Open::WellKnown(document));
    }
    if worker.door.about.open_metrics && call.trimmed() == "sys/metrics" {
        return (call.verb == Verb::Read).then_some(Open::Metrics);
    }
    if call.token.is_none() && call.verb == Verb::Read && call.trimmed() == "sys/internal/ui/mounts"
    {
        return Some(Open::Mounts);
    }
    Open::of(call.trimmed(), call.verb)
}

/// True if a request's body is read though it has no token.
pub(crate) fn is_open(call: &Call) -> bool {
    Open::of(call.trimmed(), call.verb).is_some()
}

/// True for what is answered however much is in flight.
pub(crate) fn is_watching(call: &Call) -> bool {
    let open = Open::of(call.trimmed(), call.verb);
    matches!(open, Some(Open::Health | Open::SealStatus | Open::Leader | Open::ReadInit))
}

/// The same of a request whose path is not parsed yet.
pub(crate) fn is_watched(method: &Method, path: &str) -> bool {
    let watched = ["/v1/sys/health", "/v1/sys/seal-status", "/v1/sys/leader", "/sys/seal-status"];
    matches!(*method, Method::GET | Method::HEAD) && watched.contains(&path)
}

/// True for what may be asked by HEAD: what watches a server, and what keeps copies, ask so.
pub(crate) fn answers_head(call: &Call) -> bool {
    matches!(Open::of(call.trimmed(), call.verb), Some(Open::Health)) || wellknown::may_be(call)
}

/// True if a visit may change something: it is written down before it acts.
pub(crate) fn changes(visit: &Visit) -> bool {
    match visit.call.verb {
        // Their answer is all that comes of them, and it leaves after its line is written.
        Verb::Write if signs_or_looks(visit) => false,
        Verb::Write | Verb::Patch | Verb::Delete => true,
        Verb::Read => visit.mount.kind.hands_out_leases() && visit.rest().starts_with("creds"),
        Verb::List => false,
    }
}

/// True for a write that signs or examines a token.
fn signs_or_looks(visit: &Visit) -> bool {
    let (head, _) = visit.rest().split_once('/').unwrap_or((visit.rest(), ""));
    match visit.mount.kind {
        EngineKind::JwtSigner => matches!(head, "sign" | "verify" | "introspect"),
        EngineKind::Identity => visit.trimmed() == "oidc/introspect",
        _ => false,
    }
}

/// True if what a write would reach is there already; also where nobody can say.
pub(crate) async fn exists(
    worker: &Worker,
    caller: &Caller,
    mount: &Mount,
    rest: &str,
) -> Result<bool, Refusal> {
    let kv = |space, path: &str, versioned| {
        let path = KvPath::parse(path.strip_suffix('/').unwrap_or(path)).ok();
        let message = path.map(|path| Exists { space, path, versioned });
        async move {
            match message {
                Some(message) => ask(&worker.door.kv.exists, message, NEAR).await,
                None => Ok(true),
            }
        }
    };
    let (head, tail) = rest.split_once('/').unwrap_or((rest, ""));
    match (mount.kind, head) {
        (EngineKind::Cubbyhole, _) => kv(Space::Token(caller.token, mount.id), rest, false).await,
        (EngineKind::Kv, "data" | "metadata") if mount.version == 2 => {
            kv(Space::Mount(mount.id), tail, true).await
        }
        (EngineKind::Kv, _) if mount.version == 2 => Ok(true),
        (EngineKind::Kv, _) => kv(Space::Mount(mount.id), rest, false).await,
        (EngineKind::Database, "config" | "roles") => {
            database::exists(worker, mount.id, head == "roles", tail).await
        }
        (EngineKind::Database, "static-roles") => rotations::exists(worker, mount.id, tail).await,
        (EngineKind::JwtSigner, "keys" | "roles") if !tail.contains('/') => {
            jwt::exists(worker, mount.id, head == "roles", tail).await
        }
        (EngineKind::Identity, "oidc") => match tail.split_once('/') {
            Some((kind @ ("key" | "role"), name)) if !name.contains('/') => {
                jwt::exists(worker, mount.id, kind == "role", name).await
            }
            _ => Ok(true),
        },
        _ => Ok(true),
    }
}

/// True for what every living token may ask, and is shown only what its policies reach.
pub(crate) fn is_own_view(call: &Call) -> bool {
    let path = call.trimmed();
    call.verb == Verb::Read
        && (path == "sys/internal/ui/mounts" || path.starts_with("sys/internal/ui/mounts/"))
}

/// What a request names, in its body or at the end of its path. Policies see only the path: a body that
/// could name something else beside it would lead around them.
fn one_name(in_body: &[Option<String>], tail: &str) -> Result<String, Refusal> {
    let names = in_body.iter().flatten().map(String::as_str).chain([tail]);
    let mut names = names.filter(|name| !name.is_empty());
    let first = names.next().unwrap_or_default();
    if names.any(|name| name != first) {
        return Err(named_twice());
    }
    Ok(first.to_owned())
}

fn named_twice() -> Refusal {
    Refusal::invalid("the path and the body name two things; name one of them, once")
}

/// Has the resource answer.
pub(crate) async fn answer(visit: &Visit) -> Result<Answer, Refusal> {
    if visit.call.query.flag("help") {
        return Ok(sys::help(visit));
    }
    let answer = match visit.mount.kind {
        EngineKind::System => sys::answer(visit).await,
        EngineKind::Token => tokens::answer(visit).await,
        EngineKind::Database => database::answer(visit).await,
        EngineKind::Identity => oidc::answer(visit).await,
        EngineKind::JwtSigner => jwt::answer(visit).await,
        EngineKind::Kv if visit.mount.version == 2 => kv2::answer(visit).await,
        EngineKind::Cubbyhole | EngineKind::Kv => kv1::answer(visit).await,
    }?;
    Ok(answer.of_mount(visit.mount.kind.name()))
}
