//! What the process gives up before it reads a secret: rights and places that it never needs again.

mod calls;

use std::path::{Path, PathBuf};

use landlock::{
    ABI, Access, AccessFs, BitFlags, PathBeneath, PathFd, Ruleset, RulesetAttr, RulesetCreatedAttr,
    RulesetError, RulesetStatus,
};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use rustix::thread::{
    CapabilitySet, CapabilitySets, capabilities, remove_capability_from_bounding_set,
    set_capabilities, set_no_new_privs,
};

/// What a server may keep of what it was given: a port below 1024, and pages that stay in memory.
const KEPT: CapabilitySet = CapabilitySet::NET_BIND_SERVICE.union(CapabilitySet::IPC_LOCK);
/// The newest rights on files that this program knows of; an older kernel enforces those it knows.
const RIGHTS: ABI = ABI::V5;
/// As many open files as one process may want; more is a limit that nobody set.
const FILES_MAX: u64 = 1 << 20;

/// What the system did of what was asked, for the server's log.
#[derive(Debug)]
pub(crate) struct Confined {
    /// True if the kernel keeps the process from writing elsewhere, and from running programs.
    pub(crate) files: bool,
    /// True if the kernel refuses the calls that a server has no use for.
    pub(crate) calls: bool,
    /// True if the process runs as root all the same.
    pub(crate) root: bool,
}

/// Gives up new rights, capabilities, and every place but `writable` to write to. Threads inherit it, so
/// this comes before there is a second one.
///
/// What cannot be given up is an error; a kernel without Landlock or filters is none, it is reported.
pub(crate) fn confine(writable: &[&Path]) -> Result<Confined, String> {
    let refused = |what: &str, error: &dyn std::fmt::Display| format!("cannot {what}: {error}");
    set_no_new_privs(true).map_err(|error| refused("give up new privileges", &error))?;
    drop_capabilities().map_err(|error| refused("drop capabilities", &error))?;
    raise_files().map_err(|error| refused("raise the limit of open files", &error))?;
    let files = restrict(writable).map_err(|error| refused("restrict access to files", &error))?;
    // The last: what came before is itself made of calls.
    let calls = calls::refuse().map_err(|error| refused("refuse system calls", &error))?;
    Ok(Confined { files, calls, root: rustix::process::geteuid().is_root() })
}

fn drop_capabilities() -> rustix::io::Result<()> {
    let held = capabilities(None)?;
    // Only who may change the bounding set can and need shrink it.
    if held.effective.contains(CapabilitySet::SETPCAP) {
        for one in CapabilitySet::all().difference(KEPT).iter() {
            match remove_capability_from_bounding_set(one) {
                // A kernel does not know those that are newer than itself.
                Ok(()) | Err(rustix::io::Errno::INVAL) => {}
                Err(error) => return Err(error),
            }
        }
    }
    let kept = held.permitted.intersection(KEPT);
    let sets =
        CapabilitySets { effective: kept, permitted: kept, inheritable: CapabilitySet::empty() };
    set_capabilities(None, sets)
}

/// As many connections as the system lets the process have; the usual soft limit of 1,024 is for `select`.
fn raise_files() -> rustix::io::Result<()> {
    let limit = getrlimit(Resource::Nofile);
    let most = limit.maximum.unwrap_or(FILES_MAX).min(FILES_MAX);
    if limit.current.is_none_or(|current| current >= most) {
        return Ok(());
    }
    setrlimit(Resource::Nofile, Rlimit { current: Some(most), maximum: limit.maximum })
}

/// Reading anywhere, writing below some folders only, running nothing. True if the kernel enforces it.
fn restrict(writable: &[&Path]) -> Result<bool, RulesetError> {
    let all = AccessFs::from_all(RIGHTS);
    let read = AccessFs::ReadFile | AccessFs::ReadDir;
    let mut ruleset = Ruleset::default().handle_access(all)?.create()?;
    let beneath = |path: PathBuf, access: BitFlags<AccessFs>| {
        PathFd::new(path).ok().map(|opened| PathBeneath::new(opened, access))
    };
    if let Some(rule) = beneath(PathBuf::from("/"), read) {
        ruleset = ruleset.add_rule(rule)?;
    }
    for path in writable {
        if let Some(rule) = beneath(existing(path), all & !BitFlags::from(AccessFs::Execute)) {
            ruleset = ruleset.add_rule(rule)?;
        }
    }
    Ok(ruleset.restrict_self()?.ruleset != RulesetStatus::NotEnforced)
}

/// The folder, or the nearest one above it that is there: what is missing is made at the start.
fn existing(path: &Path) -> PathBuf {
    let whole = std::path::absolute(path).unwrap_or_else(|_| path.to_path_buf());
    let found = whole.ancestors().find(|folder| folder.is_dir());
    found.unwrap_or(Path::new("/")).to_path_buf()
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use rustix::io::Errno;
    use rustix::process::{PidfdFlags, PidfdGetfdFlags, getpid, pidfd_getfd, pidfd_open};

    use super::*;

    /// In a child, since it cannot be undone: this test's own binary runs itself again.
    #[test]
    fn a_confined_process_writes_where_it_may_and_runs_nothing() {
        const NAME: &str =
            "sandbox::tests::a_confined_process_writes_where_it_may_and_runs_nothing";
        let arguments: Vec<String> = std::env::args().collect();
        if arguments.iter().any(|argument| argument == "--include-ignored") {
            let inside = tempfile::tempdir().unwrap();
            let outside = tempfile::tempdir().unwrap();
            let missing = inside.path().join("not/yet");
            let confined = confine(&[inside.path(), &missing]).unwrap();
            let held = capabilities(None).unwrap();
            assert!(KEPT.contains(held.effective) && KEPT.contains(held.permitted));
            std::fs::create_dir_all(&missing).unwrap();
            std::fs::write(missing.join("a"), "a").unwrap();
            if confined.files {
                assert!(std::fs::write(outside.path().join("a"), "a").is_err());
                assert!(std::fs::remove_dir(outside.path()).is_err());
                assert!(std::fs::read("/proc/self/status").is_ok());
                assert!(Command::new("/bin/true").status().is_err());
            }
            if confined.calls {
                // Landlock would say EACCES, and has nothing against a copy of one's own file.
                let run = Command::new("/bin/true").status().unwrap_err();
                assert_eq!(Errno::from_io_error(&run), Some(Errno::PERM));
                let itself = pidfd_open(getpid(), PidfdFlags::empty()).unwrap();
                let copy = pidfd_getfd(&itself, 0, PidfdGetfdFlags::empty());
                assert_eq!(copy.unwrap_err(), Errno::PERM);
            }
            return;
        }
        let child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", NAME, "--nocapture", "--include-ignored"])
            .output()
            .unwrap();
        assert!(child.status.success(), "{}", String::from_utf8_lossy(&child.stderr));
    }
}
