//! Starts MSSM's command line.

use std::process::ExitCode;

/// Requests are many small allocations: with this allocator a read costs a sixth less. Without huge
/// pages, so that an idle server stays small.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    mssm::cli::run()
}
