//! Kills while somebody else has the advisory lock, and behind a pooler that shares sessions now and
//! then: what may not be made or renewed meanwhile leaves nothing, and what was there is ended.

use std::cell::RefCell;
use std::time::Duration;

use tokio_postgres::Client;

use super::{PATIENCE, Torture, kills, seed, tell};
use crate::harness::{Database, eventually, free_port, pass, skipped};
use crate::pooler::Pooler;

/// Whether a server may make and renew logins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    Free,
    Shut,
}

/// What a server's way to its database leads through.
enum Between {
    /// Nothing; another server with the same cluster id has the lock now and then.
    Rival(Option<Client>),
    Pooler(Option<Pooler>, u16),
}

/// A database whose way is not always free.
struct Hindered {
    database: Database,
    between: RefCell<Between>,
}

impl Hindered {
    fn by_a_rival() -> Self {
        let between = RefCell::new(Between::Rival(None));
        Self { database: Database::shared(), between }
    }

    fn by_a_pooler() -> Result<Self, String> {
        let (database, port) = (Database::shared(), free_port());
        let pooler = Pooler::start_at(&database, "session", port)?;
        let between = RefCell::new(Between::Pooler(Some(pooler), port));
        Ok(Self { database, between })
    }

    /// Ends the session that has the lock.
    fn end_holder(&self) {
        self.database.query(
            "SELECT pg_terminate_backend(l.pid)::text FROM pg_locks l \
             JOIN pg_database d ON d.oid = l.database AND d.datname = current_database() \
             WHERE l.locktype = 'advisory' AND l.objsubid = 1 AND l.granted",
        );
    }

    /// As a copy of the server would: takes the lock, and says so.
    fn rival(&self, cluster: &str) -> Client {
        let half: String = cluster.chars().filter(char::is_ascii_hexdigit).take(16).collect();
        let take = format!(
            "SET application_name = 'mssm:{half}:rival'; SET lock_timeout = '100ms'; \
             SELECT pg_advisory_lock(('x{half}')::bit(64)::bigint); SELECT 'mssm guard'"
        );
        // The server may have it again before the rival asks.
        eventually("the rival has the lock", PATIENCE, || {
            self.end_holder();
            self.database.hold(&take)
        })
    }

    /// Shuts the way, or opens it.
    fn hinder(&self, way: Way, cluster: &str) {
        match (&mut *self.between.borrow_mut(), way) {
            (Between::Rival(rival), Way::Shut) => *rival = Some(self.rival(cluster)),
            (Between::Rival(rival), Way::Free) => {
                *rival = None;
                self.end_holder();
            }
            (Between::Pooler(pooler, port), way) => {
                // The one before lets go of the port, and of all its sessions.
                drop(pooler.take());
                let mode = if way == Way::Shut { "transaction" } else { "session" };
                *pooler = Some(Pooler::start_at(&self.database, mode, *port).unwrap());
            }
        }
    }
}

/// In turns: the way is shut and opened again under load, or shut before a start and open again
/// before the next; a kill at a random moment each time.
fn at_random(hindered: &Hindered, what: &str, kills: u64, seed: u64) {
    let mut torture = Torture::begin(Box::new(hindered.database.again()), seed);
    if let Between::Pooler(Some(pooler), _) = &*hindered.between.borrow() {
        let mut connection = hindered.database.connection();
        connection["connection_url"] = pooler.url(&hindered.database).into();
        torture.server.root().post("db/config/main", connection).expect(204);
    }
    for round in 0..kills {
        tell(what, round, kills, seed);
        let spans = [0; 3].map(|_| Duration::from_millis(torture.random.below(120)));
        let cluster = torture.cluster.clone();
        if round % 2 == 1 {
            torture.server.kill9();
            hindered.hinder(Way::Shut, &cluster);
            torture.server.again();
        }
        torture.load("app", |server| {
            pass(spans[0]);
            if round % 2 == 0 {
                hindered.hinder(Way::Shut, &cluster);
                pass(spans[1]);
                if round % 4 == 0 {
                    hindered.hinder(Way::Free, &cluster);
                }
            }
            pass(spans[2]);
            server.kill9();
            true
        });
        hindered.hinder(Way::Free, &cluster);
        torture.recover(&format!("{what} {round}"));
    }
    tell(what, kills, kills, seed);
    torture.end();
}

#[test]
fn killed_while_another_server_has_the_lock_roles_and_leases_agree_when_it_has_let_go() {
    let kills = (super::kills() / 20).max(4);
    at_random(&Hindered::by_a_rival(), "kills beside a rival", kills, seed(5));
}

#[test]
fn killed_behind_a_pooler_that_shares_sessions_now_and_then_roles_and_leases_agree() {
    match Hindered::by_a_pooler() {
        Ok(database) => {
            let kills = (kills() / 20).max(4);
            at_random(&database, "kills behind a pooler", kills, seed(6));
        }
        Err(reason) => skipped(&reason),
    }
}
