//! Reads where a database is: `postgresql://…` or libpq's `key=value`, as clients write it.
//!
//! User and password come as fields and never pass through the text, so that no character in them
//! can change it. `{{username}}` and `{{password}}` in it say no more than that.

use mssm_domain::SecretText;
use mssm_messages::minter::DatabaseTls;

use crate::dialect::Dialect;
use crate::mysql;

/// Where a database is, and how to speak to it.
#[derive(Debug, Default)]
pub(crate) struct Dsn {
    /// Names, addresses or folders of sockets, with their ports, in order of preference.
    pub(crate) hosts: Vec<(String, u16)>,
    pub(crate) database: Option<String>,
    pub(crate) options: Option<String>,
    pub(crate) username: Option<String>,
    pub(crate) password: Option<SecretText>,
    pub(crate) tls: Option<DatabaseTls>,
}

impl Dsn {
    /// Reads the text; an error says what is wrong and repeats nothing of it.
    pub(crate) fn parse(dialect: Dialect, text: &str) -> Result<Self, String> {
        match dialect {
            Dialect::Postgres => Self::parse_url(text),
            Dialect::MySql | Dialect::MariaDb => mysql::dsn::parse(text),
        }
    }

    fn parse_url(text: &str) -> Result<Self, String> {
        let mut dsn = Self::default();
        let mut pairs = Vec::new();
        match text.strip_prefix("postgresql://").or_else(|| text.strip_prefix("postgres://")) {
            Some(rest) => read_url(rest, &mut pairs)?,
            None if text.contains("://") => {
                return Err("connection_url must begin with postgresql://".to_owned());
            }
            None => read_pairs(text, &mut pairs)?,
        }
        let (mut hosts, mut ports) = (String::new(), String::new());
        for (key, value) in pairs {
            match key.as_str() {
                "host" | "hostaddr" => hosts = value,
                "port" => ports = value,
                _ => dsn.set(&key, value)?,
            }
        }
        dsn.hosts = read_hosts(&hosts, &ports)?;
        Ok(dsn)
    }

    fn set(&mut self, key: &str, value: String) -> Result<(), String> {
        match key {
            "user" => self.username = Some(value),
            "password" => self.password = Some(SecretText::new(value)),
            "dbname" => self.database = Some(value),
            "options" => self.options = Some(value),
            "sslmode" => {
                self.tls = match value.as_str() {
                    "disable" => Some(DatabaseTls::Disable),
                    "require" => Some(DatabaseTls::Require),
                    "verify-ca" | "verify-full" => Some(DatabaseTls::VerifyFull),
                    // Neither promises anything; what is safe is decided by the host.
                    "allow" | "prefer" => None,
                    _ => return Err("connection_url: unknown sslmode".to_owned()),
                }
            }
            // Set by us, on every connection.
            "application_name" | "connect_timeout" | "fallback_application_name" => {}
            "sslrootcert" | "sslcert" | "sslkey" => {
                return Err(format!(
                    "connection_url: {key} is not read from a file: use tls_ca, tls_certificate and private_key"
                ));
            }
            _ => return Err("connection_url: unknown parameter".to_owned()),
        }
        Ok(())
    }

    /// The user: the field, wherever the text does not spell one out.
    pub(crate) fn username(&self, field: &str) -> Option<String> {
        let name = match &self.username {
            Some(text) => text.replace("{{username}}", field),
            None => field.to_owned(),
        };
        (!name.is_empty()).then_some(name)
    }

    /// The password: the field, wherever the text does not spell one out.
    pub(crate) fn password(&self, field: &SecretText) -> Option<SecretText> {
        // EXPOSE: compared with the placeholder and with nothing at all.
        let written = self.password.as_ref().filter(|text| text.expose() != "{{password}}");
        // EXPOSE: asked only whether it is empty.
        let field = || (!field.expose().is_empty()).then(|| field.duplicate());
        written.map(SecretText::duplicate).or_else(field)
    }

