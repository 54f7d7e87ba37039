//! A disk that is full: refused, nothing acknowledged that is not there, and well again by itself.

use std::fs;
use std::path::Path;
use std::time::Duration;

use serde_json::json;

use crate::harness::{Options, Server, SmallDisk, eventually};

/// Writes until one is refused; replies how many were acknowledged.
fn write_until_refused(server: &Server) -> usize {
    let root = server.root();
    let body = json!({"data": {"filler": "x".repeat(20_000)}});
    for number in 0..2_000 {
        let answer = root.post(&format!("secret/data/full/{number}"), body.clone());
        if answer.status != 200 {
            assert!((500..600).contains(&answer.status), "{}: {}", answer.status, answer.text);
            return number;
        }
    }
    panic!("the disk is never full");
}

fn all_there(server: &Server, acknowledged: usize) {
    let root = server.root();
    for number in 0..acknowledged {
        let read = root.get(&format!("secret/data/full/{number}"));
        assert_eq!(read.expect(200).data()["data"]["filler"].as_str().map(str::len), Some(20_000));
    }
}

fn a_full_disk_under(what: fn(&Path) -> Options) {
    let Some(disk) = SmallDisk::mount(24) else { return };
    let options = what(disk.path());
    let mut server = Server::ready(options);
    server.root().post("secret/data/before", json!({"data": {"v": 1}})).expect(200);
    let filler = disk.fill();
    // Some room is left: the disk fills up amid writing.
    let left = fs::metadata(&filler).unwrap().len() - (2 << 20);
    fs::File::options().write(true).open(&filler).unwrap().set_len(left).unwrap();
    let acknowledged = write_until_refused(&server);
    assert!(acknowledged > 0);
    server.client().get("sys/seal-status").expect(200);
    fs::remove_file(filler).unwrap();
    let probe = json!({"data": {"v": 2}});
    eventually("it recovers by itself", Duration::from_secs(30), || {
        (server.root().post("secret/data/after", probe.clone()).status == 200).then_some(())
    });
    all_there(&server, acknowledged);
    server.root().get("secret/data/before").expect(200);
    server.kill9();
    server.again();
    server.unseal();
    all_there(&server, acknowledged);
    server.root().get("secret/data/after").expect(200);
}

#[test]
fn a_full_disk_under_the_store_is_survived() {
    a_full_disk_under(|disk| Options { data: Some(disk.join("data")), ..Options::default() });
}

#[test]
fn a_full_disk_under_a_store_of_files_is_survived() {
    a_full_disk_under(|disk| Options {
        data: Some(disk.join("data")),
        storage: "file",
        ..Options::default()
    });
}

#[test]
fn a_full_disk_under_the_audit_log_refuses_and_is_survived() {
    a_full_disk_under(|disk| Options { audit: Some(disk.join("audit.log")), ..Options::default() });
}
