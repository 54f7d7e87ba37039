//! The keeper and a replica together, over a store in memory and time that tests turn.

mod laden;
mod unkept;

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use actix::{Actor, Addr};
use mssm_domain::policy::{Capabilities, Capability};
use mssm_domain::{
    CanonicalPath, ClusterId, Document, PolicyName, RecordPath, SecretBytes, SecretText, TokenId,
    Ttl, generate_uuid,
};
use mssm_messages::access::{
    AccessError, AccessPorts, Authorize, Authorized, CreateToken, ListAccessors, LookupToken,
    NewToken, ReadCapabilities, RenewToken, RevokeToken, TidyTokens, TokenPorts, TokenRef,
    TokenWish, WritePolicy, cubbyhole_folder,
};
use mssm_messages::seal::{Closing, Found, Opened};
use mssm_messages::storage::StorageError;
use mssm_messages::{Barrier, Changes, Port};
use mssm_testkit::{FakeKeys, MemoryStore, SeededRandom, TestClock, barrier_over};

use super::AccessKeeper;
use crate::AccessReplica;

const SECOND: Duration = Duration::from_secs(1);

struct World {
    store: MemoryStore,
    barrier: Barrier,
    clock: TestClock,
    keeper: Addr<AccessKeeper>,
    ports: TokenPorts,
    access: AccessPorts,
    /// Whose leases were revoked; while `Err`, that fails.
    leases: Rc<RefCell<Result<Vec<TokenId>, ()>>>,
    root: SecretText,
    told: Rc<RefCell<Vec<mssm_messages::audit::Entry>>>,
}

impl World {
    async fn new() -> Self {
        tokio::time::pause();
        let mut world = Self::start(&MemoryStore::new(), SecretText::new(String::new()), 1);
        let seeds = world.keeper.send(Found).await.unwrap().unwrap();
        world.barrier.commit(seeds.changes).await.unwrap();
        world.root = seeds.root_token.unwrap();
        world.open().await;
        world
    }

    fn start(store: &MemoryStore, root: SecretText, seed: u64) -> Self {
        let barrier = barrier_over(store);
        let clock = TestClock::following_tokio();
        let leases = Rc::new(RefCell::new(Ok(Vec::new())));
        let (port, mut queue) = Port::<mssm_messages::lease::RevokeToken>::to_thread(64);
        let revoked = Rc::clone(&leases);
        actix_rt::spawn(async move {
            while let Some(letter) = queue.recv().await {
                let reply = match &mut *revoked.borrow_mut() {
                    Ok(tokens) => {
                        tokens.push(letter.message.token);
                        Ok(0)
                    }
                    Err(()) => Err(mssm_messages::lease::LeaseError::Busy),
                };
                let _ = letter.reply.send(reply);
            }
        });
        let (shared, random) = (Arc::new(clock.clone()), Arc::new(SeededRandom::new(seed)));
        let (audit, mut lines) = Port::<mssm_messages::audit::Append>::to_thread(64);
        let told = Rc::new(RefCell::new(Vec::new()));
        let written = Rc::clone(&told);
        actix_rt::spawn(async move {
            while let Some(letter) = lines.recv().await {
                written.borrow_mut().extend(letter.message.0);
                let _ = letter.reply.send(Ok(()));
            }
        });
        let keeper =
            AccessKeeper::new(barrier.clone(), port, audit, shared.clone(), random).start();
        let ports = AccessKeeper::ports(&keeper);
        let access = AccessReplica::start(&keeper, barrier.clone(), shared);
        Self { store: store.clone(), barrier, clock, keeper, ports, access, leases, root, told }
    }

    /// As after a crash: the same records, everything else new.
    async fn restart(&self) -> Self {
        let mut world = Self::start(&self.store.copy(), self.root.duplicate(), 2);
        world.clock.set(mssm_domain::Clock::now(&self.clock));
        world.open().await;
        // The seed is another, the clock goes on.
        world.root = self.root.duplicate();
        world
    }

    async fn open(&self) {
        let cluster = ClusterId::from_uuid(generate_uuid(&SeededRandom::new(9)));
        self.keeper.send(Opened { cluster }).await.unwrap().unwrap();
    }

    async fn ask(&self, token: &SecretText, path: &str) -> Result<Authorized, AccessError> {
        let path = CanonicalPath::parse(path).unwrap();
        let msg = Authorize { token: token.duplicate(), path, listing: false };
        self.access.authorize.send(msg).await.unwrap()
    }

