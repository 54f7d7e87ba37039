//! Wipes what functions that have returned left behind on a thread's stack.

use std::hint::black_box;

/// As deep as anything goes that handles secrets; a thread's stack has 2 MiB at least.
const DEPTH: usize = 256 * 1024;

/// Overwrites the stack below whoever calls this: there are the buffers of ciphers and parsers that
/// have returned. Best called from a function that is not deep itself.
#[inline(never)]
#[expect(clippy::large_stack_arrays, reason = "the stack is what is to be overwritten")]
pub fn wipe_stack() {
    let mut room = [0_u8; DEPTH];
    // Somebody may look at it, as far as the compiler knows, so it is written.
    black_box(&mut room);
}
