//! Tokens end: by revocation, by expiry, by their last use; and what they leave is removed.
//!
//! One commit takes the token away and writes down that it ended; then every replica forgets it;
//! then its leases, children and cubbyhole go, in this order, and the note last. What is not done
//! when the server stops is done when it opens again.

use std::rc::Rc;
use std::time::Duration;

use futures_util::future::join_all;
use mssm_domain::{Fault, RecordPath, SecretBytes, Timestamp, TokenId};
use mssm_messages::access::{AccessError, RevokeToken, TidyTokens, cubbyhole_folder, token_record};
use mssm_messages::audit::{Append, Entry};
use mssm_messages::keys::{Fingerprint, Purpose};
use mssm_messages::storage::Expect;
use mssm_messages::{BarrierError, Changes, guarded_async, lease};

use super::pages::Pages;
use super::policies::TIDY_EVERY;
use super::tokens::turn;
use super::{Desk, Open, accessor_record, child_record, children_folder, ending_record};
use crate::token::{
    AccessorRecord, ChildRecord, EndingRecord, Token, broken, decode, decode_token, encode,
    encode_token, read_token,
};

/// How many due tokens one tick ends.
const DUE_MAX: usize = 1024;
/// How many tokens are ended, or cleaned up after, side by side.
const TOGETHER: usize = 32;
/// How long what a token left waits after a failure.
const RETRY: Duration = Duration::from_secs(1);
/// How long the request that used a token up has to finish with its cubbyhole.
pub(super) const LINGER: Duration = Duration::from_secs(5);
/// The audit answers within its own patience; this is many.
const TOLD: Duration = Duration::from_secs(10);
/// How often a change is tried while others change the same token.
pub(super) const TRIES: usize = 8;

/// How a token ends.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum How {
    /// With its children.
    Revoked,
    /// Its children live on.
    Alone,
    /// With its children, by the server itself: the audit is told.
    Expired,
}

impl Desk {
    pub(super) async fn revoke(self: Rc<Self>, msg: RevokeToken) -> Result<bool, AccessError> {
        let Some(id) = self.resolve(msg.token).await? else { return Ok(false) };
        if msg.keep_children {
            // Before it ends, so that no child is dead in between.
            self.orphan_children(id).await?;
        }
        let ended = self.end(id, if msg.keep_children { How::Alone } else { How::Revoked }).await?;
        if ended {
            self.settle(vec![id], Duration::ZERO).await;
        }
        Ok(ended)
    }

    /// Takes a token away, durably, and notes that it ended. False if there is none.
    async fn end(&self, id: TokenId, how: How) -> Result<bool, AccessError> {
        // Or whoever holds it could renew it so often that each try comes too late.
        let _change = turn(&self.changing, id).await?;
        for _ in 0..TRIES {
            let Some((token, version)) = read_token(&self.barrier, id).await? else {
                return Ok(false);
            };
            match self.barrier.commit(Self::end_changes(&token, version, how)?).await {
                Ok(()) => return Ok(true),
                Err(error) if error.failed_expectation().is_some() => {}
                Err(error) => return Err(error.into()),
            }
        }
        Err(AccessError::Internal)
    }

    /// The commit with which a token ends.
    pub(super) fn end_changes(
        token: &Token,
        version: u64,
        how: How,
    ) -> Result<Changes, AccessError> {
        let id = token.view.id;
        let keep_children = how == How::Alone;
        let expired = (how == How::Expired).then(|| token.view.accessor.as_str().to_owned());
        let note = EndingRecord { token: id.hex(), keep_children, expired };
        let changes = Changes::new()
            .expect(token_record(id), Expect::Version(version))
            .delete(token_record(id))
            .delete(accessor_record(&token.view.accessor))
            .put(ending_record(id), 0, encode(&note).map_err(broken)?);
        Ok(match token.parent {
            Some(parent) => changes.delete(child_record(parent, id)),
            None => changes,
        })
    }

