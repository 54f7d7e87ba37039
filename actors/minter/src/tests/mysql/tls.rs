//! TLS to a real MariaDB: authority, name and the client's own certificate.

use mssm_domain::{SecretBytes, SecretText};
use mssm_messages::engine::Outcome;
use mssm_messages::minter::ConnectionPatch;
use mssm_testkit::TestMariaDb;

use super::{CREATE, patch};
use crate::testing::Rig;

fn certificate(name: &str) -> (String, String) {
    let made = rcgen::generate_simple_self_signed(vec![name.to_owned()]).unwrap();
    (made.cert.pem(), made.signing_key.serialize_pem())
}

fn over_tls(server: &TestMariaDb, mode: &str, ca: &str) -> ConnectionPatch {
    let (host, port) = (server.host(), server.port());
    ConnectionPatch {
        connection_url: Some(SecretText::new(format!("tcp({host}:{port})/{mode}"))),
        tls_ca: Some(ca.to_owned()),
        ..patch(server)
    }
}

/// Catalogue: CVE-2021-27400.
#[actix_rt::test]
async fn only_the_server_that_was_meant_is_believed() {
    let name = "127.0.0.1".to_owned();
    let (ca, key) = certificate(&name);
    let (client, client_key) = certificate("mssm");
    let server = TestMariaDb::private_with_tls(&ca, &key, &client);
    let rig = Rig::real(3).open().await;
    let (other, _) = certificate(&name);
    for (mode, ca) in [("?tls=true", ""), ("", other.as_str())] {
        let error = rig.connect(over_tls(&server, mode, ca)).await.unwrap_err().to_string();
        assert!(error.contains("certificate"), "{error}");
        assert!(!error.contains(&name), "no address: {error}");
    }
    for (mode, ca) in [("?tls=skip-verify", ""), ("", ca.as_str()), ("?tls=true", &ca)] {
        rig.connect(over_tls(&server, mode, ca)).await.unwrap();
    }
    let mut admin = server.admin().await;
    admin.run("ALTER USER mssm_admin REQUIRE X509").await;
    assert!(rig.connect(over_tls(&server, "", &ca)).await.is_err(), "without a certificate");
    let with_certificate = ConnectionPatch {
        tls_certificate: Some(client),
        tls_key: Some(SecretBytes::new(client_key.into_bytes())),
        ..over_tls(&server, "", &ca)
    };
    rig.connect(with_certificate).await.unwrap();
    rig.role("app", &[CREATE]).await.unwrap();
    let login = rig.mint("app").await.unwrap();
    assert_eq!(rig.revoke(&login).await, Outcome::Gone);
}

#[actix_rt::test]
async fn a_certificate_for_another_name_is_refused() {
    let (ca, key) = certificate("db.example");
    let server = TestMariaDb::private_with_tls(&ca, &key, &ca);
    let rig = Rig::real(4).open().await;
    assert!(rig.connect(over_tls(&server, "", &ca)).await.is_err());
}
