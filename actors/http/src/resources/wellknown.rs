//! What verifiers of signed tokens ask without a token: the discovery document and the public keys.

use std::sync::Arc;

use mssm_messages::engine::EngineKind;
use mssm_messages::jwt::{ReadConfig, ReadJwks};
use mssm_messages::mounts::{Mount, ReadTable};

use super::oidc;
use crate::answer::Answer;
use crate::call::{Call, Verb};
use crate::door::{NEAR, Worker, ask};
use crate::error::Refusal;
use crate::json::Object;

/// Where such a document lies below its mount.
const FOLDER: &str = "/.well-known/";

/// One document of one mount.
#[derive(Clone, Debug)]
pub(crate) struct WellKnown {
    mount: Arc<Mount>,
    is_keys: bool,
}

/// True for what has the path of such a document.
pub(super) fn may_be(call: &Call) -> bool {
    call.verb == Verb::Read && call.path.as_str().contains(FOLDER)
}

/// The document that a request is for; whatever else has such a path is none.
pub(crate) async fn asked(worker: &Worker, call: &Call) -> Option<WellKnown> {
    if !may_be(call) {
        return None;
    }
    let table = ask(&worker.door.mounts.table, ReadTable, NEAR).await.ok()?;
    let (mount, rest) = table.resolve(&call.path)?;
    let rest = rest.strip_suffix('/').unwrap_or(rest);
    let is_keys = match (mount.kind, rest) {
        (EngineKind::JwtSigner, ".well-known/openid-configuration")
        | (EngineKind::Identity, "oidc/.well-known/openid-configuration") => false,
        (EngineKind::JwtSigner, ".well-known/jwks.json")
        | (EngineKind::Identity, "oidc/.well-known/keys") => true,
        _ => return None,
    };
    (!mount.leaving).then(|| WellKnown { mount: Arc::clone(mount), is_keys })
}

impl WellKnown {
    /// Answers; the answer may be kept for as long as no key can sign that is not in it.
    pub(crate) async fn answer(&self, worker: &Worker) -> Result<Answer, Refusal> {
        let (mount, signer) = (self.mount.id, &worker.door.jwt.signer);
        if self.is_keys {
            let jwks = ask(&signer.jwks, ReadJwks { mount }, NEAR).await?;
            let object = Object::sized(jwks.json.len() + 2).merge(&jwks.json);
            return Ok(Answer::bare(object).for_all(jwks.max_age_secs));
        }
        let config = ask(&signer.config, ReadConfig { mount }, NEAR).await?;
        let (own, keys) = if self.mount.kind == EngineKind::Identity {
            (oidc::address(&worker.door.about), "keys")
        } else {
            let prefix = self.mount.prefix.as_str().trim_end_matches('/');
            (format!("{}/v1/{prefix}", worker.door.about.api_addr), "jwks.json")
        };
        let issuer = if config.issuer.is_empty() { &own } else { &config.issuer };
        // The keys of an identity token are where its issuer says; elsewhere they are here.
        let base = if self.mount.kind == EngineKind::Identity { issuer } else { &own };
        let object = Object::new()
            .text("issuer", issuer)
            .text("jwks_uri", &format!("{base}{FOLDER}{keys}"))
            .texts("response_types_supported", ["id_token"])
            .texts("subject_types_supported", ["public"])
            .texts("id_token_signing_alg_values_supported", config.algorithms);
        Ok(Answer::bare(object).for_all(config.jwks_max_age_secs))
    }
}
