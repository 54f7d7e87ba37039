//! Secrets without versions: kv version 1 and cubbyholes.

use mssm_domain::{SecretBytes, SecretText};
use mssm_messages::engine::EngineKind;
use mssm_messages::kv::{DeletePlain, KvPath, ListPlain, ReadPlain, Space, WritePlain};

use crate::answer::Answer;
use crate::body::Body;
use crate::call::Verb;
use crate::door::{NEAR, ask};
use crate::error::Refusal;
use crate::pipeline::Visit;

/// How many names one answer lists at most.
pub(crate) const MAX_KEYS: usize = 100_000;

/// Where the secrets of this mount lie for this caller.
pub(crate) fn space(visit: &Visit) -> Space {
    if visit.mount.kind == EngineKind::Cubbyhole {
        Space::Token(visit.authorized.caller.token, visit.mount.id)
    } else {
        Space::Mount(visit.mount.id)
    }
}

/// Answers below such a mount.
pub(crate) async fn answer(visit: &Visit) -> Result<Answer, Refusal> {
    let kv = &visit.worker.door.kv;
    let space = space(visit);
    let path = || KvPath::parse(visit.rest());
    match visit.call.verb {
        Verb::Read => {
            let message = ReadPlain { space, path: path()? };
            let document = ask(&kv.read_plain, message, NEAR).await?;
            // EXPOSE: the answer is where the secret is meant to go.
            let seconds = lifetime(visit, document.expose());
            let data = SecretText::new(document.expose().to_owned());
            Ok(Answer::json(data).with_lease_duration(seconds))
        }
        Verb::List => {
            let folder = visit.trimmed().to_owned();
            let (after, limit) = page(visit)?;
            let message = ListPlain { space, folder, after, limit };
            Ok(Answer::keys(ask(&kv.list_plain, message, NEAR).await?))
        }
        Verb::Write => {
            let path = path()?;
            let document = visit.call.body.document();
            let document = document.ok_or_else(|| Refusal::invalid("missing data fields"))?;
            ask(&kv.write_plain, WritePlain { space, path, document }, NEAR).await?;
            Ok(Answer::done())
        }
        Verb::Delete => {
            ask(&kv.delete_plain, DeletePlain { space, path: path()? }, NEAR).await?;
            Ok(Answer::done())
        }
        Verb::Patch => Err(Refusal::unsupported_operation()),
    }
}

/// The page that a list asks for.
pub(crate) fn page(visit: &Visit) -> Result<(Option<String>, usize), Refusal> {
    let query = &visit.call.query;
    let after = query.get("after").filter(|after| !after.is_empty()).map(str::to_owned);
    let limit = query.number("limit")?.filter(|limit| *limit > 0);
    let limit = limit.and_then(|limit| usize::try_from(limit).ok()).unwrap_or(MAX_KEYS);
    Ok((after, limit.min(MAX_KEYS)))
}

/// How long a secret may be kept before it is read again: its own `ttl`, or the mount's.
fn lifetime(visit: &Visit, document: &str) -> u64 {
    if visit.mount.kind == EngineKind::Cubbyhole {
        return 0;
    }
    let usual = visit.mount.effective_default_ttl().secs();
    if !document.contains("\"ttl\"") && !document.contains("\"lease\"") {
        return usual;
    }
    let Ok(body) = Body::parse(SecretBytes::new(document.as_bytes().to_vec()), None) else {
        return usual;
    };
    let own = |name| body.duration(name).ok().flatten();
    own("ttl").or_else(|| own("lease")).unwrap_or(usual)
}
