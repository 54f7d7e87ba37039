//! What each room may touch: every manifest against one table, so that a new arrow is a reviewed line.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// The crates that each room stands on, tests aside.
const TABLE: &[(&str, &[&str])] = &[
    ("crates/domain", &["jiff", "subtle", "thiserror", "uuid", "zeroize"]),
    (
        "crates/crypto",
        &[
            "aes",
            "aes-gcm",
            "aes-siv",
            "aws-lc-rs",
            "base64",
            "chacha20poly1305",
            "ed25519-dalek",
            "hex",
            "hkdf",
            "hmac",
            "mssm-domain",
            "pbkdf2",
            "sha1",
            "sha2",
            "subtle",
            "thiserror",
            "zeroize",
        ],
    ),
    ("crates/locked", &["libc", "thiserror", "zeroize"]),
    (
        "crates/messages",
        &["actix", "actix-rt", "futures-util", "mssm-domain", "thiserror", "tokio", "tracing"],
    ),
    (
        "crates/testkit",
        &[
            "actix",
            "actix-rt",
            "mssm-domain",
            "mssm-messages",
            "mysql_async",
            "tempfile",
            "tokio",
            "tokio-postgres",
        ],
    ),
    (
        "actors/seal",
        &[
            "actix",
            "actix-rt",
            "futures-util",
            "hex",
            "mssm-crypto",
            "mssm-domain",
            "mssm-locked",
            "mssm-messages",
            "thiserror",
            "tracing",
        ],
    ),
    (
        "actors/storage",
        &[
            "mssm-domain",
            "mssm-messages",
            "redb",
            "rustix",
            "sha2",
            "thiserror",
            "tokio",
            "tracing",
        ],
    ),
    (
        "actors/access",
        &[
            "actix",
            "actix-rt",
            "base64",
            "futures-util",
            "hex",
            "mssm-domain",
            "mssm-messages",
            "serde",
            "serde_json",
            "thiserror",
            "tokio",
            "tracing",
        ],
    ),
    (
        "actors/mounts",
        &[
            "actix",
            "actix-rt",
            "futures-util",
            "mssm-domain",
            "mssm-messages",
            "serde",
            "serde_json",
            "tokio",
            "tracing",
        ],
    ),
    (
        // Of crypto the keys that sign tokens only.
        "actors/jwt",
        &[
            "actix",
            "actix-rt",
            "base64",
            "futures-util",
            "mssm-crypto",
            "mssm-domain",
            "mssm-messages",
            "serde",
            "serde_json",
            "tokio",
            "tracing",
        ],
    ),
    (
        "actors/kv",
        &["actix", "futures-util", "mssm-domain", "mssm-messages", "serde", "serde_json"],
    ),
    (
        "actors/lease",
        &[
            "actix",
            "actix-rt",
            "mssm-domain",
            "mssm-messages",
            "serde",
            "serde_json",
            "thiserror",
            "tokio",
            "tracing",
        ],
    ),
    (
        // Of crypto the keyless SCRAM verifier only.
        "actors/minter",
        &[
            "actix",
            "actix-rt",
            "deadpool",
            "futures-util",
            "mssm-crypto",
            "mssm-domain",
            "mssm-messages",
            "mysql_async",
            "rustls",
            "rustls-native-certs",
            "serde",
            "serde_json",
            "thiserror",
            "tokio",
            "tokio-postgres",
            "tokio-postgres-rustls",
            "tracing",
            "uuid",
        ],
    ),
    (
        // Of crypto the chain's hashes, the checkpoints' signatures and the devices' salts only.
        "actors/audit",
        &[
            "actix",
            "actix-rt",
            "base64",
            "flate2",
            "hex",
            "mssm-crypto",
            "mssm-domain",
            "mssm-messages",
            "rustix",
            "rustls",
            "rustls-native-certs",
            "serde",
            "serde_json",
            "thiserror",
            "tokio",
            "tracing",
            "ureq",
            "zeroize",
            "zstd",
        ],
    ),
    (
        "actors/http",
        &[
            "actix",
            "actix-http",
            "actix-rt",
            "actix-server",
            "actix-service",
            "actix-tls",
            "actix-web",
            "base64",
            "futures-util",
            "hex",
            "mssm-domain",
            "mssm-messages",
            "percent-encoding",
            "rcgen",
            "rustls",
            "rustls-pki-types",
            "serde",
            "serde_json",
            "socket2",
            "thiserror",
            "tokio",
            "tracing",
        ],
    ),
];

