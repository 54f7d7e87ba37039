//! A clock that tests turn.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use mssm_domain::{Clock, Timestamp};
use tokio::time::Instant;

/// A wall clock that moves only when told to, or with tokio's (paused) time. Clones share it.
#[derive(Clone, Debug)]
pub struct TestClock {
    unix_ms: Arc<AtomicU64>,
    advanced_ms: Arc<AtomicU64>,
    follows: Option<Instant>,
}

impl TestClock {
    /// Where every test clock begins: 2027-01-15T08:00:00Z.
    pub const START: Timestamp = Timestamp::from_unix_ms(1_800_000_000_000);

    /// A clock that stands still.
    pub fn new() -> Self {
        let unix_ms = Arc::new(AtomicU64::new(Self::START.unix_ms()));
        Self { unix_ms, advanced_ms: Arc::default(), follows: None }
    }

    /// A clock that follows tokio's time from now on: with paused time, days take milliseconds.
    ///
    /// Ask it only on the thread whose time is paused.
    pub fn following_tokio() -> Self {
        Self { follows: Some(Instant::now()), ..Self::new() }
    }

    /// Moves the clock forward; tokio's own timers do not notice.
    pub fn advance(&self, span: Duration) {
        let ms = u64::try_from(span.as_millis()).unwrap_or(u64::MAX);
        self.unix_ms.fetch_add(ms, Ordering::SeqCst);
        self.advanced_ms.fetch_add(ms, Ordering::SeqCst);
    }

    /// Puts the wall clock to a time, backwards too: wall clocks jump. No time passes.
    pub fn set(&self, now: Timestamp) {
        self.unix_ms.store(now.unix_ms().saturating_sub(self.elapsed_ms()), Ordering::SeqCst);
    }

    fn elapsed_ms(&self) -> u64 {
        let elapsed = self.follows.map(|start| start.elapsed().as_millis()).unwrap_or_default();
        u64::try_from(elapsed).unwrap_or(u64::MAX)
    }
}

impl Default for TestClock {
    fn default() -> Self {
        Self::new()
    }
}

impl Clock for TestClock {
    fn now(&self) -> Timestamp {
        Timestamp::from_unix_ms(self.unix_ms.load(Ordering::SeqCst) + self.elapsed_ms())
    }

    fn steady(&self) -> Duration {
        Duration::from_millis(self.advanced_ms.load(Ordering::SeqCst) + self.elapsed_ms())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clones_turn_together() {
        let clock = TestClock::new();
        let other = clock.clone();
        clock.advance(Duration::from_secs(5));
        assert_eq!(other.now().unix_ms(), TestClock::START.unix_ms() + 5_000);
        other.set(TestClock::START);
        assert_eq!(clock.now(), TestClock::START);
        assert_eq!(clock.steady(), Duration::from_secs(5));
    }

    #[tokio::test(start_paused = true)]
    async fn a_following_clock_moves_with_paused_time() {
        let clock = TestClock::following_tokio();
        tokio::time::sleep(Duration::from_hours(720)).await;
        assert_eq!(clock.now().unix_ms() - TestClock::START.unix_ms(), 720 * 3_600_000);
        clock.set(TestClock::START);
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert_eq!(clock.now().unix_ms() - TestClock::START.unix_ms(), 1_000);
    }
}
