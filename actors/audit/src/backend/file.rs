//! A log in one file, which only the server's user can read.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{DirBuilderExt, FileExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::thread::JoinHandle;

use mssm_domain::Timestamp;
use mssm_messages::failpoint;
use rustix::fs::{FlockOperation, flock};
use rustix::process::geteuid;

use super::retired::{self, Keep};
use super::{AuditBackend, Blocked, Found, LINE_BYTES_MAX, read_line};
use crate::prefix::Prefix;

/// What every line begins with.
const BEGINNING: &[u8] = b"{\"seq\":";

/// A log in one file, appended to and synced; the file is watched for being moved, cut or opened up.
#[derive(Debug)]
pub struct FileBackend {
    path: PathBuf,
    open: Option<Open>,
    /// Why nothing is written any more: a sync failed, so what is on the disk is unknown.
    poisoned: Option<String>,
    keep: Keep,
    /// The first record of the oldest closed file.
    oldest: Option<u64>,
    /// Compresses closed files; names the records of those that it removed.
    tidying: Option<JoinHandle<io::Result<Vec<String>>>>,
    removed: Vec<String>,
}

#[derive(Debug)]
struct Open {
    file: File,
    length: u64,
}

impl FileBackend {
    /// A log at a path whose folder exists. Nothing is touched before it is opened.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self::keeping(path, Keep::default())
    }

    /// The same, whose closed files are kept so long.
    pub fn keeping(path: impl Into<PathBuf>, keep: Keep) -> Self {
        let path = path.into();
        let (tidying, removed) = (None, Vec::new());
        Self { path, open: None, poisoned: None, keep, oldest: None, tidying, removed }
    }

    /// True if a file is empty, or its first line could be one of ours.
    pub(crate) fn begins_as_a_log(path: &std::path::Path) -> io::Result<bool> {
        let mut options = OpenOptions::new();
        let file = options.read(true).custom_flags(nofollow()).open(path)?;
        let mut start = Vec::new();
        file.take(BEGINNING.len() as u64).read_to_end(&mut start)?;
        Ok(BEGINNING.starts_with(&start))
    }

    /// Notes what the last tidying did, if it is done.
    fn note_tidied(&mut self) {
        let Some(tidied) = self.tidying.take_if(|thread| thread.is_finished()) else { return };
        match tidied.join() {
            Ok(Ok(removed)) => self.removed.extend(removed),
            Ok(Err(error)) => tracing::warn!(%error, "closed audit files could not be tidied"),
            Err(_) => tracing::error!("tidying closed audit files panicked"),
        }
        self.look_for_oldest();
    }

    fn look_for_oldest(&mut self) {
        match retired::list(&self.path) {
            Ok(files) => self.oldest = files.first().map(|file| file.first),
            Err(error) => tracing::warn!(%error, "closed audit files cannot be listed"),
        }
    }

    /// A line of a closed file.
    fn find_closed(&self, seq: u64) -> io::Result<Option<Vec<u8>>> {
        let holds = |file: &retired::Retired| (file.first..=file.last).contains(&seq);
        let Some(file) = retired::list(&self.path)?.into_iter().find(holds) else {
            return Ok(None);
        };
        let mut reader = retired::open(&file.path)?;
        let mut line = Vec::new();
        while read_line(&mut reader, &mut line)? > 0 {
            let whole = line.strip_suffix(b"\n").unwrap_or(&line);
            if Prefix::parse(whole).is_some_and(|prefix| prefix.seq == seq) {
                return Ok(Some(whole.to_vec()));
            }
        }
        Ok(None)
    }

    fn blocked(&self, action: &str, error: &io::Error) -> Blocked {
        Blocked(format!("cannot {action} {}: {error}", self.path.display()))
    }

    fn open_file(&self) -> io::Result<File> {
        let named = self.path.parent().filter(|folder| !folder.as_os_str().is_empty());
        let folder = named.unwrap_or(Path::new("."));
        DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
        refuse_shared(folder)?;
        let file = OpenOptions::new()
            .read(true)
            .append(true)
            .create(true)
            .mode(0o600)
            // A symbolic link would let the log be laid over another file.
            .custom_flags(nofollow())
            .open(&self.path)?;
        let metadata = file.metadata()?;
        if !metadata.is_file() {
            return Err(io::Error::other("it is not a regular file"));
        }
        file.set_permissions(std::fs::Permissions::from_mode(0o600))?;
        flock(&file, FlockOperation::NonBlockingLockExclusive)
            .map_err(|_| io::Error::other("another server writes it"))?;
        // The name itself must survive a crash too.
        retired::sync_folder(&self.path)?;
        Ok(file)
    }

    /// Moves the beginning of a line that never got its end into a file of its own.
    fn set_aside(&self, file: &File, whole: u64, torn: &[u8]) -> io::Result<String> {
        let mut name = self.path.clone().into_os_string();
        name.push(format!(".torn-{whole}"));
        let aside = PathBuf::from(name);
        let mut copy = OpenOptions::new();
        copy.write(true).create(true).truncate(true).mode(0o600).custom_flags(nofollow());
        let mut copy = copy.open(&aside)?;
        copy.write_all(torn)?;
        copy.sync_all()?;
        file.set_len(whole)?;
        file.sync_all()?;
        Ok(aside.display().to_string())
    }
}

