//! Vault's identity tokens: `identity/oidc/`, in Vault's words, answered by the jwt engine.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use mssm_messages::engine::EngineError;
use mssm_messages::jwt::{
    Audience, DeleteKey, DeleteRole, KeyPatch, ListKeys, ListRoles, ReadConfig, ReadKey, ReadRole,
    RolePatch, Verify, WriteConfig, WriteKey, WriteRole,
};

use super::database::keys;
use super::jwt::{key_name, key_patch, role_name, rotate, sign, token};
use crate::answer::Answer;
use crate::body::Body;
use crate::call::Verb;
use crate::door::{About, NEAR, ask, commit, put};
use crate::error::Refusal;
use crate::json::Object;
use crate::pipeline::Visit;

/// What every issuer here ends with.
const ISSUER_END: &str = "/v1/identity/oidc";
/// The algorithm where nobody says, as in Vault.
const ALGORITHM: &str = "RS256";
/// What Vault says to who sets an issuer.
const ISSUER_WARNING: &str = "If \"issuer\" is set explicitly, all tokens must be validated against \
    that address, including those issued by secondary clusters. Setting issuer to \"\" will restore \
    the default behavior of using the cluster's api_addr as the issuer.";

/// Answers below `identity/`.
pub(crate) async fn answer(visit: &Visit) -> Result<Answer, Refusal> {
    let path = visit.trimmed();
    let Some(path) = path.strip_prefix("oidc/") else { return Err(Refusal::unsupported_path()) };
    let (head, rest) = path.split_once('/').unwrap_or((path, ""));
    let (name, act) = rest.split_once('/').unwrap_or((rest, ""));
    let signer = &visit.worker.door.jwt.signer;
    let mount = visit.mount.id;
    match (head, name, act, visit.call.verb) {
        ("config", "", _, Verb::Read) => read_config(visit).await,
        ("config", "", _, Verb::Write) => write_config(visit).await,
        ("key", "", _, Verb::List) => {
            Ok(keys(ask(&signer.list_keys, ListKeys { mount }, NEAR).await?))
        }
        ("key", name, "", verb) if !name.is_empty() => key(visit, name, verb).await,
        ("key", name, "rotate", Verb::Write) => {
            let (_, warnings) = rotate(visit, key_name(name)?).await?;
            Ok(Answer::done_with(warnings))
        }
        ("role", "", _, Verb::List) => {
            Ok(keys(ask(&signer.list_roles, ListRoles { mount }, NEAR).await?))
        }
        ("role", name, "", verb) if !name.is_empty() => role(visit, name, verb).await,
        ("token", role, "", Verb::Read) if !role.is_empty() => {
            let signed = sign(visit, role, address(&visit.worker.door.about)).await?;
            let object = Object::sized(2048)
                .text("client_id", &signed.client_id)
                .secret("token", &signed.token)
                .number("ttl", signed.ttl_secs);
            Ok(Answer::data(object).warn(signed.warnings))
        }
        ("introspect", "", _, Verb::Write) => introspect(visit).await,
        ("config" | "key" | "role" | "token" | "introspect", ..) => {
            Err(Refusal::unsupported_operation())
        }
        _ => Err(Refusal::unsupported_path()),
    }
}

/// The issuer where none is set.
pub(super) fn address(about: &About) -> String {
    format!("{}{ISSUER_END}", about.api_addr)
}

async fn read_config(visit: &Visit) -> Result<Answer, Refusal> {
    let mount = visit.mount.id;
    let view = ask(&visit.worker.door.jwt.signer.config, ReadConfig { mount }, NEAR).await?;
    let issuer = view.issuer.strip_suffix(ISSUER_END).unwrap_or_default();
    Ok(Answer::data(Object::new().text("issuer", issuer)))
}

async fn write_config(visit: &Visit) -> Result<Answer, Refusal> {
    let body = &visit.call.body;
    let (issuer, warnings) = match body.text("issuer")? {
        Some(issuer) if !issuer.is_empty() => {
            check_issuer(&issuer)?;
            (Some(format!("{issuer}{ISSUER_END}")), vec![ISSUER_WARNING.to_owned()])
        }
        other => (other, Vec::new()),
    };
    // Vault does not know the second; without it this mount could not rotate more quickly.
    let jwks_max_age_secs = body.duration("jwks_max_age")?;
    let message = WriteConfig { mount: visit.mount.id, issuer, jwks_max_age_secs };
    commit(&visit.worker.door.jwt.keeper.write_config, message).await?;
    Ok(Answer::done_with(warnings))
}

