//! The process itself: what it gave up, whom it runs as, what it refuses to start with.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use serde_json::json;

use crate::harness::{Client, Options, Server, eventually, skipped};

/// A user that owns nothing.
const NOBODY: u32 = 65_534;
const SOON: Duration = Duration::from_secs(20);

/// What the kernel says of a process.
fn status(pid: u32) -> BTreeMap<String, String> {
    let text = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let pairs = text.lines().filter_map(|line| line.split_once(':'));
    pairs.map(|(name, value)| (name.to_owned(), value.trim().to_owned())).collect()
}

#[test]
fn a_server_has_no_right_that_it_does_not_need() {
    let server = Server::open();
    let status = status(server.pid());
    assert_eq!(status["NoNewPrivs"], "1");
    assert_eq!(status["Umask"], "0077");
    // CAP_NET_BIND_SERVICE is number 10, CAP_IPC_LOCK number 14.
    let kept = 1_u64 << 10 | 1 << 14;
    for set in ["CapInh", "CapPrm", "CapEff", "CapAmb"] {
        let held = u64::from_str_radix(&status[set], 16).unwrap();
        assert_eq!(held & !kept, 0, "{set}: {held:x}");
    }
    let filtered = !server.log().contains("could not be filtered");
    if !filtered {
        skipped("a server whose calls are filtered: this kernel has no filters");
    }
    for task in fs::read_dir(format!("/proc/{}/task", server.pid())).unwrap() {
        // A thread may end while others are looked at.
        let Ok(text) = fs::read_to_string(task.unwrap().path().join("status")) else { continue };
        let mode = text.lines().find_map(|line| line.strip_prefix("Seccomp:")).map(str::trim);
        assert!(!filtered || mode == Some("2"), "a thread: {text}");
        let held = text.lines().find_map(|line| line.strip_prefix("CapEff:")).unwrap();
        assert_eq!(u64::from_str_radix(held.trim(), 16).unwrap() & !kept, 0, "a thread: {text}");
    }
    let limits = fs::read_to_string(format!("/proc/{}/limits", server.pid())).unwrap();
    let core = limits.lines().find(|line| line.starts_with("Max core file size")).unwrap();
    assert_eq!(core.split_whitespace().nth(4), Some("0"), "{core}");
    let files = limits.lines().find(|line| line.starts_with("Max open files")).unwrap();
    let numbers: Vec<&str> = files.split_whitespace().skip(3).take(2).collect();
    assert_eq!(numbers[0], numbers[1], "{files}");
    // The keys' pages: locked, and left out of an image of the process. Root alone may look.
    if let Ok(maps) = fs::read_to_string(format!("/proc/{}/smaps", server.pid())) {
        let flags = maps.lines().filter(|line| line.starts_with("VmFlags:"));
        let locked = flags.filter(|line| line.contains(" lo") && line.contains(" dd")).count();
        assert!(locked > 0 || server.log().contains("could not be locked"), "{}", server.log());
    }
    // Not dumpable: its files in /proc belong to root, whoever it runs as.
    if !server.log().contains("writes below these folders only") {
        skipped("a server kept to its folders: this kernel has no Landlock");
    }
}

#[test]
fn a_server_runs_as_a_user_who_owns_nothing_else() {
    if !rustix::process::geteuid().is_root() {
        skipped("a server as another user: only root can start one");
        return;
    }
    let mut server = Server::start(Options::default());
    server.stop();
    let folder = server.path("");
    give(&folder);
    let mut child = Command::new(env!("CARGO_BIN_EXE_mssm"))
        .args(["server", "--config"])
        .arg(server.path("mssm.toml"))
        .env_clear()
        .uid(NOBODY)
        .gid(NOBODY)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let certificate = fs::read(server.certificate_file()).unwrap();
    let client = Client::new(server.port(), &certificate, None);
    eventually("it answers", SOON, || client.try_send("GET", "sys/init", &[], None).ok());
    let body = json!({"secret_shares": 1, "secret_threshold": 1});
    let founded = client.put("sys/init", body).expect(200);
    client.put("sys/unseal", json!({"key": founded.text_at("/keys/0")})).expect(200);
    let root = client.with_token(&founded.text_at("/root_token"));
    root.post("secret/data/a", json!({"data": {"v": 1}})).expect(200);
    root.get("secret/data/a").expect(200);
    assert_eq!(status(child.id())["CapEff"], "0000000000000000");
    let owner = fs::metadata(format!("/proc/{}/mem", child.id()));
    use std::os::unix::fs::MetadataExt;
    assert_eq!(owner.unwrap().uid(), 0, "its memory is not its user's to read");
    child.kill().unwrap();
    child.wait().unwrap();
}

/// Gives a folder and all that is in it to nobody.
fn give(folder: &Path) {
    chown(folder, Some(NOBODY), Some(NOBODY)).unwrap();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            give(&path);
        } else {
            chown(&path, Some(NOBODY), Some(NOBODY)).unwrap();
        }
    }
}

