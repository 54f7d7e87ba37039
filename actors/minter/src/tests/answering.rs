//! What a PostgreSQL server gets that asks for the password.

use std::io::{Read, Write};
use std::sync::Arc;

use mssm_domain::SecretText;
use mssm_messages::minter::ConnectionPatch;
use rustls::pki_types::PrivateKeyDer;
use rustls::{ServerConfig, ServerConnection, StreamOwned};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, UnixListener};

use crate::testing::{Rig, fake_patch};

const CLEAR: &[u8] = b"R\0\0\0\x08\0\0\0\x03";
const MD5: &[u8] = b"R\0\0\0\x0c\0\0\0\x05salt";
const GSS: &[u8] = b"R\0\0\0\x08\0\0\0\x07";
const SCRAM: &[u8] = b"R\0\0\0\x17\0\0\0\x0aSCRAM-SHA-256\0\0";

/// Asks in some form for the password of whoever comes, letter by letter; replies what it gets.
async fn ask<S: AsyncReadExt + AsyncWriteExt + Unpin>(mut client: S, asks: &[u8]) -> Vec<u8> {
    let mut startup = vec![0; client.read_u32().await.unwrap() as usize - 4];
    client.read_exact(&mut startup).await.unwrap();
    for byte in asks {
        // Whoever has understood may be gone before the last of it.
        let _ = client.write_all(&[*byte]).await;
    }
    let mut answer = vec![0; 512];
    let length = client.read(&mut answer).await.unwrap_or(0);
    answer.truncate(length);
    answer
}

fn leading_to(place: &str, how: &str) -> ConnectionPatch {
    ConnectionPatch {
        connection_url: Some(SecretText::new(format!("postgresql://{place}/app?sslmode=disable"))),
        password_authentication: Some(how.to_owned()),
        ..fake_patch()
    }
}

/// What an impostor is answered, and what the operator is told.
async fn impostor(asks: &[u8], how: &str) -> (Vec<u8>, String) {
    let rig = Rig::real(71).open().await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let place = listener.local_addr().unwrap().to_string();
    let asking = async { ask(listener.accept().await.unwrap().0, asks).await };
    let (answer, told) = tokio::join!(asking, rig.connect(leading_to(&place, how)));
    (answer, told.unwrap_err().to_string())
}

#[actix_rt::test]
async fn a_server_that_asks_for_clear_text_or_md5_gets_nothing_and_the_operator_a_word() {
    for asks in [CLEAR, MD5, GSS] {
        let (answer, told) = impostor(asks, "scram-sha-256").await;
        assert_eq!(answer, b"", "{asks:?}");
        assert!(told.contains("SCRAM alone is answered"), "{told}");
    }
}

#[actix_rt::test]
async fn a_server_that_asks_for_scram_gets_no_password() {
    let (answer, _) = impostor(SCRAM, "scram-sha-256").await;
    let answer = String::from_utf8_lossy(&answer).into_owned();
    assert!(answer.starts_with('p') && answer.contains("SCRAM-SHA-256"), "{answer}");
    assert!(!answer.contains("adminsecret"));
}

#[actix_rt::test]
async fn on_this_machine_clear_text_is_answered_where_the_definition_says_so() {
    let (answer, _) = impostor(CLEAR, "password").await;
    assert_eq!(answer, b"p\0\0\0\x10adminsecret\0");
}

#[actix_rt::test]
async fn a_socket_that_asks_for_clear_text_gets_nothing() {
    let rig = Rig::real(72).open().await;
    let folder = tempfile::tempdir().unwrap();
    let listener = UnixListener::bind(folder.path().join(".s.PGSQL.5432")).unwrap();
    let place = folder.path().to_str().unwrap().replace('/', "%2F");
    let asking = async { ask(listener.accept().await.unwrap().0, CLEAR).await };
    let (answer, told) = tokio::join!(asking, rig.connect(leading_to(&place, "scram-sha-256")));
    assert_eq!(answer, b"");
    assert!(told.unwrap_err().to_string().contains("SCRAM alone is answered"));
}

/// The same over TLS that nobody verifies; replies what it gets.
fn ask_over_tls(listener: &std::net::TcpListener, asks: &[u8]) -> Vec<u8> {
    let made = rcgen::generate_simple_self_signed(vec!["127.0.0.1".to_owned()]).unwrap();
    let key = PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let tls = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let tls = tls.unwrap().with_no_client_auth();
    let tls = tls.with_single_cert(vec![made.cert.der().clone()], key).unwrap();
    let (mut plain, _) = listener.accept().unwrap();
    plain.read_exact(&mut [0; 8]).unwrap();
    plain.write_all(b"S").unwrap();
    let mut client = StreamOwned::new(ServerConnection::new(Arc::new(tls)).unwrap(), plain);
    let mut length = [0; 4];
    client.read_exact(&mut length).unwrap();
    let mut startup = vec![0; u32::from_be_bytes(length) as usize - 4];
    client.read_exact(&mut startup).unwrap();
    client.write_all(asks).unwrap();
    let mut answer = vec![0; 512];
    let length = client.read(&mut answer).unwrap_or(0);
    answer.truncate(length);
    answer
}

#[actix_rt::test]
async fn over_tls_nothing_else_is_answered_and_scram_is_bound_to_the_certificate() {
    const BOUND: &[u8] = b"R\0\0\0\x2a\0\0\0\x0aSCRAM-SHA-256-PLUS\0SCRAM-SHA-256\0\0";
    let rig = Rig::real(73).open().await;
    for asks in [CLEAR, MD5, BOUND] {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let place = listener.local_addr().unwrap();
        let asking = std::thread::spawn(move || ask_over_tls(&listener, asks));
        let url = format!("postgresql://{place}/app?sslmode=require");
        let patch = ConnectionPatch { connection_url: Some(SecretText::new(url)), ..fake_patch() };
        let told = rig.connect(patch).await.unwrap_err().to_string();
        let answer = String::from_utf8_lossy(&asking.join().unwrap()).into_owned();
        if asks == BOUND {
            let bound =
                answer.contains("SCRAM-SHA-256-PLUS") && answer.contains("p=tls-server-end-point");
            assert!(bound && !answer.contains("adminsecret"), "{answer}");
        } else {
            assert_eq!(answer, "", "{asks:?}");
            assert!(told.contains("SCRAM alone is answered"), "{told}");
        }
    }
}
