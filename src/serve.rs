//! Runs the server from its settings to its last answer.

use std::io::IsTerminal;
use std::path::Path;
use std::time::Duration;

use mssm_messages::audit::Reopen;
use mssm_messages::seal::{AutoUnseal, Distrust, SealNow};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tracing_subscriber::EnvFilter;

use crate::Wishes;
use crate::chronicle::Note;
use crate::config::{Config, Environment, LogConfig};
use crate::sandbox;
use crate::wiring::{self, Server};

/// The exit code after a fault that only a restart can mend (`EX_SOFTWARE`).
const BROKEN: i32 = 70;

/// The audit thread answers within a sync of the disk.
const NEAR: Duration = Duration::from_secs(10);

/// Runs the server that a file and the environment describe until it is told to stop.
pub(crate) fn run(
    file: Option<&Path>,
    environment: &Environment,
    wishes: Wishes,
) -> Result<(), String> {
    mssm_locked::harden_process().map_err(|error| error.to_string())?;
    let config = Config::load(file, environment).map_err(|error| error.to_string())?;
    log_to_standard_error(&config.log);
    give_up_rights(&config)?;
    // Two providers could be compiled in by what others depend on: ours is chosen before first use.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    actix::System::new().block_on(async {
        let server = wiring::start(config, wishes).await.map_err(|error| error.to_string())?;
        watch(server).await
    })
}

/// What the server never needs again goes before it opens anything.
fn give_up_rights(config: &Config) -> Result<(), String> {
    let log = config.audit.file.parent().filter(|folder| !folder.as_os_str().is_empty());
    let writable = [config.storage.folder.as_path(), log.unwrap_or(Path::new("."))];
    let confined = sandbox::confine(&writable)?;
    if confined.files {
        tracing::info!(folders = ?writable, "writes below these folders only, and runs no program");
    } else {
        tracing::warn!("this kernel has no Landlock: the process may write wherever its user may");
    }
    if confined.calls {
        tracing::info!("the kernel refuses the calls that a server has no use for");
    } else {
        tracing::warn!(
            "system calls could not be filtered: the process may make any that its kernel lets it"
        );
    }
    if confined.root {
        tracing::warn!("runs as root: give it a user of its own, as config/mssm.service does");
    }
    Ok(())
}

/// Serves until a signal or a fault ends it.
async fn watch(mut server: Server) -> Result<(), String> {
    let unusable = |error: std::io::Error| format!("cannot wait for signals: {error}");
    let mut hangup = signal(SignalKind::hangup()).map_err(unusable)?;
    let mut terminate = signal(SignalKind::terminate()).map_err(unusable)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(unusable)?;
    for address in &server.http.addresses {
        tracing::info!(%address, "listening");
    }
    note(&server, "server-started", version()).await;
    unseal_by_itself(&server).await;
    loop {
        tokio::select! {
            ended = &mut server.http.server => {
                return ended.map_err(|error| format!("the front door ended: {error}"));
            }
            reason = &mut server.poisoned => {
                return give_up(&server, reason.unwrap_or_default()).await;
            }
            Some(findings) = server.distrusted.recv() => {
                if let Ok(Err(error)) = server.seal.send(Distrust(findings)).await {
                    tracing::error!(%error, "sealing a store that cannot be trusted");
                }
            }
            () = received(&mut hangup) => read_again(&server).await,
            () = received(&mut terminate) => break,
            () = received(&mut interrupt) => break,
        }
    }
    tracing::info!("stopping");
    note(&server, "server-stopping", version()).await;
    server.stop().await;
    Ok(())
}

/// SIGHUP: a certificate that was renewed, an audit file that was moved away.
async fn read_again(server: &Server) {
    let certificate = match server.certificate.reload() {
        Ok(()) => {
            tracing::info!("certificate read again");
            "read again"
        }
        Err(error) => {
            tracing::error!(%error, "the certificate in force stays");
            "cannot be read, the one in force stays"
        }
    };
    let _ = server.reopen_audit.ask(Reopen, NEAR).await;
    note(server, "reloaded", vec![("certificate", certificate.to_owned())]).await;
}

async fn received(signal: &mut Signal) {
    if signal.recv().await.is_none() {
        std::future::pending::<()>().await;
    }
}

/// With a static key the server opens itself; without one it says that it waits.
async fn unseal_by_itself(server: &Server) {
    match server.seal.send(AutoUnseal).await {
        Ok(Ok(status)) if !status.sealed => tracing::info!("unsealed with the static key"),
        Ok(Ok(status)) if !status.initialized => {
            tracing::info!("not initialised: run mssm operator init");
        }
        Ok(Ok(_)) => tracing::info!("sealed: run mssm operator unseal"),
        Ok(Err(error)) => tracing::error!(%error, "stays sealed"),
        Err(error) => tracing::error!(%error, "stays sealed"),
    }
}

fn version() -> Vec<(&'static str, String)> {
    vec![("version", env!("CARGO_PKG_VERSION").to_owned())]
}

/// The audit log may be blocked: the server then starts all the same, and refuses requests.
async fn note(server: &Server, name: &'static str, details: Vec<(&'static str, String)>) {
    if let Ok(Err(error)) = server.chronicle.send(Note { name, details }).await {
        tracing::error!(%error, "not written to the audit log");
    }
}

/// The store cannot be trusted any more: wipe the keys and end, so that a restart reads what is
/// really on the disk.
async fn give_up(server: &Server, reason: String) -> Result<(), String> {
    tracing::error!(reason, "the store failed, sealing and ending");
    let _ = server.seal.send(SealNow).await;
    std::process::exit(BROKEN)
}

fn log_to_standard_error(config: &LogConfig) {
    // The HTTP library calls it an error when a client sends nonsense: anybody could fill the log.
    let filter = EnvFilter::new(format!("{},actix_http::h1::dispatcher=off", config.level));
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        // Colours are for a screen.
        .with_ansi(std::io::stderr().is_terminal())
        .with_writer(std::io::stderr);
    // A second logger can only be one that a test has set.
    let _ = if config.json { builder.json().try_init() } else { builder.try_init() };
}
