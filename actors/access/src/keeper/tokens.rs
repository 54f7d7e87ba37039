//! Tokens are made, looked up, renewed and used.

use std::rc::Rc;

use mssm_domain::policy::Capabilities;
use mssm_domain::{Accessor, RecordPath, SecretText, TokenId};
use mssm_messages::Changes;
use mssm_messages::access::{
    AccessError, CreateToken, ListAccessors, LookupToken, NewToken, ReadCapabilities, RenewToken,
    TokenRef, TokenView, token_record,
};
use mssm_messages::storage::Expect;
use tokio::sync::{Mutex, MutexGuard};

use super::ending::{How, LINGER, TRIES};
use super::pages::Pages;
use super::{Desk, PLACES, accessor_record, child_record, ending_record};
use crate::policy::{Asked, EVERYTHING};
use crate::token::{
    AccessorRecord, Birth, ChildRecord, Living, Token, accessor_of, broken, create, decode,
    decode_token, encode, encode_token, find_living, fingerprint, new_text, renew,
};
use crate::words::{Spend, Spent};

/// So many paths are judged before others have their turn.
const PATHS_AT_ONCE: usize = 8;

impl Desk {
    pub(super) async fn create(self: Rc<Self>, msg: CreateToken) -> Result<NewToken, AccessError> {
        let now = self.clock.now();
        let parent = find_living(&self.barrier, msg.caller.token, now).await?;
        let parent = parent.ok_or(AccessError::NoToken)?.token;
        let text = match &msg.wish.id {
            Some(id) => id.duplicate(),
            None => new_text(self.random.as_ref()),
        };
        let id = fingerprint(&self.barrier, text.duplicate()).await?;
        let policies = self.with_open(|open| std::sync::Arc::clone(open.policies.set()))?;
        let birth = Birth {
            now,
            parent: &parent,
            sudo: msg.sudo,
            id: id.ok_or_else(|| AccessError::Invalid("invalid token ID".to_owned()))?,
            accessor: accessor_of(self.random.as_ref())?,
            exists: &|name| policies.contains_key(name),
        };
        let (token, warnings) = create(&birth, &msg.wish)?;
        let committed = self.barrier.commit(birth_changes(&token, parent.view.id)?).await;
        committed.map_err(|error| match error.failed_expectation() {
            Some(0) => AccessError::NoToken,
            Some(_) => AccessError::Invalid("cannot create a token with a duplicate ID".to_owned()),
            None => error.into(),
        })?;
        self.note_end(&token);
        Ok(NewToken { token: Some(text), view: token.view, warnings })
    }

    pub(super) async fn lookup(self: Rc<Self>, msg: LookupToken) -> Result<TokenView, AccessError> {
        let (missing, _) = what_is_missing(&msg.0);
        let living = self.living(msg.0).await?;
        living.map(|living| living.token.view).ok_or(missing)
    }

    pub(super) async fn renew(self: Rc<Self>, msg: RenewToken) -> Result<NewToken, AccessError> {
        let (missing, text) = what_is_missing(&msg.token);
        let missing = match missing {
            AccessError::BadToken => AccessError::Invalid("token not found".to_owned()),
            other => other,
        };
        let Some(id) = self.resolve(msg.token).await? else { return Err(missing) };
        let _turn = turn(&self.using, id).await?;
        for _ in 0..TRIES {
            let change = turn(&self.changing, id).await?;
            let now = self.clock.now();
            let Some(living) = find_living(&self.barrier, id, now).await? else {
                return Err(missing);
            };
            let (token, warnings) = renew(now, &living.token, msg.increment)?;
            match self.replace(&token, living.version).await {
                Ok(()) => {
                    drop(change);
                    self.note_end(&token);
                    // Replicas hold the old end, of this token and of its descendants.
                    self.replicas.forget(vec![id]).await;
                    return Ok(NewToken { token: text, view: token.view, warnings });
                }
                Err(Conflict::Changed) => {}
                Err(Conflict::Failed(error)) => return Err(error),
            }
        }
        Err(AccessError::Internal)
    }

    /// Takes down one use, durably; the last one ends the token.
    pub(super) async fn spend(self: Rc<Self>, msg: Spend) -> Result<Spent, AccessError> {
        let _turn = turn(&self.using, msg.0).await?;
        for _ in 0..TRIES {
            let change = turn(&self.changing, msg.0).await?;
            let Some(living) = find_living(&self.barrier, msg.0, self.clock.now()).await? else {
                return Err(AccessError::NoToken);
            };
            let Living { mut token, version, alive_until, .. } = living;
            let caller = token.caller(alive_until);
            let metadata = token.view.metadata.clone();
            let last_use = token.view.num_uses == 1;
            let committed = match token.view.num_uses {
                0 => return Ok(Spent { caller, metadata, last_view: None }),
                1 => {
                    let changes = Self::end_changes(&token, version, How::Revoked)?;
                    self.barrier.commit(changes).await.map_err(Conflict::from)
                }
                uses => {
                    token.view.num_uses = uses - 1;
                    self.replace(&token, version).await
                }
            };
            match committed {
                Ok(()) => {
                    drop(change);
                    if last_use {
                        self.settle(vec![msg.0], LINGER).await;
                    }
                    token.view.num_uses = 0;
                    let last_view = last_use.then_some(token.view);
                    return Ok(Spent { caller, metadata, last_view });
                }
                Err(Conflict::Changed) => {}
                Err(Conflict::Failed(error)) => return Err(error),
            }
        }
        Err(AccessError::Internal)
    }

