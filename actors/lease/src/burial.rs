//! Removes leases that have ended, leaves a tombstone each, and says which ended lately.
//!
//! A start needs the tombstones of the last minutes alone, and hidden names have no order: so each
//! burial leaves a note of whom it buried, which goes long before the tombstones do.

use std::rc::Rc;
use std::time::Duration;

use mssm_domain::{LeaseId, LeaseState, RecordPath, SecretBytes, StoredKey, Timestamp};
use mssm_messages::keys::KeyError;
use mssm_messages::{BarrierError, Changes, Plain, failpoint};
use serde::{Deserialize, Serialize};
use tracing::warn;

use crate::book::Reply;
use crate::letter::said_of;
use crate::record::{bytes_of, ended_path, live_path, token_path};
use crate::session::{Session, bump};
use crate::sweep::Found;

/// How long a note is kept: a session that began before its login ended can hide for 2,147 s.
const NOTE_LIFE: Duration = Duration::from_hours(1);
/// Notes read at a time; each is of a batch of leases.
const NOTES: usize = 20;
const NOTE_VERSION: u8 = 1;

/// Whom one burial buried.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct NoteRecord {
    version: u8,
    ended_at: u64,
    leases: Vec<String>,
}

fn notes() -> RecordPath {
    RecordPath::new(&["lease-ended-lately"])
}

/// The time is in the name: a lease may be reopened and end again.
fn note_path(ended_at: u64, first: &str) -> RecordPath {
    RecordPath::new(&["lease-ended-lately", &format!("{ended_at}-{first}")])
}

fn note_lately(ended: &[Found], now: Timestamp) -> Result<Changes, BarrierError> {
    let leases: Vec<String> =
        ended.iter().map(|(_, record)| record.lease.id.as_str().to_owned()).collect();
    let Some(first) = leases.first() else { return Ok(Changes::new()) };
    let path = note_path(now.unix_ms(), first);
    let note = NoteRecord { version: NOTE_VERSION, ended_at: now.unix_ms(), leases };
    let bytes = serde_json::to_vec(&note).map_err(|error| {
        warn!(%error, "a note of leases that have ended cannot be written");
        BarrierError::from(KeyError::Damaged)
    })?;
    Ok(Changes::new().lay(path, SecretBytes::new(bytes)))
}

fn read_note(plain: &Plain) -> Option<NoteRecord> {
    // EXPOSE: a note holds ids of leases, which are no secrets.
    let note: NoteRecord = serde_json::from_slice(plain.bytes.expose()).ok()?;
    (note.version == NOTE_VERSION).then_some(note)
}

impl NoteRecord {
    /// A note of the future was written before the clock was set back.
    fn is_old(&self, now: Timestamp) -> bool {
        Timestamp::from_unix_ms(self.ended_at).after(NOTE_LIFE) <= now
    }
}

/// Some of the leases that ended within the last hour, and where the next page begins.
pub(crate) async fn lately(
    session: &Session,
    after: Option<&StoredKey>,
) -> Result<(Vec<LeaseId>, Option<StoredKey>), BarrierError> {
    let page = session.ground.barrier.scan(&notes(), after, NOTES).await?;
    let now = session.now();
    let read = page.iter().filter_map(|(_, plain)| read_note(plain.as_ref().ok()?));
    let fresh = read.filter(|note| !note.is_old(now)).flat_map(|note| note.leases);
    let leases = fresh.filter_map(|lease| LeaseId::parse(&lease).ok()).collect();
    let last = page.last().map(|(key, _)| key.clone());
    Ok((leases, last.filter(|_| page.len() == NOTES)))
}

/// Removes notes that nobody asks for any more.
pub(crate) async fn tidy_notes(session: &Session) -> Result<(), BarrierError> {
    let mut after: Option<StoredKey> = None;
    while !session.is_closed() {
        let page = session.ground.barrier.scan(&notes(), after.as_ref(), NOTES).await?;
        let now = session.now();
        let read = page.iter().filter_map(|(_, plain)| read_note(plain.as_ref().ok()?));
        let mut changes = Changes::new();
        for note in read.filter(|note| note.is_old(now)) {
            if let Some(first) = note.leases.first() {
                changes = changes.delete(note_path(note.ended_at, first));
            }
        }
        if !changes.is_empty() {
            session.ground.barrier.commit(changes).await?;
        }
        after = page.last().map(|(key, _)| key.clone());
        if page.len() < NOTES {
            break;
        }
        tokio::task::yield_now().await;
    }
    Ok(())
}

impl Session {
    /// Ends leases whose leftovers outside have been given up.
    pub(crate) async fn bury_forced(self: &Rc<Self>, leases: &[Rc<str>]) {
        let mut given_up = Vec::new();
        for lease in leases {
            if let Ok(Some((version, mut record))) = self.read(lease).await {
                warn!(lease = %record.lease.id, "ended by force, something may be left outside");
                record.left_behind = true;
                given_up.push((version, record));
            } else {
                self.fail(lease, Reply::Answered, false, "its record cannot be read");
            }
        }
        if !given_up.is_empty() {
            self.bury(given_up).await;
        }
    }

    /// Removes ended leases and leaves a tombstone each.
    pub(crate) async fn bury(self: &Rc<Self>, mut ended: Vec<Found>) {
        let now = self.now();
        for (_, record) in &mut ended {
            record.state = LeaseState::Ended;
            record.ended_at = Some(now);
        }
        let together = self.bury_together(&ended).await;
        for found in ended {
            let buried = match &together {
                Ok(()) => Ok(()),
                Err(_) => self.bury_alone(&found).await,
            };
            let record = found.1;
            let lease = record.lease.id.as_str();
            self.tell(lease, &Ok(()));
            if let Err(error) = buried {
                warn!(%error, lease, "an ended lease could not be buried; it is tried again");
                self.fail(lease, Reply::Answered, false, "its end could not be stored");
                continue;
            }
            self.book.borrow_mut().remove(lease);
            bump(&self.ended_total);
        }
        self.changed();
    }

    async fn bury_together(&self, ended: &[Found]) -> Result<(), BarrierError> {
        let mut changes = Changes::new();
        let mut lines = Vec::with_capacity(ended.len());
        for (_, record) in ended {
            let (name, why) = said_of(record);
            lines.push(self.line(name, record, why));
            let lease = record.lease.id.as_str();
            changes = changes
                .put(ended_path(lease), 0, bytes_of(record)?)
                .delete(live_path(lease))
                .delete(token_path(record.token, lease));
        }
        let changes = changes.and(note_lately(ended, self.now())?);
        failpoint::here("revoke.before_burial");
        let buried = self.commit(changes, lines).await;
        failpoint::here("revoke.after_burial");
        buried
    }

    /// After a commit that failed: one that is gone already was buried by it after all.
    async fn bury_alone(&self, found: &Found) -> Result<(), BarrierError> {
        match self.read(found.1.lease.id.as_str()).await? {
            None => Ok(()),
            Some(_) => self.bury_together(std::slice::from_ref(found)).await,
        }
    }
}
