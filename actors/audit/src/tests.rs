//! The log as an auditor meets it: written by the thread, verified from its bytes.

use std::sync::Arc;
use std::time::Duration;

use mssm_crypto::chain::{CheckpointKey, CheckpointVerifier};
use mssm_domain::{RequestId, SecretBytes, Timestamp};
use mssm_messages::audit::{
    Answered, Append, Asked, AuditError, Entry, Event, ReadStatus, Redacted, Who,
};
use mssm_messages::seal::InstallAuditKey;
use mssm_testkit::TestClock;

use crate::{AuditPorts, AuditSettings, AuditWriter, FileBackend, MemoryBackend, Verdict, verify};

pub(crate) const SEED: [u8; 32] = [7; 32];
const DEADLINE: Duration = Duration::from_secs(10);

pub(crate) fn verifier() -> CheckpointVerifier {
    CheckpointKey::from_seed(&SEED).verifier()
}

fn start(backend: impl crate::AuditBackend) -> AuditPorts {
    AuditWriter::start(backend, Arc::new(TestClock::new()), AuditSettings::default()).unwrap().0
}

fn event(number: u32) -> Entry {
    let time = Timestamp::from_unix_ms(u64::from(number));
    let details = vec![("number", number.to_string())];
    Entry::Event { time, event: Event { name: "test", details } }
}

async fn append(ports: &AuditPorts, entries: Vec<Entry>) -> Result<(), AuditError> {
    ports.append.ask(Append(entries), DEADLINE).await.unwrap()
}

async fn install(ports: &AuditPorts, key: bool) {
    let seed = key.then(|| SecretBytes::new(SEED.to_vec()));
    ports.install.ask(InstallAuditKey { seed, salts: None }, DEADLINE).await.unwrap().unwrap();
}

pub(crate) fn verdict(text: &str) -> Verdict {
    verify(text.as_bytes(), &verifier()).unwrap()
}

/// A log of twelve events in batches, the first ones written while sealed.
pub(crate) async fn sample() -> String {
    let log = MemoryBackend::default();
    let ports = start(log.clone());
    append(&ports, vec![event(0), event(1)]).await.unwrap();
    install(&ports, true).await;
    for number in 2..12 {
        append(&ports, vec![event(number)]).await.unwrap();
    }
    log.text()
}

#[actix_rt::test]
async fn what_was_written_while_sealed_is_adopted_by_the_first_checkpoint() {
    let log = MemoryBackend::default();
    let ports = start(log.clone());
    append(&ports, vec![event(0), event(1)]).await.unwrap();
    assert_eq!(verdict(&log.text()).unsigned, 3);
    install(&ports, true).await;
    append(&ports, vec![event(2)]).await.unwrap();
    install(&ports, false).await;
    append(&ports, vec![event(3)]).await.unwrap();
    let verdict = verdict(&log.text());
    // Nothing was left to sign when the key went.
    assert_eq!((verdict.finding, verdict.checkpoints, verdict.unsigned), (None, 2, 1));
}

#[actix_rt::test]
async fn a_log_goes_on_where_it_ended() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("audit.log");
    for round in 0..3 {
        let backend = FileBackend::new(&path);
        let (ports, thread) =
            AuditWriter::start(backend, Arc::new(TestClock::new()), AuditSettings::default())
                .unwrap();
        install(&ports, true).await;
        append(&ports, vec![event(round)]).await.unwrap();
        drop(ports);
        thread.join().unwrap();
    }
    let verdict = verdict(&std::fs::read_to_string(path).unwrap());
    assert_eq!((verdict.finding, verdict.unsigned), (None, 0));
}

#[actix_rt::test]
async fn a_log_that_refuses_is_told_to_everyone_and_goes_on_when_it_can() {
    let log = MemoryBackend::default();
    let ports = start(log.clone());
    install(&ports, true).await;
    append(&ports, vec![event(0)]).await.unwrap();
    log.refuse(Some("no space"));
    for _ in 0..3 {
        let refused = append(&ports, vec![event(1)]).await;
        assert_eq!(refused, Err(AuditError::Blocked("no space".to_owned())));
    }
    let status = ports.status.ask(ReadStatus, DEADLINE).await.unwrap().unwrap();
    assert_eq!(status.blocked.as_deref(), Some("no space"));
    log.refuse(None);
    append(&ports, vec![event(2)]).await.unwrap();
    let verdict = verdict(&log.text());
    assert_eq!((verdict.finding, verdict.unsigned), (None, 0));
    assert!(!log.text().contains("\"number\":\"1\""));
}

