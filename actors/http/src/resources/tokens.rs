//! `auth/token/`: tokens are made, looked up, renewed and ended.

use std::time::Duration;

use actix_web::http::StatusCode;
use mssm_domain::policy::Capability;
use mssm_domain::{Accessor, SecretText, Timestamp, Ttl};
use mssm_messages::access::{
    AccessError, CreateToken, ListAccessors, LookupToken, NewToken, RenewToken, RevokeToken,
    TidyTokens, TokenRef, TokenView, TokenWish,
};

use crate::answer::Answer;
use crate::body::Body;
use crate::call::Verb;
use crate::door::{FAR, ask, commit, put};
use crate::error::Refusal;
use crate::handed::Handed;
use crate::json::Object;
use crate::pipeline::Visit;
use crate::resources::one_name;

/// Answers below `auth/token/`.
pub(crate) async fn answer(visit: &Visit) -> Result<Answer, Refusal> {
    let path = visit.trimmed();
    let (head, tail) = path.split_once('/').unwrap_or((path, ""));
    let names = head == "create" || head.ends_with("-accessor");
    if !names && !tail.is_empty() {
        // Rules name the one path, `sudo` on `accessors` too. And a token in a path would be written down in
        // clear by every proxy before us.
        return Err(Refusal::unsupported_path());
    }
    match (head, visit.call.verb) {
        ("create", Verb::Write) if tail.is_empty() => create(visit, false).await,
        ("create", Verb::Write) => Err(Refusal::invalid("unknown role")),
        ("create-orphan", Verb::Write) => create(visit, true).await,
        ("lookup-self", Verb::Read | Verb::Write) | ("lookup", Verb::Read) => {
            lookup_self(visit).await
        }
        ("lookup", Verb::Write) => match named(visit)? {
            Some(token) => lookup(visit, TokenRef::Secret(token.duplicate()), Some(&token)).await,
            None => lookup_self(visit).await,
        },
        ("lookup-accessor", Verb::Write) => {
            lookup(visit, TokenRef::Accessor(accessor(visit, tail)?), None).await
        }
        ("renew-self", Verb::Write) => renew(visit, own(visit), visit.call.token.as_ref()).await,
        ("renew", Verb::Write) => {
            let token = named(visit)?.ok_or_else(|| Refusal::invalid("missing token ID"))?;
            renew(visit, TokenRef::Secret(token.duplicate()), Some(&token)).await
        }
        ("renew-accessor", Verb::Write) => {
            renew(visit, TokenRef::Accessor(accessor(visit, tail)?), None).await
        }
        ("revoke-self", Verb::Write) => revoke(visit, own(visit), false).await,
        ("revoke" | "revoke-orphan", Verb::Write) => {
            let token = named(visit)?.ok_or_else(|| Refusal::invalid("missing token ID"))?;
            revoke(visit, TokenRef::Secret(token), head == "revoke-orphan").await
        }
        ("revoke-accessor", Verb::Write) => revoke_accessor(visit, tail).await,
        ("accessors", Verb::List) => {
            let accessors = ask(&visit.worker.door.tokens.accessors, ListAccessors, FAR).await?;
            Ok(Answer::keys(accessors.iter().map(Accessor::as_str)))
        }
        ("tidy", Verb::Write) => tidy(visit).await,
        (
            "create" | "create-orphan" | "lookup-self" | "lookup" | "lookup-accessor"
            | "renew-self" | "renew" | "renew-accessor" | "revoke-self" | "revoke"
            | "revoke-orphan" | "revoke-accessor" | "accessors" | "tidy",
            _,
        ) => Err(Refusal::unsupported_operation()),
        _ => Err(Refusal::unsupported_path()),
    }
}

fn own(visit: &Visit) -> TokenRef {
    TokenRef::Id(visit.authorized.caller.token)
}

/// The token that a request names in its body.
fn named(visit: &Visit) -> Result<Option<SecretText>, Refusal> {
    let token = visit.call.body.secret("token")?;
    // EXPOSE: only to see whether there is any.
    Ok(token.filter(|token| !token.expose().is_empty()))
}

