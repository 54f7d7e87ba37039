//! The audit log: chained, signed, durable before anything is answered, refused when it cannot be.
//!
//! A hub hands every record to every device and answers once it is where it counts; each device has a
//! thread that owns its log. It takes what waits, renders one JSON line each, ends the batch with a
//! signed checkpoint, syncs once and answers. Each line names the SHA-256 of the line before
//! it; a checkpoint signs the newest hash and the root of the Merkle tree over all lines, so
//! [`verify()`] needs the file and the public key alone. An entry has no field that could hold a
//! secret: see `messages::audit`.
//!
//! To add a kind of line: its entry in `messages::audit`, its shape in `line.rs`.

mod backend;
mod head;
mod hub;
mod keeper;
mod line;
mod log;
mod prefix;
mod prove;
mod salt;
mod sink;
#[cfg(test)]
mod tests;
mod verify;
mod writer;
mod writing;

pub use backend::{AuditBackend, Blocked, FileBackend, Found, Keep, MemoryBackend};
pub use head::{HeadConfig, HeadKeeper, WhenMissing};
pub use hub::{AuditPorts, AuditSettings, AuditWriter, ExtraDevice};
pub use keeper::{ConfiguredDevice, DeviceKeeper, DevicesConfig};
pub use prove::{Proof, ProofError, prove_beginning, prove_records};
pub use sink::Sink;
pub use verify::{Damage, Finding, Place, Verdict, read_lines, verify, verify_files};
pub use writing::Rotation;