    /// True if the text spells a password out.
    pub(crate) fn spells_password(&self) -> bool {
        // EXPOSE: compared with the placeholder.
        self.password.as_ref().is_some_and(|text| text.expose() != "{{password}}")
    }

    /// True if nobody can be in between: the server proves who it is, or is on this very machine.
    pub(crate) fn is_sure(&self, has_authority: bool) -> bool {
        let here = self.hosts.iter().all(|(host, _)| is_local(host));
        here || self.tls(has_authority) == DatabaseTls::VerifyFull
    }

    /// How the connection is protected.
    ///
    /// Where the text does not say, certificate and name are checked, except on this very machine
    /// without an authority of its own: there is no network to protect from.
    pub(crate) fn tls(&self, has_authority: bool) -> DatabaseTls {
        let sockets = self.hosts.iter().all(|(host, _)| host.starts_with('/'));
        let local = self.hosts.iter().all(|(host, _)| is_local(host));
        match &self.tls {
            _ if sockets => DatabaseTls::Disable,
            Some(tls) => tls.clone(),
            None if local && !has_authority => DatabaseTls::Disable,
            None => DatabaseTls::VerifyFull,
        }
    }
}

/// What stands where a password was.
pub(crate) const MASK: &str = "*****";

/// The text without a password that is written into it.
pub(crate) fn masked(dialect: Dialect, text: &str) -> String {
    match dialect {
        Dialect::Postgres => masked_url(text),
        Dialect::MySql | Dialect::MariaDb => mysql::dsn::masked(text),
    }
}

fn masked_url(text: &str) -> String {
    let keep = |password: &str| password.is_empty() || password == "{{password}}";
    let scheme = text.find("://").map(|at| at + 3);
    let Some(start) = scheme else {
        let mut pairs = Vec::new();
        if read_pairs(text, &mut pairs).is_err() {
            return MASK.to_owned();
        }
        let shown = pairs.into_iter().map(|(key, value)| {
            let value = if key == "password" && !keep(&value) { MASK.to_owned() } else { value };
            format!("{key}='{}'", value.replace('\\', "\\\\").replace('\'', "\\'"))
        });
        return shown.collect::<Vec<_>>().join(" ");
    };
    let (scheme, rest) = text.split_at_checked(start).unwrap_or((text, ""));
    let (place, query) = rest.split_once('?').map_or((rest, None), |(a, b)| (a, Some(b)));
    let mut shown = match place.rsplit_once('@') {
        Some((user, host)) => match user.split_once(':') {
            Some((user, password)) if !keep(password) => format!("{scheme}{user}:{MASK}@{host}"),
            _ => format!("{scheme}{user}@{host}"),
        },
        None => format!("{scheme}{place}"),
    };
    if let Some(query) = query {
        let hide = |pair: &str| match pair.split_once('=') {
            Some(("password", value)) if !keep(value) => format!("password={MASK}"),
            _ => pair.to_owned(),
        };
        shown.push('?');
        shown.push_str(&query.split('&').map(hide).collect::<Vec<_>>().join("&"));
    }
    shown
}

fn is_local(host: &str) -> bool {
    let address = host.parse::<std::net::IpAddr>();
    host.starts_with('/')
        || host.eq_ignore_ascii_case("localhost")
        || address.is_ok_and(|address| address.is_loopback())
}

