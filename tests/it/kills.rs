//! The real program is killed at every fail-point and at random moments under load; after each
//! restart the logins in the database and the leases are compared. One suite for every kind of database.

mod caller;
mod hindered;
mod rotations;

use std::collections::BTreeMap;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use mssm_testkit::SeededRandom;
use serde_json::json;

use self::caller::Caller;
use crate::harness::{Client, Login, Options, Server, Stopwatch, eventually, pass};
use crate::victim::{Kind, Victim};

/// Kills that the tests on PostgreSQL do together unless `MSSM_TORTURE_KILLS` says another number.
const KILLS: u64 = 200;
/// How long a fail-point may take to be reached, and leases to settle.
const PATIENCE: Duration = Duration::from_mins(1);
/// Kills between two words about how far a test is.
const TOLD: u64 = 25;
const CLIENTS: u64 = 4;
const ROLES: [&str; 7] = ["app", "plain", "brief", "stubborn", "moody", "broken", "again"];
/// Instead of a role: has what a restored store does not know confirmed.
const CONFIRMS: &str = "confirms";

/// What the client knows of a login that it was given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    /// It was handed out and lives.
    Held,
    /// Its end was asked for, or is near: it is there with its lease, or neither is.
    Ending,
    /// Its end was acknowledged.
    Revoked,
}

/// One server that is killed again and again, and all that its clients know.
struct Torture {
    database: Box<dyn Victim>,
    server: Server,
    random: SeededRandom,
    cluster: String,
    known: Mutex<BTreeMap<String, (Login, Fate)>>,
}

#[expect(clippy::disallowed_methods, reason = "how scripts/torture says how long")]
fn kills() -> u64 {
    std::env::var("MSSM_TORTURE_KILLS").ok().and_then(|text| text.parse().ok()).unwrap_or(KILLS)
}

/// What the moments of a test come from: `MSSM_TORTURE_SEED` makes them others.
#[expect(clippy::disallowed_methods, reason = "how scripts/torture says which")]
fn seed(number: u64) -> u64 {
    let told = std::env::var("MSSM_TORTURE_SEED").ok().and_then(|text| text.parse::<u64>().ok());
    told.unwrap_or(0) * 10 + number
}

/// How far a test is, for who waits for a long run.
fn tell(what: &str, done: u64, of: u64, seed: u64) {
    if done.is_multiple_of(TOLD) || done == of {
        eprintln!("{what}, seed {seed}: {done} of {of} kills");
    }
}

impl Torture {
    fn begin(database: Box<dyn Victim>, seed: u64) -> Self {
        let seal = "kind = \"static\"\nkey_file = \"{folder}/root.key\"".to_owned();
        let files = vec![("root.key", "5a".repeat(32))];
        let mut server = Server::start(Options { seal, files, ..Options::default() });
        let founded = server.client().put("sys/init", json!({})).expect(200);
        server.root_token = founded.text_at("/root_token");
        let _ = server.client().put("sys/unseal", json!({}));
        let root = server.root();
        let cluster = root.get("sys/seal-status").text_at("/cluster_id");
        root.post("db/config/main", database.connection()).expect(204);
        for (name, mut role) in ROLES.iter().zip(database.definitions()) {
            role["db_name"] = json!("main");
            role["verify"] = json!(false);
            role["default_ttl"] = role.get("default_ttl").cloned().unwrap_or(json!("1h"));
            let answer = root.post(&format!("db/roles/{name}"), role);
            assert!(answer.status < 300, "{name}: {}", answer.text);
        }
        let random = SeededRandom::new(seed);
        Self { database, server, random, cluster, known: Mutex::default() }
    }

    /// Clients mint, renew and revoke until the server is gone; `meanwhile` takes it away, or waits
    /// until it goes by itself.
    fn load(&mut self, often: &'static str, meanwhile: impl FnOnce(&mut Server) -> bool) -> bool {
        let stop = AtomicBool::new(false);
        let root = self.server.root();
        let (known, server) = (&self.known, &mut self.server);
        let seeds: Vec<u64> = (0..CLIENTS).map(|_| self.random.next_u64()).collect();
        std::thread::scope(|scope| {
            for seed in seeds {
                let (root, stop) = (root.clone(), &stop);
                scope.spawn(move || {
                    let client = Caller { root, known, random: SeededRandom::new(seed), often };
                    while !stop.load(Ordering::SeqCst) && client.act().is_some() {}
                });
            }
            let done = meanwhile(server);
            stop.store(true, Ordering::SeqCst);
            done
        })
    }

