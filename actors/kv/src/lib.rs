//! Static secrets: with versions (v2), and without (v1 and the cubbyhole).
//!
//! [`KvEngine`] lives on every HTTP worker and holds nothing: all state is in the store, read in
//! place. A write carries the version of the record that it was made on; if another worker was
//! faster it is made anew, so no write overwrites another unseen. The latest version and the
//! metadata share one record, so that a read is one read and a write is one commit.
//!
//! To add an operation: its message in `messages::kv`, its rule in `secret.rs`, its handler here.

mod engine;
#[cfg(any(fuzzing, test))]
pub mod fuzz;
mod merge;
mod plain;
mod record;
mod secret;
#[cfg(test)]
mod tests;
mod versioned;

pub use engine::KvEngine;
