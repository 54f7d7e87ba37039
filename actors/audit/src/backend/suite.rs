//! What every backend must do; each runs the whole of it.

use super::{AuditBackend, FileBackend, MemoryBackend};

fn lines(backend: &mut dyn AuditBackend) -> Vec<String> {
    let mut lines = Vec::new();
    backend
        .open(u64::MAX, &mut |line| lines.push(String::from_utf8(line.to_vec()).unwrap()))
        .unwrap();
    lines
}

fn keeps_what_it_was_given(mut backend: impl AuditBackend) {
    assert!(lines(&mut backend).is_empty());
    backend.append(b"one\ntwo\n").unwrap();
    backend.append(b"three\n").unwrap();
    backend.inspect().unwrap();
    assert_eq!(lines(&mut backend), ["one", "two", "three"]);
    backend.append(b"four\n").unwrap();
    assert_eq!(lines(&mut backend), ["one", "two", "three", "four"]);
}

fn finds_a_line_by_its_number(mut backend: impl AuditBackend) {
    backend.open(u64::MAX, &mut |_| ()).unwrap();
    let prev = "0".repeat(64);
    let line = |seq: u64| {
        let more = "x".repeat(usize::try_from(seq * 37 % 3000).unwrap());
        format!(
            "{{\"seq\":{seq},\"prev\":\"{prev}\",\"time\":\"t\",\"type\":\"event\",\"x\":\"{more}\"}}"
        )
    };
    for seq in 5..200 {
        backend.append(format!("{}\n", line(seq)).as_bytes()).unwrap();
    }
    for seq in 5..200 {
        assert_eq!(backend.find(seq).unwrap(), Some(line(seq).into_bytes()));
    }
    assert_eq!((backend.find(4).unwrap(), backend.find(200).unwrap()), (None, None));
}

#[test]
fn a_line_is_found_by_its_number_in_memory_and_in_a_file() {
    finds_a_line_by_its_number(MemoryBackend::default());
    let folder = tempfile::tempdir().unwrap();
    finds_a_line_by_its_number(FileBackend::new(folder.path().join("audit.log")));
}

#[test]
fn memory_keeps_what_it_was_given() {
    keeps_what_it_was_given(MemoryBackend::default());
}

#[test]
fn a_file_keeps_what_it_was_given() {
    let folder = tempfile::tempdir().unwrap();
    keeps_what_it_was_given(FileBackend::new(folder.path().join("deep/audit.log")));
}

#[test]
fn a_torn_line_is_set_aside_and_named() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("audit.log");
    let whole = "{\"seq\":0}\n";
    std::fs::write(&path, whole.to_owned() + "hal").unwrap();
    let mut backend = FileBackend::new(&path);
    let mut seen = 0;
    let found = backend.open(u64::MAX, &mut |_| seen += 1).unwrap();
    assert_eq!(seen, 1);
    assert_eq!(std::fs::read_to_string(found.torn.unwrap()).unwrap(), "hal");
    assert_eq!(std::fs::read_to_string(&path).unwrap(), whole);
}

#[test]
fn a_file_that_is_no_log_keeps_its_last_line_and_a_link_in_a_torn_lines_place_leads_nowhere() {
    let folder = tempfile::tempdir().unwrap();
    let (path, other) = (folder.path().join("audit.log"), folder.path().join("other"));
    std::fs::write(&path, "a letter\nto somebody").unwrap();
    let refused = FileBackend::new(&path).open(u64::MAX, &mut |_| ()).unwrap_err();
    assert!(refused.0.contains("is not an audit log"), "{refused}");
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "a letter\nto somebody");
    let torn = "{\"seq\":0}\n{\"seq\":1";
    std::fs::write(&path, torn).unwrap();
    std::fs::write(&other, "kept").unwrap();
    std::os::unix::fs::symlink(&other, folder.path().join("audit.log.torn-10")).unwrap();
    assert!(FileBackend::new(&path).open(u64::MAX, &mut |_| ()).is_err());
    assert_eq!(std::fs::read_to_string(&other).unwrap(), "kept");
    assert_eq!(std::fs::read_to_string(&path).unwrap(), torn);
}

#[test]
fn a_file_that_is_tampered_with_is_noticed() {
    use std::os::unix::fs::PermissionsExt;
    type Spoil = fn(&std::path::Path);
    let cases: [(&str, Spoil); 5] = [
        ("moved or removed", |path| std::fs::remove_file(path).unwrap()),
        ("replaced", |path| {
            std::fs::remove_file(path).unwrap();
            std::fs::write(path, "x").unwrap();
        }),
        ("cut", |path| {
            std::fs::File::options().write(true).open(path).unwrap().set_len(2).unwrap();
        }),
        ("somebody else", |path| {
            use std::io::Write;
            let mut file = std::fs::File::options().append(true).open(path).unwrap();
            file.write_all(b"forged\n").unwrap();
        }),
        ("other users", |path| {
            std::fs::set_permissions(path, PermissionsExt::from_mode(0o644)).unwrap();
        }),
    ];
    for (reason, spoil) in cases {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("audit.log");
        let mut backend = FileBackend::new(&path);
        backend.open(u64::MAX, &mut |_| ()).unwrap();
        backend.append(b"line\n").unwrap();
        backend.inspect().unwrap();
        spoil(&path);
        let blocked = backend.inspect().unwrap_err();
        assert!(blocked.0.contains(reason), "{blocked}");
    }
}

#[test]
fn a_folder_in_which_others_may_write_is_refused_unless_files_are_their_owners_there() {
    use std::os::unix::fs::PermissionsExt;
    let parent = tempfile::tempdir().unwrap();
    let folder = parent.path().join("log");
    std::fs::create_dir(&folder).unwrap();
    for (mode, fit) in
        [(0o777, false), (0o775, false), (0o757, false), (0o755, true), (0o1777, true)]
    {
        std::fs::set_permissions(&folder, PermissionsExt::from_mode(mode)).unwrap();
        let opened = FileBackend::new(folder.join("audit.log")).open(u64::MAX, &mut |_| ());
        let said = opened.map_or_else(|blocked| blocked.0, |_| String::new());
        assert_eq!((said.is_empty(), said.contains("chmod go-w")), (fit, !fit), "{mode:o}: {said}");
    }
    // Its owner may, whatever the mode; only root can give it away to try that.
    if std::os::unix::fs::chown(&folder, Some(65_534), None).is_ok() {
        let refused = FileBackend::new(folder.join("audit.log")).open(u64::MAX, &mut |_| ());
        assert!(refused.is_err_and(|blocked| blocked.0.contains("belongs to another user")));
    }
    // What it makes itself is private, whatever the umask.
    let own = parent.path().join("own/log");
    FileBackend::new(own.join("audit.log")).open(u64::MAX, &mut |_| ()).unwrap();
    let mode = std::fs::metadata(&own).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o700);
}

#[test]
fn two_writers_of_one_file_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("audit.log");
    let mut first = FileBackend::new(&path);
    first.open(u64::MAX, &mut |_| ()).unwrap();
    let refused = FileBackend::new(&path).open(u64::MAX, &mut |_| ()).unwrap_err();
    assert!(refused.0.contains("another server"), "{refused}");
}

/// Catalogue: CVE-2025-6000, CVE-2025-54997.
#[test]
fn a_link_in_the_files_place_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("audit.log");
    std::os::unix::fs::symlink(folder.path().join("elsewhere"), &path).unwrap();
    assert!(FileBackend::new(&path).open(u64::MAX, &mut |_| ()).is_err());
}
