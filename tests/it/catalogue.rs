//! Security catalogue: docs/security.md and the tests say the same, and what only the source can show.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;

use crate::rooms::{sources, workspace};

/// What stands before the ids in a test's comment. Made of two halves, so that this file does not find itself.
fn mark() -> String {
    ["/// Cata", "logue:"].concat()
}

/// The tests of each id, as their comments say.
fn tests_by_id() -> BTreeMap<String, BTreeSet<String>> {
    let mut found: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for file in sources() {
        let text = fs::read_to_string(&file).unwrap();
        let mut lines = text.lines().map(str::trim);
        while let Some(line) = lines.next() {
            let Some(rest) = line.strip_prefix(&mark()) else { continue };
            let mut ids = rest.to_owned();
            let name = loop {
                let line = lines.next().expect("a test after its comment");
                if let Some(more) = line.strip_prefix("///") {
                    ids.push_str(more);
                } else if let Some((_, name)) = line.split_once("fn ") {
                    break name.split('(').next().unwrap().to_owned();
                } else {
                    assert!(line.starts_with("#["), "{}: {line}", file.display());
                }
            };
            for id in ids.trim().trim_end_matches('.').split(',') {
                found.entry(id.trim().to_owned()).or_default().insert(name.clone());
            }
        }
    }
    found
}

/// The rows of the page: ids, and the last cell.
fn rows() -> Vec<(Vec<String>, String)> {
    let page = fs::read_to_string(workspace().join("docs/security.md")).unwrap();
    let (_, table) = page.split_once("## The catalogue").expect("the catalogue");
    let cells = |line: &str| -> Vec<String> {
        line.trim_matches('|').split(" | ").map(|cell| cell.trim().to_owned()).collect()
    };
    let rows = table.lines().filter(|line| {
        line.starts_with("| ") && !line.starts_with("| Id") && !line.starts_with("|---")
    });
    rows.map(|line| match &cells(line)[..] {
        [ids, _, last] => (ids.split(", ").map(str::to_owned).collect(), last.clone()),
        other => panic!("{other:?}"),
    })
    .collect()
}

#[test]
fn every_id_of_the_catalogue_has_tests_that_exist_or_a_reason() {
    let by_id = tests_by_id();
    let mut seen = BTreeSet::new();
    for (ids, last) in rows() {
        let named: BTreeSet<String> = if let Some(reason) = last.strip_prefix("Cannot apply: ") {
            assert!(reason.len() > 15, "{ids:?} says too little");
            BTreeSet::new()
        } else {
            let names = last.split(", ").map(|name| name.trim_matches('`').to_owned());
            names.collect()
        };
        for id in ids {
            let tests = by_id.get(&id).cloned().unwrap_or_default();
            assert_eq!(named, tests, "{id}: the page and the tests");
            assert!(seen.insert(id.clone()), "{id} stands there twice");
        }
    }
    assert!(seen.len() > 120, "{}", seen.len());
    let unlisted: Vec<_> = by_id.keys().filter(|id| !seen.contains(*id)).collect();
    assert!(unlisted.is_empty(), "not on the page: {unlisted:?}");
}

/// Catalogue: GHSA-34fc.
#[test]
fn secrets_are_compared_by_keyed_hash_or_in_constant_time() {
    // Secrets, what proves that something is ours, and what a password is known by.
    let exposed = ["expo", "se()"].concat();
    let proofs = [exposed.as_str(), ".mac", "tag_of(", "verifier"];
    for file in sources() {
        let path = file.strip_prefix(workspace()).unwrap().display().to_string();
        if path.contains("test") {
            continue;
        }
        let text = fs::read_to_string(&file).unwrap();
        // Modules of tests stand at the end of their files.
        let code = text.split("#[cfg(test)]\nmod tests").next().unwrap();
        for line in code.lines().filter(|line| proofs.iter().any(|proof| line.contains(proof))) {
            let compares = line.contains(" == ") || line.contains(" != ");
            // Lengths, and the placeholder that stands for a password.
            let harmless = line.contains(".len() ==") || line.contains("!= \"{{password}}\"");
            assert!(!compares || harmless, "{path}: {}", line.trim());
        }
    }
    for file in ["crates/domain/src/secret.rs", "crates/crypto/src/key.rs"] {
        let text = fs::read_to_string(workspace().join(file)).unwrap();
        let before_secret = text.split("/// An envelope:").next().unwrap();
        let compared =
            before_secret.lines().any(|line| line.contains("derive") && line.contains("Eq"));
        assert!(!compared, "{file}: secrets have no ==");
    }
}
