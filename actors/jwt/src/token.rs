//! Tokens in their compact form (RFC 7515), written, and taken apart with distrust.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use mssm_crypto::jose::Algorithm;
use mssm_domain::Timestamp;
use mssm_messages::jwt::Audience;
use serde_json::{Map, Value, json};

use crate::claims::audiences;
use crate::role::Role;

/// The longest token that is looked at, in bytes: more than any that is signed here.
const TOKEN_MAX: usize = 32 * 1024;

/// The longest `jti` that can be revoked, in bytes: what is longer is no name.
pub(crate) const JTI_MAX: usize = 512;
/// How far the clocks of who signed and who verifies may be apart, at most.
pub(crate) const LEEWAY_MAX_SECS: u64 = 300;

/// The part of a token that is signed.
pub(crate) fn unsigned(role: &Role, algorithm: Algorithm, kid: &str, claims: &str) -> String {
    let mut header = role.headers.clone();
    header.insert("alg".to_owned(), algorithm.name().into());
    header.insert("kid".to_owned(), kid.into());
    header.insert("typ".to_owned(), role.token_type().into());
    let header = Value::Object(header).to_string();
    let mut text = String::with_capacity((header.len() + claims.len()) * 4 / 3 + 700);
    URL_SAFE_NO_PAD.encode_string(header, &mut text);
    text.push('.');
    URL_SAFE_NO_PAD.encode_string(claims, &mut text);
    text
}

/// The whole token.
pub(crate) fn signed(mut unsigned: String, signature: &[u8]) -> String {
    unsigned.push('.');
    URL_SAFE_NO_PAD.encode_string(signature, &mut unsigned);
    unsigned
}

/// A token taken apart; nothing of it is believed yet.
pub(crate) struct Parts<'a> {
    pub(crate) header: Map<String, Value>,
    pub(crate) algorithm: Algorithm,
    pub(crate) kid: String,
    /// What the signature is over.
    pub(crate) message: &'a [u8],
    pub(crate) signature: Vec<u8>,
    claims: &'a str,
}

/// Takes a token apart.
pub(crate) fn take_apart(token: &str) -> Result<Parts<'_>, String> {
    if token.len() > TOKEN_MAX {
        return Err(format!("the token is longer than {TOKEN_MAX} bytes"));
    }
    let mut parts = token.split('.');
    let (Some(header), Some(claims), Some(signature), None) =
        (parts.next(), parts.next(), parts.next(), parts.next())
    else {
        return Err("a signed token has three parts".to_owned());
    };
    let message = token.get(..header.len() + 1 + claims.len()).unwrap_or_default().as_bytes();
    let header = object(header, "header")?;
    // RFC 7515, section 4.1.11: what must be understood and is not makes the token invalid.
    if header.contains_key("crit") {
        return Err("the token's header has crit, of which nothing is understood".to_owned());
    }
    let algorithm = match header.get("alg") {
        Some(Value::String(name)) if name.eq_ignore_ascii_case("none") => {
            return Err("a token with alg none is not signed".to_owned());
        }
        Some(Value::String(name)) => Algorithm::parse(name)
            .ok_or_else(|| "the token's alg is not one of this engine's".to_owned())?,
        _ => return Err("the token's header has no alg".to_owned()),
    };
    let Some(Value::String(kid)) = header.get("kid") else {
        return Err("the token's header has no kid".to_owned());
    };
    let kid = kid.clone();
    let signature = decode(signature, "signature")?;
    Ok(Parts { header, algorithm, kid, message, signature, claims })
}

impl Parts<'_> {
    /// The claims; asked for once the signature holds.
    pub(crate) fn claims(&self) -> Result<Map<String, Value>, String> {
        object(self.claims, "claims")
    }
}

fn decode(part: &str, name: &str) -> Result<Vec<u8>, String> {
    URL_SAFE_NO_PAD.decode(part).map_err(|_| format!("the token's {name} is not base64url"))
}

fn object(part: &str, name: &str) -> Result<Map<String, Value>, String> {
    serde_json::from_slice(&decode(part, name)?)
        .map_err(|_| format!("the token's {name} is not a JSON object"))
}

/// What a verifier demands of the claims.
pub(crate) struct Demands<'a> {
    pub(crate) now: Timestamp,
    pub(crate) leeway_secs: u64,
    pub(crate) audience: &'a Audience,
    pub(crate) issuer: Option<&'a str>,
}

/// Checks claims whose signature holds; replies when the token ends.
pub(crate) fn check(
    claims: &Map<String, Value>,
    demands: &Demands<'_>,
) -> Result<Timestamp, String> {
    let (now, leeway) = (demands.now.unix_secs(), demands.leeway_secs);
    let expires = number(claims, "exp")?.ok_or("the token has no exp")?;
    if now >= expires.saturating_add(leeway) {
        return Err("the token has expired".to_owned());
    }
    if number(claims, "nbf")?.is_some_and(|from| from > now.saturating_add(leeway)) {
        return Err("the token is not valid yet".to_owned());
    }
    if number(claims, "iat")?.is_some_and(|issued| issued > now.saturating_add(leeway)) {
        return Err("the token was issued in the future".to_owned());
    }
    if let Some(issuer) = demands.issuer
        && claims.get("iss") != Some(&json!(issuer))
    {
        return Err("the token is from another issuer".to_owned());
    }
    check_audience(claims.get("aud"), demands.audience)?;
    Ok(Timestamp::from_unix_ms(expires.saturating_mul(1000)))
}

fn check_audience(aud: Option<&Value>, audience: &Audience) -> Result<(), String> {
    let Audience::OneOf(wanted) = audience else { return Ok(()) };
    let Some(aud) = aud else {
        let text = "the token is for no audience, and one was demanded";
        return if wanted.is_empty() { Ok(()) } else { Err(text.to_owned()) };
    };
    let named = audiences(aud)?;
    if wanted.is_empty() {
        return Err("the token is for an audience: say which you are in audience".to_owned());
    }
    if wanted.iter().any(|one| named.contains(&one.as_str())) {
        return Ok(());
    }
    Err("the token is for another audience".to_owned())
}

fn number(claims: &Map<String, Value>, name: &str) -> Result<Option<u64>, String> {
    match claims.get(name) {
        None => Ok(None),
        Some(value) => {
            value.as_u64().map(Some).ok_or_else(|| format!("the token's {name} is not a time"))
        }
    }
}
