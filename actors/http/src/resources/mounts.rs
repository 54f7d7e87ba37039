//! `sys/mounts`, `sys/auth`, and what user interfaces ask about them.

use std::sync::Arc;

use actix_web::http::StatusCode;
use mssm_domain::policy::Capabilities;
use mssm_domain::{Caller, CanonicalPath, Prefix, Ttl};
use mssm_messages::access::{ReachesBelow, ReadResultantAcl};
use mssm_messages::engine::EngineKind;
use mssm_messages::mounts::{Disable, Enable, Mount, MountTable, ReadTable, Tune, TunePatch};

use crate::answer::Answer;
use crate::body::Body;
use crate::call::Verb;
use crate::door::{NEAR, Worker, ask, commit};
use crate::error::Refusal;
use crate::json::Object;
use crate::pipeline::Visit;

/// Where mounts that log callers in hang.
const AUTH: &str = "auth/";

/// `sys/mounts[/:path[/tune]]`; with `auth`, `sys/auth[/:path[/tune]]`.
pub(crate) async fn answer(visit: &Visit, path: &str, auth: bool) -> Result<Answer, Refusal> {
    if path.is_empty() {
        return match visit.call.verb {
            Verb::Read | Verb::List => Ok(list(&visit.table, auth)),
            _ => Err(Refusal::unsupported_operation()),
        };
    }
    let full = if auth { format!("{AUTH}{path}") } else { path.to_owned() };
    if let Some(path) = full.strip_suffix("/tune") {
        return tune(visit, path).await;
    }
    let prefix = Prefix::parse(&full).map_err(|error| Refusal::invalid(error.to_string()))?;
    match visit.call.verb {
        Verb::Read => {
            let kind = if auth { "auth" } else { "secret" };
            let missing = || Refusal::invalid(format!("No {kind} engine mount at {path}/"));
            Ok(Answer::double(entry(at(&visit.table, &prefix).ok_or_else(missing)?)))
        }
        Verb::Write if auth => Err(Refusal::invalid("plugin not found in the catalog")),
        Verb::Write => enable(visit, prefix).await,
        Verb::Delete => {
            commit(&visit.worker.door.mounts.disable, Disable { prefix }).await?;
            Ok(Answer::done())
        }
        Verb::List | Verb::Patch => Err(Refusal::unsupported_operation()),
    }
}

fn at<'a>(table: &'a MountTable, prefix: &Prefix) -> Option<&'a Arc<Mount>> {
    table.iter().find(|mount| mount.prefix == *prefix)
}

fn list(table: &MountTable, auth: bool) -> Answer {
    let mut object = Object::sized(4096);
    for mount in table.iter() {
        let path = mount.prefix.as_str();
        match (path.strip_prefix(AUTH), auth) {
            (Some(path), true) => object = object.object(path, entry(mount)),
            (None, false) => object = object.object(path, entry(mount)),
            (Some(_), false) | (None, true) => {}
        }
    }
    Answer::double(object)
}

fn options(mount: &Mount) -> Object {
    Object::new().text("version", &mount.version.to_string())
}

fn entry(mount: &Mount) -> Object {
    let secs = |ttl: Option<Ttl>| ttl.map_or(0, Ttl::secs);
    let auth = mount.prefix.as_str().starts_with(AUTH);
    let mut config = Object::new()
        .number("default_lease_ttl", secs(mount.default_ttl))
        .flag("force_no_cache", false)
        .number("max_lease_ttl", secs(mount.max_ttl));
    if mount.listed_unauthenticated {
        config = config.text("listing_visibility", "unauth");
    }
    if auth {
        config = config.text("token_type", "default-service");
    }
    let object = Object::new()
        .text("accessor", &mount.accessor)
        .object("config", config)
        .text("deprecation_status", "supported")
        .text("description", &mount.description)
        .flag("external_entropy_access", false)
        .flag("local", mount.kind == EngineKind::Cubbyhole);
    let object = match mount.version {
        0 => object.null("options"),
        _ => object.object("options", options(mount)),
    };
    object
        .text("plugin_version", "")
        .text("running_plugin_version", "")
        .text("running_sha256", "")
        .flag("seal_wrap", false)
        .text("type", mount.kind.name())
        .text("uuid", &mount.id.to_string())
}

