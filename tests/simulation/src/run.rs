//! One run from one seed: clients and faults, then calm, then what must hold.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use mssm_domain::{
    Accessor, Caller, Clock, ConnectionName, LeaseId, LeaseState, MountId, PolicyName, RoleName,
    SecretBytes, SecretText, Timestamp, TokenId, TokenKind, Ttl,
};
use mssm_messages::engine::EngineKind;
use mssm_messages::lease::{Issue, Lookup, Renew, Revoke};
use mssm_messages::minter::{ConnectionPatch, RolePatch, WriteConnection, WriteRole};
use mssm_messages::{Changes, access};
use mssm_storage::MemoryStorage;
use mssm_testkit::TestClock;
use tokio::time::Instant;

use crate::boot::{Boot, World};
use crate::disk::{has_lease, live_leases};
use crate::model::Kind;
use crate::weather::Weather;

/// After the last fault: a lease's longest pause, an engine's deadline, and some.
const SETTLE: Duration = Duration::from_secs(150);
/// The longest life of a lease here.
const LONGEST: u64 = 100;

/// What clients were told of a lease.
#[derive(Clone, Debug)]
struct Held {
    user: String,
    /// Not before this, by the last answer.
    ends: Instant,
    /// Its end was asked for.
    asked: bool,
    /// Its end was acknowledged.
    revoked: bool,
    /// Renewals of it that failed or got no answer: its end may be theirs.
    open: u32,
}

type Known = Rc<RefCell<BTreeMap<LeaseId, Held>>>;

pub(crate) struct Run {
    world: World,
    pub(crate) boot: Rc<Boot>,
    boots: u64,
    known: Known,
    pub(crate) token: TokenId,
    jumps: bool,
    calm: bool,
    trace: Vec<String>,
}

/// Runs a seed; the trace, or what did not hold and the trace.
pub(crate) async fn run(kind: Kind, seed: u64) -> Result<Vec<String>, String> {
    let mut run = Run::begin(kind, seed).await;
    let told = run.all().await;
    run.boot.kill();
    told.map_err(|violation| format!("seed {seed}: {violation}\n  {}", run.trace.join("\n  ")))?;
    Ok(run.trace)
}

impl Run {
    pub(crate) async fn begin(kind: Kind, seed: u64) -> Self {
        let weather = Arc::new(Weather::new(seed));
        let records = Arc::new(MemoryStorage::new());
        let database = kind.model(&weather, &records);
        let clock = TestClock::following_tokio();
        let world = World { weather, records, database, clock };
        let boot = Rc::new(Boot::start(&world, 1).await);
        let token = TokenId::from_fingerprint([7; 32]);
        let kind = world.weather.random.below(8);
        let run = Self {
            world,
            boot,
            boots: 1,
            known: Known::default(),
            token,
            jumps: kind == 1,
            calm: kind == 0,
            trace: Vec::new(),
        };
        run.define().await;
        let faults = if run.calm { 0 } else { 1 + run.world.weather.random.below(25) };
        run.world.weather.faults.store(faults, Ordering::SeqCst);
        run
    }

    async fn define(&self) {
        let record = access::token_record(self.token);
        let changes = Changes::new().put(record, 0, SecretBytes::new(vec![1]));
        self.boot.barrier.commit(changes).await.unwrap();
        let definition = self.world.database.definition();
        let patch = ConnectionPatch {
            plugin_name: Some(definition.plugin.to_owned()),
            connection_url: Some(SecretText::new(definition.url.to_owned())),
            username: Some("admin".to_owned()),
            password: Some(SecretText::new("adminsecret".to_owned())),
            allowed_roles: Some(vec!["*".to_owned()]),
            // A verifier is made on another thread, whose time is not ours.
            password_authentication: Some("password".to_owned()),
            ..ConnectionPatch::default()
        };
        let name = ConnectionName::parse("main").unwrap();
        let connection = WriteConnection { mount: mount(), name, patch };
        self.boot.minter.send(connection).await.unwrap().unwrap();
        let creation = definition.creation.iter().map(|text| (*text).to_owned()).collect();
        let patch = RolePatch {
            db_name: Some("main".to_owned()),
            creation_statements: Some(creation),
            verify: Some(false),
            ..RolePatch::default()
        };
        let role = WriteRole { mount: mount(), name: role(), patch, tester: None };
        self.boot.minter.send(role).await.unwrap().unwrap();
    }

    fn below(&self, bound: u64) -> u64 {
        self.world.weather.random.below(bound)
    }

    fn note(&mut self, what: impl Into<String>) {
        let ms = self.world.clock.steady().as_millis();
        self.trace.push(format!("{ms} {}", what.into()));
    }

