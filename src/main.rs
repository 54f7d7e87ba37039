//! Starts MSSM's command line.

use std::process::ExitCode;

fn main() -> ExitCode {
    mssm::cli::run()
}
