//! Files that were closed: their names, compression, and how long they are kept.
//!
//! `audit.log.<first>-<last>` holds the records with these numbers; `.zst` is added once it is
//! compressed. The log goes on in `audit.log`.

use std::fs::{File, OpenOptions};
use std::io::{self, BufRead, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, UNIX_EPOCH};

use mssm_domain::Timestamp;

use super::file::nofollow;
use super::read_line;
use crate::prefix::Prefix;

/// What compression may cost: beside the log, on a thread of its own.
const LEVEL: i32 = 3;
const COMPRESSED: &str = ".zst";
/// What a compressed file is called until it is whole.
const PART: &str = ".part";

/// How long closed files are kept: those beyond any bound are removed, the oldest first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Keep {
    /// At most so many; `None` is all.
    pub files: Option<usize>,
    /// For so long after they were closed; `None` is for ever.
    pub age: Option<Duration>,
}

/// A closed file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Retired {
    pub(super) first: u64,
    pub(super) last: u64,
    pub(super) path: PathBuf,
}

impl Retired {
    /// True if its first line is the one that its name says.
    pub(super) fn begins(&self) -> bool {
        let mut line = Vec::new();
        let read = open(&self.path).and_then(|mut file| read_line(&mut file, &mut line));
        let first = line.strip_suffix(b"\n").and_then(Prefix::parse);
        read.is_ok() && first.is_some_and(|first| first.seq == self.first)
    }

    fn is_compressed(&self) -> bool {
        self.path.to_string_lossy().ends_with(COMPRESSED)
    }
}

/// The name of a file that is closed with these records in it.
pub(super) fn name(log: &Path, first: u64, last: u64) -> PathBuf {
    with_suffix(log, &format!(".{first:012}-{last:012}"))
}

/// The name of a file that does not hold the `count` records that were written to it.
pub(super) fn damaged(log: &Path, count: u64) -> PathBuf {
    with_suffix(log, &format!(".damaged-{count}"))
}

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.to_path_buf().into_os_string();
    name.push(suffix);
    name.into()
}

/// The closed files of a log, oldest first.
pub(super) fn list(log: &Path) -> io::Result<Vec<Retired>> {
    let folder = folder(log);
    let base = log.file_name().unwrap_or_default().to_string_lossy().into_owned() + ".";
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        // A pipe would keep whoever opens it, a link would lead elsewhere.
        if !entry.file_type()?.is_file() {
            continue;
        }
        let name = entry.file_name().to_string_lossy().into_owned();
        let Some(numbers) = name.strip_prefix(&base) else { continue };
        let numbers = numbers.strip_suffix(COMPRESSED).unwrap_or(numbers);
        let parts = numbers.split_once('-');
        let parsed =
            parts.and_then(|(first, last)| Some((first.parse().ok()?, last.parse().ok()?)));
        if let Some((first, last)) = parsed {
            found.push(Retired { first, last, path: entry.path() });
        }
    }
    found.sort_by(|one, other| (one.first, &one.path).cmp(&(other.first, &other.path)));
    Ok(found)
}

pub(super) fn folder(log: &Path) -> &Path {
    match log.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    }
}

/// Makes what happened to a folder's names durable.
pub(super) fn sync_folder(log: &Path) -> io::Result<()> {
    File::open(folder(log))?.sync_all()
}

/// Compresses what is not yet, and removes what is to be kept no longer; names what was removed.
pub(super) fn tidy(log: &Path, keep: Keep, now: Timestamp) -> io::Result<Vec<String>> {
    for file in list(log)?.iter().filter(|file| !file.is_compressed()) {
        compress(&file.path)?;
    }
    let files = list(log)?;
    let surplus = keep.files.map_or(0, |bound| files.len().saturating_sub(bound));
    let mut removed = Vec::new();
    for (index, file) in files.iter().enumerate() {
        if index < surplus || keep.age.is_some_and(|age| is_older(&file.path, age, now)) {
            std::fs::remove_file(&file.path)?;
            removed.push(format!("{}-{}", file.first, file.last));
        }
    }
    sync_folder(log)?;
    Ok(removed)
}

/// Opens a closed file, which may have been compressed since it was listed.
pub(super) fn open(file: &Path) -> io::Result<Box<dyn BufRead>> {
    match crate::verify::open(file) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            crate::verify::open(&with_suffix(file, COMPRESSED))
        }
        opened => opened,
    }
}

/// Hands out the whole lines of the newest closed file, if there is one.
pub(super) fn each_of_newest(log: &Path, each: &mut dyn FnMut(&[u8])) -> io::Result<()> {
    let Some(newest) = list(log)?.pop() else { return Ok(()) };
    let mut reader = open(&newest.path)?;
    let mut line = Vec::new();
    while read_line(&mut reader, &mut line)? > 0 {
        if let Some(whole) = line.strip_suffix(b"\n") {
            each(whole);
        }
    }
    Ok(())
}

fn is_older(file: &Path, age: Duration, now: Timestamp) -> bool {
    let modified = file.metadata().and_then(|metadata| metadata.modified());
    let since = modified.ok().and_then(|at| at.duration_since(UNIX_EPOCH).ok());
    since.is_some_and(|since| Duration::from_millis(now.unix_ms()).saturating_sub(since) > age)
}

/// The compressed file is whole and durable before the plain one goes.
fn compress(file: &Path) -> io::Result<()> {
    let (whole, part) = (with_suffix(file, COMPRESSED), with_suffix(file, PART));
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(true).mode(0o600).custom_flags(nofollow());
    let target = options.open(&part)?;
    let mut encoder = zstd::stream::write::Encoder::new(&target, LEVEL)?;
    encoder.include_checksum(true)?;
    io::copy(&mut File::open(file)?, &mut encoder)?;
    encoder.finish()?.flush()?;
    target.sync_all()?;
    std::fs::rename(&part, whole)?;
    sync_folder(file)?;
    std::fs::remove_file(file)
}
