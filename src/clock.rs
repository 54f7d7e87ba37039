//! The real clock and the real randomness: the only callers of either.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use mssm_domain::{Clock, Random, Timestamp};
use mssm_messages::failpoint;
use rustix::time::{ClockId, clock_gettime};

/// The machine's wall clock, and its time since boot.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SystemClock;

impl Clock for SystemClock {
    #[expect(clippy::disallowed_methods, reason = "this is where the time comes from")]
    fn now(&self) -> Timestamp {
        // A clock set before 1970 reads as 1970: nothing has expired then, which is the safe side.
        let now = failpoint::clock().unwrap_or_else(SystemTime::now);
        let since = now.duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
        Timestamp::from_unix_ms(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
    }

    fn steady(&self) -> Duration {
        // The time since boot, sleep included.
        let since = clock_gettime(ClockId::Boottime);
        let nanos = u32::try_from(since.tv_nsec).unwrap_or(0);
        Duration::new(u64::try_from(since.tv_sec).unwrap_or(0), nanos)
    }
}

/// The operating system's random numbers.
#[derive(Clone, Copy, Debug)]
pub(crate) struct OsRandom;

impl Random for OsRandom {
    fn fill(&self, buffer: &mut [u8]) {
        if getrandom::fill(buffer).is_err() {
            // A secrets manager without randomness must not go on for one instruction.
            tracing::error!("the operating system gives no random numbers");
            std::process::abort();
        }
    }
}
