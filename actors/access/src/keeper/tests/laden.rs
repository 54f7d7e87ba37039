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

/// However often its holder renews a token meanwhile, and none of them is refused for another's sake.
#[actix_rt::test]
async fn no_crowd_of_renewals_keeps_a_token_from_being_revoked() {
    let world = Rc::new(World::new().await);
    let token = world.token(&world.root, lasting(600)).await;
    let gone = AccessError::Invalid("token not found".to_owned());
    let renewing = (0..40).map(|_| {
        let (world, token, gone) = (Rc::clone(&world), token.duplicate(), gone.clone());
        async move {
            let mut refused = 0;
            loop {
                let token = TokenRef::Secret(token.duplicate());
                let msg = RenewToken { token, increment: None };
                match world.ports.renew.commit(msg).await.unwrap() {
                    Err(error) if error == gone => return refused,
                    renewed => refused += u32::from(renewed.is_err()),
                }
            }
        }
    });
    let renewing: Vec<_> = renewing.map(|one| actix_rt::spawn(one)).collect();
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
    assert_eq!(world.revoke(&token, false).await, Ok(true));
    for renewals in renewing {
        assert_eq!(renewals.await.unwrap(), 0);
    }
}
