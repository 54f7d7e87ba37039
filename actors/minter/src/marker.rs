//! The marker on every login: whose it is, so that nobody else's role is ever touched.
//!
//! `mssm2:<cluster>:<keyed hash of the lease id>:<MAC over cluster, that hash and login>`, as the
//! comment of the role. Anybody can read it and many can write one; only the MAC makes it ours, and
//! it can be checked where nobody knows the lease any more.

use mssm_domain::{ClusterId, LeaseId, SecretBytes};
use mssm_messages::keys::{Fingerprint, KeyError, KeysPort, Purpose};

/// Hexadecimal digits of a hash.
const HASH_CHARS: usize = 64;

/// A marker that somebody wrote on a role; whether it is ours, only its MAC says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Marker {
    /// Which lease.
    pub(crate) hash: String,
    /// What makes it ours, on the one login that it is for.
    pub(crate) mac: String,
}

/// How the markers of a cluster begin.
pub(crate) fn prefix(cluster: ClusterId) -> String {
    format!("mssm2:{cluster}:")
}

impl Marker {
    /// Reads one of this cluster.
    pub(crate) fn parse(cluster: ClusterId, text: &str) -> Option<Self> {
        let (hash, mac) = text.strip_prefix(&prefix(cluster))?.split_once(':')?;
        let hexadecimal = |text: &str| {
            text.len() == HASH_CHARS
                && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
        };
        let fits = hexadecimal(hash) && hexadecimal(mac);
        fits.then(|| Self { hash: hash.to_owned(), mac: mac.to_owned() })
    }
}

/// The markers of logins, in order.
pub(crate) async fn markers(
    keys: &KeysPort,
    cluster: ClusterId,
    logins: &[(&LeaseId, &str)],
) -> Result<Vec<String>, KeyError> {
    let leases: Vec<&str> = logins.iter().map(|(lease, _)| lease.as_str()).collect();
    let hashes = hashes(keys, &leases).await?;
    let of: Vec<(&str, &str)> =
        hashes.iter().zip(logins).map(|(hash, (_, login))| (hash.as_str(), *login)).collect();
    let macs = macs(keys, cluster, &of).await?;
    let prefix = prefix(cluster);
    Ok(hashes.iter().zip(&macs).map(|(hash, mac)| format!("{prefix}{hash}:{mac}")).collect())
}

/// What leases are called in markers, in order.
pub(crate) async fn hashes(keys: &KeysPort, leases: &[&str]) -> Result<Vec<String>, KeyError> {
    fingerprints(keys, leases.iter().map(|lease| format!("lease\0{lease}")).collect()).await
}

/// What makes markers ours: of the leases' hashes and the logins, in order.
pub(crate) async fn macs(
    keys: &KeysPort,
    cluster: ClusterId,
    logins: &[(&str, &str)],
) -> Result<Vec<String>, KeyError> {
    let text = |(hash, login): &(&str, &str)| format!("mac2\0{cluster}\0{hash}\0{login}");
    fingerprints(keys, logins.iter().map(text).collect()).await
}

/// Keyed hashes of texts, in order: whoever has the cluster's keys can make them, and nobody else.
pub(crate) async fn fingerprints(
    keys: &KeysPort,
    texts: Vec<String>,
) -> Result<Vec<String>, KeyError> {
    let count = texts.len();
    let items = texts.into_iter().map(|text| SecretBytes::new(text.into_bytes())).collect();
    let made = keys.fingerprint(Fingerprint { purpose: Purpose::Marker, items }).await?;
    if made.len() == count { Ok(made.iter().map(hex).collect()) } else { Err(KeyError::Sealed) }
}

fn hex(bytes: &[u8; 32]) -> String {
    use std::fmt::Write;
    bytes.iter().fold(String::with_capacity(HASH_CHARS), |mut text, byte| {
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
    async fn a_marker_is_of_one_lease_and_one_login_and_is_checked_without_the_lease() {
        let keys = FakeKeys::start().port();
        let cluster = ClusterId::from_uuid(Uuid::from_u128(7));
        let first = LeaseId::parse("db/creds/a/aaaaaaaaaaaaaaaaaaaaaaaa").unwrap();
        let second = LeaseId::parse("db/creds/a/bbbbbbbbbbbbbbbbbbbbbbbb").unwrap();
        let logins = [(&first, "x"), (&first, "y"), (&second, "x")];
        let made = markers(&keys, cluster, &logins).await.unwrap();
        let parts: Vec<Marker> =
            made.iter().map(|text| Marker::parse(cluster, text).unwrap()).collect();
        assert_eq!(parts[0].hash, parts[1].hash, "the hash is the lease's");
        assert_ne!(parts[0].mac, parts[1].mac, "the MAC covers the login");
        assert_ne!(parts[0].hash, parts[2].hash);
        assert!(!made[0].contains(first.as_str()));
        let again = macs(&keys, cluster, &[(&parts[0].hash, "x")]).await.unwrap();
        assert_eq!(again, [parts[0].mac.clone()]);
        let other = ClusterId::from_uuid(Uuid::from_u128(8));
        assert_eq!(Marker::parse(other, &made[0]), None);
        for text in ["", "mssm2:", "a comment", &made[0][..made[0].len() - 1]] {
            assert_eq!(Marker::parse(cluster, text), None, "{text}");
        }
    }
}
