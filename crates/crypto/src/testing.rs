//! Randomness that tests can repeat.

use std::sync::atomic::{AtomicU64, Ordering};

use mssm_domain::Random;
use sha2::{Digest, Sha256};

/// Bytes that depend on a seed alone.
pub(crate) struct Seeded {
    seed: u64,
    counter: AtomicU64,
}

impl Seeded {
    pub(crate) fn new(seed: u64) -> Self {
        Self { seed, counter: AtomicU64::new(0) }
    }
}

impl Random for Seeded {
    fn fill(&self, buffer: &mut [u8]) {
        for chunk in buffer.chunks_mut(32) {
            let counter = self.counter.fetch_add(1, Ordering::Relaxed);
            let mut hash = Sha256::new();
            hash.update(self.seed.to_be_bytes());
            hash.update(counter.to_be_bytes());
            chunk.copy_from_slice(&hash.finalize()[..chunk.len()]);
        }
    }
}
