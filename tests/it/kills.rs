//! The real program is killed at every fail-point and at random moments under load; after each
//! restart the roles in PostgreSQL and the leases are compared.

use std::collections::BTreeMap;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use mssm_testkit::SeededRandom;
use serde_json::{Value, json};

use crate::harness::{
    CREATE, Client, Database, Login, Options, Server, Stopwatch, eventually, pass,
};

/// Kills that both tests do together unless `MSSM_TORTURE_KILLS` says another number.
const KILLS: u64 = 200;
/// How long a fail-point may take to be reached, and leases to settle.
const PATIENCE: Duration = Duration::from_secs(30);
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
    database: Database,
    server: Server,
    random: SeededRandom,
    cluster: String,
    known: Mutex<BTreeMap<String, (Login, Fate)>>,
}

#[expect(clippy::disallowed_methods, reason = "how scripts/torture says how long")]
fn kills() -> u64 {
    std::env::var("MSSM_TORTURE_KILLS").ok().and_then(|text| text.parse().ok()).unwrap_or(KILLS)
}

impl Torture {
    fn begin(seed: u64) -> Self {
        let database = Database::shared();
        let seal = "kind = \"static\"\nkey_file = \"{folder}/root.key\"".to_owned();
        let files = vec![("root.key", "5a".repeat(32))];
        let mut server = Server::start(Options { seal, files, ..Options::default() });
        let founded = server.client().put("sys/init", json!({})).expect(200);
        server.root_token = founded.text_at("/root_token");
        let _ = server.client().put("sys/unseal", json!({}));
        let root = server.root();
        let cluster = root.get("sys/seal-status").text_at("/cluster_id");
        root.post("db/config/main", database.connection()).expect(204);
        let grant = "GRANT SELECT ON orders TO \"{{name}}\"";
        let fails = ["SELECT 1 / 0"];
        // Fails now and then: five times in a row, after which half a minute is waited, never.
        let end = "DROP OWNED BY \"{{name}}\"; DROP ROLE IF EXISTS \"{{name}}\"";
        let definitions = [
            json!({"creation_statements": [CREATE, grant]}),
            json!({"creation_statements": [CREATE]}),
            json!({"creation_statements": [CREATE, grant], "default_ttl": "1s"}),
            json!({"creation_statements": [CREATE], "renew_statements": fails}),
            json!({"creation_statements": [CREATE],
                "revocation_statements": ["SELECT 1 / (random() < 0.9)::int", end]}),
            json!({"creation_statements": [CREATE, "SELECT 1 / 0"]}),
            json!({"creation_statements": [CREATE], "reuse_window": "10m"}),
        ];
        for (name, mut role) in ROLES.iter().zip(definitions) {
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
        let marker = self.database.query(&format!(
            "SELECT shobj_description(oid, 'pg_authid') FROM pg_roles WHERE rolname = '{}'",
            back.user
        ));
        root.put("sys/leases/revoke", json!({"lease_id": back.lease})).expect(204);
        self.database.sql(&format!("DROP ROLE \"{}\"", gone.user));
        eventually("the login is gone", PATIENCE, || {
            (!self.database.has_role(&back.user)).then_some(())
        });
        self.database.sql(&format!(
            "CREATE ROLE \"{0}\" LOGIN; COMMENT ON ROLE \"{0}\" IS '{1}'",
            back.user, marker[0]
        ));
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
        let roles = self.database.marked_roles(&self.cluster);
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
            self.database.marked_roles(&self.cluster).is_empty().then_some(())
        });
    }
}

/// One client under load.
struct Caller<'a> {
    root: Client,
    known: &'a Mutex<BTreeMap<String, (Login, Fate)>>,
    random: SeededRandom,
    /// The role of most logins.
    often: &'static str,
}

