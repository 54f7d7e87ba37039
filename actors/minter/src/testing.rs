//! A minter to test, over a database that is told what to say or over a real one.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use actix::{Actor, Addr};
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use mssm_domain::{
    Accessor, BootId, Caller, Clock, ClusterId, ConnectionName, LeaseId, MountId, Random, RoleName,
    SecretBytes, SecretText, Timestamp, TokenId, TokenKind, generate_base62, generate_uuid,
};
use mssm_messages::engine::{
    Create, CreateError, Created, EngineError, Extend, Outcome, Prepare, Prepared, Revocation,
    Revoke,
};
use mssm_messages::minter::{ConnectionPatch, RolePatch, WriteConnection, WriteRole};
use mssm_messages::seal::{Closing, Opened};
use mssm_testkit::{MemoryStore, SeededRandom, TestClock, TestPostgres, barrier_over};
use uuid::Uuid;

use crate::engine::{DbError, Dialer, Refusal, Row, Servers, Session};
use crate::spec::Spec;
use crate::{Minter, MinterConfig};

mod leases;

pub(crate) use leases::Leases;

/// What most roles say.
pub(crate) const CREATE: &str = "CREATE ROLE \"{{name}}\" LOGIN PASSWORD '{{password}}' \
     VALID UNTIL '{{expiration}}'";

/// A minter and all it stands on.
pub(crate) struct Rig {
    pub(crate) minter: Addr<Minter>,
    pub(crate) mount: MountId,
    pub(crate) boot: BootId,
    pub(crate) cluster: ClusterId,
    pub(crate) clock: TestClock,
    pub(crate) store: MemoryStore,
    pub(crate) leases: Leases,
    pub(crate) seed: u64,
    random: Arc<SeededRandom>,
}

/// A login that was made.
pub(crate) struct Login {
    pub(crate) lease: LeaseId,
    pub(crate) username: String,
    pub(crate) password: String,
    pub(crate) data: SecretBytes,
    pub(crate) target: mssm_domain::ConnectionId,
}

impl Rig {
    /// A minter over a real database.
    pub(crate) fn real(seed: u64) -> Self {
        Self::real_over(seed, &MemoryStore::new())
    }

    /// The same over a store that there is: what a crash leaves, or a copy.
    pub(crate) fn real_over(seed: u64, store: &MemoryStore) -> Self {
        let rig = Self::over(Arc::new(Servers), seed, store);
        rig.clock.set(real_now());
        rig
    }

    pub(crate) fn fake(database: &FakeDatabase) -> Self {
        Self::over(Arc::new(database.clone()), 1, &MemoryStore::new())
    }

    pub(crate) fn over(dialer: Arc<dyn Dialer>, seed: u64, store: &MemoryStore) -> Self {
        let random = Arc::new(SeededRandom::new(seed));
        let clock = TestClock::new();
        let leases = Leases { clock: clock.clone(), ..Leases::default() };
        let boot = BootId::from_uuid(generate_uuid(random.as_ref()));
        let config = MinterConfig { boot, leases: leases.ports(), restored: false };
        let barrier = barrier_over(store);
        let random_port: Arc<dyn Random> = random.clone();
        let minter =
            Minter::over(config, barrier, Arc::new(clock.clone()), random_port, dialer).start();
        let mount = MountId::from_uuid(Uuid::from_u128(5));
        // Of each rig its own: a fence ends all sessions of its cluster's other runs, and tests share a server.
        let cluster = ClusterId::from_uuid(Uuid::from_u128(u128::from(seed) << 64 | 9));
        let store = store.clone();
        Self { minter, mount, boot, cluster, clock, store, leases, seed, random }
    }

    pub(crate) async fn open(self) -> Self {
        let cluster = self.cluster;
        self.minter.send(Opened { cluster }).await.unwrap().unwrap();
        self
    }

    /// Sealed, as far as it can tell.
    pub(crate) async fn close(&self) {
        self.minter.send(Closing).await.unwrap().unwrap();
    }

    /// A connection called `main` that all may use.
    pub(crate) async fn connect(&self, patch: ConnectionPatch) -> Result<Vec<String>, EngineError> {
        let name = ConnectionName::parse("main").unwrap();
        self.minter.send(WriteConnection { mount: self.mount, name, patch }).await.unwrap()
    }

    pub(crate) async fn role(
        &self,
        name: &str,
        statements: &[&str],
    ) -> Result<Vec<String>, EngineError> {
        let statements = statements.iter().map(|text| (*text).to_owned()).collect();
        let patch = RolePatch { creation_statements: Some(statements), ..RolePatch::default() };
        self.role_with(name, patch).await
    }

    pub(crate) async fn role_with(
        &self,
        name: &str,
        mut patch: RolePatch,
    ) -> Result<Vec<String>, EngineError> {
        patch.db_name.get_or_insert_with(|| "main".to_owned());
        let name = RoleName::parse(name).unwrap();
        self.minter.send(WriteRole { mount: self.mount, name, patch, tester: None }).await.unwrap()
    }

