//! A million records: how long `mssm audit verify` takes over them, and a proof of one.
//!
//! `cargo run --release -p mssm-audit --example million_records -- 1000000`
#![expect(clippy::print_stdout, reason = "a measurement says what it found")]
#![expect(clippy::unwrap_used, reason = "a measurement that fails has nothing to say")]

use std::io::Write;
use std::sync::Arc;
use std::time::Duration;

use mssm_audit::{
    AuditBackend, AuditSettings, AuditWriter, Blocked, Found, prove_records, verify_files,
};
use mssm_crypto::chain::CheckpointKey;
use mssm_domain::{RequestId, SecretBytes, Timestamp};
use mssm_messages::audit::{Answered, Append, Asked, Entry, Redacted, Who};
use mssm_messages::seal::InstallAuditKey;
use mssm_testkit::TestClock;

/// A file that is not synced: what is measured is reading.
struct Unsynced(std::fs::File);

impl AuditBackend for Unsynced {
    fn open(&mut self, _: u64, _: &mut dyn FnMut(&[u8])) -> Result<Found, Blocked> {
        Ok(Found::default())
    }

    fn append(&mut self, lines: &[u8]) -> Result<(), Blocked> {
        self.0.write_all(lines).map_err(|error| Blocked(error.to_string()))
    }

    fn inspect(&mut self) -> Result<(), Blocked> {
        Ok(())
    }

    fn find(&mut self, _: u64) -> Result<Option<Vec<u8>>, Blocked> {
        Ok(None)
    }

    fn place(&self) -> String {
        "example".to_owned()
    }
}

const SEED: [u8; 32] = [7; 32];
const DEADLINE: Duration = Duration::from_mins(1);

fn exchange(number: u32) -> Vec<Entry> {
    let id = format!("00000000-0000-4000-8000-{number:012}");
    let asked = Asked {
        id: RequestId::parse(&id).unwrap(),
        operation: "read",
        path: format!("secret/data/application/{number}"),
        mount_point: "secret/".to_owned(),
        mount_type: "kv",
        mount_accessor: "kv_1a2b3c4d".to_owned(),
        data: Redacted::Null,
        headers: Redacted::Null,
        remote_address: "10.0.0.1".to_owned(),
        remote_port: 4711,
    };
    let value = |name: &str| (name.to_owned(), Redacted::Hash([7; 32]));
    let data = Redacted::Map(vec![value("username"), value("password"), value("created_time")]);
    let who =
        Who { token: Some([1; 32]), accessor: Some([2; 32]), allowed: true, ..Who::default() };
    let answered =
        Answered { status: 200, data, lease_id: None, auth: Redacted::Null, errors: Vec::new() };
    let time = Timestamp::from_unix_ms(1_800_000_000_000);
    let (who, asked) = (Arc::new(who), Arc::new(asked));
    let request = Entry::Request { time, who: Arc::clone(&who), asked: Arc::clone(&asked) };
    vec![request, Entry::Response { time, who, asked, answered }]
}

#[actix_rt::main]
async fn main() {
    let wished: u32 = std::env::args().nth(1).map_or(1_000_000, |text| text.parse().unwrap());
    let file = tempfile::NamedTempFile::new().unwrap();
    let log = Unsynced(file.reopen().unwrap());
    let (ports, _) =
        AuditWriter::start(log, Arc::new(TestClock::new()), AuditSettings::default()).unwrap();
    let install = InstallAuditKey { seed: Some(SecretBytes::new(SEED.to_vec())), salts: None };
    ports.install.ask(install, DEADLINE).await.unwrap().unwrap();
    // Two lines an exchange, a checkpoint for eight of them, as under some load.
    let mut lines = 0;
    let mut number = 0;
    while lines < wished {
        let batch: Vec<Entry> = (number..number + 8).flat_map(exchange).collect();
        number += 8;
        lines += 17;
        ports.append.ask(Append(batch), DEADLINE).await.unwrap().unwrap();
    }
    let files = [file.path().to_owned()];
    let bytes = file.as_file().metadata().unwrap().len();
    let key = CheckpointKey::from_seed(&SEED).verifier();

    let begun = tokio::time::Instant::now();
    let verdict = verify_files(&files, &key, None, &mut |_| ()).unwrap();
    let took = begun.elapsed();
    assert_eq!(verdict.finding, None);
    println!(
        "{} records, {} checkpoints, {} MB: verified in {:.1} s",
        verdict.lines,
        verdict.checkpoints,
        bytes / 1_000_000,
        took.as_secs_f64()
    );
    let begun = tokio::time::Instant::now();
    let mut count = 0;
    let mut wanted = |_: &[u8]| {
        count += 1;
        count == 1000
    };
    let proofs = prove_records(&files, &mut wanted).unwrap();
    let proof = proofs.first().unwrap();
    println!("{} in {:.1} s", proof.check(&key).unwrap(), begun.elapsed().as_secs_f64());
}
