//! The system's log: one datagram a line, framed as RFC 5424 says.

use std::io;
use std::os::unix::net::UnixDatagram;
use std::path::PathBuf;

use mssm_crypto::chain::Chain;

use super::{Carrier, LIMIT};
use crate::prefix::Prefix;

/// RFC 5424 §6.2.1: facilities by the names that syslog.conf has for them.
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
/// RFC 5424 §6.2.1: informational.
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

    /// RFC 5424 §6: priority, version, time, host (which the daemon knows), program, process, kind.
    fn frame(&self, line: &[u8], message: &[u8]) -> Vec<u8> {
        let priority = self.facility * 8 + SEVERITY;
        let time = Prefix::parse(line).map_or("-", |prefix| prefix.time);
        let (tag, process) = (&self.tag, std::process::id());
        let mut frame = format!("<{priority}>1 {time} - {tag} {process} audit - ").into_bytes();
        frame.extend_from_slice(message);
        frame
    }
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
