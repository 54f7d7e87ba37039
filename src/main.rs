//! Starts MSSM's command line.

use std::process::ExitCode;

/// Requests are many small allocations, which this allocator does faster than the system's. Without
/// huge pages, so that an idle server stays small.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    mssm::cli::run()
}
