//! The errors of MySQL and MariaDB that mean something to us, by their numbers.

/// The password, or the user, is wrong.
pub(crate) const ACCESS_DENIED: &str = "1045";
/// Others' work stood in the way, and ours was undone.
pub(crate) const DEADLOCK: &str = "1213";
/// Not SQL; the text repeats 80 characters from there on.
pub(crate) const SYNTAX: &str = "1064";
/// A lock was waited for too long.
pub(crate) const LOCK_TIMEOUT: &str = "1205";
/// There is no such session any more.
pub(crate) const NO_SUCH_SESSION: &str = "1094";
/// We may not end that session.
pub(crate) const MAY_NOT_KILL: &str = "1095";
/// A user to be made is there, or one to be changed or dropped is not.
pub(crate) const USER_FAILED: &str = "1396";

/// True if the session was told to end, or a statement of it: how far that one came is not known.
pub(super) const fn leaves_doubt(code: u16) -> bool {
    // Shutdown, query interrupted, connection killed, statement time exceeded (MariaDB, MySQL).
    matches!(code, 1053 | 1317 | 1927 | 1969 | 3024)
}

/// The server's text, without the address that we come from and without what it repeats of the SQL
/// if a part of a password could be in it.
pub(super) fn public_text(code: u16, message: &str) -> String {
    match code {
        1129 | 1130 => "the server does not let this host connect".to_owned(),
        1044 | 1045 | 1698 => match message.split_once("'@'") {
            Some((user, rest)) => {
                let rest = rest.split_once('\'').map_or("", |(_, rest)| rest);
                format!("{user}'{rest}")
            }
            None => message.to_owned(),
        },
        _ => message.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refused_login_names_no_address() {
        let said = "Access denied for user 'admin'@'10.0.0.5' (using password: YES)";
        assert_eq!(public_text(1045, said), "Access denied for user 'admin' (using password: YES)");
        let said = "Host '10.0.0.5' is not allowed to connect to this MariaDB server";
        assert!(!public_text(1130, said).contains("10.0.0.5"));
    }
}