    pub(crate) async fn prepare(&self, role: &str) -> Result<Prepared, EngineError> {
        self.prepare_as("token", role).await
    }

    pub(crate) async fn prepare_as(
        &self,
        display: &str,
        role: &str,
    ) -> Result<Prepared, EngineError> {
        self.prepare_for(display, role, &self.lease()).await
    }

    async fn prepare_for(
        &self,
        display: &str,
        role: &str,
        lease: &LeaseId,
    ) -> Result<Prepared, EngineError> {
        let caller = Caller {
            token: TokenId::from_fingerprint([0; 32]),
            accessor: Accessor::parse(&"a".repeat(24)).unwrap(),
            display_name: display.to_owned(),
            policies: Vec::new(),
            kind: TokenKind::Service,
            issued_at: self.clock.now(),
            expires_at: None,
        };
        let role = RoleName::parse(role).unwrap();
        let (mount, lease) = (self.mount, lease.clone());
        self.minter.send(Prepare { mount, role, caller, lease }).await.unwrap()
    }

    pub(crate) fn lease(&self) -> LeaseId {
        let tail = generate_base62(self.random.as_ref(), 24);
        LeaseId::parse(&format!("db/creds/app/{tail}")).unwrap()
    }

    pub(crate) async fn create(
        &self,
        prepared: &Prepared,
        lease: &LeaseId,
    ) -> Result<Created, CreateError> {
        let create = Create {
            mount: self.mount,
            lease: lease.clone(),
            data: prepared.data.duplicate(),
            expires_at: self.clock.now().after(Duration::from_mins(1)),
        };
        self.minter.send(create).await.unwrap()
    }

    pub(crate) async fn mint(&self, role: &str) -> Result<Login, CreateError> {
        let lease = self.lease();
        let prepared = self.prepare_for("token", role, &lease).await.unwrap();
        let created = self.create(&prepared, &lease).await?;
        let value = |name: &str| {
            let pair = created.secret.iter().find(|(key, _)| *key == name).unwrap();
            pair.1.expose().to_owned()
        };
        let (username, password) = (value("username"), value("password"));
        let data = created.data.unwrap_or(prepared.data);
        Ok(Login { lease, username, password, data, target: prepared.target })
    }

    pub(crate) async fn extend(&self, login: &Login, by: Duration) -> Result<(), EngineError> {
        let extend = Extend {
            lease: login.lease.clone(),
            data: login.data.duplicate(),
            expires_at: self.clock.now().after(by),
        };
        self.minter.send(extend).await.unwrap()
    }

    pub(crate) async fn revoke(&self, login: &Login) -> Outcome {
        self.revoke_all(&[login], None).await.unwrap().remove(0)
    }

    pub(crate) async fn revoke_all(
        &self,
        logins: &[&Login],
        in_doubt: Option<BootId>,
    ) -> Result<Vec<Outcome>, EngineError> {
        self.end(logins, in_doubt, false).await
    }

    pub(crate) async fn end(
        &self,
        logins: &[&Login],
        in_doubt: Option<BootId>,
        access_only: bool,
    ) -> Result<Vec<Outcome>, EngineError> {
        let credentials = logins.iter().map(|login| Revocation {
            lease: login.lease.clone(),
            data: login.data.duplicate(),
            in_doubt,
        });
        let (target, credentials) = (logins[0].target, credentials.collect());
        self.minter.send(Revoke { target, credentials, access_only }).await.unwrap()
    }

    /// What is known of a login before it is made, for those that never come through.
    pub(crate) fn doubtful(prepared: Prepared, lease: LeaseId) -> Login {
        let text: serde_json::Value = serde_json::from_slice(prepared.data.expose()).unwrap();
        let username = text["username"].as_str().unwrap().to_owned();
        let (password, data, target) = (String::new(), prepared.data, prepared.target);
        Login { lease, username, password, data, target }
    }
}

/// What a real database's clock shows.
#[expect(clippy::disallowed_methods, reason = "real databases have real clocks")]
pub(crate) fn real_now() -> Timestamp {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    Timestamp::from_unix_ms(u64::try_from(since.as_millis()).unwrap())
}

/// The definition of a connection to a real database, as its superuser.
pub(crate) fn patch(postgres: &TestPostgres, database: &str) -> ConnectionPatch {
    let (host, port) = (postgres.host(), postgres.port());
    let url = format!(
        "postgresql://{{{{username}}}}:{{{{password}}}}@{host}:{port}/{database}?sslmode=disable"
    );
    ConnectionPatch {
        plugin_name: Some("postgresql-database-plugin".to_owned()),
        connection_url: Some(SecretText::new(url)),
        username: Some(postgres.admin_user().to_owned()),
        password: Some(SecretText::new(postgres.admin_password().to_owned())),
        allowed_roles: Some(vec!["*".to_owned()]),
        ..ConnectionPatch::default()
    }
}

