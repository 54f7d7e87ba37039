//! `mssm audit`: what a log says and whether it can be believed; a server is asked for hashes alone.

use std::io::{ErrorKind, Write};
use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::failure::Failure;
use super::output::{self, harmless_lines};
use super::table::table;
use crate::auditing::{self, Moment, Question};

/// What is done with audit files.
#[derive(Debug, Subcommand)]
pub(crate) enum AuditCommand {
    /// Check that no record was changed, added, moved or taken away
    #[command(
        after_help = "Exit code 0: proven to its last record. 1: it does not hold. 3: it holds as far as it is
signed, and the records that follow, which are named, are proven by nothing.

Examples:
  mssm read -field=public_key sys/audit/key > audit.pub
  mssm audit verify -key audit.pub /var/log/mssm/audit.log*
  mssm audit verify -key audit.pub -head \"$(mssm read -field=head sys/audit/key)\" audit.log*"
    )]
    Verify {
        /// The public key: a file, or its hexadecimal text
        #[arg(long, value_name = "FILE_OR_HEX")]
        key: String,
        /// What the log must hold, as sys/audit/key told it: so a cut end is seen too
        #[arg(long, value_name = "RECORDS:HASH")]
        head: Option<String>,
        /// The files, in any order, compressed ones too
        #[arg(required = true, value_name = "FILE")]
        files: Vec<PathBuf>,
    },
    /// Prove that the records of one request are in the log, to somebody who does not get the log
    #[command(after_help = "Examples:
  mssm audit prove -key audit.pub -out proof 6e2e9a0c-93a5-4a62-a4f7-2f0f1f7d6c11 audit.log*
  mssm audit check -key audit.pub proof.1.json proof.2.json")]
    Prove {
        /// The public key: a file, or its hexadecimal text
        #[arg(long, value_name = "FILE_OR_HEX")]
        key: String,
        /// Write PREFIX.1.json and so on instead of printing
        #[arg(long, value_name = "PREFIX")]
        out: Option<String>,
        /// The request's id, as its answer says it
        request: String,
        /// The files
        #[arg(required = true, value_name = "FILE")]
        files: Vec<PathBuf>,
    },
    /// Prove that the log of one checkpoint is the beginning of that of a later one
    #[command(after_help = "Examples:
  mssm audit consistency -key audit.pub 120 4711 audit.log* > proof.json")]
    Consistency {
        /// The public key: a file, or its hexadecimal text
        #[arg(long, value_name = "FILE_OR_HEX")]
        key: String,
        /// The number (seq) of the earlier checkpoint
        first: u64,
        /// The number (seq) of the later checkpoint
        second: u64,
        /// The files
        #[arg(required = true, value_name = "FILE")]
        files: Vec<PathBuf>,
    },
    /// Check proofs with the public key alone
    #[command(after_help = "Examples:
  mssm audit check -key audit.pub proof.json")]
    Check {
        /// The public key: a file, or its hexadecimal text
        #[arg(long, value_name = "FILE_OR_HEX")]
        key: String,
        /// The proofs
        #[arg(required = true, value_name = "FILE")]
        proofs: Vec<PathBuf>,
    },
    /// Show the last records, and with -f what follows
    #[command(after_help = "Examples:
  mssm audit tail -f /var/log/mssm/audit.log
  mssm audit tail -n 100 -format=json /var/log/mssm/audit.log")]
    Tail {
        /// How many
        #[arg(long, short = 'n', default_value_t = 20)]
        number: usize,
        /// Go on with what is written from now on
        #[arg(long, short = 'f')]
        follow: bool,
        /// The file
        file: PathBuf,
    },
    /// Find records: who read a path, what a token did, what became of a lease
    #[command(after_help = "Examples:
  mssm audit search -path=secret/data/app /var/log/mssm/audit.log*
  mssm audit search -path='db/creds/*' -since=2026-11-01 -format=json audit.log*
  mssm audit search -accessor=V1StGXR8Z5jdHi6B audit.log*     asks the server how it is hashed")]
    Search(Box<SearchArgs>),
    /// Tell what the records that are found come to
    #[command(after_help = "Examples:
  mssm audit explain -lease=db/creds/app/0e8ye4lSkTX6vWwXNRr5ulFl /var/log/mssm/audit.log*
  mssm audit explain -username=v-token-app-x1 audit.log*      asks the server how it is hashed")]
    Explain(Box<SearchArgs>),
}

/// What is looked for; a record fits all that is given.
#[derive(Args, Debug)]
pub(crate) struct SearchArgs {
    /// The path, or its beginning and a star
    #[arg(long)]
    path: Option<String>,
    /// The request's id
    #[arg(long, value_name = "ID")]
    request_id: Option<String>,
    /// The lease's id; the server says how it is hashed where a body named it
    #[arg(long, value_name = "ID")]
    lease: Option<String>,
    /// The accessor of a token: what it did, and what was done with it; the server says how it is hashed
    #[arg(long)]
    accessor: Option<String>,
    /// The name of a database login; the server says how it is hashed
    #[arg(long, value_name = "NAME")]
    username: Option<String>,
    /// The device whose log it is: each hashes in a way of its own
    #[arg(long, value_name = "NAME", default_value = "file")]
    device: String,
    /// A value as it stands in the log, from sys/audit-hash
    #[arg(long, value_name = "hmac-sha256:HEX")]
    hash: Option<String>,
    /// Not before this time, such as 2026-11-28 or 2026-11-28T02:00, in UTC
    #[arg(long, value_name = "TIME", value_parser = Moment::parse)]
    since: Option<Moment>,
    /// Not after this time
    #[arg(long, value_name = "TIME", value_parser = Moment::parse)]
    until: Option<Moment>,
    /// The files
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
}

