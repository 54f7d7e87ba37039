//! Proofs that can be shown without the log: a record is in it, a checkpoint's log begins another's.

use std::io;
use std::path::PathBuf;

use mssm_crypto::chain::{Chain, CheckpointVerifier};
use mssm_crypto::proof::{Prover, extends, includes};
use serde::{Deserialize, Serialize};

use crate::log::{Position, checkpoint_text};
use crate::prefix::Prefix;
use crate::verify::{Line, Lines, claimed, in_order};

/// What a proof's JSON begins with.
const FORMAT: &str = "mssm audit proof v1";

/// A proof, as it is written to a file. Lines are as they stand in the log, hashes in hexadecimal.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Proof {
    format: String,
    claim: Claim,
    /// The checkpoint whose root the path leads to.
    checkpoint: String,
    /// The hashes beside the way up (RFC 9162, section 2.1).
    path: Vec<String>,
}

/// What is proved.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Claim {
    /// This line is in the log.
    Record(String),
    /// The log of this checkpoint is the beginning of the log.
    Beginning(String),
}

/// Why a proof does not hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProofError {
    /// Not a proof of this form.
    #[error("is no proof in the form \"mssm audit proof v1\"")]
    Form,
    /// A checkpoint's signature is not this key's.
    #[error("has a checkpoint that this key did not sign")]
    Signature,
    /// The path does not lead to the root.
    #[error("does not lead to what the checkpoint signs")]
    Path,
}

/// Proves every line that `wanted` says yes to, each by the first checkpoint behind it.
pub fn prove_records(
    files: &[PathBuf],
    wanted: &mut dyn FnMut(&[u8]) -> bool,
) -> io::Result<Vec<Proof>> {
    let mut provers: Vec<(Prover, String)> = Vec::new();
    let mut proofs = Vec::new();
    walk(files, &mut |position, prefix, line| {
        if prefix.kind == "checkpoint" {
            for (prover, record) in provers.drain(..) {
                proofs.extend(proof(Claim::Record(record), &prover, line));
            }
        }
        if wanted(line) {
            let prover = Prover::of_line(position.tree().clone(), prefix.seq);
            provers.extend(prover.map(|prover| (prover, text(line))));
        }
        let hash = hash(line);
        for (prover, _) in &mut provers {
            prover.append(&hash);
        }
        true
    })?;
    Ok(proofs)
}

/// Proves that the log of checkpoint number `first` is the beginning of that of number `second`.
pub fn prove_beginning(files: &[PathBuf], first: u64, second: u64) -> io::Result<Option<Proof>> {
    let mut prover = None;
    let mut begins = None;
    let mut proved = None;
    walk(files, &mut |position, prefix, line| {
        if prover.is_none() {
            prover = Prover::of_size(position.tree().clone(), first);
        }
        let is_checkpoint = prefix.kind == "checkpoint";
        if is_checkpoint && prefix.seq == first {
            begins = Some(text(line));
        }
        if is_checkpoint && prefix.seq == second {
            let claim = begins.take().map(Claim::Beginning);
            proved = claim.zip(prover.as_ref()).and_then(|(claim, at)| proof(claim, at, line));
            return false;
        }
        if let Some(prover) = &mut prover {
            prover.append(&hash(line));
        }
        true
    })?;
    Ok(proved)
}

/// Hands each line to `each` with the position before it, until it says no.
fn walk(
    files: &[PathBuf],
    each: &mut dyn FnMut(&Position, &Prefix<'_>, &[u8]) -> bool,
) -> io::Result<()> {
    let mut lines = Lines::of_files(in_order(files)?);
    let mut line = Line::default();
    let mut position: Option<Position> = None;
    while lines.next(&mut line)? {
        let Some(prefix) = Prefix::parse(&line.bytes) else { return Ok(()) };
        let before = match &mut position {
            Some(position) => position,
            None => match Position::before(&line.bytes) {
                Some(first) => position.insert(first),
                None => return Ok(()),
            },
        };
        if !each(before, &prefix, &line.bytes) {
            return Ok(());
        }
        before.append(&line.bytes);
    }
    Ok(())
}

fn proof(claim: Claim, prover: &Prover, checkpoint: &[u8]) -> Option<Proof> {
    let path = prover.proof()?.iter().map(hex::encode).collect();
    Some(Proof { format: FORMAT.to_owned(), claim, checkpoint: text(checkpoint), path })
}

fn text(line: &[u8]) -> String {
    String::from_utf8_lossy(line).into_owned()
}

fn hash(line: &[u8]) -> [u8; 32] {
    let mut chain = Chain::default();
    chain.append(line);
    chain.head
}

/// A checkpoint whose signature is good: how many lines it covers, and their root.
fn signed(line: &str, key: &CheckpointVerifier) -> Result<(u64, [u8; 32]), ProofError> {
    let prefix = Prefix::parse(line.as_bytes()).ok_or(ProofError::Form)?;
    let claimed = claimed(line.as_bytes()).ok_or(ProofError::Form)?;
    let text = checkpoint_text(prefix.seq, prefix.prev, &hex::encode(claimed.root), prefix.time);
    key.verify(text.as_bytes(), &claimed.signature).map_err(|_| ProofError::Signature)?;
    Ok((prefix.seq, claimed.root))
}

impl Proof {
    /// Reads a proof.
    pub fn parse(text: &str) -> Result<Self, ProofError> {
        let proof: Self = serde_json::from_str(text).map_err(|_| ProofError::Form)?;
        if proof.format == FORMAT { Ok(proof) } else { Err(ProofError::Form) }
    }

    /// Writes it down.
    pub fn to_json(&self) -> Result<String, ProofError> {
        serde_json::to_string_pretty(self).map_err(|_| ProofError::Form)
    }

    /// Checks it with the public key alone; says what it proves.
    pub fn check(&self, key: &CheckpointVerifier) -> Result<String, ProofError> {
        let (size, root) = signed(&self.checkpoint, key)?;
        let path: Option<Vec<[u8; 32]>> = self.path.iter().map(|digits| unhex(digits)).collect();
        let path = path.ok_or(ProofError::Form)?;
        match &self.claim {
            Claim::Record(record) => {
                let seq = Prefix::parse(record.as_bytes()).ok_or(ProofError::Form)?.seq;
                if !includes(&root, size, seq, &hash(record.as_bytes()), &path) {
                    return Err(ProofError::Path);
                }
                Ok(format!("record {seq} is in the log of {size} records that this key signed"))
            }
            Claim::Beginning(first) => {
                let (first, first_root) = signed(first, key)?;
                if !extends((first, &first_root), (size, &root), &path) {
                    return Err(ProofError::Path);
                }
                Ok(format!(
                    "the log of {first} records is the beginning of the log of {size} records, \
                     both signed by this key"
                ))
            }
        }
    }
}

fn unhex(digits: &str) -> Option<[u8; 32]> {
    let mut hash = [0; 32];
    hex::decode_to_slice(digits, &mut hash).ok().map(|()| hash)
}
