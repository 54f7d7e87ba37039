//! Starts MSSM's command line.

fn main() {}
