//! Clocks that tests turn, seeded randomness, fake actors and a real PostgreSQL and a real MariaDB.
//!
//! A dev-dependency of actors and tests only. Whatever cannot be set up here panics: a test without
//! its ground to stand on has failed.

#![expect(clippy::panic, reason = "a test that cannot be set up has failed")]

mod clock;
mod fuzzed;
mod keys;
mod mariadb;
mod postgres;
mod random;
mod served;
mod store;

pub use clock::TestClock;
pub use fuzzed::{fuzzed, fuzzed_records};
pub use keys::FakeKeys;
pub use mariadb::{MariaDbSession, TestMariaDb};
pub use postgres::{TestDatabase, TestPostgres};
pub use random::SeededRandom;
pub use store::MemoryStore;

use mssm_messages::Barrier;

/// A barrier over transparent keys and a store in memory, both on the current arbiter.
///
/// The store comes back too: to make it fail, to count commits, or to open it again.
pub fn barrier() -> (Barrier, MemoryStore) {
    let store = MemoryStore::new();
    (barrier_over(&store), store)
}

/// Another barrier over a store that is there already, as after a restart.
pub fn barrier_over(store: &MemoryStore) -> Barrier {
    Barrier::new(FakeKeys::start().port(), store.port())
}
