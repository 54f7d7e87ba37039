//! Signed tokens: keys, roles, signing, verifying, revoking.

use std::sync::Arc;

use mssm_domain::{Document, KeyName, MountId, RoleName, SecretText, Timestamp};
use mssm_messages::engine::EngineError;
use mssm_messages::jwt::{
    Audience, DeleteKey, DeleteRole, KeyPatch, KeyView, ListKeys, ListRoles, ReadConfig, ReadKey,
    ReadRole, RevokeJti, RolePatch, RoleView, RotateKey, Sign, Signed, Standing, TrimKey, Verify,
    WriteConfig, WriteKey, WriteRole,
};

use super::database::keys;
use crate::answer::Answer;
use crate::body::Body;
use crate::call::Verb;
use crate::door::{FAR, NEAR, Worker, ask, commit, put};
use crate::error::{Refusal, malformed};
use crate::json::Object;
use crate::pipeline::Visit;

/// Answers below such a mount.
pub(crate) async fn answer(visit: &Visit) -> Result<Answer, Refusal> {
    let path = visit.trimmed();
    let (head, rest) = path.split_once('/').unwrap_or((path, ""));
    let (name, act) = rest.split_once('/').unwrap_or((rest, ""));
    let signer = &visit.worker.door.jwt.signer;
    let mount = visit.mount.id;
    match (head, name, act, visit.call.verb) {
        ("config", "", _, Verb::Read) => read_config(visit).await,
        ("config", "", _, Verb::Write) => write_config(visit).await,
        ("keys", "", _, Verb::List) => {
            Ok(keys(ask(&signer.list_keys, ListKeys { mount }, NEAR).await?))
        }
        ("keys", name, act, verb) if !name.is_empty() => key(visit, name, act, verb).await,
        ("roles", "", _, Verb::List) => {
            Ok(keys(ask(&signer.list_roles, ListRoles { mount }, NEAR).await?))
        }
        ("roles", name, "", verb) if !name.is_empty() => role(visit, name, verb).await,
        ("sign", role, "", Verb::Write) | ("token", role, "", Verb::Read) if !role.is_empty() => {
            Ok(show_token(sign(visit, role, address(visit)).await?))
        }
        ("verify", "", _, Verb::Write) => verify(visit).await,
        ("introspect", "", _, Verb::Write) => introspect(visit).await,
        ("revoke", "", _, Verb::Write) => revoke(visit).await,
        (
            "config" | "keys" | "roles" | "sign" | "token" | "verify" | "introspect" | "revoke",
            ..,
        ) => Err(Refusal::unsupported_operation()),
        _ => Err(Refusal::unsupported_path()),
    }
}

/// The mount's own address, without a slash at its end.
fn address(visit: &Visit) -> String {
    let prefix = visit.mount.prefix.as_str().trim_end_matches('/');
    format!("{}/v1/{prefix}", visit.worker.door.about.api_addr)
}

pub(super) fn key_name(name: &str) -> Result<KeyName, Refusal> {
    KeyName::parse(name).map_err(|error| malformed(&error))
}

pub(super) fn role_name(name: &str) -> Result<RoleName, Refusal> {
    RoleName::parse(name).map_err(|error| malformed(&error))
}

/// True if a key or a role is there already.
pub(crate) async fn exists(
    worker: &Worker,
    mount: MountId,
    role: bool,
    name: &str,
) -> Result<bool, Refusal> {
    let signer = &worker.door.jwt.signer;
    let absent = if role {
        let Ok(name) = RoleName::parse(name) else { return Ok(true) };
        put(&signer.read_role, ReadRole { mount, name }, NEAR).await?.err()
    } else {
        let Ok(name) = KeyName::parse(name) else { return Ok(true) };
        put(&signer.read_key, ReadKey { mount, name }, NEAR).await?.err()
    };
    match absent {
        None => Ok(true),
        Some(EngineError::NotFound) => Ok(false),
        Some(error) => Err(error.into()),
    }
}

