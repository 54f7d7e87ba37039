//! What a role says of its tokens, and which of it makes sense.

use mssm_domain::{KeyName, Random, RoleName, generate_base62};
use mssm_messages::engine::EngineError;
use mssm_messages::jwt::{RolePatch, RoleView};
use serde_json::{Map, Value};

use crate::keyset::KeySet;
use crate::template;

/// The claims that are the engine's own: no caller and no template sets them.
pub(crate) const OWN: [&str; 5] = ["iss", "exp", "nbf", "iat", "jti"];
/// The claims that `*` does not mean: who a token is for and about must be allowed by name.
pub(crate) const NAMED: [&str; 3] = ["sub", "aud", "client_id"];
/// What Vault lets no template of an identity token set.
const VAULTS: [&str; 9] =
    ["iat", "aud", "exp", "iss", "sub", "namespace", "nonce", "auth_time", "at_hash"];
/// Header fields that are the engine's own, or that tell a verifier to trust something else.
const HEADERS: [&str; 13] = [
    "alg", "kid", "typ", "crit", "b64", "jwk", "jku", "x5c", "x5u", "x5t", "x5t#S256", "enc", "zip",
];
/// The longest of the texts of a role: an issuer, an audience, a subject, a client's id.
const TEXT_MAX: usize = 1024;
/// The longest template of claims, in bytes.
const CLAIMS_MAX: usize = 8 * 1024;
/// The longest text of header fields, in bytes.
const HEADERS_MAX: usize = 2 * 1024;
/// The most audiences, and the most claims that callers may set.
const NAMES_MAX: usize = 64;
/// How far `nbf` may lie before `iat`.
const LEEWAY_MAX_SECS: u64 = 300;
/// A token's lifetime where nobody says.
const TTL_SECS: u64 = 900;
/// The same for Vault's identity tokens.
const IDENTITY_TTL_SECS: u64 = 86_400;

/// A role, checked.
#[expect(clippy::struct_excessive_bools, reason = "each is a field of the role by itself")]
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Role {
    pub(crate) key: KeyName,
    pub(crate) issuer: String,
    pub(crate) audience: Vec<String>,
    pub(crate) subject: String,
    /// The template as it was written.
    pub(crate) claims_text: String,
    /// The template, read.
    pub(crate) claims: Map<String, Value>,
    pub(crate) allowed_claims: Vec<String>,
    pub(crate) ttl_secs: u64,
    pub(crate) max_ttl_secs: u64,
    pub(crate) not_before: bool,
    pub(crate) not_before_leeway_secs: u64,
    pub(crate) jti: bool,
    pub(crate) headers_text: String,
    pub(crate) headers: Map<String, Value>,
    pub(crate) access_token: bool,
    pub(crate) client_id: String,
    pub(crate) identity: bool,
}

fn invalid(text: impl Into<String>) -> EngineError {
    EngineError::Invalid(text.into())
}

/// The name of the set of keys that a patch wants, or the role has.
pub(crate) fn key_of(role: Option<&Role>, patch: &RolePatch) -> Result<KeyName, EngineError> {
    match (&patch.key, role) {
        (Some(name), _) if !name.is_empty() => {
            KeyName::parse(name).map_err(|error| invalid(error.to_string()))
        }
        (None, Some(role)) => Ok(role.key.clone()),
        _ => Err(invalid("the key parameter is required")),
    }
}

impl Role {
    /// The role with what a patch says, if all of it makes sense together.
    pub(crate) fn patched(
        before: Option<&Self>,
        patch: RolePatch,
        identity: bool,
        set: &KeySet,
        random: &dyn Random,
    ) -> Result<Self, EngineError> {
        let mut role = before.cloned().unwrap_or_else(|| Self::default_of(set, identity));
        role.key = set.name.clone();
        role.put_texts(&patch, random)?;
        role.put_rules(&patch)?;
        role.put_times(before.is_none(), &patch, set)?;
        role.check()?;
        Ok(role)
    }

    fn default_of(set: &KeySet, identity: bool) -> Self {
        let own = if identity { IDENTITY_TTL_SECS } else { TTL_SECS };
        let ttl_secs = if identity { own } else { own.min(set.settings.verification_ttl_secs) };
        Self {
            key: set.name.clone(),
            issuer: String::new(),
            audience: Vec::new(),
            subject: if identity { "{{identity.entity.id}}" } else { "" }.to_owned(),
            claims_text: String::new(),
            claims: Map::new(),
            allowed_claims: Vec::new(),
            ttl_secs,
            max_ttl_secs: ttl_secs,
            not_before: !identity,
            not_before_leeway_secs: 0,
            jti: !identity,
            headers_text: String::new(),
            headers: Map::new(),
            access_token: false,
            client_id: String::new(),
            identity,
        }
    }

