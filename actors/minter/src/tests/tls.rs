//! TLS to a real PostgreSQL.

use mssm_domain::SecretText;
use mssm_messages::engine::Outcome;
use mssm_messages::minter::ConnectionPatch;
use mssm_testkit::TestPostgres;

use crate::testing::{CREATE, Rig, patch};

fn certificate(name: &str) -> (String, String) {
    let made = rcgen::generate_simple_self_signed(vec![name.to_owned()]).unwrap();
    (made.cert.pem(), made.signing_key.serialize_pem())
}

fn over_tls(postgres: &TestPostgres, mode: &str, ca: &str) -> ConnectionPatch {
    let (host, port) = (postgres.host(), postgres.port());
    let url = format!("postgresql://{host}:{port}/postgres{mode}");
    ConnectionPatch {
        connection_url: Some(SecretText::new(url)),
        tls_ca: Some(ca.to_owned()),
        ..patch(postgres, "postgres")
    }
}

/// Catalogue: CVE-2021-27400.
#[actix_rt::test]
async fn only_the_server_that_was_meant_is_believed() {
    let name = "127.0.0.1".to_owned();
    let (ca, key) = certificate(&name);
    let postgres = TestPostgres::private_with_tls(&ca, &key);
    let rig = Rig::real(3).open().await;
    let (other, _) = certificate(&name);
    for (mode, ca) in [("?sslmode=verify-full", ""), ("", other.as_str())] {
        let error = rig.connect(over_tls(&postgres, mode, ca)).await.unwrap_err().to_string();
        assert!(error.contains("certificate"), "{error}");
        assert!(!error.contains(&name), "no address: {error}");
    }
    for (mode, ca) in [("?sslmode=require", ""), ("", ca.as_str()), ("?sslmode=verify-full", &ca)] {
        rig.connect(over_tls(&postgres, mode, ca)).await.unwrap();
    }
    rig.role("app", &[CREATE]).await.unwrap();
    let login = rig.mint("app").await.unwrap();
    let admin = postgres.admin("postgres").await;
    let sql = "SELECT bool_and(ssl) FROM pg_stat_ssl JOIN pg_stat_activity USING (pid) \
        WHERE application_name LIKE 'mssm:%'";
    assert!(admin.query_one(sql, &[]).await.unwrap().get::<_, bool>(0));
    assert_eq!(rig.revoke(&login).await, Outcome::Gone);
}

#[actix_rt::test]
async fn a_certificate_for_another_name_is_refused() {
    let (ca, key) = certificate("db.example");
    let postgres = TestPostgres::private_with_tls(&ca, &key);
    let rig = Rig::real(4).open().await;
    assert!(rig.connect(over_tls(&postgres, "", &ca)).await.is_err());
}
