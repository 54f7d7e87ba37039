//! A store that was restored: what its server does not know may be the work of the one before it.

use mssm_domain::{RecordPath, SecretBytes};
use mssm_messages::engine::EngineError;
use mssm_messages::{Changes, failpoint};

use crate::book::Book;

/// Why nothing is done about differences.
pub(super) const HELD_BACK: &str = "this store was restored (mssm server -restored or -accept-rollback): what it does not \
     know may be in use, so nothing is ended until that is confirmed (mssm lease reconcile -confirm)";

/// Says that nobody has confirmed yet.
fn path() -> RecordPath {
    RecordPath::new(&["reconcile-restored"])
}

/// True while nothing may be ended. Whoever starts the server on a restored store says so once; it is
/// remembered until somebody confirms.
pub(super) async fn holds_back(book: &Book, confirm: bool) -> Result<bool, EngineError> {
    let said = book.watch.restored.get();
    let known = book.barrier.exists(&path()).await?;
    if confirm {
        if known {
            failpoint::here("restored.before_confirmation");
            book.barrier.commit(Changes::new().delete(path())).await?;
            failpoint::here("restored.after_confirmation");
        }
        book.watch.restored.set(false);
        return Ok(false);
    }
    if said && !known {
        let yes = SecretBytes::new(vec![1]);
        failpoint::here("restored.before_store");
        book.barrier.commit(Changes::new().put(path(), 0, yes)).await?;
        failpoint::here("restored.after_store");
    }
    if said {
        book.watch.restored.set(false);
    }
    Ok(said || known)
}