fn read_url(rest: &str, pairs: &mut Vec<(String, String)>) -> Result<(), String> {
    let (place, query) = rest.split_once('?').unwrap_or((rest, ""));
    let (user, place) = place.rsplit_once('@').map_or((None, place), |(a, b)| (Some(a), b));
    let (hosts, database) = place.split_once('/').unwrap_or((place, ""));
    if let Some(user) = user {
        let (user, password) = user.split_once(':').map_or((user, None), |(a, b)| (a, Some(b)));
        if !user.is_empty() {
            pairs.push(("user".to_owned(), decode(user)?));
        }
        if let Some(password) = password {
            pairs.push(("password".to_owned(), decode(password)?));
        }
    }
    let (mut names, mut ports) = (Vec::new(), Vec::new());
    for host in hosts.split(',').filter(|host| !host.is_empty()) {
        let bracket = host.rfind(']').unwrap_or(0);
        let colon = host.rfind(':').filter(|at| *at >= bracket);
        let (name, port) = colon.and_then(|at| host.split_at_checked(at)).unwrap_or((host, ""));
        names.push(decode(name.trim_matches(['[', ']']))?);
        ports.push(port.trim_start_matches(':').to_owned());
    }
    if !names.is_empty() {
        pairs.push(("host".to_owned(), names.join(",")));
        pairs.push(("port".to_owned(), ports.join(",")));
    }
    if !database.is_empty() {
        pairs.push(("dbname".to_owned(), decode(database)?));
    }
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        let (key, value) =
            pair.split_once('=').ok_or("connection_url: a parameter has no value")?;
        pairs.push((decode(key)?, decode(value)?));
    }
    Ok(())
}

fn read_pairs(text: &str, pairs: &mut Vec<(String, String)>) -> Result<(), String> {
    let wrong = || "connection_url: not a postgresql:// URL and not key=value".to_owned();
    let mut rest = text.trim_start();
    while !rest.is_empty() {
        let (key, tail) = rest.split_once('=').ok_or_else(wrong)?;
        let key = key.trim();
        if key.is_empty() || key.contains(char::is_whitespace) {
            return Err(wrong());
        }
        let tail = tail.trim_start();
        let quoted = tail.starts_with('\'');
        let mut letters = tail.char_indices().skip(usize::from(quoted));
        let mut value = String::new();
        let mut end = tail.len();
        let mut closed = !quoted;
        while let Some((at, letter)) = letters.next() {
            match letter {
                '\\' => value.extend(letters.next().map(|(_, escaped)| escaped)),
                '\'' if quoted => {
                    (end, closed) = (at + 1, true);
                    break;
                }
                letter if letter.is_whitespace() && !quoted => {
                    end = at;
                    break;
                }
                letter => value.push(letter),
            }
        }
        if !closed {
            return Err(wrong());
        }
        pairs.push((key.to_owned(), value));
        rest = tail.get(end..).unwrap_or_default().trim_start();
    }
    Ok(())
}

fn read_hosts(hosts: &str, ports: &str) -> Result<Vec<(String, u16)>, String> {
    let names: Vec<&str> = hosts.split(',').filter(|host| !host.is_empty()).collect();
    if names.is_empty() {
        return Err("connection_url: no host".to_owned());
    }
    let ports: Vec<&str> = ports.split(',').collect();
    let port_of = |index: usize| {
        let port = ports.get(index).or(ports.first().filter(|_| ports.len() == 1));
        match port.copied().unwrap_or_default() {
            "" => Ok(5432),
            port => port.parse().map_err(|_| "connection_url: invalid port".to_owned()),
        }
    };
    let hosts = names.iter().enumerate();
    hosts.map(|(index, name)| Ok(((*name).to_owned(), port_of(index)?))).collect()
}

