//! Bytes in locked pages of their own.

use std::fmt;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicBool, Ordering};

use zeroize::Zeroize;

/// The system has no page left.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no memory for key material")]
pub struct NoMemory;

/// Set once the system has refused to lock a page.
static REFUSED: AtomicBool = AtomicBool::new(false);

/// Secret bytes in pages of their own: locked, left out of core dumps and of forked children,
/// wiped on drop. `Debug` prints nothing of them, not `Clone`.
///
/// Invariant: `start` points at `pages` mapped bytes that are this value's alone, `len <= pages`.
pub struct LockedBytes {
    start: NonNull<u8>,
    len: usize,
    pages: usize,
    locked: bool,
}

// SAFETY: the pages belong to this value alone, which hands them out under the borrow rules.
unsafe impl Send for LockedBytes {}
// SAFETY: as above; a shared borrow only reads.
unsafe impl Sync for LockedBytes {}

impl LockedBytes {
    /// So many zero bytes.
    pub fn zeroed(len: usize) -> Result<Self, NoMemory> {
        // SAFETY: sysconf reads a constant of the system.
        let page = usize::try_from(unsafe { libc::sysconf(libc::_SC_PAGESIZE) }).unwrap_or(4096);
        let pages = len.max(1).checked_next_multiple_of(page).ok_or(NoMemory)?;
        let (read_write, private) =
            (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS);
        // SAFETY: a fresh anonymous mapping at an address of the kernel's choice touches nothing.
        let start = unsafe { libc::mmap(std::ptr::null_mut(), pages, read_write, private, -1, 0) };
        if start == libc::MAP_FAILED {
            return Err(NoMemory);
        }
        let start = NonNull::new(start.cast::<u8>()).ok_or(NoMemory)?;
        // SAFETY: exactly the pages mapped above; none of these calls changes their contents.
        let locked = unsafe {
            let address = start.as_ptr().cast();
            libc::madvise(address, pages, libc::MADV_DONTDUMP);
            libc::madvise(address, pages, libc::MADV_WIPEONFORK);
            libc::mlock(address, pages) == 0
        };
        if !locked {
            REFUSED.store(true, Ordering::Relaxed);
        }
        Ok(Self { start, len, pages, locked })
    }

    /// A copy of bytes; the caller wipes the original.
    pub fn copy_of(bytes: &[u8]) -> Result<Self, NoMemory> {
        let mut copy = Self::zeroed(bytes.len())?;
        copy.expose_mut().copy_from_slice(bytes);
        Ok(copy)
    }

    /// Shows the bytes; each call says in an `EXPOSE:` comment why it must.
    pub fn expose(&self) -> &[u8] {
        // SAFETY: `len` bytes at `start` are mapped, initialised (the kernel's zeros) and ours.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr(), self.len) }
    }

    /// Shows the bytes for writing; each call says in an `EXPOSE:` comment why it must.
    pub fn expose_mut(&mut self) -> &mut [u8] {
        // SAFETY: as in `expose`; the exclusive borrow makes this the only view.
        unsafe { std::slice::from_raw_parts_mut(self.start.as_ptr(), self.len) }
    }

    /// True if these pages cannot be swapped out.
    pub const fn is_locked(&self) -> bool {
        self.locked
    }

    /// True if the system has refused to lock any page so far; the caller warns once.
    pub fn any_refused() -> bool {
        REFUSED.load(Ordering::Relaxed)
    }
}

impl Drop for LockedBytes {
    fn drop(&mut self) {
        self.expose_mut().zeroize();
        // SAFETY: exactly the pages that `zeroed` mapped; nobody can borrow them any more.
        unsafe {
            let address = self.start.as_ptr().cast();
            if self.locked {
                libc::munlock(address, self.pages);
            }
            libc::munmap(address, self.pages);
        }
    }
}

impl fmt::Debug for LockedBytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("LockedBytes(..)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_of_any_length_are_kept_and_changed() {
        for len in [0, 1, 32, 4096, 4097, 10_000] {
            let original: Vec<u8> = (0..=250).cycle().take(len).collect();
            let mut bytes = LockedBytes::copy_of(&original).unwrap();
            assert_eq!(bytes.expose(), original);
            bytes.expose_mut().fill(9);
            assert!(bytes.expose().iter().all(|byte| *byte == 9));
            assert_eq!(bytes.expose().len(), len);
        }
    }

    #[test]
    fn new_bytes_are_zero_and_debug_prints_nothing() {
        let bytes = LockedBytes::zeroed(64).unwrap();
        assert_eq!(bytes.expose(), [0; 64]);
        assert_eq!(format!("{bytes:?}"), "LockedBytes(..)");
    }

    #[test]
    fn absurd_lengths_are_refused() {
        assert_eq!(LockedBytes::zeroed(usize::MAX).err(), Some(NoMemory));
    }

    /// The kernel's own account of the page: locked, not dumped, wiped on fork.
    #[test]
    fn the_kernel_says_that_the_page_is_locked_and_not_dumped() {
        let bytes = LockedBytes::copy_of(&[7; 32]).unwrap();
        let maps = std::fs::read_to_string("/proc/self/smaps").unwrap();
        let start = format!("{:x}-", bytes.expose().as_ptr() as usize);
        let Some(at) = maps.find(&start) else {
            return; // Merged with a neighbour: the kernel lists it under another address.
        };
        let flags = maps[at..].lines().find(|line| line.starts_with("VmFlags:")).unwrap();
        assert!(flags.contains(" dd"), "{flags}");
        assert!(flags.contains(" wf"), "{flags}");
        assert_eq!(flags.contains(" lo"), bytes.is_locked(), "{flags}");
    }

    #[test]
    fn they_may_be_dropped_on_another_thread() {
        let bytes = LockedBytes::copy_of(b"secret").unwrap();
        std::thread::spawn(move || assert_eq!(bytes.expose(), b"secret")).join().unwrap();
    }
}
