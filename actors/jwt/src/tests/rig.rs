//! A keeper and its signers over one store, and a verifier that keeps copies.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use actix::{Actor, Addr};
use mssm_crypto::jose::PublicKey;
use mssm_domain::{
    Accessor, Caller, ClusterId, Document, KeyName, MountId, PolicyName, RoleName, SecretText,
    Timestamp, TokenId, TokenKind,
};
use mssm_messages::audit::{Append, AuditError, Entry};
use mssm_messages::engine::EngineError;
use mssm_messages::jwt::{
    Audience, KeyPatch, KeyView, ReadJwks, ReadKey, RolePatch, RotateKey, Rotated, Sign, Signed,
    Standing, Verified, Verify, WriteConfig, WriteKey, WriteRole,
};
use mssm_messages::seal::{Closing, Opened};
use mssm_testkit::{MemoryStore, SeededRandom, TestClock};
use serde_json::Value;

use crate::keeper::Tick;
use crate::{JwtKeeper, JwtSigner};

pub(super) const ADDRESS: &str = "https://mssm.example:8200/v1/jwt";

pub(super) struct Rig {
    pub(super) keeper: Addr<JwtKeeper>,
    pub(super) signers: Vec<Addr<JwtSigner>>,
    pub(super) clock: TestClock,
    pub(super) store: MemoryStore,
    pub(super) events: Log,
}

/// An audit log that remembers the names of events.
#[derive(Clone, Default)]
pub(super) struct Log(pub(super) Arc<std::sync::Mutex<Vec<String>>>);

impl Actor for Log {
    type Context = actix::Context<Self>;
}

impl actix::Handler<Append> for Log {
    type Result = Result<(), AuditError>;

    fn handle(&mut self, msg: Append, _ctx: &mut Self::Context) -> Self::Result {
        for entry in msg.0 {
            let Entry::Event { event, .. } = entry else { continue };
            let kid = &event.details.last().unwrap().1;
            self.0.lock().unwrap().push(format!("{} {kid}", event.name));
        }
        Ok(())
    }
}

pub(super) fn mount() -> MountId {
    MountId::parse("6e2e9a0c-93a5-4a62-a4f7-2f0f1f7d6c11").unwrap()
}

pub(super) fn key(name: &str) -> KeyName {
    KeyName::parse(name).unwrap()
}

pub(super) fn role(name: &str) -> RoleName {
    RoleName::parse(name).unwrap()
}

pub(super) fn secs(secs: u64) -> Duration {
    Duration::from_secs(secs)
}

pub(super) fn document(text: &str) -> Document {
    Document::from_checked_json(SecretText::new(text.to_owned()))
}

pub(super) fn of_algorithm(name: &str) -> KeyPatch {
    KeyPatch { algorithm: Some(name.to_owned()), ..KeyPatch::default() }
}

/// Says what went wrong with a token.
#[track_caller]
pub(super) fn reason<T: std::fmt::Debug>(result: Result<T, EngineError>) -> String {
    match result {
        Err(EngineError::Invalid(text)) => text,
        other => panic!("expected a refusal, not {other:?}"),
    }
}

impl Rig {
    /// An open engine with nothing in it and two signers.
    pub(super) async fn open() -> Self {
        Self::over(MemoryStore::new(), TestClock::new()).await
    }

    pub(super) async fn over(store: MemoryStore, clock: TestClock) -> Self {
        let barrier = mssm_testkit::barrier_over(&store);
        let random = Arc::new(SeededRandom::new(7));
        let events = Log::default();
        let log = events.clone().start();
        let keeper =
            JwtKeeper::new(barrier.clone(), log.into(), Arc::new(clock.clone()), random.clone())
                .start();
        let signer = || {
            let (barrier, clock) = (barrier.clone(), Arc::new(clock.clone()));
            JwtSigner::start(&keeper, barrier, clock, random.clone())
        };
        let signers = vec![signer(), signer()];
        let rig = Self { keeper, signers, clock, store, events };
        rig.unseal().await;
        rig
    }

    pub(super) async fn unseal(&self) {
        let cluster = ClusterId::parse("6e2e9a0c-93a5-4a62-a4f7-2f0f1f7d6c11").unwrap();
        self.keeper.send(Opened { cluster }).await.unwrap().unwrap();
    }

    pub(super) async fn seal(&self) {
        self.keeper.send(Closing).await.unwrap().unwrap();
    }

    /// An engine with a key `k` of Ed25519 and a role `app` that signs with it for ten minutes.
    pub(super) async fn plain() -> Self {
        let rig = Self::open().await;
        rig.write_key("k", KeyPatch::default()).await.unwrap();
        rig.write_role("app", RolePatch { ttl_secs: Some(600), ..signs_with("k") }).await.unwrap();
        rig
    }

    pub(super) async fn write_key(
        &self,
        name: &str,
        patch: KeyPatch,
    ) -> Result<Vec<String>, EngineError> {
        let message = WriteKey { mount: mount(), name: key(name), patch, must_exist: false };
        self.keeper.send(message).await.unwrap()
    }

    pub(super) async fn write_role(
        &self,
        name: &str,
        patch: RolePatch,
    ) -> Result<Vec<String>, EngineError> {
        let message = WriteRole { mount: mount(), name: role(name), patch, identity: false };
        self.keeper.send(message).await.unwrap()
    }

