//! Whatever is done to the audit file: refused at once and said why, well again by itself, no gap in the chain.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use rustix::process::Signal;
use serde_json::{Value, json};

use crate::harness::{Database, Login, Options, Server, SmallDisk, Stopwatch, eventually};

const SOON: Duration = Duration::from_secs(10);
/// A refusal does not wait.
const AT_ONCE: Duration = Duration::from_secs(1);

/// The files of the log, the oldest first; what was set aside is none of them.
fn files(server: &Server) -> Vec<PathBuf> {
    let folder = server.audit();
    let entries = fs::read_dir(folder.parent().unwrap()).unwrap();
    let name = |path: &Path| path.file_name().unwrap().to_string_lossy().into_owned();
    let ours = |path: &PathBuf| name(path).starts_with("audit.log") && path.is_file();
    let mut files: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).filter(ours).collect();
    files.sort();
    files
}

/// What `mssm audit verify` says of all files together.
fn verified(server: &Server) -> (bool, String) {
    let key = server.audit_key();
    eventually("no file is renamed meanwhile", SOON, || {
        let files = files(server);
        let names: Vec<String> = files.iter().map(|file| file.display().to_string()).collect();
        let mut arguments = vec!["audit", "verify", "-key", &key];
        arguments.extend(names.iter().map(String::as_str));
        let output = server.cli(&arguments);
        let text = String::from_utf8([output.stdout, output.stderr].concat()).unwrap();
        (!text.contains("No such file")).then_some((output.status.success(), text))
    })
}

/// Asks until it is refused, each time answered at once; the reason in health and metrics.
fn refused_at_once(server: &Server, reason: &str) {
    let root = server.root();
    let answer = eventually("it is refused", SOON, || {
        let begun = Stopwatch::start();
        let answer = root.get("sys/key-status");
        assert!(begun.elapsed() < AT_ONCE, "{:?}", begun.elapsed());
        (answer.status != 200).then_some(answer)
    });
    answer.refused(503, "audit");
    let health = server.client().get("sys/health").expect(200);
    assert_eq!(health.json["audit_blocked"], json!(true), "{}", health.text);
    assert!(health.text_at("/audit_blocked_reason").contains(reason), "{}", health.text);
    assert!(!health.text.contains(&*server.audit().to_string_lossy()), "{}", health.text);
}

fn well_again(server: &Server) {
    let root = server.root();
    eventually("service resumes", SOON, || {
        (root.get("sys/key-status").status == 200).then_some(())
    });
    let health = server.client().get("sys/health").expect(200);
    assert_eq!(health.json["audit_blocked"], json!(false), "{}", health.text);
}

#[test]
fn an_unlinked_file_is_noticed_and_the_chain_goes_on_in_a_new_one() {
    let server = Server::open();
    fs::remove_file(server.audit()).unwrap();
    refused_at_once(&server, "moved or removed");
    well_again(&server);
    let (whole, text) = verified(&server);
    assert!(whole && !text.contains("from number 0 "), "{text}");
}

#[test]
fn a_server_that_cannot_be_unsealed_says_why() {
    let server = Server::open();
    server.root().put("sys/seal", json!({})).expect(204);
    fs::remove_file(server.audit()).unwrap();
    fs::create_dir(server.audit()).unwrap();
    let stranger = server.client();
    stranger.put("sys/unseal", json!({ "key": "00" })).refused(503, "audit");
    let health = stranger.get("sys/health").expect(503);
    assert_eq!(health.json["audit_blocked"], json!(true), "{}", health.text);
    let told = server.cli(&["read", "-field=audit_blocked_reason", "sys/health"]);
    assert_eq!(told.status.code(), Some(2));
    assert!(!told.stdout.is_empty(), "{told:?}");
}

#[test]
fn a_file_that_was_cut_is_set_aside_and_the_chain_goes_on() {
    let server = Server::open();
    let log = fs::File::options().write(true).open(server.audit()).unwrap();
    log.set_len(log.metadata().unwrap().len() / 2).unwrap();
    refused_at_once(&server, "was cut");
    well_again(&server);
    let aside = files(&server).into_iter().find(|path| path.to_string_lossy().contains("damaged"));
    assert!(aside.is_some());
    assert!(server.audit_text().contains("log-damaged"));
    assert!(verified(&server).0);
}

#[test]
fn a_file_that_was_opened_to_others_is_closed_to_them_again() {
    let server = Server::open();
    fs::set_permissions(server.audit(), PermissionsExt::from_mode(0o666)).unwrap();
    refused_at_once(&server, "other users");
    well_again(&server);
    let mode = fs::metadata(server.audit()).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let (whole, text) = verified(&server);
    assert!(whole && text.contains("from number 0 "), "{text}");
}