    async fn may(&self, token: &SecretText, path: &str) -> Vec<&'static str> {
        names(self.ask(token, path).await.unwrap().capabilities)
    }

    async fn policy(&self, name: &str, text: &str) -> Result<Vec<String>, AccessError> {
        let name = PolicyName::parse(name).unwrap();
        let write = WritePolicy { name, text: text.to_owned() };
        self.ports.write_policy.commit(write).await.unwrap()
    }

    async fn make(&self, by: &SecretText, wish: TokenWish) -> Result<NewToken, AccessError> {
        let caller = self.ask(by, "auth/token/create").await?.caller;
        let sudo = caller.is_root();
        self.ports.create.commit(CreateToken { caller, wish, sudo }).await.unwrap()
    }

    async fn token(&self, by: &SecretText, wish: TokenWish) -> SecretText {
        self.make(by, wish).await.unwrap().token.unwrap()
    }

    async fn revoke(&self, token: &SecretText, keep_children: bool) -> Result<bool, AccessError> {
        let token = TokenRef::Secret(token.duplicate());
        self.ports.revoke.commit(RevokeToken { token, keep_children }).await.unwrap()
    }

    async fn renew(
        &self,
        token: &SecretText,
        increment: Option<Ttl>,
    ) -> Result<NewToken, AccessError> {
        let token = TokenRef::Secret(token.duplicate());
        self.ports.renew.commit(RenewToken { token, increment }).await.unwrap()
    }

    fn revoked_leases(&self) -> usize {
        self.leases.borrow().as_ref().map(Vec::len).unwrap_or_default()
    }
}

fn names(capabilities: Capabilities) -> Vec<&'static str> {
    capabilities.iter().map(Capability::name).collect()
}

fn ttl(secs: u64) -> Ttl {
    Ttl::from_secs(secs).unwrap()
}

fn lasting(secs: u64) -> TokenWish {
    TokenWish { policies: vec!["app".to_owned()], ttl: Some(ttl(secs)), ..TokenWish::default() }
}

async fn rest() {
    tokio::time::sleep(2 * SECOND).await;
}

#[actix_rt::test]
async fn root_may_everything_and_a_stranger_nothing() {
    let world = World::new().await;
    let authorized = world.ask(&world.root, "sys/seal").await.unwrap();
    assert!(authorized.capabilities.has(Capability::Sudo) && authorized.caller.is_root());
    for stranger in ["", "s.aaaaaaaaaaaaaaaaaaaaaaaa", &"x".repeat(100_000)] {
        let refused = world.ask(&SecretText::new(stranger.to_owned()), "a").await;
        assert_eq!(refused.unwrap_err(), AccessError::NoToken);
    }
}

#[actix_rt::test]
async fn a_policy_is_in_force_when_its_writing_is_answered() {
    let world = World::new().await;
    let token = world.token(&world.root, lasting(60)).await;
    assert!(world.may(&token, "secret/data/a").await.is_empty());
    assert_eq!(world.may(&token, "auth/token/lookup-self").await, ["read"]);
    let cases = [("read", vec!["list", "read"]), ("deny", vec!["deny"])];
    for (policy, expected) in cases {
        let text = format!("path \"secret/*\" {{ policy = \"{policy}\" }}");
        world.policy("APP", &text).await.unwrap();
        assert_eq!(world.may(&token, "secret/data/a").await, expected);
        assert_eq!(world.restart().await.may(&token, "secret/data/a").await, expected);
    }
    let bad = world.policy("app", "path \"a\" { capabilities = [\"rxad\"] }").await.unwrap_err();
    let text = "failed to parse policy: path \"a\": invalid capability \"rxad\"";
    assert_eq!(bad, AccessError::Invalid(text.to_owned()));
    assert!(world.policy("root", "path \"a\" {}").await.is_err());
    world
        .ports
        .delete_policy
        .commit(mssm_messages::access::DeletePolicy(PolicyName::parse("app").unwrap()))
        .await
        .unwrap()
        .unwrap();
    assert!(world.may(&token, "secret/data/a").await.is_empty());
    let token = TokenRef::Secret(token.duplicate());
    let paths = vec![CanonicalPath::parse("cubbyhole/x").unwrap()];
    let capabilities = world.ports.capabilities.commit(ReadCapabilities { token, paths }).await;
    assert_eq!(
        names(capabilities.unwrap().unwrap()[0]),
        ["create", "delete", "list", "read", "update"]
    );
}

