//! The real program in a folder of its own, stopped and removed however the test ends.

use std::fs::{File, OpenOptions};
use std::hash::{BuildHasher, RandomState};
use std::net::TcpListener;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use tempfile::TempDir;

use super::client::Client;
use super::raw::Raw;
use super::wait::eventually;

const START: Duration = Duration::from_secs(20);
const STOP: Duration = Duration::from_secs(30);
/// How many ports are tried before a start that fails is believed.
const STARTS: usize = 3;

/// What differs from a plain server.
#[derive(Clone, Debug)]
pub(crate) struct Options {
    /// `embedded` or `file`.
    pub(crate) storage: &'static str,
    /// Where the store is; in the server's folder if not told.
    pub(crate) data: Option<PathBuf>,
    /// Where the audit log is; in the server's folder if not told.
    pub(crate) audit: Option<PathBuf>,
    /// The `[tls]` section.
    pub(crate) tls: String,
    /// The `[seal]` section.
    pub(crate) seal: String,
    /// More of the `[audit]` section.
    pub(crate) logged: String,
    /// More sections, as `[db.connections.x]`.
    pub(crate) more: String,
    /// Files in the server's folder, private; `{folder}` in the settings stands for it.
    pub(crate) files: Vec<(&'static str, String)>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            storage: "embedded",
            data: None,
            audit: None,
            tls: "self_signed = true".to_owned(),
            seal: "kind = \"shamir\"".to_owned(),
            logged: String::new(),
            more: String::new(),
            files: Vec::new(),
        }
    }
}

/// A server, and what it said when it was initialised.
pub(crate) struct Server {
    folder: TempDir,
    options: Options,
    port: u16,
    child: Option<Child>,
    certificate: Vec<u8>,
    pub(crate) shares: Vec<String>,
    pub(crate) root_token: String,
    failpoint: Option<String>,
    /// While this file is there the audit log's disk hangs.
    pub(crate) stall: PathBuf,
    /// What it is started with besides its settings.
    pub(crate) arguments: Vec<&'static str>,
}

impl Server {
    /// Starts a server that has nothing yet.
    pub(crate) fn start(options: Options) -> Self {
        let folder = tempfile::Builder::new().prefix("mssm-it").tempdir().expect("a folder");
        let stall = folder.path().join("stall");
        let mut server = Self {
            stall,
            folder,
            options,
            port: 0,
            child: None,
            certificate: Vec::new(),
            shares: Vec::new(),
            root_token: String::new(),
            failpoint: None,
            arguments: Vec::new(),
        };
        for (name, text) in &server.options.files {
            write_private(&server.path(name), text);
        }
        for attempt in 1..=STARTS {
            server.port = free_port();
            server.write_config();
            match server.spawn() {
                Ok(()) => break,
                Err(problem) if attempt == STARTS => panic!("the server does not start: {problem}"),
                Err(_) => {}
            }
        }
        server
    }

    /// Starts a server, initialises and unseals it.
    pub(crate) fn ready(options: Options) -> Self {
        let mut server = Self::start(options);
        server.init(1, 1);
        server.unseal();
        server
    }

    /// A plain one, open.
    pub(crate) fn open() -> Self {
        Self::ready(Options::default())
    }

    pub(crate) fn init(&mut self, shares: u8, threshold: u8) {
        let body = json!({"secret_shares": shares, "secret_threshold": threshold});
        let answer = self.client().put("sys/init", body).expect(200);
        self.root_token = answer.text_at("/root_token");
        let keys = answer.json["keys_base64"].as_array().cloned().unwrap_or_default();
        self.shares = keys.iter().filter_map(Value::as_str).map(str::to_owned).collect();
    }

    /// Gives shares until it is open.
    pub(crate) fn unseal(&self) {
        for share in &self.shares {
            let answer = self.client().put("sys/unseal", json!({"key": share})).expect(200);
            if answer.json["sealed"] == json!(false) {
                return;
            }
        }
        panic!("still sealed with all shares");
    }

    /// A client without a token.
    pub(crate) fn client(&self) -> Client {
        Client::new(self.port, &self.certificate, None)
    }

