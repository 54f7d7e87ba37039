//! Whoever begins to log in before the end of a login and goes on after it.

use std::time::Duration;

use mssm_messages::engine::Outcome;
use mssm_testkit::{MariaDbSession, TestMariaDb};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::{CREATE, rig};
use crate::mysql::quote::literal;

/// A connection whose user is known to the server and whose password is not yet.
struct Held {
    stream: TcpStream,
    scramble: Vec<u8>,
}

async fn read(stream: &mut TcpStream) -> std::io::Result<(u8, Vec<u8>)> {
    let mut head = [0; 4];
    stream.read_exact(&mut head).await?;
    let [a, b, c, number] = head;
    let mut body = vec![0; usize::from(a) | usize::from(b) << 8 | usize::from(c) << 16];
    stream.read_exact(&mut body).await?;
    Ok((number, body))
}

async fn write(stream: &mut TcpStream, number: u8, body: &[u8]) -> std::io::Result<()> {
    let mut packet = vec![u8::try_from(body.len()).unwrap(), 0, 0, number];
    packet.extend(body);
    stream.write_all(&packet).await
}

impl Held {
    /// Names a way to log in that the account has not, so that the server asks for another: by then it
    /// has a copy of the account.
    async fn begin(server: &TestMariaDb, user: &str) -> Self {
        let mut stream = TcpStream::connect((server.host(), server.port())).await.unwrap();
        read(&mut stream).await.unwrap();
        // LONG_PASSWORD, PROTOCOL_41, SECURE_CONNECTION, PLUGIN_AUTH
        let mut hello = 0x0008_8201_u32.to_le_bytes().to_vec();
        hello.extend((1_u32 << 24).to_le_bytes());
        hello.push(45);
        hello.extend([0; 23]);
        hello.extend(user.as_bytes());
        hello.extend([0, 0]);
        hello.extend(b"dialog\0");
        write(&mut stream, 1, &hello).await.unwrap();
        let (_, asked) = read(&mut stream).await.unwrap();
        let at = asked.iter().position(|byte| *byte == 0).unwrap() + 1;
        assert_eq!(asked[0], 0xfe, "{asked:?}");
        Self { stream, scramble: asked[at..at + 20].to_vec() }
    }

    /// Says the password; true if the server lets it in.
    async fn finish(&mut self, admin: &mut MariaDbSession, password: &str) -> bool {
        let password = literal(password);
        let scramble = self.scramble.iter().map(|byte| format!("{byte:02x}"));
        let scramble = scramble.collect::<Vec<_>>().concat();
        let sql = format!(
            "SELECT SHA1({password}), SHA1(UNHEX(CONCAT('{scramble}', SHA1(UNHEX(SHA1({password}))))))"
        );
        let hashes = admin.run(&sql).await.remove(0);
        let bytes = |text: &str| u128::from_str_radix(text, 16).unwrap().to_be_bytes();
        let halves =
            |text: &str| [bytes(&text[..20]), bytes(&text[20..])].map(|half| half[6..].to_vec());
        let (one, two) = (halves(&hashes[0]).concat(), halves(&hashes[1]).concat());
        let answer: Vec<u8> = one.iter().zip(two).map(|(one, two)| one ^ two).collect();
        let said = async {
            write(&mut self.stream, 3, &answer).await?;
            read(&mut self.stream).await
        };
        said.await.is_ok_and(|(_, said)| said[0] == 0)
    }

    async fn works(&mut self) -> bool {
        let asked = async {
            write(&mut self.stream, 0, b"\x03DO 0").await?;
            read(&mut self.stream).await
        };
        asked.await.is_ok_and(|(_, said)| said[0] == 0)
    }
}

#[actix_rt::test]
async fn a_login_that_is_half_made_when_its_end_comes_does_not_come_in() {
    let server = TestMariaDb::shared();
    let (rig, _) = rig(server).await;
    rig.role("app", &[CREATE]).await.unwrap();
    let login = rig.mint("app").await.unwrap();
    let mut admin = server.admin().await;
    let mut plain = Held::begin(server, &login.username).await;
    assert!(plain.finish(&mut admin, &login.password).await && plain.works().await);
    let mut held = Held::begin(server, &login.username).await;
    assert_eq!(rig.revoke(&login).await, Outcome::Gone);
    assert!(!held.finish(&mut admin, &login.password).await);
    assert!(!plain.works().await);
}

#[actix_rt::test]
async fn a_session_that_outlives_its_account_is_ended_and_others_are_not() {
    let server = TestMariaDb::shared();
    let (rig, name) = rig(server).await;
    rig.role("app", &[CREATE]).await.unwrap();
    let [login, living] = [rig.mint("app").await.unwrap(), rig.mint("app").await.unwrap()];
    // As another program's logins are called.
    let other = format!("v-toke-app-{:0>20}", &name[name.len() - 8..]);
    let mut admin = server.admin().await;
    admin.run(&format!("CREATE USER '{other}'@'%' IDENTIFIED BY 'secret'")).await;
    let mut session = server.connect(&login.username, &login.password).await.unwrap();
    let mut stays = server.connect(&living.username, &living.password).await.unwrap();
    let mut foreign = server.connect(&other, "secret").await.unwrap();
    admin.run(&format!("DROP USER '{}'@'%', '{other}'@'%'", login.username)).await;
    let ended = async { while session.try_run("SELECT SLEEP(0.01)").await.is_ok() {} };
    tokio::time::timeout(Duration::from_secs(30), ended).await.unwrap();
    for session in [&mut stays, &mut foreign] {
        session.run("SELECT 1").await;
    }
    assert_eq!(rig.revoke(&living).await, Outcome::Gone);
}
