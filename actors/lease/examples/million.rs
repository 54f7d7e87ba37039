//! Measures the lease manager over a stub engine and a store in memory: a million leases.
//!
//! `cargo run --release -p mssm-lease --example million -- 1000000`
#![expect(clippy::print_stdout, reason = "a measurement says what it found")]
#![expect(clippy::unwrap_used, reason = "a measurement that fails has nothing to say")]

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use actix::{Actor, Addr, Context, Handler};
use mssm_domain::{
    Accessor, BootId, Caller, Clock, ClusterId, ConnectionId, LeaseId, MountId, RoleName,
    SecretBytes, Timestamp, TokenId, TokenKind, Ttl,
};
use mssm_lease::{LeaseConfig, LeaseManager};
use mssm_messages::audit::{Append, AuditError};
use mssm_messages::engine::{
    Confirm, Create, CreateError, Created, DynamicSecretsEngine, EngineError, EngineKind, Extend,
    LeaseRules, Outcome, Prepare, Prepared, Revoke, SecretsEngine, Unmount,
};
use mssm_messages::lease::{Count, Issue, Lookup};
use mssm_messages::seal::Opened;
use mssm_messages::{Changes, access};
use mssm_testkit::{MemoryStore, SeededRandom, TestClock, barrier_over};
use tokio::time::Instant;

const ID: &str = "00000000-0000-0000-0000-000000000001";
/// Leases that are made at once.
const TOGETHER: u32 = 200;
/// How many end in a second, and for how many seconds.
const EXPIRIES: (u32, u32) = (1_000, 10);

/// Lateness of each end, and the ends that are awaited.
#[derive(Default)]
struct Ends {
    due: HashMap<LeaseId, Timestamp>,
    late_ms: Vec<u64>,
    ttl: u64,
}

struct Stub(Arc<Mutex<Ends>>, TestClock);

impl Actor for Stub {
    type Context = Context<Self>;
}

impl SecretsEngine for Stub {}
impl DynamicSecretsEngine for Stub {}

impl Handler<Unmount> for Stub {
    type Result = Result<(), EngineError>;

    fn handle(&mut self, _msg: Unmount, _ctx: &mut Self::Context) -> Self::Result {
        Ok(())
    }
}

impl Handler<Prepare> for Stub {
    type Result = Result<Prepared, EngineError>;

    fn handle(&mut self, _msg: Prepare, _ctx: &mut Self::Context) -> Self::Result {
        Ok(Prepared {
            target: ConnectionId::parse(ID).unwrap(),
            data: SecretBytes::new(vec![b'x'; 250]),
            ttl: Ttl::from_secs(self.0.lock().unwrap().ttl).ok(),
            max_ttl: None,
            renewable: true,
            rules: LeaseRules::default(),
            name: "v-token-app-0123456789abcdefghij-1800000000".to_owned(),
            warnings: Vec::new(),
        })
    }
}

impl Handler<Create> for Stub {
    type Result = Result<Created, CreateError>;

    fn handle(&mut self, msg: Create, _ctx: &mut Self::Context) -> Self::Result {
        let mut ends = self.0.lock().unwrap();
        if ends.ttl < 3_600 {
            ends.due.insert(msg.lease, msg.expires_at);
        }
        Ok(Created { secret: Vec::new(), data: None })
    }
}

impl Handler<Confirm> for Stub {
    type Result = Result<bool, EngineError>;

    fn handle(&mut self, _msg: Confirm, _ctx: &mut Self::Context) -> Self::Result {
        Ok(true)
    }
}

impl Handler<Extend> for Stub {
    type Result = Result<(), EngineError>;

    fn handle(&mut self, _msg: Extend, _ctx: &mut Self::Context) -> Self::Result {
        Ok(())
    }
}

impl Handler<Revoke> for Stub {
    type Result = Result<Vec<Outcome>, EngineError>;

    fn handle(&mut self, msg: Revoke, _ctx: &mut Self::Context) -> Self::Result {
        let (mut ends, now) = (self.0.lock().unwrap(), self.1.now());
        for credential in &msg.credentials {
            if let Some(due) = ends.due.remove(&credential.lease) {
                let late = u64::try_from(due.until(now).as_millis()).unwrap();
                ends.late_ms.push(late);
            }
        }
        Ok(msg.credentials.iter().map(|_| Outcome::Gone).collect())
    }
}

struct Log;

impl Actor for Log {
    type Context = Context<Self>;
}

impl Handler<Append> for Log {
    type Result = Result<(), AuditError>;

    fn handle(&mut self, _msg: Append, _ctx: &mut Self::Context) -> Self::Result {
        Ok(())
    }
}

fn start(store: &MemoryStore, clock: &TestClock, ends: &Arc<Mutex<Ends>>) -> Addr<LeaseManager> {
    let ports = Stub::ports(&Stub(Arc::clone(ends), clock.clone()).start());
    let config = LeaseConfig { boot: BootId::parse(ID).unwrap() };
    let engines = BTreeMap::from([(EngineKind::Database, ports)]);
    let clock: Arc<dyn Clock> = Arc::new(clock.clone());
    // Another seed for each manager, or their leases get the same names.
    let seed = u64::try_from(store.len()).unwrap();
    let random = Arc::new(SeededRandom::new(seed));
    LeaseManager::new(config, barrier_over(store), engines, Log.start().into(), clock, random)
        .start()
}

