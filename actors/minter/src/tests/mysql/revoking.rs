//! Ending logins on a real MariaDB: what blocks, what comes late, and what must be spared.

use mssm_domain::{BootId, ClusterId};
use mssm_messages::engine::{EngineError, Outcome};
use mssm_messages::minter::RolePatch;
use mssm_testkit::{MariaDbSession, TestMariaDb};
use uuid::Uuid;

use super::{CREATE, rig};
use crate::spec::{Lane, application_name};
use crate::testing::Rig;

/// What a session of some run of some cluster holds.
async fn pose_as(
    server: &TestMariaDb,
    cluster: ClusterId,
    boot: BootId,
    slot: u32,
) -> MariaDbSession {
    let name = application_name(cluster, boot, Lane::Mint);
    let mut parts = name.split(':').skip(1);
    let (cluster, boot) = (parts.next().unwrap(), parts.next().unwrap());
    let mut session = server.admin().await;
    let boot = &boot[..16];
    let sql = format!(
        "SELECT GET_LOCK('mssm:{cluster}:{boot}:{slot}', 0), GET_LOCK('mssm:{cluster}:{slot}', 0)"
    );
    assert_eq!(session.run(&sql).await, [["1", "1"]]);
    session
}

fn earlier() -> BootId {
    BootId::from_uuid(Uuid::from_u128(77 << 64))
}

#[actix_rt::test]
async fn a_mint_of_an_earlier_run_cannot_come_through_behind_a_revocation() {
    let server = TestMariaDb::private();
    let (rig, _) = rig(&server).await;
    rig.role("app", &[CREATE]).await.unwrap();
    let login = Rig::doubtful(rig.prepare("app").await.unwrap(), rig.lease());
    let mut late = pose_as(&server, rig.cluster, earlier(), 200).await;
    let mut holder = server.admin().await;
    holder.run("FLUSH TABLES WITH READ LOCK").await;
    let sql = format!("CREATE USER '{}'@'%' IDENTIFIED BY 'x'", login.username);
    let minting = actix_rt::spawn(async move { late.try_run(&sql).await.is_ok() });
    let waits = "SELECT ID FROM information_schema.PROCESSLIST WHERE INFO LIKE 'CREATE USER%'";
    while holder.run(waits).await.is_empty() {
        tokio::task::yield_now().await;
    }
    let outcomes = rig.revoke_all(&[&login], Some(earlier())).await.unwrap();
    assert_eq!(outcomes, [Outcome::Gone]);
    holder.run("UNLOCK TABLES").await;
    assert!(!minting.await.unwrap(), "the late mint was ended");
    assert!(!server.user_exists(&login.username).await);
}

#[actix_rt::test]
async fn a_fence_ends_no_session_of_its_own_run_and_of_no_other_cluster() {
    let server = TestMariaDb::shared();
    let (rig, _) = rig(server).await;
    rig.role("app", &[CREATE]).await.unwrap();
    let other = ClusterId::from_uuid(Uuid::from_u128(1 << 120));
    let mut sessions = vec![
        pose_as(server, rig.cluster, rig.boot, 201).await,
        pose_as(server, other, earlier(), 202).await,
        server.admin().await,
    ];
    let login = Rig::doubtful(rig.prepare("app").await.unwrap(), rig.lease());
    let outcomes = rig.revoke_all(&[&login], Some(earlier())).await.unwrap();
    assert_eq!(outcomes, [Outcome::Gone]);
    for session in &mut sessions {
        assert!(session.try_run("SELECT 1").await.is_ok());
    }
}

