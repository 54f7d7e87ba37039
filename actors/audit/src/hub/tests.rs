//! What counts as written, who is waited for, and what a device that was away gets afterwards.

use std::sync::{Condvar, Mutex};

use mssm_domain::{RequestId, Timestamp};
use mssm_messages::audit::{Asked, Entry, Event, Redacted, Who};
use mssm_testkit::TestClock;

use super::*;
use crate::MemoryBackend;
use crate::backend::{Blocked, Found};
use crate::tests::{SEED, verdict};

const DEADLINE: Duration = Duration::from_secs(20);

/// A log in memory that hangs while its gate is shut; a file, or none.
#[derive(Clone, Default)]
struct Gated {
    log: MemoryBackend,
    keeps_files: bool,
    shut: Arc<(Mutex<bool>, Condvar)>,
}

impl Gated {
    fn file() -> Self {
        Self { keeps_files: true, ..Self::default() }
    }

    fn shut(&self, shut: bool) {
        *self.shut.0.lock().unwrap() = shut;
        self.shut.1.notify_all();
    }

    /// Waits, as for a disk.
    fn pass(&self) {
        let shut = self.shut.0.lock().unwrap();
        drop(self.shut.1.wait_while(shut, |shut| *shut).unwrap());
    }

    fn numbers(&self) -> Vec<u32> {
        let text = self.log.text();
        let lines =
            text.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
        let number = |line: serde_json::Value| line["details"]["number"].as_str()?.parse().ok();
        lines.filter_map(number).collect()
    }

    fn whole(&self) -> bool {
        let verdict = verdict(&self.log.text());
        verdict.finding.is_none() && verdict.unsigned == 0
    }
}

impl AuditBackend for Gated {
    fn open(&mut self, tail: u64, each: &mut dyn FnMut(&[u8])) -> Result<Found, Blocked> {
        self.log.open(tail, each)
    }

    fn append(&mut self, lines: &[u8]) -> Result<(), Blocked> {
        self.pass();
        self.log.append(lines)
    }

    fn inspect(&mut self) -> Result<(), Blocked> {
        self.pass();
        self.log.inspect()
    }

    fn find(&mut self, seq: u64) -> Result<Option<Vec<u8>>, Blocked> {
        self.log.find(seq)
    }

    fn keeps_files(&self) -> bool {
        self.keeps_files
    }

    fn place(&self) -> String {
        format!("/place/of/{}", if self.keeps_files { "file" } else { "other" })
    }
}

struct Rig {
    ports: AuditPorts,
    file: Gated,
    other: Gated,
}

impl Rig {
    /// A file and another device; `patience` in milliseconds.
    async fn start(patience: u64, both: bool) -> Self {
        let (file, other) = (Gated::file(), Gated::default());
        let mut settings =
            AuditSettings { patience: Duration::from_millis(patience), ..AuditSettings::default() };
        if both {
            let path = Prefix::parse("other").unwrap();
            let (id, backend) = ("other".to_owned(), Box::new(other.clone()));
            settings.devices.push(ExtraDevice { path, id, backend });
        }
        let (ports, _) =
            AuditWriter::start(file.clone(), Arc::new(TestClock::new()), settings).unwrap();
        let rig = Self { ports, file, other };
        let (seed, salts) = (SecretBytes::new(SEED.to_vec()), SecretBytes::new(vec![9; 32]));
        let keys = InstallAuditKey { seed: Some(seed), salts: Some(salts) };
        rig.ports.install.ask(keys, DEADLINE).await.unwrap().unwrap();
        rig
    }

    async fn write(&self, number: u32) -> Result<(), AuditError> {
        let details = vec![("number", number.to_string())];
        let event = Event { name: "test", details };
        let entry = Entry::Event { time: Timestamp::from_unix_ms(0), event };
        self.ports.append.ask(Append(vec![entry]), DEADLINE).await.unwrap()
    }

    async fn status(&self) -> AuditStatus {
        self.ports.status.ask(ReadStatus, DEADLINE).await.unwrap().unwrap()
    }