#[actix_rt::test]
async fn a_revoked_token_is_dead_with_its_children_and_leaves_nothing() {
    let world = World::new().await;
    rest().await;
    let before = world.store.len();
    let token = world.token(&world.root, lasting(600)).await;
    let mut family = vec![token.duplicate()];
    for generation in 0..40 {
        family.push(world.token(&family[generation / 2], TokenWish::default()).await);
    }
    let caller = world.ask(&token, "a").await.unwrap().caller;
    let secret = Document::from_checked_json(SecretText::new("{}".to_owned()));
    let hole = cubbyhole_folder(caller.token).child("x");
    // EXPOSE: what a test writes.
    let bytes = SecretBytes::new(secret.expose().as_bytes().to_vec());
    world.barrier.commit(Changes::new().put(hole, 0, bytes)).await.unwrap();
    for token in &family {
        world.ask(token, "a").await.unwrap();
    }
    assert_eq!(world.revoke(&token, false).await, Ok(true));
    for token in &family {
        assert_eq!(world.ask(token, "a").await.unwrap_err(), AccessError::NoToken);
        let again = TokenRef::Secret(token.duplicate());
        assert!(world.ports.lookup.commit(LookupToken(again)).await.unwrap().is_err());
    }
    assert_eq!(world.revoke(&token, false).await, Ok(false));
    rest().await;
    assert_eq!((world.store.len(), world.revoked_leases()), (before, family.len()));
    assert_eq!(world.ports.tidy.commit(TidyTokens).await.unwrap(), Ok(0));
}

#[actix_rt::test]
async fn children_can_be_kept() {
    let world = World::new().await;
    let token = world.token(&world.root, lasting(600)).await;
    let child = world.token(&token, TokenWish::default()).await;
    let grandchild = world.token(&child, TokenWish::default()).await;
    assert_eq!(world.revoke(&token, true).await, Ok(true));
    assert_eq!(world.ask(&token, "a").await.unwrap_err(), AccessError::NoToken);
    world.ask(&child, "a").await.unwrap();
    world.ask(&grandchild, "a").await.unwrap();
    rest().await;
    let view = world.ports.lookup.commit(LookupToken(TokenRef::Secret(child.duplicate()))).await;
    assert!(view.unwrap().unwrap().orphan);
    world.revoke(&child, false).await.unwrap();
    assert_eq!(world.ask(&grandchild, "a").await.unwrap_err(), AccessError::NoToken);
}

/// Catalogue: CVE-2026-115362.
#[actix_rt::test]
async fn a_token_ends_at_its_end_whoever_looks() {
    let world = World::new().await;
    rest().await;
    let before = world.store.len();
    let parent = world.token(&world.root, lasting(10)).await;
    let child = world.token(&parent, lasting(600)).await;
    world.ask(&child, "a").await.unwrap();
    // The wall clock jumps; no timer of ours has run yet.
    world.clock.advance(Duration::from_secs(10));
    for token in [&parent, &child] {
        assert_eq!(world.ask(token, "a").await.unwrap_err(), AccessError::NoToken);
        assert!(world.renew(token, None).await.is_err());
    }
    rest().await;
    assert_eq!((world.store.len(), world.revoked_leases()), (before, 2));
}

#[actix_rt::test]
async fn expiry_goes_on_after_a_restart() {
    let world = World::new().await;
    rest().await;
    let before = world.store.len();
    for _ in 0..300 {
        world.token(&world.root, lasting(10)).await;
    }
    let world = world.restart().await;
    assert!(world.store.len() > before);
    tokio::time::sleep(12 * SECOND).await;
    assert_eq!(world.store.len(), before);
    let accessors = world.ports.accessors.commit(ListAccessors).await.unwrap().unwrap();
    assert_eq!(accessors.len(), 1);
    assert_eq!(world.told.borrow().len(), 300, "each is written down, once");
}

#[actix_rt::test]
async fn a_renewed_token_lives_on_and_its_children_with_it() {
    let world = World::new().await;
    let token = world.token(&world.root, lasting(10)).await;
    let child = world.token(&token, lasting(600)).await;
    world.ask(&child, "a").await.unwrap();
    tokio::time::sleep(8 * SECOND).await;
    let renewed = world.renew(&token, Some(ttl(30))).await.unwrap();
    assert_eq!(renewed.token.unwrap().expose(), token.expose());
    tokio::time::sleep(20 * SECOND).await;
    let end = world.ask(&child, "a").await.unwrap().caller.expires_at;
    assert_eq!(end, renewed.view.expires_at);
    // Shorter than before: the child's holder must notice as well.
    world.renew(&token, Some(ttl(1))).await.unwrap();
    world.clock.advance(SECOND);
    assert_eq!(world.ask(&child, "a").await.unwrap_err(), AccessError::NoToken);
}