fn accessor(visit: &Visit, tail: &str) -> Result<Accessor, Refusal> {
    let text = one_name(&[visit.call.body.text("accessor")?], tail)?;
    if text.is_empty() {
        return Err(Refusal::invalid("missing accessor"));
    }
    Accessor::parse(&text)
        .map_err(|_| Refusal::invalid("1 error occurred:\n\t* invalid accessor\n\n"))
}

/// A lifetime; zero and absence are none.
pub(crate) fn ttl(body: &Body, name: &str) -> Result<Option<Ttl>, Refusal> {
    match body.duration(name)? {
        None | Some(0) => Ok(None),
        Some(secs) => Ttl::from_secs(secs).map(Some).map_err(|error| {
            Refusal::invalid(format!("error converting input for field \"{name}\": {error}"))
        }),
    }
}

fn wish(body: &Body, orphan: bool) -> Result<TokenWish, Refusal> {
    let num_uses = body.number("num_uses")?.unwrap_or(0);
    Ok(TokenWish {
        id: body.secret("id")?,
        policies: body.list("policies")?.unwrap_or_default(),
        metadata: match body.map("meta")? {
            Some(meta) => meta,
            None => body.map("metadata")?.unwrap_or_default(),
        },
        ttl: match ttl(body, "ttl")? {
            Some(ttl) => Some(ttl),
            None => ttl(body, "lease")?,
        },
        explicit_max_ttl: ttl(body, "explicit_max_ttl")?,
        period: ttl(body, "period")?,
        renewable: body.flag("renewable")?,
        num_uses: u32::try_from(num_uses)
            .map_err(|_| Refusal::invalid("number of uses is too large"))?,
        orphan: orphan | body.flag("no_parent")?.unwrap_or(false),
        by_orphan_path: orphan,
        no_default_policy: body.flag("no_default_policy")?.unwrap_or(false),
        display_name: body.text("display_name")?,
        kind: body.text("type")?.unwrap_or_default(),
    })
}

async fn create(visit: &Visit, orphan: bool) -> Result<Answer, Refusal> {
    let wish = wish(&visit.call.body, orphan)?;
    if visit.call.body.text("entity_alias")?.is_some_and(|alias| !alias.is_empty()) {
        return Err(Refusal::invalid("entity aliases are not supported"));
    }
    let caller = &visit.authorized.caller;
    let sudo = caller.is_root() || visit.authorized.capabilities.has(Capability::Sudo);
    let message = CreateToken { caller: caller.clone(), wish, sudo };
    let tokens = &visit.worker.door.tokens;
    let made = commit(&tokens.create, message).await?;
    let handed = Handed::token(made.view.accessor.clone(), tokens.revoke.clone());
    let secret = made.token.as_ref();
    Ok(Answer::auth(auth(&made, secret)).warn(made.warnings.clone()).with_handed(handed))
}

/// What an answer says of a token that was made or renewed.
fn auth(made: &NewToken, secret: Option<&SecretText>) -> Object {
    let view = &made.view;
    let since = view.renewed_at.unwrap_or(view.issued_at);
    let lives = view.expires_at.map_or(0, |end| since.until(end).as_secs());
    let object = match secret {
        Some(secret) => Object::new().secret("client_token", secret),
        None => Object::new().text("client_token", ""),
    };
    let policies = || view.policies.iter().map(mssm_domain::PolicyName::as_str);
    object
        .text("accessor", view.accessor.as_str())
        .texts("policies", policies())
        .texts("token_policies", policies())
        .map("metadata", &view.metadata)
        .number("lease_duration", lives)
        .flag("renewable", view.renewable)
        .text("entity_id", "")
        .text("token_type", "service")
        .flag("orphan", view.orphan)
        .null("mfa_requirement")
        .number("num_uses", view.num_uses.into())
}