    fn put_texts(&mut self, patch: &RolePatch, random: &dyn Random) -> Result<(), EngineError> {
        let texts = [
            ("issuer", &patch.issuer, &mut self.issuer),
            ("subject", &patch.subject, &mut self.subject),
            ("client_id", &patch.client_id, &mut self.client_id),
        ];
        for (name, text, place) in texts {
            let Some(text) = text else { continue };
            short(name, text)?;
            place.clone_from(text);
        }
        if self.identity && self.client_id.is_empty() {
            self.client_id = generate_base62(random, 26);
        }
        if let Some(audience) = &patch.audience {
            names("audience", audience)?;
            self.audience.clone_from(audience);
        }
        if self.identity {
            self.audience = vec![self.client_id.clone()];
        }
        template::check_text(&self.subject, false)
            .map_err(|error| invalid(format!("subject: {error}")))
    }

    fn put_rules(&mut self, patch: &RolePatch) -> Result<(), EngineError> {
        if let Some(text) = &patch.claims {
            self.put_claims(text)?;
        }
        if let Some(names) = &patch.allowed_claims {
            self.put_allowed(names)?;
        }
        if let Some(text) = &patch.headers {
            self.put_headers(text)?;
        }
        self.jti = match patch.jti.as_deref() {
            None => self.jti,
            Some("random") => true,
            Some("none") => false,
            Some(_) => return Err(invalid("jti must be random or none")),
        };
        self.not_before = match patch.not_before.as_deref() {
            None => self.not_before,
            Some("now") => true,
            Some("none") => false,
            Some(_) => return Err(invalid("not_before must be now or none")),
        };
        self.access_token = match patch.token_type.as_deref() {
            None => self.access_token,
            Some("JWT") => false,
            Some("at+jwt") => true,
            Some(_) => return Err(invalid("token_type must be JWT or at+jwt")),
        };
        Ok(())
    }

    fn put_claims(&mut self, text: &str) -> Result<(), EngineError> {
        if text.len() > CLAIMS_MAX {
            return Err(invalid(format!("claims are longer than {CLAIMS_MAX} bytes")));
        }
        let word = if self.identity { "error parsing template JSON" } else { "claims" };
        self.claims =
            template::parse_object(text).map_err(|error| invalid(format!("{word}: {error}")))?;
        let taken = self.claims.keys().find(|name| {
            let name = name.as_str();
            if self.identity {
                VAULTS.contains(&name)
            } else {
                OWN.contains(&name) || NAMED.contains(&name)
            }
        });
        if let Some(name) = taken {
            return Err(invalid(if self.identity {
                format!(
                    "top level key {name:?} not allowed. Restricted keys: {}",
                    VAULTS.join(", ")
                )
            } else {
                format!("claims: {name:?} has a field of its own and cannot be in the template")
            }));
        }
        text.clone_into(&mut self.claims_text);
        Ok(())
    }

    fn put_allowed(&mut self, allowed: &[String]) -> Result<(), EngineError> {
        names("allowed_claims", allowed)?;
        if let Some(name) = allowed.iter().find(|name| OWN.contains(&name.as_str())) {
            return Err(invalid(format!("allowed_claims: {name:?} is set by the engine alone")));
        }
        self.allowed_claims = allowed.to_vec();
        Ok(())
    }

    fn put_headers(&mut self, text: &str) -> Result<(), EngineError> {
        if text.len() > HEADERS_MAX {
            return Err(invalid(format!("headers are longer than {HEADERS_MAX} bytes")));
        }
        let object =
            if text.trim().is_empty() { Ok(Map::new()) } else { serde_json::from_str(text) };
        self.headers = object.map_err(|_| invalid("headers: not a JSON object"))?;
        if let Some(name) = self.headers.keys().find(|name| HEADERS.contains(&name.as_str())) {
            return Err(invalid(format!("headers: {name:?} cannot be set")));
        }
        text.clone_into(&mut self.headers_text);
        Ok(())
    }

