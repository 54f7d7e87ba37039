//! Where the log's lines go.

mod file;
mod memory;
#[cfg(test)]
mod suite;

pub use file::FileBackend;
pub(crate) use file::LINE_BYTES_MAX;
pub use memory::MemoryBackend;

/// Why a backend takes no lines at the moment, in words for the operator.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Blocked(pub String);

/// What a log was found to hold when it was opened.
#[derive(Debug, Default)]
pub struct Found {
    /// Bytes of a last line that was cut off by a crash; they have been moved aside.
    pub torn: Option<String>,
}

/// A place that keeps lines for good.
///
/// Not `Clone` and used by one thread: there is one writer. After an error nothing of the batch is
/// in the log, and the same call may succeed later; only a failed sync is final.
pub trait AuditBackend: Send + 'static {
    /// Opens the log and hands whole lines in it to `each`, oldest first, without their breaks:
    /// those of at least the last `tail` bytes.
    fn open(&mut self, tail: u64, each: &mut dyn FnMut(&[u8])) -> Result<Found, Blocked>;

    /// Appends whole lines, each with its break, durably: all or nothing.
    fn append(&mut self, lines: &[u8]) -> Result<(), Blocked>;

    /// True if what was written is still in its place; an error says what became of it. The next
    /// `open` begins anew after that.
    fn inspect(&mut self) -> Result<(), Blocked>;

    /// The line with this number, without its break; `None` if it lies before the lines here.
    fn find(&mut self, seq: u64) -> Result<Option<Vec<u8>>, Blocked>;

    /// Where it is, for the operator.
    fn place(&self) -> String;
}