#[actix_rt::test]
async fn a_mint_whose_session_dies_is_in_doubt_and_is_taken_down() {
    let server = TestMariaDb::private();
    let (rig, _) = rig(&server).await;
    rig.role("app", &[CREATE]).await.unwrap();
    let prepared = rig.prepare("app").await.unwrap();
    let lease = rig.lease();
    let mut admin = server.admin().await;
    admin.run("FLUSH TABLES WITH READ LOCK").await;
    let ending = async {
        let waits = "SELECT ID FROM information_schema.PROCESSLIST WHERE INFO LIKE 'CREATE USER%'";
        loop {
            if let Some(row) = admin.run(waits).await.first() {
                admin.run(&format!("KILL {}", row[0])).await;
                break;
            }
            tokio::task::yield_now().await;
        }
        admin.run("UNLOCK TABLES").await;
    };
    let (made, ()) = futures_util::future::join(rig.create(&prepared, &lease), ending).await;
    let error = made.unwrap_err();
    assert!(error.in_doubt && matches!(error.error, EngineError::Unavailable(_)), "{error}");
    let login = Rig::doubtful(prepared, lease);
    let outcomes = rig.revoke_all(&[&login], Some(rig.boot)).await.unwrap();
    assert_eq!(outcomes, [Outcome::Gone]);
    assert!(!server.user_exists(&login.username).await);
}

#[actix_rt::test]
async fn a_login_that_holds_the_servers_tables_is_barred_all_the_same() {
    let server = TestMariaDb::private();
    let (rig, _) = rig(&server).await;
    let patch = RolePatch {
        creation_statements: Some(
            [CREATE, "GRANT RELOAD ON *.* TO '{{name}}'@'%'"].map(str::to_owned).to_vec(),
        ),
        allow_privileged: Some(true),
        ..RolePatch::default()
    };
    rig.role_with("app", patch).await.unwrap();
    let (login, other) = (rig.mint("app").await.unwrap(), rig.mint("app").await.unwrap());
    let mut session = server.connect(&login.username, &login.password).await.unwrap();
    session.run("FLUSH TABLES WITH READ LOCK").await;
    let outcomes = rig.revoke_all(&[&login, &other], None).await.unwrap();
    assert_eq!(outcomes, [Outcome::Gone, Outcome::Gone]);
    assert!(session.try_run("SELECT 1").await.is_err());
    for login in [login, other] {
        assert!(!server.user_exists(&login.username).await);
    }
}

#[actix_rt::test]
async fn a_login_that_reads_the_tables_of_users_holds_up_no_others_end() {
    let server = TestMariaDb::private();
    let (rig, _) = rig(&server).await;
    rig.role("app", &[CREATE]).await.unwrap();
    rig.role("reader", &[CREATE, "GRANT SELECT ON *.* TO '{{name}}'@'%'"]).await.unwrap();
    let logins = [rig.mint("app").await.unwrap(), rig.mint("app").await.unwrap()];
    let reader = rig.mint("reader").await.unwrap();
    let mut admin = server.admin().await;
    for (login, minting) in logins.iter().zip([false, true]) {
        let mut session = server.connect(&reader.username, &reader.password).await.unwrap();
        let reading = actix_rt::spawn(async move {
            let _ = session.try_run("SELECT SLEEP(1000) FROM mysql.global_priv").await;
            session
        });
        let in_state = |state: &str| {
            format!("SELECT ID FROM information_schema.PROCESSLIST WHERE STATE = '{state}'")
        };
        while admin.run(&in_state("User sleep")).await.is_empty() {
            tokio::task::yield_now().await;
        }
        // Behind somebody who waits to write, not even a look comes through.
        let mint = async { if minting { Some(rig.mint("app").await.unwrap()) } else { None } };
        let revoke = async {
            while minting && admin.run(&in_state("Waiting for table level lock")).await.is_empty() {
                tokio::task::yield_now().await;
            }
            assert_eq!(rig.revoke(login).await, Outcome::Gone);
        };
        tokio::join!(mint, revoke);
        reading.await.unwrap().run("SELECT 1").await;
    }
    assert_eq!(rig.revoke(&reader).await, Outcome::Gone);
}