async fn read_config(visit: &Visit) -> Result<Answer, Refusal> {
    let mount = visit.mount.id;
    let view = ask(&visit.worker.door.jwt.signer.config, ReadConfig { mount }, NEAR).await?;
    Ok(Answer::data(
        Object::new().text("issuer", &view.issuer).number("jwks_max_age", view.jwks_max_age_secs),
    ))
}

async fn write_config(visit: &Visit) -> Result<Answer, Refusal> {
    let body = &visit.call.body;
    let message = WriteConfig {
        mount: visit.mount.id,
        issuer: body.text("issuer")?,
        jwks_max_age_secs: body.duration("jwks_max_age")?,
    };
    commit(&visit.worker.door.jwt.keeper.write_config, message).await?;
    Ok(Answer::done())
}

async fn key(visit: &Visit, name: &str, act: &str, verb: Verb) -> Result<Answer, Refusal> {
    let jwt = &visit.worker.door.jwt;
    let (mount, name, body) = (visit.mount.id, key_name(name)?, &visit.call.body);
    match (act, verb) {
        ("" | "config", Verb::Read) => Ok(Answer::data(show_key(
            &ask(&jwt.signer.read_key, ReadKey { mount, name }, NEAR).await?,
        ))),
        ("" | "config", Verb::Write) => {
            let patch = key_patch(body)?;
            let message = WriteKey { mount, name, patch, must_exist: act == "config" };
            Ok(Answer::done_with(commit(&jwt.keeper.write_key, message).await?))
        }
        ("", Verb::Delete) => {
            commit(&jwt.keeper.delete_key, DeleteKey { mount, name }).await?;
            Ok(Answer::done())
        }
        ("rotate", Verb::Write) => {
            rotate(visit, name).await.map(|(object, warnings)| Answer::data(object).warn(warnings))
        }
        ("trim", Verb::Write) => {
            let kids = body.list("kids")?.unwrap_or_default();
            let gone = commit(&jwt.keeper.trim_key, TrimKey { mount, name, kids }).await?;
            Ok(Answer::data(Object::new().texts("trimmed", gone)))
        }
        ("" | "config" | "rotate" | "trim", _) => Err(Refusal::unsupported_operation()),
        _ => Err(Refusal::unsupported_path()),
    }
}

/// Rotates; what it led to, and the warning if it waits.
pub(super) async fn rotate(visit: &Visit, name: KeyName) -> Result<(Object, Vec<String>), Refusal> {
    let verification_ttl_secs = visit.call.body.duration("verification_ttl")?;
    let message = RotateKey { mount: visit.mount.id, name, verification_ttl_secs };
    let rotated = commit(&visit.worker.door.jwt.keeper.rotate_key, message).await?;
    let waits = rotated.waits_until.map(Timestamp::rfc3339);
    let object = Object::new().text("kid", &rotated.kid).maybe("rotates_at", waits.as_deref());
    let warning = waits.map(|at| {
        format!("the next key has not been public for long enough: it signs from {at} on")
    });
    Ok((object, warning.into_iter().collect()))
}

pub(super) fn key_patch(body: &Body) -> Result<KeyPatch, Refusal> {
    Ok(KeyPatch {
        algorithm: body.text("algorithm")?,
        rsa_bits: body.number("rsa_bits")?,
        rotation_period_secs: body.duration("rotation_period")?,
        rotation_count: body.number("rotation_count")?,
        verification_ttl_secs: body.duration("verification_ttl")?,
        allowed_client_ids: body.list("allowed_client_ids")?,
        private_key: body.secret("private_key")?,
    })
}

