//! A front door whose actors are fakes that remember.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use actix::dev::{MessageResult, ToEnvelope};
use actix::{Actor, Addr, Context, Handler, Message, Recipient};
use actix_web::HttpResponse;
use actix_web::body::to_bytes;
use actix_web::http::Method;
use actix_web::test::TestRequest;
use actix_web::web::Payload;
use mssm_domain::policy::{Capabilities, Capability, ParameterRules};
use mssm_domain::{
    Accessor, BootId, Caller, Lease, LeaseId, MountId, PolicyName, Prefix, SecretText, TokenId,
    TokenKind, Ttl,
};
use mssm_messages::access::{
    AccessError, AccessPorts, Authorize, Authorized, LookupToken, TokenPorts, TokenRef, TokenView,
};
use mssm_messages::audit::{Append, AuditError, AuditStatus, Entry};
use mssm_messages::engine::EngineKind;
use mssm_messages::kv::{KvError, KvPorts, VersionView, VersionedSecret};
use mssm_messages::lease::{Issued, LeaseError, Lost};
use mssm_messages::mounts::{Mount, MountError, MountPorts, MountTable};
use mssm_messages::seal::{Founded, SealKind, SealStatus};
use mssm_testkit::{FakeKeys, SeededRandom, TestClock};
use uuid::Uuid;

use crate::door::{About, AuditPorts, FrontDoor, Glances, LeasePorts, SealPorts, Worker};
use crate::front::front;
use crate::limits::{Gate, Limits};
use crate::rates::Turnstile;

/// A secret that must not be seen where it does not belong.
pub(crate) const CANARY: &str = "canary-7f3a";
/// The tail of every lease id.
const TAIL: &str = "0123456789abcdefghijABCD";

/// An actor that answers one kind of message with a closure.
pub(crate) struct Fake<M: Message>(Box<dyn FnMut(M) -> M::Result>);

impl<M: Message + 'static> Actor for Fake<M> {
    type Context = Context<Self>;
}

impl<M: Message + 'static> Handler<M> for Fake<M> {
    type Result = MessageResult<M>;

    fn handle(&mut self, message: M, _ctx: &mut Self::Context) -> Self::Result {
        MessageResult((self.0)(message))
    }
}

pub(crate) fn fake<M>(answer: impl FnMut(M) -> M::Result + 'static) -> Addr<Fake<M>>
where
    M: Message + Send + 'static,
    M::Result: Send,
    Context<Fake<M>>: ToEnvelope<Fake<M>, M>,
{
    Fake(Box::new(answer)).start()
}

/// A port of something that no test asks.
pub(super) fn nobody<M>() -> Addr<Fake<M>>
where
    M: Message + Send + 'static,
    M::Result: Send,
{
    fake(|_| panic!("nobody expected {}", std::any::type_name::<M>()))
}

fn unasked<M>() -> Recipient<M>
where
    M: Message + Send + 'static,
    M::Result: Send,
{
    nobody().recipient()
}

/// What the fakes remember, and how they are told to behave.
#[derive(Default)]
pub(crate) struct State {
    /// Every batch that the audit log took.
    pub(crate) audit: Vec<Vec<Entry>>,
    /// How many more batches the audit log takes; `None` is without end.
    pub(crate) audit_left: Option<usize>,
    /// True for a server without keys.
    pub(crate) sealed: bool,
    /// How often a credential was issued.
    pub(crate) issued: usize,
    /// How often the audit log was asked how it does.
    pub(crate) looked: usize,
    /// The leases that were ended.
    pub(crate) revoked: Vec<LeaseId>,
    /// Secrets by path.
    pub(crate) secrets: BTreeMap<String, String>,
    /// What a rule demands of parameters.
    pub(crate) rules: Option<Arc<ParameterRules>>,
}

type Shared = Arc<Mutex<State>>;

/// A front door and its fakes.
pub(crate) struct World {
    pub(crate) worker: Rc<Worker>,
    state: Shared,
    keys: FakeKeys,
}

/// An answer, read to its end.
pub(crate) struct Seen {
    pub(crate) status: u16,
    pub(crate) text: String,
}

impl Seen {
    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.text).unwrap()
    }

    pub(crate) fn errors(&self) -> Vec<String> {
        serde_json::from_value(self.json()["errors"].clone()).unwrap()
    }
}

