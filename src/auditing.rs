//! What auditors do with the files of a log and the public key alone.

mod follow;
mod search;

use std::fmt::Write as _;
use std::io::{IsTerminal, Write as _};
use std::path::{Path, PathBuf};

use mssm_audit::{Proof, Verdict};
use mssm_crypto::chain::CheckpointVerifier;
use mssm_messages::audit::Head;

pub(crate) use self::follow::tail;
pub(crate) use self::search::{Moment, Question, explain, leases, row, rows, search};

/// Exit code of a log that holds as far as it is signed, and goes on behind that.
pub(crate) const UNPROVEN: u8 = 3;

/// A public key: its 64 hexadecimal digits, or a file that holds them.
fn verifier(key: &str) -> Result<CheckpointVerifier, String> {
    CheckpointVerifier::parse(key).or_else(|_| {
        let text = std::fs::read_to_string(key)
            .map_err(|error| format!("{key} is neither a public key nor a file: {error}"))?;
        CheckpointVerifier::parse(&text).map_err(|error| format!("{key}: {error}"))
    })
}

/// A head as `sys/audit/key` shows it: how many records, and the newest one's hash.
fn head(text: &str) -> Result<Head, String> {
    let parse = || {
        let (count, digits) = text.split_once(':')?;
        let mut hash = [0; 32];
        hex::decode_to_slice(digits, &mut hash).ok()?;
        Some(Head { count: count.parse().ok()?, hash })
    };
    parse().ok_or_else(|| "-head is not RECORDS:HASH, as sys/audit/key tells them".to_owned())
}

/// Those of the files that are parts of the log; all must be there.
fn readable(files: &[PathBuf]) -> Result<Vec<PathBuf>, String> {
    for file in files {
        std::fs::File::open(file)
            .map_err(|error| format!("cannot read {}: {error}", file.display()))?;
    }
    // What a crash left of a line was set aside when the log was taken up, and what it left of a
    // compressed file is made anew; what was damaged while in use was set aside.
    let (strays, parts): (Vec<_>, Vec<_>) = files.iter().cloned().partition(|file| is_stray(file));
    // Whoever names nothing else wants to know what is in them.
    Ok(if parts.is_empty() { strays } else { parts })
}

fn is_stray(file: &Path) -> bool {
    let name = file.file_name().unwrap_or_default().to_string_lossy();
    name.contains(".torn-") || name.contains(".damaged-") || name.ends_with(".part")
}

fn verdict(
    key: &CheckpointVerifier,
    head: Option<Head>,
    files: &[PathBuf],
) -> Result<Verdict, String> {
    let verdict = mssm_audit::verify_files(files, key, head, &mut show_progress);
    let verdict = verdict.map_err(|error| error.to_string())?;
    match &verdict.finding {
        None => Ok(verdict),
        Some(finding) => {
            let place = &finding.place;
            let (seq, file, line) = (finding.seq, place.file.display(), place.line);
            Err(format!("record {seq} {} ({file}, line {line})", finding.what))
        }
    }
}

/// Verifies a log: what it is, and whether that is proven to its last record. The error names the first
/// record that does not hold and what was done to it.
pub(crate) fn verify(
    key: &str,
    known: Option<&str>,
    files: &[PathBuf],
) -> Result<(String, bool), String> {
    let (key, known) = (verifier(key)?, known.map(head).transpose()?);
    let parts = readable(files)?;
    let verdict = verdict(&key, known, &parts)?;
    let (lines, first, checkpoints) = (verdict.lines, verdict.first_seq, verdict.checkpoints);
    // Links alone anybody can compute.
    if checkpoints == 0 {
        return Err(format!("{lines} records and no checkpoint: nothing here is signed"));
    }
    let mut text = format!(
        "{lines} records from number {first} on are unchanged and in order, \
         {checkpoints} checkpoints are signed by this key\n\
         the log's head is {}:{}",
        verdict.head.count,
        hex::encode(verdict.head.hash)
    );
    if let Some(device) = verdict.device.as_ref().filter(|device| *device != "file") {
        let _ =
            write!(text, "\nit is the log of the audit device {device:?}, not the server's own");
    }
    let is_proven = verdict.unsigned == 0;
    if !is_proven {
        let _ = write!(
            text,
            "\nNOT PROVEN are the last {}, from number {} on: they follow the last checkpoint, \
             and who may write the file could have added them",
            verdict.unsigned,
            verdict.head.count.saturating_sub(verdict.unsigned)
        );
    }
    for row in verdict.confessed.iter().filter_map(|line| row(line)) {
        let _ = write!(text, "\nthe server says itself, at {}: {} {}", row.time, row.did, row.what);
    }
    for file in files.iter().filter(|file| !parts.contains(file)) {
        let _ = write!(
            text,
            "\nleft out, since by its name the server set it aside: {}",
            file.display()
        );
    }
    Ok((text, is_proven))
}

