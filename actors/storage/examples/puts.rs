//! Prints how many durable puts of 1 KiB a second the embedded store takes from waiting writers.
//!
//! `cargo run --release -p mssm-storage --example puts [FOLDER [index]]`; the folder is made and stays.

use std::io::{self, Write as _};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use mssm_domain::{SealedBytes, StoredKey, StoredRecord};
use mssm_messages::index::{IndexKey, IndexOpening, InstallIndex};
use mssm_messages::storage::{Commit, StoragePort, Write};
use mssm_storage::{StorageConfig, StorageKind, open};
use sha2::{Digest, Sha256};

/// As costly as the real one, and no secret.
struct Key;

impl IndexKey for Key {
    fn tag(&self, item: &[u8]) -> [u8; 32] {
        Sha256::digest(Sha256::new().chain_update([0; 64]).chain_update(item).finalize()).into()
    }
}

/// How long each number of writers is measured.
const SPAN: Duration = Duration::from_secs(5);

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let folder = std::env::args().nth(1).map_or_else(|| PathBuf::from("puts-data"), PathBuf::from);
    let config = StorageConfig { kind: StorageKind::Embedded, folder };
    actix_rt::System::new().block_on(async {
        let poisoned = |cause| drop(writeln!(io::stderr(), "{cause}"));
        let (port, handle) = open(&config, poisoned, |_| {})?;
        if std::env::args().nth(2).is_some() {
            let opening =
                IndexOpening { key: Box::new(Key), vital: vec![], expected: false, accept: false };
            handle.index().commit(InstallIndex(Some(opening))).await??;
        }
        let stats = handle.stats();
        writeln!(io::stdout(), "writers   puts/s   p50 ms   p99 ms   batches/commit")?;
        for writers in [1, 16, 64] {
            let (commits, batches) = (stats.commits(), stats.batches());
            let mut waits = measure(&port, writers).await;
            waits.sort_unstable();
            #[expect(clippy::cast_precision_loss, reason = "figures for people")]
            let (count, group) = (
                waits.len() as f64,
                (stats.batches() - batches) as f64 / (stats.commits() - commits).max(1) as f64,
            );
            let part = |percent: usize| {
                let wait = waits.get(waits.len() * percent / 100).copied().unwrap_or_default();
                wait.as_secs_f64() * 1000.0
            };
            let rate = count / SPAN.as_secs_f64();
            let (p50, p99) = (part(50), part(99));
            writeln!(io::stdout(), "{writers:7} {rate:8.0} {p50:8.2} {p99:8.2} {group:16.1}")?;
        }
        handle.shutdown().await;
        Ok(())
    })
}

/// Every put's wait, over all writers.
async fn measure(port: &StoragePort, writers: u64) -> Vec<Duration> {
    let end = now() + SPAN;
    let tasks: Vec<_> = (0..writers)
        .map(|writer| {
            let port = port.clone();
            actix_rt::spawn(async move {
                let mut waits = Vec::new();
                // Keys lie as encrypted names do: anywhere.
                let mut place = (writer + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
                while now() < end {
                    place = place.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(1442);
                    let start = now();
                    if let Ok(Ok(())) = port.writer.commit(put(place)).await {
                        waits.push(start.elapsed());
                    }
                }
                waits
            })
        })
        .collect();
    let mut waits = Vec::new();
    for task in tasks {
        waits.extend(task.await.unwrap_or_default());
    }
    waits
}

fn put(place: u64) -> Commit {
    let key = StoredKey::new(place.to_be_bytes().repeat(4));
    let record = StoredRecord { version: 1, sealed: SealedBytes::new(vec![0xa5; 1024]) };
    Commit { preconditions: Vec::new(), writes: vec![Write::Put(key, record)] }
}

#[expect(clippy::disallowed_methods, reason = "a measurement of real time")]
fn now() -> Instant {
    Instant::now()
}
