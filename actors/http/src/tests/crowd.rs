//! What a crowd of large bodies leaves for others.

use std::time::Duration;

use actix_web::FromRequest;
use actix_web::test::TestRequest;
use actix_web::web::Payload;
use tokio::time::sleep;

use super::world::World;
use crate::limits::{Limits, Reservation, SMALL};
use crate::turns::Class;

/// Takes so much of what all bodies may take together.
async fn taken(world: &World, bytes: usize) -> Reservation {
    let (request, mut payload) =
        TestRequest::default().set_payload(vec![b' '; bytes]).to_http_parts();
    let payload = Payload::from_request(&request, &mut payload).await.unwrap();
    world.worker.gate.read(None, usize::MAX, payload).await.unwrap().1
}

#[actix_web::test]
async fn who_waits_has_its_body_and_who_is_refused_slowly_has_none() {
    tokio::time::pause();
    let world = World::within(Limits { requests: 1, ..Limits::default() });
    let gate = &world.worker.gate;
    let _turn = gate.turn(Class::Change).await.unwrap();
    let body = &format!(r#"{{"any":"{}"}}"#, "x".repeat(2 * SMALL));
    assert_eq!(world.ask("PUT", "/v1/kv1/a", "root", body).await.status, 429);
    // From now on the crowd lasts: it waits for 250 ms and is held up for as long.
    let seen = async {
        let half = Duration::from_millis(125);
        let mut seen = Vec::new();
        for _ in 0..2 {
            sleep(half).await;
            seen.push(gate.bytes_in_flight());
            sleep(half).await;
        }
        seen
    };
    let begun = tokio::time::Instant::now();
    let (answer, seen) = tokio::join!(world.ask("PUT", "/v1/kv1/a", "root", body), seen);
    assert_eq!((answer.status, seen), (429, vec![body.len() - SMALL, 0]));
    assert!(begun.elapsed() >= Duration::from_millis(500), "{:?}", begun.elapsed());
}

#[actix_web::test]
async fn however_large_bodies_are_in_flight_small_ones_are_read() {
    let world = World::within(Limits { bodies_bytes: 16 << 10, ..Limits::default() });
    let body = |bytes: usize| format!(r#"{{"data":{{"any":"{}"}}}}"#, "x".repeat(bytes));
    let put = async |path: &str, bytes: usize| world.ask("PUT", path, "root", &body(bytes)).await;
    assert_eq!(put("/v1/secret/data/a", SMALL + 1).await.status, 200);
    let _bodies = taken(&world, SMALL + (16 << 10)).await;
    let seen = put("/v1/secret/data/a", SMALL + 1).await;
    let busy = vec!["too many request bodies in flight, try again".to_owned()];
    assert_eq!((seen.status, seen.errors()), (429, busy));
    for path in ["/v1/secret/data/a", "/v1/sys/seal"] {
        assert_eq!(put(path, SMALL - 30).await.status, 200, "{path}");
    }
    assert_eq!(world.ask("PUT", "/v1/sys/unseal", "", r#"{"key":"x"}"#).await.status, 200);
}

#[actix_web::test]
async fn without_a_token_a_body_is_small() {
    let world = World::new();
    for (bytes, status) in [(8 << 10, 200), ((8 << 10) + 1, 413)] {
        let body = format!("{:bytes$}", r#"{"key":"x"}"#);
        assert_eq!(world.ask("PUT", "/v1/sys/unseal", "", &body).await.status, status, "{bytes}");
    }
}

#[actix_web::test]
async fn however_many_look_at_its_health_the_audit_log_is_asked_once_at_a_time() {
    let world = World::new();
    let looks = (0..100).map(|_| world.ask("GET", "/v1/sys/health", "", ""));
    let seen = futures_util::future::join_all(looks).await;
    assert!(seen.iter().all(|seen| seen.status == 200));
    let asked = world.state().looked;
    assert!((1..10).contains(&asked), "{asked} times");
    assert_eq!(world.ask("GET", "/v1/sys/health", "", "").await.status, 200);
    assert_eq!(world.state().looked, asked + 1);
}