impl Caller<'_> {
    /// Does one thing; `None` once the server is gone.
    fn act(&self) -> Option<()> {
        match self.random.below(12) {
            0..=3 if self.often == CONFIRMS => {
                self.send("POST", "sys/leases/reconcile", &json!({"confirm": true})).map(|_| ())
            }
            0..=3 => self.mint(self.often),
            4 => self.mint("plain"),
            5 => self.mint("brief"),
            6 => self.mint("broken"),
            7 | 8 => {
                let lease = self.pick()?;
                self.send("PUT", "sys/leases/renew", &json!({"lease_id": lease})).map(|_| ())
            }
            _ => self.revoke(),
        }
    }

    fn send(&self, verb: &str, path: &str, body: &Value) -> Option<crate::harness::Answer> {
        let body = (verb != "GET").then(|| body.to_string());
        self.root.try_send(verb, path, &[], body.as_deref()).ok()
    }

    fn mint(&self, role: &str) -> Option<()> {
        let answer = self.send("GET", &format!("db/creds/{role}"), &Value::Null)?;
        if answer.status == 200 {
            let login = Login::of(&answer);
            // Of what is handed out again its client may have asked for the end.
            let fate = if matches!(role, "brief" | "again") { Fate::Ending } else { Fate::Held };
            self.known.lock().unwrap().insert(login.lease.clone(), (login, fate));
        }
        Some(())
    }

    /// The lease of some login; one that does not exist if there is none.
    fn pick(&self) -> Option<String> {
        let known = self.known.lock().unwrap();
        let at = self.random.below(known.len().max(1) as u64);
        let lease = known.keys().nth(usize::try_from(at).ok()?).cloned();
        Some(lease.unwrap_or_else(|| "db/creds/app/none".to_owned()))
    }

    fn revoke(&self) -> Option<()> {
        let lease = self.pick()?;
        let set = |fate| {
            if let Some((_, known)) = self.known.lock().unwrap().get_mut(&lease)
                && *known != Fate::Revoked
            {
                *known = fate;
            }
        };
        set(Fate::Ending);
        let sync = self.random.below(2) == 0;
        let answer =
            self.send("PUT", "sys/leases/revoke", &json!({"lease_id": lease, "sync": sync}))?;
        if answer.status == 204 {
            set(Fate::Revoked);
        }
        Some(())
    }
}

/// The names of all places where the program can be made to end, out of its sources.
fn failpoints() -> Vec<String> {
    fn read(folder: &Path, found: &mut Vec<String>) {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                read(&path, found);
            } else if path.extension().is_some_and(|end| end == "rs") {
                let text = std::fs::read_to_string(&path).unwrap();
                let names = text.split("failpoint::here(\"").skip(1);
                found.extend(names.filter_map(|rest| Some(rest.split_once('"')?.0.to_owned())));
            }
        }
    }
    let mut found = Vec::new();
    read(&Path::new(env!("CARGO_MANIFEST_DIR")).join("actors"), &mut found);
    let count = found.len();
    found.sort();
    found.dedup();
    assert_eq!(found.len(), count, "every fail-point has a name of its own");
    // Rotations and MySQL have tests of their own, with loads of their own.
    found.retain(|name| !name.starts_with("rotate.") && !name.starts_with("mysql."));
    assert!(found.len() > 50, "{found:?}");
    found
}

fn at_every_failpoint(points: &[String], kills: u64, seed: u64) {
    const ABORTED: i32 = 6;
    let mut torture = Torture::begin(seed);
    let mut done = 0;
    for point in points.iter().cycle() {
        if done >= kills.max(points.len() as u64) {
            break;
        }
        torture.server.kill9();
        // What only a start does is met once in a start, and needs something to do.
        let starting = ["restore.", "fence.", "reconcile.", "restored.", "sweep.", "guard."]
            .iter()
            .any(|way| point.starts_with(way));
        let first = done < points.len() as u64 || starting;
        let number = if first { 1 } else { 1 + torture.random.below(5) };
        if point.starts_with("fence.") || point == "restore.interrupted" {
            if torture.server.again_until("mint.after_lease") {
                torture.load("app", |server| ends(server) == Some(ABORTED));
            }
            done += 1;
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

fn at_random(kills: u64, seed: u64) {
    let mut torture = Torture::begin(seed);
    for round in 0..kills {
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

#[test]
fn killed_at_every_failpoint_no_role_is_without_a_lease_and_no_lease_without_a_role() {
    let points = failpoints();
    let (some, others) = points.split_at(points.len() / 2);
    std::thread::scope(|scope| {
        // Most of a round is waiting: two servers go side by side.
        for (points, seed) in [(some, 1), (others, 2)] {
            scope.spawn(move || at_every_failpoint(points, kills() * 3 / 10, seed));
        }
    });
}

#[test]
fn killed_at_random_no_role_is_without_a_lease_and_no_lease_without_a_role() {
    at_random(kills() * 2 / 5, 3);
}