    /// After tokens have ended: every replica forgets them, and what they left is removed.
    pub(super) async fn settle(self: &Rc<Self>, ended: Vec<TokenId>, linger: Duration) {
        let when = self.clock.now().after(linger);
        // If the server closed meanwhile, the notes are found when it opens again.
        let _ = self.with_open(|open| {
            for id in &ended {
                open.expiry.remove(id);
                open.note_ending(when, *id);
            }
        });
        self.replicas.forget(ended).await;
        let desk = Rc::clone(self);
        actix_rt::spawn(async move { desk.drain().await });
    }

    /// What is due: tokens to end, leavings to remove.
    pub(super) async fn tick(self: Rc<Self>) {
        let now = self.clock.now();
        let due = self.with_open(|open| {
            let tidy = open.next_tidy <= now;
            if tidy {
                open.next_tidy = now.after(TIDY_EVERY);
            }
            (open.expiry.take_due(now, DUE_MAX), tidy)
        });
        let Ok((due, tidy)) = due else { return };
        for some in due.chunks(TOGETHER) {
            let ended = join_all(some.iter().map(|id| self.expire(*id))).await;
            let ended: Vec<TokenId> = ended.into_iter().flatten().collect();
            if !ended.is_empty() {
                self.settle(ended, Duration::ZERO).await;
            }
        }
        Rc::clone(&self).drain().await;
        if tidy {
            actix_rt::spawn(async move { guarded_async(self.tidy(TidyTokens)).await });
        }
    }

    /// Ends a token whose time has come; it may have been renewed.
    async fn expire(&self, id: TokenId) -> Option<TokenId> {
        let now = self.clock.now();
        let later = match read_token(&self.barrier, id).await {
            Ok(None) => return None,
            Ok(Some((token, _))) if !token.is_over(now) => token.view.expires_at?,
            Ok(Some(_)) => match self.end(id, How::Expired).await {
                Ok(ended) => return ended.then_some(id),
                Err(_) => now.after(RETRY),
            },
            Err(_) => now.after(RETRY),
        };
        let _ = self.with_open(|open| open.expiry.insert(id, later));
        None
    }

    /// Removes what dead tokens have left, until nothing is due. One at a time does this.
    async fn drain(self: Rc<Self>) {
        let mine = self.with_open(|open| !std::mem::replace(&mut open.draining, true));
        if mine != Ok(true) {
            return;
        }
        let opening = self.opening.get();
        loop {
            let now = self.clock.now();
            let due = self.with_open(|open| open.take_endings(now, TOGETHER)).unwrap_or_default();
            if due.is_empty() || self.opening.get() != opening {
                break;
            }
            join_all(due.iter().map(|id| self.clean_up_or_wait(*id))).await;
        }
        let _ = self.with_open(|open| open.draining = false);
    }

    async fn clean_up_or_wait(self: &Rc<Self>, id: TokenId) {
        let done = guarded_async(self.clean_up(id)).await.unwrap_or(Err(AccessError::Internal));
        if let Err(error) = done {
            tracing::warn!(kind = ?error.kind(), "a dead token's leavings, tried again");
            let later = self.clock.now().after(RETRY);
            let _ = self.with_open(|open| open.note_ending(later, id));
        }
    }

    /// Removes what one dead token has left.
    async fn clean_up(self: &Rc<Self>, id: TokenId) -> Result<(), AccessError> {
        let Some(plain) = self.barrier.read(&ending_record(id)).await? else { return Ok(()) };
        let note: EndingRecord = decode(&plain.bytes).map_err(broken)?;
        let leases = self.lease_revoke.commit(lease::RevokeToken { token: id }).await;
        leases.map_err(|_| AccessError::Internal)?.map_err(|error| {
            tracing::warn!(kind = ?error.kind(), "leases of a dead token");
            AccessError::Internal
        })?;
        if note.keep_children {
            self.orphan_children(id).await?;
        } else {
            self.end_children(id).await?;
        }
        self.barrier.delete_all(&cubbyhole_folder(id)).await?;
        // Last of all, since nothing of the above waits for the audit.
        if let Some(accessor) = note.expired {
            self.tell_expired(accessor).await?;
        }
        Ok(self.barrier.commit(Changes::new().delete(ending_record(id))).await?)
    }

