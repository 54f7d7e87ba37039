//! Measures what it takes to compare a store with its index: before an unseal is answered, and all of it.
//!
//! `cargo run --release -p mssm-storage --example compare -- 1000000`
#![expect(clippy::print_stdout, reason = "a measurement says what it found")]
#![expect(clippy::unwrap_used, reason = "a measurement that fails has nothing to say")]

use std::time::Duration;

use mssm_domain::{SealedBytes, StoredKey, StoredRecord};
use mssm_messages::index::{IndexKey, IndexOpening, InstallIndex};
use mssm_messages::storage::{Commit, Write};
use mssm_storage::{StorageConfig, StorageKind, open};
use sha2::{Digest, Sha256};
use tokio::time::Instant;

/// Records of one batch.
const BATCH: u32 = 1_000;
/// One record in so many is a vital one.
const VITAL: u32 = 1_000;
/// The time that a reply may take.
const PATIENCE: Duration = Duration::from_mins(10);

struct Key;

impl IndexKey for Key {
    fn tag(&self, item: &[u8]) -> [u8; 32] {
        Sha256::new().chain_update(b"key").chain_update(item).finalize().into()
    }
}

/// About what a lease comes to: a hidden name of three segments, an envelope of half a kilobyte.
fn record(number: u32) -> Write {
    let folder: &[u8] = if number.is_multiple_of(VITAL) { b"vital" } else { b"lease" };
    let mut name = folder.to_vec();
    name.extend(Sha256::digest(number.to_be_bytes()));
    name.extend([7; 40]);
    Write::Put(
        StoredKey::new(name),
        StoredRecord { version: 1, sealed: SealedBytes::new(vec![7; 500]) },
    )
}

fn install(expected: bool, accept: bool) -> InstallIndex {
    let vital = vec![StoredKey::new(b"vital".to_vec())];
    InstallIndex(Some(IndexOpening { key: Box::new(Key), vital, expected, accept }))
}

async fn measure(count: u32) {
    let folder = tempfile::tempdir().unwrap();
    let kind = StorageKind::Embedded;
    let config = StorageConfig { kind, folder: folder.path().join("data") };
    let (port, handle) = open(&config, |_| {}, |_| {}).unwrap();
    for first in (0..count).step_by(usize::try_from(BATCH).unwrap()) {
        let writes = (first..count.min(first + BATCH)).map(record).collect();
        port.writer.commit(Commit { preconditions: Vec::new(), writes }).await.unwrap().unwrap();
    }
    let rebuilt = Instant::now();
    handle.index().ask(install(false, false), PATIENCE).await.unwrap().unwrap();
    println!("index made anew: {:?}", rebuilt.elapsed());
    drop(port);
    handle.shutdown().await;
    for (what, accept) in [("compared before the answer", false), ("everything", true)] {
        let (port, handle) = open(&config, |_| {}, |_| {}).unwrap();
        let begun = Instant::now();
        handle.index().ask(install(true, accept), PATIENCE).await.unwrap().unwrap();
        println!("{what}: {:?}", begun.elapsed());
        drop(port);
        handle.shutdown().await;
    }
}

fn main() {
    let count = std::env::args().nth(1).and_then(|count| count.parse().ok()).unwrap_or(1_000_000);
    println!("{count} records, one in {VITAL} vital");
    actix_rt::System::new().block_on(measure(count));
}