    fn put_times(&mut self, new: bool, patch: &RolePatch, set: &KeySet) -> Result<(), EngineError> {
        if let Some(secs) = patch.not_before_leeway_secs {
            if secs > LEEWAY_MAX_SECS {
                let text = format!("not_before_leeway cannot be longer than {LEEWAY_MAX_SECS} s");
                return Err(invalid(text));
            }
            self.not_before_leeway_secs = secs;
        }
        match (patch.ttl_secs, patch.max_ttl_secs) {
            (Some(ttl), Some(max)) => (self.ttl_secs, self.max_ttl_secs) = (ttl, max),
            (Some(ttl), None) => {
                self.ttl_secs = ttl;
                // Nothing was said of the bound: it is what was said.
                if new || self.identity {
                    self.max_ttl_secs = ttl;
                }
            }
            (None, Some(max)) => {
                self.max_ttl_secs = max;
                if new {
                    self.ttl_secs = self.ttl_secs.min(max);
                }
            }
            (None, None) => {}
        }
        if self.ttl_secs == 0 || self.max_ttl_secs == 0 {
            return Err(invalid("a token lives for a second at least"));
        }
        if self.ttl_secs > self.max_ttl_secs {
            return Err(invalid("ttl cannot be longer than max_ttl"));
        }
        if self.max_ttl_secs > set.settings.verification_ttl_secs {
            return Err(invalid(
                "a role's token ttl cannot be longer than the verification_ttl of the key it references",
            ));
        }
        Ok(())
    }

    /// RFC 9068, section 2.2: what an access token must say.
    fn check(&self) -> Result<(), EngineError> {
        if !self.access_token {
            return Ok(());
        }
        let may = |name: &str| self.allowed_claims.iter().any(|allowed| allowed == name);
        let missing = [
            ("subject", self.subject.is_empty() && !may("sub")),
            ("audience", self.audience.is_empty() && !may("aud")),
            ("client_id", self.client_id.is_empty() && !may("client_id")),
            ("jti", !self.jti),
        ];
        match missing.into_iter().find(|(_, missing)| *missing) {
            Some((name, _)) => Err(invalid(format!("an access token (at+jwt) needs {name}"))),
            None => Ok(()),
        }
    }

    /// True if a caller may set a claim.
    pub(crate) fn allows(&self, claim: &str) -> bool {
        let all = !NAMED.contains(&claim);
        self.allowed_claims.iter().any(|name| name == claim || (all && name == "*"))
    }

    /// `typ` in the header.
    pub(crate) const fn token_type(&self) -> &'static str {
        if self.access_token { "at+jwt" } else { "JWT" }
    }

    /// The role as it is shown.
    pub(crate) fn view(&self) -> RoleView {
        let word = |on, word| if on { word } else { "none" };
        RoleView {
            key: self.key.clone(),
            issuer: self.issuer.clone(),
            audience: self.audience.clone(),
            subject: self.subject.clone(),
            claims: self.claims_text.clone(),
            allowed_claims: self.allowed_claims.clone(),
            ttl_secs: self.ttl_secs,
            max_ttl_secs: self.max_ttl_secs,
            not_before: word(self.not_before, "now"),
            not_before_leeway_secs: self.not_before_leeway_secs,
            jti: word(self.jti, "random"),
            headers: self.headers_text.clone(),
            token_type: self.token_type(),
            client_id: self.client_id.clone(),
        }
    }
}

/// A key cannot be used by a role that it does not list.
pub(crate) fn check_client(name: &RoleName, role: &Role, set: &KeySet) -> Result<(), EngineError> {
    let listed = |id: &String| id == "*" || (!role.client_id.is_empty() && *id == role.client_id);
    if set.settings.allowed_client_ids.iter().any(listed) {
        return Ok(());
    }
    Err(invalid(format!(
        "the key {:?} does not list the client ID of the role {:?} as an allowed client ID",
        set.name.as_str(),
        name.as_str()
    )))
}

/// One text of bounded length, of visible characters.
pub(crate) fn short(name: &str, text: &str) -> Result<(), EngineError> {
    if text.len() > TEXT_MAX || text.chars().any(char::is_control) {
        return Err(invalid(format!("{name} must be up to {TEXT_MAX} visible characters")));
    }
    Ok(())
}

/// A bounded list of such texts, none of them empty.
pub(crate) fn names(name: &str, list: &[String]) -> Result<(), EngineError> {
    if list.len() > NAMES_MAX || list.iter().any(String::is_empty) {
        return Err(invalid(format!("{name} must be up to {NAMES_MAX} texts that are not empty")));
    }
    list.iter().try_for_each(|text| short(name, text))
}