impl World {
    pub(crate) fn new() -> Self {
        Self::within(Limits::default())
    }

    pub(crate) fn within(limits: Limits) -> Self {
        let state = Shared::default();
        let keys = FakeKeys::start();
        let door = door(&state, &keys);
        let gate = Arc::new(Gate::new(limits));
        let turnstile = RefCell::new(Turnstile::new(gate.limits.rates));
        let (metrics, glances) = (Arc::default(), Glances::default());
        let worker = Rc::new(Worker { door, gate, turnstile, metrics, glances });
        Self { worker, state, keys }
    }

    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    pub(crate) fn seal(&self) {
        self.state().sealed = true;
        self.keys.set_sealed(true);
    }

    /// Sends a request; its answer's body is not read yet.
    pub(crate) async fn send(
        &self,
        method: &str,
        path: &str,
        token: &str,
        body: &str,
    ) -> HttpResponse {
        let mut request = TestRequest::default()
            .method(Method::from_bytes(method.as_bytes()).unwrap())
            .uri(path)
            .set_payload(body.to_owned());
        if !token.is_empty() {
            request = request.insert_header(("X-Vault-Token", token));
        }
        if !body.is_empty() {
            request = request.insert_header(("Content-Length", body.len().to_string()));
        }
        if method == "PATCH" {
            request = request.insert_header(("Content-Type", "application/merge-patch+json"));
        }
        let (request, mut payload) = request.to_http_parts();
        let payload = <Payload as actix_web::FromRequest>::from_request(&request, &mut payload)
            .await
            .unwrap();
        front(Rc::clone(&self.worker), request, payload).await
    }

    /// Sends a request and reads its answer.
    pub(crate) async fn ask(&self, method: &str, path: &str, token: &str, body: &str) -> Seen {
        let response = self.send(method, path, token, body).await;
        let status = response.status().as_u16();
        let bytes = to_bytes(response.into_body()).await.unwrap();
        Seen { status, text: String::from_utf8(bytes.to_vec()).unwrap() }
    }

    /// Lets tasks that nobody waits for run.
    pub(crate) async fn settle(&self) {
        for _ in 0..50 {
            tokio::task::yield_now().await;
        }
    }
}

fn caller(policy: &str) -> Arc<Caller> {
    Arc::new(Caller {
        token: TokenId::from_fingerprint([1; 32]),
        accessor: Accessor::parse(TAIL).unwrap(),
        display_name: "token".to_owned(),
        policies: vec![PolicyName::parse(policy).unwrap()],
        kind: TokenKind::Service,
        issued_at: TestClock::START,
        expires_at: None,
    })
}

/// The token `root` may do all, `last` too, but once, `none` nothing; others are words of capabilities, as `read+list`.
fn authorize(state: &Shared, question: &Authorize) -> Result<Authorized, AccessError> {
    let token = question.token.expose();
    let policy = if matches!(token, "root" | "last") { "root" } else { "default" };
    let words = token.split('+').map(Capability::parse);
    let capabilities = match token {
        "root" | "last" | "none" => Some(Capabilities::NONE),
        _ => words.collect::<Option<Capabilities>>(),
    };
    Ok(Authorized {
        caller: caller(policy),
        metadata: Arc::default(),
        capabilities: capabilities.ok_or(AccessError::NoToken)?,
        parameters: state.lock().unwrap().rules.clone(),
        granting: vec![PolicyName::parse(policy).unwrap()],
        last_use: token == "last",
        last_view: (token == "last").then(|| Arc::new(last_view())),
    })
}

fn last_view() -> TokenView {
    TokenView {
        id: TokenId::from_fingerprint([1; 32]),
        accessor: Accessor::parse(TAIL).unwrap(),
        policies: vec![PolicyName::root()],
        metadata: BTreeMap::new(),
        display_name: "token-last".to_owned(),
        path: "auth/token/create".to_owned(),
        issued_at: TestClock::START,
        creation_ttl: None,
        expires_at: None,
        explicit_max_ttl: None,
        period: None,
        renewable: false,
        renewed_at: None,
        num_uses: 0,
        orphan: false,
    }
}