/// The same for programs, and the exit code.
pub(crate) fn verify_as_json(
    key: &str,
    known: Option<&str>,
    files: &[PathBuf],
) -> Result<(String, u8), String> {
    let (key, known) = (verifier(key)?, known.map(head).transpose()?);
    let parts = readable(files)?;
    let verdict = mssm_audit::verify_files(&parts, &key, known, &mut |_| ())
        .map_err(|error| error.to_string())?;
    let code = match (&verdict.finding, verdict.checkpoints, verdict.unsigned) {
        (Some(_), ..) | (None, 0, _) => 1,
        (None, _, 0) => 0,
        _ => UNPROVEN,
    };
    let finding = verdict.finding.map(|finding| {
        let place = finding.place;
        serde_json::json!({
            "record": finding.seq, "what": finding.what, "file": place.file.display().to_string(), "line": place.line,
        })
    });
    let said: Vec<serde_json::Value> =
        verdict.confessed.iter().filter_map(|line| serde_json::from_str(line).ok()).collect();
    let told = serde_json::json!({
        "proven": code == 0,
        "finding": finding,
        "records": verdict.lines,
        "first_record": verdict.first_seq,
        "checkpoints": verdict.checkpoints,
        "records_unproven": verdict.unsigned,
        "head": format!("{}:{}", verdict.head.count, hex::encode(verdict.head.hash)),
        "device": verdict.device,
        "server_says": said,
    });
    Ok((told.to_string(), code))
}

/// Proves that the lines of a request are in the log; the log is verified first.
pub(crate) fn prove(key: &str, request: &str, files: &[PathBuf]) -> Result<Vec<String>, String> {
    let (key, files) = (verifier(key)?, readable(files)?);
    let request = mssm_domain::RequestId::parse(request).map_err(|error| error.to_string())?;
    verdict(&key, None, &files)?;
    let sign = format!("\"request\":{{\"id\":\"{request}\"");
    let mut wanted = |line: &[u8]| contains(line, sign.as_bytes());
    let proofs = mssm_audit::prove_records(&files, &mut wanted).map_err(|e| e.to_string())?;
    if proofs.is_empty() {
        return Err(format!("no signed record is of request {request}"));
    }
    proofs.iter().map(written).collect()
}

/// Proves that the log of one checkpoint is the beginning of that of a later one.
pub(crate) fn consistency(
    key: &str,
    (first, second): (u64, u64),
    files: &[PathBuf],
) -> Result<String, String> {
    let (key, files) = (verifier(key)?, readable(files)?);
    verdict(&key, None, &files)?;
    let proof = mssm_audit::prove_beginning(&files, first, second).map_err(|e| e.to_string())?;
    written(&proof.ok_or_else(|| {
        format!("{first} and {second} are not the numbers of two checkpoints, one after the other")
    })?)
}

fn written(proof: &Proof) -> Result<String, String> {
    proof.to_json().map_err(|error| error.to_string())
}

/// Checks a proof's file with the public key alone; says what it proves.
pub(crate) fn check(key: &str, file: &Path) -> Result<String, String> {
    let name = file.display();
    let text =
        std::fs::read_to_string(file).map_err(|error| format!("cannot read {name}: {error}"))?;
    let key = verifier(key)?;
    let proved = Proof::parse(&text).and_then(|proof| proof.check(&key));
    proved.map_err(|error| format!("{name} {error}"))
}

fn contains(line: &[u8], sign: &[u8]) -> bool {
    sign.is_empty() || line.windows(sign.len()).any(|window| window == sign)
}

/// Says on a terminal how far a long check has come.
fn show_progress(lines: u64) {
    let mut terminal = std::io::stderr();
    if terminal.is_terminal() {
        let _ = write!(terminal, "\r{lines} records read ");
    }
}
