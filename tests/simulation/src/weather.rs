//! What goes wrong, and how long things take, out of one seed.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use mssm_testkit::SeededRandom;

/// How the world behaves, out of one seed.
pub(crate) struct Weather {
    pub(crate) random: SeededRandom,
    /// Faults per thousand; 0 is a calm world.
    pub(crate) faults: AtomicU64,
    pub(crate) full: AtomicBool,
}

impl Weather {
    pub(crate) fn new(seed: u64) -> Self {
        let random = SeededRandom::new(seed);
        Self { random, faults: AtomicU64::new(0), full: AtomicBool::new(false) }
    }

    /// True in `weight` of a hundred cases at the run's rate of faults.
    pub(crate) fn chance(&self, weight: u64) -> bool {
        self.random.below(1000) < weight * self.faults.load(Ordering::SeqCst)
    }

    pub(crate) fn is_full(&self) -> bool {
        self.full.load(Ordering::SeqCst)
    }

    /// How long an answer is on its way. In whole milliseconds, as all spans: how less is rounded depends
    /// on the moment at which time was paused.
    pub(crate) fn way(&self) -> Duration {
        Duration::from_millis(u64::try_from(self.span().as_millis()).unwrap_or(0) / 4)
    }

    /// How long one step takes: mostly little, sometimes seconds.
    pub(crate) fn span(&self) -> Duration {
        let long = self.chance(4);
        Duration::from_millis(self.random.below(if long { 7_000 } else { 12 }))
    }
}