#[actix_rt::test]
async fn limited_uses_are_taken_down_before_the_answer() {
    let mut world = World::new().await;
    let wish = TokenWish { num_uses: 4, ..lasting(600) };
    let token = world.token(&world.root, wish).await;
    for last_use in [false, false] {
        assert_eq!(world.ask(&token, "a").await.unwrap().last_use, last_use);
    }
    world = world.restart().await;
    world.store.fail_next(StorageError::Busy);
    assert!(world.ask(&token, "a").await.is_err());
    assert!(world.ask(&token, "a").await.unwrap().last_view.is_none());
    let last = world.ask(&token, "a").await.unwrap();
    let view = last.last_view.unwrap();
    assert_eq!((last.last_use, view.num_uses, view.id), (true, 0, last.caller.token));
    assert_eq!(world.ask(&token, "a").await.unwrap_err(), AccessError::NoToken);
    tokio::time::sleep(8 * SECOND).await;
    assert_eq!(world.revoked_leases(), 1);
}

#[actix_rt::test]
async fn a_use_is_counted_once_however_many_ask_at_once() {
    let world = World::new().await;
    let token = world.token(&world.root, TokenWish { num_uses: 5, ..lasting(600) }).await;
    let asked = futures_util::future::join_all((0..8).map(|_| world.ask(&token, "a"))).await;
    let (good, bad): (Vec<_>, Vec<_>) = asked.into_iter().partition(Result::is_ok);
    assert_eq!(good.iter().flatten().filter(|authorized| authorized.last_use).count(), 1);
    assert_eq!((good.len(), bad.len()), (5, 3));
}

#[actix_rt::test]
async fn nobody_loses_a_use_to_others_who_ask_at_once() {
    let world = World::new().await;
    let token = world.token(&world.root, TokenWish { num_uses: 60, ..lasting(600) }).await;
    let asked = (0..80).map(|_| world.ask(&token, "auth/token/lookup-self"));
    let answers = futures_util::future::join_all(asked).await;
    let refused = |answer: &Result<Authorized, AccessError>| answer.is_err();
    assert_eq!(answers.iter().filter(|answer| !refused(answer)).count(), 60);
    for answer in answers.iter().filter(|answer| refused(answer)) {
        assert_eq!(answer.as_ref().unwrap_err(), &AccessError::NoToken);
    }
}

#[actix_rt::test]
async fn what_is_written_with_a_slash_at_its_end_is_what_is_meant_without_it() {
    let world = World::new().await;
    let text = r#"path "sys/policies/acl/*" { capabilities = ["read", "update"] }
        path "sys/policies/acl/admin" { capabilities = ["read"] }
        path "auth/token/create/*" { capabilities = ["update", "sudo"] }"#;
    world.policy("app", text).await.unwrap();
    let token = world.token(&world.root, lasting(600)).await;
    for (path, rights) in [
        ("sys/policies/acl/admin", vec!["read"]),
        ("sys/policies/acl/admin/", vec!["read"]),
        ("sys/policies/acl/other/", vec!["read", "update"]),
        ("auth/token/create/", vec![]),
    ] {
        assert_eq!(world.may(&token, path).await, rights, "{path}");
    }
}

#[actix_rt::test]
async fn what_a_token_leaves_is_removed_whatever_happens_meanwhile() {
    let world = World::new().await;
    rest().await;
    let before = world.store.len();
    let token = world.token(&world.root, lasting(600)).await;
    world.token(&token, TokenWish::default()).await;
    *world.leases.borrow_mut() = Err(());
    assert_eq!(world.revoke(&token, false).await, Ok(true));
    rest().await;
    assert!(world.store.len() > before);
    let again = world.restart().await;
    rest().await;
    assert_eq!((again.store.len(), again.revoked_leases()), (before, 2));
    *world.leases.borrow_mut() = Ok(Vec::new());
    rest().await;
    assert_eq!((world.store.len(), world.revoked_leases()), (before, 2));
}

#[actix_rt::test]
async fn a_revocation_that_is_not_durable_is_not_acknowledged() {
    let world = World::new().await;
    let token = world.token(&world.root, lasting(600)).await;
    world.store.fail_writes(Some(StorageError::NoSpace("told to".to_owned())));
    assert!(world.revoke(&token, false).await.is_err());
    assert!(world.make(&world.root, lasting(5)).await.is_err());
    world.store.fail_writes(None);
    world.ask(&token, "a").await.unwrap();
    assert_eq!(world.revoke(&token, false).await, Ok(true));
}