    /// Asks until it is so.
    async fn until(&self, what: &str, is: impl Fn(&AuditStatus) -> bool) {
        let looks = async {
            while !is(&self.status().await) {
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        };
        let seen = tokio::time::timeout(DEADLINE, looks).await;
        assert!(seen.is_ok(), "never {what}: {:?}", self.status().await);
    }
}

fn is_caught_up(status: &AuditStatus) -> bool {
    status.devices.iter().all(|device| device.waiting == 0 && device.blocked.is_none())
}

#[actix_rt::test]
async fn a_disk_that_hangs_refuses_in_time_and_goes_on_by_itself_without_a_gap() {
    let rig = Rig::start(2_000, false).await;
    rig.write(0).await.unwrap();
    rig.file.shut(true);
    let refused = rig.write(1).await.unwrap_err().to_string();
    assert!(refused.contains("/place/of/file does not answer"), "{refused}");
    // Nobody waits for it any more, and it is said why, without its place.
    let begun = tokio::time::Instant::now();
    for number in 2..30 {
        rig.write(number).await.unwrap_err();
    }
    assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
    let status = rig.status().await;
    assert_eq!(status.blocked.as_deref(), Some("the file does not answer"));
    rig.file.shut(false);
    rig.until("well again", |status| status.blocked.is_none()).await;
    rig.write(30).await.unwrap();
    assert!(rig.file.whole(), "{}", rig.file.log.text());
    // What was in hand when it hung is there; what was refused since is not.
    assert_eq!(rig.file.numbers(), [0, 1, 30]);
}

#[actix_rt::test]
async fn while_the_file_takes_none_another_device_is_enough_and_the_file_gets_all_of_it_later() {
    let rig = Rig::start(2_000, true).await;
    rig.write(0).await.unwrap();
    rig.file.log.refuse(Some("no space"));
    for number in 1..5 {
        rig.write(number).await.unwrap();
    }
    rig.until("one is blocked", |status| status.devices[0].blocked.is_some()).await;
    assert_eq!(rig.status().await.blocked, None);
    rig.file.log.refuse(None);
    rig.until("caught up", is_caught_up).await;
    rig.file.shut(true);
    for number in 5..9 {
        rig.write(number).await.unwrap();
    }
    rig.file.shut(false);
    rig.until("caught up", is_caught_up).await;
    rig.write(9).await.unwrap();
    rig.until("caught up", is_caught_up).await;
    for device in [&rig.file, &rig.other] {
        assert_eq!(device.numbers(), (0..10).collect::<Vec<_>>());
        assert!(device.whole(), "{}", device.log.text());
    }
}

#[actix_rt::test]
async fn a_device_that_hangs_holds_nothing_up_while_the_file_takes_records() {
    let rig = Rig::start(60_000, true).await;
    rig.write(0).await.unwrap();
    rig.until("caught up", is_caught_up).await;
    rig.other.shut(true);
    // More than may wait for it in memory.
    for number in 1..1000 {
        rig.write(number).await.unwrap();
    }
    let status = rig.status().await;
    assert!(status.devices[1].missed > 0, "{status:?}");
    assert_eq!(rig.file.numbers().len(), 1000);
    rig.until("seen to hang", |status| status.devices[1].blocked.is_some()).await;
    assert_eq!(rig.status().await.blocked, None);
    rig.other.shut(false);
    rig.until("caught up", is_caught_up).await;
    assert!(rig.other.whole());
    let missed = usize::try_from(rig.status().await.devices[1].missed).unwrap();
    assert_eq!(rig.other.numbers().len() + missed, 1000, "what it lacks is counted");
    let told = format!("\"event\":\"records-missed\",\"details\":{{\"records\":\"{missed}\"}}");
    assert!(rig.other.log.text().contains(&told), "{told}");
}

#[actix_rt::test]
async fn nothing_is_written_anywhere_of_what_every_device_refuses() {
    let rig = Rig::start(20_000, true).await;
    rig.write(0).await.unwrap();
    rig.until("caught up", is_caught_up).await;
    rig.file.log.refuse(Some("no space"));
    rig.other.log.refuse(Some("no way"));
    let refused = rig.write(1).await.unwrap_err().to_string();
    assert!(refused.contains("file/: no space; other/: no way"), "{refused}");
    assert!(rig.status().await.blocked.is_some());
    rig.file.log.refuse(None);
    rig.other.log.refuse(None);
    rig.write(2).await.unwrap();
    rig.until("caught up", is_caught_up).await;
    for device in [&rig.file, &rig.other] {
        assert_eq!(device.numbers(), [0, 2]);
        assert!(device.whole());
    }
}

/// Catalogue: CVE-2024-0831.
#[actix_rt::test]
async fn the_same_value_has_another_hash_on_each_device() {
    let rig = Rig::start(20_000, true).await;
    let entry = asked_by([7; 32]);
    rig.ports.append.ask(Append(vec![entry]), DEADLINE).await.unwrap().unwrap();
    rig.until("caught up", is_caught_up).await;
    let bare = hex::encode([7; 32]);
    let show = |path: &str| {
        let asked = ShowHash { device: Prefix::parse(path).unwrap(), hash: [7; 32] };
        rig.ports.show.ask(asked, DEADLINE)
    };
    assert_eq!(show("file").await.unwrap().unwrap(), [7; 32]);
    let other = hex::encode(show("other").await.unwrap().unwrap());
    assert!(show("third").await.unwrap().is_err());
    assert_ne!(other, bare);
    let count = |log: &Gated, hash: &str| log.log.text().matches(hash).count();
    assert_eq!((count(&rig.file, &bare), count(&rig.file, &other)), (5, 0));
    assert_eq!((count(&rig.other, &bare), count(&rig.other, &other)), (0, 5));
    // Without its salt, while sealed, a device shows no hash at all.
    let none = InstallAuditKey { seed: None, salts: None };
    rig.ports.install.ask(none, DEADLINE).await.unwrap().unwrap();
    let entry = asked_by([8; 32]);
    rig.ports.append.ask(Append(vec![entry]), DEADLINE).await.unwrap().unwrap();
    rig.until("caught up", is_caught_up).await;
    assert!(rig.other.log.text().contains("\"client_token\":\"hidden while sealed\""));
    assert!(show("other").await.unwrap().is_err());
}

/// A request with five hashes in it.
fn asked_by(token: [u8; 32]) -> Entry {
    let asked = Asked {
        id: RequestId::parse("6e2e9a0c-93a5-4a62-a4f7-2f0f1f7d6c11").unwrap(),
        operation: "read",
        path: "secret/data/a".to_owned(),
        mount_point: String::new(),
        mount_type: "",
        mount_accessor: String::new(),
        data: Redacted::HashedMap(vec![([7; 32], Redacted::Hash([7; 32]))]),
        headers: Redacted::List(vec![Redacted::Hash([7; 32])]),
        remote_address: String::new(),
        remote_port: 0,
    };
    let who = Who { token: Some(token), ..Who::default() };
    let (who, asked) = (Arc::new(who), Arc::new(asked));
    Entry::Request { time: Timestamp::from_unix_ms(0), who, asked }
}
