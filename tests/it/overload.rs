//! More than can be served: who is refused, who is not, and what goes on whatever is refused.

use std::io::Write;
use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use serde_json::json;

use crate::catalogue_bounds::resident_kib;
use crate::harness::{
    Answer, CREATE, Client, Database, Login, Options, Raw, Server, Stopwatch, eventually,
};

const SOON: Duration = Duration::from_secs(20);

fn limited(limits: &str) -> Server {
    Server::ready(Options { more: format!("[limits]\n{limits}"), ..Options::default() })
}

/// Catalogue: CVE-2025-12044.
#[test]
fn strangers_are_turned_away_before_they_are_read_and_nobody_else_is() {
    let server = limited("strangers_per_second = 5");
    let root = server.root();
    root.get("sys/mounts").expect(200);
    let deep = format!("{{\"key\":{}}}", "[".repeat(50_000));
    let mut turned_away = 0;
    for client in [server.client(), server.client().with_token("s.nobody")] {
        for _ in 0..200 {
            let answer = client.send("POST", "secret/data/a", &[], Some(&deep));
            if answer.status == 429 {
                assert_eq!(answer.header("retry-after"), Some("1"));
                assert!(answer.errors().contains("rate limit quota exceeded"), "{}", answer.text);
                turned_away += 1;
            }
        }
    }
    assert!(turned_away > 200, "{turned_away}");
    // Nothing of it was written down, and who was known is served on the same address.
    assert!(server.audit_lines().len() < 400, "{}", server.audit_lines().len());
    for _ in 0..200 {
        root.get("sys/mounts").expect(200);
    }
    for path in ["sys/health", "sys/seal-status", "sys/leader"] {
        for _ in 0..100 {
            server.client().get(path).expect(200);
        }
    }
    let metrics = root.get("sys/metrics").expect(200).text;
    let counted = metrics.lines().any(|line| {
        line.strip_prefix("mssm_http_rate_limited_total ").is_some_and(|number| number != "0")
    });
    assert!(counted, "{metrics}");
}

#[test]
fn an_address_that_floods_unseals_all_the_same_and_a_flood_of_unsealing_is_bounded() {
    let server = limited("strangers_per_second = 1");
    server.root().put("sys/seal", json!({})).expect(204);
    let unsealed = AtomicBool::new(false);
    let watch = Stopwatch::start();
    let turned_away = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        // More connections than workers: each worker has its part of the flood.
        for _ in 0..16 {
            scope.spawn(|| {
                let client = server.client();
                while !unsealed.load(Ordering::Relaxed) && watch.elapsed() < SOON * 2 {
                    if client.get("secret/data/a").status == 429 {
                        turned_away.fetch_add(1, Ordering::Relaxed);
                    }
                }
            });
        }
        eventually("the flood is turned away", SOON, || {
            (turned_away.load(Ordering::Relaxed) > 500).then_some(())
        });
        let statuses: Vec<u16> = (server.shares.iter())
            .map(|share| server.client().put("sys/unseal", json!({ "key": share })).status)
            .collect();
        unsealed.store(true, Ordering::Relaxed);
        assert!(statuses.iter().all(|status| *status == 200), "{statuses:?}");
    });
    eventually("it is open, and known clients are told from strangers again", SOON, || {
        (server.root().get("sys/mounts").status == 200).then_some(())
    });
    let client = server.client();
    let flood = || (0..400).map(|_| client.put("sys/unseal", json!({ "key": "00" })).status);
    let watch = Stopwatch::start();
    let turned_away = flood().filter(|status| *status == 429).count();
    // From each worker a burst for unsealing and one for strangers, and six a second.
    let workers = std::thread::available_parallelism().unwrap().get();
    let seconds = usize::try_from(watch.elapsed().as_secs()).unwrap() + 1;
    let most = workers * (20 + 10 + 6 * seconds);
    assert!(turned_away + most >= 400, "{turned_away}");
}

#[test]
fn a_token_has_a_rate_where_one_is_set() {
    let server = limited("per_second_per_token = 10");
    let root = server.root();
    let other = server.with_new_token(json!({"policies": ["root"]}));
    let served = |client: &Client| {
        let mut statuses = (0..120).map(|_| client.get("sys/mounts").status);
        statuses.by_ref().take_while(|status| *status == 200).count()
    };
    assert!(served(&root) < 120);
    assert!(served(&other) > 15, "another token has a rate of its own");
    eventually("it is served again", SOON, || (root.get("sys/mounts").status == 200).then_some(()));
}

