//! `sys/policies/acl`, the old `sys/policy`, and `sys/capabilities*`.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use mssm_domain::policy::{Capabilities, Capability};
use mssm_domain::{Accessor, CanonicalPath, PolicyName};
use mssm_messages::access::{
    AccessError, DeletePolicy, ListPolicies, LookupToken, ReadCapabilities, ReadPolicy, TokenRef,
    WritePolicy,
};

use crate::answer::Answer;
use crate::call::Verb;
use crate::door::{FAR, ask, commit, put};
use crate::error::{Refusal, malformed};
use crate::json::Object;
use crate::pipeline::Visit;

/// How many paths may be asked about at once.
const MAX_PATHS: usize = 1000;

/// `sys/policies/acl[/:name]`; `legacy` is `sys/policy[/:name]`.
pub(crate) async fn answer(visit: &Visit, name: &str, legacy: bool) -> Result<Answer, Refusal> {
    let tokens = &visit.worker.door.tokens;
    match (visit.call.verb, name) {
        (Verb::List, "") => list(visit, legacy).await,
        (Verb::Read, "") if legacy => list(visit, legacy).await,
        (Verb::Read, name) if !name.is_empty() => {
            let name = PolicyName::parse(name).map_err(|_| Refusal::not_found())?;
            let text = ask(&tokens.read_policy, ReadPolicy(name.clone()), FAR).await?;
            let object = Object::sized(text.len() + 128).text("name", name.as_str());
            Ok(if legacy {
                Answer::double(object.text("rules", &text))
            } else {
                Answer::data(object.text("policy", &text))
            })
        }
        (Verb::Write, name) if !name.is_empty() => {
            let name = PolicyName::parse(name).map_err(|error| malformed(&error))?;
            let message = WritePolicy { name, text: text(visit, legacy)? };
            Ok(Answer::done_with(commit(&tokens.write_policy, message).await?))
        }
        (Verb::Delete, name) if !name.is_empty() => {
            let name = PolicyName::parse(name).map_err(|error| malformed(&error))?;
            commit(&tokens.delete_policy, DeletePolicy(name)).await?;
            Ok(Answer::done())
        }
        _ => Err(Refusal::unsupported_operation()),
    }
}

async fn list(visit: &Visit, legacy: bool) -> Result<Answer, Refusal> {
    let names = ask(&visit.worker.door.tokens.list_policies, ListPolicies, FAR).await?;
    let names = || names.iter().map(PolicyName::as_str);
    Ok(if legacy {
        Answer::double(Object::new().texts("keys", names()).texts("policies", names()))
    } else {
        Answer::keys(names())
    })
}

/// The policy's text, which Vault also takes in base64.
fn text(visit: &Visit, legacy: bool) -> Result<String, Refusal> {
    let body = &visit.call.body;
    let mut text = body.text("policy")?;
    if text.is_none() && legacy {
        text = body.text("rules")?;
    }
    let text = text
        .filter(|text| !text.is_empty())
        .ok_or_else(|| Refusal::invalid("'policy' parameter not supplied or empty"))?;
    // No policy is valid base64: it would need a brace.
    let decoded = STANDARD.decode(&text).ok().and_then(|bytes| String::from_utf8(bytes).ok());
    Ok(decoded.unwrap_or(text))
}

/// `sys/capabilities-self`, `sys/capabilities` and `sys/capabilities-accessor`.
pub(crate) async fn capabilities(visit: &Visit, of: &str) -> Result<Answer, Refusal> {
    if visit.call.verb != Verb::Write {
        return Err(Refusal::unsupported_operation());
    }
    let body = &visit.call.body;
    let mut paths = body.list("paths")?.unwrap_or_default();
    if paths.is_empty() {
        paths = body.list("path")?.unwrap_or_default();
    }
    if paths.is_empty() {
        return Err(Refusal::invalid("paths must be supplied"));
    }
    if paths.len() > MAX_PATHS {
        return Err(Refusal::invalid("too many paths"));
    }
    let tokens = &visit.worker.door.tokens;
    let (root, token) = match of {
        "self" => {
            let caller = &visit.authorized.caller;
            (caller.is_root(), TokenRef::Id(caller.token))
        }
        of => {
            let token = if of == "accessor" {
                let accessor = body.required("accessor", "missing accessor")?;
                let accessor = Accessor::parse(&accessor);
                TokenRef::Accessor(accessor.map_err(|_| Refusal::invalid("invalid accessor"))?)
            } else {
                let token = body.secret("token")?;
                TokenRef::Secret(token.ok_or_else(|| Refusal::invalid("missing token"))?)
            };
            let found = put(&tokens.lookup, LookupToken(token), FAR).await?;
            let view = found.map_err(|error| match error {
                AccessError::BadToken => {
                    Refusal::invalid("1 error occurred:\n\t* invalid token\n\n")
                }
                error => error.into(),
            })?;
            (view.policies.iter().any(PolicyName::is_root), TokenRef::Id(view.id))
        }
    };
    let parsed: Result<Vec<_>, _> = paths.iter().map(|path| CanonicalPath::parse(path)).collect();
    let parsed = parsed.map_err(|error| Refusal::invalid(error.to_string()))?;
    let sets = if root {
        vec![Capabilities::NONE; parsed.len()]
    } else {
        ask(&tokens.capabilities, ReadCapabilities { token, paths: parsed }, FAR).await?
    };
    Ok(Answer::double(show(root, &paths, &sets)))
}

fn show(root: bool, paths: &[String], sets: &[Capabilities]) -> Object {
    let words = |set: &Capabilities| -> Vec<&'static str> {
        if root {
            vec!["root"]
        } else if set.is_empty() || set.has(Capability::Deny) {
            vec!["deny"]
        } else {
            set.iter().map(Capability::name).collect()
        }
    };
    let mut object = Object::new();
    for (path, set) in paths.iter().zip(sets) {
        object = object.texts(path, words(set));
    }
    match (paths, sets) {
        ([path], [set]) if path != "capabilities" => object.texts("capabilities", words(set)),
        _ => object,
    }
}
