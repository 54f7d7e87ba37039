//! `sys/internal/ui/*`: what user interfaces and command lines ask before they ask.

use std::sync::Arc;

use actix_web::http::StatusCode;
use mssm_domain::policy::{Capabilities, Capability};
use mssm_domain::{Caller, CanonicalPath};
use mssm_messages::access::{ReachesBelow, ReadResultantAcl};
use mssm_messages::mounts::{Mount, ReadTable};

use crate::answer::Answer;
use crate::call::Verb;
use crate::door::{NEAR, Worker, ask};
use crate::error::Refusal;
use crate::json::Object;
use crate::pipeline::Visit;
use crate::resources::mounts::{AUTH, entry, options};

/// `sys/internal/ui/mounts` without a token: what is shown to everybody.
pub(crate) async fn shown_to_all(worker: &Worker) -> Result<Answer, Refusal> {
    let table = ask(&worker.door.mounts.table, ReadTable, NEAR).await?;
    let shown: Vec<_> = table.iter().filter(|mount| mount.listed_unauthenticated).collect();
    let small = |mount: &Mount| {
        let object = Object::new().text("description", &mount.description);
        let object = match mount.version {
            0 => object.null("options"),
            _ => object.object("options", options(mount)),
        };
        object.text("type", mount.kind.name())
    };
    Ok(Answer::data(by_kind(shown.into_iter().map(|mount| (mount, small(mount))))))
}

fn by_kind<'a>(mounts: impl Iterator<Item = (&'a Arc<Mount>, Object)>) -> Object {
    let (mut auth, mut secret) = (Object::new(), Object::new());
    for (mount, entry) in mounts {
        match mount.prefix.as_str().strip_prefix(AUTH) {
            Some(path) => auth = auth.object(path, entry),
            None => secret = secret.object(mount.prefix.as_str(), entry),
        }
    }
    Object::new().object("auth", auth).object("secret", secret)
}

async fn reaches(visit: &Visit, caller: &Arc<Caller>, mount: &Mount) -> Result<bool, Refusal> {
    if caller.is_root() {
        return Ok(true);
    }
    let message =
        ReachesBelow { caller: Arc::clone(caller), prefix: mount.prefix.as_str().to_owned() };
    ask(&visit.worker.door.access.reaches_below, message, NEAR).await
}

/// `sys/internal/ui/mounts[/:path]` with a token: what its policies reach.
pub(crate) async fn shown(visit: &Visit, path: &str) -> Result<Answer, Refusal> {
    if visit.call.verb != Verb::Read {
        return Err(Refusal::unsupported_operation());
    }
    let caller = &visit.authorized.caller;
    if path.is_empty() {
        let mut seen = Vec::new();
        for mount in visit.table.iter() {
            if reaches(visit, caller, mount).await? {
                seen.push((mount, entry(mount)));
            }
        }
        return Ok(Answer::data(by_kind(seen.into_iter())));
    }
    let parsed = CanonicalPath::parse(path).ok();
    let found = parsed.as_ref().and_then(|path| visit.table.resolve(path));
    if let Some((mount, _)) = found.filter(|(mount, _)| !mount.leaving)
        && reaches(visit, caller, mount).await?
    {
        let shown = mount.prefix.as_str();
        let shown = shown.strip_prefix(AUTH).unwrap_or(shown);
        return Ok(Answer::data(entry(mount).text("path", shown)));
    }
    // The same for what is not there and what is not theirs.
    let text = format!(
        "preflight capability check returned 403, please ensure client's policies grant access \
         to path \"{path}/\""
    );
    Err(Refusal::new(StatusCode::FORBIDDEN, text))
}

/// `sys/internal/ui/resultant-acl`.
pub(crate) async fn resultant_acl(visit: &Visit) -> Result<Answer, Refusal> {
    if visit.call.verb != Verb::Read {
        return Err(Refusal::unsupported_operation());
    }
    let message = ReadResultantAcl { caller: Arc::clone(&visit.authorized.caller) };
    let acl = ask(&visit.worker.door.access.resultant_acl, message, NEAR).await?;
    let rules = |rules: &[(String, Capabilities)]| {
        let mut object = Object::new();
        for (path, set) in rules {
            let words = set.iter().map(Capability::name);
            object = object.object(path, Object::new().texts("capabilities", words));
        }
        object
    };
    Ok(Answer::data(
        Object::new()
            .object("exact_paths", rules(&acl.exact))
            .object("glob_paths", rules(&acl.patterns))
            .flag("root", acl.root),
    ))
}