/// A scheme, a host, perhaps a port, nothing else.
fn check_issuer(issuer: &str) -> Result<(), Refusal> {
    let host = ["https://", "http://"].iter().find_map(|scheme| issuer.strip_prefix(scheme));
    let plain = |host: &str| {
        let odd = |c: char| c.is_whitespace() || c.is_control() || "/?#@\\".contains(c);
        !host.is_empty() && !host.contains(odd)
    };
    if host.is_some_and(plain) {
        return Ok(());
    }
    Err(Refusal::invalid(
        "invalid issuer, which must include only a scheme, host, and optional port \
         (e.g. https://example.com:8200)",
    ))
}

async fn key(visit: &Visit, name: &str, verb: Verb) -> Result<Answer, Refusal> {
    let jwt = &visit.worker.door.jwt;
    let (mount, name) = (visit.mount.id, key_name(name)?);
    match verb {
        Verb::Read => {
            let view = ask(&jwt.signer.read_key, ReadKey { mount, name }, NEAR).await?;
            Ok(Answer::data(
                Object::new()
                    .text("algorithm", view.algorithm)
                    .texts("allowed_client_ids", &view.allowed_client_ids)
                    .number("rotation_period", view.rotation_period_secs)
                    .number("verification_ttl", view.verification_ttl_secs),
            ))
        }
        Verb::Write => {
            let read = ReadKey { mount, name: name.clone() };
            let is_new = match put(&jwt.signer.read_key, read, NEAR).await? {
                Ok(_) => false,
                Err(EngineError::NotFound) => true,
                Err(error) => return Err(error.into()),
            };
            let mut patch =
                KeyPatch { private_key: None, rsa_bits: None, ..key_patch(&visit.call.body)? };
            if is_new {
                patch.algorithm.get_or_insert_with(|| ALGORITHM.to_owned());
                patch.allowed_client_ids.get_or_insert_with(Vec::new);
            }
            let message = WriteKey { mount, name, patch, must_exist: false };
            Ok(Answer::done_with(commit(&jwt.keeper.write_key, message).await?))
        }
        Verb::Delete => {
            commit(&jwt.keeper.delete_key, DeleteKey { mount, name }).await?;
            Ok(Answer::done())
        }
        Verb::List | Verb::Patch => Err(Refusal::unsupported_operation()),
    }
}

async fn role(visit: &Visit, name: &str, verb: Verb) -> Result<Answer, Refusal> {
    let jwt = &visit.worker.door.jwt;
    let (mount, name) = (visit.mount.id, role_name(name)?);
    match verb {
        Verb::Read => {
            let view = ask(&jwt.signer.read_role, ReadRole { mount, name }, NEAR).await?;
            Ok(Answer::data(
                Object::new()
                    .text("client_id", &view.client_id)
                    .text("key", view.key.as_str())
                    .text("template", &view.claims)
                    .number("ttl", view.ttl_secs),
            ))
        }
        Verb::Write => {
            let body = &visit.call.body;
            let patch = RolePatch {
                key: body.text("key")?,
                claims: template(body)?,
                ttl_secs: body.duration("ttl")?,
                client_id: body.text("client_id")?,
                ..RolePatch::default()
            };
            let message = WriteRole { mount, name, patch, identity: true };
            Ok(Answer::done_with(commit(&jwt.keeper.write_role, message).await?))
        }
        Verb::Delete => {
            commit(&jwt.keeper.delete_role, DeleteRole { mount, name }).await?;
            Ok(Answer::done())
        }
        Verb::List | Verb::Patch => Err(Refusal::unsupported_operation()),
    }
}

/// A template as text or as base64 of it.
fn template(body: &Body) -> Result<Option<String>, Refusal> {
    let Some(text) = body.text("template")? else { return Ok(None) };
    let decoded = STANDARD.decode(&text).ok().and_then(|bytes| String::from_utf8(bytes).ok());
    Ok(Some(decoded.unwrap_or(text)))
}

async fn introspect(visit: &Visit) -> Result<Answer, Refusal> {
    let body = &visit.call.body;
    let client_id = body.text("client_id")?.filter(|id| !id.is_empty());
    let message = Verify {
        mount: visit.mount.id,
        token: token(body)?,
        audience: client_id.map_or(Audience::Any, |id| Audience::OneOf(vec![id])),
        issuer: None,
        token_type: None,
        leeway_secs: 0,
        even_revoked: false,
    };
    match put(&visit.worker.door.jwt.signer.verify, message, NEAR).await? {
        Ok(_) => Ok(Answer::bare(Object::new().flag("active", true))),
        Err(EngineError::Invalid(error)) => {
            Ok(Answer::bare(Object::new().flag("active", false).text("error", &error)))
        }
        Err(error) => Err(error.into()),
    }
}