    /// A client with the root token.
    pub(crate) fn root(&self) -> Client {
        self.client().with_token(&self.root_token)
    }

    /// A client with a new token of these policies, as `{"policies": [..], "ttl": ..}`.
    pub(crate) fn with_new_token(&self, body: Value) -> Client {
        let answer = self.root().post("auth/token/create", body).expect(200);
        self.client().with_token(&answer.text_at("/auth/client_token"))
    }

    /// A client whose token may do just this.
    pub(crate) fn limited(&self, name: &str, policy: &str) -> Client {
        self.root().put(&format!("sys/policies/acl/{name}"), json!({"policy": policy})).expect(204);
        self.with_new_token(json!({"policies": [name], "no_default_policy": true}))
    }

    pub(crate) fn raw(&self) -> Raw {
        self.raw_from("127.0.0.1")
    }

    /// One from another address of this machine.
    pub(crate) fn raw_from(&self, address: &str) -> Raw {
        Raw::from(address, self.port, &self.certificate)
    }

    pub(crate) const fn port(&self) -> u16 {
        self.port
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.as_ref().expect("a running server").id()
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub(crate) fn data(&self) -> PathBuf {
        self.options.data.clone().unwrap_or_else(|| self.path("data"))
    }

    pub(crate) fn audit(&self) -> PathBuf {
        self.options.audit.clone().unwrap_or_else(|| self.path("audit.log"))
    }

    /// What the server has said so far.
    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(self.path("server.log")).unwrap_or_default()
    }

    pub(crate) fn audit_text(&self) -> String {
        std::fs::read_to_string(self.audit()).unwrap_or_default()
    }

    /// The lines of the audit log that are no checkpoints.
    pub(crate) fn audit_lines(&self) -> Vec<Value> {
        let text = self.audit_text();
        text.lines().map(|line| serde_json::from_str(line).expect("a line of JSON")).collect()
    }

    pub(crate) fn signal(&self, signal: Signal) {
        let pid = i32::try_from(self.pid()).ok().and_then(Pid::from_raw).expect("a process");
        kill_process(pid, signal).expect("a signal");
    }

    /// Ends it as a power cut would end the process.
    pub(crate) fn kill9(&mut self) {
        let mut child = self.child.take().expect("a running server");
        child.kill().expect("kill");
        child.wait().expect("its end");
    }

    /// Asks it to stop, and waits until it has.
    pub(crate) fn stop(&mut self) -> ExitStatus {
        self.signal(Signal::TERM);
        let mut child = self.child.take().expect("a running server");
        eventually("the server stops", STOP, || child.try_wait().expect("its state"))
    }

    /// Starts it again where it was.
    pub(crate) fn again(&mut self) {
        assert!(self.child.is_none(), "it runs");
        if let Err(problem) = self.spawn() {
            panic!("the server does not start again: {problem}");
        }
    }

    /// Starts it to end at a fail-point; false if it did before it answered.
    pub(crate) fn again_until(&mut self, failpoint: &str) -> bool {
        self.failpoint = Some(failpoint.to_owned());
        let answers = self.spawn().is_ok();
        self.failpoint = None;
        answers
    }

    /// How it ended, if it has.
    pub(crate) fn ended(&mut self) -> Option<ExitStatus> {
        let Some(child) = &mut self.child else { return None };
        let ended = child.try_wait().expect("its state");
        if ended.is_some() {
            self.child = None;
        }
        ended
    }

    /// Starts it though it cannot; its exit and its words.
    pub(crate) fn fails_to_start(&mut self) -> (ExitStatus, String) {
        self.child = None;
        let before = self.log().len();
        let mut child = self.command();
        let status = eventually("the server gives up", START, || child.try_wait().expect("state"));
        (status, self.log().split_at(before).1.to_owned())
    }

    /// The public key that proves the audit log.
    pub(crate) fn audit_key(&self) -> String {
        self.root().get("sys/audit/key").expect(200).text_at("/data/public_key")
    }

    /// What `mssm audit verify` says of a log.
    pub(crate) fn verify_audit(&self, key: &str, log: &Path) -> Output {
        self.cli(&["audit", "verify", "-key", key, &log.display().to_string()])
    }