fn show_key(view: &KeyView) -> Object {
    let time = |at: Option<Timestamp>| at.map(Timestamp::rfc3339);
    let mut keys = Vec::with_capacity(view.keys.len());
    for key in &view.keys {
        let standing = match key.standing {
            Standing::Previous => "previous",
            Standing::Current => "current",
            Standing::Next => "next",
        };
        let object = Object::new()
            .flag("imported", key.imported)
            .raw("jwk", &key.jwk)
            .text("kid", &key.kid)
            .text("published_at", &key.published_at.rfc3339())
            .text("signs_from", &key.signs_from.rfc3339())
            .text("standing", standing)
            .maybe("verifies_until", time(key.verifies_until).as_deref());
        // EXPOSE: public keys; moves into the answer.
        keys.push(object.finish().expose().to_owned());
    }
    Object::sized(4096)
        .text("algorithm", view.algorithm)
        .texts("allowed_client_ids", &view.allowed_client_ids)
        .raw("keys", &format!("[{}]", keys.join(",")))
        .maybe("rotates_at", time(view.rotates_at).as_deref())
        .number("rotation_count", view.rotation_count)
        .number("rotation_period", view.rotation_period_secs)
        .number("rsa_bits", view.rsa_bits)
        .number("verification_ttl", view.verification_ttl_secs)
}

async fn role(visit: &Visit, name: &str, verb: Verb) -> Result<Answer, Refusal> {
    let jwt = &visit.worker.door.jwt;
    let (mount, name) = (visit.mount.id, role_name(name)?);
    match verb {
        Verb::Read => Ok(Answer::data(show_role(
            &ask(&jwt.signer.read_role, ReadRole { mount, name }, NEAR).await?,
        ))),
        Verb::Write => {
            let patch = role_patch(&visit.call.body)?;
            let message = WriteRole { mount, name, patch, identity: false };
            Ok(Answer::done_with(commit(&jwt.keeper.write_role, message).await?))
        }
        Verb::Delete => {
            commit(&jwt.keeper.delete_role, DeleteRole { mount, name }).await?;
            Ok(Answer::done())
        }
        Verb::List | Verb::Patch => Err(Refusal::unsupported_operation()),
    }
}

/// A JSON object, sent as one or as its text.
fn object_text(body: &Body, name: &str) -> Result<Option<String>, Refusal> {
    match body.raw(name) {
        Some(raw) if raw.starts_with('{') => Ok(Some(raw.to_owned())),
        _ => body.text(name),
    }
}

fn role_patch(body: &Body) -> Result<RolePatch, Refusal> {
    Ok(RolePatch {
        key: body.text("key")?,
        issuer: body.text("issuer")?,
        audience: body.list("audience")?,
        subject: body.text("subject")?,
        claims: object_text(body, "claims")?,
        allowed_claims: body.list("allowed_claims")?,
        ttl_secs: body.duration("ttl")?,
        max_ttl_secs: body.duration("max_ttl")?,
        not_before: body.text("not_before")?,
        not_before_leeway_secs: body.duration("not_before_leeway")?,
        jti: body.text("jti")?,
        headers: object_text(body, "headers")?,
        token_type: body.text("token_type")?,
        client_id: body.text("client_id")?,
    })
}

fn show_role(view: &RoleView) -> Object {
    Object::sized(1024)
        .texts("allowed_claims", &view.allowed_claims)
        .texts("audience", &view.audience)
        .text("claims", &view.claims)
        .text("client_id", &view.client_id)
        .text("headers", &view.headers)
        .text("issuer", &view.issuer)
        .text("jti", view.jti)
        .text("key", view.key.as_str())
        .number("max_ttl", view.max_ttl_secs)
        .text("not_before", view.not_before)
        .number("not_before_leeway", view.not_before_leeway_secs)
        .text("subject", &view.subject)
        .text("token_type", view.token_type)
        .number("ttl", view.ttl_secs)
}

/// Has a token signed for the caller.
pub(super) async fn sign(visit: &Visit, role: &str, address: String) -> Result<Signed, Refusal> {
    let body = &visit.call.body;
    let claims =
        body.raw("claims").map(|raw| Document::from_checked_json(SecretText::new(raw.to_owned())));
    let message = Sign {
        mount: visit.mount.id,
        role: role_name(role)?,
        caller: Arc::clone(&visit.authorized.caller),
        metadata: Arc::clone(&visit.authorized.metadata),
        claims,
        ttl_secs: body.duration("ttl")?,
        address,
    };
    ask(&visit.worker.door.jwt.signer.sign, message, FAR).await
}

