//! Verifying: the signature first, then what the claims say, then whether it was revoked.

use std::rc::Rc;

use mssm_domain::{Document, SecretText};
use mssm_messages::engine::EngineError;
use mssm_messages::jwt::{Verified, Verify};
use serde_json::Value;

use super::Desk;
use crate::record;
use crate::token::{self, Demands, JTI_MAX, LEEWAY_MAX_SECS};

impl Desk {
    pub(super) async fn verify(self: Rc<Self>, msg: Verify) -> Result<Verified, EngineError> {
        if msg.leeway_secs > LEEWAY_MAX_SECS {
            let text = format!("leeway cannot be longer than {LEEWAY_MAX_SECS} s");
            return Err(EngineError::Invalid(text));
        }
        let state = self.mount(msg.mount)?;
        let now = self.clock.now();
        // EXPOSE: it is taken apart here.
        let parts = token::take_apart(msg.token.expose()).map_err(EngineError::Invalid)?;
        let invalid = |text: &str| EngineError::Invalid(text.to_owned());
        let mut sets = state.keys.values();
        let key = sets.find_map(|set| set.verifier(&parts.kid, now));
        let key = key.ok_or_else(|| invalid("the token's key is not one of this mount's"))?;
        // The key says what the algorithm is; what the token says must be the same.
        if key.algorithm() != parts.algorithm {
            return Err(invalid("the token's alg is not that of its key"));
        }
        key.verify(parts.message, &parts.signature)
            .map_err(|_| invalid("the token's signature does not fit"))?;
        if let Some(wanted) = &msg.token_type {
            check_type(parts.header.get("typ"), wanted)?;
        }
        let claims = parts.claims().map_err(EngineError::Invalid)?;
        let demands = Demands {
            now,
            leeway_secs: msg.leeway_secs,
            audience: &msg.audience,
            issuer: msg.issuer.as_deref(),
        };
        let expires_at = token::check(&claims, &demands).map_err(EngineError::Invalid)?;
        let jti = match claims.get("jti") {
            None => None,
            Some(Value::String(jti)) => Some(jti.clone()),
            Some(_) => return Err(invalid("the token's jti is not text")),
        };
        let named = |jti: &&str| !msg.even_revoked && !jti.is_empty() && jti.len() <= JTI_MAX;
        if let Some(jti) = jti.as_deref().filter(named)
            && self.barrier.exists(&record::revoked_path(msg.mount, jti)).await?
        {
            return Err(invalid("the token is revoked"));
        }
        let document = |members| {
            Document::from_checked_json(SecretText::new(Value::Object(members).to_string()))
        };
        Ok(Verified { header: document(parts.header), claims: document(claims), jti, expires_at })
    }
}

/// RFC 7515, section 4.1.9: media types are compared without case, `application/` may be left out.
fn check_type(found: Option<&Value>, wanted: &str) -> Result<(), EngineError> {
    let short = |name: &str| {
        let name = name.to_ascii_lowercase();
        name.strip_prefix("application/").map_or(name.clone(), str::to_owned)
    };
    let found = found.and_then(Value::as_str).map(short);
    if found.as_deref() == Some(short(wanted).as_str()) {
        return Ok(());
    }
    Err(EngineError::Invalid("the token is of another type".to_owned()))
}
