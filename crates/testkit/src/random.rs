//! Randomness that repeats: the same seed gives the same bytes.

use std::sync::{Mutex, PoisonError};

use mssm_domain::Random;

/// A source of bytes that anybody can predict, so that a failure can be repeated.
///
/// Prints its seed when it is dropped by a panic.
#[derive(Debug)]
pub struct SeededRandom {
    seed: u64,
    state: Mutex<u64>,
}

impl SeededRandom {
    /// The source that this seed gives.
    pub const fn new(seed: u64) -> Self {
        Self { seed, state: Mutex::new(seed) }
    }

    /// The next 64 bits (splitmix64).
    pub fn next_u64(&self) -> u64 {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut word = *state;
        word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        word ^ (word >> 31)
    }

    /// A number below `bound`, which is not 0; slightly uneven for bounds near 2^64.
    pub fn below(&self, bound: u64) -> u64 {
        self.next_u64() % bound.max(1)
    }
}

impl Random for SeededRandom {
    fn fill(&self, buffer: &mut [u8]) {
        for chunk in buffer.chunks_mut(8) {
            let word = self.next_u64().to_le_bytes();
            chunk.iter_mut().zip(word).for_each(|(byte, random)| *byte = random);
        }
    }
}

impl Drop for SeededRandom {
    #[expect(clippy::print_stderr, reason = "a failed test says how to repeat it")]
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("seed of the randomness: {}", self.seed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_seed_gives_the_same_bytes() {
        let bytes = |seed| {
            let mut buffer = [0_u8; 37];
            SeededRandom::new(seed).fill(&mut buffer);
            buffer
        };
        assert_eq!(bytes(7), bytes(7));
        assert_ne!(bytes(7), bytes(8));
    }
}
