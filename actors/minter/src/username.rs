//! Names of minted logins: `v-<who>-<role>-<20 random>-<seconds>`, at most 63 bytes, nothing to quote.

use mssm_domain::{Random, Timestamp, generate_base62};

/// A name that nobody has had: 119 random bits.
pub(crate) fn generate(display: &str, role: &str, random: &dyn Random, now: Timestamp) -> String {
    let tail = generate_base62(random, 20);
    format!("v-{}-{}-{tail}-{}", safe(display), safe(role), now.unix_secs())
}

/// The first 8 characters, with `_` for whatever is no letter, digit, `_` or `-`.
fn safe(text: &str) -> String {
    let keep = |letter: char| letter.is_ascii_alphanumeric() || letter == '-';
    text.chars().take(8).map(|letter| if keep(letter) { letter } else { '_' }).collect()
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
            prop_assert!(name.len() <= 63, "{}", name);
            prop_assert!(name.starts_with("v-"));
            let plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
            prop_assert!(name.bytes().all(plain));
        }
    }
}