#[test]
fn a_pipe_that_nobody_reads_in_its_place_does_not_hang_the_server() {
    let server = Server::open();
    let aside = server.path("audit.log.aside");
    fs::rename(server.audit(), &aside).unwrap();
    assert!(Command::new("mkfifo").arg(server.audit()).status().unwrap().success());
    refused_at_once(&server, "");
    refused_at_once(&server, "not a regular file");
    fs::remove_file(server.audit()).unwrap();
    well_again(&server);
    let (whole, text) = verified(&server);
    assert!(whole && text.contains("from number 0 "), "{text}");
}

#[test]
fn a_disk_that_turned_read_only_refuses_until_it_can_be_written() {
    let Some(disk) = SmallDisk::mount(24) else { return };
    let audit = Some(disk.path().join("audit.log"));
    let server = Server::ready(Options { audit, ..Options::default() });
    let remount = |how: &str| {
        let mounted = Command::new("mount").args(["-o", how]).arg(disk.path()).status();
        assert!(mounted.unwrap().success());
    };
    // A file that is open for writing keeps the disk as it is: let it be closed.
    fs::rename(server.audit(), disk.path().join("audit.log.old")).unwrap();
    let root = server.root();
    root.get("sys/key-status").refused(503, "audit");
    remount("remount,ro");
    refused_at_once(&server, "Read-only");
    remount("remount,rw");
    well_again(&server);
    let (whole, text) = verified(&server);
    assert!(whole && text.contains("from number 0 "), "{text}");
}

#[test]
fn leases_end_on_time_while_nothing_can_be_written_down_and_that_follows_later() {
    let database = Database::shared();
    let server = Server::open();
    database.configure(&server.root(), "db", "2s", "1m");
    let login = Login::mint(&server.root(), "db/creds/app");
    let aside = server.path("audit.log.aside");
    fs::rename(server.audit(), &aside).unwrap();
    fs::create_dir(server.audit()).unwrap();
    eventually("the login is gone", Duration::from_secs(8), || {
        (!database.has_role(&login.user)).then_some(())
    });
    refused_at_once(&server, "");
    fs::remove_dir(server.audit()).unwrap();
    well_again(&server);
    eventually("its end is written", SOON, || {
        let lines = server.audit_lines();
        let tells = |line: &Value| {
            line["event"] == json!("lease-expired")
                && line["details"]["lease_id"] == json!(login.lease)
        };
        lines.iter().any(tells).then_some(())
    });
    assert!(verified(&server).0);
}

#[test]
fn a_full_file_is_closed_and_compressed_and_all_of_them_are_one_log() {
    let logged = "rotate_bytes = 20000\n".to_owned();
    let mut server = Server::ready(Options { logged, ..Options::default() });
    let root = server.root();
    for _ in 0..60 {
        root.get("sys/key-status").expect(200);
    }
    let compressed = |server: &Server| {
        files(server).iter().filter(|file| file.extension().is_some_and(|end| end == "zst")).count()
    };
    eventually("files are compressed", SOON, || (compressed(&server) > 1).then_some(()));
    let (whole, text) = verified(&server);
    assert!(whole && text.contains("from number 0 "), "{text}");
    server.stop();
    server.again();
    server.unseal();
    assert!(verified(&server).0);
    assert!(server.root().get("sys/metrics").expect(200).text.contains("mssm_audit_missing 0"));
    // A closed file that is taken away is missed at the next unsealing.
    server.stop();
    let gone = files(&server).into_iter().find(|file| file.to_string_lossy().contains(".zst"));
    fs::remove_file(gone.unwrap()).unwrap();
    server.again();
    server.unseal();
    assert!(server.root().get("sys/metrics").expect(200).text.contains("mssm_audit_missing 1"));
}

#[test]
fn a_file_that_was_moved_is_followed_without_a_refusal_after_a_signal() {
    let server = Server::open();
    let root = server.root();
    root.get("sys/key-status").expect(200);
    fs::rename(server.audit(), server.path("audit.log.1")).unwrap();
    server.signal(Signal::HUP);
    eventually("the log goes on", SOON, || server.audit().exists().then_some(()));
    root.get("sys/key-status").expect(200);
    let (whole, text) = verified(&server);
    assert!(whole && text.contains("from number 0 "), "{text}");
    assert!(server.audit_text().contains("\"reloaded\""));
}