    /// Has a login without a lease, and a lease without a login, for the next start to find.
    fn set_apart(&self) {
        let root = self.server.root();
        eventually("it opens by itself", PATIENCE, || {
            (root.get("sys/health").status == 200).then_some(())
        });
        let [back, gone] = ["plain", "plain"].map(|role| {
            let minted =
                || Some(root.get(&format!("db/creds/{role}"))).filter(|one| one.status == 200);
            Login::of(&eventually("a login", PATIENCE, minted))
        });
        let marker = self.database.marker(&back.user);
        root.put("sys/leases/revoke", json!({"lease_id": back.lease})).expect(204);
        self.database.drop_login(&gone.user);
        eventually("the login is gone", PATIENCE, || {
            (!self.database.has(&back.user)).then_some(())
        });
        self.database.make_again(&back.user, &marker);
    }

    /// Restarts, and waits until roles and leases agree with each other and with what is known.
    fn recover(&mut self, after: &str) {
        self.server.again();
        let root = self.server.root();
        eventually("it opens by itself", PATIENCE, || {
            (root.get("sys/health").status == 200).then_some(())
        });
        let watch = Stopwatch::start();
        while let Err(why) = self.compare(&root) {
            assert!(watch.elapsed() < PATIENCE, "after {after}: {why}");
            pass(Duration::from_millis(15));
        }
        let mut known = self.known.lock().unwrap();
        known.retain(|_, (_, fate)| *fate == Fate::Held);
        if known.len() > 40 {
            let (login, _) = known.values().next().unwrap();
            assert!(self.database.accepts(login), "after {after}: a living login is refused");
            root.put("sys/leases/revoke-prefix/db/creds", json!({})).expect(204);
            known.values_mut().for_each(|(_, fate)| *fate = Fate::Revoked);
        }
    }

    fn compare(&self, root: &Client) -> Result<(), String> {
        let mut leases = Vec::new();
        for role in ROLES {
            let folder = format!("db/creds/{role}/");
            let keys = root.list(&format!("sys/leases/lookup/{folder}")).keys();
            leases.extend(keys.into_iter().map(|key| format!("{folder}{key}")));
        }
        let roles = self.database.marked(&self.cluster);
        for (lease, (login, fate)) in self.known.lock().unwrap().iter() {
            let seen = (leases.contains(lease), roles.contains(&login.user));
            let right = match fate {
                Fate::Held => seen == (true, true),
                Fate::Ending => seen.0 == seen.1,
                Fate::Revoked => seen == (false, false),
            };
            if !right {
                return Err(format!("{lease} ({fate:?}): lease and role are there: {seen:?}"));
            }
        }
        if leases.len() != roles.len() {
            return Err(format!("{} leases and {} marked roles", leases.len(), roles.len()));
        }
        Ok(())
    }

    fn end(mut self) {
        self.server.kill9();
        self.recover("the end");
        let root = self.server.root();
        root.put("sys/leases/revoke-prefix/db/creds", json!({})).expect(204);
        eventually("all roles are gone", PATIENCE, || {
            self.database.marked(&self.cluster).is_empty().then_some(())
        });
    }
}

/// Where the ways of the two kinds of database part: fail-points in these are met on one of them.
const POSTGRES_ONLY: [&str; 4] =
    ["minter/src/mint.rs", "minter/src/ladder.rs", "minter/src/ladder/", "minter/src/confirm.rs"];
const MYSQL_ONLY: [&str; 1] = ["minter/src/mysql/"];

/// The names of all places where the program can be made to end, out of its sources, but for those in
/// some files.
fn failpoints(elsewhere: &[&str]) -> Vec<String> {
    fn read(folder: &Path, found: &mut Vec<(String, String)>) {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                read(&path, found);
            } else if path.extension().is_some_and(|end| end == "rs") {
                let text = std::fs::read_to_string(&path).unwrap();
                let names = text.split("failpoint::here(\"").skip(1);
                let names = names.filter_map(|rest| Some(rest.split_once('"')?.0.to_owned()));
                found.extend(names.map(|name| (name, path.display().to_string())));
            }
        }
    }
    let mut found = Vec::new();
    read(&Path::new(env!("CARGO_MANIFEST_DIR")).join("actors"), &mut found);
    let count = found.len();
    found.sort();
    found.dedup_by(|one, other| one.0 == other.0);
    assert_eq!(found.len(), count, "every fail-point has a name of its own");
    // Rotations have tests of their own, with loads of their own.
    found.retain(|(name, path)| {
        !name.starts_with("rotate.") && !elsewhere.iter().any(|file| path.contains(file))
    });
    assert!(found.len() > 50, "{found:?}");
    found.into_iter().map(|(name, _)| name).collect()
}

