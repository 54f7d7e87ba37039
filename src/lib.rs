//! MSSM: the Minimal Secure Secrets Manager.
//!
//! The rooms are crates (`crates/`, `actors/`); this library knows them all: it reads the settings
//! ([`config`]), starts and links the actors ([`wiring`]), and is the command line ([`cli`]).

use std::path::Path;

mod auditing;
mod bounds;
mod chronicle;
pub mod cli;
mod clock;
pub mod config;
mod databases;
mod offline;
mod sandbox;
mod serve;
pub mod wiring;

/// Runs the server described by the file at `config` until it is told to stop.
///
/// The error is for the operator's eyes.
pub fn server_main(config: Option<&Path>, wishes: Wishes) -> Result<(), String> {
    let mut environment = config::process_environment();
    if wishes.dev_tls {
        environment.insert("MSSM_SERVER_TLS_SELF_SIGNED".to_owned(), "true".to_owned());
    }
    serve::run(config, &environment, wishes)
}

/// What is wished of one run of the server, and is no setting.
#[derive(Clone, Copy, Debug, Default)]
pub struct Wishes {
    /// A self-signed certificate, for development.
    pub dev_tls: bool,
    /// To go on with a store that is older than the audit log.
    pub accept_rollback: bool,
    /// To end nothing that the store does not know: it was restored from a copy.
    pub restored: bool,
}

/// Checks the store named by the configuration at `config`; answers a report for the operator.
pub fn storage_check(config: Option<&Path>) -> Result<String, String> {
    offline::storage_check(config, &config::process_environment())
}