#[actix_rt::test]
async fn while_sealed_nobody_is_known() {
    let world = World::new().await;
    world.ask(&world.root, "a").await.unwrap();
    world.keeper.send(Closing).await.unwrap().unwrap();
    assert_eq!(world.ask(&world.root, "a").await.unwrap_err(), AccessError::Sealed);
    let accessors = world.ports.accessors.commit(ListAccessors).await.unwrap();
    assert_eq!(accessors.unwrap_err(), AccessError::Sealed);
    world.open().await;
    world.ask(&world.root, "a").await.unwrap();
}

#[actix_rt::test]
async fn a_policy_that_cannot_be_read_denies_and_can_be_written_anew() {
    let world = World::new().await;
    world.policy("app", "path \"a\" { policy = \"read\" }").await.unwrap();
    let token = world.token(&world.root, lasting(600)).await;
    let key = |name: &str| FakeKeys::stored_key(&RecordPath::new(&["policy", &hex::encode(name)]));
    world.store.tamper(&key("app"), world.store.stored(&key("default")));
    let world = world.restart().await;
    assert_eq!(world.may(&token, "b").await, ["deny"]);
    world.policy("app", "path \"a\" { policy = \"read\" }").await.unwrap();
    assert_eq!(world.may(&token, "a").await, ["list", "read"]);
}

#[actix_rt::test]
async fn a_chosen_id_is_used_once() {
    let world = World::new().await;
    let wish = || TokenWish { id: Some(SecretText::new("mine".to_owned())), ..lasting(600) };
    let mine = world.token(&world.root, wish()).await;
    assert!(world.make(&world.root, wish()).await.is_err());
    world.ask(&mine, "a").await.unwrap();
    world.revoke(&mine, false).await.unwrap();
    rest().await;
    world.token(&world.root, wish()).await;
    world.ask(&mine, "a").await.unwrap();
}

#[actix_rt::test]
async fn an_accessor_is_enough_to_end_a_token() {
    let world = World::new().await;
    let made = world.make(&world.root, lasting(600)).await.unwrap();
    let by = || TokenRef::Accessor(made.view.accessor.clone());
    let view = world.ports.lookup.commit(LookupToken(by())).await.unwrap().unwrap();
    assert_eq!(view, made.view);
    let renewed = world.ports.renew.commit(RenewToken { token: by(), increment: None }).await;
    assert!(renewed.unwrap().unwrap().token.is_none());
    let revoke = RevokeToken { token: by(), keep_children: false };
    assert_eq!(world.ports.revoke.commit(revoke).await.unwrap(), Ok(true));
    let gone = world.ports.lookup.commit(LookupToken(by())).await.unwrap();
    assert_eq!(gone.unwrap_err(), AccessError::BadAccessor);
    assert!(world.ask(&made.token.unwrap(), "a").await.is_err());
}

/// Takes what it is told after a minute.
struct Sleeper;

impl Actor for Sleeper {
    type Context = actix::Context<Self>;
}

impl actix::Handler<crate::words::Install> for Sleeper {
    type Result = actix::ResponseFuture<()>;

    fn handle(&mut self, _: crate::words::Install, _: &mut Self::Context) -> Self::Result {
        Box::pin(tokio::time::sleep(60 * SECOND))
    }
}

impl actix::Handler<crate::words::Forget> for Sleeper {
    type Result = actix::ResponseFuture<()>;

    fn handle(&mut self, _: crate::words::Forget, _: &mut Self::Context) -> Self::Result {
        Box::pin(tokio::time::sleep(60 * SECOND))
    }
}

#[actix_rt::test]
async fn a_replica_that_does_not_answer_is_told_to_use_nothing_any_more() {
    let world = World::new().await;
    let (sleeper, retired) = (Sleeper.start(), Arc::new(std::sync::atomic::AtomicBool::new(false)));
    let register = crate::words::Register {
        install: sleeper.clone().recipient(),
        forget: sleeper.recipient(),
        retired: Arc::clone(&retired),
    };
    world.keeper.send(register).await.unwrap();
    let (token, start) =
        (world.token(&world.root, lasting(600)).await, tokio::time::Instant::now());
    assert_eq!(world.revoke(&token, false).await, Ok(true));
    assert!(retired.load(std::sync::atomic::Ordering::SeqCst));
    assert!(start.elapsed() < 2 * SECOND);
    assert_eq!(world.ask(&token, "a").await.unwrap_err(), AccessError::NoToken);
}
