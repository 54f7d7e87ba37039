//! Policies that ask for what nothing here keeps.

use super::super::policy_record;
use super::*;
use crate::token::{PolicyRecord, encode};

#[actix_rt::test]
async fn what_only_wrapping_would_allow_is_not_written_and_denies_where_it_is_stored() {
    let world = World::new().await;
    let (plain, bound) = ("path \"a\" { policy = \"read\" }", " min_wrapping_ttl = \"1m\" }");
    let text = plain.replace(" }", bound);
    world.policy("app", plain).await.unwrap();
    let token = world.token(&world.root, lasting(600)).await;
    let refused = world.policy("app", &text).await.unwrap_err().to_string();
    assert!(refused.contains("response wrapping is not supported"), "{refused}");
    assert_eq!(world.may(&token, "a").await, ["list", "read"]);
    // As a version that took it may have left it.
    let record = PolicyRecord { name: "app".to_owned(), text };
    let (path, bytes) = (policy_record(&PolicyName::parse("app").unwrap()), encode(&record));
    world.barrier.commit(Changes::new().put(path, 1, bytes.unwrap())).await.unwrap();
    let world = world.restart().await;
    assert_eq!(world.may(&token, "a").await, ["deny"]);
    assert_eq!(world.may(&token, "auth/token/lookup-self").await, ["read"]);
}
