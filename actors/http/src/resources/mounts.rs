//! `sys/mounts` and `sys/auth`: what hangs where, and how it is tuned.

use std::sync::Arc;

use mssm_domain::{Prefix, Ttl};
use mssm_messages::engine::EngineKind;
use mssm_messages::mounts::{Disable, Enable, Mount, MountTable, Tune, TunePatch};

use crate::answer::Answer;
use crate::body::Body;
use crate::call::Verb;
use crate::door::commit;
use crate::error::Refusal;
use crate::json::Object;
use crate::pipeline::Visit;

/// Where mounts that log callers in hang.
pub(crate) const AUTH: &str = "auth/";

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
            let what = if auth { "auth engine" } else { "secret engine mount" };
            let missing = || Refusal::invalid(format!("No {what} at {path}/"));
            Ok(Answer::double(entry(at(&visit.table, &prefix).ok_or_else(missing)?)))
        }
        Verb::Write if auth => Err(Refusal::invalid(
            "plugin not found in the catalog: tokens are the one way to log in",
        )),
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

/// A kv mount's options.
pub(crate) fn options(mount: &Mount) -> Object {
    Object::new().text("version", &mount.version.to_string())
}

/// Vault's names of what the audit log shows in clear.
const NON_HMAC: [&str; 2] = ["audit_non_hmac_request_keys", "audit_non_hmac_response_keys"];
/// Set to have the names of members hashed as well; Vault has nothing like it.
const HMAC_NAMES: &str = "audit_hmac_names";

/// What the audit log shows of a mount, where that is not the rule.
fn audit_rules(mut object: Object, mount: &Mount) -> Object {
    let rules = &mount.audit;
    for (name, keys) in NON_HMAC.iter().zip([&rules.clear_request, &rules.clear_response]) {
        if !keys.is_empty() {
            object = object.texts(name, keys.iter().map(String::as_str));
        }
    }
    if rules.hash_names { object.flag(HMAC_NAMES, true) } else { object }
}

/// A mount, as Vault shows it.
pub(crate) fn entry(mount: &Mount) -> Object {
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
    let config = audit_rules(config, mount);
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
        clear_request: config.list(NON_HMAC[0])?,
        clear_response: config.list(NON_HMAC[1])?,
        hash_names: config.flag(HMAC_NAMES)?,
        header: None,
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
        // These are the server's own.
        "identity" | "system" | "token" => (None, None),
        other => (EngineKind::parse(other), None),
    };
    let kind = kind.ok_or_else(|| {
        Refusal::invalid(
            "plugin not found in the catalog: there are kv, database, cubbyhole and jwt-signer",
        )
    })?;
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
            Ok(Answer::double(audit_rules(object, mount)))
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
