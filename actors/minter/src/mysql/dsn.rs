//! Reads a `connection_url` of MySQL as Vault's users write it: a data source name of Go's driver.
//!
//! `[user[:password]@][protocol[(address)]]/[database][?parameter=value&…]`. As with PostgreSQL, user
//! and password are fields of their own, and `{{username}}` and `{{password}}` say no more than that.

use mssm_domain::SecretText;
use mssm_messages::minter::DatabaseTls;

use crate::dsn::{Dsn, MASK};

/// Reads the text; an error says what is wrong and repeats nothing of it.
pub(crate) fn parse(text: &str) -> Result<Dsn, String> {
    let wrong = || {
        "connection_url: not of the form {{username}}:{{password}}@tcp(host:port)/database"
            .to_owned()
    };
    if text.contains("://") {
        return Err(wrong());
    }
    let Parts { user, password, place, tail } = cut(text).ok_or_else(wrong)?;
    let mut dsn = Dsn {
        username: user.filter(|user| !user.is_empty()).map(str::to_owned),
        password: password.map(|password| SecretText::new(password.to_owned())),
        hosts: vec![read_place(place)?],
        ..Dsn::default()
    };
    let (database, query) = tail.split_once('?').unwrap_or((tail, ""));
    dsn.database = (!database.is_empty()).then(|| database.to_owned());
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        let (key, value) =
            pair.split_once('=').ok_or("connection_url: a parameter has no value")?;
        match key {
            "tls" => dsn.tls = read_tls(value)?,
            // Ours to decide, or of no effect on what we send.
            "allowNativePasswords"
            | "charset"
            | "checkConnLiveness"
            | "clientFoundRows"
            | "collation"
            | "columnsWithAlias"
            | "interpolateParams"
            | "loc"
            | "maxAllowedPacket"
            | "multiStatements"
            | "parseTime"
            | "readTimeout"
            | "rejectReadOnly"
            | "timeout"
            | "writeTimeout" => {}
            _ => return Err("connection_url: unknown parameter".to_owned()),
        }
    }
    Ok(dsn)
}

/// The text without a password that is written into it.
pub(crate) fn masked(text: &str) -> String {
    match cut(text) {
        Some(Parts { user: Some(user), password: Some(password), place, tail })
            if !password.is_empty() && password != "{{password}}" =>
        {
            format!("{user}:{MASK}@{place}/{tail}")
        }
        Some(_) => text.to_owned(),
        None => MASK.to_owned(),
    }
}

struct Parts<'a> {
    user: Option<&'a str>,
    password: Option<&'a str>,
    place: &'a str,
    tail: &'a str,
}

/// A password may hold anything, so what follows it is found from the end; the path of a socket stands
/// in parentheses.
fn cut(text: &str) -> Option<Parts<'_>> {
    let query = text.rfind(")/").map(|at| at + 1).or_else(|| text.find('/'))?;
    let (front, tail) = text.split_at_checked(query)?;
    let (login, place) = match front.rfind('@') {
        Some(at) => (front.get(..at), front.get(at + 1..)?),
        None => (None, front),
    };
    let (user, password) = match login.map(|login| login.split_once(':').ok_or(login)) {
        Some(Ok((user, password))) => (Some(user), Some(password)),
        Some(Err(user)) => (Some(user), None),
        None => (None, None),
    };
    Some(Parts { user, password, place, tail: tail.strip_prefix('/')? })
}

fn read_place(place: &str) -> Result<(String, u16), String> {
    const PORT: u16 = 3306;
    let (protocol, address) = match place.split_once('(') {
        Some((protocol, rest)) => {
            (protocol, rest.strip_suffix(')').ok_or("connection_url: a parenthesis does not end")?)
        }
        None => (place, ""),
    };
    match protocol {
        "unix" if address.starts_with('/') => Ok((address.to_owned(), PORT)),
        "tcp" | "tcp4" | "tcp6" | "" => {
            let bracket = address.rfind(']').unwrap_or(0);
            let colon = address.rfind(':').filter(|at| *at >= bracket);
            let (host, port) =
                colon.and_then(|at| address.split_at_checked(at)).unwrap_or((address, ""));
            let port = match port.trim_start_matches(':') {
                "" => PORT,
                port => port.parse().map_err(|_| "connection_url: invalid port")?,
            };
            let host = host.trim_matches(['[', ']']);
            Ok((if host.is_empty() { "127.0.0.1" } else { host }.to_owned(), port))
        }
        _ => Err("connection_url: the protocol must be tcp or unix".to_owned()),
    }
}