    pub(super) async fn list_accessors(
        self: Rc<Self>,
        _msg: ListAccessors,
    ) -> Result<Vec<Accessor>, AccessError> {
        if !self.is_open() {
            return Err(AccessError::Sealed);
        }
        let mut accessors = Vec::new();
        let mut pages = Pages::new(RecordPath::new(&["token"]));
        while let Some(page) = pages.next(&self.barrier).await? {
            let now = self.clock.now();
            let tokens = page.iter().filter_map(|plain| decode_token(&plain.bytes).ok());
            let living = tokens.filter(|token| !token.is_over(now));
            accessors.extend(living.map(|token| token.view.accessor));
        }
        accessors.sort_unstable();
        Ok(accessors)
    }

    pub(super) async fn capabilities(
        self: Rc<Self>,
        msg: ReadCapabilities,
    ) -> Result<Vec<Capabilities>, AccessError> {
        let (missing, _) = what_is_missing(&msg.token);
        let living = self.living(msg.token).await?.ok_or(missing)?;
        let acl = self.with_open(|open| open.policies.acl(&living.token.view.policies))?;
        let of = |path: &mssm_domain::CanonicalPath| {
            if acl.is_root() {
                return EVERYTHING;
            }
            let granted = acl.decide(path.as_str(), Asked::Capabilities);
            granted.map(|granted| granted.capabilities).unwrap_or_default()
        };
        // Each path costs as much as there are rules, and revocations wait for this thread too.
        let _one_at_a_time = self.judging.lock().await;
        let mut allowed = Vec::with_capacity(msg.paths.len());
        for paths in msg.paths.chunks(PATHS_AT_ONCE) {
            allowed.extend(paths.iter().map(of));
            tokio::task::yield_now().await;
        }
        Ok(allowed)
    }

    /// The hash of the token that is meant; `None` if there can be none.
    pub(super) async fn resolve(&self, token: TokenRef) -> Result<Option<TokenId>, AccessError> {
        if !self.is_open() {
            return Err(AccessError::Sealed);
        }
        match token {
            TokenRef::Id(id) => Ok(Some(id)),
            TokenRef::Secret(text) => fingerprint(&self.barrier, text).await,
            TokenRef::Accessor(accessor) => {
                let Some(plain) = self.barrier.read(&accessor_record(&accessor)).await? else {
                    return Ok(None);
                };
                let record: AccessorRecord = decode(&plain.bytes).map_err(broken)?;
                Ok(TokenId::parse_hex(&record.token).ok())
            }
        }
    }

    async fn living(&self, token: TokenRef) -> Result<Option<Living>, AccessError> {
        match self.resolve(token).await? {
            Some(id) => find_living(&self.barrier, id, self.clock.now()).await,
            None => Ok(None),
        }
    }

    /// Writes a token over the version it was read at.
    async fn replace(&self, token: &Token, version: u64) -> Result<(), Conflict> {
        let bytes = encode_token(token).map_err(|error| Conflict::Failed(broken(error)))?;
        let changes = Changes::new().put(token_record(token.view.id), version, bytes);
        self.barrier.commit(changes).await.map_err(Conflict::from)
    }

    fn note_end(&self, token: &Token) {
        // If the server closed meanwhile, the record is found when it opens again.
        let _ = self.with_open(|open| match token.view.expires_at {
            Some(end) => open.expiry.insert(token.view.id, end),
            None => {
                open.expiry.remove(&token.view.id);
            }
        });
    }
}

/// A token's turn at one of the places.
pub(super) async fn turn(
    places: &[Mutex<()>; PLACES],
    id: TokenId,
) -> Result<MutexGuard<'_, ()>, AccessError> {
    let [first, ..] = id.as_bytes();
    let place = places.get(usize::from(*first) % PLACES);
    Ok(place.ok_or(AccessError::Internal)?.lock().await)
}

/// Why a write was not made.
enum Conflict {
    /// The token changed since it was read.
    Changed,
    /// Something else.
    Failed(AccessError),
}

impl From<mssm_messages::BarrierError> for Conflict {
    fn from(error: mssm_messages::BarrierError) -> Self {
        match error.failed_expectation() {
            Some(_) => Self::Changed,
            None => Self::Failed(error.into()),
        }
    }
}

/// The commit with which a token begins; its first expectation is that who asks still lives.
fn birth_changes(token: &Token, asker: TokenId) -> Result<Changes, AccessError> {
    let view = &token.view;
    let lead = AccessorRecord { accessor: view.accessor.as_str().to_owned(), token: view.id.hex() };
    let changes = Changes::new()
        .expect(token_record(asker), Expect::Present)
        // A chosen id may be used again only when nothing is left of its first token.
        .expect(ending_record(view.id), Expect::Absent)
        .put(token_record(view.id), 0, encode_token(token).map_err(broken)?)
        .put(accessor_record(&view.accessor), 0, encode(&lead).map_err(broken)?);
    let Some(parent) = token.parent else { return Ok(changes) };
    let trace = ChildRecord { parent: parent.hex(), child: view.id.hex() };
    Ok(changes.put(child_record(parent, view.id), 0, encode(&trace).map_err(broken)?))
}

/// What to say when a token is not there, and its text if the caller sent it.
fn what_is_missing(token: &TokenRef) -> (AccessError, Option<SecretText>) {
    match token {
        TokenRef::Secret(text) => (AccessError::BadToken, Some(text.duplicate())),
        TokenRef::Accessor(_) => (AccessError::BadAccessor, None),
        TokenRef::Id(_) => (AccessError::BadToken, None),
    }
}
