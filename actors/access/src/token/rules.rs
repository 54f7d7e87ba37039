//! What may become of a token: how it is born, renewed, and when it is over. Pure, `now` is given.

use std::time::Duration;

use mssm_domain::{
    Accessor, Caller, PolicyName, Random, SecretText, Timestamp, TokenId, TokenKind, Ttl,
    generate_base62,
};
use mssm_messages::access::{AccessError, TokenView, TokenWish};

/// How many generations a token may be away from its first ancestor: each costs a read when a token
/// is first seen.
const DEPTH_MAX: u16 = 64;
/// The longest text a caller may choose.
const CUSTOM_ID_MAX: usize = 128;
/// Policies are named in every audit line of a token's.
const POLICIES_MAX: usize = 256;
/// All that is noted with a token, in bytes: every worker has thousands of tokens in memory.
const METADATA_MAX: usize = 16 << 10;

/// A token as its owner knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Token {
    /// What others may know.
    pub(crate) view: TokenView,
    /// It ends with this one.
    pub(crate) parent: Option<TokenId>,
    /// How many ancestors it has, at most.
    pub(crate) depth: u16,
}

/// What a new token is made from, apart from the wish.
pub(crate) struct Birth<'a> {
    /// When.
    pub(crate) now: Timestamp,
    /// Who asks.
    pub(crate) parent: &'a Token,
    /// True if the parent has `sudo` there.
    pub(crate) sudo: bool,
    /// What the new token will be known by.
    pub(crate) id: TokenId,
    /// Its public handle.
    pub(crate) accessor: Accessor,
    /// Tells whether a policy is there.
    pub(crate) exists: &'a dyn Fn(&PolicyName) -> bool,
}

impl Token {
    /// True if its time has come.
    pub(crate) fn is_over(&self, now: Timestamp) -> bool {
        self.view.expires_at.is_some_and(|end| end <= now)
    }

    /// True if one of its policies is `root`.
    pub(crate) fn is_root(&self) -> bool {
        self.view.policies.iter().any(PolicyName::is_root)
    }

    /// Its holder. Ends where the chain of ancestors does.
    pub(crate) fn caller(&self, alive_until: Option<Timestamp>) -> Caller {
        Caller {
            token: self.view.id,
            accessor: self.view.accessor.clone(),
            display_name: self.view.display_name.clone(),
            policies: self.view.policies.clone(),
            kind: TokenKind::Service,
            issued_at: self.view.issued_at,
            expires_at: alive_until,
        }
    }
}

/// The text of a new token.
pub(crate) fn new_text(random: &dyn Random) -> SecretText {
    SecretText::new(format!("s.{}", generate_base62(random, 24)))
}

/// A new accessor.
pub(crate) fn accessor_of(random: &dyn Random) -> Result<Accessor, AccessError> {
    Accessor::parse(&generate_base62(random, 24)).map_err(|_| AccessError::Internal)
}

/// The first token of a store.
pub(crate) fn root(now: Timestamp, id: TokenId, accessor: Accessor) -> Token {
    let view = TokenView {
        id,
        accessor,
        policies: vec![PolicyName::root()],
        metadata: std::collections::BTreeMap::new(),
        display_name: "root".to_owned(),
        path: "auth/token/root".to_owned(),
        issued_at: now,
        creation_ttl: None,
        expires_at: None,
        explicit_max_ttl: None,
        period: None,
        renewable: false,
        renewed_at: None,
        num_uses: 0,
        orphan: true,
    };
    Token { view, parent: None, depth: 0 }
}

/// Decides what a new token is, or why there is none; with what its maker should know.
pub(crate) fn create(
    birth: &Birth<'_>,
    wish: &TokenWish,
) -> Result<(Token, Vec<String>), AccessError> {
    let mut warnings = Vec::new();
    check_rights(birth, wish)?;
    let policies = choose_policies(birth, wish)?;
    let noted: usize = wish.metadata.iter().map(|(name, text)| name.len() + text.len()).sum();
    if policies.len() > POLICIES_MAX {
        return invalid("a token has at most 256 policies");
    }
    if noted > METADATA_MAX {
        return invalid("a token's metadata has at most 16384 bytes");
    }
    for policy in &policies {
        if !policy.is_root() && !(birth.exists)(policy) {
            warnings.push(format!("Policy {:?} does not exist", policy.as_str()));
        }
    }
    if wish.id.is_some() {
        warnings.push("A custom ID is only as hard to guess as its author made it".to_owned());
    }
    let is_root = policies.iter().any(PolicyName::is_root);
    let (ttl, explicit_max_ttl) = choose_ttl(wish, is_root, &mut warnings);
    if ttl.is_none() && birth.parent.view.expires_at.is_some() {
        return invalid("expiring root tokens cannot create non-expiring root tokens");
    }
    let orphan = wish.orphan;
    let path = if wish.by_orphan_path { "auth/token/create-orphan" } else { "auth/token/create" };
    let view = TokenView {
        id: birth.id,
        accessor: birth.accessor.clone(),
        policies,
        metadata: wish.metadata.clone(),
        display_name: display_name(wish.display_name.as_deref()),
        path: path.to_owned(),
        issued_at: birth.now,
        creation_ttl: ttl,
        expires_at: ttl.map(|ttl| birth.now.after(ttl.duration())),
        explicit_max_ttl,
        period: wish.period,
        renewable: ttl.is_some() && wish.renewable.unwrap_or(true),
        renewed_at: None,
        num_uses: wish.num_uses,
        orphan,
    };
    let parent = (!orphan).then_some(birth.parent.view.id);
    let depth = if orphan { 0 } else { birth.parent.depth.saturating_add(1) };
    if depth > DEPTH_MAX {
        return invalid("too many generations of tokens, create an orphan");
    }
    Ok((Token { view, parent, depth }, warnings))
}