/// A lifetime of a mount: absent keeps, zero returns to the system's.
#[expect(clippy::option_option, reason = "that is what the message says: keep, reset or set")]
fn lifetime(body: &Body, name: &str) -> Result<Option<Option<Ttl>>, Refusal> {
    match body.text(name)?.as_deref() {
        None | Some("") => return Ok(None),
        Some("system") => return Ok(Some(None)),
        Some(_) => {}
    }
    Ok(Some(crate::resources::tokens::ttl(body, name)?))
}

fn patch(config: &Body) -> Result<TunePatch, Refusal> {
    let visibility = config.text("listing_visibility")?;
    Ok(TunePatch {
        default_ttl: lifetime(config, "default_lease_ttl")?,
        max_ttl: lifetime(config, "max_lease_ttl")?,
        description: config.text("description")?,
        listed_unauthenticated: visibility.map(|visibility| visibility == "unauth"),
        version: None,
    })
}

fn version(options: &Body) -> Result<Option<u8>, Refusal> {
    let Some(version) = options.number("version")? else { return Ok(None) };
    u8::try_from(version).map(Some).map_err(|_| Refusal::invalid("unknown version of kv"))
}

async fn enable(visit: &Visit, prefix: Prefix) -> Result<Answer, Refusal> {
    let body = &visit.call.body;
    let kind = body.required("type", "backend type must be specified as a string")?;
    let (kind, fixed) = match kind.as_str() {
        "kv-v1" | "generic" => (Some(EngineKind::Kv), Some(1)),
        "kv-v2" => (Some(EngineKind::Kv), Some(2)),
        // Both are the server's own.
        "system" | "token" => (None, None),
        other => (EngineKind::parse(other), None),
    };
    let kind = kind.ok_or_else(|| Refusal::invalid("plugin not found in the catalog"))?;
    let chosen = body.object("options")?.map(|options| version(&options)).transpose()?.flatten();
    let version = match kind {
        EngineKind::Kv => fixed.or(chosen).unwrap_or(1),
        _ => 0,
    };
    if kind == EngineKind::Kv && !(1..=2).contains(&version) {
        return Err(Refusal::invalid("unknown version of kv"));
    }
    let tune = match body.object("config")? {
        Some(config) => patch(&config)?,
        None => TunePatch::default(),
    };
    ignore(body);
    let description = body.text("description")?.unwrap_or_default();
    let message = Enable { prefix, kind, version, description, tune };
    commit(&visit.worker.door.mounts.enable, message).await?;
    Ok(Answer::done())
}

/// Takes note of what clients send always and nothing here means anything by.
fn ignore(body: &Body) {
    for name in [
        "local",
        "seal_wrap",
        "external_entropy_access",
        "plugin_name",
        "plugin_version",
        "options",
    ] {
        let _ = body.raw(name);
    }
}

async fn tune(visit: &Visit, path: &str) -> Result<Answer, Refusal> {
    let missing = || Refusal::invalid(format!("cannot fetch sysview for path \"{path}/\""));
    let prefix = Prefix::parse(path).map_err(|_| missing())?;
    let mount = at(&visit.table, &prefix).ok_or_else(missing)?;
    match visit.call.verb {
        Verb::Read => {
            let mut object = Object::new()
                .number("default_lease_ttl", mount.effective_default_ttl().secs())
                .text("description", &mount.description)
                .flag("force_no_cache", false)
                .number("max_lease_ttl", mount.effective_max_ttl().secs());
            if mount.version > 0 {
                object = object.object("options", options(mount));
            }
            if mount.listed_unauthenticated {
                object = object.text("listing_visibility", "unauth");
            }
            if path.starts_with(AUTH) {
                object = object.text("token_type", "default-service");
            }
            Ok(Answer::double(object))
        }
        Verb::Write => {
            let body = &visit.call.body;
            let mut patch = patch(body)?;
            if let Some(options) = body.object("options")? {
                patch.version = version(&options)?;
            }
            commit(&visit.worker.door.mounts.tune, Tune { prefix, patch }).await?;
            Ok(Answer::done())
        }
        Verb::List | Verb::Patch | Verb::Delete => Err(Refusal::unsupported_operation()),
    }
}

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
            let words = set.iter().map(mssm_domain::policy::Capability::name);
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
