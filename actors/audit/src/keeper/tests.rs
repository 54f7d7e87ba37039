//! Devices come and go by the API, are there again after an unseal, and never where they must not be.

use mssm_domain::ClusterId;
use mssm_messages::audit::{Append, Entry, Event};
use mssm_messages::seal::InstallAuditKey;
use mssm_testkit::{MemoryStore, SeededRandom, TestClock};

use super::*;
use crate::{AuditSettings, AuditWriter, FileBackend};

struct Run {
    folder: tempfile::TempDir,
    store: MemoryStore,
    ports: AuditPorts,
    keeper: actix::Addr<DeviceKeeper>,
}

impl Run {
    async fn start() -> Self {
        Self::over(tempfile::tempdir().unwrap(), MemoryStore::new()).await
    }

    async fn over(folder: tempfile::TempDir, store: MemoryStore) -> Self {
        let log = folder.path().join("audit.log");
        let clock = Arc::new(TestClock::new());
        let (ports, _) =
            AuditWriter::start(FileBackend::new(&log), clock, AuditSettings::default()).unwrap();
        let config = DevicesConfig { log, configured: Vec::new(), audit: ports.clone() };
        let random = Arc::new(SeededRandom::new(7));
        let keeper = DeviceKeeper::new(config, mssm_testkit::barrier_over(&store), random).start();
        let run = Self { folder, store, ports, keeper };
        let keys = InstallAuditKey {
            seed: Some(SecretBytes::new(vec![7; 32])),
            salts: Some(SecretBytes::new(vec![8; 32])),
        };
        run.ports.install.ask(keys, DEADLINE).await.unwrap().unwrap();
        let cluster = ClusterId::parse("00000000-0000-0000-0000-0000000000aa").unwrap();
        run.keeper.send(Opened { cluster }).await.unwrap().unwrap();
        run
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn text(&self, name: &str) -> String {
        std::fs::read_to_string(self.path(name)).unwrap()
    }

    async fn enable(&self, path: &str, name: &str) -> Result<(), DeviceError> {
        let options =
            BTreeMap::from([("file_path".to_owned(), self.path(name).display().to_string())]);
        let (path, kind) = (Prefix::parse(path).unwrap(), "file".to_owned());
        let description = "for tests".to_owned();
        let device = Device { path, kind, description, local: false, options };
        self.keeper.send(EnableDevice(device)).await.unwrap()
    }

    async fn disable(&self, path: &str) -> Result<(), DeviceError> {
        self.keeper.send(DisableDevice(Prefix::parse(path).unwrap())).await.unwrap()
    }

    async fn paths(&self) -> Vec<String> {
        let devices = self.keeper.send(ListDevices).await.unwrap().unwrap();
        devices.iter().map(|device| device.path.to_string()).collect()
    }

    async fn write(&self, word: &'static str) {
        let event = Event { name: word, details: Vec::new() };
        let entry = Entry::Event { time: mssm_domain::Timestamp::from_unix_ms(0), event };
        self.ports.append.ask(Append(vec![entry]), DEADLINE).await.unwrap().unwrap();
    }

    /// Waits until a file holds a word.
    async fn holds(&self, name: &str, word: &str) {
        let looks = async {
            while !self.text(name).contains(word) {
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        };
        assert!(tokio::time::timeout(DEADLINE, looks).await.is_ok(), "{}", self.text(name));
    }
}

#[actix_rt::test]
async fn a_device_is_written_to_until_it_is_taken_away_and_is_there_again_after_an_unseal() {
    let run = Run::start().await;
    run.enable("second", "second.log").await.unwrap();
    assert_eq!(run.paths().await, ["file/", "second/"]);
    run.write("first-word").await;
    run.holds("second.log", "first-word").await;
    run.keeper.send(Closing).await.unwrap().unwrap();
    assert_eq!(run.paths().await, ["file/"]);
    run.write("while-closed").await;
    let Run { folder, store, ports, keeper } = run;
    drop((ports, keeper));
    let copy = tempfile::tempdir().unwrap();
    for entry in std::fs::read_dir(folder.path()).unwrap() {
        let entry = entry.unwrap();
        std::fs::copy(entry.path(), copy.path().join(entry.file_name())).unwrap();
    }
    let records = store.copy();
    // Its folder is another one now, so it is left out; nothing else is held up by that.
    let moved = Run::over(copy, records).await;
    assert_eq!(moved.paths().await, ["file/"]);
    let run = Run::over(folder, store).await;
    assert_eq!(run.paths().await, ["file/", "second/"]);
    run.write("second-word").await;
    run.holds("second.log", "second-word").await;
    assert!(!run.text("second.log").contains("while-closed"));
    run.disable("second").await.unwrap();
    assert_eq!(run.paths().await, ["file/"]);
    run.write("third-word").await;
    assert!(!run.text("second.log").contains("third-word"));
    let text = run.text("second.log");
    assert_eq!(crate::tests::verdict(&text).finding, None, "{text}");
    // What is not there is no error, and the configuration's own stays.
    run.disable("second").await.unwrap();
    assert_eq!(
        run.disable("file").await,
        Err(DeviceError::Configured(Prefix::parse("file").unwrap()))
    );
}

#[actix_rt::test]
async fn what_must_not_be_written_to_is_not() {
    let run = Run::start().await;
    let refused = |path: &'static str, name: &'static str| {
        let run = &run;
        async move { run.enable(path, name).await.unwrap_err().to_string() }
    };
    std::fs::write(run.path("notes"), "mine\nand torn").unwrap();
    assert!(refused("a", "notes").await.contains("is not an audit log"));
    assert_eq!(run.text("notes"), "mine\nand torn");
    std::os::unix::fs::symlink(run.path("elsewhere"), run.path("link")).unwrap();
    assert!(refused("a", "link").await.contains("not a regular file"));
    assert!(!run.path("elsewhere").exists());
    std::fs::create_dir(run.path("folder")).unwrap();
    assert!(refused("a", "folder").await.contains("not a regular file"));
    assert!(refused("file", "second.log").await.contains("already in use at file/"));
    assert!(refused("file/below", "second.log").await.contains("already in use at file/"));
    run.enable("a", "second.log").await.unwrap();
    assert!(refused("b", "second.log").await.contains("a/ writes there"));
    assert!(refused("b", "second.log.9").await.contains("a/ writes there"));
    assert_eq!(run.paths().await, ["a/", "file/"]);
    for number in 2..8 {
        run.enable(&format!("n{number}"), &format!("n{number}")).await.unwrap();
    }
    assert!(refused("z", "z").await.contains("as many as there may be"));
    assert!(!run.path("z").exists());
}

#[actix_rt::test]
async fn a_device_that_takes_no_first_record_is_not_added() {
    let run = Run::start().await;
    let options = BTreeMap::from([
        ("address".to_owned(), run.path("nobody").display().to_string()),
        ("socket_type".to_owned(), "unix".to_owned()),
    ]);
    let (path, kind) = (Prefix::parse("c").unwrap(), "socket".to_owned());
    let device = Device { path, kind, description: String::new(), local: false, options };
    let refused = run.keeper.send(EnableDevice(device.clone())).await.unwrap().unwrap_err();
    assert!(refused.to_string().contains("takes nothing"), "{refused}");
    assert_eq!(run.paths().await, ["file/"]);
    let _listener = std::os::unix::net::UnixListener::bind(run.path("nobody")).unwrap();
    run.keeper.send(EnableDevice(device)).await.unwrap().unwrap();
    assert_eq!(run.paths().await, ["c/", "file/"]);
}