/// Percent-decoding. What is not UTF-8 afterwards is refused.
fn decode(text: &str) -> Result<String, String> {
    let wrong = || "connection_url: invalid percent-encoding".to_owned();
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        if byte == b'%' {
            let mut digit = || {
                let digit = char::from(rest.next()?).to_digit(16)?;
                u8::try_from(digit).ok()
            };
            let (high, low) = (digit().ok_or_else(wrong)?, digit().ok_or_else(wrong)?);
            bytes.push(high << 4 | low);
        } else {
            bytes.push(byte);
        }
    }
    String::from_utf8(bytes).map_err(|_| wrong())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn text(text: &str) -> SecretText {
        SecretText::new(text.to_owned())
    }

    #[test]
    fn urls_and_key_value_texts_are_read() {
        let cases = [
            (
                "postgresql://{{username}}:{{password}}@db.x:6432/app?sslmode=require",
                "db.x",
                6432,
                Some("app"),
            ),
            ("postgres://db.x/app", "db.x", 5432, Some("app")),
            ("postgresql://[::1]:5433/", "::1", 5433, None),
            ("postgresql://[::1]/x", "::1", 5432, Some("x")),
            ("postgresql://%2Fvar%2Frun/x", "/var/run", 5432, Some("x")),
            ("postgresql:///x?host=/var/run&port=5", "/var/run", 5, Some("x")),
            ("host=db.x port=7 dbname='a b\\'c' user={{username}}", "db.x", 7, Some("a b'c")),
        ];
        for (url, host, port, database) in cases {
            let dsn = Dsn::parse_url(url).unwrap();
            assert_eq!(dsn.hosts, [(host.to_owned(), port)], "{url}");
            assert_eq!(dsn.database.as_deref(), database, "{url}");
            assert_eq!(dsn.username("u\"@:/?").as_deref(), Some("u\"@:/?"), "{url}");
            assert_eq!(dsn.password(&text("p@:/%?")).unwrap().expose(), "p@:/%?", "{url}");
        }
    }

    #[test]
    fn what_is_written_into_the_text_is_used_and_not_shown() {
        for (url, shown) in [
            (
                "postgresql://a:se%40cret@h/x?sslmode=disable",
                "postgresql://a:*****@h/x?sslmode=disable",
            ),
            ("postgresql://a@h/x?password=se%40cret", "postgresql://a@h/x?password=*****"),
            ("host=h user=a password=se@cret", "host='h' user='a' password='*****'"),
        ] {
            let dsn = Dsn::parse_url(url).unwrap();
            assert_eq!(dsn.username("field").as_deref(), Some("a"));
            assert_eq!(dsn.password(&text("")).unwrap().expose(), "se@cret");
            assert_eq!(masked_url(url), shown);
            assert!(!format!("{dsn:?}").contains("@cret"));
        }
        let kept = "postgresql://{{username}}:{{password}}@h/x";
        assert_eq!(masked_url(kept), kept);
    }

    #[test]
    fn what_cannot_be_read_is_refused_without_repeating_it() {
        let bad = [
            "",
            "secret",
            "mysql://secret@h/x",
            "postgresql://h:secret/x",
            "host='secret",
            "postgresql://h/x?sslmode=secret",
            "postgresql://h/x?secret=1",
            "postgresql:///x",
            "postgresql://h%zz/secret",
            "postgresql://h/x?sslrootcert=/secret",
        ];
        for url in bad {
            let error = Dsn::parse_url(url).unwrap_err();
            assert!(!error.contains("secret"), "{url}: {error}");
        }
    }

    #[test]
    fn tls_is_checked_unless_the_server_is_here() {
        let cases = [
            ("postgresql://db.x/a", false, DatabaseTls::VerifyFull),
            ("postgresql://db.x/a?sslmode=prefer", false, DatabaseTls::VerifyFull),
            ("postgresql://db.x/a?sslmode=disable", false, DatabaseTls::Disable),
            ("postgresql://db.x/a?sslmode=verify-ca", false, DatabaseTls::VerifyFull),
            ("postgresql://127.8.0.1/a", false, DatabaseTls::Disable),
            ("postgresql://localhost/a", true, DatabaseTls::VerifyFull),
            ("postgresql://localhost,db.x/a", false, DatabaseTls::VerifyFull),
            ("host=/run dbname=a sslmode=require", false, DatabaseTls::Disable),
        ];
        for (url, authority, tls) in cases {
            assert_eq!(Dsn::parse_url(url).unwrap().tls(authority), tls, "{url}");
        }
    }

    proptest! {
        #[test]
        fn nothing_panics(text in "\\PC{0,40}|postgresql://[a-z:@/?%=&\\[\\]]{0,30}|[a-z=' \\\\]{0,30}") {
            let _ = Dsn::parse_url(&text);
            let _ = masked_url(&text);
        }
    }
}
