//! Where the log's lines go.

mod file;
mod memory;
mod remote;
mod retired;
#[cfg(test)]
mod suite;

use std::io::{self, BufRead, Read};

pub use file::FileBackend;
pub use memory::MemoryBackend;
use mssm_domain::Timestamp;
pub(crate) use remote::{Address, Http, Remote, Socket, Stdout, Syslog, facility};
pub use retired::Keep;

/// The longest line that is read back; ours are far shorter, since entries are bounded.
pub(crate) const LINE_BYTES_MAX: usize = 64 << 20;

/// Reads a line with its break, or what there is of the last one, in place of what `line` held.
///
/// Who may write the folder could put an endless one there, in a file of a few bytes: that is an error.
pub(crate) fn read_line(reader: &mut impl BufRead, line: &mut Vec<u8>) -> io::Result<usize> {
    line.clear();
    let read = reader.take(LINE_BYTES_MAX as u64 + 1).read_until(b'\n', line)?;
    if read > LINE_BYTES_MAX {
        return Err(io::Error::other("a line is longer than those of an audit log are"));
    }
    Ok(read)
}

/// Why a backend takes no lines at the moment, in words for the operator.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Blocked(pub String);

/// What a log was found to hold when it was opened.
#[derive(Debug, Default)]
pub struct Found {
    /// Bytes of a last line that was cut off by a crash; they have been moved aside.
    pub torn: Option<String>,
    /// The first line of the file that is written to; `None` if it is empty.
    pub first: Option<Vec<u8>>,
    /// How long that file is, in bytes.
    pub length: u64,
}

/// A place that keeps lines for good.
///
/// Not `Clone` and used by one thread: there is one writer. After an error nothing of the batch is
/// in the log, and the same call may succeed later; only a failed sync is final.
pub trait AuditBackend: Send + 'static {
    /// Opens the log and hands whole lines in it to `each`, oldest first, without their breaks:
    /// those of at least the last `tail` bytes. If its file is empty or not there, those of the
    /// newest closed file.
    fn open(&mut self, tail: u64, each: &mut dyn FnMut(&[u8])) -> Result<Found, Blocked>;

    /// Appends whole lines, each with its break, durably: all or nothing.
    fn append(&mut self, lines: &[u8]) -> Result<(), Blocked>;

    /// True if what was written is still in its place; an error says what became of it. The next
    /// `open` begins anew after that.
    fn inspect(&mut self) -> Result<(), Blocked>;

    /// True if what was written to the open file is all there, under whatever name.
    fn is_whole(&self) -> bool {
        true
    }

    /// Lets go of the file, so that whoever mends it is not held up.
    fn close(&mut self) {}

    /// The line with this number, without its break; `None` if it lies before the lines here.
    fn find(&mut self, seq: u64) -> Result<Option<Vec<u8>>, Blocked>;

    /// Closes the file with these records; the next `open` begins a new one.
    fn retire(&mut self, first: u64, last: u64, _now: Timestamp) -> Result<(), Blocked> {
        Err(Blocked(format!("{} keeps records {first} to {last} in one place", self.place())))
    }

    /// Hands out the whole lines of the newest closed file, oldest first, without their breaks.
    fn read_newest_closed(&mut self, _each: &mut dyn FnMut(&[u8])) -> Result<(), Blocked> {
        Ok(())
    }

    /// Puts a file that does not hold what was written to it aside, for inspection; says where.
    fn put_away(&mut self, _count: u64) -> Result<String, Blocked> {
        let place = self.place();
        Err(Blocked(format!("{place} does not hold the lines that were written to it")))
    }

    /// The first record of the oldest closed file, if there are any.
    fn kept_from(&self) -> Option<u64> {
        None
    }

    /// Records from this one on that no file holds any more.
    fn gap(&mut self, _from: u64) -> Option<(u64, u64)> {
        None
    }

    /// The records of closed files that were removed because they are to be kept no longer, as
    /// `first-last`; each is told once.
    fn removed(&mut self) -> Vec<String> {
        Vec::new()
    }

    /// True while closed files are compressed.
    #[cfg(test)]
    fn is_tidying(&self) -> bool {
        false
    }

    /// True if what it has taken is on a disk.
    fn keeps_files(&self) -> bool {
        false
    }

    /// Where it is, for the operator.
    fn place(&self) -> String;
}
