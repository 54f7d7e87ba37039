//! Every lease, its timer, and revocation that never gives up.
//!
//! Holds the book of leases (id, place, end, state), reads and writes their records through the
//! barrier, and sends `Prepare`, `Create`, `Extend` and `Revoke` to engines that know nothing of
//! leases. Invariants:
//! - a record that names everything there is to remove is durable before anything exists outside;
//! - `ending` is final, in the book and in the store, and is tried until nothing is left;
//! - ending access never waits: not for the audit, not for a full disk, not for another target;
//! - a lease has one operation outside at a time, and never outlives its bound or its token.
//!
//! Running leases are judged by the time since boot (`timeline.rs`): a jump of the wall clock moves
//! none. Across restarts it is the wall clock, but never earlier than the last time stored.
//!
//! To add a way to end leases: a message in `messages::lease`, its flow in `revoke.rs`, which calls
//! `end`. To add a state: `book.rs` (its transition), `record.rs` (its name), and the crash tests.

mod book;
mod burial;
#[cfg(any(fuzzing, test))]
pub mod fuzz;
mod holders;
mod issue;
mod lane;
mod letter;
mod manager;
mod outbox;
mod overdue;
mod places;
mod reconcile;
mod record;
mod renew;
mod repeats;
mod restore;
mod revoke;
mod session;
mod sweep;
mod terms;
#[cfg(test)]
mod tests;
mod timeline;

pub use manager::{LeaseConfig, LeaseManager};
