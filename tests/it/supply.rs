//! What the program is made of, as it is told to others.

use std::collections::BTreeSet;
use std::process::Command;

use serde_json::Value;

use crate::harness::skipped;
use crate::rooms::workspace;

#[test]
fn the_bill_of_materials_names_every_crate_with_its_licence_and_its_sum() {
    let printed =
        Command::new(workspace().join("scripts/sbom")).env("CARGO_NET_OFFLINE", "true").output();
    let Ok(printed) = printed else {
        skipped("the bill of materials: there is no python3");
        return;
    };
    assert!(printed.status.success(), "{}", String::from_utf8_lossy(&printed.stderr));
    let bill: Value = serde_json::from_slice(&printed.stdout).unwrap();
    assert_eq!((&bill["bomFormat"], &bill["specVersion"]), (&"CycloneDX".into(), &"1.5".into()));
    let parts = bill["components"].as_array().unwrap();
    let mut names = BTreeSet::new();
    for part in parts {
        let name = part["name"].as_str().unwrap();
        names.insert(name);
        assert!(part["licenses"][0]["expression"].is_string(), "{name}");
        let ours = name.starts_with("mssm-");
        let sum = part["hashes"][0]["content"].as_str().map_or(0, str::len);
        assert_eq!(sum, if ours { 0 } else { 64 }, "{name}");
    }
    for expected in
        ["rustls", "aws-lc-rs", "aes-gcm", "redb", "actix", "tokio-postgres", "mssm-seal"]
    {
        assert!(names.contains(expected), "{expected}");
    }
    for absent in ["proptest", "tempfile", "mssm-testkit", "testcontainers"] {
        assert!(!names.contains(absent), "{absent} is for tests alone");
    }
    let edges = bill["dependencies"].as_array().unwrap();
    assert_eq!(edges.len(), parts.len() + 1, "every crate says what it stands on");
}
