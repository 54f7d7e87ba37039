//! A stream to a collector: a Unix socket or TCP, in clear, reached anew when it was lost.

use std::io::{self, Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::Duration;

use super::{Carrier, LIMIT};

/// Where a stream leads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Address {
    /// A Unix socket.
    Unix(PathBuf),
    /// `host:port`.
    Tcp(String),
}

/// A stream that is opened when it is needed.
pub(crate) struct Socket {
    address: Address,
    /// How long the collector may take.
    limit: Duration,
    open: Option<Stream>,
}

enum Stream {
    Unix(UnixStream),
    Tcp(TcpStream),
}

impl Socket {
    pub(crate) fn new(address: Address, limit: Option<Duration>) -> Self {
        Self { address, limit: limit.unwrap_or(LIMIT), open: None }
    }

    fn connect(&self) -> io::Result<Stream> {
        match &self.address {
            Address::Unix(path) => {
                let stream = UnixStream::connect(path)?;
                stream.set_write_timeout(Some(self.limit))?;
                Ok(Stream::Unix(stream))
            }
            Address::Tcp(address) => {
                let address = address.to_socket_addrs()?.next();
                let address = address.ok_or_else(|| io::Error::other("it has no address"))?;
                let stream = TcpStream::connect_timeout(&address, self.limit)?;
                stream.set_write_timeout(Some(self.limit))?;
                stream.set_nodelay(true)?;
                Ok(Stream::Tcp(stream))
            }
        }
    }
}

impl Stream {
    fn write(&mut self, lines: &[u8]) -> io::Result<()> {
        match self {
            Self::Unix(stream) => stream.write_all(lines),
            Self::Tcp(stream) => stream.write_all(lines),
        }
    }

    /// False once the other side has closed: what is written then goes nowhere, without an error.
    fn is_open(&mut self) -> bool {
        let mut said = [0; 256];
        let read = self.set_nonblocking(true).and_then(|()| match self {
            Self::Unix(stream) => stream.read(&mut said),
            Self::Tcp(stream) => stream.read(&mut said),
        });
        let open = match read {
            // What a collector says is nothing to us.
            Ok(read) => read > 0,
            Err(error) => error.kind() == io::ErrorKind::WouldBlock,
        };
        open && self.set_nonblocking(false).is_ok()
    }

    fn set_nonblocking(&self, on: bool) -> io::Result<()> {
        match self {
            Self::Unix(stream) => stream.set_nonblocking(on),
            Self::Tcp(stream) => stream.set_nonblocking(on),
        }
    }
}

impl Carrier for Socket {
    /// A batch that fails half way is sent whole once more, over a new connection.
    fn carry(&mut self, lines: &[u8]) -> io::Result<()> {
        if let Some(mut stream) = self.open.take()
            && stream.is_open()
            && stream.write(lines).is_ok()
        {
            self.open = Some(stream);
            return Ok(());
        }
        let mut stream = self.connect()?;
        stream.write(lines)?;
        self.open = Some(stream);
        Ok(())
    }

    fn place(&self) -> String {
        match &self.address {
            Address::Unix(path) => format!("unix:{}", path.display()),
            Address::Tcp(address) => format!("tcp:{address}"),
        }
    }
}
