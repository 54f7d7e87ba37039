//! The system's log: one datagram a line, framed as the C library's `syslog` frames it.
//!
//! The newer frame (RFC 5424) is not what daemons expect on their own machine's socket: they take its version for the
//! program's name.

use std::io;
use std::os::unix::net::UnixDatagram;
use std::path::PathBuf;

use mssm_crypto::chain::Chain;

use super::{Carrier, LIMIT};
use crate::prefix::Prefix;

/// Facilities by the names that syslog.conf has for them.
const FACILITIES: [(&str, u8); 20] = [
    ("KERN", 0),
    ("USER", 1),
    ("MAIL", 2),
    ("DAEMON", 3),
    ("AUTH", 4),
    ("SYSLOG", 5),
    ("LPR", 6),
    ("NEWS", 7),
    ("UUCP", 8),
    ("CRON", 9),
    ("AUTHPRIV", 10),
    ("FTP", 11),
    ("LOCAL0", 16),
    ("LOCAL1", 17),
    ("LOCAL2", 18),
    ("LOCAL3", 19),
    ("LOCAL4", 20),
    ("LOCAL5", 21),
    ("LOCAL6", 22),
    ("LOCAL7", 23),
];
/// Informational.
const SEVERITY: u8 = 6;

/// A facility's number; upper and lower case are one.
pub(crate) fn facility(name: &str) -> Option<u8> {
    let found = FACILITIES.iter().find(|(known, _)| known.eq_ignore_ascii_case(name));
    found.map(|(_, number)| *number)
}

/// A way to a syslog daemon.
pub(crate) struct Syslog {
    socket: PathBuf,
    facility: u8,
    tag: String,
    open: Option<UnixDatagram>,
}

impl Syslog {
    pub(crate) const fn new(socket: PathBuf, facility: u8, tag: String) -> Self {
        Self { socket, facility, tag, open: None }
    }

    fn connect(&self) -> io::Result<UnixDatagram> {
        let socket = UnixDatagram::unbound()?;
        socket.connect(&self.socket)?;
        socket.set_write_timeout(Some(LIMIT))?;
        Ok(socket)
    }

    fn send(&self, socket: &UnixDatagram, line: &[u8]) -> io::Result<()> {
        match socket.send(&self.frame(line, line)) {
            // Longer than a datagram may be: what there is to be found elsewhere.
            Err(error) if error.raw_os_error() == Some(MESSAGE_TOO_LONG) => {
                let seq = Prefix::parse(line).map_or(0, |prefix| prefix.seq);
                let mut chain = Chain::default();
                chain.append(line);
                let (bytes, hash) = (line.len(), hex::encode(chain.head));
                let told = format!("{{\"seq\":{seq},\"too_long\":{bytes},\"sha256\":\"{hash}\"}}");
                socket.send(&self.frame(line, told.as_bytes())).map(drop)
            }
            sent => sent.map(drop),
        }
    }

    /// Priority, time, program and process; the host is the daemon's.
    fn frame(&self, line: &[u8], message: &[u8]) -> Vec<u8> {
        let priority = self.facility * 8 + SEVERITY;
        let time = Prefix::parse(line).and_then(|prefix| traditional(prefix.time));
        let time = time.unwrap_or_else(|| "Jan  1 00:00:00".to_owned());
        let (tag, process) = (&self.tag, std::process::id());
        let mut frame = format!("<{priority}>{time} {tag}[{process}]: ").into_bytes();
        frame.extend_from_slice(message);
        frame
    }
}

/// RFC 3164 §4.1.2 of a record's time, which is in UTC: `Nov  8 19:47:19`.
fn traditional(time: &str) -> Option<String> {
    const MONTHS: [&str; 12] =
        ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    let month: usize = time.get(5..7)?.parse().ok()?;
    let day: u8 = time.get(8..10)?.parse().ok()?;
    Some(format!("{} {day:2} {}", MONTHS.get(month.checked_sub(1)?)?, time.get(11..19)?))
}

/// `EMSGSIZE`.
const MESSAGE_TOO_LONG: i32 = rustix::io::Errno::MSGSIZE.raw_os_error();

impl Carrier for Syslog {
    fn carry(&mut self, lines: &[u8]) -> io::Result<()> {
        let mut socket = match self.open.take() {
            Some(socket) => socket,
            None => self.connect()?,
        };
        for line in lines.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
            if self.send(&socket, line).is_err() {
                // The daemon was started anew: its socket is another one.
                socket = self.connect()?;
                self.send(&socket, line)?;
            }
        }
        self.open = Some(socket);
        Ok(())
    }

    fn place(&self) -> String {
        self.socket.display().to_string()
    }
}