    /// Has it written down that a token's time came; twice if the note of it survives that.
    async fn tell_expired(&self, accessor: String) -> Result<(), AccessError> {
        let items = vec![SecretBytes::new(accessor.into_bytes())];
        let asked = Fingerprint { purpose: Purpose::Audit, items };
        let hashes = self.barrier.keys().fingerprint(asked).await.map_err(BarrierError::from)?;
        let accessor = *hashes.first().ok_or(AccessError::Internal)?;
        let line = Entry::TokenExpired { time: self.clock.now(), accessor };
        let told = self.audit.ask(Append(vec![line]), TOLD).await;
        if matches!(told, Ok(Ok(()))) { Ok(()) } else { Err(AccessError::Internal) }
    }

    /// Ends the children; theirs follow, since each leaves a note of its own.
    async fn end_children(self: &Rc<Self>, parent: TokenId) -> Result<(), AccessError> {
        while let Some(children) = self.some_children(parent).await? {
            let ends = children.iter().map(|child| async move {
                if self.end(*child, How::Revoked).await? {
                    return Ok(Some(*child));
                }
                let trace = Changes::new().delete(child_record(parent, *child));
                self.barrier.commit(trace).await?;
                Ok::<_, AccessError>(None)
            });
            let ends = join_all(ends).await;
            let ended: Vec<TokenId> = ends.iter().flatten().flatten().copied().collect();
            if !ended.is_empty() {
                self.settle(ended, Duration::ZERO).await;
            }
            ends.into_iter().collect::<Result<Vec<_>, _>>()?;
        }
        Ok(())
    }

    /// Lets the children live on without a parent.
    async fn orphan_children(&self, parent: TokenId) -> Result<(), AccessError> {
        while let Some(children) = self.some_children(parent).await? {
            let orphans = children.iter().map(|child| self.orphan(parent, *child));
            join_all(orphans).await.into_iter().collect::<Result<Vec<()>, _>>()?;
            // Replicas know the parent as an ancestor; they read the children anew.
            self.replicas.forget(children).await;
        }
        Ok(())
    }

    async fn orphan(&self, parent: TokenId, child: TokenId) -> Result<(), AccessError> {
        let _change = turn(&self.changing, child).await?;
        for _ in 0..TRIES {
            let trace = Changes::new().delete(child_record(parent, child));
            let changes = match read_token(&self.barrier, child).await? {
                Some((mut token, version)) if token.parent == Some(parent) => {
                    token.parent = None;
                    token.view.orphan = true;
                    let bytes = encode_token(&token).map_err(broken)?;
                    trace.put(token_record(child), version, bytes)
                }
                _ => trace,
            };
            match self.barrier.commit(changes).await {
                Ok(()) => return Ok(()),
                Err(error) if error.failed_expectation().is_some() => {}
                Err(error) => return Err(error.into()),
            }
        }
        Err(AccessError::Internal)
    }

    /// Some of a token's children; `None` when there are no more.
    async fn some_children(&self, parent: TokenId) -> Result<Option<Vec<TokenId>>, AccessError> {
        let folder = children_folder(parent);
        let page = self.barrier.scan(&folder, None, TOGETHER).await?;
        if page.is_empty() {
            return Ok(None);
        }
        let children: Vec<TokenId> = page
            .into_iter()
            .filter_map(|(_, plain)| {
                let record: ChildRecord = decode(&plain.ok()?.bytes).ok()?;
                TokenId::parse_hex(&record.child).ok()
            })
            .collect();
        if children.is_empty() {
            // Traces that cannot be read: the children are dead by their parent all the same.
            tracing::error!("unreadable traces of a dead token's children removed");
            self.barrier.delete_all(&folder).await?;
            return Ok(None);
        }
        Ok(Some(children))
    }