fn mount(number: u128, prefix: &str, kind: EngineKind, version: u8) -> Arc<Mount> {
    Arc::new(Mount {
        id: MountId::from_uuid(Uuid::from_u128(number)),
        prefix: Prefix::parse(prefix).unwrap(),
        kind,
        version,
        description: String::new(),
        accessor: format!("{}_{number}", kind.name()),
        default_ttl: None,
        max_ttl: None,
        listed_unauthenticated: false,
        leaving: false,
        built_in: false,
        audit: mssm_messages::mounts::AuditRules::default(),
    })
}

fn table() -> Arc<MountTable> {
    Arc::new(MountTable::new(vec![
        mount(1, "sys", EngineKind::System, 0),
        mount(2, "auth/token", EngineKind::Token, 0),
        mount(3, "secret", EngineKind::Kv, 2),
        mount(4, "kv1", EngineKind::Kv, 1),
        mount(5, "db", EngineKind::Database, 0),
        mount(6, "cubbyhole", EngineKind::Cubbyhole, 0),
        mount(7, "jwt", EngineKind::JwtSigner, 0),
        mount(8, "identity", EngineKind::Identity, 0),
    ]))
}

fn door(state: &Shared, keys: &FakeKeys) -> FrontDoor {
    let access = Arc::clone(state);
    let mounts = Arc::clone(state);
    let (log, status, looked) = (Arc::clone(state), Arc::clone(state), Arc::clone(state));
    FrontDoor {
        access: AccessPorts {
            authorize: fake(move |question| authorize(&access, &question)).recipient(),
            reaches_below: fake(|_| Ok(false)).recipient(),
            resultant_acl: unasked(),
        },
        tokens: tokens(),
        mounts: MountPorts {
            table: fake(move |_| {
                if mounts.lock().unwrap().sealed { Err(MountError::Sealed) } else { Ok(table()) }
            })
            .recipient(),
            enable: nobody().into(),
            tune: fake(|_| Ok(())).into(),
            disable: nobody().into(),
        },
        jwt: super::jwt::ports(),
        kv: kv(state),
        keys: keys.port(),
        leases: leases(state),
        minter: super::minter::ports(),
        seal: seal(&status),
        audit: AuditPorts {
            append: fake(move |Append(lines)| {
                let mut log = log.lock().unwrap();
                match log.audit_left {
                    Some(0) => return Err(AuditError::Blocked("disk full".to_owned())),
                    Some(left) => log.audit_left = Some(left - 1),
                    None => {}
                }
                log.audit.push(lines);
                Ok(())
            })
            .into(),
            status: fake(move |_| {
                looked.lock().unwrap().looked += 1;
                Ok(AuditStatus::default())
            })
            .into(),
            show: nobody().into(),
            devices: super::devices(),
        },
        clock: Arc::new(TestClock::new()),
        random: Arc::new(SeededRandom::new(1)),
        about: Arc::new(About {
            api_addr: "https://mssm.example:8200".to_owned(),
            storage_type: "memory",
            open_metrics: false,
            boot: BootId::from_uuid(Uuid::nil()),
            started_at: TestClock::START,
        }),
    }
}

fn tokens() -> TokenPorts {
    TokenPorts {
        create: nobody().into(),
        renew: nobody().into(),
        revoke: nobody().into(),
        // The one lookup of a token that fakes are asked for: does it live?
        lookup: fake(|LookupToken(token)| match token {
            TokenRef::Secret(text) if text.expose() == "root" => Ok(last_view()),
            _ => Err(AccessError::BadToken),
        })
        .into(),
        accessors: nobody().into(),
        tidy: nobody().into(),
        capabilities: nobody().into(),
        list_policies: nobody().into(),
        read_policy: nobody().into(),
        write_policy: fake(|_| Ok(Vec::new())).into(),
        delete_policy: fake(|_| Ok(())).into(),
    }
}

fn view(version: u64) -> VersionView {
    VersionView {
        version,
        created_at: TestClock::START,
        deleted_at: None,
        destroyed: false,
        custom_metadata: BTreeMap::new(),
    }
}