fn at_every_failpoint(database: Box<dyn Victim>, points: &[String], kills: u64, seed: u64) {
    const ABORTED: i32 = 6;
    let mut torture = Torture::begin(database, seed);
    let (mut done, kills) = (0, kills.max(points.len() as u64));
    for point in points.iter().cycle() {
        tell("kills at fail-points", done, kills, seed);
        if done >= kills {
            break;
        }
        torture.server.kill9();
        // What only a start does is met once in a start, and needs something to do.
        let starting = ["restore.", "fence.", "reconcile.", "restored.", "sweep.", "guard."]
            .iter()
            .any(|way| point.starts_with(way));
        let first = done < points.len() as u64 || starting;
        let number = if first { 1 } else { 1 + torture.random.below(5) };
        let finds = point.starts_with("fence.") || point == "restore.interrupted";
        if finds && torture.server.again_until("mint.after_lease") {
            torture.load("app", |server| ends(server) == Some(ABORTED));
        }
        if point.starts_with("reconcile.") {
            torture.server.again();
            torture.set_apart();
            torture.server.kill9();
        }
        let often = match point.as_str() {
            "revoke.before_failure" | "revoke.after_failure" => "moody",
            "renew.before_take_back" | "renew.after_take_back" => "stubborn",
            "confirm.before_look" | "confirm.after_look" => "again",
            "restored.before_confirmation" | "restored.after_confirmation" => CONFIRMS,
            _ => "app",
        };
        let restored = point.starts_with("restored.");
        torture.server.arguments = if restored { vec!["--restored"] } else { Vec::new() };
        if torture.server.again_until(&format!("{point}:{number}")) {
            let met = torture.load(often, |server| ends(server) == Some(ABORTED));
            assert!(met, "{point}:{number} was not met");
        }
        done += 1;
        torture.server.arguments.clear();
        torture.recover(point);
        if restored {
            let confirm = json!({"confirm": true});
            torture.server.root().post("sys/leases/reconcile", confirm).expect(200);
        }
    }
    torture.end();
}

/// The signal that ended a server, waited for.
fn ends(server: &mut Server) -> Option<i32> {
    let watch = Stopwatch::start();
    while watch.elapsed() < PATIENCE {
        if let Some(status) = server.ended() {
            return status.signal();
        }
        pass(Duration::from_millis(3));
    }
    None
}

fn at_random(database: Box<dyn Victim>, kills: u64, seed: u64) {
    let mut torture = Torture::begin(database, seed);
    for round in 0..kills {
        tell("kills at random moments", round, kills, seed);
        if round % 4 == 3 {
            // While it opens, with what the kill before left.
            let mut child = torture.server.spawn_unchecked();
            pass(Duration::from_millis(torture.random.below(150)));
            child.kill().unwrap();
            child.wait().unwrap();
        } else {
            let span = Duration::from_millis(torture.random.below(150));
            torture.load("app", |server| {
                pass(span);
                server.kill9();
                true
            });
        }
        if round % 4 != 2 || round + 1 == kills {
            torture.recover(&format!("kill {round}"));
        }
    }
    torture.end();
}

/// At all of them, on two servers side by side: most of a round is waiting.
fn at_all(points: &[String], kills: u64, victim: impl Fn() -> Box<dyn Victim> + Sync) {
    let (some, others) = points.split_at(points.len() / 2);
    std::thread::scope(|scope| {
        for (points, number) in [(some, 1), (others, 2)] {
            let (victim, seed) = (&victim, seed(number));
            scope.spawn(move || at_every_failpoint(victim(), points, kills, seed));
        }
    });
}

#[test]
fn killed_at_every_failpoint_no_role_is_without_a_lease_and_no_lease_without_a_role() {
    at_all(&failpoints(&MYSQL_ONLY), kills() * 3 / 10, || Kind::Postgres.shared());
}

#[test]
fn killed_at_random_no_role_is_without_a_lease_and_no_lease_without_a_role() {
    at_random(Kind::Postgres.shared(), kills() * 2 / 5, seed(3));
}

#[test]
fn killed_at_every_failpoint_no_mysql_login_is_without_a_lease_and_no_lease_without_a_login() {
    at_all(&failpoints(&POSTGRES_ONLY), kills() / 5, || Kind::MySql.private());
}

#[test]
fn killed_at_random_no_mysql_login_is_without_a_lease_and_no_lease_without_a_login() {
    at_random(Kind::MySql.private(), kills() / 5, seed(4));
}
