//! Makes the hash that MySQL and MariaDB keep for `mysql_native_password`, so that no password is sent.
//!
//! Needs no key. The hash has no salt and takes no time: it is for generated passwords alone, which
//! nobody can search.

use std::fmt::Write;

use mssm_domain::SecretText;
use sha1::{Digest, Sha1};

/// Makes `*` and 40 upper-case hex digits: SHA-1 of SHA-1 of the password.
pub fn hash(password: &SecretText) -> String {
    // EXPOSE: hashed, twice.
    let twice = Sha1::digest(Sha1::digest(password.expose().as_bytes()));
    twice.iter().fold(String::from("*"), |mut text, byte| {
        let _ = write!(text, "{byte:02X}");
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_what_the_server_makes_of_a_password() {
        // As `SELECT PASSWORD('password')` says on any server that has that function.
        let password = SecretText::new("password".to_owned());
        assert_eq!(hash(&password), "*2470C0C06DEE42FD1618BB99005ADCA2EC9D1E19");
    }
}
