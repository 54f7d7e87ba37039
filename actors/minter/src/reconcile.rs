//! Compares the logins that are there with the leases that there are, one connection after another.
//!
//! Order makes it right: roles are listed before leases, and a lease is stored before its login is
//! made and outlives it. So a login that was listed and has no lease in the list has none; and it is
//! looked at once more before anything is decided. Only a role whose marker is its own is touched.

mod compare;
mod restored;
mod survey;

use std::cell::Cell;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use mssm_domain::MountId;
use mssm_messages::engine::EngineError;
use mssm_messages::keys::KeyError;
use mssm_messages::reconcile::{ConnectionReport, NoteReconciled, Reconcile};
use mssm_messages::{BarrierError, guarded_async};
use tokio::sync::Mutex;
use tokio::time::Instant;

use crate::book::{Book, connection_path};
use crate::connections::names;
use crate::engine::DbError;
use crate::rotation::mounts;

/// The pause between two runs that the server makes by itself.
const EVERY: Duration = Duration::from_mins(10);
/// The pause after one that could not compare everything.
const AGAIN: Duration = Duration::from_mins(1);
/// The pause while the leases are still being loaded.
const LOADING: Duration = Duration::from_secs(5);
/// How long the lease manager may take for one of its parts.
const DEADLINE: Duration = Duration::from_secs(30);

/// Who compares, and since when. Nothing here is stored.
#[derive(Default)]
pub(crate) struct Watch {
    opening: Cell<u64>,
    /// One run at a time.
    turn: Arc<Mutex<()>>,
    beat: Cell<Option<Instant>>,
    /// True if the server was started on a restored store, until that is written down.
    pub(crate) restored: Cell<bool>,
}

impl Watch {
    /// True once in so long.
    pub(crate) fn beat_is_due(&self, every: Duration) -> bool {
        let due = self.beat.get().is_none_or(|beat| beat.elapsed() >= every);
        if due {
            self.beat.set(Some(Instant::now()));
        }
        due
    }
}

/// Why a comparison did not come to an end.
#[derive(Debug)]
enum Trouble {
    /// This connection; the others may do.
    Here(String),
    /// The lease manager or the keys: no connection can be compared now.
    Everywhere(EngineError),
}

impl From<KeyError> for Trouble {
    fn from(error: KeyError) -> Self {
        Self::Everywhere(BarrierError::Key(error).into())
    }
}

impl From<EngineError> for Trouble {
    fn from(error: EngineError) -> Self {
        Self::Everywhere(error)
    }
}

fn words(error: DbError) -> Trouble {
    Trouble::Here(error.public())
}

/// Compares by itself, from the opening to the closing that follows.
pub(crate) async fn watch(book: Rc<Book>) {
    let opening = book.watch.opening.get() + 1;
    book.watch.opening.set(opening);
    while book.cluster().is_ok() && book.watch.opening.get() == opening {
        let all = Reconcile { mount: None, connection: None, dry_run: false, confirm: false };
        let pause = match guarded_async(run(&book, all, true)).await {
            Ok(Ok(reports)) if reports.iter().all(|report| report.held_back.is_none()) => EVERY,
            Ok(Ok(_)) | Err(_) => AGAIN,
            Ok(Err(error)) => {
                tracing::debug!(%error, "logins and leases cannot be compared yet");
                LOADING
            }
        };
        tokio::time::sleep(pause).await;
    }
}

/// See [`Reconcile`].
pub(crate) async fn reconcile(
    book: &Rc<Book>,
    msg: Reconcile,
) -> Result<Vec<ConnectionReport>, EngineError> {
    run(book, msg, false).await
}

async fn run(
    book: &Rc<Book>,
    msg: Reconcile,
    automatic: bool,
) -> Result<Vec<ConnectionReport>, EngineError> {
    let _turn = book.watch.turn.lock().await;
    let held = restored::holds_back(book, msg.confirm).await?.then_some(restored::HELD_BACK);
    let mut reports = Vec::new();
    for (mount, name) in connections(book, &msg).await? {
        reports.push(one(book, mount, name, msg.dry_run, held).await?);
    }
    let note = NoteReconciled { reports: reports.clone(), automatic, dry_run: msg.dry_run };
    match book.leases.reconcile.note.ask(note, DEADLINE).await {
        Ok(Ok(())) => {}
        // It opens after us.
        Ok(Err(error)) if automatic => return Err(EngineError::Unavailable(error.to_string())),
        Ok(Err(_)) | Err(_) => {
            tracing::warn!("what a comparison of logins and leases found was not written down");
        }
    }
    Ok(reports)
}

/// The connections that are asked for.
async fn connections(book: &Book, msg: &Reconcile) -> Result<Vec<(MountId, String)>, EngineError> {
    let mut found = Vec::new();
    for mount in mounts(book).await? {
        if msg.mount.is_some_and(|asked| asked != mount) {
            continue;
        }
        for name in names(book, &connection_path(mount, "")).await? {
            let asked = msg.connection.as_ref().is_none_or(|asked| asked.as_str() == name);
            if asked {
                found.push((mount, name));
            }
        }
    }
    match &msg.connection {
        Some(name) if found.is_empty() => Err(EngineError::Unknown(format!(
            "failed to find entry for connection with name: \"{}\"",
            name.as_str()
        ))),
        _ => Ok(found),
    }
}

async fn one(
    book: &Rc<Book>,
    mount: MountId,
    connection: String,
    dry_run: bool,
    held: Option<&str>,
) -> Result<ConnectionReport, EngineError> {
    let mut report = ConnectionReport {
        mount,
        connection,
        held_back: None,
        marked: 0,
        leases: 0,
        findings: Vec::new(),
    };
    let compared = guarded_async(compare::compare(book, &mut report, dry_run, held)).await;
    report.held_back = match compared {
        Ok(Ok(held_back)) => held_back,
        Ok(Err(Trouble::Here(why))) => Some(why),
        Ok(Err(Trouble::Everywhere(error))) => return Err(error),
        Err(_) => Some("internal error".to_owned()),
    };
    if let Some(why) = &report.held_back {
        tracing::warn!(
            connection = report.connection,
            why,
            "logins and leases were not compared, or nothing was done about what was found"
        );
    }
    Ok(report)
}
