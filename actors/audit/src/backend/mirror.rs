//! Copies of the log for others: every durable batch goes on to standard output or a socket.
//!
//! The file decides; a copy never holds it up. Each mirror has a thread and a bounded queue, connects
//! anew by itself, and what it could not take is counted: lines are chained, so a gap shows there too.

use std::io::{self, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::Duration;

use mssm_domain::Timestamp;

use super::{AuditBackend, Blocked, Found};

/// Batches that may wait for a mirror; one more is lost to it, not to the log.
const WAITING: usize = 1024;
/// How long a mirror may take to be reached, or to take a batch.
const PATIENCE: Duration = Duration::from_secs(5);

/// Where copies go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Mirror {
    /// The server's standard output.
    Stdout,
    /// A Unix socket.
    Unix(PathBuf),
    /// A TCP address, `host:port`; in clear.
    Tcp(String),
}

impl Mirror {
    fn connect(&self) -> io::Result<Box<dyn Write>> {
        match self {
            Self::Stdout => Ok(Box::new(io::stdout())),
            Self::Unix(path) => {
                let stream = UnixStream::connect(path)?;
                stream.set_write_timeout(Some(PATIENCE))?;
                Ok(Box::new(stream))
            }
            Self::Tcp(address) => {
                let address = address.to_socket_addrs()?.next();
                let address = address.ok_or_else(|| io::Error::other("it has no address"))?;
                let stream = TcpStream::connect_timeout(&address, PATIENCE)?;
                stream.set_write_timeout(Some(PATIENCE))?;
                Ok(Box::new(stream))
            }
        }
    }

    /// Takes batches until the log ends; one that fails is tried once more on a new connection.
    fn run(&self, batches: &Receiver<Arc<[u8]>>, lost: &AtomicU64) {
        let mut open: Option<Box<dyn Write>> = None;
        for batch in batches {
            let mut taken = Err(io::Error::other("not tried"));
            for _ in 0..2 {
                taken = match open.take().map_or_else(|| self.connect(), Ok) {
                    Err(error) => Err(error),
                    Ok(mut stream) => {
                        stream.write_all(&batch).and_then(|()| stream.flush()).map(|()| {
                            open = Some(stream);
                        })
                    }
                };
                if taken.is_ok() {
                    break;
                }
            }
            if let Err(error) = taken
                && lost.fetch_add(1, Ordering::Relaxed) == 0
            {
                tracing::warn!(mirror = ?self, %error, "an audit mirror takes nothing, batches are lost to it");
            }
        }
    }
}

/// A backend whose batches are copied.
pub struct Mirrored<B> {
    inner: B,
    queues: Vec<SyncSender<Arc<[u8]>>>,
    lost: Arc<AtomicU64>,
}

impl<B: AuditBackend> Mirrored<B> {
    /// Starts a thread for each mirror.
    pub fn new(inner: B, mirrors: Vec<Mirror>) -> io::Result<Self> {
        let lost = Arc::new(AtomicU64::new(0));
        let mut queues = Vec::new();
        for mirror in mirrors {
            let (queue, batches) = sync_channel(WAITING);
            let lost = Arc::clone(&lost);
            let thread = std::thread::Builder::new().name("audit-mirror".to_owned());
            thread.spawn(move || mirror.run(&batches, &lost))?;
            queues.push(queue);
        }
        Ok(Self { inner, queues, lost })
    }
}

impl<B: AuditBackend> AuditBackend for Mirrored<B> {
    fn open(&mut self, tail: u64, each: &mut dyn FnMut(&[u8])) -> Result<Found, Blocked> {
        self.inner.open(tail, each)
    }

    fn append(&mut self, lines: &[u8]) -> Result<(), Blocked> {
        self.inner.append(lines)?;
        if !self.queues.is_empty() {
            let batch: Arc<[u8]> = lines.into();
            for queue in &self.queues {
                if queue.try_send(Arc::clone(&batch)).is_err() {
                    self.lost.fetch_add(1, Ordering::Relaxed);
                }
            }
        }
        Ok(())
    }

    fn inspect(&mut self) -> Result<(), Blocked> {
        self.inner.inspect()
    }

    fn close(&mut self) {
        self.inner.close();
    }

    fn find(&mut self, seq: u64) -> Result<Option<Vec<u8>>, Blocked> {
        self.inner.find(seq)
    }

    fn retire(&mut self, first: u64, last: u64, now: Timestamp) -> Result<(), Blocked> {
        self.inner.retire(first, last, now)
    }

    fn put_away(&mut self, count: u64) -> Result<String, Blocked> {
        self.inner.put_away(count)
    }

    fn kept_from(&self) -> Option<u64> {
        self.inner.kept_from()
    }

    fn gap(&mut self, from: u64) -> Option<(u64, u64)> {
        self.inner.gap(from)
    }

    fn removed(&mut self) -> Vec<String> {
        self.inner.removed()
    }

    fn lost(&self) -> u64 {
        self.lost.load(Ordering::Relaxed)
    }

    fn place(&self) -> String {
        self.inner.place()
    }
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead, BufReader};
    use std::os::unix::net::UnixListener;

    use super::*;
    use crate::MemoryBackend;

    #[test]
    fn a_mirror_gets_every_batch_and_one_that_hangs_or_is_not_there_holds_nothing_up() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        let listener = UnixListener::bind(path("taken")).unwrap();
        // Connections to it are taken by the kernel and read by nobody.
        let _hung = UnixListener::bind(path("hung")).unwrap();
        let mirrors = ["taken", "hung", "absent"].map(|name| Mirror::Unix(path(name))).to_vec();
        let log = MemoryBackend::default();
        let mut mirrored = Mirrored::new(log.clone(), mirrors).unwrap();
        let line = "x".repeat(1000) + "\n";
        for _ in 0..2000 {
            mirrored.append(line.as_bytes()).unwrap();
        }
        assert_eq!(log.text().lines().count(), 2000);
        let (stream, _) = listener.accept().unwrap();
        let first = BufReader::new(stream).lines().next().unwrap().unwrap();
        assert_eq!(first, line.trim_end());
        assert!(mirrored.lost() > 0, "what a mirror could not take is counted");
    }
}
