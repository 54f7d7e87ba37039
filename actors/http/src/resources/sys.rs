//! `sys/`: what the server says of itself, and the way to the resources below it.

use crate::answer::Answer;
use crate::call::Verb;
use crate::error::Refusal;
use crate::json::Object;
use crate::pipeline::Visit;
use crate::resources::{audit, leases, metrics, mounts, overdue, policies, seal, ui};

/// Answers below `sys/`.
pub(crate) async fn answer(visit: &Visit) -> Result<Answer, Refusal> {
    let path = visit.trimmed();
    let (head, rest) = path.split_once('/').unwrap_or((path, ""));
    let second = |prefix: &str| {
        let below = rest.strip_prefix(prefix)?;
        if below.is_empty() { Some("") } else { below.strip_prefix('/') }
    };
    match head {
        "mounts" => mounts::answer(visit, rest, false).await,
        "auth" => mounts::answer(visit, rest, true).await,
        "policy" => policies::answer(visit, rest, true).await,
        "policies" => match second("acl") {
            Some(name) => policies::answer(visit, name, false).await,
            None => Err(Refusal::unsupported_path()),
        },
        "capabilities" if rest.is_empty() => policies::capabilities(visit, "token").await,
        "capabilities-self" if rest.is_empty() => policies::capabilities(visit, "self").await,
        "capabilities-accessor" if rest.is_empty() => {
            policies::capabilities(visit, "accessor").await
        }
        "audit" => audit::devices(visit, rest).await,
        "audit-hash" => audit::hash(visit, rest).await,
        "config" if second("auditing/request-headers").is_some() => {
            audit::headers(visit, second("auditing/request-headers").unwrap_or_default()).await
        }
        "leases" if rest.is_empty() => overdue::answer(visit).await,
        "leases" => leases::answer(visit, rest).await,
        "renew" | "revoke" | "revoke-prefix" | "revoke-force" => leases::answer(visit, path).await,
        "internal" => match (second("ui/mounts"), rest) {
            (Some(path), _) => ui::shown(visit, path).await,
            (None, "ui/resultant-acl") => ui::resultant_acl(visit).await,
            (None, _) => Err(Refusal::unsupported_path()),
        },
        _ => single(visit, path).await,
    }
}

/// The paths without anything below them.
async fn single(visit: &Visit, path: &str) -> Result<Answer, Refusal> {
    let verb = visit.call.verb;
    match path {
        "seal" => seal::seal(visit).await,
        "key-status" => seal::key_status(visit).await,
        "rotate" | "rotate/keyring" => seal::rotate(visit).await,
        "metrics" if verb == Verb::Read => Ok(metrics::answer(&visit.worker).await),
        "version-history" if verb == Verb::List => Ok(version_history(visit)),
        "ha-status" if verb == Verb::Read => Ok(Answer::double(Object::new().raw("nodes", "[]"))),
        "health" | "leader" | "init" | "unseal" | "seal-status" | "metrics" | "version-history"
        | "ha-status" => Err(Refusal::unsupported_operation()),
        _ => Err(Refusal::unsupported_path()),
    }
}

fn version_history(visit: &Visit) -> Answer {
    let entry = Object::new()
        .text("build_date", "")
        .null("previous_version")
        .text("timestamp_installed", &visit.worker.door.about.started_at.rfc3339());
    Answer::data(
        Object::new()
            .object("key_info", Object::new().object(seal::VERSION, entry))
            .texts("keys", [seal::VERSION]),
    )
}

/// Any path with `?help=1`.
pub(crate) fn help(visit: &Visit) -> Answer {
    let text = format!(
        "{} ({} mount). The paths are those of Vault's API; see the server's documentation.",
        visit.mount.prefix,
        visit.mount.kind.name()
    );
    Answer::bare(Object::new().text("help", &text).null("see_also").null("openapi"))
}