pub(super) fn nofollow() -> i32 {
    i32::try_from(rustix::fs::OFlags::NOFOLLOW.bits()).unwrap_or_default()
}

/// Skips what lies before the tail, to the beginning of a line; says how many bytes that is.
fn skip_to(reader: &mut BufReader<&File>, tail: u64) -> io::Result<u64> {
    let length = reader.get_ref().metadata()?.len();
    let Some(start) = length.checked_sub(tail) else { return Ok(0) };
    reader.seek(SeekFrom::Start(start))?;
    let mut partial = Vec::new();
    let skipped = reader.by_ref().take(LINE_BYTES_MAX as u64).read_until(b'\n', &mut partial)?;
    if partial.last() == Some(&b'\n') {
        return Ok(start + skipped as u64);
    }
    // No end of a line in sight: the one that begins here is longer than the tail.
    reader.rewind()?;
    Ok(0)
}

/// Halves the file until the line is found: numbers only grow.
fn find_line(file: &File, length: u64, seq: u64) -> io::Result<Option<Vec<u8>>> {
    let (mut low, mut high) = (0, length);
    let mut found = None;
    while low < high {
        let middle = low + (high - low) / 2;
        let Some((start, line)) = line_from(file, middle)? else {
            high = middle;
            continue;
        };
        let Some(number) = Prefix::parse(&line).map(|prefix| prefix.seq) else { return Ok(None) };
        if number < seq {
            low = start + line.len() as u64 + 1;
        } else {
            high = middle;
            found = Some((number, line));
        }
    }
    Ok(found.filter(|(number, _)| *number == seq).map(|(_, line)| line))
}

/// The first whole line that begins at an offset or behind it, and where it begins.
fn line_from(file: &File, offset: u64) -> io::Result<Option<(u64, Vec<u8>)>> {
    let mut reader = BufReader::new(file);
    let mut start = offset;
    if let Some(before) = offset.checked_sub(1) {
        reader.seek(SeekFrom::Start(before))?;
        let skipped = reader.skip_until(b'\n')?;
        start = before + skipped as u64;
    } else {
        reader.rewind()?;
    }
    let mut line = Vec::new();
    reader.take(LINE_BYTES_MAX as u64).read_until(b'\n', &mut line)?;
    Ok((line.pop() == Some(b'\n')).then_some((start, line)))
}

/// Refuses a folder in which others may put another file in the log's place: who owns it, and who may write
/// in it, unless only a file's owner may move it there (`/tmp`).
fn refuse_shared(folder: &Path) -> io::Result<()> {
    let (found, shown) = (std::fs::metadata(folder)?, folder.display());
    let (owner, mode) = (found.uid(), found.mode());
    let text = if owner != 0 && owner != geteuid().as_raw() {
        format!("its folder belongs to another user (number {owner}); run chown on {shown}")
    } else if mode & 0o022 != 0 && mode & 0o1000 == 0 {
        let mode = mode & 0o777;
        format!("others may write in its folder (mode {mode:03o}); run chmod go-w {shown}")
    } else {
        return Ok(());
    };
    Err(io::Error::new(io::ErrorKind::PermissionDenied, text))
}

impl AuditBackend for FileBackend {
    fn open(&mut self, tail: u64, each: &mut dyn FnMut(&[u8])) -> Result<Found, Blocked> {
        self.open = None;
        let file = self.open_file().map_err(|error| self.blocked("open", &error))?;
        let mut found = Found::default();
        let mut reader = BufReader::with_capacity(1 << 20, &file);
        let mut length =
            skip_to(&mut reader, tail).map_err(|error| self.blocked("read", &error))?;
        let mut line = Vec::new();
        loop {
            let read = read_line(&mut reader, &mut line);
            let read = read.map_err(|error| self.blocked("read", &error))?;
            if read == 0 {
                break;
            }
            let Some(whole) = line.strip_suffix(b"\n") else {
                let ours = Self::begins_as_a_log(&self.path);
                if !ours.map_err(|error| self.blocked("read", &error))? {
                    let path = self.path.display();
                    return Err(Blocked(format!("{path} is not an audit log: move it away")));
                }
                let aside = self
                    .set_aside(&file, length, &line)
                    .map_err(|error| self.blocked("set a torn line aside from", &error))?;
                found.torn = Some(aside);
                break;
            };
            each(whole);
            length += read as u64;
        }
        found.length = length;
        found.first = match line_from(&file, 0) {
            Ok(first) => first.map(|(_, line)| line),
            Err(error) => return Err(self.blocked("read", &error)),
        };
        self.open = Some(Open { file, length });
        if length == 0 {
            self.read_newest_closed(each)?;
        }
        self.look_for_oldest();
        Ok(found)
    }

