//! An allocator that wipes what is given back, so that a secret does not outlive its owner in free memory.
//!
//! Our own secrets wipe themselves. What libraries copy of them (buffers of requests and answers,
//! of TLS, of the database's wire) does not; here it is overwritten when it is freed or moved.

use std::alloc::{GlobalAlloc, Layout};
use std::sync::atomic::{Ordering, compiler_fence};

/// Wipes memory before it goes back to the allocator below.
#[derive(Clone, Copy, Debug, Default)]
pub struct Wiping<A>(pub A);

// SAFETY: every call goes to the allocator below with the arguments that were given; what is
// overwritten belongs to the caller until it is handed on. `realloc` is the provided one, which
// allocates, copies and gives back through these.
unsafe impl<A: GlobalAlloc> GlobalAlloc for Wiping<A> {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller's promises are those of the method below.
        unsafe { self.0.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller's promises are those of the method below.
        unsafe { self.0.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        // SAFETY: the caller gives back `layout.size()` bytes at `at`, which nobody else uses.
        unsafe { at.write_bytes(0, layout.size()) };
        // What is written just before it is freed must not be left out as useless.
        compiler_fence(Ordering::SeqCst);
        // SAFETY: the caller's promises are those of the method below.
        unsafe { self.0.dealloc(at, layout) }
    }
}

#[cfg(test)]
mod tests {
    use std::alloc::System;
    use std::sync::Mutex;

    use super::*;

    /// Looks at what is given back.
    struct Watched(Mutex<Vec<u8>>);

    // SAFETY: the system's allocator, which is looked over the shoulder.
    unsafe impl GlobalAlloc for Watched {
        unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
            // SAFETY: passed on.
            unsafe { System.alloc(layout) }
        }

        unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
            // SAFETY: the caller still owns these bytes.
            let seen = unsafe { std::slice::from_raw_parts(at, layout.size()) }.to_vec();
            self.0.lock().unwrap().extend(seen);
            // SAFETY: passed on.
            unsafe { System.dealloc(at, layout) }
        }
    }

    #[test]
    fn what_is_given_back_or_moved_is_wiped() {
        let allocator = Wiping(Watched(Mutex::new(Vec::new())));
        let layout = Layout::array::<u8>(100).unwrap();
        // SAFETY: allocated, written, grown and given back by the rules.
        unsafe {
            let at = allocator.alloc(layout);
            at.write_bytes(0x5a, 100);
            let grown = allocator.realloc(at, layout, 4000);
            assert_eq!(*grown.add(99), 0x5a);
            allocator.dealloc(grown, Layout::array::<u8>(4000).unwrap());
        }
        let seen = allocator.0.0.lock().unwrap();
        assert_eq!((seen.len(), seen.iter().all(|byte| *byte == 0)), (4100, true));
    }
}
