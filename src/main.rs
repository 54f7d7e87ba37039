//! Starts MSSM's command line.

use std::process::ExitCode;

/// Requests are many small allocations, which this allocator does faster than the system's. Without
/// huge pages, so that an idle server stays small. What is freed is wiped: buffers hold secrets.
#[global_allocator]
static ALLOCATOR: mssm_locked::Wiping<mimalloc::MiMalloc> = mssm_locked::Wiping(mimalloc::MiMalloc);

fn main() -> ExitCode {
    mssm::cli::run()
}