    /// Starts it and does not wait for anything.
    pub(crate) fn spawn_unchecked(&self) -> Child {
        self.command()
    }

    /// Runs the command line against this server, as its root.
    pub(crate) fn cli(&self, arguments: &[&str]) -> Output {
        self.cli_as(&self.root_token, arguments)
    }

    pub(crate) fn cli_as(&self, token: &str, arguments: &[&str]) -> Output {
        let mut command = self.cli_command(arguments);
        command.env("MSSM_TOKEN", token).stdin(Stdio::null());
        command.output().expect("the program")
    }

    /// The command line without a token.
    pub(crate) fn cli_command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_mssm"));
        command
            .args(arguments)
            .env_clear()
            .env("HOME", self.folder.path())
            .env("MSSM_ADDR", format!("https://127.0.0.1:{}", self.port))
            .env("MSSM_CACERT", self.certificate_file());
        command
    }

    pub(crate) fn certificate_file(&self) -> PathBuf {
        let given = self.path("server.crt");
        if given.exists() { given } else { self.data().join("tls.crt") }
    }

    fn write_config(&self) {
        let Options { storage, tls, seal, logged, more, .. } = &self.options;
        let (data, audit, port) = (self.data(), self.audit(), self.port);
        let folder = self.folder.path().display();
        let (data, audit) = (data.display(), audit.display());
        // Tests wait for each other's disks; one that is about a disk that hangs says so.
        let told = logged.contains("patience_ms");
        let patience = if told { "" } else { "patience_ms = 15000\n" };
        let text = format!(
            "[server]\naddress = \"127.0.0.1:{port}\"\n\n[tls]\n{tls}\n\n\
             [storage]\nkind = \"{storage}\"\nfolder = \"{data}\"\n\n[seal]\n{seal}\n\n\
             [audit]\nfile = \"{audit}\"\n{patience}{logged}\n[log]\nformat = \"text\"\nlevel = \"info\"\n\n{more}\n"
        );
        write_private(&self.path("mssm.toml"), &text.replace("{folder}", &folder.to_string()));
    }

    fn command(&self) -> Child {
        let log = OpenOptions::new().append(true).create(true).open(self.path("server.log"));
        let log: File = log.expect("the log");
        // A test that has this file turns the clock by it.
        let clock = self.path("clock");
        Command::new(env!("CARGO_BIN_EXE_mssm"))
            .arg("server")
            .arg("--config")
            .arg(self.path("mssm.toml"))
            .args(&self.arguments)
            .env_clear()
            .envs(self.failpoint.as_ref().map(|point| ("MSSM_FAILPOINT", point)))
            .env("MSSM_STALL", format!("audit.sync:{}", self.stall.display()))
            .envs(clock.exists().then_some(("MSSM_CLOCK", clock)))
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("the log"))
            .stderr(log)
            .spawn()
            .expect("the program")
    }

    /// Starts the program and waits until it answers.
    fn spawn(&mut self) -> Result<(), String> {
        let mut child = self.command();
        let mut problem = None;
        eventually("the server answers", START, || {
            if let Ok(Some(status)) = child.try_wait() {
                problem = Some(format!("{status}: {}", self.log()));
                return Some(());
            }
            self.certificate = std::fs::read(self.certificate_file()).ok()?;
            if !self.certificate.ends_with(b"-----END CERTIFICATE-----\n") {
                return None;
            }
            let answer = self.client().try_send("GET", "sys/seal-status", &[], None).ok()?;
            (answer.status == 200).then_some(())
        });
        if let Some(problem) = problem {
            return Err(problem);
        }
        self.child = Some(child);
        Ok(())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("--- the server's log\n{}--- end of it", self.log());
        }
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// A port below those that the system gives to clients, so that nobody takes it meanwhile.
pub(crate) fn free_port() -> u16 {
    loop {
        let random = RandomState::new().hash_one(std::process::id());
        let port = 16_000 + u16::try_from(random % 16_000).unwrap_or(0);
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}

/// Writes a file that only its owner may read.
pub(crate) fn write_private(file: &Path, text: &str) {
    use std::io::Write;
    let mut handle = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(file)
        .expect("a file");
    handle.write_all(text.as_bytes()).expect("its text");
}