fn check_rights(birth: &Birth<'_>, wish: &TokenWish) -> Result<(), AccessError> {
    let root = birth.parent.is_root();
    let sudo = birth.sudo || root;
    if birth.parent.view.num_uses > 0 {
        return invalid("restricted use token cannot generate child tokens");
    }
    if matches!(wish.kind.as_str(), "batch" | "default-batch") {
        return invalid("batch tokens are not supported");
    }
    if !matches!(wish.kind.as_str(), "" | "service" | "default" | "default-service") {
        return invalid("invalid 'token_type' value");
    }
    if let Some(id) = &wish.id {
        if !root {
            return invalid("root or sudo privileges required to specify token id");
        }
        // EXPOSE: only its form is looked at.
        let id = id.expose();
        let good = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
        if id.is_empty() || id.len() > CUSTOM_ID_MAX || !id.bytes().all(good) {
            return invalid("a custom token ID is 1 to 128 letters, digits, '-' or '_'");
        }
    }
    if wish.orphan && !wish.by_orphan_path && !sudo {
        return invalid("root or sudo privileges required to create orphan token");
    }
    if wish.period.is_some() && !sudo {
        return invalid("root or sudo privileges required to create periodic token");
    }
    Ok(())
}

/// The policies: the parent's, or those wished for, which only `sudo` may choose beyond them.
fn choose_policies(birth: &Birth<'_>, wish: &TokenWish) -> Result<Vec<PolicyName>, AccessError> {
    let parent = &birth.parent.view.policies;
    let root = birth.parent.is_root();
    let default = PolicyName::default_policy();
    let wished: Result<Vec<PolicyName>, _> =
        wish.policies.iter().map(|name| PolicyName::parse(name)).collect();
    let mut policies = wished.map_err(|error| AccessError::Invalid(error.to_string()))?;
    if policies.is_empty() {
        policies.clone_from(parent);
    } else if birth.sudo || root {
        policies.push(default.clone());
    } else {
        if !policies.iter().all(|policy| parent.contains(policy)) {
            return invalid("child policies must be subset of parent");
        }
        if parent.contains(&default) {
            policies.push(default.clone());
        }
    }
    if policies.iter().any(PolicyName::is_root) {
        if !root {
            return invalid("root tokens may not be created without parent token being root");
        }
        return Ok(vec![PolicyName::root()]);
    }
    if wish.no_default_policy {
        policies.retain(|policy| *policy != default);
    }
    policies.sort_unstable();
    policies.dedup();
    Ok(policies)
}

/// The first lifetime (`None`: without end) and the longest one.
fn choose_ttl(
    wish: &TokenWish,
    is_root: bool,
    warnings: &mut Vec<String>,
) -> (Option<Ttl>, Option<Ttl>) {
    let system = Ttl::SYSTEM_DEFAULT;
    let explicit_max = wish.explicit_max_ttl.map(|max| {
        if max > system {
            warnings.push(format!(
                "Explicit max TTL of {} seconds is greater than system/mount allowed value; \
                 value is being capped to {} seconds",
                max.secs(),
                system.secs()
            ));
        }
        max.min(system)
    });
    let wished = match (wish.period.or(wish.ttl), is_root) {
        (Some(ttl), _) => ttl,
        (None, true) if explicit_max.is_none() => return (None, None),
        (None, _) => system,
    };
    let bound = explicit_max.unwrap_or(system);
    if wished > bound && wish.period.or(wish.ttl).is_some() {
        warnings.push(capped(wished.secs(), bound.secs()));
    }
    (Some(wished.min(bound)), explicit_max)
}

/// Moves the end of a token to now plus the increment, within its bounds.
pub(crate) fn renew(
    now: Timestamp,
    token: &Token,
    increment: Option<Ttl>,
) -> Result<(Token, Vec<String>), AccessError> {
    let view = &token.view;
    let (true, Some(first)) = (view.renewable, view.creation_ttl) else {
        return invalid("lease is not renewable");
    };
    let wished = view.period.or(increment).unwrap_or(first);
    // A period escapes every bound but the explicit one.
    let bound = match (view.explicit_max_ttl, view.period) {
        (Some(max), _) => Some(max),
        (None, Some(_)) => None,
        (None, None) => Some(Ttl::SYSTEM_DEFAULT),
    };
    let latest = bound.map(|bound| view.issued_at.after(bound.duration()));
    let mut end = now.after(wished.duration());
    let mut warnings = Vec::new();
    if let Some(latest) = latest.filter(|latest| *latest < end) {
        let left: Duration = now.until(latest);
        if left < Duration::from_secs(1) {
            return invalid("past the max TTL, cannot renew");
        }
        warnings.push(capped(wished.secs(), left.as_secs()));
        end = latest;
    }
    let mut token = token.clone();
    token.view.expires_at = Some(end);
    token.view.renewed_at = Some(now);
    Ok((token, warnings))
}

fn capped(wished_secs: u64, bound_secs: u64) -> String {
    format!(
        "TTL of \"{wished_secs}s\" exceeded the effective max_ttl of \"{bound_secs}s\"; \
         TTL value is capped accordingly"
    )
}

fn display_name(wished: Option<&str>) -> String {
    let Some(wished) = wished.filter(|name| !name.is_empty()) else { return "token".to_owned() };
    let clean: String =
        wished.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '-' }).take(128).collect();
    format!("token-{}", clean.trim_end_matches('-')).trim_end_matches('-').to_owned()
}

fn invalid<T>(text: &str) -> Result<T, AccessError> {
    Err(AccessError::Invalid(text.to_owned()))
}

#[cfg(test)]
mod tests;