/// A reader of high priority passes those who wait to write.
#[actix_rt::test]
async fn a_login_that_reads_the_tables_of_users_again_and_again_holds_up_no_others_end() {
    let server = TestMariaDb::private();
    let (rig, _) = rig(&server).await;
    rig.role("app", &[CREATE]).await.unwrap();
    rig.role("reader", &[CREATE, "GRANT SELECT ON *.* TO '{{name}}'@'%'"]).await.unwrap();
    let (login, reader) = (rig.mint("app").await.unwrap(), rig.mint("reader").await.unwrap());
    // Each takes another time, so that there is always one.
    let reading = (0..8).map(async |number| {
        while let Ok(mut session) = server.connect(&reader.username, &reader.password).await {
            let read = format!(
                "SELECT HIGH_PRIORITY SLEEP(0.4 + 0.04 * {number}) FROM mysql.global_priv LIMIT 1"
            );
            while session.try_run(&read).await.is_ok() {}
        }
    });
    let mut admin = server.admin().await;
    let ending = async {
        let reads = "SELECT ID FROM information_schema.PROCESSLIST WHERE STATE = 'User sleep'";
        while admin.run(reads).await.len() < 8 {
            tokio::task::yield_now().await;
        }
        for login in [&login, &reader] {
            // It is a race: what is lost of it is run again.
            let mut outcome = rig.revoke(login).await;
            for _ in 0..2 {
                if outcome != Outcome::Gone {
                    outcome = rig.revoke(login).await;
                }
            }
            assert_eq!(outcome, Outcome::Gone);
        }
    };
    tokio::join!(futures_util::future::join_all(reading), ending);
}

#[actix_rt::test]
async fn whoever_logs_in_again_and_again_is_out_when_its_login_is_gone() {
    let server = TestMariaDb::shared();
    let (rig, _) = rig(server).await;
    rig.role("app", &[CREATE]).await.unwrap();
    let mut admin = server.admin().await;
    for _ in 0..5 {
        let login = rig.mint("app").await.unwrap();
        let hammers: Vec<_> = (0..6)
            .map(|_| {
                let (user, password) = (login.username.clone(), login.password.clone());
                actix_rt::spawn(async move {
                    let mut sessions = Vec::new();
                    while let Ok(session) = server.connect(&user, &password).await {
                        // Some leave and some stay.
                        sessions.push(session);
                        sessions.truncate(1);
                    }
                    sessions
                })
            })
            .collect();
        let of_login = format!(
            "SELECT ID FROM information_schema.PROCESSLIST WHERE USER = '{}'",
            login.username
        );
        while admin.run(&of_login).await.len() < 3 {
            tokio::task::yield_now().await;
        }
        assert_eq!(rig.revoke(&login).await, Outcome::Gone);
        assert!(admin.run(&of_login).await.is_empty(), "none is left");
        for hammer in hammers {
            for mut session in hammer.await.unwrap() {
                assert!(session.try_run("SELECT 1").await.is_err());
            }
        }
    }
}

#[actix_rt::test]
async fn what_a_role_says_of_an_end_is_done_after_access_has_ended_and_told_if_it_fails() {
    let server = TestMariaDb::shared();
    let (rig, database) = rig(server).await;
    let patch = |statement: String| RolePatch {
        creation_statements: Some(vec![CREATE.to_owned()]),
        revocation_statements: Some(vec![statement]),
        ..RolePatch::default()
    };
    let note = format!("INSERT INTO {database}.ended VALUES ('{{{{name}}}}')");
    rig.role_with("app", patch(note)).await.unwrap();
    let login = rig.mint("app").await.unwrap();
    let mut session = server.connect(&login.username, &login.password).await.unwrap();
    let first = rig.end(&[&login], None, true).await.unwrap();
    assert_eq!(first, [Outcome::Unfinished], "nobody else waits for the statements");
    assert!(session.try_run("SELECT 1").await.is_err());
    match rig.revoke(&login).await {
        Outcome::AccessEnded(why) => {
            assert!(why.starts_with("revocation_statements: statement 1: "), "{why}");
        }
        other => panic!("{other:?}"),
    }
    assert!(session.try_run("SELECT 1").await.is_err());
    assert!(server.connect(&login.username, &login.password).await.is_err());
    let mut admin = server.admin().await;
    admin.run(&format!("CREATE TABLE {database}.ended (name text)")).await;
    assert_eq!(rig.revoke(&login).await, Outcome::Gone);
    let ended = admin.run(&format!("SELECT name FROM {database}.ended")).await;
    assert_eq!(ended, [[login.username.clone()]]);
    assert!(!server.user_exists(&login.username).await);
}

