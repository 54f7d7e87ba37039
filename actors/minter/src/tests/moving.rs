//! A stored password goes nowhere but where it was meant for.

use mssm_domain::{ConnectionName, SecretText};
use mssm_messages::engine::EngineError;
use mssm_messages::minter::{ConnectionPatch, ReadConnection};

use crate::testing::{FakeDatabase, Rig, fake_patch, no};

fn text(text: &str) -> SecretText {
    SecretText::new(text.to_owned())
}

fn at(place: &str) -> ConnectionPatch {
    ConnectionPatch {
        connection_url: Some(text(&format!("postgresql://{place}"))),
        ..ConnectionPatch::default()
    }
}

async fn rig(database: &FakeDatabase, place: &str) -> Rig {
    let rig = Rig::fake(database).open().await;
    rig.connect(ConnectionPatch { connection_url: at(place).connection_url, ..fake_patch() })
        .await
        .unwrap();
    rig
}

async fn url(rig: &Rig) -> String {
    let name = ConnectionName::parse("main").unwrap();
    let read = ReadConnection { mount: rig.mount, name };
    rig.minter.send(read).await.unwrap().unwrap().connection_url
}

#[actix_rt::test]
async fn what_sends_the_password_elsewhere_must_bring_it() {
    let ca = rcgen::generate_simple_self_signed(vec!["db.x".to_owned()]).unwrap().cert.pem();
    let database = FakeDatabase::new();
    let rig = rig(&database, "db.x/app").await;
    // Whoever comes next is refused by the database.
    database.next_login(Some(no("28P01", "who dialled first")));
    for patch in [
        at("evil.x/app"),
        at("db.x:5433/app"),
        at("db.x,evil.x/app"),
        at("%2Ftmp/app"),
        at("db.x/app?host=evil.x"),
        at("db.x/app?sslmode=require"),
        at("db.x/app?sslmode=disable"),
        ConnectionPatch { tls_ca: Some(ca), ..ConnectionPatch::default() },
    ] {
        for verify in [None, Some(false)] {
            let patch = ConnectionPatch {
                connection_url: patch.connection_url.as_ref().map(SecretText::duplicate),
                tls_ca: patch.tls_ca.clone(),
                verify_connection: verify,
                ..ConnectionPatch::default()
            };
            let refused = rig.connect(patch).await.unwrap_err();
            let EngineError::Invalid(why) = refused else { panic!("{refused}") };
            assert!(why.contains("write password with it"), "{why}");
            assert!(why.contains("since it was rotated"), "{why}");
        }
    }
    assert_eq!(url(&rig).await, "postgresql://db.x/app", "nothing is changed");
    let brings = || ConnectionPatch { password: Some(text("another")), ..at("evil.x/app") };
    let first = rig.connect(brings()).await.unwrap_err().to_string();
    assert!(first.contains("who dialled first"), "nothing was sent before: {first}");
    rig.connect(brings()).await.unwrap();
    assert_eq!(url(&rig).await, "postgresql://evil.x/app");
}

#[actix_rt::test]
async fn what_leaves_the_way_as_it_is_needs_no_password() {
    let rig = rig(&FakeDatabase::new(), "a.x,b.x/app?sslmode=require").await;
    for patch in [
        ConnectionPatch { max_open_connections: Some(3), ..ConnectionPatch::default() },
        at("{{username}}:{{password}}@a.x,b.x/other?sslmode=require"),
        at("b.x:5432/other?sslmode=require"),
        at("b.x/other?sslmode=verify-full"),
        at("b.x/other"),
    ] {
        rig.connect(patch).await.unwrap();
    }
}

#[actix_rt::test]
async fn a_password_that_an_address_spells_brings_no_other_there() {
    let database = FakeDatabase::new();
    let rig = rig(&database, "db.x/app").await;
    rig.connect(at("admin:mine@evil.x/app")).await.unwrap();
    // The same place, and the field again: that one is gone.
    rig.connect(at("{{username}}:{{password}}@evil.x/app")).await.unwrap();
    let none = rig.rotate_root().await.unwrap_err().to_string();
    assert!(none.contains("no password"), "{none}");
    // One that is spelled is stored as well.
    rig.connect(at("admin:mine@db.x/app")).await.unwrap();
    let weaker = ConnectionPatch {
        password: Some(text("field")),
        tls_ca: Some("x".to_owned()),
        ..ConnectionPatch::default()
    };
    let refused = rig.connect(weaker).await.unwrap_err().to_string();
    assert!(refused.contains("write password with it"), "{refused}");
}