fn ask(token: TokenId, clock: &TestClock) -> Issue {
    Issue {
        engine: EngineKind::Database,
        mount: MountId::parse(ID).unwrap(),
        prefix: "db/creds/app/".to_owned(),
        role: RoleName::parse("app").unwrap(),
        caller: Caller {
            token,
            accessor: Accessor::parse("0123456789abcdefghijABCD").unwrap(),
            display_name: "token".to_owned(),
            policies: Vec::new(),
            kind: TokenKind::Service,
            issued_at: clock.now(),
            expires_at: None,
        },
        default_ttl: Ttl::from_secs(86_400).unwrap(),
        max_ttl: Ttl::from_secs(864_000).unwrap(),
        key: None,
    }
}

/// Makes leases, some hundred at once; the last one's id.
async fn mint(
    manager: &Addr<LeaseManager>,
    clock: &TestClock,
    tokens: &[TokenId],
    count: u32,
) -> LeaseId {
    let mut last = None;
    for first in (0..count).step_by(usize::try_from(TOGETHER).unwrap()) {
        let one = |number: u32| {
            let at = usize::try_from(number).unwrap() % tokens.len();
            manager.send(ask(*tokens.get(at).unwrap(), clock))
        };
        let together: Vec<_> = (first..count.min(first + TOGETHER)).map(one).collect();
        for issue in together {
            last = Some(issue.await.unwrap().unwrap().lease.id);
        }
    }
    last.unwrap()
}

/// Resident bytes.
fn resident() -> u64 {
    let text = std::fs::read_to_string("/proc/self/statm").unwrap();
    text.split(' ').nth(1).unwrap().parse::<u64>().unwrap() * 4_096
}

/// Hundredths of a second of processor time.
fn worked() -> u64 {
    let text = std::fs::read_to_string("/proc/self/stat").unwrap();
    let of = |index| text.split(' ').nth(index).unwrap().parse::<u64>().unwrap();
    of(13) + of(14)
}

#[actix_rt::main]
async fn main() {
    let count: u32 = std::env::args().nth(1).map_or(1_000_000, |text| text.parse().unwrap());
    let (store, clock) = (MemoryStore::new(), TestClock::following_tokio());
    let ends = Arc::new(Mutex::new(Ends { ttl: 86_400, ..Ends::default() }));
    let cluster = ClusterId::parse(ID).unwrap();
    // Leases of a thousand tokens.
    let barrier = barrier_over(&store);
    let mut tokens = Vec::new();
    for number in 0..1_000_u16 {
        let [high, low] = number.to_be_bytes();
        let mut bytes = [0; 32];
        bytes[..2].copy_from_slice(&[high, low]);
        let token = TokenId::from_fingerprint(bytes);
        let changes = Changes::new().put(access::token_record(token), 0, vec![1].into());
        barrier.commit(changes).await.unwrap();
        tokens.push(token);
    }

    let first = start(&store, &clock, &ends);
    first.send(Opened { cluster }).await.unwrap().unwrap();
    let began = Instant::now();
    let lease = mint(&first, &clock, &tokens, count).await;
    println!("made {count} leases in {:.1} s", began.elapsed().as_secs_f64());
    tokio::time::sleep(Duration::from_secs(3)).await;

    // The first manager keeps its memory, so that what the second takes is its own.
    let second = start(&store, &clock, &ends);
    let before = resident();
    let began = Instant::now();
    second.send(Opened { cluster }).await.unwrap().unwrap();
    second.send(Lookup { lease }).await.unwrap().unwrap();
    println!("first answer after {} ms", began.elapsed().as_millis());
    while second.send(Count).await.unwrap().unwrap().active < count.into() {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    println!("all timers armed after {:.1} s", began.elapsed().as_secs_f64());
    let each = (resident() - before) / u64::from(count);
    println!("{each} resident bytes a lease");

    let before = worked();
    tokio::time::sleep(Duration::from_secs(5)).await;
    println!("idle: {} ms of processor in 5 s", (worked() - before) * 10);

    let (a_second, seconds) = EXPIRIES;
    for number in 0..seconds {
        // Minting takes its time: ends are spread by when each batch is made, too.
        ends.lock().unwrap().ttl = u64::from(15 + number);
        mint(&second, &clock, &tokens, a_second).await;
    }
    tokio::time::sleep(Duration::from_secs(u64::from(15 + seconds))).await;
    let mut late = std::mem::take(&mut ends.lock().unwrap().late_ms);
    late.sort_unstable();
    let most = late.last().copied().unwrap_or_default();
    let median = late.get(late.len() / 2).copied().unwrap_or_default();
    println!(
        "{} ends at {a_second} a second: {median} ms late in the middle, {most} ms at most",
        late.len()
    );
}