    pub(super) async fn keep_copies(&self, max_age: u64) {
        let message =
            WriteConfig { mount: mount(), issuer: None, jwks_max_age_secs: Some(max_age) };
        self.keeper.send(message).await.unwrap().unwrap();
    }

    pub(super) async fn rotate(&self, name: &str) -> Rotated {
        let message = RotateKey { mount: mount(), name: key(name), verification_ttl_secs: None };
        self.keeper.send(message).await.unwrap().unwrap()
    }

    pub(super) async fn tick(&self) {
        self.keeper.send(Tick).await.unwrap();
    }

    pub(super) async fn key(&self, name: &str) -> KeyView {
        let message = ReadKey { mount: mount(), name: key(name) };
        self.signers[1].send(message).await.unwrap().unwrap()
    }

    /// The kids of a set that stand so.
    pub(super) async fn kids(&self, name: &str, standing: Standing) -> Vec<String> {
        let keys = self.key(name).await.keys;
        keys.into_iter().filter(|key| key.standing == standing).map(|key| key.kid).collect()
    }

    pub(super) async fn sign(&self, name: &str) -> Result<Signed, EngineError> {
        self.sign_with(name, None, None).await
    }

    pub(super) async fn sign_with(
        &self,
        name: &str,
        claims: Option<&str>,
        ttl: Option<u64>,
    ) -> Result<Signed, EngineError> {
        self.sign_on(0, name, claims, ttl).await
    }

    pub(super) async fn sign_on(
        &self,
        signer: usize,
        name: &str,
        claims: Option<&str>,
        ttl: Option<u64>,
    ) -> Result<Signed, EngineError> {
        let metadata = BTreeMap::from([("team".to_owned(), "red".to_owned())]);
        let message = Sign {
            mount: mount(),
            role: role(name),
            caller: Arc::new(caller()),
            metadata: Arc::new(metadata),
            claims: claims.map(document),
            ttl_secs: ttl,
            address: ADDRESS.to_owned(),
        };
        self.signers[signer].send(message).await.unwrap()
    }

    pub(super) async fn verify(&self, token: &str) -> Result<Verified, EngineError> {
        self.verify_as(verification(token)).await
    }

    pub(super) async fn verify_as(&self, message: Verify) -> Result<Verified, EngineError> {
        self.signers[1].send(message).await.unwrap()
    }

    /// A copy of the public keys, as a verifier elsewhere gets it.
    pub(super) async fn copy(&self) -> Copy {
        let jwks = self.signers[1].send(ReadJwks { mount: mount() }).await.unwrap().unwrap();
        let max_age = secs(jwks.max_age_secs);
        Copy { json: jwks.json, taken_at: now(&self.clock), max_age }
    }
}

pub(super) fn now(clock: &TestClock) -> Timestamp {
    use mssm_domain::Clock;
    clock.now()
}

pub(super) fn signs_with(key: &str) -> RolePatch {
    RolePatch { key: Some(key.to_owned()), ..RolePatch::default() }
}

pub(super) fn verification(token: &str) -> Verify {
    Verify {
        mount: mount(),
        token: SecretText::new(token.to_owned()),
        audience: Audience::Any,
        issuer: None,
        token_type: None,
        leeway_secs: 0,
        even_revoked: false,
    }
}

pub(super) fn caller() -> Caller {
    Caller {
        token: TokenId::from_fingerprint([1; 32]),
        accessor: Accessor::parse("0123456789abcdefghijABCD").unwrap(),
        display_name: "token-ci".to_owned(),
        policies: vec![PolicyName::parse("ci").unwrap(), PolicyName::default_policy()],
        kind: TokenKind::Service,
        issued_at: TestClock::START,
        expires_at: None,
    }
}

pub(super) fn claims(verified: &Verified) -> Value {
    serde_json::from_str(verified.claims.expose()).unwrap()
}

/// What a verifier elsewhere keeps.
pub(super) struct Copy {
    json: Arc<str>,
    taken_at: Timestamp,
    max_age: Duration,
}

impl Copy {
    /// True if it must be asked for anew.
    pub(super) fn is_old(&self, now: Timestamp) -> bool {
        self.taken_at.after(self.max_age) <= now
    }

    /// The answer as it came.
    pub(super) fn json(&self) -> &str {
        &self.json
    }

    /// How many keys there are.
    pub(super) fn len(&self) -> usize {
        self.keys().len()
    }

    fn keys(&self) -> Vec<Value> {
        let set: Value = serde_json::from_str(&self.json).unwrap();
        set["keys"].as_array().unwrap().clone()
    }

    /// Verifies a token of an Ed25519 key with nothing but this copy.
    pub(super) fn verifies(&self, token: &str) -> bool {
        use base64::Engine;
        use base64::engine::general_purpose::URL_SAFE_NO_PAD;
        let parts = crate::token::take_apart(token).unwrap();
        let Some(jwk) = self.keys().into_iter().find(|jwk| jwk["kid"] == parts.kid.as_str()) else {
            return false;
        };
        let x = URL_SAFE_NO_PAD.decode(jwk["x"].as_str().unwrap()).unwrap();
        let key = PublicKey::parse(parts.algorithm, &x).unwrap();
        key.verify(parts.message, &parts.signature).unwrap();
        true
    }
}