fn kv(state: &Shared) -> KvPorts {
    use mssm_messages::kv::{Exists, ReadVersion, WritePlain, WriteVersion};
    let (reads, writes) = (Arc::clone(state), Arc::clone(state));
    let (plain, present) = (Arc::clone(state), Arc::clone(state));
    let read = move |message: ReadVersion| {
        let path = message.path.as_str();
        assert_ne!(path, "panic", "as the test wished");
        let state = reads.lock().unwrap();
        let text = state.secrets.get(path).ok_or(KvError::NotFound)?;
        let document = SecretText::new(text.clone());
        let document = mssm_domain::Document::from_checked_json(document);
        let document = (text != "deleted").then_some(document);
        Ok(VersionedSecret { document, view: view(1) })
    };
    let write = move |message: WriteVersion| {
        let text = message.document.expose().to_owned();
        writes.lock().unwrap().secrets.insert(message.path.as_str().to_owned(), text);
        Ok(view(1))
    };
    let write_plain = move |message: WritePlain| {
        let text = message.document.expose().to_owned();
        plain.lock().unwrap().secrets.insert(message.path.as_str().to_owned(), text);
        Ok(())
    };
    let exists = move |message: Exists| {
        Ok(present.lock().unwrap().secrets.contains_key(message.path.as_str()))
    };
    KvPorts {
        read_plain: unasked(),
        write_plain: fake(write_plain).recipient(),
        delete_plain: unasked(),
        list_plain: unasked(),
        exists: fake(exists).recipient(),
        read_version: fake(read).recipient(),
        write_version: fake(write).recipient(),
        patch_version: unasked(),
        change_versions: unasked(),
        read_subkeys: unasked(),
        read_metadata: unasked(),
        write_metadata: unasked(),
        delete_metadata: unasked(),
        list_versioned: fake(|_| Err(KvError::NotFound)).recipient(),
        read_config: unasked(),
        write_config: fake(|_| Ok(())).recipient(),
        unmount: unasked(),
    }
}

fn leases(state: &Shared) -> LeasePorts {
    use mssm_messages::lease::Issue;
    let (issuing, revoking) = (Arc::clone(state), Arc::clone(state));
    let issue = move |message: Issue| {
        if message.role.as_str() == "nope" {
            let error = mssm_messages::engine::EngineError::Unknown("unknown role: nope".into());
            return Err(LeaseError::Engine(error));
        }
        issuing.lock().unwrap().issued += 1;
        let lease = Lease {
            id: LeaseId::parse(&format!("{}{TAIL}", message.prefix)).unwrap(),
            issued_at: TestClock::START,
            expires_at: TestClock::START.after(Duration::from_mins(1)),
            ends_at_most: TestClock::START.after(Duration::from_hours(1)),
            ttl: Ttl::from_secs(60).unwrap(),
            renewable: true,
            renewed_at: None,
            holder: message.caller.accessor,
        };
        let password = SecretText::new(CANARY.to_owned());
        let username = SecretText::new("v-token-app".to_owned());
        let secret = vec![("username", username), ("password", password)];
        Ok(Issued { lease, secret, warnings: Vec::new(), again: false })
    };
    LeasePorts {
        issue: fake(issue).into(),
        renew: nobody().into(),
        revoke: nobody().into(),
        lookup_name: nobody().into(),
        unreadable: nobody().into(),
        overdue: nobody().into(),
        tidy: nobody().into(),
        lost: fake(move |message: Lost| {
            revoking.lock().unwrap().revoked.push(message.lease);
            Ok(())
        })
        .into(),
        revoke_prefix: nobody().into(),
        lookup: fake(|_| Err(LeaseError::Unknown)).into(),
        list: fake(|_| Ok(Vec::new())).into(),
        count: fake(|_| Ok(mssm_messages::lease::Counts::default())).into(),
    }
}

fn seal(state: &Shared) -> SealPorts {
    fn status(state: &Shared) -> SealStatus {
        let sealed = state.lock().unwrap().sealed;
        SealStatus {
            share: None,
            kind: SealKind::Shamir,
            initialized: true,
            sealed,
            threshold: 3,
            shares: 5,
            entered: Vec::new(),
            nonce: String::new(),
            cluster: None,
        }
    }
    let (one, two) = (Arc::clone(state), Arc::clone(state));
    SealPorts {
        init: fake(|_| {
            let share = mssm_domain::SecretBytes::new(CANARY.as_bytes().to_vec());
            let root_token = SecretText::new(CANARY.to_owned());
            Ok(Founded { shares: vec![share], root_token })
        })
        .into(),
        status: fake(move |_| Ok(status(&one))).into(),
        unseal: fake(move |_| Ok(status(&two))).into(),
        reset: nobody().into(),
        auto_unseal: nobody().into(),
        seal: fake(|_| Ok(())).into(),
        rotate: nobody().into(),
        key_status: nobody().into(),
    }
}
