//! Runs the workspace's own tests against a PostgreSQL in a container.
//!
//! `scripts/test --docker` builds the image and calls this. `MSSM_TEST_ARGS` says what is run
//! instead of all crates that use a database, in the test runner's words.

use std::error::Error;
use std::path::Path;
use std::process::{Command, ExitStatus};

use testcontainers::core::{IntoContainerPort, WaitFor};
use testcontainers::runners::SyncRunner;
use testcontainers::{Container, GenericImage, ImageExt, TestcontainersError};

const ADMIN: &str = "mssm_admin";
/// No secret: the container lives for one run, on this machine.
const PASSWORD: &str = "container";
/// The crates whose tests use a database.
const DATABASE_TESTS: &str = "-p mssm-testkit -p mssm-minter -p mssm";

#[test]
fn the_database_tests_pass_on_a_container() -> Result<(), Box<dyn Error>> {
    let container = start()?;
    let host = container.get_host()?;
    let port = container.get_host_port_ipv4(5432.tcp())?;
    let url = format!("postgresql://{ADMIN}:{PASSWORD}@{host}:{port}/postgres");
    assert!(run_tests(&url)?.success(), "see the tests' own output above");
    Ok(())
}

fn start() -> Result<Container<GenericImage>, TestcontainersError> {
    GenericImage::new("mssm-postgres", "15")
        .with_exposed_port(5432.tcp())
        .with_wait_for(WaitFor::message_on_stderr("database system is ready to accept connections"))
        .with_env_var("POSTGRES_USER", ADMIN)
        .with_env_var("POSTGRES_PASSWORD", PASSWORD)
        .with_cmd(["-c", "max_connections=200", "-c", "fsync=off"])
        .start()
}

/// The same tests, by the same runner, with another database.
fn run_tests(url: &str) -> std::io::Result<ExitStatus> {
    let mut tests = Command::new("cargo");
    // What a runner tells its tests would confuse a runner within it.
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("NEXTEST") {
            tests.env_remove(name);
        }
    }
    let runner: &[&str] =
        if has_nextest() { &["nextest", "run"] } else { &["test", "--no-fail-fast"] };
    let what = std::env::var_os("MSSM_TEST_ARGS").unwrap_or_else(|| DATABASE_TESTS.into());
    tests
        .current_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("../.."))
        .args(runner)
        .args(what.to_string_lossy().split_whitespace())
        .env("MSSM_TEST_POSTGRES_URL", url)
        .env_remove("MSSM_TEST_POSTGRES_LOG")
        .status()
}

fn has_nextest() -> bool {
    let version = Command::new("cargo").args(["nextest", "--version"]).output();
    version.is_ok_and(|output| output.status.success())
}