#[actix_rt::test]
async fn where_another_server_of_the_cluster_is_at_work_nothing_is_made_or_ended() {
    let server = TestMariaDb::shared();
    let (rig, _) = rig(server).await;
    rig.role("app", &[CREATE]).await.unwrap();
    let mut other = pose_as(server, rig.cluster, earlier(), 203).await;
    let prefix = crate::spec::cluster_prefix(rig.cluster);
    other.run(&format!("SELECT GET_LOCK('{prefix}guard', 0)")).await;
    let error = rig.mint("app").await.err().unwrap();
    assert!(!error.in_doubt && error.to_string().contains("another server"), "{error}");
    let login = Rig::doubtful(rig.prepare("app").await.unwrap(), rig.lease());
    let error = rig.revoke_all(&[&login], Some(earlier())).await.unwrap_err();
    assert!(error.to_string().contains("another server"), "{error}");
    assert!(other.try_run("SELECT 1").await.is_ok(), "its sessions are spared");
    drop(other);
    // Believed for two seconds more.
    let login = loop {
        match rig.mint("app").await {
            Ok(login) => break login,
            Err(_) => tokio::task::yield_now().await,
        }
    };
    assert_eq!(rig.revoke(&login).await, Outcome::Gone);
}

/// Anybody may take a lock of any name, and our names of locks are no secret.
#[actix_rt::test]
async fn a_login_that_takes_our_locks_keeps_nobody_from_ending_it() {
    let server = TestMariaDb::shared();
    let (rig, _) = rig(server).await;
    rig.role("app", &[CREATE]).await.unwrap();
    let [login, posing] = [rig.mint("app").await.unwrap(), rig.mint("app").await.unwrap()];
    let mut next = Rig::real_over(rig.seed + 1, &rig.store.copy());
    next.cluster = rig.cluster;
    let prefix = crate::spec::cluster_prefix(rig.cluster);
    // It waits for them: the server that had them goes away, and the next one finds them taken.
    let slots: Vec<String> = (0..256).map(|slot| slot.to_string()).collect();
    let mut sessions = Vec::new();
    for _ in 0..2 {
        sessions.push(server.connect(&posing.username, &posing.password).await.unwrap());
    }
    let names = [vec!["guard".to_owned()], slots];
    let taking = sessions.iter_mut().zip(names).map(async |(session, names)| {
        let take = names.iter().map(|name| format!("GET_LOCK('{prefix}{name}', 20)"));
        let take = format!("SELECT {}", take.collect::<Vec<_>>().join(" + "));
        assert_eq!(session.run(&take).await, [[names.len().to_string()]]);
    });
    tokio::join!(futures_util::future::join_all(taking), rig.close());
    let next = next.open().await;
    let outcomes = next.revoke_all(&[&login], None).await.unwrap();
    assert_eq!(outcomes, [Outcome::Gone]);
    for session in &mut sessions {
        assert!(session.try_run("SELECT 1").await.is_err(), "who posed as a server is out");
    }
    assert_eq!(next.revoke_all(&[&posing], None).await.unwrap(), [Outcome::Gone]);
}

#[actix_rt::test]
async fn a_server_that_only_follows_proves_nothing() {
    let server = TestMariaDb::private();
    let (rig, _) = rig(&server).await;
    rig.role("app", &[CREATE]).await.unwrap();
    let login = rig.mint("app").await.unwrap();
    let mut admin = server.admin().await;
    admin.run("SET GLOBAL read_only = 1").await;
    match rig.revoke(&login).await {
        Outcome::Failed(why) => assert!(why.contains("only follows"), "{why}"),
        other => panic!("{other:?}"),
    }
    admin.run("SET GLOBAL read_only = 0").await;
    assert_eq!(rig.revoke(&login).await, Outcome::Gone);
}
