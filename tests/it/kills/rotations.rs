//! The real program is killed amid rotations, at every fail-point and at random moments: nobody is
//! ever locked out. One body for every kind of database.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use serde_json::{Value, json};

use crate::harness::{Client, Server, Stopwatch, eventually, stays};
use crate::rotation::{connection, mints};
use crate::victim::{Kind, Victim, on_each_kind};

const LATE: Duration = Duration::from_secs(20);

on_each_kind!(
    killed_mid_rotation_behind_a_sleep_of_two_seconds_nobody_is_locked_out,
    killed_at_any_moment_of_a_rotation_nobody_is_locked_out,
    killed_at_every_step_of_a_rotation_nobody_is_locked_out,
);

/// A server with a connection `main` whose user is the test's own, a role `app` on it, and a static
/// role `fixed` of another user, which the administrator changes.
struct Rotating {
    database: Box<dyn Victim>,
    server: Server,
    user: String,
}

impl Rotating {
    fn begin(kind: Kind, root_statements: &Value, fixed_statements: &Value) -> Self {
        let database = kind.shared();
        let server = Server::open();
        let root = server.root();
        let mut main = connection(database.as_ref()).1;
        main["root_rotation_statements"] = root_statements.clone();
        root.post("db/config/main", main).expect(204);
        root.post("db/roles/app", database.role("1h")).expect(204);
        root.post("db/config/super", database.connection()).expect(204);
        let user = format!("{}_static", database.name());
        database.make_user(&user);
        let fixed = json!({"db_name": "super", "username": user, "rotation_period": "24h",
            "rotation_statements": fixed_statements});
        root.post("db/static-roles/fixed", fixed).expect(204);
        Self { database, server, user }
    }

    fn again(&mut self) {
        self.server.again();
        self.server.unseal();
    }

    /// Whoever was locked out once would be so for ever.
    #[track_caller]
    fn nobody_is_locked_out(&self, after: &str) {
        let root = self.server.root();
        eventually(&format!("after {after} the server logs in"), LATE, || {
            mints(&root).then_some(())
        });
        eventually(&format!("after {after} what is handed out logs in"), LATE, || {
            let handed = root.get("db/static-creds/fixed");
            let right = handed.status == 200
                && self.database.logs_in(&self.user, &handed.text_at("/data/password"))
                && self.database.passwords(&self.user) == 1;
            right.then_some(())
        });
        settled(&root);
        root.post("db/reset/main", json!({})).expect(204);
        assert!(mints(&root), "locked out after {after} was settled");
    }
}

fn settled(root: &Client) {
    eventually("it is settled", LATE, || {
        let shown = root.get("db/config/main").expect(200);
        shown.json["data"].get("rotation_in_doubt").is_none().then_some(())
    });
}

fn killed_mid_rotation_behind_a_sleep_of_two_seconds_nobody_is_locked_out(kind: Kind) {
    let database = kind.shared();
    let mut server = Server::open();
    let root = server.root();
    let (_, mut connection) = connection(database.as_ref());
    connection["root_rotation_statements"] = json!([database.sleep(2.0), database.alter()]);
    root.post("db/config/main", connection).expect(204);
    root.post("db/roles/app", database.role("1h")).expect(204);
    std::thread::scope(|scope| {
        let client = root.clone();
        scope.spawn(move || client.try_send("POST", "db/rotate-root/main", &[], Some("{}")));
        eventually("it sleeps", LATE, || (database.sleepers() > 0).then_some(()));
        let since = Stopwatch::start();
        server.kill9();
        server.again();
        server.unseal();
        eventually("it mints, whichever password holds", LATE, || {
            mints(&server.root()).then_some(())
        });
        settled(&server.root());
        let rest = Duration::from_millis(2_500).saturating_sub(since.elapsed());
        stays("the password is known", rest, || {
            server.root().post("db/reset/main", json!({})).expect(204);
            mints(&server.root())
        });
    });
    let plain = json!({"root_rotation_statements": [database.alter()]});
    server.root().post("db/config/main", plain).expect(204);
    server.root().post("db/rotate-root/main", json!({})).expect(204);
    assert!(mints(&server.root()));
}