/// The same, to a database that is not there.
pub(crate) fn fake_patch() -> ConnectionPatch {
    ConnectionPatch {
        plugin_name: Some("postgresql-database-plugin".to_owned()),
        connection_url: Some(SecretText::new("postgresql://127.0.0.1/app".to_owned())),
        username: Some("admin".to_owned()),
        password: Some(SecretText::new("adminsecret".to_owned())),
        allowed_roles: Some(vec!["app*".to_owned()]),
        ..ConnectionPatch::default()
    }
}

#[derive(Default)]
struct Script {
    log: Vec<String>,
    answers: Vec<(String, Result<Vec<Row>, DbError>)>,
    refuses: Option<DbError>,
    /// What becomes of the next logins, before `refuses` counts.
    logins: VecDeque<Option<DbError>>,
    superuser: bool,
    identity: String,
    ahead_ms: u64,
}

/// A database that says what it is told to, and remembers what it was asked.
#[derive(Clone, Default)]
pub(crate) struct FakeDatabase(Arc<Mutex<Script>>);

impl FakeDatabase {
    pub(crate) fn new() -> Self {
        let database = Self::default();
        database.0.lock().unwrap().superuser = true;
        "7".clone_into(&mut database.0.lock().unwrap().identity);
        database
    }

    pub(crate) fn set_superuser(&self, superuser: bool) {
        self.0.lock().unwrap().superuser = superuser;
    }

    pub(crate) fn set_identity(&self, identity: &str) {
        identity.clone_into(&mut self.0.lock().unwrap().identity);
    }

    /// Its clock is so much ahead of a test's.
    pub(crate) fn set_ahead_ms(&self, ahead_ms: u64) {
        self.0.lock().unwrap().ahead_ms = ahead_ms;
    }

    /// The next SQL that holds `needle` gets this answer; calls add up.
    pub(crate) fn answer(&self, needle: &str, answer: Result<Vec<Row>, DbError>) {
        self.0.lock().unwrap().answers.push((needle.to_owned(), answer));
    }

    /// No connection is made, for this reason.
    pub(crate) fn refuse(&self, error: Option<DbError>) {
        self.0.lock().unwrap().refuses = error;
    }

    /// What becomes of the next login; calls add up.
    pub(crate) fn next_login(&self, error: Option<DbError>) {
        self.0.lock().unwrap().logins.push_back(error);
    }

    /// What it was asked since the last time, without what every session asks first.
    pub(crate) fn asked(&self) -> Vec<String> {
        std::mem::take(&mut self.0.lock().unwrap().log)
    }
}

/// The database's own no.
pub(crate) fn no(code: &str, message: &str) -> DbError {
    DbError::Refused(Refusal {
        code: code.to_owned(),
        severity: "ERROR".to_owned(),
        message: message.to_owned(),
        done: 0,
        position: None,
    })
}

/// A row of an answer.
pub(crate) fn row(fields: &[&str]) -> Row {
    fields.iter().map(|field| Some((*field).to_owned())).collect()
}

impl Dialer for FakeDatabase {
    fn dial<'a>(
        &'a self,
        _spec: &'a Spec,
        _database: Option<&'a str>,
    ) -> BoxFuture<'a, Result<Box<dyn Session>, DbError>> {
        let mut script = self.0.lock().unwrap();
        let refuses = script.logins.pop_front().unwrap_or_else(|| script.refuses.clone());
        drop(script);
        let session: Box<dyn Session> = Box::new(self.clone());
        async move { refuses.map_or(Ok(session), Err) }.boxed()
    }
}

impl Session for FakeDatabase {
    fn run<'a>(&'a self, sql: &'a str) -> BoxFuture<'a, Result<Vec<Row>, DbError>> {
        let mut script = self.0.lock().unwrap();
        let answer = if sql.contains("server_version_num") {
            let superuser = if script.superuser { "t" } else { "f" };
            Ok(vec![row(&["150018", superuser, "app", "42", "2027-01-01"])])
        } else if sql.contains("pg_control_system") {
            Ok(vec![row(&[script.identity.as_str()])])
        } else if sql.contains("clock_timestamp") {
            let now = TestClock::START.unix_ms() + script.ahead_ms;
            Ok(vec![row(&[now.to_string().as_str()])])
        } else if sql.contains("pg_try_advisory_lock") {
            Ok(vec![row(&["t"])])
        } else if ["tcp_keepalives", "mssm guard", "mssm:guard", "mssm.session"]
            .iter()
            .any(|one| sql.contains(one))
        {
            Ok(Vec::new())
        } else {
            script.log.push(sql.to_owned());
            match script.answers.iter().position(|(needle, _)| sql.contains(needle)) {
                Some(index) => script.answers.remove(index).1,
                None => Ok(Vec::new()),
            }
        };
        async move { answer }.boxed()
    }

    fn is_usable(&self) -> bool {
        true
    }
}
