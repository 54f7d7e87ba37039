//! From a role and a wish to the claims of one token.

use mssm_domain::{Document, Random, Timestamp, generate_base62};
use mssm_messages::engine::EngineError;
use serde_json::{Map, Value, json};

use crate::keyset::KeySet;
use crate::role::{OWN, Role};
use crate::template::{self, Facts};

/// The longest text of claims that a caller may send, in bytes.
const CALLERS_MAX: usize = 8 * 1024;
/// The longest text of all claims of a token: what is larger fits into no header of a request.
const PAYLOAD_MAX: usize = 16 * 1024;
/// The length of a `jti`: 142 bits.
const JTI_LEN: usize = 24;

/// What one token is to say.
pub(crate) struct Wish<'a> {
    pub(crate) facts: Facts<'a>,
    pub(crate) claims: Option<&'a Document>,
    pub(crate) ttl_secs: Option<u64>,
    pub(crate) issuer: &'a str,
}

/// What one token says.
#[derive(Debug)]
pub(crate) struct Claims {
    /// A JSON object.
    pub(crate) text: String,
    pub(crate) ttl_secs: u64,
    pub(crate) expires_at: Timestamp,
    pub(crate) jti: Option<String>,
    pub(crate) warnings: Vec<String>,
}

fn invalid(text: impl Into<String>) -> EngineError {
    EngineError::Invalid(text.into())
}

/// The claims of a token that is signed now.
pub(crate) fn build(
    role: &Role,
    set: &KeySet,
    wish: &Wish<'_>,
    random: &dyn Random,
) -> Result<Claims, EngineError> {
    let facts = &wish.facts;
    let mut claims = Map::new();
    for (name, value) in &role.claims {
        claims.insert(name.clone(), template::fill(value, facts).map_err(invalid)?);
    }
    let subject = template::fill_text(&role.subject, facts).map_err(invalid)?;
    if !subject.is_empty() {
        claims.insert("sub".to_owned(), subject.into());
    }
    match role.audience.as_slice() {
        [] => {}
        [one] => drop(claims.insert("aud".to_owned(), one.as_str().into())),
        several => drop(claims.insert("aud".to_owned(), several.into())),
    }
    if role.access_token && !role.client_id.is_empty() {
        claims.insert("client_id".to_owned(), role.client_id.as_str().into());
    }
    if role.identity {
        claims.insert("namespace".to_owned(), "root".into());
    }
    if let Some(document) = wish.claims {
        callers(&mut claims, role, document)?;
    }
    if role.access_token
        && ["sub", "aud", "client_id"].iter().any(|name| !claims.contains_key(*name))
    {
        return Err(invalid("an access token needs sub, aud and client_id"));
    }
    stamp(claims, role, set, wish, random)
}

/// Puts in what the caller sets, as far as the role lets it.
fn callers(
    claims: &mut Map<String, Value>,
    role: &Role,
    document: &Document,
) -> Result<(), EngineError> {
    // EXPOSE: signed claims are what the caller asked for.
    let text = document.expose();
    if text.len() > CALLERS_MAX {
        return Err(invalid(format!("claims are longer than {CALLERS_MAX} bytes")));
    }
    let sent: Map<String, Value> =
        serde_json::from_str(text).map_err(|_| invalid("claims must be a JSON object"))?;
    for (name, value) in sent {
        if OWN.contains(&name.as_str()) {
            return Err(invalid(format!("claim {name:?} is reserved: the engine alone sets it")));
        }
        if !role.allows(&name) {
            return Err(invalid(format!("claim {name:?} is not among the role's allowed_claims")));
        }
        match name.as_str() {
            "aud" => drop(audiences(&value).map_err(invalid)?),
            "sub" | "client_id" if value.as_str().is_none_or(str::is_empty) => {
                return Err(invalid(format!("claim {name:?} must be text and not be empty")));
            }
            _ => {}
        }
        claims.insert(name, value);
    }
    Ok(())
}

/// What `aud` says: RFC 7519 allows one text or a list of texts, nothing else.
pub(crate) fn audiences(value: &Value) -> Result<Vec<&str>, String> {
    let wrong = || "aud must be a text or a list of texts, none of them empty".to_owned();
    let named = match value {
        Value::String(text) => vec![text.as_str()],
        Value::Array(items) => {
            items.iter().map(Value::as_str).collect::<Option<Vec<_>>>().ok_or_else(wrong)?
        }
        _ => return Err(wrong()),
    };
    if named.is_empty() || named.iter().any(|name| name.is_empty()) {
        return Err(wrong());
    }
    Ok(named)
}

/// Puts in the engine's own claims.
fn stamp(
    mut claims: Map<String, Value>,
    role: &Role,
    set: &KeySet,
    wish: &Wish<'_>,
    random: &dyn Random,
) -> Result<Claims, EngineError> {
    let mut warnings = Vec::new();
    let asked = wish.ttl_secs.unwrap_or(role.ttl_secs);
    if asked == 0 {
        return Err(invalid("a token lives for a second at least"));
    }
    // Roles keep within their key's verification; this holds whatever the records say.
    let most = role.max_ttl_secs.min(set.settings.verification_ttl_secs);
    let ttl_secs = asked.min(most);
    if asked > most {
        warnings.push(format!("TTL of {asked} s exceeded the role's max_ttl; capped to {most} s"));
    }
    // Rounded down, so that no verifier finds it in the future.
    let issued = wish.facts.now.unix_secs();
    let expires = issued.saturating_add(ttl_secs);
    claims.insert("iss".to_owned(), wish.issuer.into());
    claims.insert("iat".to_owned(), issued.into());
    claims.insert("exp".to_owned(), expires.into());
    if role.not_before {
        let from = issued.saturating_sub(role.not_before_leeway_secs);
        claims.insert("nbf".to_owned(), json!(from));
    }
    let jti = role.jti.then(|| generate_base62(random, JTI_LEN));
    if let Some(jti) = &jti {
        claims.insert("jti".to_owned(), jti.as_str().into());
    }
    let text = Value::Object(claims).to_string();
    if text.len() > PAYLOAD_MAX {
        return Err(invalid(format!("the token's claims are longer than {PAYLOAD_MAX} bytes")));
    }
    let expires_at = Timestamp::from_unix_ms(expires.saturating_mul(1000));
    Ok(Claims { text, ttl_secs, expires_at, jti, warnings })
}