/// Says how a value stands in a device's log.
pub(crate) type Hasher<'a> = dyn Fn(&str, &str) -> Result<String, Failure> + 'a;

/// Runs one of them.
pub(crate) fn run(
    command: &AuditCommand,
    json: bool,
    hasher: &Hasher<'_>,
    out: &mut dyn Write,
) -> Result<(), Failure> {
    let text = match command {
        AuditCommand::Verify { key, head, files } if json => {
            let (text, code) =
                auditing::verify_as_json(key, head.as_deref(), files).map_err(Failure::usage)?;
            output::written(writeln!(out, "{text}"))?;
            return if code == 0 { Ok(()) } else { Err(Failure::Silent(code)) };
        }
        AuditCommand::Verify { key, head, files } => {
            let told = auditing::verify(key, head.as_deref(), files).map_err(Failure::usage)?;
            let (text, is_proven) = told;
            output::written(writeln!(out, "{}", harmless_lines(&text)))?;
            return if is_proven { Ok(()) } else { Err(Failure::Silent(auditing::UNPROVEN)) };
        }
        AuditCommand::Prove { key, out, request, files } => auditing::prove(key, request, files)
            .and_then(|proofs| match out {
                Some(prefix) => write(&proofs, prefix),
                None => Ok(proofs.join("\n")),
            }),
        AuditCommand::Consistency { key, first, second, files } => {
            auditing::consistency(key, (*first, *second), files)
        }
        AuditCommand::Check { key, proofs } => {
            let told: Result<Vec<_>, _> =
                proofs.iter().map(|proof| auditing::check(key, proof)).collect();
            told.map(|told| told.join("\n"))
        }
        AuditCommand::Tail { number, follow, file } => {
            let mut each = |line: &str| {
                let shown = if json { Some(line.to_owned()) } else { one_line(line) };
                shown.map_or(Ok(()), |shown| writeln!(out, "{}", harmless_lines(&shown)))
            };
            return match auditing::tail(file, *number, *follow, &mut each) {
                Err(error) if error.kind() == ErrorKind::BrokenPipe => Err(Failure::Silent(0)),
                done => done.map_err(|error| {
                    Failure::usage(format!("cannot read {}: {error}", file.display()))
                }),
            };
        }
        AuditCommand::Search(args) => {
            let (lines, _) = found(args, hasher)?;
            Ok(if json { lines.join("\n") } else { shown(&lines) })
        }
        AuditCommand::Explain(args) => {
            let (lines, unasked) = found(args, hasher)?;
            let told = auditing::explain(&auditing::rows(&lines));
            let told =
                told.iter().chain(&unasked).map(|told| harmless_lines(told)).collect::<Vec<_>>();
            Ok(if json { serde_json::json!(told).to_string() } else { told.join("\n") })
        }
    };
    output::written(writeln!(out, "{}", text.map_err(Failure::usage)?.trim_end()))
}

/// The lines that fit, of a login also what became of its lease; and what could not be looked for.
fn found(args: &SearchArgs, hasher: &Hasher<'_>) -> Result<(Vec<String>, Option<String>), Failure> {
    let mut hashes: Vec<String> = args.hash.iter().cloned().collect();
    for value in [&args.accessor, &args.username].into_iter().flatten() {
        hashes.push(hasher(&args.device, value)?);
    }
    let mut unasked = None;
    // The files alone say most of it, without a server too.
    let mut hash_of = |lease: &String| {
        let hash = hasher(&args.device, lease).ok();
        if hash.is_none() {
            let text = "the server did not say how the lease's id is hashed: who named it in a body, \
                        as revoking does, is not among these";
            unasked = Some(text.to_owned());
        }
        hash
    };
    let question = Question {
        path: args.path.clone(),
        request: args.request_id.clone(),
        lease: args.lease.clone(),
        lease_hash: args.lease.as_ref().and_then(&mut hash_of),
        hashes,
        since: args.since.clone(),
        until: args.until.clone(),
    };
    let mut lines = auditing::search(&question, &args.files).map_err(Failure::usage)?;
    if args.username.is_some() {
        for lease in auditing::leases(&lines) {
            let lease_hash = hash_of(&lease);
            let question = Question { lease: Some(lease), lease_hash, ..Question::default() };
            let more = auditing::search(&question, &args.files).map_err(Failure::usage)?;
            let more = more.into_iter().filter(|line| !lines.contains(line));
            lines.extend(more.collect::<Vec<_>>());
        }
    }
    Ok((lines, unasked))
}

fn one_line(line: &str) -> Option<String> {
    let row = auditing::row(line)?;
    let words = [row.time, row.who, row.did, row.what, row.outcome];
    Some(
        words
            .iter()
            .filter(|word| !word.is_empty())
            .map(String::as_str)
            .collect::<Vec<_>>()
            .join("  "),
    )
}

fn shown(lines: &[String]) -> String {
    let rows = auditing::rows(lines);
    let rows: Vec<Vec<String>> = rows
        .into_iter()
        .map(|row| vec![row.time, row.who, row.did, row.what, row.outcome, row.request])
        .collect();
    table(&["Time", "Who", "Did", "What", "Outcome", "Request"], &rows)
}

fn write(proofs: &[String], prefix: &str) -> Result<String, String> {
    let mut names = Vec::new();
    for (number, proof) in (1..).zip(proofs) {
        let name = format!("{prefix}.{number}.json");
        std::fs::write(&name, proof).map_err(|error| format!("cannot write {name}: {error}"))?;
        names.push(name);
    }
    Ok(names.join("\n"))
}