fn read_tls(value: &str) -> Result<Option<DatabaseTls>, String> {
    match value {
        "true" => Ok(Some(DatabaseTls::VerifyFull)),
        "skip-verify" => Ok(Some(DatabaseTls::Require)),
        "false" => Ok(Some(DatabaseTls::Disable)),
        // Promises nothing; what is safe is decided by the host.
        "preferred" => Ok(None),
        _ => Err("connection_url: tls must be true, skip-verify or false".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn text(text: &str) -> SecretText {
        SecretText::new(text.to_owned())
    }

    #[test]
    fn what_vaults_users_write_is_read() {
        let cases = [
            ("{{username}}:{{password}}@tcp(127.0.0.1:3306)/", "127.0.0.1", 3306, None),
            (
                "{{username}}:{{password}}@tcp(db.x:3307)/app?parseTime=true",
                "db.x",
                3307,
                Some("app"),
            ),
            ("{{username}}:{{password}}@tcp(db.x)/app", "db.x", 3306, Some("app")),
            ("{{username}}:{{password}}@tcp([::1]:3307)/", "::1", 3307, None),
            ("{{username}}:{{password}}@/app", "127.0.0.1", 3306, Some("app")),
            ("tcp(db.x)/", "db.x", 3306, None),
            (
                "{{username}}@unix(/run/mysqld/mysqld.sock)/app",
                "/run/mysqld/mysqld.sock",
                3306,
                Some("app"),
            ),
        ];
        for (url, host, port, database) in cases {
            let dsn = parse(url).unwrap();
            assert_eq!(dsn.hosts, [(host.to_owned(), port)], "{url}");
            assert_eq!(dsn.database.as_deref(), database, "{url}");
            assert_eq!(dsn.username("u@:/").as_deref(), Some("u@:/"), "{url}");
            assert_eq!(dsn.password(&text("p@:/)")).unwrap().expose(), "p@:/)", "{url}");
            assert_eq!(masked(url), url);
        }
    }

    #[test]
    fn what_is_written_into_the_text_is_used_and_not_shown() {
        for (url, shown) in [
            ("a:se@cr/et)@tcp(h:1)/x?tls=true", "a:*****@tcp(h:1)/x?tls=true"),
            ("a:se:cr@et@unix(/run/x)/y", "a:*****@unix(/run/x)/y"),
        ] {
            let dsn = parse(url).unwrap();
            assert_eq!(dsn.username("field").as_deref(), Some("a"));
            assert!(dsn.password(&text("")).unwrap().expose().starts_with("se"));
            assert!(dsn.spells_password());
            assert_eq!(masked(url), shown);
            assert!(!format!("{dsn:?}").contains("se@cr"));
        }
    }

    #[test]
    fn what_cannot_be_read_is_refused_without_repeating_it() {
        let bad = [
            "",
            "secret",
            "mysql://secret@h/x",
            "u:secret@tcp(h:1",
            "u:secret@tcp(h:99999)/x",
            "u:secret@pipe(h)/x",
            "u:p@tcp(h)/x?tls=secret",
            "u:p@tcp(h)/x?secret=1",
            "u:p@tcp(h)/x?secret",
        ];
        for url in bad {
            let error = parse(url).unwrap_err();
            assert!(!error.contains("secret"), "{url}: {error}");
        }
        assert!(!masked("u:secret@tcp(h:1").contains("secret"));
    }

    #[test]
    fn tls_is_checked_unless_the_server_is_here() {
        let cases = [
            ("tcp(db.x)/", false, DatabaseTls::VerifyFull),
            ("tcp(db.x)/?tls=preferred", false, DatabaseTls::VerifyFull),
            ("tcp(db.x)/?tls=false", false, DatabaseTls::Disable),
            ("tcp(db.x)/?tls=skip-verify", false, DatabaseTls::Require),
            ("tcp(127.0.0.1)/", false, DatabaseTls::Disable),
            ("tcp(127.0.0.1)/?tls=true", false, DatabaseTls::VerifyFull),
            ("tcp(localhost)/", true, DatabaseTls::VerifyFull),
            ("unix(/run/x)/?tls=true", false, DatabaseTls::Disable),
        ];
        for (url, authority, tls) in cases {
            assert_eq!(parse(url).unwrap().tls(authority), tls, "{url}");
        }
    }

    proptest! {
        #[test]
        fn nothing_panics(text in "\\PC{0,40}|[a-z:@/?%=&()\\[\\]]{0,30}") {
            let _ = parse(&text);
            let _ = masked(&text);
        }
    }
}