pub(crate) fn workspace() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The names below `[dependencies]` in a manifest.
fn dependencies(manifest: &Path) -> BTreeSet<String> {
    let text = fs::read_to_string(manifest).unwrap();
    let manifest: toml::Table = text.parse().unwrap();
    let tables = ["dependencies", "build-dependencies", "target"];
    assert!(
        !tables[1..].iter().any(|name| manifest.contains_key(*name)),
        "only plain dependencies"
    );
    let table = manifest.get(tables[0]).and_then(toml::Value::as_table);
    table.into_iter().flat_map(|table| table.keys().cloned()).collect()
}

#[test]
fn every_room_stands_on_what_the_table_says_and_nothing_else() {
    let table: BTreeMap<&str, BTreeSet<String>> = TABLE
        .iter()
        .map(|(room, names)| (*room, names.iter().map(ToString::to_string).collect()))
        .collect();
    let mut rooms = BTreeSet::new();
    for kind in ["crates", "actors"] {
        for entry in fs::read_dir(workspace().join(kind)).unwrap() {
            let folder = entry.unwrap();
            let room = format!("{kind}/{}", folder.file_name().to_string_lossy());
            let stands_on = dependencies(&folder.path().join("Cargo.toml"));
            assert_eq!(Some(&stands_on), table.get(room.as_str()), "{room}");
            rooms.insert(room);
        }
    }
    assert_eq!(rooms.len(), table.len(), "every room of the table is there");
}

#[test]
fn no_actor_knows_another() {
    let base = ["mssm-domain", "mssm-messages", "mssm-crypto", "mssm-locked"];
    for (room, names) in TABLE.iter().filter(|(room, _)| room.starts_with("actors/")) {
        for name in names.iter().filter(|name| name.starts_with("mssm-")) {
            assert!(base.contains(name), "{room} knows {name}");
        }
    }
}

/// All source files of our own.
pub(crate) fn sources() -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders: Vec<PathBuf> =
        ["src", "crates", "actors", "tests"].iter().map(|name| workspace().join(name)).collect();
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                if !path.ends_with("target") {
                    folders.push(path);
                }
            } else if path.extension().is_some_and(|end| end == "rs") {
                found.push(path);
            }
        }
    }
    assert!(found.len() > 100, "{}", found.len());
    found
}

#[test]
fn unsafe_code_is_in_one_room_only() {
    // Made of two halves, so that this file does not find itself.
    let word = ["un", "safe"].concat();
    let uses = ["{", "fn", "impl", "trait", "extern"].map(|next| format!("{word} {next}"));
    let allowed = format!("({word}_code");
    for file in sources() {
        let text = fs::read_to_string(&file).unwrap();
        let mut code = text.lines().map(str::trim).filter(|line| !line.starts_with("//"));
        let used =
            code.any(|line| uses.iter().any(|one| line.contains(one)) || line.contains(&allowed));
        let inside = file.starts_with(workspace().join("crates/locked"));
        assert!(inside || !used, "{}", file.display());
    }
}

/// Files that have grown beyond [`LINES`]. This list may only shrink.
const LARGE: &[&str] = &[
    "actors/access/src/keeper/tests.rs",
    "actors/http/src/tests/world.rs",
    "actors/minter/src/mint.rs",
    "crates/crypto/src/keyring.rs",
    "crates/messages/src/kv.rs",
];
/// The size of a file that is read in one go.
const LINES: usize = 400;

#[test]
fn every_file_says_its_one_job_and_stays_small() {
    for file in sources() {
        let text = fs::read_to_string(&file).unwrap();
        assert!(text.starts_with("//!"), "{} does not say what it is for", file.display());
        let lines = text.lines().count();
        let name = file.strip_prefix(workspace()).unwrap().display().to_string();
        let bound = if LARGE.contains(&name.as_str()) { LINES + 100 } else { LINES };
        assert!(lines <= bound, "{name} has {lines} lines");
    }
}
