//! The end of a log, and what is written to it from then on.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Seek, SeekFrom};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::Duration;

/// How often it is looked for more.
const PAUSE: Duration = Duration::from_millis(300);
/// So much of the end is read at first.
const TAIL_BYTES: u64 = 4 << 20;

/// Hands the last `number` lines to `each`; goes on with what follows, for ever, if told so.
///
/// A file that was closed and followed by another is left for that.
pub(crate) fn tail(
    file: &Path,
    number: usize,
    follow: bool,
    each: &mut dyn FnMut(&str) -> io::Result<()>,
) -> io::Result<()> {
    let mut reader = BufReader::new(File::open(file)?);
    let length = reader.get_ref().metadata()?.len();
    if let Some(start) = length.checked_sub(TAIL_BYTES) {
        reader.seek(SeekFrom::Start(start))?;
        reader.skip_until(b'\n')?;
    }
    let mut lines = Vec::new();
    let mut line = String::new();
    while whole(&mut reader, &mut line)? {
        lines.push(std::mem::take(&mut line));
    }
    let shown: Vec<&String> = lines.iter().filter(|line| is_told(line)).collect();
    for line in shown.iter().skip(shown.len().saturating_sub(number)) {
        each(line)?;
    }
    if !follow {
        return Ok(());
    }
    loop {
        if whole(&mut reader, &mut line)? {
            if is_told(&line) {
                each(&line)?;
            }
            line.clear();
            continue;
        }
        let ours = reader.get_ref().metadata()?;
        match std::fs::metadata(file) {
            Ok(named) if named.ino() != ours.ino() => reader = BufReader::new(File::open(file)?),
            // Between two files there is none for a moment.
            Ok(_) | Err(_) => pause(),
        }
    }
}

/// Checkpoints say nothing to people.
fn is_told(line: &str) -> bool {
    !line.contains("\"type\":\"checkpoint\"")
}

/// Reads a line with its break; what has none yet stays for the next try.
fn whole(reader: &mut BufReader<File>, line: &mut String) -> io::Result<bool> {
    reader.read_line(line)?;
    if line.ends_with('\n') {
        line.pop();
        return Ok(true);
    }
    Ok(false)
}

#[expect(clippy::disallowed_methods, reason = "a command that watches a file waits between looks")]
fn pause() {
    std::thread::sleep(PAUSE);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_lines_are_told_without_checkpoints() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let lines: Vec<String> = (0..9)
            .map(|number| {
                format!(
                    "{{\"n\":{number},\"type\":\"{}\"}}",
                    if number % 2 == 0 { "event" } else { "checkpoint" }
                )
            })
            .collect();
        std::fs::write(file.path(), lines.join("\n") + "\n").unwrap();
        let mut told = Vec::new();
        tail(file.path(), 2, false, &mut |line| {
            told.push(line.to_owned());
            Ok(())
        })
        .unwrap();
        assert_eq!(told, [lines[6].clone(), lines[8].clone()]);
    }
}
