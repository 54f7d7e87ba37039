//! Wipes what functions that have returned left behind on a thread's stack.

use std::hint::black_box;

/// As deep as anything goes that handles secrets; a thread's stack has 2 MiB at least.
const DEPTH: usize = 256 * 1024;

/// Overwrites the stack below whoever calls this: there are the buffers of ciphers and parsers that
/// have returned. Best called from a function that is not deep itself. The pages go back to the
/// system: most were touched by this alone, and an idle thread needs none of them.
#[inline(never)]
#[expect(clippy::large_stack_arrays, reason = "the stack is what is to be overwritten")]
pub fn wipe_stack() {
    let mut room = [0_u8; DEPTH];
    // Somebody may look at it, as far as the compiler knows, so it is written.
    black_box(&mut room);
    give_back(&mut room);
}

/// Unmaps the pages that lie wholly in `zeros`, which read as zeros afterwards too.
fn give_back(zeros: &mut [u8]) {
    // SAFETY: sysconf reads a constant of the system.
    let page = usize::try_from(unsafe { libc::sysconf(libc::_SC_PAGESIZE) }).unwrap_or(4096);
    let before = zeros.as_ptr().align_offset(page);
    let Some(inner) = zeros.get_mut(before..) else { return };
    let whole = inner.len() / page * page;
    // SAFETY: whole pages of a slice that nobody else sees; of a private mapping, as every stack is,
    // they come back as zeros, which they hold.
    unsafe { libc::madvise(inner.as_mut_ptr().cast(), whole, libc::MADV_DONTNEED) };
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::FileExt;

    use super::*;

    /// Pages of this process that are in memory, by the kernel's own account.
    fn resident() -> usize {
        let statm = std::fs::read_to_string("/proc/thread-self/statm").unwrap();
        statm.split(' ').nth(1).unwrap().parse().unwrap()
    }

    const MARK: [u8; 32] = *b"a value that a parser left there";

    /// Where it left so many copies of the mark.
    #[inline(never)]
    #[expect(clippy::large_stack_arrays, reason = "so deep goes a parser")]
    fn leave() -> u64 {
        let mut deep = [MARK; 2048];
        black_box(&mut deep);
        deep.as_ptr() as u64
    }

    /// How many of them stand there now.
    fn left(at: u64) -> usize {
        let mut found = vec![0; 2048 * MARK.len()];
        let memory = std::fs::File::open("/proc/self/mem").unwrap();
        memory.read_exact_at(&mut found, at).unwrap();
        found.windows(MARK.len()).filter(|window| *window == MARK).count()
    }

    #[test]
    fn what_a_function_left_is_gone_and_its_pages_are_given_back() {
        // On a thread of its own, whose stack nobody has touched.
        let wiping = std::thread::spawn(|| {
            let at = leave();
            let before = (left(at), resident());
            wipe_stack();
            (before, left(at), resident())
        });
        let ((there, before), left, after) = wiping.join().unwrap();
        assert!(there > 1000, "{there}");
        assert_eq!(left, 0);
        // Other tests take pages too, where they share a process.
        assert!(after < before + DEPTH / 4096 / 2, "{after} pages instead of {before}");
    }
}
