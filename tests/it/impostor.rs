//! An impostor of the database gets no password, whoever leads the server to it.

use std::io::{ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::thread;

use serde_json::{Value, json};

use crate::harness::{Database, Options, Server};

fn address(listener: &TcpListener) -> Value {
    let place = listener.local_addr().unwrap();
    let url = format!("postgresql://{{{{username}}}}:{{{{password}}}}@{place}/x?sslmode=disable");
    json!(url)
}

/// Asks for the password in clear text; replies what came.
fn ask(mut client: TcpStream) -> Vec<u8> {
    let mut length = [0; 4];
    client.read_exact(&mut length).unwrap();
    let mut startup = vec![0; u32::from_be_bytes(length) as usize - 4];
    client.read_exact(&mut startup).unwrap();
    client.write_all(b"R\0\0\0\x08\0\0\0\x03").unwrap();
    let mut answer = Vec::new();
    let _ = client.read_to_end(&mut answer);
    answer
}

#[test]
fn who_may_only_change_a_connection_gets_its_password_nowhere() {
    let database = Database::shared();
    let server = Server::ready(Options::default());
    database.configure(&server.root(), "db", "1h", "2h");
    let writer = server.limited("cfg", "path \"db/config/main\" { capabilities = [\"update\"] }");
    let impostor = TcpListener::bind("127.0.0.1:0").unwrap();

    for more in [json!({}), json!({"verify_connection": false})] {
        let mut body = more;
        body["connection_url"] = address(&impostor);
        writer.post("db/config/main", body).refused(400, "write password with it");
    }
    server.root().get("db/creds/app").expect(200);
    impostor.set_nonblocking(true).unwrap();
    assert_eq!(impostor.accept().unwrap_err().kind(), ErrorKind::WouldBlock, "nobody came");

    // With a password of one's own it is led there, and even that one is not told.
    impostor.set_nonblocking(false).unwrap();
    let url = address(&impostor);
    let asking = thread::spawn(move || ask(impostor.accept().unwrap().0));
    let body = json!({"connection_url": url, "password": "my-own"});
    writer.post("db/config/main", body).refused(400, "SCRAM alone is answered");
    assert_eq!(asking.join().unwrap(), b"");

    // What leaves the address as it is works as before.
    writer.post("db/config/main", json!({"connection_url": database.url()})).expect(204);
    server.root().get("db/creds/app").expect(200);
}
