//! How many requests are worked on at once, who waits for its turn, and who is refused.
//!
//! A crowd that has just come may wait, whatever its size. Of one that lasts only half as many wait as
//! are worked on, and the others are refused slowly. While some are, each takes two places and half as
//! many wait: who is let in is served fast, and as many are served.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, sleep, timeout};

/// Places that are kept for what must go on however many ask for the rest.
const VITAL: usize = 256;
/// So many wait for databases for one read: they wait for long, and take little from others.
const MINTS_A_READ: usize = 4;
/// How long a login and what ends access may wait for their turn.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long the others may: what is answered late was better refused, since its caller asks again.
const QUEUE: Duration = Duration::from_millis(250);
/// How long a refusal takes while a crowd lasts: who asks again at once is kept from the processor's
/// time that those who are let in need.
const HOLDUP: Duration = Duration::from_millis(250);
/// From when on a crowd lasts.
const LASTING: Duration = Duration::from_millis(100);
/// After so long with room for everybody the next crowd is another one.
const FORGOTTEN: Duration = Duration::from_secs(1);

/// What waits for what: a flood of one kind takes no place of another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Class {
    /// Unsealing, sealing, and what ends or prolongs access.
    Vital,
    /// What waits for a database.
    Mint,
    /// What else changes something.
    Change,
    /// The rest.
    Read,
}

/// A request's place, which it gives back when it is dropped.
pub(crate) type Turn = OwnedSemaphorePermit;

/// There was no turn in time; says how long the refusal is to be held up.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Crowded(Duration);

impl Crowded {
    /// Holds the refusal up. Whoever waits here has let go of all that the request brought.
    pub(crate) async fn hold_up(self) {
        if !self.0.is_zero() {
            sleep(self.0).await;
        }
    }
}

/// All places; one for all workers.
#[derive(Debug)]
pub(crate) struct Turns {
    vital: Places,
    mints: Places,
    changes: Places,
    reads: Places,
    start: Instant,
}

/// The places of one class.
#[derive(Debug)]
struct Places {
    free: Arc<Semaphore>,
    total: usize,
    /// How many wait for one.
    waiting: AtomicUsize,
    /// When somebody first and last found none free, in milliseconds since the start.
    full_since: AtomicU64,
    full_at: AtomicU64,
    /// Until when there is less room, since one of a crowd was refused.
    narrow_until: AtomicU64,
}

impl Turns {
    /// Places of so many reads, and as many changes, of which nobody has taken one.
    pub(crate) fn new(requests: usize) -> Self {
        Self {
            vital: Places::new(VITAL),
            mints: Places::new(requests.saturating_mul(MINTS_A_READ)),
            changes: Places::new(requests),
            reads: Places::new(requests),
            start: Instant::now(),
        }
    }

    /// How many places are taken.
    pub(crate) fn taken(&self) -> usize {
        let all = [&self.vital, &self.mints, &self.changes, &self.reads];
        all.map(|places| places.total.saturating_sub(places.free.available_permits())).iter().sum()
    }

    /// Waits for a request's turn.
    pub(crate) async fn take(&self, class: Class) -> Result<Turn, Crowded> {
        let (places, wait) = match class {
            Class::Vital => (&self.vital, PATIENCE),
            Class::Mint => (&self.mints, PATIENCE),
            Class::Change => (&self.changes, QUEUE),
            Class::Read => (&self.reads, QUEUE),
        };
        if let Ok(turn) = Arc::clone(&places.free).try_acquire_owned() {
            return Ok(turn);
        }
        let now = self.start.elapsed();
        let sheds = matches!(class, Class::Change | Class::Read) && places.full_for(now) >= LASTING;
        let (each, queue) = places.room(now);
        let waiting = Waiting::new(&places.waiting);
        if !sheds || waiting.among <= queue {
            let turn = Arc::clone(&places.free).acquire_many_owned(each);
            if let Ok(Ok(turn)) = timeout(wait, turn).await {
                return Ok(turn);
            }
        }
        if sheds {
            places.narrow(now);
        }
        Err(Crowded(if sheds { HOLDUP } else { Duration::ZERO }))
    }
}

impl Places {
    fn new(total: usize) -> Self {
        // None could not be used at all, and more than these a semaphore does not take.
        let total = total.clamp(1, Semaphore::MAX_PERMITS);
        Self {
            free: Arc::new(Semaphore::new(total)),
            total,
            waiting: AtomicUsize::new(0),
            full_since: AtomicU64::new(0),
            full_at: AtomicU64::new(0),
            narrow_until: AtomicU64::new(0),
        }
    }

    /// How many places each takes, and how many may wait in a crowd that lasts.
    fn room(&self, now: Duration) -> (u32, usize) {
        if self.total > 1 && millis(now) < self.narrow_until.load(Ordering::Relaxed) {
            (2, self.total.div_ceil(4))
        } else {
            (1, self.total.div_ceil(2))
        }
    }

    fn narrow(&self, now: Duration) {
        self.narrow_until.store(millis(now.saturating_add(FORGOTTEN)), Ordering::Relaxed);
    }