    /// Removes accessors and traces of children whose token is gone; ends tokens that are over.
    pub(super) async fn tidy(self: Rc<Self>, _msg: TidyTokens) -> Result<u64, AccessError> {
        if !self.is_open() {
            return Err(AccessError::Sealed);
        }
        let mut removed = 0;
        let mut pages = Pages::new(RecordPath::new(&["accessor"]));
        while let Some(page) = pages.next(&self.barrier).await? {
            for plain in page {
                let Ok(record) = decode::<AccessorRecord>(&plain.bytes) else { continue };
                let path = RecordPath::new(&["accessor", &record.accessor]);
                removed += self.remove_trace(path, &record.token).await?;
            }
        }
        let mut pages = Pages::new(RecordPath::new(&["children"]));
        while let Some(page) = pages.next(&self.barrier).await? {
            for plain in page {
                let Ok(record) = decode::<ChildRecord>(&plain.bytes) else { continue };
                let path = RecordPath::new(&["children", &record.parent, &record.child]);
                removed += self.remove_trace(path, &record.child).await?;
            }
        }
        Ok(removed)
    }

    /// Removes a record that leads to a token which is not there.
    async fn remove_trace(&self, path: RecordPath, token: &str) -> Result<u64, AccessError> {
        let Ok(id) = TokenId::parse_hex(token) else { return Ok(0) };
        if self.barrier.exists(&token_record(id)).await? {
            return Ok(0);
        }
        let changes = Changes::new().expect(token_record(id), Expect::Absent).delete(path);
        match self.barrier.commit(changes).await {
            Ok(()) => Ok(1),
            Err(error) if error.failed_expectation().is_some() => Ok(0),
            Err(error) => Err(error.into()),
        }
    }

    pub(super) async fn load_endings(&self, opening: u64) -> Result<(), AccessError> {
        let mut pages = Pages::new(RecordPath::new(&["token-ending"]));
        while let Some(page) = pages.next(&self.barrier).await? {
            let now = self.clock.now();
            for plain in page {
                let Ok(note) = decode::<EndingRecord>(&plain.bytes) else { continue };
                let Ok(id) = TokenId::parse_hex(&note.token) else { continue };
                self.while_opening(opening, |open| open.note_ending(now, id))?;
            }
        }
        Ok(())
    }

    pub(super) async fn load_expiries(&self, opening: u64) -> Result<(), AccessError> {
        let mut pages = Pages::new(RecordPath::new(&["token"]));
        while let Some(page) = pages.next(&self.barrier).await? {
            for plain in page {
                let Ok(token) = decode_token(&plain.bytes) else { continue };
                let (id, Some(end)) = (token.view.id, token.view.expires_at) else { continue };
                self.while_opening(opening, |open| {
                    // A renewal since is newer than what was just read.
                    if open.expiry.ends_at(&id).is_none() {
                        open.expiry.insert(id, end);
                    }
                })?;
            }
        }
        Ok(())
    }

    fn while_opening(&self, opening: u64, work: impl FnOnce(&mut Open)) -> Result<(), AccessError> {
        if self.opening.get() != opening {
            return Err(AccessError::Sealed);
        }
        self.with_open(work)
    }
}

impl Open {
    fn note_ending(&mut self, when: Timestamp, id: TokenId) {
        self.next_ending += 1;
        self.endings.insert((when, self.next_ending), id);
    }

    fn take_endings(&mut self, now: Timestamp, limit: usize) -> Vec<TokenId> {
        let mut due = Vec::new();
        while due.len() < limit {
            match self.endings.first_entry() {
                Some(entry) if entry.key().0 <= now => due.push(entry.remove()),
                _ => break,
            }
        }
        due
    }
}