#[test]
fn while_logins_are_shed_access_is_ended_all_the_same() {
    let database = Database::shared();
    let server = limited("requests_in_flight = 1");
    let root = server.root();
    database.configure(&root, "db", "1h", "2h");
    let client = server.with_new_token(json!({"policies": ["root"], "ttl": "1h"}));
    let logins = [Login::mint(&root, "db/creds/app"), Login::mint(&root, "db/creds/app")];
    let slow = json!({
        "db_name": "main",
        "creation_statements": [CREATE, "SELECT pg_sleep(7)"],
        "verify": false,
    });
    root.post("db/roles/slow", slow).expect(200);
    std::thread::scope(|scope| {
        // As many as may be made at once where one request is worked on.
        let slow = [(); 4].map(|()| scope.spawn(|| root.get("db/creds/slow").status));
        eventually("the logins are being made", SOON, || {
            let sql = "SELECT query FROM pg_stat_activity WHERE query LIKE '%pg_sleep(7)%'";
            (database.query(sql).len() > slow.len()).then_some(())
        });
        let shed = scope.spawn(|| root.get("db/creds/app"));
        let watch = Stopwatch::start();
        let renew = json!({"lease_id": logins[0].lease, "increment": "90m"});
        root.put("sys/leases/renew", renew).expect(200);
        let revoke = json!({"lease_id": logins[1].lease, "sync": true});
        root.put("sys/leases/revoke", revoke).expect(204);
        client.post("auth/token/renew-self", json!({})).expect(200);
        root.get("secret/data/a").expect(404);
        root.post("secret/data/a", json!({"data": {"v": 1}})).expect(200);
        root.get("sys/health").expect(200);
        assert!(watch.elapsed() < Duration::from_secs(5), "{:?}", watch.elapsed());
        assert!(!database.has_role(&logins[1].user));
        let shed = shed.join().unwrap().refused(429, "too many requests in flight");
        assert_eq!(shed.header("retry-after"), Some("1"));
        for login in slow {
            assert_eq!(login.join().unwrap(), 200);
        }
    });
}

#[test]
fn leases_are_renewed_and_ended_amid_a_flood_from_the_same_address_and_none_is_lost() {
    let database = Database::shared();
    let server = limited("per_second_per_address = 10");
    let root = server.root();
    let let_in = |ask: &dyn Fn() -> Answer| {
        eventually("it is let in", SOON, || Some(ask()).filter(|answer| answer.status != 429))
    };
    database.configure(&root, "db", "1h", "2h");
    let mint = || Login::of(&let_in(&|| root.get("db/creds/app")).expect(200));
    let (renewed, revoked): ([Login; 6], [Login; 6]) =
        (std::array::from_fn(|_| mint()), std::array::from_fn(|_| mint()));
    let (done, count) = (AtomicBool::new(false), AtomicUsize::new(0));
    let turned_away = || count.load(Ordering::Relaxed);
    let watch = Stopwatch::start();
    let flood = || {
        let (client, mut handed) = (server.root(), Vec::new());
        while !done.load(Ordering::Relaxed) && watch.elapsed() < SOON * 3 {
            match client.get("db/creds/app") {
                answer if answer.status == 429 => _ = count.fetch_add(1, Ordering::Relaxed),
                answer => handed.push(Login::of(&answer.expect(200))),
            }
        }
        handed
    };
    let handed = std::thread::scope(|scope| {
        // More connections than workers: each worker has its part of the flood.
        let floods: Vec<_> = (0..8).map(|_| scope.spawn(flood)).collect();
        eventually("the flood is turned away", SOON, || (turned_away() > 500).then_some(()));
        for (kept, ended) in renewed.iter().zip(&revoked) {
            let before = turned_away();
            let renew = json!({"lease_id": kept.lease, "increment": "90m"});
            root.put("sys/leases/renew", renew).expect(200);
            let revoke = json!({"lease_id": ended.lease, "sync": true});
            root.put("sys/leases/revoke", revoke).expect(204);
            server.client().get("sys/health").expect(200);
            eventually("the flood goes on", SOON, || (turned_away() > before).then_some(()));
        }
        done.store(true, Ordering::Relaxed);
        floods.into_iter().flat_map(|flood| flood.join().unwrap()).collect::<Vec<_>>()
    });
    assert!(!handed.is_empty());
    // Each lease that was handed out is there, or was ended; and so is its login.
    let sorted = |mut names: Vec<String>| {
        names.sort();
        names
    };
    let living = || renewed.iter().chain(&handed);
    let ids = living().map(|login| login.lease.replace("db/creds/app/", ""));
    let listed = let_in(&|| root.list("sys/leases/lookup/db/creds/app")).expect(200).keys();
    assert_eq!(sorted(listed), sorted(ids.collect()));
    let cluster = server.client().get("sys/health").expect(200).text_at("/cluster_id");
    let users = living().map(|login| login.user.clone()).collect();
    assert_eq!(sorted(database.marked_roles(&cluster)), sorted(users));
    for ended in &revoked {
        let lookup = json!({"lease_id": ended.lease});
        let_in(&|| root.put("sys/leases/lookup", lookup.clone())).refused(400, "invalid lease");
    }
    assert!(renewed.iter().all(|login| database.accepts(login)));
}