    async fn all(&mut self) -> Result<(), String> {
        for _ in 0..10 + self.below(40) {
            tokio::time::sleep(Duration::from_millis(self.below(3_000))).await;
            if self.boot.is_dead() {
                self.restart().await;
            }
            self.act().await;
        }
        self.calm_down().await;
        self.settle().await?;
        let handed_out = self.known.borrow().len();
        self.note(format!("handed out: {handed_out}"));
        let begun = Instant::now();
        while begun.elapsed() < Duration::from_secs(LONGEST) + SETTLE && !self.is_empty() {
            tokio::time::sleep(Duration::from_secs(2)).await;
        }
        self.nothing_left()
    }

    async fn act(&mut self) {
        match self.below(if self.calm { 14 } else { 20 }) {
            0..=6 => (0..=self.below(3)).for_each(|_| self.issue()),
            7..=9 => self.renew(),
            10..=12 => self.revoke(),
            13 => self.log_in(),
            14 | 15 => {
                self.note("kill");
                self.boot.kill();
                tokio::time::sleep(Duration::from_millis(self.below(20_000))).await;
                self.restart().await;
            }
            16 | 17 => {
                self.note("the database stops");
                self.world.database.set_up(false);
                let (database, span) = (Arc::clone(&self.world.database), self.below(90_000));
                actix_rt::spawn(async move {
                    tokio::time::sleep(Duration::from_millis(span)).await;
                    database.set_up(true);
                });
            }
            18 => {
                self.note("the disk is full");
                let weather = Arc::clone(&self.world.weather);
                weather.full.store(true, Ordering::SeqCst);
                let span = self.below(10_000);
                actix_rt::spawn(async move {
                    tokio::time::sleep(Duration::from_millis(span)).await;
                    weather.full.store(false, Ordering::SeqCst);
                });
            }
            _ if self.jumps => {
                let now = self.world.clock.now().unix_ms();
                let to = now + self.below(7_200_000) - self.below(3_600_000);
                self.note("the clock jumps");
                self.world.clock.set(Timestamp::from_unix_ms(to));
            }
            _ => {
                self.note("seal");
                self.boot.seal().await;
                tokio::time::sleep(Duration::from_millis(self.below(5_000))).await;
                self.boot.unseal().await;
            }
        }
    }

    async fn restart(&mut self) {
        self.boot.kill();
        self.boots += 1;
        self.note(format!("start {}", self.boots));
        self.boot = Rc::new(Boot::start(&self.world, self.boots).await);
    }

    fn caller(&self) -> Caller {
        Caller {
            token: self.token,
            accessor: Accessor::parse("0123456789abcdefghijABCD").unwrap(),
            display_name: "token".to_owned(),
            policies: vec![PolicyName::default_policy()],
            kind: TokenKind::Service,
            issued_at: self.world.clock.now(),
            expires_at: None,
        }
    }

    fn issue(&mut self) {
        let ttl = Ttl::from_secs(2 + self.below(40)).unwrap();
        let issue = Issue {
            engine: EngineKind::Database,
            mount: mount(),
            prefix: "db/creds/app/".to_owned(),
            role: role(),
            caller: self.caller(),
            default_ttl: ttl,
            max_ttl: Ttl::from_secs(LONGEST).unwrap(),
            key: None,
        };
        self.note("issue");
        let (boot, known) = (Rc::clone(&self.boot), Rc::clone(&self.known));
        let clock = self.world.clock.clone();
        actix_rt::spawn(async move {
            let answer = boot.lease.send(issue).await;
            // What a dead server would have answered, nobody hears.
            let (Ok(Ok(issued)), false) = (answer, boot.is_dead()) else { return };
            let user = issued.secret.iter().find(|(name, _)| *name == "username").unwrap();
            let left = clock.now().until(issued.lease.expires_at);
            let held = Held {
                user: user.1.expose().to_owned(),
                ends: Instant::now() + left,
                asked: false,
                revoked: false,
                open: 0,
            };
            known.borrow_mut().insert(issued.lease.id, held);
        });
    }

    /// Some lease that clients know.
    fn pick(&self) -> Option<(LeaseId, Held)> {
        let known = self.known.borrow();
        let at = self.below(known.len().max(1) as u64);
        known.iter().nth(usize::try_from(at).unwrap()).map(|(id, held)| (id.clone(), held.clone()))
    }

    fn renew(&mut self) {
        let Some((lease, _)) = self.pick() else { return };
        let increment = Some(Ttl::from_secs(2 + self.below(40)).unwrap());
        let ask = Renew { lease: lease.clone(), increment, caller: self.caller() };
        self.note(format!("renew {lease}"));
        let (boot, known) = (Rc::clone(&self.boot), Rc::clone(&self.known));
        let clock = self.world.clock.clone();
        // Until it is answered, both ends are possible.
        known.borrow_mut().get_mut(&lease).unwrap().open += 1;
        actix_rt::spawn(async move {
            let answer = boot.lease.send(ask).await;
            let (Ok(Ok(renewed)), false) = (answer, boot.is_dead()) else { return };
            let left = clock.now().until(renewed.lease.expires_at);
            let mut known = known.borrow_mut();
            let held = known.get_mut(&lease).unwrap();
            (held.ends, held.open) = (Instant::now() + left, held.open - 1);
        });
    }

