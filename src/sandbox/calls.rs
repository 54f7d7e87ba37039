//! Which system calls the server never makes again: the kernel refuses them to all its threads.

use std::collections::BTreeMap;
use std::env::consts::ARCH;

use rustix::io::Errno;
use seccompiler::{BpfProgram, Error, SeccompAction, SeccompFilter, apply_filter};

/// What runs programs, looks into processes, or changes the system; each by its number here.
const REFUSED: [libc::c_long; 46] = [
    // Other programs in our place.
    libc::SYS_execve,
    libc::SYS_execveat,
    libc::SYS_personality,
    // Other processes' memory and files.
    libc::SYS_ptrace,
    libc::SYS_process_vm_readv,
    libc::SYS_process_vm_writev,
    libc::SYS_pidfd_getfd,
    libc::SYS_kcmp,
    libc::SYS_perf_event_open,
    libc::SYS_userfaultfd,
    // The kernel's own programs, rings, modules and keys.
    libc::SYS_bpf,
    libc::SYS_io_uring_setup,
    libc::SYS_io_uring_enter,
    libc::SYS_io_uring_register,
    libc::SYS_init_module,
    libc::SYS_finit_module,
    libc::SYS_delete_module,
    libc::SYS_kexec_load,
    libc::SYS_add_key,
    libc::SYS_request_key,
    libc::SYS_keyctl,
    // Other views of the file system.
    libc::SYS_mount,
    libc::SYS_umount2,
    libc::SYS_move_mount,
    libc::SYS_open_tree,
    libc::SYS_fsopen,
    libc::SYS_fsconfig,
    libc::SYS_fsmount,
    libc::SYS_fspick,
    libc::SYS_mount_setattr,
    libc::SYS_pivot_root,
    libc::SYS_chroot,
    libc::SYS_open_by_handle_at,
    libc::SYS_unshare,
    libc::SYS_setns,
    // The machine as a whole.
    libc::SYS_reboot,
    libc::SYS_swapon,
    libc::SYS_swapoff,
    libc::SYS_acct,
    libc::SYS_quotactl,
    libc::SYS_syslog,
    libc::SYS_sethostname,
    libc::SYS_setdomainname,
    libc::SYS_settimeofday,
    libc::SYS_clock_settime,
    libc::SYS_clock_adjtime,
];

/// A kernel for x86-64 may know a second table of the same calls, at these numbers and up (x32).
const SECOND_TABLE: libc::c_long = 0x4000_0000;
/// The refused calls that the second table has elsewhere: execve, ptrace, kexec_load, process_vm_readv,
/// process_vm_writev, execveat.
const ELSEWHERE: [libc::c_long; 6] = [520, 521, 528, 539, 540, 545];

/// Refuses them for good, with `EPERM`. False if the kernel has no filters (or not for this
/// processor), or a filter around the server lets it set none.
pub(super) fn refuse() -> Result<bool, Error> {
    let Ok(arch) = ARCH.try_into() else { return Ok(false) };
    let twice = REFUSED.iter().chain(&ELSEWHERE).map(|number| SECOND_TABLE | number);
    let second = twice.filter(|_| cfg!(target_arch = "x86_64"));
    let rules: BTreeMap<_, _> =
        REFUSED.iter().copied().chain(second).map(|number| (number, Vec::new())).collect();
    let refusal = SeccompAction::Errno(Errno::PERM.raw_os_error().unsigned_abs());
    let filter = SeccompFilter::new(rules, SeccompAction::Allow, refusal, arch);
    let program: BpfProgram = filter.and_then(TryInto::try_into).map_err(Error::Backend)?;
    match apply_filter(&program) {
        Ok(()) => Ok(true),
        Err(Error::Prctl(error) | Error::Seccomp(error))
            if Errno::from_io_error(&error)
                .is_some_and(|code| matches!(code, Errno::INVAL | Errno::NOSYS | Errno::PERM)) =>
        {
            Ok(false)
        }
        Err(error) => Err(error),
    }
}
