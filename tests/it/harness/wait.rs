//! Waiting for what happens, never for a while.

use std::time::{Duration, Instant};

/// How often something is looked at.
const PAUSE: Duration = Duration::from_millis(20);

/// Looks until there is something to see; fails when it does not come in time.
#[track_caller]
pub(crate) fn eventually<T>(
    what: &str,
    within: Duration,
    mut look: impl FnMut() -> Option<T>,
) -> T {
    let watch = Stopwatch::start();
    loop {
        if let Some(seen) = look() {
            return seen;
        }
        assert!(watch.elapsed() < within, "not within {within:?}: {what}");
        pause();
    }
}

/// Looks for a while, and fails as soon as something is not so any more.
#[track_caller]
pub(crate) fn stays(what: &str, during: Duration, mut look: impl FnMut() -> bool) {
    let watch = Stopwatch::start();
    while watch.elapsed() < during {
        assert!(look(), "not any more after {:?}: {what}", watch.elapsed());
        pause();
    }
}

#[expect(clippy::disallowed_methods, reason = "the one pause between two looks")]
fn pause() {
    std::thread::sleep(PAUSE);
}

/// Lets a span pass, as in a kill at a random moment.
#[expect(clippy::disallowed_methods, reason = "a moment of another process, in real time")]
pub(crate) fn pass(span: Duration) {
    std::thread::sleep(span);
}

/// Says that something cannot be tested on this machine, where `scripts/test` finds it as well.
pub(crate) fn skipped(what: &str) {
    use std::io::Write;
    eprintln!("not tested here: {what}");
    let notes = concat!(env!("CARGO_TARGET_TMPDIR"), "/not-tested");
    let notes = std::fs::OpenOptions::new().append(true).create(true).open(notes);
    let line = what.lines().last().unwrap_or_default();
    let _ = notes.and_then(|mut notes| writeln!(notes, "not tested here: {line}"));
}

/// How long something takes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Stopwatch(Instant);

impl Stopwatch {
    #[expect(clippy::disallowed_methods, reason = "measures another process in real time")]
    pub(crate) fn start() -> Self {
        Self(Instant::now())
    }

    pub(crate) fn elapsed(&self) -> Duration {
        self.0.elapsed()
    }
}
