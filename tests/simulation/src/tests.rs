//! Many seeds, one seed twice, and planted faults that must be found.

use std::sync::atomic::{AtomicU64, Ordering};

use mssm_domain::LeaseId;
use mssm_messages::access;
use mssm_messages::failpoint::{Fault, plant};
use mssm_messages::lease::{LeaseError, Lookup};

use crate::model::Kind;
use crate::run::{Run, run};

/// Seeds that the tests run on PostgreSQL, twice as many as on MySQL, unless `MSSM_SIMULATE_SEEDS` says another number.
const SEEDS: u64 = 1_000;

#[expect(clippy::disallowed_methods, reason = "how scripts/simulate says what to run")]
fn setting(name: &str, otherwise: u64) -> u64 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(otherwise)
}

/// One seed in a system of its own, whose time is paused.
fn simulate(kind: Kind, seed: u64, fault: Option<Fault>) -> Result<Vec<String>, String> {
    actix_rt::System::new().block_on(async move {
        tokio::time::pause();
        plant(fault);
        let told = run(kind, seed).await;
        plant(None);
        told
    })
}

fn found(kind: Kind, fault: Fault, invariants: &[&str]) {
    let violation = (0..500).find_map(|seed| simulate(kind, seed, Some(fault)).err());
    let violation = violation.expect("the fault is found");
    let first = violation.lines().next().unwrap_or_default();
    assert!(invariants.iter().any(|one| first.contains(one)), "{violation}");
    // The seed alone brings it back.
    let seed = first.strip_prefix("seed ").and_then(|rest| rest.split_once(':')).unwrap().0;
    let again = simulate(kind, seed.parse().unwrap(), Some(fault)).unwrap_err();
    assert_eq!(again, violation);
}

fn no_seed_breaks(kind: Kind, otherwise: u64) {
    let first = setting("MSSM_SIMULATE_SEED", 0);
    let seeds = setting("MSSM_SIMULATE_SEEDS", otherwise);
    let next = AtomicU64::new(first);
    let handed_out = AtomicU64::new(0);
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(2, usize::from) {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::SeqCst);
                    if seed >= first + seeds {
                        break;
                    }
                    match simulate(kind, seed, None) {
                        Ok(trace) => handed_out.fetch_add(logins(&trace), Ordering::SeqCst),
                        Err(violation) => {
                            panic!("{violation}\nreplay: scripts/simulate 1 --seed {seed}")
                        }
                    };
                }
            });
        }
    });
    let handed_out = handed_out.into_inner();
    eprintln!(
        "{kind:?}: {seeds} seeds from {first}, {handed_out} logins handed out: nothing found"
    );
    assert!(handed_out > 5 * seeds || seeds < 100, "little was tried");
}

#[test]
fn no_seed_breaks_an_invariant() {
    no_seed_breaks(Kind::Postgres, SEEDS);
}

#[test]
fn no_seed_breaks_an_invariant_on_mysql() {
    no_seed_breaks(Kind::MySql, SEEDS / 2);
}

/// How many logins were handed out in a run.
fn logins(trace: &[String]) -> u64 {
    let told = trace.iter().find_map(|line| line.split_once("handed out: "));
    told.and_then(|(_, count)| count.parse().ok()).unwrap_or(0)
}

#[test]
fn the_same_seed_is_the_same_run() {
    for kind in [Kind::Postgres, Kind::MySql] {
        for seed in 0..20 {
            assert_eq!(simulate(kind, seed, None), simulate(kind, seed, None));
        }
    }
}

#[test]
fn a_credential_made_before_its_lease_is_found() {
    found(Kind::Postgres, Fault::CredentialFirst, &["1: "]);
    found(Kind::MySql, Fault::CredentialFirst, &["1: "]);
}

#[test]
fn a_login_dropped_while_its_sessions_go_on_is_found() {
    // On MySQL the sweep would find them by their names.
    found(Kind::Postgres, Fault::SessionsLeft, &["3: "]);
}

#[test]
fn a_mysql_login_that_is_not_taken_back_when_a_later_statement_fails_is_found() {
    found(Kind::MySql, Fault::NotUndone, &["1: "]);
}

#[test]
fn a_revocation_given_up_is_found() {
    // Where the server was started again meanwhile, its login has been ended by the comparison with
    // the leases; the lease that nobody tries is there all the same.
    found(Kind::Postgres, Fault::GivenUp, &["1: ", "3: "]);
    found(Kind::MySql, Fault::GivenUp, &["1: ", "3: "]);
}

/// Sealed, nothing is answered but that.
async fn sealed_answers_nothing(seed: u64) {
    let run = Run::begin(Kind::Postgres, seed).await;
    run.boot.seal().await;
    let lease = LeaseId::parse("db/creds/app/0123456789abcdefghijABCD").unwrap();
    let answer = run.boot.lease.send(Lookup { lease }).await.unwrap();
    assert_eq!(answer.unwrap_err(), LeaseError::Sealed);
    assert!(run.boot.barrier.exists(&access::token_record(run.token)).await.is_err());
    run.boot.kill();
}

#[test]
fn sealed_nothing_is_answered() {
    actix_rt::System::new().block_on(async {
        tokio::time::pause();
        sealed_answers_nothing(1).await;
    });
}