fn show_token(signed: Signed) -> Answer {
    let object = Object::sized(2048)
        .text("expires_at", &signed.expires_at.rfc3339())
        .maybe("jti", signed.jti.as_deref())
        .text("kid", &signed.kid)
        .secret("token", &signed.token)
        .number("ttl", signed.ttl_secs);
    Answer::data(object).warn(signed.warnings)
}

/// The token that a body holds.
pub(super) fn token(body: &Body) -> Result<SecretText, Refusal> {
    let missing = || Refusal::invalid("missing token");
    // EXPOSE: only whether it is empty is looked at.
    body.secret("token")?.filter(|token| !token.expose().is_empty()).ok_or_else(missing)
}

async fn verify(visit: &Visit) -> Result<Answer, Refusal> {
    let body = &visit.call.body;
    let message = Verify {
        mount: visit.mount.id,
        token: token(body)?,
        audience: Audience::OneOf(body.list("audience")?.unwrap_or_default()),
        issuer: body.text("issuer")?,
        token_type: body.text("token_type")?,
        leeway_secs: body.duration("leeway")?.unwrap_or(0),
        even_revoked: false,
    };
    let verified = ask(&visit.worker.door.jwt.signer.verify, message, NEAR).await?;
    // EXPOSE: what the token says is what was asked.
    let (claims, header) = (verified.claims.expose(), verified.header.expose());
    Ok(Answer::data(
        Object::sized(claims.len() + header.len() + 64)
            .raw("claims", claims)
            .raw("header", header)
            .flag("valid", true),
    ))
}

/// RFC 7662: what is known of a token, and of one that does not hold nothing.
async fn introspect(visit: &Visit) -> Result<Answer, Refusal> {
    // What kind of token it is decides nothing here: there is one kind.
    let _ = visit.call.body.raw("token_type_hint");
    let message = Verify {
        mount: visit.mount.id,
        token: token(&visit.call.body)?,
        audience: Audience::Any,
        issuer: None,
        token_type: None,
        leeway_secs: 0,
        even_revoked: false,
    };
    match put(&visit.worker.door.jwt.signer.verify, message, NEAR).await? {
        Ok(verified) => {
            // EXPOSE: what the token says is what was asked.
            let mut claims: serde_json::Map<_, _> = serde_json::from_str(verified.claims.expose())
                .map_err(|error| Refusal::internal(error.to_string()))?;
            claims.remove("active");
            let claims = serde_json::Value::Object(claims).to_string();
            let object = Object::sized(claims.len() + 32).flag("active", true).merge(&claims);
            Ok(Answer::bare(object))
        }
        Err(EngineError::Invalid(_)) => Ok(Answer::bare(Object::new().flag("active", false))),
        Err(error) => Err(error.into()),
    }
}

/// By the token itself, whose signature and end are then known, or by its `jti` alone.
async fn revoke(visit: &Visit) -> Result<Answer, Refusal> {
    let body = &visit.call.body;
    let mount = visit.mount.id;
    let (jti, expires_at) = if let Some(jti) = body.text("jti")? {
        (jti, None)
    } else {
        let message = Verify {
            mount,
            token: token(body).map_err(|_| Refusal::invalid("missing token or jti"))?,
            audience: Audience::Any,
            issuer: None,
            token_type: None,
            leeway_secs: 0,
            even_revoked: true,
        };
        let verified = ask(&visit.worker.door.jwt.signer.verify, message, NEAR).await?;
        let none = || Refusal::invalid("the token has no jti, by which it could be revoked");
        (verified.jti.ok_or_else(none)?, Some(verified.expires_at))
    };
    let message = RevokeJti { mount, jti, expires_at };
    commit(&visit.worker.door.jwt.keeper.revoke, message).await?;
    Ok(Answer::done())
}
