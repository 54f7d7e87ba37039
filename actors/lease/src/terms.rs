//! How long a lease may live: the arithmetic of lifetimes, bounds and what is said about them.

use mssm_domain::{Timestamp, Ttl};

/// What bounds a new lease.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bounds {
    /// The lifetime that is wanted.
    pub(crate) ttl: Ttl,
    /// The longest life, renewals included.
    pub(crate) max_ttl: Ttl,
    /// When the token of the holder ends.
    pub(crate) token_ends_at: Option<Timestamp>,
}

/// What a new lease gets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Terms {
    /// When it ends.
    pub(crate) expires_at: Timestamp,
    /// The latest end that renewals can reach.
    pub(crate) ends_at_most: Timestamp,
    /// What a renewal gives when it does not say.
    pub(crate) ttl: Ttl,
    /// What was cut.
    pub(crate) warnings: Vec<String>,
}

/// The terms of a lease that is issued now; `None` if the token has less than a second left.
pub(crate) fn issue(now: Timestamp, bounds: Bounds) -> Option<Terms> {
    let mut warnings = Vec::new();
    let ttl = bounds.ttl.min(bounds.max_ttl);
    if ttl < bounds.ttl {
        warnings.push(capped(bounds.ttl.secs(), bounds.max_ttl.secs()));
    }
    let mut expires_at = now.after(ttl.duration());
    if let Some(token_end) = bounds.token_ends_at {
        let left = now.until(token_end).as_secs();
        if left == 0 {
            return None;
        }
        if token_end < expires_at {
            expires_at = token_end;
            warnings.push(ends_with_token(ttl.secs(), left));
        }
    }
    let ends_at_most = now.after(bounds.max_ttl.duration());
    Some(Terms { expires_at, ends_at_most, ttl, warnings })
}

/// The new end of a living lease that is renewed now, and what was cut.
///
/// Never beyond either bound. The caller has made sure that the lease lives, so its bound is ahead.
pub(crate) fn renew(
    now: Timestamp,
    increment: Ttl,
    ends_at_most: Timestamp,
    token_ends_at: Option<Timestamp>,
) -> (Timestamp, Vec<String>) {
    let mut warnings = Vec::new();
    let mut end = now.after(increment.duration());
    if end > ends_at_most {
        end = ends_at_most;
        warnings.push(capped(increment.secs(), now.until(end).as_secs()));
    }
    if let Some(token_end) = token_ends_at.filter(|token_end| *token_end < end) {
        end = token_end;
        warnings.push(ends_with_token(increment.secs(), now.until(end).as_secs()));
    }
    (end, warnings)
}

/// Vault's words.
fn capped(wanted: u64, bound: u64) -> String {
    format!(
        "TTL of \"{}\" exceeded the effective max_ttl of \"{}\"; TTL value is capped accordingly",
        words(wanted),
        words(bound)
    )
}

fn ends_with_token(wanted: u64, left: u64) -> String {
    format!(
        "TTL of \"{}\" is longer than the {} that the token has left; the lease ends with the token",
        words(wanted),
        words(left)
    )
}

/// A duration as Go prints it: `1h0m0s`, `5m0s`, `30s`.
fn words(secs: u64) -> String {
    let (hours, minutes, seconds) = (secs / 3600, secs / 60 % 60, secs % 60);
    match (hours, minutes) {
        (0, 0) => format!("{seconds}s"),
        (0, _) => format!("{minutes}m{seconds}s"),
        _ => format!("{hours}h{minutes}m{seconds}s"),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;

    const NOW: Timestamp = Timestamp::from_unix_ms(1_000_000);

    fn ttl(secs: u64) -> Ttl {
        Ttl::from_secs(secs).unwrap()
    }

    fn bounds(wanted: u64, max: u64, token_ms: Option<u64>) -> Bounds {
        let token_ends_at = token_ms.map(|ms| NOW.after(Duration::from_millis(ms)));
        Bounds { ttl: ttl(wanted), max_ttl: ttl(max), token_ends_at }
    }

    #[test]
    fn a_lease_is_cut_at_its_bound_and_says_so_in_vaults_words() {
        let terms = issue(NOW, bounds(3600, 300, None)).unwrap();
        assert_eq!(terms.expires_at, NOW.after(Duration::from_mins(5)));
        assert_eq!(
            terms.warnings,
            ["TTL of \"1h0m0s\" exceeded the effective max_ttl of \"5m0s\"; TTL value is capped \
              accordingly"]
        );
    }

    /// Catalogue: CVE-2020-25816.
    #[test]
    fn a_lease_never_outlives_its_token() {
        let terms = issue(NOW, bounds(60, 300, Some(5_500))).unwrap();
        assert_eq!(terms.expires_at, NOW.after(Duration::from_millis(5_500)));
        assert_eq!(terms.warnings.len(), 1);
        assert_eq!(issue(NOW, bounds(60, 300, Some(999))), None);
        assert_eq!(issue(NOW, bounds(60, 300, Some(60_000))).unwrap().warnings, [""; 0]);
    }

    /// Catalogue: CVE-2021-32923.
    #[test]
    fn renewals_at_every_millisecond_near_the_bound_stay_finite_and_below_it() {
        // CVE-2021-32923: a renewal within the last second before the bound gave a lease no end.
        let most = NOW.after(Duration::from_secs(3));
        let mut last = NOW;
        for ms in 0..3_000 {
            let now = NOW.after(Duration::from_millis(ms));
            let (end, warnings) = renew(now, ttl(2), most, None);
            assert!(end > now && end <= most && end >= last, "at {ms} ms");
            assert_eq!(warnings.is_empty(), ms <= 1_000, "at {ms} ms");
            last = end;
        }
    }

    proptest! {
        /// An end is after now, below both bounds, and no later than asked.
        #[test]
        fn no_renewal_passes_a_bound(
            at in 0..10_000_u64, more in 1..20_u64, wanted in 1..20_u64, token in 1..20_000_u64,
        ) {
            let now = NOW.after(Duration::from_millis(at));
            let most = now.after(Duration::from_secs(more));
            let token_end = now.after(Duration::from_millis(token));
            let (end, _) = renew(now, ttl(wanted), most, Some(token_end));
            prop_assert!(end > now && end <= most && end <= token_end);
            prop_assert!(end <= now.after(Duration::from_secs(wanted)));
            let issued = issue(now, bounds(wanted, more, None)).unwrap();
            prop_assert!(issued.expires_at <= issued.ends_at_most);
        }
    }
}
