//! MySQL 8 as the driver meets it: a server on the wire that lets in by `caching_sha2_password` over TLS.
//!
//! What it says to statements is what a server that says it is MySQL 8 says in `eight.rs`.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;

use futures_util::FutureExt;
use mssm_domain::SecretText;
use mssm_messages::engine::Outcome;
use mssm_messages::minter::ConnectionPatch;
use rustls::pki_types::PrivateKeyDer;
use rustls::{ServerConfig, ServerConnection, StreamOwned};

use super::CREATE;
use super::eight::Server;
use crate::engine::{DbError, Row, Session};
use crate::testing::Rig;

const PASSWORD: &str = "right";
/// A long password, the protocol and passwords of today, TLS, transactions, plugins.
const CAPABILITIES: u32 = 0x1 | 0x8 | 0x200 | 0x800 | 0x2000 | 0x8000 | 0x8_0000;

/// One session, and the number of its next packet.
struct Wire<S> {
    stream: S,
    number: u8,
}

impl<S: Read + Write> Wire<S> {
    /// The next packet; `None` once the other end is gone.
    fn read(&mut self) -> Option<Vec<u8>> {
        let mut head = [0; 4];
        self.stream.read_exact(&mut head).ok()?;
        self.number = head[3].wrapping_add(1);
        let mut packet = vec![0; u32::from_le_bytes([head[0], head[1], head[2], 0]) as usize];
        self.stream.read_exact(&mut packet).ok()?;
        Some(packet)
    }

    fn write(&mut self, packet: &[u8]) -> Option<()> {
        let mut bytes = u32::try_from(packet.len()).unwrap().to_le_bytes();
        bytes[3] = self.number;
        self.number = self.number.wrapping_add(1);
        self.stream.write_all(&bytes).ok()?;
        self.stream.write_all(packet).ok()?;
        self.stream.flush().ok()
    }

    fn ok(&mut self) -> Option<()> {
        self.write(&[0, 0, 0, 2, 0, 0, 0])
    }

    fn refuse(&mut self, code: u16, message: &str) -> Option<()> {
        let code = code.to_le_bytes();
        self.write(&[&[0xff], &code[..], b"#HY000", message.as_bytes()].concat())
    }

    fn rows(&mut self, rows: &[Row]) -> Option<()> {
        const END: [u8; 5] = [0xfe, 0, 0, 2, 0];
        let Some(first) = rows.first() else { return self.ok() };
        self.write(&[u8::try_from(first.len()).unwrap()])?;
        for _ in first {
            // A text of a column that has no name.
            let names = [&[3], &b"def"[..], &[0; 5]].concat();
            self.write(&[&names[..], &[12, 45, 0, 0, 1, 0, 0, 0xfd, 0, 0, 0, 0, 0]].concat())?;
        }
        self.write(&END)?;
        for row in rows {
            let mut packet = Vec::new();
            for field in row {
                match field {
                    Some(text) => packet.extend(text_of(text)),
                    None => packet.push(0xfb),
                }
            }
            self.write(&packet)?;
        }
        self.write(&END)
    }
}

fn text_of(text: &str) -> Vec<u8> {
    let length = u16::try_from(text.len()).unwrap();
    let length = if length < 251 {
        vec![length.to_le_bytes()[0]]
    } else {
        [&[0xfc], &length.to_le_bytes()[..]].concat()
    };
    [length, text.as_bytes().to_vec()].concat()
}

/// Lets a client in who knows the password, and answers until it is gone.
fn serve(server: &Server, stream: TcpStream, tls: Arc<ServerConfig>) -> Option<()> {
    let mut plain = Wire { stream, number: 0 };
    let low = (CAPABILITIES & 0xffff).to_le_bytes();
    let high = (CAPABILITIES >> 16).to_le_bytes();
    let greeting = [
        &[10],
        server.version().as_bytes(),
        &[0, 42, 0, 0, 0],
        b"12345678",
        &[0, low[0], low[1], 45, 2, 0, high[0], high[1], 21],
        &[0; 10],
        b"abcdefghijkl\0caching_sha2_password\0",
    ];
    plain.write(&greeting.concat())?;
    // It wants TLS, and says who it is when it has it.
    plain.read()?;
    let number = plain.number;
    let stream = StreamOwned::new(ServerConnection::new(tls).ok()?, plain.stream);
    let mut wire = Wire { stream, number };
    wire.read()?;
    // The hash of the password is not known yet: the password itself is wanted.
    wire.write(&[1, 4])?;
    let password = wire.read()?;
    if password != [PASSWORD.as_bytes(), &[0]].concat() {
        return wire
            .refuse(1045, "Access denied for user 'admin'@'localhost' (using password: YES)");
    }
    wire.ok()?;
    loop {
        let command = wire.read()?;
        match command.split_first()? {
            (3, sql) => {
                let sql = String::from_utf8(sql.to_vec()).ok()?;
                match server.run(&sql).now_or_never()? {
                    Ok(rows) => wire.rows(&rows)?,
                    Err(DbError::Refused(refusal)) => {
                        wire.refuse(refusal.code.parse().ok()?, &refusal.message)?;
                    }
                    Err(_) => return None,
                }
            }
            (1, _) => return None,
            _ => wire.ok()?,
        }
    }
}

/// Starts it; replies its port and the authority of its certificate.
fn start(server: &Server) -> (u16, String) {
    let made = rcgen::generate_simple_self_signed(vec!["127.0.0.1".to_owned()]).unwrap();
    let key = PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let tls = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let tls = tls.unwrap().with_no_client_auth();
    let tls = Arc::new(tls.with_single_cert(vec![made.cert.der().clone()], key).unwrap());
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let server = server.clone();
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let (server, tls) = (server.clone(), Arc::clone(&tls));
            std::thread::spawn(move || serve(&server, stream, tls));
        }
    });
    (port, made.cert.pem())
}

#[actix_rt::test]
async fn mysql_8_lets_us_in_by_caching_sha2_password_over_tls() {
    let server = Server::new("8.4.3");
    let (port, ca) = start(&server);
    let rig = Rig::real(8).open().await;
    let patch = |password: &str| ConnectionPatch {
        plugin_name: Some("mysql-database-plugin".to_owned()),
        connection_url: Some(SecretText::new(format!("tcp(127.0.0.1:{port})/?tls=true"))),
        tls_ca: Some(ca.clone()),
        username: Some("admin".to_owned()),
        password: Some(SecretText::new(password.to_owned())),
        allowed_roles: Some(vec!["*".to_owned()]),
        ..ConnectionPatch::default()
    };
    let error = rig.connect(patch("wrong")).await.unwrap_err().to_string();
    assert!(error.contains("Access denied") && !error.contains("wrong"), "{error}");
    rig.connect(patch(PASSWORD)).await.unwrap();
    rig.role("app", &[CREATE]).await.unwrap();
    server.asked();
    let login = rig.mint("app").await.unwrap();
    let (name, password) = (&login.username, &login.password);
    let asked = server.asked();
    let made = format!("CREATE USER '{name}'@'%' IDENTIFIED BY '{password}'");
    assert!(asked.contains(&made), "{asked:?}");
    let marker = "ATTRIBUTE '{\"mssm\": \"mssm";
    assert!(asked.iter().any(|sql| sql.contains(marker)), "{asked:?}");
    server.answer("FROM mysql.user", Ok(vec![vec![Some(name.clone()), Some("%".to_owned())]]));
    assert_eq!(rig.revoke(&login).await, Outcome::Gone);
    assert!(server.asked().contains(&format!("DROP USER IF EXISTS '{name}'@'%'")));
}