    fn revoke(&mut self) {
        let Some((lease, _)) = self.pick() else { return };
        self.note(format!("revoke {lease}"));
        self.known.borrow_mut().get_mut(&lease).unwrap().asked = true;
        let sync = self.below(2) == 0;
        for _ in 0..=self.below(2) {
            let (boot, known) = (Rc::clone(&self.boot), Rc::clone(&self.known));
            let lease = lease.clone();
            actix_rt::spawn(async move {
                let answer = boot.lease.send(Revoke { lease: lease.clone(), sync }).await;
                if matches!(answer, Ok(Ok(()))) && !boot.is_dead() {
                    known.borrow_mut().get_mut(&lease).unwrap().revoked = true;
                }
            });
        }
    }

    fn log_in(&mut self) {
        if let Some((_, held)) = self.pick() {
            let let_in = self.world.database.log_in(&held.user);
            self.note(format!("{} logs in: {let_in}", held.user));
        }
    }

    async fn calm_down(&mut self) {
        self.note("calm");
        self.world.weather.faults.store(0, Ordering::SeqCst);
        self.world.weather.full.store(false, Ordering::SeqCst);
        self.world.database.set_up(true);
        if self.boot.is_dead() {
            self.restart().await;
        }
    }

    /// 1 and 2: leases and roles agree, and what was acknowledged is there.
    async fn settle(&mut self) -> Result<(), String> {
        let begun = Instant::now();
        let mut found = Ok(());
        while begun.elapsed() < SETTLE {
            tokio::time::sleep(Duration::from_secs(2)).await;
            self.world.database.set_up(true);
            found = self.agrees().await;
            if found.is_ok() {
                break;
            }
        }
        found
    }

    async fn agrees(&self) -> Result<(), String> {
        let roles = self.world.database.logins();
        for role in &roles {
            if !has_lease(&self.world.records, role) {
                return Err(format!("1: the role \"{role}\" has no lease"));
            }
        }
        let leases = live_leases(&self.world.records).len();
        if leases != roles.len() {
            return Err(format!("1: {leases} leases and {} roles", roles.len()));
        }
        let known = self.known.borrow().clone();
        for (lease, held) in &known {
            let certain = held.open == 0 && !held.asked;
            let lives = held.ends > Instant::now() + Duration::from_secs(1) && certain;
            if lives && !self.jumps {
                let view = self.boot.lease.send(Lookup { lease: lease.clone() }).await.unwrap();
                let active = matches!(&view, Ok(view) if view.state == LeaseState::Active);
                if !active || !self.world.database.can_log_in(&held.user) {
                    return Err(format!("2: {lease} was handed out and is lost: {view:?}"));
                }
            }
            let ended = held.revoked || held.ends.elapsed() > SETTLE && held.open == 0;
            if ended && roles.contains(&held.user) {
                return Err(format!("3: {lease} has ended and its login has not"));
            }
        }
        Ok(())
    }

    fn is_empty(&self) -> bool {
        self.world.database.logins().is_empty() && live_leases(&self.world.records).is_empty()
    }

    /// 3, 9 and 10: everything has ended, sessions too; nothing early, nothing late.
    fn nothing_left(&self) -> Result<(), String> {
        let violations = self.world.database.violations();
        if let Some(first) = violations.first() {
            return Err(first.clone());
        }
        let (roles, leases) = (self.world.database.logins(), live_leases(&self.world.records));
        if !roles.is_empty() || !leases.is_empty() {
            return Err(format!("3: after all ends, {roles:?} and {} leases", leases.len()));
        }
        let stray = self.world.database.stray_sessions();
        if stray > 0 {
            return Err(format!("3: {stray} sessions go on after their logins have ended"));
        }
        for (lease, held) in self.known.borrow().iter() {
            let Some(barred) = self.world.database.barred_at(&held.user) else {
                return Err(format!("3: {lease} went without rung 1"));
            };
            let early = barred + Duration::from_millis(50) < held.ends;
            if early && held.open == 0 && !held.asked && !self.jumps {
                let by = held.ends - barred;
                return Err(format!("10: {lease} ended {by:?} early"));
            }
            let late = barred > held.ends + Duration::from_millis(1_500);
            if late && self.calm && held.open == 0 {
                return Err(format!("10: {lease} ended {:?} late", barred - held.ends));
            }
        }
        Ok(())
    }
}

fn mount() -> MountId {
    MountId::parse("00000000-0000-0000-0000-000000000001").unwrap()
}

fn role() -> RoleName {
    RoleName::parse("app").unwrap()
}