#[test]
fn two_thousand_slow_connections_do_not_touch_good_ones() {
    let server = Server::open();
    let root = server.root();
    root.post("secret/data/a", json!({"data": {"v": 1}})).expect(200);
    let slowest = || {
        let each = (0..100).map(|_| {
            let watch = Stopwatch::start();
            root.get("secret/data/a").expect(200);
            watch.elapsed()
        });
        each.max().unwrap()
    };
    let quiet = slowest();
    let mut slow: Vec<TcpStream> =
        (0..2_000).map(|_| TcpStream::connect(("127.0.0.1", server.port())).unwrap()).collect();
    // Some say a little and then nothing, some speak TLS and never end their head.
    for stream in slow.iter_mut().step_by(3) {
        let _ = stream.write_all(&[0x16, 3, 1]);
    }
    let heads: Vec<_> = (0..40)
        .map(|_| {
            let mut raw = server.raw();
            raw.send(b"GET /v1/secret/data/a HTTP/1.1\r\nHost: x\r\nX-Slow: ").unwrap();
            raw
        })
        .collect();
    let crowded = slowest();
    let bound = Duration::from_millis(250).max(quiet * 4);
    assert!(crowded < bound, "{crowded:?}, and {quiet:?} without them");
    // New ones come through as well.
    for _ in 0..5 {
        let watch = Stopwatch::start();
        server.client().get("sys/health").expect(200);
        assert!(watch.elapsed() < Duration::from_secs(3), "{:?}", watch.elapsed());
    }
    drop((slow, heads));
}

/// Loopback has many addresses: one takes all the connections that it gets, another still gets one.
#[test]
fn an_address_that_takes_all_connections_it_gets_leaves_some_to_others() {
    let mut server = limited("connections_per_address = 20");
    let workers = std::thread::available_parallelism().unwrap().get();
    let held: Vec<TcpStream> =
        (0..20 * workers + 50).map(|_| Raw::socket(server.port(), "127.0.0.2")).collect();
    let closed = |stream: &TcpStream| {
        stream.set_nonblocking(true).unwrap();
        matches!(stream.peek(&mut [0]), Ok(0))
    };
    eventually("what is too much is closed at once", SOON, || {
        (held.iter().filter(|stream| closed(stream)).count() >= 50).then_some(())
    });
    server.root().get("sys/mounts").expect(200);
    // What it lets go it may have again.
    drop(held);
    let health = b"GET /v1/sys/health HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
    eventually("it is let in", SOON, || {
        let mut raw = server.raw_from("127.0.0.2");
        raw.send(health).ok()?;
        raw.read_to_end().starts_with(b"HTTP/1.1 200").then_some(())
    });
    server.stop();
    let told = server.audit_lines().into_iter().filter_map(|line| {
        line.pointer("/details/too_many_connections")?.as_str()?.parse::<usize>().ok()
    });
    assert!(told.sum::<usize>() >= 50, "and why is written down");
}

#[test]
fn answers_that_nobody_reads_are_bounded_and_keep_nobody_else_from_small_ones() {
    let limits = "[limits]\nbodies_in_flight_bytes = 4194304".to_owned();
    let server = Server::ready(Options { more: limits, ..Options::default() });
    let root = server.root();
    let large = json!({"data": {"key": "x".repeat(900_000)}});
    root.post("secret/data/large", large).expect(200);
    root.post("secret/data/small", json!({"data": {"key": "x"}})).expect(200);
    let head = format!(
        "GET /v1/secret/data/large HTTP/1.1\r\nHost: x\r\nX-Vault-Token: {}\r\n\r\n",
        server.root_token
    );
    let before = resident_kib(&server);
    let unread: Vec<Raw> = (0..12)
        .map(|_| {
            let mut raw = server.raw();
            raw.send(head.as_bytes()).unwrap();
            raw
        })
        .collect();
    eventually("all of the room is taken", SOON, || {
        (root.get("secret/data/large").status == 429).then_some(())
    });
    root.get("secret/data/large").refused(429, "too many answers wait for their readers");
    root.get("secret/data/small").expect(200);
    root.post("auth/token/create", json!({"ttl": "1m"})).expect(200);
    let grown = resident_kib(&server).saturating_sub(before);
    assert!(grown < 32 << 10, "{grown} KiB more");
    drop(unread);
    eventually("it is given back", SOON, || {
        (root.get("secret/data/large").status == 200).then_some(())
    });
}

/// A stranger who sends and never reads: each connection took 17 MB.
#[test]
fn what_is_sent_ahead_takes_little_and_is_answered_when_it_is_read() {
    let server = Server::open();
    let one = "GET /v1/sys/health HTTP/1.1\r\nHost: x\r\n\r\n";
    let before = resident_kib(&server);
    let unread: Vec<Raw> = (0..20)
        .map(|_| {
            let mut raw = server.raw();
            raw.send(one.repeat(8_000).as_bytes()).unwrap();
            raw.begun();
            raw
        })
        .collect();
    server.root().get("sys/mounts").expect(200);
    let grown = resident_kib(&server).saturating_sub(before);
    assert!(grown < 32 << 10, "{grown} KiB more");
    drop(unread);
    let mut reader = server.raw();
    let last = one.replace("Host", "Connection: close\r\nHost");
    reader.send(format!("{}{last}", one.repeat(3_000)).as_bytes()).unwrap();
    let answers = String::from_utf8(reader.read_to_end()).unwrap();
    assert_eq!(answers.matches("HTTP/1.1 200 OK").count(), 3_001);
}
