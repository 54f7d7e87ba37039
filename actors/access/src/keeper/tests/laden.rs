//! Questions that take long, beside what must not wait for them.

use super::*;

/// A revocation, a sealing: the keeper's thread is theirs as well.
#[actix_rt::test]
async fn others_have_their_turn_while_a_thousand_paths_are_judged() {
    let world = World::new().await;
    let token = TokenRef::Secret(world.token(&world.root, lasting(600)).await);
    let paths = (0..1000).map(|number| CanonicalPath::parse(&format!("a/{number}")).unwrap());
    let msg = ReadCapabilities { token, paths: paths.collect() };
    let mut asked = Box::pin(world.ports.capabilities.commit(msg));
    let mut turns = 0;
    let told = loop {
        if let std::task::Poll::Ready(told) = futures_util::poll!(&mut asked) {
            break told.unwrap().unwrap();
        }
        turns += 1;
        tokio::task::yield_now().await;
    };
    assert_eq!(told.len(), 1000);
    assert!(turns > 100, "{turns}");
}