    /// Notes that there is no place, and says for how long it has been so, but for moments.
    fn full_for(&self, now: Duration) -> Duration {
        let now = millis(now);
        let before = self.full_at.swap(now, Ordering::Relaxed);
        if now.saturating_sub(before) > millis(FORGOTTEN) {
            self.full_since.store(now, Ordering::Relaxed);
        }
        Duration::from_millis(now.saturating_sub(self.full_since.load(Ordering::Relaxed)))
    }
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

/// One who waits, also one that gives up.
struct Waiting<'a> {
    all: &'a AtomicUsize,
    /// With so many, itself counted.
    among: usize,
}

impl<'a> Waiting<'a> {
    fn new(all: &'a AtomicUsize) -> Self {
        Self { all, among: all.fetch_add(1, Ordering::Relaxed).saturating_add(1) }
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.all.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_request_waits_for_its_turn_but_not_for_ever() {
        let turns = Turns::new(1);
        for class in [Class::Change, Class::Read] {
            let turn = turns.take(class).await.unwrap();
            assert!(turns.take(class).await.is_err());
            drop(turn);
            assert!(turns.take(class).await.is_ok());
        }
    }

    /// How long a read is kept before it is refused.
    async fn kept(turns: &Turns) -> Duration {
        let begun = Instant::now();
        turns.take(Class::Read).await.unwrap_err().hold_up().await;
        begun.elapsed()
    }

    #[tokio::test(start_paused = true)]
    async fn any_number_may_wait_in_a_crowd_that_is_new_and_few_in_one_that_lasts() {
        let turns = Turns::new(1);
        let turn = turns.take(Class::Read).await.unwrap();
        let crowd = tokio::join!(kept(&turns), kept(&turns), kept(&turns));
        assert_eq!(crowd, (QUEUE, QUEUE, QUEUE), "there was room a moment ago");
        let crowd = tokio::join!(kept(&turns), kept(&turns), kept(&turns));
        assert_eq!(crowd, (QUEUE + HOLDUP, HOLDUP, HOLDUP), "one place, so one waits");
        drop(turn);
        let _turn = turns.take(Class::Read).await.unwrap();
        let crowd = tokio::join!(kept(&turns), kept(&turns));
        assert_eq!(crowd, (QUEUE + HOLDUP, HOLDUP), "there was room for a moment only");
        sleep(2 * FORGOTTEN).await;
        assert_eq!(tokio::join!(kept(&turns), kept(&turns)), (QUEUE, QUEUE), "it is another crowd");
    }

    #[tokio::test(start_paused = true)]
    async fn while_some_of_a_crowd_are_refused_each_takes_two_places_and_fewer_wait() {
        let turns = Turns::new(4);
        let mut taken = Vec::new();
        for _ in 0..4 {
            taken.push(turns.take(Class::Read).await.unwrap());
        }
        let refused = QUEUE + HOLDUP;
        assert_eq!(kept(&turns).await, QUEUE);
        let crowd = tokio::join!(kept(&turns), kept(&turns), kept(&turns));
        assert_eq!(crowd, (refused, refused, HOLDUP), "half as many wait as there are places");
        let crowd = tokio::join!(kept(&turns), kept(&turns));
        assert_eq!(crowd, (refused, HOLDUP), "some were refused, so a quarter");
        let (next, ()) = tokio::join!(turns.take(Class::Read), async { taken.truncate(2) });
        assert_eq!(next.unwrap().num_permits(), 2);
        drop(taken);
        sleep(2 * FORGOTTEN).await;
        assert_eq!(turns.take(Class::Read).await.unwrap().num_permits(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn who_gives_up_waiting_leaves_its_place_in_the_queue() {
        let turns = Turns::new(1);
        let turn = turns.take(Class::Read).await.unwrap();
        kept(&turns).await;
        let soon = Duration::from_millis(5);
        for _ in 0..3 {
            assert!(timeout(soon, turns.take(Class::Read)).await.is_err());
        }
        let begun = Instant::now();
        let (next, ()) = tokio::join!(turns.take(Class::Read), async {
            sleep(soon).await;
            drop(turn);
        });
        assert!(next.is_ok());
        assert_eq!(begun.elapsed(), soon, "who is let in amid a crowd is not held up");
    }

    #[tokio::test(start_paused = true)]
    async fn any_number_of_places_works() {
        for requests in [0, usize::MAX] {
            let turns = Turns::new(requests);
            for class in [Class::Vital, Class::Mint, Class::Change, Class::Read] {
                assert!(turns.take(class).await.is_ok(), "{requests}");
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_full_of_one_kind_has_room_for_the_others() {
        let turns = Turns::new(1);
        let mut taken = vec![turns.take(Class::Read).await.unwrap()];
        taken.push(turns.take(Class::Change).await.unwrap());
        for _ in 0..MINTS_A_READ {
            taken.push(turns.take(Class::Mint).await.unwrap());
        }
        assert_eq!(turns.taken(), taken.len());
        for class in [Class::Read, Class::Mint, Class::Change] {
            assert!(turns.take(class).await.is_err(), "{class:?}");
        }
        assert!(turns.take(Class::Vital).await.is_ok(), "access is ended all the same");
    }
}
