//! `mssm audit`: what a log says and whether it can be believed, without a server.

use std::path::PathBuf;

use clap::Subcommand;

use crate::auditing;

/// What is done with audit files.
#[derive(Debug, Subcommand)]
pub(crate) enum AuditCommand {
    /// Check that no record was changed, added, moved or taken away
    #[command(after_help = "Examples:
  mssm read -field=public_key sys/audit/key > audit.pub
  mssm audit verify -key audit.pub /var/log/mssm/audit.log*
  mssm audit verify -key audit.pub -head \"$(mssm read -field=head sys/audit/key)\" audit.log*")]
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
}

/// Runs one of them; answers what to print.
pub(crate) fn run(command: &AuditCommand) -> Result<String, String> {
    match command {
        AuditCommand::Verify { key, head, files } => auditing::verify(key, head.as_deref(), files),
        AuditCommand::Prove { key, out, request, files } => {
            let proofs = auditing::prove(key, request, files)?;
            match out {
                Some(prefix) => write(&proofs, prefix),
                None => Ok(proofs.join("\n")),
            }
        }
        AuditCommand::Consistency { key, first, second, files } => {
            auditing::consistency(key, (*first, *second), files)
        }
        AuditCommand::Check { key, proofs } => {
            let told: Result<Vec<_>, _> =
                proofs.iter().map(|proof| auditing::check(key, proof)).collect();
            Ok(told?.join("\n"))
        }
    }
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
