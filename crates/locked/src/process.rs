//! Keeps the whole process out of core dumps and debuggers, and its files private.

use std::io;

/// What the system refused.
#[derive(Debug, thiserror::Error)]
pub enum HardenError {
    /// The process stays dumpable and open to debuggers of the same user.
    #[error("the process could not be made undumpable: {0}")]
    Dumpable(io::Error),
    /// The limit on core files stays.
    #[error("core dumps could not be switched off: {0}")]
    CoreLimit(io::Error),
}

/// No core dumps, no debugger of the same user, new files for the owner alone (umask 077).
///
/// Call it once, first thing in `main`, before there are secrets or threads.
pub fn harden_process() -> Result<(), HardenError> {
    // SAFETY: umask changes one number of the process and cannot fail.
    unsafe { libc::umask(0o077) };
    let none = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: the pointer is to a whole rlimit that outlives the call.
    if unsafe { libc::setrlimit(libc::RLIMIT_CORE, &raw const none) } != 0 {
        return Err(HardenError::CoreLimit(io::Error::last_os_error()));
    }
    // SAFETY: this prctl takes numbers only.
    if unsafe { libc::prctl(libc::PR_SET_DUMPABLE, 0, 0, 0, 0) } != 0 {
        return Err(HardenError::Dumpable(io::Error::last_os_error()));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// In a child, since it cannot be undone: this test's own binary runs itself again.
    #[test]
    fn a_hardened_process_cannot_be_dumped() {
        const NAME: &str = "process::tests::a_hardened_process_cannot_be_dumped";
        if std::env::args().any(|arg| arg == "--nocapture")
            && std::env::args().any(|arg| arg == "--include-ignored")
        {
            harden_process().unwrap();
            // SAFETY: this prctl takes and gives numbers only.
            let dumpable = unsafe { libc::prctl(libc::PR_GET_DUMPABLE, 0, 0, 0, 0) };
            let mut limit = libc::rlimit { rlim_cur: 1, rlim_max: 1 };
            // SAFETY: the pointer is to a whole rlimit that outlives the call.
            let read = unsafe { libc::getrlimit(libc::RLIMIT_CORE, &raw mut limit) };
            assert_eq!((dumpable, read, limit.rlim_cur, limit.rlim_max), (0, 0, 0, 0));
            return;
        }
        let child = std::process::Command::new(std::env::current_exe().unwrap())
            .args(["--exact", NAME, "--nocapture", "--include-ignored"])
            .output()
            .unwrap();
        assert!(child.status.success(), "{}", String::from_utf8_lossy(&child.stdout));
    }
}