/// How often the server is killed: 6 times, or as often as `MSSM_TORTURE_ROTATIONS` says.
#[expect(clippy::disallowed_methods, reason = "how scripts/torture asks for the long form")]
fn kills() -> u32 {
    std::env::var("MSSM_TORTURE_ROTATIONS").ok().map_or(6, |text| text.parse().unwrap())
}

/// Rotates until the server is gone, and counts what came to its end.
fn rotate(client: &Client, path: &str, rotated: &AtomicU32) {
    while let Ok(answer) = client.try_send("POST", path, &[], Some("{}")) {
        match answer.status {
            204 => _ = rotated.fetch_add(1, Ordering::SeqCst),
            503 => {}
            _ => panic!("{path}: {}", answer.text),
        }
    }
}

fn killed_at_any_moment_of_a_rotation_nobody_is_locked_out(kind: Kind) {
    let (sleep, alter) = match kind {
        Kind::Postgres => ("SELECT pg_sleep(0.01)", "ALTER ROLE {{name}} PASSWORD '{{password}}'"),
        // From each host by itself, so that a kill finds one changed and the other not.
        Kind::MySql => ("DO SLEEP(0.01)", "ALTER USER '{{name}}'@'%' IDENTIFIED BY '{{password}}'"),
    };
    let here = "ALTER USER '{{name}}'@'127.0.0.1' IDENTIFIED BY '{{password}}'";
    // Longer than they would be, so that kills find them in every stage.
    let of_root = json!([sleep, alter, sleep]);
    let fixed = match kind {
        Kind::Postgres => of_root.clone(),
        Kind::MySql => json!([sleep, alter, sleep, here, sleep]),
    };
    let mut rotating = Rotating::begin(kind, &of_root, &fixed);
    for kill in 0..kills() {
        let rotated = AtomicU32::new(0);
        let root = rotating.server.root();
        std::thread::scope(|scope| {
            for path in ["db/rotate-root/main", "db/rotate-role/fixed"] {
                let (root, rotated) = (&root, &rotated);
                scope.spawn(move || rotate(root, path, rotated));
            }
            if kill % 2 == 0 {
                eventually("one comes to its end", LATE, || {
                    (rotated.load(Ordering::SeqCst) > 0).then_some(())
                });
            }
            // Spread over more than one rotation; where each ends is chance enough.
            let wait = Duration::from_millis(u64::from(kill * 37 % 200));
            let since = Stopwatch::start();
            eventually("the moment comes", Duration::from_secs(5), || {
                (since.elapsed() >= wait).then_some(())
            });
            rotating.server.kill9();
        });
        rotating.again();
        rotating.nobody_is_locked_out(&format!("kill {kill}"));
    }
    rotating.server.root().post("db/rotate-root/main", json!({})).expect(204);
}

/// The fail-points of rotations, as the sources name them.
fn failpoints() -> Vec<String> {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/actors/minter/src/rotation");
    let files = ["root.rs", "statics/change.rs"].map(|file| format!("{folder}/{file}"));
    let texts = files.map(|file| std::fs::read_to_string(file).unwrap()).concat();
    let names = texts.split("failpoint::here(\"").skip(1);
    names.map(|rest| rest.split_once('"').unwrap().0.to_owned()).collect()
}

fn killed_at_every_step_of_a_rotation_nobody_is_locked_out(kind: Kind) {
    let mut rotating = Rotating::begin(kind, &json!([]), &json!([]));
    let token = rotating.server.root_token.clone();
    let points = failpoints();
    assert!(points.len() >= 10, "{points:?}");
    for point in points {
        rotating.server.kill9();
        assert!(rotating.server.again_until(&point), "{point}");
        rotating.server.unseal();
        let root = rotating.server.client().with_token(&token);
        let over = Stopwatch::start();
        // Behind a kill it may be refused for a moment: until the sessions of the run before are gone.
        let ended = loop {
            for path in ["db/rotate-root/main", "db/rotate-role/fixed"] {
                if root.try_send("POST", path, &[], Some("{}")).is_err() {
                    break;
                }
            }
            if let Some(ended) = rotating.server.ended() {
                break ended;
            }
            assert!(over.elapsed() < LATE, "{point} was not met");
        };
        assert!(!ended.success(), "{point}");
        rotating.again();
        rotating.nobody_is_locked_out(&point);
    }
}
