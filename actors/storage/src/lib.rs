//! Sole writer of the store: reads in place, atomic batches through one thread that commits in groups.
//!
//! Sees sealed bytes and hidden keys only. Invariants: nothing is answered before it is durable;
//! a batch is applied whole or not at all, also across a crash; after a sync that failed nothing
//! more is written, since nobody can say any longer what the disk holds.
//!
//! To add a backend: a module in `backend/` that implements [`StorageBackend`], a [`StorageKind`]
//! for it in `open.rs`, and one line that runs the whole of `suite.rs` over it.

mod backend;
mod folder;
#[cfg(any(fuzzing, test))]
pub mod fuzz;
mod index;
mod open;
#[cfg(test)]
mod suite;
mod value;
mod writer;

pub use backend::StorageBackend;
pub use backend::memory::MemoryStorage;
pub use open::{
    OpenError, StorageConfig, StorageHandle, StorageKind, check_offline, open, start_memory, work,
};
pub use writer::Stats;
