//! The audit log: chained, signed, durable before anything is answered, refused when it cannot be.
//!
//! One thread owns the log. It takes what waits, renders one JSON line each, ends the batch with a
//! signed checkpoint, syncs once and answers all. Each line names the SHA-256 of the line before
//! it; a checkpoint signs the newest hash and the root of the Merkle tree over all lines, so
//! [`verify()`] needs the file and the public key alone. An entry has no field that could hold a
//! secret: see `messages::audit`.
//!
//! To add a kind of line: its entry in `messages::audit`, its shape in `line.rs`.

mod backend;
mod head;
mod line;
mod log;
mod prefix;
mod prove;
#[cfg(test)]
mod tests;
mod verify;
mod writer;
mod writing;

pub use backend::{
    AuditBackend, Blocked, FileBackend, Found, Keep, MemoryBackend, Mirror, Mirrored,
};
pub use head::{HeadConfig, HeadKeeper, WhenMissing};
pub use prove::{Proof, ProofError, prove_beginning, prove_records};
pub use verify::{Damage, Finding, Place, Verdict, read_lines, verify, verify_files};
pub use writer::{AuditPorts, AuditWriter};
pub use writing::Rotation;
