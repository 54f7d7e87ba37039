//! Opening: each kind works, what stands in the way is said in words that help.

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;

use mssm_domain::{SealedBytes, StoredKey, StoredRecord};
use mssm_messages::storage::{Commit, Write};

use super::*;

const KINDS: [StorageKind; 2] = [StorageKind::Embedded, StorageKind::File];

fn config(kind: StorageKind, folder: &Path) -> StorageConfig {
    StorageConfig { kind, folder: folder.to_owned() }
}

fn put() -> (StoredKey, StoredRecord, Commit) {
    let key = StoredKey::new(b"key".to_vec());
    let record = StoredRecord { version: 1, sealed: SealedBytes::new(vec![1; 9]) };
    let writes = vec![Write::Put(key.clone(), record.clone())];
    (key, record, Commit { preconditions: vec![], writes })
}

fn refusal(config: &StorageConfig) -> String {
    open(config, |_| {}, |_| {}).err().map(|error| error.to_string()).unwrap_or_default()
}

#[actix_rt::test]
async fn what_is_written_through_the_port_is_read_back_after_a_restart() {
    let parent = tempfile::tempdir().unwrap();
    let (key, record, batch) = put();
    for kind in KINDS {
        let config = config(kind, &parent.path().join(format!("{kind:?}")));
        assert!(matches!(check_offline(&config), Err(OpenError::Absent(_))));
        assert!(!config.folder.exists(), "an examination makes no store");
        let (port, handle) = open(&config, |_| {}, |_| {}).unwrap();
        assert_eq!(port.writer.commit(batch.clone()).await, Ok(Ok(())));
        assert_eq!(port.reader.read(&key), Ok(Some(record.clone())));
        assert!(refusal(&config).contains("in use by another server"));
        handle.shutdown().await;
        drop(port);

        assert_eq!(check_offline(&config).unwrap().unwrap().records, 1);
        let (port, _handle) = open(&config, |_| {}, |_| {}).unwrap();
        assert_eq!(port.reader.read(&key), Ok(Some(record.clone())));
        for file in walk(&config.folder) {
            let mode = file.metadata().unwrap().permissions().mode() & 0o777;
            let expected = if file.is_dir() { 0o700 } else { 0o600 };
            assert_eq!(mode, expected, "{}", file.display());
        }
    }
}

fn walk(folder: &Path) -> Vec<PathBuf> {
    let mut found = vec![folder.to_owned()];
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { found.extend(walk(&path)) } else { found.push(path) }
    }
    found
}

#[actix_rt::test]
async fn a_store_in_memory_can_be_made_to_fail() {
    let (port, memory) = start_memory().unwrap();
    let (key, record, batch) = put();
    memory.fail_next(StorageError::NoSpace("full".to_owned()));
    let refused = port.writer.commit(batch.clone()).await;
    assert_eq!(refused, Ok(Err(StorageError::NoSpace("full".to_owned()))));
    assert_eq!(port.writer.commit(batch).await, Ok(Ok(())));
    assert_eq!(port.reader.read(&key), Ok(Some(record)));
}

#[test]
fn an_exposed_folder_is_refused_with_the_command_that_helps() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::set_permissions(folder.path(), Permissions::from_mode(0o755)).unwrap();
    for kind in KINDS {
        let said = refusal(&config(kind, folder.path()));
        assert!(said.contains("755") && said.contains("run: chmod 700 /"), "{said}");
    }
}

#[test]
fn a_store_that_makes_no_sense_is_called_damaged_and_named() {
    let parent = tempfile::tempdir().unwrap();
    let folder = parent.path().join("data");
    prepare(&folder).unwrap();
    std::fs::write(folder.join("store.redb"), vec![1; 9999]).unwrap();
    let said = refusal(&config(StorageKind::Embedded, &folder));
    assert!(said.contains("store.redb is damaged"), "{said}");
}
