//! The marker of a login where the server has no place for one: the last 20 characters of its name.
//!
//! Ten say which lease, ten are a MAC over cluster, those ten and what stands before them. Only who has
//! the cluster's key can make a name that fits, so names that merely look like ours, as Vault's do, are
//! never touched. The name is there with the first statement: no crash leaves a login without it.

use std::collections::HashSet;

use mssm_domain::{ClusterId, LeaseId, same_in_constant_time};
use mssm_messages::keys::{KeyError, KeysPort};

use crate::dialect::Dialect;
use crate::marker::{Marker, hashes, macs};

/// Characters of either half.
pub(crate) const HALF: usize = 10;
const DIGITS: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";

/// The name of the login of a lease.
pub(crate) async fn name(
    keys: &KeysPort,
    cluster: ClusterId,
    lease: &LeaseId,
    begins: &str,
) -> Result<String, KeyError> {
    let hash = hashes(keys, &[lease.as_str()]).await?.pop().unwrap_or_default();
    let hash = short(&hash);
    let mac = macs(keys, cluster, &[(hash, begins)]).await?.pop().unwrap_or_default();
    match (half(hash), half(short(&mac))) {
        (Some(lease), Some(mac)) => Ok(format!("{begins}{lease}{mac}")),
        _ => Err(KeyError::Sealed),
    }
}

/// Of a hash in full as much as a name has room for: 56 bits, which ten characters hold.
fn short(hash: &str) -> &str {
    hash.get(..Dialect::MariaDb.hash_chars()).unwrap_or(hash)
}

/// The half of a name that says a hash, or a MAC.
pub(crate) fn half(hash: &str) -> Option<String> {
    let mut number = u64::from_str_radix(short(hash), 16).ok()?;
    let mut digits = Vec::with_capacity(HALF);
    for _ in 0..HALF {
        let digit = usize::try_from(number % 62).ok()?;
        digits.push(char::from(*DIGITS.get(digit)?));
        number /= 62;
    }
    Some(digits.into_iter().rev().collect())
}

/// What half of a name says.
fn read(half: &str) -> Option<String> {
    let digit = |byte: u8| DIGITS.iter().position(|digit| *digit == byte);
    let mut number: u64 = 0;
    for byte in half.bytes() {
        number = number.checked_mul(62)?.checked_add(u64::try_from(digit(byte)?).ok()?)?;
    }
    let width = Dialect::MariaDb.hash_chars();
    Some(format!("{number:0width$x}")).filter(|hash| hash.len() == width)
}

/// What a name says of its lease; whether it is ours, only the MAC says.
pub(crate) fn parse(name: &str) -> Option<(&str, Marker)> {
    let at = name.len().checked_sub(2 * HALF)?;
    let (begins, tail) = name.split_at_checked(at)?;
    let (hash, mac) = tail.split_at_checked(HALF)?;
    let (hash, mac) = (read(hash)?, read(mac)?);
    (begins.starts_with("v-") && begins.ends_with('-')).then_some((begins, Marker { hash, mac }))
}

/// Those of some names that are ours.
pub(crate) async fn genuine<'a>(
    keys: &KeysPort,
    cluster: ClusterId,
    names: impl Iterator<Item = &'a str>,
) -> Result<HashSet<&'a str>, KeyError> {
    let parsed = names.filter_map(|name| Some((name, parse(name)?)));
    let parsed: Vec<(&str, (&str, Marker))> = parsed.collect();
    let claims: Vec<(&str, &str)> =
        parsed.iter().map(|(_, (begins, marker))| (marker.hash.as_str(), *begins)).collect();
    let made = macs(keys, cluster, &claims).await?;
    let fits = |marker: &Marker, mac: &str| same_in_constant_time(&marker.mac, short(mac));
    let ours = parsed.iter().zip(&made).filter(|((_, (_, marker)), mac)| fits(marker, mac));
    Ok(ours.map(|((name, _), _)| *name).collect())
}

#[cfg(test)]
mod tests {
    use mssm_testkit::FakeKeys;
    use proptest::prelude::*;
    use uuid::Uuid;

    use super::*;

    proptest! {
        #[test]
        fn a_half_says_its_hash(number in 0_u64..1 << 56) {
            let hash = format!("{number:014x}");
            let half = half(&hash).unwrap();
            prop_assert_eq!(half.len(), HALF);
            prop_assert_eq!(read(&half), Some(hash));
        }

        #[test]
        fn no_name_breaks_the_reader(name in "\\PC{0,40}|v-[a-z]{0,4}-[0-9A-Za-z]{18,22}") {
            if let Some((begins, marker)) = parse(&name) {
                let tail = half(&marker.hash).unwrap() + &half(&marker.mac).unwrap();
                prop_assert_eq!(format!("{}{}", begins, tail), name);
            }
        }
    }

    #[actix_rt::test]
    async fn a_name_is_of_one_lease_and_one_cluster_and_is_checked_without_the_lease() {
        let keys = FakeKeys::start().port();
        let cluster = ClusterId::from_uuid(Uuid::from_u128(7));
        let lease = LeaseId::parse("db/creds/a/aaaaaaaaaaaaaaaaaaaaaaaa").unwrap();
        let made = name(&keys, cluster, &lease, "v-toke-app-").await.unwrap();
        assert_eq!(made.len(), 31);
        let full = hashes(&keys, &[lease.as_str()]).await.unwrap().remove(0);
        assert_eq!(parse(&made).unwrap().1.hash, full[..14]);
        let moved = made.replace("-app-", "-apq-");
        let mut forged = made.clone().into_bytes();
        forged[30] = if forged[30] == b'a' { b'b' } else { b'a' };
        let forged = String::from_utf8(forged).unwrap();
        let vaults = "v-toke-app-4uX0RbY1mRZkJ6aPq2Wv";
        let names =
            [made.as_str(), &moved, &forged, vaults, "", "v-", "root", "ü".repeat(16).leak()];
        let ours = genuine(&keys, cluster, names.into_iter()).await.unwrap();
        assert_eq!(ours, HashSet::from([made.as_str()]));
        let other = ClusterId::from_uuid(Uuid::from_u128(8));
        assert!(genuine(&keys, other, names.into_iter()).await.unwrap().is_empty());
    }
}
