//! The decision as the front door needs it: which right, and what of the parameters.

use std::sync::Arc;

use mssm_domain::policy::Capability;
use mssm_messages::access::Authorized;
use mssm_messages::mounts::Mount;

use crate::call::{Call, Verb};
use crate::door::Worker;
use crate::error::Refusal;
use crate::resources;

/// Decides; replies the right that was used.
pub(crate) async fn decide(
    worker: &Worker,
    call: &Call,
    authorized: &Authorized,
    mount: Option<&Arc<Mount>>,
) -> Result<Capability, Refusal> {
    if resources::is_own_view(call) {
        return Ok(Capability::Read);
    }
    let held = authorized.capabilities;
    let root = authorized.caller.is_root();
    let any = |capability| root || held.has(capability);
    if !root && held.has(Capability::Deny) {
        return Err(Refusal::denied());
    }
    let capability = if call.verb == Verb::Write {
        match (any(Capability::Create), any(Capability::Update)) {
            (false, false) => return Err(Refusal::denied()),
            // Which of the two it is makes no difference to the decision.
            (true, true) => Capability::Update,
            // Asked only after one of them is held, so that existence is no secret to the caller.
            _ => call.verb.capability(exists(worker, call, authorized, mount).await?),
        }
    } else {
        call.verb.capability(true)
    };
    if !any(capability) || (needs_sudo(call) && !any(Capability::Sudo)) {
        return Err(Refusal::denied());
    }
    if let Some(rules) = authorized.parameters.as_deref().filter(|rules| !rules.is_empty()) {
        let parameters = parameters(call);
        let borrowed: Option<Vec<(&str, &str)>> = parameters
            .as_ref()
            .map(|all| all.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect());
        if !root && borrowed.is_some_and(|parameters| !rules.allow(&parameters)) {
            return Err(Refusal::denied());
        }
    }
    Ok(capability)
}

/// What rules about parameters are held against, as in Vault: what is written, and what is behind the
/// question mark of a read. `None` where they do not matter.
fn parameters(call: &Call) -> Option<Vec<(String, String)>> {
    match call.verb {
        Verb::Write | Verb::Patch => Some(call.body.members().map(compact).collect()),
        Verb::Read => {
            let text = |value: &str| serde_json::Value::from(value).to_string();
            Some(call.query.iter().map(|(name, value)| (name.clone(), text(value))).collect())
        }
        Verb::Delete | Verb::List => None,
    }
}

async fn exists(
    worker: &Worker,
    call: &Call,
    authorized: &Authorized,
    mount: Option<&Arc<Mount>>,
) -> Result<bool, Refusal> {
    let Some(mount) = mount else { return Ok(true) };
    let rest = mount.prefix.strip(&call.path).unwrap_or_default();
    resources::exists(worker, &authorized.caller, mount, rest).await
}

/// A value as rules compare it: one spelling of every text, digits untouched.
fn compact((name, raw): (&str, &str)) -> (String, String) {
    let value: Result<serde_json::Value, _> = serde_json::from_str(raw);
    (name.to_owned(), value.map_or_else(|_| raw.to_owned(), |value| value.to_string()))
}

/// True for what needs `sudo` beyond its verb's right, as in Vault.
fn needs_sudo(call: &Call) -> bool {
    let path = call.trimmed();
    let below = |prefix: &str| path.strip_prefix(prefix).is_some_and(|rest| rest.starts_with('/'));
    let at = |prefix: &str| path == prefix || below(prefix);
    match path {
        "auth/token/accessors"
        | "sys/seal"
        | "sys/rotate"
        | "sys/rotate/keyring"
        | "sys/remount"
        | "sys/leases" => true,
        _ if at("sys/audit") || at("sys/raw") || at("sys/config/auditing") => true,
        // Who is spared by it outlives its parent.
        _ if at("auth/token/revoke-orphan") || below("sys/auth") => true,
        // Whose login it is: everybody in its database sees the name, and who knows the lease may renew it.
        _ if at("sys/leases/lookup") => call.verb == Verb::List || names_a_login(call),
        _ => {
            at("sys/leases/revoke-prefix")
                || at("sys/leases/revoke-force")
                || at("sys/revoke-prefix")
                || at("sys/revoke-force")
        }
    }
}

/// True for a lease that is asked for by its login's name.
fn names_a_login(call: &Call) -> bool {
    let named = |(name, raw): (&str, &str)| name == "username" && !matches!(raw, "null" | "\"\"");
    call.body.members().any(named)
}

#[cfg(test)]
mod tests {
    use actix_web::http::Method;
    use actix_web::test::TestRequest;
    use mssm_domain::{CanonicalPath, RequestId, SecretBytes};

    use super::*;
    use crate::body::Body;

    fn sudo(method: &str, path: &str) -> bool {
        let method = Method::from_bytes(method.as_bytes()).unwrap();
        let id = RequestId::parse("00000000-0000-4000-8000-000000000000").unwrap();
        let request = TestRequest::default().method(method).to_http_request();
        needs_sudo(&Call::parse(&request, id, CanonicalPath::parse(path).unwrap()).unwrap())
    }

    #[test]
    fn what_reaches_everybody_needs_sudo() {
        for (method, path, expected) in [
            ("LIST", "auth/token/accessors", true),
            ("LIST", "auth/token/accessors/", true),
            ("PUT", "auth/token/revoke-orphan", true),
            ("PUT", "auth/token/revoke-orphan/", true),
            ("PUT", "auth/token/revoke-orphan/x", true),
            ("PUT", "auth/token/revoke", false),
            ("PUT", "auth/token/create-orphan", false),
            ("PUT", "sys/seal", true),
            ("POST", "sys/rotate", true),
            ("POST", "sys/rotate/keyring", true),
            ("LIST", "sys/leases/lookup/db/creds", true),
            ("PUT", "sys/leases/lookup", false),
            ("PUT", "sys/leases/revoke-prefix/db", true),
            ("PUT", "sys/leases/revoke", false),
            ("GET", "sys/audit", true),
            ("GET", "sys/auth", false),
            ("POST", "sys/auth/x", true),
            ("GET", "sys/auth/token/tune", true),
            ("GET", "sys/auditor", false),
            ("GET", "secret/data/sys/seal", false),
        ] {
            assert_eq!(sudo(method, path), expected, "{method} {path}");
        }
    }

    #[test]
    fn a_lease_is_found_by_its_logins_name_with_sudo_alone() {
        let id = RequestId::parse("00000000-0000-4000-8000-000000000000").unwrap();
        let request = TestRequest::put().to_http_request();
        for path in ["sys/leases/lookup", "sys/leases/lookup/"] {
            for (body, expected) in [
                (r#"{"username":"v-app"}"#, true),
                (r#"{"lease_id":"db/creds/app/x","username":1}"#, true),
                (r#"{"lease_id":"db/creds/app/x","username":""}"#, false),
                (r#"{"lease_id":"db/creds/app/x","username":null}"#, false),
            ] {
                let path = CanonicalPath::parse(path).unwrap();
                let mut call = Call::parse(&request, id, path).unwrap();
                call.body = Body::parse(SecretBytes::new(body.as_bytes().to_vec()), None).unwrap();
                assert_eq!(needs_sudo(&call), expected, "{body}");
            }
        }
    }

    #[test]
    fn a_value_has_one_spelling_before_rules_see_it() {
        assert_eq!(compact(("a", "\"b\\u0061r\"")).1, "\"bar\"");
        assert_eq!(compact(("a", "[ 1, 1e400 ]")).1, "[1,1e+400]");
    }
}
