//! Bytes over TLS as they are, for what no polite client would send.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use socket2::{Domain, SockAddr, Socket, Type};

use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};

/// Longer than the server waits for a slow client.
const PATIENCE: Duration = Duration::from_mins(1);

/// One TLS connection.
pub(crate) struct Raw(StreamOwned<ClientConnection, TcpStream>);

/// What came back.
#[derive(Debug)]
pub(crate) struct RawAnswer {
    pub(crate) status: u16,
    pub(crate) body: Vec<u8>,
}

impl Raw {
    pub(crate) fn connect(port: u16, certificate: &[u8]) -> Self {
        Self::from("127.0.0.1", port, certificate)
    }

    /// A connection from an address of this machine.
    pub(crate) fn socket(port: u16, from: &str) -> TcpStream {
        let address = |host: &str, port: u16| {
            SockAddr::from(SocketAddr::new(host.parse().expect("an address"), port))
        };
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
        socket.bind(&address(from, 0)).expect("an address of this machine");
        socket.connect(&address("127.0.0.1", port)).expect("the server listens");
        socket.into()
    }

    /// The same as [`Self::connect`], from an address of this machine.
    pub(crate) fn from(from: &str, port: u16, certificate: &[u8]) -> Self {
        let mut roots = RootCertStore::empty();
        let certificate = CertificateDer::from_pem_slice(certificate).expect("a certificate");
        roots.add(certificate).expect("a root");
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("protocol versions")
            .with_root_certificates(roots)
            .with_no_client_auth();
        let name = ServerName::try_from("localhost").expect("a name");
        let connection = ClientConnection::new(Arc::new(config), name).expect("a connection");
        let socket = Self::socket(port, from);
        socket.set_read_timeout(Some(PATIENCE)).expect("a time limit");
        socket.set_write_timeout(Some(PATIENCE)).expect("a time limit");
        Self(StreamOwned::new(connection, socket))
    }

    /// Sends bytes; what the other end does not take any more is lost.
    pub(crate) fn send(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        self.0.write_all(bytes)?;
        self.0.flush()
    }

    /// Sends one whole request and reads until the server closes.
    pub(crate) fn ask(
        mut self,
        method: &[u8],
        path: &[u8],
        headers: &str,
        body: &[u8],
    ) -> RawAnswer {
        let mut head = Vec::new();
        head.extend_from_slice(method);
        head.push(b' ');
        head.extend_from_slice(path);
        head.extend_from_slice(b" HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n");
        head.extend_from_slice(headers.as_bytes());
        head.extend_from_slice(format!("Content-Length: {}\r\n\r\n", body.len()).as_bytes());
        head.extend_from_slice(body);
        let _ = self.send(&head);
        self.answer()
    }

    /// Waits for the first bytes that come.
    pub(crate) fn begun(&mut self) -> usize {
        self.0.read(&mut [0; 64]).expect("an answer")
    }

    /// Reads until the server closes; the end may come without TLS's farewell.
    pub(crate) fn read_to_end(&mut self) -> Vec<u8> {
        let mut bytes = Vec::new();
        let mut buffer = [0; 4096];
        loop {
            match self.0.read(&mut buffer) {
                Ok(0) => return bytes,
                Ok(count) => bytes.extend_from_slice(&buffer[..count]),
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    panic!("the server neither answers nor closes")
                }
                Err(_) => return bytes,
            }
        }
    }

    /// The answer, up to the end of the connection.
    pub(crate) fn answer(mut self) -> RawAnswer {
        let bytes = self.read_to_end();
        let end = bytes.windows(4).position(|window| window == b"\r\n\r\n");
        let Some(end) = end else {
            panic!("no answer but {:?}", String::from_utf8_lossy(&bytes));
        };
        let head = String::from_utf8_lossy(&bytes[..end]).into_owned();
        let status = head.split(' ').nth(1).and_then(|code| code.parse().ok());
        RawAnswer { status: status.expect("a status"), body: bytes[end + 4..].to_vec() }
    }
}

impl RawAnswer {
    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}
