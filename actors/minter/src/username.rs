//! Names of minted logins: `v-<who>-<role>-<20 random>-<seconds>`, at most 63 bytes, nothing to quote.
//! MySQL allows 32: less of who and role, and behind them 20 that are the login's marker.

use mssm_domain::{Random, Timestamp, generate_base62};

/// A name that nobody has had: 119 random bits.
pub(crate) fn generate(display: &str, role: &str, random: &dyn Random, now: Timestamp) -> String {
    let tail = generate_base62(random, 20);
    format!("v-{}-{}-{tail}-{}", safe(display, 8), safe(role, 8), now.unix_secs())
}

/// How a name begins on MySQL: at most 12 bytes.
pub(crate) fn beginning(display: &str, role: &str) -> String {
    format!("v-{}-{}-", safe(display, 4), safe(role, 4))
}

/// The first characters, with `_` for whatever is no letter, digit, `_` or `-`.
fn safe(text: &str, most: usize) -> String {
    let keep = |letter: char| letter.is_ascii_alphanumeric() || letter == '-';
    text.chars().take(most).map(|letter| if keep(letter) { letter } else { '_' }).collect()
}

#[cfg(test)]
mod tests {
    use mssm_testkit::SeededRandom;
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// Whoever asks for whatever: a name that fits and that needs no quoting rule.
        #[test]
        fn names_fit_and_are_plain(display in "\\PC{0,40}", role in "\\PC{0,40}", now: u64) {
            let now = Timestamp::from_unix_ms(now);
            let name = generate(&display, &role, &SeededRandom::new(1), now);
            for (name, most) in [(name, 63), (beginning(&display, &role), 12)] {
                prop_assert!(name.len() <= most, "{}", name);
                prop_assert!(name.starts_with("v-"));
                let plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
                prop_assert!(name.bytes().all(plain));
            }
        }
    }
}
