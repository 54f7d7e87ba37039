//! The lines of a log in several files, compressed ones among them, as one row.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, BufRead, BufReader};
use std::path::{Path, PathBuf};

use crate::backend::read_line;
use crate::prefix::Prefix;

/// What a compressed file begins with (RFC 8878); ours are these.
const ZSTD: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];
/// And one that `logrotate` compressed (RFC 1952).
const GZIP: [u8; 2] = [0x1f, 0x8b];
/// What is read at a time.
const BUFFER: usize = 1 << 20;

/// Opens a file of a log; a compressed one is known by its first bytes.
pub(crate) fn open(file: &Path) -> io::Result<Box<dyn BufRead>> {
    let mut reader = BufReader::with_capacity(BUFFER, File::open(file)?);
    let head = reader.fill_buf()?;
    if head.starts_with(&ZSTD) {
        let plain = zstd::stream::read::Decoder::with_buffer(reader)?;
        return Ok(Box::new(BufReader::with_capacity(BUFFER, plain)));
    }
    if head.starts_with(&GZIP) {
        let plain = flate2::bufread::MultiGzDecoder::new(reader);
        return Ok(Box::new(BufReader::with_capacity(BUFFER, plain)));
    }
    Ok(Box::new(reader))
}

/// Puts the files of a log in order: by the number of their first record.
///
/// A file's first lines may have been spoiled; one that holds no record at all is none of a log.
pub(crate) fn in_order(files: &[PathBuf]) -> io::Result<Vec<PathBuf>> {
    let mut numbered = Vec::new();
    for file in files {
        let found = first_record(file)?;
        numbered.push((found, file.clone()));
    }
    numbered.sort_by_key(|(seq, _)| *seq);
    Ok(numbered.into_iter().map(|(_, file)| file).collect())
}

/// The number of a file's first record, as its first line that is one tells; 0 if it is empty.
fn first_record(file: &Path) -> io::Result<u64> {
    let (mut reader, mut line) = (open(file)?, Vec::new());
    let mut before = 0;
    let named = |text: String| io::Error::other(format!("{}{text}", file.display()));
    while read_line(&mut reader, &mut line)
        .map_err(|error| named(format!(", line {}: {error}", before + 1)))?
        > 0
    {
        let line = line.strip_suffix(b"\n").unwrap_or(&line);
        if let Some(prefix) = Prefix::parse(line) {
            return Ok(prefix.seq.saturating_sub(before));
        }
        before += 1;
    }
    if before == 0 {
        return Ok(0);
    }
    Err(named(
        ": holds no record of an audit log (of compressed files, gzip and zstd are read)"
            .to_owned(),
    ))
}

/// Where a line stands.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Place {
    /// The file; empty if there is none.
    pub file: PathBuf,
    /// The line in it, from 1.
    pub line: u64,
}

/// One line.
#[derive(Clone, Debug, Default)]
pub(crate) struct Line {
    /// Without its break.
    pub(crate) bytes: Vec<u8>,
    /// True if it had its break.
    pub(crate) whole: bool,
    /// Where it stands.
    pub(crate) place: Place,
}

/// All lines, one after the other.
pub(crate) struct Lines<'a> {
    waiting: VecDeque<PathBuf>,
    current: Option<Box<dyn BufRead + 'a>>,
    place: Place,
}

impl<'a> Lines<'a> {
    /// Those of files, oldest first.
    pub(crate) fn of_files(files: Vec<PathBuf>) -> Self {
        Self { waiting: files.into(), current: None, place: Place::default() }
    }

    /// Those of one log.
    pub(crate) fn of_log(log: impl BufRead + 'a) -> Self {
        Self { waiting: VecDeque::new(), current: Some(Box::new(log)), place: Place::default() }
    }

    /// Reads the next line into `line`; false at the end.
    pub(crate) fn next(&mut self, line: &mut Line) -> io::Result<bool> {
        loop {
            if let Some(reader) = &mut self.current {
                let read = read_line(reader, &mut line.bytes).map_err(|error| {
                    let (file, number) = (self.place.file.display(), self.place.line + 1);
                    io::Error::new(error.kind(), format!("{file}, line {number}: {error}"))
                })?;
                if read > 0 {
                    line.whole = line.bytes.last() == Some(&b'\n');
                    if line.whole {
                        line.bytes.pop();
                    }
                    self.place.line += 1;
                    line.place.line = self.place.line;
                    line.place.file.clone_from(&self.place.file);
                    return Ok(true);
                }
            }
            let Some(file) = self.waiting.pop_front() else { return Ok(false) };
            self.current = Some(open(&file)?);
            self.place = Place { file, line: 0 };
        }
    }
}
