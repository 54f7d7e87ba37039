//! Memory that is neither swapped nor dumped: the only room with unsafe code.
//!
//! [`LockedBytes`] live in pages of their own, which the kernel keeps in memory, leaves out of core
//! dumps and which are wiped before they are given back. Where the system refuses to lock (a low
//! `ulimit -l`), the bytes work all the same and [`LockedBytes::is_locked`] says so.
#![expect(unsafe_code, reason = "mmap, mlock and prctl have no safe form that owns its pages")]

mod bytes;
mod process;
mod stack;
mod wiping;

pub use bytes::{LockedBytes, NoMemory};
pub use process::{HardenError, harden_process};
pub use stack::wipe_stack;
pub use wiping::Wiping;