#[test]
fn what_others_could_read_or_write_stops_the_start() {
    let names = ["localhost".to_owned(), "127.0.0.1".to_owned()];
    let made = rcgen::generate_simple_self_signed(names).unwrap();
    let tls = "certificate = \"{folder}/server.crt\"\nkey = \"{folder}/server.key\"".to_owned();
    let files = vec![
        ("server.crt", made.cert.pem()),
        ("server.key", made.signing_key.serialize_pem()),
        ("root.key", "5a".repeat(32)),
    ];
    let seal = "kind = \"static\"\nkey_file = \"{folder}/root.key\"".to_owned();
    let mut server = Server::start(Options { tls, seal, files, ..Options::default() });
    server.stop();
    let data = server.data();
    let cases = [
        (server.path("server.key"), 0o604, "can be read by other users"),
        (server.path("mssm.toml"), 0o646, "chmod go-w"),
        (server.path("mssm.toml"), 0o620, "chmod go-w"),
        (data, 0o755, "chmod 700"),
    ];
    for (path, mode, words) in cases {
        let before = fs::metadata(&path).unwrap().permissions();
        fs::set_permissions(&path, PermissionsExt::from_mode(mode)).unwrap();
        let (status, said) = server.fails_to_start();
        assert!(!status.success() && said.contains(words), "{}: {said}", path.display());
        fs::set_permissions(&path, before).unwrap();
    }
    // The root key is read at the start and asked for at the unseal.
    fs::set_permissions(server.path("root.key"), PermissionsExt::from_mode(0o640)).unwrap();
    server.again();
    let init = server.client().put("sys/init", json!({}));
    assert_ne!(init.status, 200, "{}", init.text);
    // Who asks may be anybody: where the key lies is for the server's log.
    assert!(!init.text.contains("root.key"), "{}", init.text);
    assert!(server.log().contains("root.key can be read by other users"));
}

/// Catalogue: CVE-2020-13223.
#[test]
fn settings_that_others_can_read_hold_no_secret() {
    let files = vec![("db.password", "p".to_owned())];
    let mut server = Server::start(Options { files, ..Options::default() });
    server.stop();
    let file = server.path("mssm.toml");
    let plain = fs::read_to_string(&file).unwrap();
    let connection = format!(
        "[db.connections.main]\nhost = \"127.0.0.1\"\nport = 1\ndatabase = \"d\"\n\
         username = \"u\"\npassword_file = \"{}\"\n",
        server.path("db.password").display()
    );
    let role = "[db.roles.app]\nconnection = \"main\"\n\
         creation = [\"SELECT dblink('postgresql://u:c4naryVALUE@h/d')\"]\n";
    let url = format!("{plain}\n{connection}{role}");
    let inline = format!("{plain}\n{connection}password = \"c4naryVALUE\"\n");
    for (text, mode, refusal) in [
        (&plain, 0o644, None),
        (&url, 0o600, None),
        (&url, 0o644, Some("chmod 600")),
        (&url, 0o640, Some("chmod 600")),
        (&url, 0o604, Some("db.roles.app.creation")),
        (&inline, 0o644, Some("db.connections.main.password")),
        // Refused as what it is, and in words that do not repeat it.
        (&inline, 0o600, Some("unknown field `password`")),
    ] {
        fs::write(&file, text).unwrap();
        fs::set_permissions(&file, PermissionsExt::from_mode(mode)).unwrap();
        let Some(words) = refusal else {
            server.again();
            server.stop();
            continue;
        };
        let (status, said) = server.fails_to_start();
        assert!(!status.success() && said.contains(words), "{mode:o}: {said}");
        assert!(!said.contains("c4nary"), "{mode:o}: {said}");
    }
}

#[test]
fn the_unit_for_systemd_is_sound_and_shuts_it_in() {
    let unit = fs::read_to_string(crate::rooms::workspace().join("config/mssm.service")).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("mssm.service");
    fs::write(&file, unit.replace("/usr/local/bin/mssm", env!("CARGO_BIN_EXE_mssm"))).unwrap();
    let analyze =
        |arguments: &[&str]| Command::new("systemd-analyze").args(arguments).arg(&file).output();
    let Ok(verified) = analyze(&["verify", "--man=no"]) else {
        skipped("the unit for systemd: there is no systemd-analyze");
        return;
    };
    let said = String::from_utf8_lossy(&verified.stderr).into_owned();
    let ours: Vec<&str> = said.lines().filter(|line| line.contains("mssm.service")).collect();
    assert!(ours.is_empty(), "{ours:#?}");
    // The disk failed: somebody has to look at it first.
    assert!(unit.lines().any(|line| line == "RestartPreventExitStatus=70"));
    // The calls by which the server itself gives things up.
    for call in ["capset", "landlock_restrict_self", "seccomp"] {
        let mut allowed = unit.lines().filter_map(|line| line.strip_prefix("SystemCallFilter="));
        assert!(allowed.any(|line| line.split(' ').any(|one| one == call)), "{call}");
    }
    // 0 is shut in wholly, 10 (as a number of tenths: 100) not at all.
    let judged = analyze(&["security", "--offline=true", "--threshold=20", "--no-pager"]).unwrap();
    assert!(judged.status.success(), "{}", String::from_utf8_lossy(&judged.stdout));
}
