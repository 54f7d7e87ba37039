//! The marker on every login: whose it is, so that nobody else's role is ever touched.
//!
//! `mssm1:<cluster>:<keyed hash of the lease id>:<MAC over cluster, lease and login>`, as the
//! comment of the role. Anybody can read it and many can write one; only the MAC makes it ours.

use mssm_domain::{ClusterId, LeaseId, SecretBytes};
use mssm_messages::keys::{Fingerprint, KeyError, KeysPort, Purpose};

/// The markers of logins, in order.
pub(crate) async fn markers(
    keys: &KeysPort,
    cluster: ClusterId,
    logins: &[(&LeaseId, &str)],
) -> Result<Vec<String>, KeyError> {
    let item = |text: String| SecretBytes::new(text.into_bytes());
    let pairs = logins.iter().flat_map(|(lease, login)| {
        let hash = item(format!("lease\0{lease}"));
        let mac = item(format!("mac\0{cluster}\0{lease}\0{login}"));
        [hash, mac]
    });
    let request = Fingerprint { purpose: Purpose::Marker, items: pairs.collect() };
    let hashes = keys.fingerprint(request).await?;
    let marker = |pair: &[[u8; 32]]| match pair {
        [hash, mac] => Ok(format!("mssm1:{cluster}:{}:{}", hex(hash), hex(mac))),
        _ => Err(KeyError::Sealed),
    };
    let markers: Vec<String> = hashes.chunks(2).map(marker).collect::<Result<_, _>>()?;
    if markers.len() == logins.len() { Ok(markers) } else { Err(KeyError::Sealed) }
}

fn hex(bytes: &[u8; 32]) -> String {
    use std::fmt::Write;
    bytes.iter().fold(String::with_capacity(64), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

#[cfg(test)]
mod tests {
    use mssm_testkit::FakeKeys;
    use uuid::Uuid;

    use super::*;

    #[actix_rt::test]
    async fn a_marker_is_of_one_lease_and_one_login() {
        let keys = FakeKeys::start().port();
        let cluster = ClusterId::from_uuid(Uuid::from_u128(7));
        let first = LeaseId::parse("db/creds/a/aaaaaaaaaaaaaaaaaaaaaaaa").unwrap();
        let second = LeaseId::parse("db/creds/a/bbbbbbbbbbbbbbbbbbbbbbbb").unwrap();
        let logins = [(&first, "x"), (&first, "y"), (&second, "x")];
        let made = markers(&keys, cluster, &logins).await.unwrap();
        let parts: Vec<Vec<&str>> = made.iter().map(|text| text.split(':').collect()).collect();
        assert!(parts.iter().all(|parts| parts.len() == 4 && parts[0] == "mssm1"));
        assert_eq!(parts[0][2], parts[1][2], "the hash is the lease's");
        assert_ne!(parts[0][3], parts[1][3], "the MAC covers the login");
        assert_ne!(parts[0][2], parts[2][2]);
        assert!(!made[0].contains(first.as_str()));
    }
}