#[actix_rt::test]
async fn a_file_that_is_removed_refuses_once_and_goes_on_in_a_new_one() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("audit.log");
    let aside = folder.path().join("audit.log.1");
    let ports = start(FileBackend::new(&path));
    install(&ports, true).await;
    append(&ports, vec![event(0)]).await.unwrap();
    std::fs::rename(&path, &aside).unwrap();
    assert!(append(&ports, vec![event(1)]).await.is_err());
    append(&ports, vec![event(2)]).await.unwrap();
    let both = crate::verify_files(&[path.clone(), aside], &verifier(), None, &mut |_| ()).unwrap();
    assert_eq!((both.finding, both.unsigned), (None, 0));
    let alone = crate::verify_files(&[path], &verifier(), None, &mut |_| ()).unwrap();
    assert_eq!(alone.finding, None);
    assert!(alone.first_seq > 0);
}

#[actix_rt::test]
async fn a_file_that_lost_lines_is_set_aside_and_never_written_to_again() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("audit.log");
    let ports = start(FileBackend::new(&path));
    install(&ports, true).await;
    append(&ports, vec![event(0)]).await.unwrap();
    let text = std::fs::read_to_string(&path).unwrap();
    let cut = text.lines().next().unwrap().to_owned() + "\n";
    std::fs::write(&path, &cut).unwrap();
    assert!(append(&ports, vec![event(1)]).await.is_err());
    append(&ports, vec![event(2)]).await.unwrap();
    let aside = folder.path().join("audit.log.damaged-5");
    assert_eq!(std::fs::read_to_string(aside).unwrap(), cut);
    let text = std::fs::read_to_string(&path).unwrap();
    assert!(text.contains("log-continued") && text.contains("log-damaged"), "{text}");
    assert_eq!(verdict(&text).finding, None);
}

#[actix_rt::test]
async fn an_exchange_is_written_in_vaults_shape() {
    let log = MemoryBackend::default();
    let ports = start(log.clone());
    let asked = Asked {
        id: RequestId::parse("6e2e9a0c-93a5-4a62-a4f7-2f0f1f7d6c11").unwrap(),
        operation: "read",
        path: "db/creds/app".to_owned(),
        mount_point: "db/".to_owned(),
        mount_type: "database",
        mount_accessor: "database_1a2b3c4d".to_owned(),
        data: Redacted::Null,
        headers: Redacted::Null,
        remote_address: "127.0.0.1".to_owned(),
        remote_port: 4711,
    };
    let secret = Redacted::Map(vec![("password".to_owned(), Redacted::Hash([0xab; 32]))]);
    let answered = Answered {
        status: 200,
        data: secret,
        lease_id: Some("db/creds/app/x".to_owned()),
        auth: Redacted::Null,
        errors: vec!["a\nb".to_owned()],
    };
    let who = Who { token: Some([1; 32]), allowed: true, ..Who::default() };
    let (who, asked) = (Arc::new(who), Arc::new(asked));
    let entry = Entry::Response { time: Timestamp::from_unix_ms(0), who, asked, answered };
    append(&ports, vec![entry]).await.unwrap();
    let text = log.text();
    let line: serde_json::Value = serde_json::from_str(text.lines().nth(1).unwrap()).unwrap();
    assert_eq!(line["type"], "response");
    assert_eq!(line["request"]["path"], "db/creds/app");
    assert_eq!(line["response"]["secret"]["lease_id"], "db/creds/app/x");
    assert_eq!(line["response"]["data"]["password"], format!("hmac-sha256:{}", "ab".repeat(32)));
    assert_eq!(line["auth"]["client_token"], format!("hmac-sha256:{}", "01".repeat(32)));
    assert_eq!(line["error"], "a\nb");
}

/// A long log is taken up from its last told position, not read from its beginning.
#[actix_rt::test]
async fn a_long_log_goes_on_where_it_ended() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("audit.log");
    let long = |number: u32| {
        let details = vec![("number", number.to_string()), ("text", "x".repeat(1 << 20))];
        let event = Event { name: "test", details };
        Entry::Event { time: Timestamp::from_unix_ms(0), event }
    };
    for round in 0..4 {
        let backend = FileBackend::new(&path);
        let (ports, thread) =
            AuditWriter::start(backend, Arc::new(TestClock::new()), AuditSettings::default())
                .unwrap();
        install(&ports, true).await;
        for number in 0..20 {
            append(&ports, vec![long(round * 20 + number)]).await.unwrap();
        }
        // One batch that is longer than all that is read at first.
        if round == 2 {
            append(&ports, (0..40).map(long).collect()).await.unwrap();
        }
        drop(ports);
        thread.join().unwrap();
    }
    let file = std::io::BufReader::new(std::fs::File::open(path).unwrap());
    let verdict = verify(file, &verifier()).unwrap();
    assert_eq!((verdict.finding, verdict.unsigned), (None, 0));
    assert!(verdict.lines > 160);
}