    fn append(&mut self, lines: &[u8]) -> Result<(), Blocked> {
        if let Some(reason) = &self.poisoned {
            return Err(Blocked(reason.clone()));
        }
        let path = self.path.display().to_string();
        let Some(open) = &mut self.open else {
            return Err(Blocked(format!("{path} is not open")));
        };
        failpoint::here("audit.before_write");
        if let Err(error) = open.file.write_all_at(lines, open.length) {
            // What came through of the batch must not stay: the next one begins in its place.
            let cut = open.file.set_len(open.length);
            let undone = if cut.is_err() { ", and its beginning could not be undone" } else { "" };
            return Err(Blocked(format!("cannot write {path}: {error}{undone}")));
        }
        failpoint::here("audit.before_sync");
        failpoint::stall("audit.sync");
        let synced = open.file.sync_data();
        failpoint::here("audit.after_sync");
        if let Err(error) = synced {
            // After a failed sync the kernel may have dropped the pages: nothing is known any more.
            let reason = format!("cannot sync {path}: {error}; check the disk, then restart");
            self.poisoned = Some(reason.clone());
            return Err(Blocked(reason));
        }
        open.length += lines.len() as u64;
        Ok(())
    }

    fn inspect(&mut self) -> Result<(), Blocked> {
        let path = self.path.display().to_string();
        let Some(open) = &self.open else { return Err(Blocked(format!("{path} is not open"))) };
        let ours = open.file.metadata().map_err(|error| self.blocked("inspect", &error))?;
        let named = std::fs::symlink_metadata(&self.path);
        let reason = match named {
            Ok(named) if (named.dev(), named.ino()) != (ours.dev(), ours.ino()) => {
                "was replaced by another file"
            }
            Ok(_) if ours.len() < open.length => "was cut",
            Ok(_) if ours.len() > open.length => "was written to by somebody else",
            Ok(_) if ours.mode() & 0o077 != 0 => "was opened to other users (chmod 600 it)",
            Ok(_) => return Ok(()),
            Err(_) => "was moved or removed",
        };
        Err(Blocked(format!("{path} {reason}")))
    }

    fn is_whole(&self) -> bool {
        let Some(open) = &self.open else { return true };
        open.file.metadata().is_ok_and(|there| there.nlink() > 0 && there.len() >= open.length)
    }

    fn close(&mut self) {
        self.open = None;
    }

    fn find(&mut self, seq: u64) -> Result<Option<Vec<u8>>, Blocked> {
        let Some(open) = &self.open else {
            return Err(Blocked(format!("{} is not open", self.path.display())));
        };
        let found = find_line(&open.file, open.length, seq);
        let found = found.and_then(|line| match line {
            Some(line) => Ok(Some(line)),
            None => self.find_closed(seq),
        });
        found.map_err(|error| self.blocked("read", &error))
    }

    fn retire(&mut self, first: u64, last: u64, now: Timestamp) -> Result<(), Blocked> {
        let aside = retired::name(&self.path, first, last);
        let renamed = std::fs::rename(&self.path, aside);
        renamed
            .and_then(|()| retired::sync_folder(&self.path))
            .map_err(|error| self.blocked("close", &error))?;
        self.open = None;
        self.note_tidied();
        self.look_for_oldest();
        if self.tidying.is_none() {
            let (path, keep) = (self.path.clone(), self.keep);
            let thread = std::thread::Builder::new().name("audit-tidy".to_owned());
            match thread.spawn(move || retired::tidy(&path, keep, now)) {
                Ok(thread) => self.tidying = Some(thread),
                Err(error) => tracing::warn!(%error, "closed audit files wait for the next one"),
            }
        }
        Ok(())
    }

    fn read_newest_closed(&mut self, each: &mut dyn FnMut(&[u8])) -> Result<(), Blocked> {
        retired::each_of_newest(&self.path, each)
            .map_err(|error| self.blocked("go on with", &error))
    }

    fn put_away(&mut self, count: u64) -> Result<String, Blocked> {
        let aside = retired::damaged(&self.path, count);
        let renamed = std::fs::rename(&self.path, &aside);
        renamed
            .and_then(|()| retired::sync_folder(&self.path))
            .map_err(|error| self.blocked("set aside", &error))?;
        self.open = None;
        Ok(aside.display().to_string())
    }

    fn kept_from(&self) -> Option<u64> {
        self.oldest
    }

    fn gap(&mut self, from: u64) -> Option<(u64, u64)> {
        let mut next = from;
        // A name says nothing of what is under it: whose first line is another was put there.
        for file in retired::list(&self.path).ok()?.into_iter().filter(retired::Retired::begins) {
            if file.first > next {
                return Some((next, file.first - 1));
            }
            next = next.max(file.last.saturating_add(1));
        }
        let open = self.open.as_ref()?;
        let (_, line) = line_from(&open.file, 0).ok()??;
        let first = Prefix::parse(&line)?.seq;
        (first > next).then(|| (next, first - 1))
    }

    #[cfg(test)]
    fn is_tidying(&self) -> bool {
        self.tidying.as_ref().is_some_and(|thread| !thread.is_finished())
    }

    fn removed(&mut self) -> Vec<String> {
        self.note_tidied();
        std::mem::take(&mut self.removed)
    }

    fn keeps_files(&self) -> bool {
        true
    }

    fn place(&self) -> String {
        self.path.display().to_string()
    }
}
