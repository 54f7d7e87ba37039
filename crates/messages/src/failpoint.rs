//! Places where a test may end the process, faults that it may plant, and a clock that it may turn. A
//! release build has none of them: they are compiled in with `debug_assertions` only.
//!
//! To add a place: call [`here`] with a name of its own, `path.step`, before and after what is
//! waited for, written or synced. `tests/it/kills.rs` finds the names in the sources and kills the
//! real program at each; one whose path its load does not walk is named there.

/// A rule that a test breaks, to see that its search finds what then goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// A login is made before its lease is stored.
    CredentialFirst,
    /// A login is removed while its sessions go on.
    SessionsLeft,
    /// A revocation that failed a few times is not tried again.
    GivenUp,
    /// On MySQL: what was made before a statement failed stays.
    NotUndone,
}

#[cfg(debug_assertions)]
mod compiled_in {
    use std::cell::Cell;
    use std::sync::OnceLock;
    use std::sync::atomic::{AtomicU64, Ordering};

    use super::Fault;

    struct Plan {
        name: String,
        passes: AtomicU64,
    }

    /// What `MSSM_FAILPOINT` says: a name, and after a colon at which pass (the first if not told).
    fn plan() -> Option<&'static Plan> {
        static PLAN: OnceLock<Option<Plan>> = OnceLock::new();
        PLAN.get_or_init(|| {
            #[expect(clippy::disallowed_methods, reason = "how a test says where to end")]
            let text = std::env::var("MSSM_FAILPOINT").ok()?;
            let (name, passes) = text.split_once(':').unwrap_or((&text, "1"));
            let passes = AtomicU64::new(passes.parse().unwrap_or(1));
            Some(Plan { name: name.to_owned(), passes })
        })
        .as_ref()
    }

    /// Ends the process at once, if it was told to end here: nothing is unwound or flushed.
    pub fn here(name: &str) {
        if let Some(plan) = plan()
            && plan.name == name
            && plan.passes.fetch_sub(1, Ordering::SeqCst) == 1
        {
            std::process::abort();
        }
    }

    /// Waits here for as long as the file is there that `MSSM_STALL` names after the place's name and
    /// a colon: as a disk does that hangs.
    pub fn stall(name: &str) {
        static PLAN: OnceLock<Option<(String, std::path::PathBuf)>> = OnceLock::new();
        let plan = PLAN.get_or_init(|| {
            #[expect(clippy::disallowed_methods, reason = "how a test says where to hang")]
            let text = std::env::var("MSSM_STALL").ok()?;
            let (name, file) = text.split_once(':')?;
            Some((name.to_owned(), file.into()))
        });
        let Some((_, file)) = plan.as_ref().filter(|(planned, _)| planned == name) else { return };
        while file.exists() {
            #[expect(clippy::disallowed_methods, reason = "a disk that hangs does not return")]
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
    }

    /// What the wall clock shows, if a test turns it: the time of the file that `MSSM_CLOCK` names.
    pub fn clock() -> Option<std::time::SystemTime> {
        static PLAN: OnceLock<Option<std::path::PathBuf>> = OnceLock::new();
        let plan = PLAN.get_or_init(|| std::env::var_os("MSSM_CLOCK").map(Into::into));
        std::fs::metadata(plan.as_ref()?).and_then(|file| file.modified()).ok()
    }

    thread_local! {
        static PLANTED: Cell<Option<Fault>> = const { Cell::new(None) };
    }

    /// Plants a fault on this thread, or takes it away.
    pub fn plant(fault: Option<Fault>) {
        PLANTED.set(fault);
    }

    /// True if this fault is planted on this thread.
    pub fn is_planted(fault: Fault) -> bool {
        PLANTED.get() == Some(fault)
    }
}

#[cfg(debug_assertions)]
pub use compiled_in::{clock, here, is_planted, plant, stall};

/// Does nothing in a release build.
#[cfg(not(debug_assertions))]
#[inline(always)]
#[expect(clippy::inline_always, reason = "so that not even the name is left in the program")]
pub const fn here(_name: &str) {}

/// Does nothing in a release build.
#[cfg(not(debug_assertions))]
#[inline(always)]
#[expect(clippy::inline_always, reason = "so that not even the name is left in the program")]
pub const fn stall(_name: &str) {}

/// Nobody turns the clock of a release build.
#[cfg(not(debug_assertions))]
#[inline(always)]
#[expect(clippy::inline_always, reason = "so that the other clock is not in the program")]
pub const fn clock() -> Option<std::time::SystemTime> {
    None
}

/// Nothing is planted in a release build.
#[cfg(not(debug_assertions))]
#[inline(always)]
#[expect(clippy::inline_always, reason = "so that the faulty way is not in the program")]
pub const fn is_planted(_fault: Fault) -> bool {
    false
}
