//! Passwords that change on a real MariaDB: of connections, and of users that stay.

use std::time::Duration;

use mssm_domain::SecretText;
use mssm_messages::minter::ConnectionPatch;
use mssm_testkit::{MariaDbSession, MemoryStore, TestMariaDb};

use super::super::rotation::statements;
use super::super::statics::fixed;
use super::{CREATE, patch};
use crate::testing::Rig;

const FIRST: &str = "first";
const RIGHTS: &str = "ALL PRIVILEGES ON *.*";

/// A server, and a user of it whose password is to change.
struct Place<'a> {
    server: &'a TestMariaDb,
    admin: MariaDbSession,
    user: String,
}

impl Place<'static> {
    async fn new() -> Self {
        Self::on(TestMariaDb::shared()).await
    }
}

impl<'a> Place<'a> {
    async fn on(server: &'a TestMariaDb) -> Self {
        let user = format!("{}_user", server.fresh_database().await);
        let mut admin = server.admin().await;
        for host in ["%", "127.0.0.1"] {
            let grant = format!("GRANT {RIGHTS} TO '{user}'@'{host}' IDENTIFIED BY '{FIRST}'");
            admin.run(&format!("{grant} WITH GRANT OPTION")).await;
        }
        Self { server, admin, user }
    }

    async fn accepts(&self, password: &str) -> bool {
        self.server.connect(&self.user, password).await.is_ok()
    }

    fn as_user(&self) -> ConnectionPatch {
        ConnectionPatch {
            username: Some(self.user.clone()),
            password: Some(SecretText::new(FIRST.to_owned())),
            ..patch(self.server)
        }
    }

    async fn rig_over(&self, store: &MemoryStore) -> Rig {
        let seed = u64::from_str_radix(&self.user[1..17], 16).unwrap();
        let seed = seed.wrapping_add(store.commits());
        Rig::real_over(seed, store).open().await
    }

    async fn rig(&self, patch: ConnectionPatch) -> Rig {
        let rig = self.rig_over(&MemoryStore::new()).await;
        rig.connect(patch).await.unwrap();
        rig.role("app", &[CREATE]).await.unwrap();
        rig
    }
}

#[actix_rt::test]
async fn a_root_password_changes_and_the_server_goes_on() {
    let place = Place::new().await;
    let rig = place.rig(place.as_user()).await;
    for _ in 0..3 {
        rig.rotate_root().await.unwrap();
        assert!(!place.accepts(FIRST).await);
        rig.mint("app").await.unwrap();
    }
    let next = place.rig_over(&rig.store).await;
    next.mint("app").await.unwrap();
    next.rotate_root().await.unwrap();
    next.mint("app").await.unwrap();
}

#[actix_rt::test]
async fn statements_of_ones_own_are_settled_by_who_logs_in() {
    let place = Place::new().await;
    let rig = place.rig(place.as_user()).await;
    let (host, nobody) = ("127.0.0.1", "'nobody'@'nowhere'");
    let set = |account: &str| format!("ALTER USER {account} IDENTIFIED BY '{{{{password}}}}'");
    let own = set(&format!("'{}'@'{host}'", place.user));
    // The second fails when the first is done: the new password holds, and nobody is locked out.
    rig.connect(statements(&[&own, &set(nobody)])).await.unwrap();
    rig.rotate_root().await.unwrap();
    assert!(!rig.in_doubt().await);
    rig.mint("app").await.unwrap();
    // The first fails: the old one holds.
    rig.connect(statements(&[&set(nobody), &own])).await.unwrap();
    let error = rig.rotate_root().await.unwrap_err().to_string();
    assert!(error.contains("ALTER USER"), "{error}");
    assert!(!rig.in_doubt().await);
    rig.mint("app").await.unwrap();
}

#[actix_rt::test]
async fn a_root_password_in_doubt_locks_nobody_out() {
    let server = TestMariaDb::private();
    let place = Place::on(&server).await;
    let rig = place.rig(place.as_user()).await;
    let mut admin = server.admin().await;
    admin.run("FLUSH TABLES WITH READ LOCK").await;
    // The session that was told is ended before it could do anything, and then ours are again.
    let waits = "SELECT ID FROM information_schema.PROCESSLIST WHERE INFO LIKE 'ALTER USER%'";
    let ending = async {
        loop {
            if let Some(row) = admin.run(waits).await.first() {
                admin.run(&format!("KILL {}", row[0])).await;
                break;
            }
            tokio::task::yield_now().await;
        }
    };
    let (rotated, ()) = futures_util::future::join(rig.rotate_root(), ending).await;
    assert!(rotated.is_err());
    assert!(!rig.in_doubt().await, "settled: that session is gone, and the old password holds");
    assert!(place.accepts(FIRST).await);
    admin.run("UNLOCK TABLES").await;
    rig.mint("app").await.unwrap();
    rig.rotate_root().await.unwrap();
    assert!(!place.accepts(FIRST).await);
    rig.mint("app").await.unwrap();
}

#[actix_rt::test]
async fn a_static_role_has_its_password_changed_wherever_the_user_comes_from() {
    let mut place = Place::new().await;
    let rig = place.rig(patch(place.server)).await;
    rig.fixed(fixed(&[&place.user])).await.unwrap();
    assert!(!place.accepts(FIRST).await, "changed at once");
    let first = rig.credentials().await.unwrap();
    assert_eq!((first.username.as_str(), first.ttl_secs), (place.user.as_str(), 3600));
    assert!(place.accepts(first.password.expose()).await);
    rig.rotate_fixed(false).await.unwrap();
    let second = rig.credentials().await.unwrap();
    assert!(!place.accepts(first.password.expose()).await);
    assert!(place.accepts(second.password.expose()).await);
    let hashes = format!("SELECT DISTINCT Password FROM mysql.user WHERE User = '{}'", place.user);
    assert_eq!(place.admin.run(&hashes).await.len(), 1, "from every host the same");
    let next = place.rig_over(&rig.store).await;
    next.clock.advance(Duration::from_hours(1));
    while place.accepts(second.password.expose()).await {
        next.tick().await;
    }
    let third = next.credentials().await.unwrap();
    assert!(place.accepts(third.password.expose()).await);
    if let Some(log) = place.server.log() {
        assert!(!log.contains(third.password.expose()), "a hash was sent");
    }
}

#[actix_rt::test]
async fn of_a_pair_the_one_that_rests_keeps_its_password() {
    let (blue, green) = (Place::new().await, Place::new().await);
    let rig = blue.rig(patch(blue.server)).await;
    rig.fixed(fixed(&[&blue.user, &green.user])).await.unwrap();
    let first = rig.credentials().await.unwrap();
    rig.rotate_fixed(true).await.unwrap();
    let second = rig.credentials().await.unwrap();
    assert_ne!(first.username, second.username);
    assert!(blue.accepts(first.password.expose()).await);
    assert!(green.accepts(second.password.expose()).await);
}

#[actix_rt::test]
async fn static_roles_of_nobody_and_of_the_connections_user_are_refused() {
    let place = Place::new().await;
    let rig = place.rig(place.as_user()).await;
    let login = rig.mint("app").await.unwrap();
    let refused = |user: String| {
        let rig = &rig;
        async move { rig.fixed(fixed(&[&user])).await.unwrap_err().to_string() }
    };
    assert!(refused(place.user.clone()).await.contains("connection's own user"));
    assert!(refused("no such user".to_owned()).await.contains("has no user"));
    assert!(refused(login.username).await.contains("made for a lease"));
}
