//! The time by which running leases are judged: no jump of the wall clock moves it. Plain data.
//!
//! It begins as the wall clock's and goes on with the time since boot. Ends are stored as wall-clock
//! times; `shift` is what the wall clock is ahead by now.

use std::time::Duration;

use mssm_domain::{Lease, Timestamp};

/// What two readings that belong together may differ by.
const JITTER_MS: i64 = 1_000;
/// A jump that somebody should know of.
const JUMP_MS: i64 = 60_000;

/// Judged time.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Timeline {
    wall: Timestamp,
    steady: Duration,
    told: i64,
}

impl Timeline {
    /// Begins at a wall-clock time and the steady time that belongs to it.
    pub(crate) fn new(wall: Timestamp, steady: Duration) -> Self {
        Self { wall, steady, told: 0 }
    }

    /// The judged time now.
    pub(crate) fn now(&self, steady: Duration) -> Timestamp {
        self.wall.after(steady.saturating_sub(self.steady))
    }

    /// Time has come at least so far: a clock that was set back while the server was down does not
    /// prolong what was handed out before.
    pub(crate) fn not_before(&mut self, time: Timestamp, steady: Duration) {
        if self.now(steady) < time {
            (self.wall, self.steady) = (time, steady);
        }
    }

    /// How far the wall clock is ahead (or behind, below zero) by now; nothing if it is not worth a
    /// word.
    pub(crate) fn shift(&self, wall: Timestamp, steady: Duration) -> Shift {
        let ahead = signed(wall) - signed(self.now(steady));
        Shift(if ahead.abs() < JITTER_MS { 0 } else { ahead })
    }

    /// A jump that nobody was told of yet.
    pub(crate) fn jump(&mut self, shift: Shift) -> Option<i64> {
        let jumped = shift.0 - self.told;
        (jumped.abs() > JUMP_MS).then(|| {
            self.told = shift.0;
            jumped
        })
    }
}

/// What the wall clock is ahead of the judged time by, in milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Shift(i64);

impl Shift {
    /// The judged time of a wall-clock time.
    pub(crate) fn judged(self, wall: Timestamp) -> Timestamp {
        moved(wall, -self.0)
    }

    /// The wall-clock time of a judged time.
    pub(crate) fn wall(self, judged: Timestamp) -> Timestamp {
        moved(judged, self.0)
    }

    /// Says a lease's times by today's wall clock, given its judged end.
    pub(crate) fn follow(self, lease: &mut Lease, ends_at: Timestamp) {
        if self.0 == 0 {
            return;
        }
        let by = signed(self.wall(ends_at)) - signed(lease.expires_at);
        lease.expires_at = moved(lease.expires_at, by);
        lease.ends_at_most = moved(lease.ends_at_most, by);
    }
}

fn signed(time: Timestamp) -> i64 {
    i64::try_from(time.unix_ms()).unwrap_or(i64::MAX)
}

fn moved(time: Timestamp, by: i64) -> Timestamp {
    Timestamp::from_unix_ms(time.unix_ms().saturating_add_signed(by))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const START: Timestamp = Timestamp::from_unix_ms(1_800_000_000_000);

    proptest! {
        /// Whatever the wall clock does, judged time goes by as the steady clock does, and an end
        /// that is written down in one moment is the same end in the next.
        #[test]
        fn a_jump_moves_no_judged_end(
            steps in prop::collection::vec((0..100_000_u64, -10_000_000..10_000_000_i64), 1..30),
        ) {
            let began = Duration::from_secs(7);
            let timeline = Timeline::new(START, began);
            let (mut wall, mut steady) = (START, began);
            let end = START.after(Duration::from_hours(1));
            for (passes, jumps) in steps {
                let passes = Duration::from_millis(passes);
                steady += passes;
                wall = moved(wall.after(passes), jumps);
                let shift = timeline.shift(wall, steady);
                prop_assert_eq!(timeline.now(steady), START.after(steady.saturating_sub(began)));
                prop_assert_eq!(shift.judged(shift.wall(end)), end);
                let ahead = signed(shift.wall(timeline.now(steady))) - signed(wall);
                prop_assert!(ahead.abs() < JITTER_MS);
            }
        }
    }

    #[test]
    fn a_jump_above_a_minute_is_told_once_and_its_return_too() {
        let mut timeline = Timeline::new(START, Duration::ZERO);
        let told: Vec<_> =
            [0, 59_999, 60_001, 60_001, 100_000, 0].map(|ahead| timeline.jump(Shift(ahead))).into();
        assert_eq!(told, [None, None, Some(60_001), None, None, Some(-60_001)]);
    }

    #[test]
    fn time_never_begins_before_what_was_stored() {
        let mut timeline = Timeline::new(START, Duration::ZERO);
        timeline.not_before(START.after(Duration::from_secs(90)), Duration::from_secs(30));
        assert_eq!(timeline.now(Duration::from_secs(31)), START.after(Duration::from_secs(91)));
        timeline.not_before(START, Duration::from_secs(31));
        assert_eq!(timeline.now(Duration::from_secs(31)), START.after(Duration::from_secs(91)));
    }
}