async fn lookup_self(visit: &Visit) -> Result<Answer, Refusal> {
    let secret = visit.call.token.as_ref();
    // Its last use has ended it: it is shown as it was.
    if let Some(view) = &visit.authorized.last_view {
        return Ok(Answer::data(describe(view, secret, visit.worker.door.clock.now())));
    }
    lookup(visit, own(visit), secret).await
}

async fn lookup(
    visit: &Visit,
    token: TokenRef,
    secret: Option<&SecretText>,
) -> Result<Answer, Refusal> {
    let door = &visit.worker.door;
    let view = ask(&door.tokens.lookup, LookupToken(token), FAR).await?;
    Ok(Answer::data(describe(&view, secret, door.clock.now())))
}

fn describe(view: &TokenView, secret: Option<&SecretText>, now: Timestamp) -> Object {
    let secs = |ttl: Option<Ttl>| ttl.map_or(0, Ttl::secs);
    let left = view.expires_at.map_or(0, |end| left(now.until(end)));
    let object = Object::new()
        .text("accessor", view.accessor.as_str())
        .number("creation_time", view.issued_at.unix_secs())
        .number("creation_ttl", secs(view.creation_ttl))
        .text("display_name", &view.display_name)
        .text("entity_id", "")
        .maybe("expire_time", view.expires_at.map(Timestamp::rfc3339).as_deref())
        .number("explicit_max_ttl", secs(view.explicit_max_ttl));
    let mut object = match secret {
        Some(secret) => object.secret("id", secret),
        None => object.text("id", ""),
    };
    object = object.text("issue_time", &view.issued_at.rfc3339());
    if let Some(renewed_at) = view.renewed_at {
        object = object
            .text("last_renewal", &renewed_at.rfc3339())
            .number("last_renewal_time", renewed_at.unix_secs());
    }
    object = object
        .map("meta", &view.metadata)
        .number("num_uses", view.num_uses.into())
        .flag("orphan", view.orphan)
        .text("path", &view.path);
    if let Some(period) = view.period {
        object = object.number("period", period.secs());
    }
    object
        .texts("policies", view.policies.iter().map(mssm_domain::PolicyName::as_str))
        .flag("renewable", view.renewable)
        .number("ttl", left)
        .text("type", "service")
}

/// Whole seconds, rounded up: what was just given lives as long as was said.
pub(crate) fn left(span: Duration) -> u64 {
    span.as_secs() + u64::from(span.subsec_nanos() > 0)
}

async fn renew(
    visit: &Visit,
    token: TokenRef,
    secret: Option<&SecretText>,
) -> Result<Answer, Refusal> {
    let increment = ttl(&visit.call.body, "increment")?;
    let message = RenewToken { token, increment };
    let made = commit(&visit.worker.door.tokens.renew, message).await?;
    Ok(Answer::auth(auth(&made, secret)).warn(made.warnings.clone()))
}

async fn revoke(visit: &Visit, token: TokenRef, keep_children: bool) -> Result<Answer, Refusal> {
    let message = RevokeToken { token, keep_children };
    commit(&visit.worker.door.tokens.revoke, message).await?;
    Ok(Answer::done())
}

async fn revoke_accessor(visit: &Visit, tail: &str) -> Result<Answer, Refusal> {
    let token = TokenRef::Accessor(accessor(visit, tail)?);
    let message = RevokeToken { token, keep_children: false };
    let port = &visit.worker.door.tokens.revoke;
    let reply = port.commit(message).await.map_err(crate::error::unreachable)?;
    match reply {
        Ok(true) => Ok(Answer::done()),
        Ok(false) | Err(AccessError::BadAccessor) => {
            Ok(Answer::done_with(vec!["No token found with this accessor".to_owned()]))
        }
        Err(error) => Err(error.into()),
    }
}

async fn tidy(visit: &Visit) -> Result<Answer, Refusal> {
    put(&visit.worker.door.tokens.tidy, TidyTokens, FAR).await??;
    let text = "Tidy operation successfully started. Any information from the operation will be \
                printed to the server's log.";
    Ok(Answer::empty_envelope().with_status(StatusCode::ACCEPTED).warn(vec![text.to_owned()]))
}
