//! What operators and auditors do without a running server.

use std::fmt::Write as _;
use std::io::{IsTerminal, Write as _};
use std::path::{Path, PathBuf};

use mssm_crypto::chain::CheckpointVerifier;
use mssm_storage::OpenError;

use crate::config::{Config, Environment};

/// Checks every record of the store that the settings name; the error says what is damaged.
pub(crate) fn storage_check(
    file: Option<&Path>,
    environment: &Environment,
) -> Result<String, String> {
    let config = Config::load(file, environment).map_err(|error| match file {
        Some(_) => error.to_string(),
        None => format!("give -config FILE (the environment alone says too little: {error})"),
    })?;
    let report = mssm_storage::check_offline(&config.storage)
        .map_err(|error| match error {
            OpenError::InUse(_) => format!("{error}: stop the server first"),
            _ => error.to_string(),
        })?
        .map_err(|error| error.to_string())?;
    let mut text = format!("{} records are whole", report.records);
    if report.damaged.is_empty() {
        return Ok(text);
    }
    let _ = write!(text, ", {} are damaged:", report.damaged.len());
    for place in report.damaged {
        let _ = write!(text, "\n  {place}");
    }
    Err(text)
}

/// Verifies the files of an audit log, oldest first, with the public key alone: 64 hexadecimal
/// digits, or a file that holds them. The error names the first record that does not hold.
pub(crate) fn audit_verify(key: &str, files: &[PathBuf]) -> Result<String, String> {
    let verifier = CheckpointVerifier::parse(key).or_else(|_| {
        let text = std::fs::read_to_string(key)
            .map_err(|error| format!("{key} is neither a public key nor a file: {error}"))?;
        CheckpointVerifier::parse(&text).map_err(|error| format!("{key}: {error}"))
    })?;
    for file in files {
        std::fs::File::open(file)
            .map_err(|error| format!("cannot read {}: {error}", file.display()))?;
    }
    let paths: Vec<&Path> = files.iter().map(PathBuf::as_path).collect();
    let verdict = mssm_audit::verify_files(&paths, &verifier, &mut show_progress);
    let verdict = verdict.map_err(|error| error.to_string())?;
    if let Some(finding) = verdict.finding {
        let (seq, line, what) = (finding.seq, finding.line, finding.what);
        return Err(format!("record {seq} (line {line}) {what}"));
    }
    let (lines, first, checkpoints) = (verdict.lines, verdict.first_seq, verdict.checkpoints);
    let mut text = format!(
        "{lines} records from number {first} on are unchanged and in order, \
         {checkpoints} checkpoints are signed by this key"
    );
    if verdict.unsigned > 0 {
        let _ = write!(
            text,
            "\n{} records follow the last checkpoint and are not signed yet",
            verdict.unsigned
        );
    }
    Ok(text)
}

/// Says on a terminal how far a long check has come.
fn show_progress(lines: u64) {
    let mut terminal = std::io::stderr();
    if terminal.is_terminal() {
        let _ = write!(terminal, "\r{lines} records read ");
    }
}
