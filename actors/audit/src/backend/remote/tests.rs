//! What is carried arrives whole, in order, and a place that is lost is found again.

use std::io::{BufRead, BufReader, Read, Write as _};
use std::net::TcpListener;
use std::os::unix::net::{UnixDatagram, UnixListener};

use super::socket::Address;
use super::*;

fn batch(numbers: std::ops::Range<u32>) -> Vec<u8> {
    let line = |seq: u32| {
        let prev = "0".repeat(64);
        format!(
            "{{\"seq\":{seq},\"prev\":\"{prev}\",\"time\":\"2026-01-02T03:04:05.678Z\",\"type\":\"event\",\"x\":1}}\n"
        )
    };
    numbers.map(line).collect::<String>().into_bytes()
}

#[test]
fn a_socket_gets_every_batch_and_is_reached_anew_when_it_was_closed() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("collector");
    let listener = UnixListener::bind(&path).unwrap();
    let mut remote = Remote(Socket::new(Address::Unix(path.clone()), None));
    remote.append(&batch(0..3)).unwrap();
    remote.append(&batch(3..5)).unwrap();
    let (stream, _) = listener.accept().unwrap();
    let mut lines = BufReader::new(stream).lines();
    let got: Vec<String> = lines.by_ref().take(5).map(Result::unwrap).collect();
    assert_eq!(got.join("\n") + "\n", String::from_utf8(batch(0..5)).unwrap());
    drop(lines);
    // Closed by the collector: nothing of the next batch is written into the void.
    remote.append(&batch(5..6)).unwrap();
    let (mut stream, _) = listener.accept().unwrap();
    drop((listener, remote.0));
    let mut rest = String::new();
    stream.read_to_string(&mut rest).unwrap();
    assert_eq!(rest.into_bytes(), batch(5..6));
    std::fs::remove_file(&path).unwrap();
    let refused = Remote(Socket::new(Address::Unix(path), None)).append(b"x\n").unwrap_err();
    assert!(refused.0.starts_with("unix:"), "{refused}");
}

#[test]
fn syslog_is_framed_and_a_line_too_long_for_a_datagram_leaves_its_hash() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("log");
    let daemon = UnixDatagram::bind(&path).unwrap();
    let mut remote = Remote(Syslog::new(path.clone(), 4, "vault".to_owned()));
    remote.append(&batch(7..9)).unwrap();
    let mut buffer = vec![0; 1 << 16];
    let mut next = |daemon: &UnixDatagram| {
        let length = daemon.recv(&mut buffer).unwrap();
        String::from_utf8(buffer[..length].to_vec()).unwrap()
    };
    let first = next(&daemon);
    let (head, message) = first.split_at(first.find('{').unwrap());
    let process = std::process::id();
    assert_eq!(head, format!("<38>Jan  2 03:04:05 vault[{process}]: "));
    assert_eq!(message.as_bytes(), batch(7..8).trim_ascii_end());
    assert!(next(&daemon).contains("\"seq\":8"));
    let mut long = batch(9..10);
    let at = long.len() - 3;
    long.splice(at..at, vec![b'x'; 4 << 20]);
    remote.append(&long).unwrap();
    let told = next(&daemon);
    assert!(told.contains("{\"seq\":9,\"too_long\":") && told.len() < 300, "{told}");
    // A daemon that was started anew has another socket of the same name.
    drop(daemon);
    std::fs::remove_file(&path).unwrap();
    assert!(remote.append(&batch(10..11)).is_err());
    let daemon = UnixDatagram::bind(&path).unwrap();
    remote.append(&batch(10..12)).unwrap();
    assert!(next(&daemon).contains("\"seq\":10"));
    assert!(next(&daemon).contains("\"seq\":11"));
}

/// Answers one request after the other with these statuses; what was posted comes back.
fn collector(statuses: &'static [u16]) -> (String, std::thread::JoinHandle<Vec<Vec<u8>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let thread = std::thread::spawn(move || {
        let mut posted = Vec::new();
        for status in statuses {
            let (stream, _) = listener.accept().unwrap();
            let mut reader = BufReader::new(stream);
            let mut length = 0;
            let mut line = String::new();
            while reader.read_line(&mut line).unwrap() > 2 {
                let header = line.to_ascii_lowercase();
                if let Some(text) = header.strip_prefix("content-length:") {
                    length = text.trim().parse().unwrap();
                }
                line.clear();
            }
            let mut body = vec![0; length];
            reader.read_exact(&mut body).unwrap();
            posted.push(body);
            let answer =
                format!("HTTP/1.1 {status} X\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
            reader.get_mut().write_all(answer.as_bytes()).unwrap();
        }
        posted
    });
    (format!("http://{address}/audit"), thread)
}

#[test]
fn a_collector_takes_a_batch_by_a_good_answer_alone() {
    let (uri, thread) = collector(&[204, 500, 307, 200]);
    let mut remote = Remote(Http::new(uri, None).unwrap());
    remote.append(&batch(0..2)).unwrap();
    assert!(remote.append(&batch(2..3)).unwrap_err().0.contains("500"));
    assert!(remote.append(&batch(2..3)).is_err(), "nobody is sent elsewhere");
    remote.append(&batch(2..3)).unwrap();
    let all = [batch(0..2), batch(2..3), batch(2..3), batch(2..3)];
    assert_eq!(thread.join().unwrap(), all);
}

#[test]
fn a_collector_that_was_away_gets_what_waits_in_posts_of_bounded_size() {
    let (uri, thread) = collector(&[200; 4]);
    let mut remote = Remote(Http::new(uri, None).unwrap());
    let long = |length: usize| [vec![b'x'; length - 1], vec![b'\n']].concat();
    let lines = [long(300 << 10), long(212 << 10), long(9), long(700 << 10), long(5)];
    remote.append(&lines.concat()).unwrap();
    let [first, second, third, fourth, fifth] = lines;
    let posts = [[first, second].concat(), third, fourth, fifth];
    assert!(thread.join().unwrap() == posts);
}
