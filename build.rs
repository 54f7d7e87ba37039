//! Has the linker pack the addresses that the loader adjusts, where the loader can read that.
//!
//! They are 0.6 MiB otherwise, read from end to end at every start. GNU libc can since 2.36.

use std::process::Command;

#[expect(clippy::disallowed_methods, reason = "cargo says in the environment what it builds for")]
fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    let (host, target) = (std::env::var("HOST"), std::env::var("TARGET"));
    if host.is_ok() && host == target && libc_version().is_some_and(|version| version >= (2, 36)) {
        println!("cargo:rustc-link-arg-bins=-Wl,-z,pack-relative-relocs");
    }
}

/// The version of this machine's GNU libc, if it has one.
fn libc_version() -> Option<(u32, u32)> {
    let asked = Command::new("getconf").arg("GNU_LIBC_VERSION").output().ok()?;
    let (major, minor) =
        std::str::from_utf8(&asked.stdout).ok()?.trim().strip_prefix("glibc ")?.split_once('.')?;
    Some((major.parse().ok()?, minor.parse().ok()?))
}
