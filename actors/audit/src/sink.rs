//! What a device may be told: Vault's kinds and options, as far as they mean something here.

use std::collections::BTreeMap;
use std::path::{Component, Path, PathBuf};
use std::time::Duration;

use mssm_domain::parse_duration_secs;

use crate::backend::{Address, Http, Remote, Socket, Stdout, Syslog, facility};
use crate::backend::{AuditBackend, FileBackend, Keep};

/// Where a system's syslog daemon listens.
const SYSLOG: &str = "/dev/log";
/// What the lines of syslog say that they come from.
const TAG: &str = "mssm";
/// Options that Vault has and that stand for what is done here anyway, with the value that says so.
const ALWAYS: [(&str, &[&str]); 6] = [
    ("log_raw", &["", "false", "0"]),
    ("hmac_accessor", &["", "true", "1"]),
    ("format", &["", "json"]),
    ("mode", &["", "0600", "600"]),
    ("prefix", &[""]),
    ("elide_list_responses", &["", "false", "0"]),
];

/// Where a device writes to: what exists is valid.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sink(Kind);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Kind {
    File(PathBuf),
    Stdout,
    Syslog { socket: PathBuf, facility: u8, tag: String },
    Socket { address: Address, limit: Option<Duration> },
    Http { uri: String, authority: Option<String> },
}

impl Sink {
    /// Reads a kind and its options. Files lie in the folder of `log`, the log of the configuration.
    /// An error says what is wrong and what would be right.
    pub fn parse(
        kind: &str,
        options: &BTreeMap<String, String>,
        log: &Path,
    ) -> Result<Self, String> {
        let mut options = Options::new(options)?;
        let kind = match kind {
            "file" => file(&options.needed("file_path")?, log)?,
            "syslog" => syslog(&mut options)?,
            "socket" => socket(&mut options)?,
            "http" => http(&mut options)?,
            _ => {
                let right = "file, syslog, socket or http";
                return Err(format!("unknown backend type; known are {right}"));
            }
        };
        options.none_left()?;
        Ok(Self(kind))
    }

    /// Where the log of the configuration writes to.
    pub(crate) fn log(log: &Path) -> std::io::Result<Self> {
        std::path::absolute(log).map(|path| Self(Kind::File(path)))
    }

    /// Opens nothing yet.
    pub(crate) fn backend(&self, keep: Keep) -> Result<Box<dyn AuditBackend>, String> {
        Ok(match self.0.clone() {
            Kind::File(path) => Box::new(FileBackend::keeping(path, keep)),
            Kind::Stdout => Box::new(Remote(Stdout)),
            Kind::Syslog { socket, facility, tag } => {
                Box::new(Remote(Syslog::new(socket, facility, tag)))
            }
            Kind::Socket { address, limit } => Box::new(Remote(Socket::new(address, limit))),
            Kind::Http { uri, authority } => {
                Box::new(Remote(Http::new(uri, authority.as_deref())?))
            }
        })
    }

    /// True if both would write to one place, or one to what the other makes of its closed files.
    pub fn meets(&self, other: &Self) -> bool {
        match (&self.0, &other.0) {
            (Kind::File(one), Kind::File(other)) => is_near(one, other),
            (one, other) => one == other,
        }
    }

    /// Refuses a file that is there and is no audit log: what is appended to could be anything.
    pub(crate) fn check(&self) -> Result<(), String> {
        let Kind::File(path) = &self.0 else { return Ok(()) };
        let shown = path.display();
        let metadata = match std::fs::symlink_metadata(path) {
            Ok(metadata) => metadata,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(format!("{shown} cannot be looked at: {error}")),
        };
        if !metadata.is_file() {
            return Err(format!("{shown} is not a regular file"));
        }
        match FileBackend::begins_as_a_log(path) {
            Ok(true) => Ok(()),
            Ok(false) => Err(format!("{shown} is there and is not an audit log")),
            Err(error) => Err(format!("{shown} cannot be read: {error}")),
        }
    }
}

/// True if one file is the other, or has a name that the other's closed files could have.
fn is_near(one: &Path, other: &Path) -> bool {
    let (one, other) = (one.to_string_lossy(), other.to_string_lossy());
    let below = |name: &str, base: &str| {
        name.strip_prefix(base).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
    };
    below(&one, &other) || below(&other, &one)
}

/// A file of its own beside the log: where the process may write, and nobody else puts anything.
fn file(text: &str, log: &Path) -> Result<Kind, String> {
    if text == "stdout" {
        return Ok(Kind::Stdout);
    }
    let log = std::path::absolute(log).map_err(|error| error.to_string())?;
    let (path, folder) = (Path::new(text), log.parent().unwrap_or(Path::new("/")));
    let plain = |name: &std::ffi::OsStr| {
        let name = name.as_encoded_bytes();
        let usual = |byte: &u8| byte.is_ascii_alphanumeric() || b"._-".contains(byte);
        name.first() != Some(&b'.') && name.len() <= 100 && name.iter().all(usual)
    };
    let inside = path.parent() == Some(folder)
        && matches!(path.components().next_back(), Some(Component::Normal(_)))
        && path.file_name().is_some_and(plain);
    if !inside {
        let example = folder.join("second.log");
        return Err(format!(
            "file_path must be a file beside the server's own log, as {} (letters, digits, '.', '_', '-'), or \"stdout\"",
            example.display()
        ));
    }
    if is_near(path, &log) {
        return Err("file_path is the server's own log, or a name of its closed files".to_owned());
    }
    Ok(Kind::File(path.to_owned()))
}

fn syslog(options: &mut Options) -> Result<Kind, String> {
    let name = options.take("facility").unwrap_or_else(|| "AUTH".to_owned());
    let facility = facility(&name).ok_or("facility is none of syslog's, as AUTH or LOCAL0")?;
    let tag = options.take("tag").unwrap_or_else(|| TAG.to_owned());
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"-._".contains(&byte);
    // What else there may be ends the name that daemons read.
    if !(1..=48).contains(&tag.len()) || !tag.bytes().all(fits) {
        return Err("tag must be 1 to 48 letters, digits, '.', '_' and '-'".to_owned());
    }
    let socket = options.take("address").unwrap_or_else(|| SYSLOG.to_owned());
    if !socket.starts_with('/') {
        return Err(
            "address must be the path of the syslog daemon's socket, as /dev/log".to_owned()
        );
    }
    Ok(Kind::Syslog { socket: socket.into(), facility, tag })
}

fn socket(options: &mut Options) -> Result<Kind, String> {
    let address = options.needed("address")?;
    let limit = match options.take("write_timeout") {
        None => None,
        Some(text) => match parse_duration_secs(&text) {
            Ok(seconds @ 1..=60) => Some(Duration::from_secs(seconds)),
            _ => return Err("write_timeout must be 1s to 60s".to_owned()),
        },
    };
    let kind = options.take("socket_type").unwrap_or_else(|| "tcp".to_owned());
    let address = match kind.as_str() {
        "unix" if address.starts_with('/') => Address::Unix(address.into()),
        "unix" => return Err("address must be the path of a socket".to_owned()),
        "tcp" if is_host_and_port(&address) => Address::Tcp(address),
        "tcp" => return Err("address must be a host and a port, as collector:9000".to_owned()),
        "udp" => {
            let why = "loses records without a word; use tcp or unix";
            return Err(format!("socket_type udp is not supported, since it {why}"));
        }
        _ => return Err("socket_type must be tcp or unix".to_owned()),
    };
    Ok(Kind::Socket { address, limit })
}

fn http(options: &mut Options) -> Result<Kind, String> {
    let uri = options.needed("uri")?;
    let rest = uri.strip_prefix("https://").or_else(|| uri.strip_prefix("http://"));
    let host = rest.and_then(|rest| rest.split(['/', '?']).next()).unwrap_or_default();
    let clean = uri.bytes().all(|byte| byte.is_ascii_graphic());
    if host.is_empty() || !clean {
        return Err("uri must be an address, as https://collector.example/audit".to_owned());
    }
    if host.contains('@') {
        // Whoever lists the devices would read it.
        return Err("uri must not hold a user and a password".to_owned());
    }
    let authority = options.take("ca_cert");
    // What cannot be used is told now, not at the first record.
    Http::new(uri.clone(), authority.as_deref())?;
    Ok(Kind::Http { uri, authority })
}

fn is_host_and_port(address: &str) -> bool {
    let parts = address.rsplit_once(':');
    parts.is_some_and(|(host, port)| !host.is_empty() && port.parse::<u16>().is_ok())
}

/// Options that nobody has asked for yet.
struct Options(BTreeMap<String, String>);

impl Options {
    fn new(given: &BTreeMap<String, String>) -> Result<Self, String> {
        let mut options = given.clone();
        for (name, accepted) in ALWAYS {
            let given = options.remove(name);
            if given.is_some_and(|given| !accepted.contains(&given.as_str())) {
                let why = match name {
                    "log_raw" => "records hold no value in clear, whatever is asked",
                    "mode" => "audit files are for the server's user alone (0600)",
                    "prefix" => "lines are JSON and nothing else",
                    _ => "records are complete, in one format (json)",
                };
                return Err(format!("{name} is not supported as it was given: {why}"));
            }
        }
        Ok(Self(options))
    }

    fn take(&mut self, name: &str) -> Option<String> {
        self.0.remove(name).filter(|text| !text.is_empty())
    }

    fn needed(&mut self, name: &str) -> Result<String, String> {
        // Vault takes the first name as well.
        let text = self.take(name).or_else(|| self.take("path").filter(|_| name == "file_path"));
        text.ok_or_else(|| format!("{name} is required"))
    }

    fn none_left(&self) -> Result<(), String> {
        match self.0.keys().next() {
            None => Ok(()),
            Some(name) => {
                let name: String = name.chars().take(64).collect();
                Err(format!("option {name:?} is not supported for this type"))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOG: &str = "/var/log/mssm/audit.log";

    fn parse(kind: &str, options: &[(&str, &str)]) -> Result<Sink, String> {
        let owned = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
        Sink::parse(kind, &options.iter().map(owned).collect(), Path::new(LOG))
    }

    /// Catalogue: CVE-2025-6000, CVE-2025-54997.
    #[test]
    fn a_file_lies_beside_the_log_and_nowhere_else() {
        for good in ["/var/log/mssm/second.log", "/var/log/mssm/a-b_c", "stdout"] {
            parse("file", &[("file_path", good)]).unwrap();
        }
        for bad in [
            "",
            "second.log",
            "/etc/cron.d/x",
            "/var/log/mssm/../x.log",
            "/var/log/mssm/..",
            "/var/log/mssm/.",
            "/var/log/mssm/",
            "/var/log/mssm",
            "/var/log/mssm/.hidden",
            "/var/log/mssm/deep/x.log",
            "/var/log/mssm//x/../../y",
            "/var/log/mssm/a b",
            "/var/log/mssm/a\nb",
            "/var/log/mssm/audit.log",
            "/var/log/mssm/audit.log.000000000000-000000000009",
            "/var/log/mssm/audit",
            "discard",
        ] {
            assert!(parse("file", &[("file_path", bad)]).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn what_vault_can_and_this_cannot_is_refused_with_its_reason() {
        let file = ("file_path", "/var/log/mssm/second.log");
        for (name, value, right) in [
            ("log_raw", "true", "false"),
            ("mode", "0755", "0600"),
            ("mode", "0644", "0600"),
            ("prefix", "#!/bin/sh\n", ""),
            ("format", "jsonx", "json"),
            ("hmac_accessor", "false", "true"),
            ("elide_list_responses", "true", "false"),
        ] {
            let refused = parse("file", &[file, (name, value)]).unwrap_err();
            assert!(refused.contains(name), "{refused}");
            parse("file", &[file, (name, right)]).unwrap();
        }
        for name in ["filter", "fallback", "exclude", "socket_type"] {
            let refused = parse("file", &[file, (name, "x")]).unwrap_err();
            assert!(refused.contains(name), "{refused}");
        }
        assert!(parse("kafka", &[]).unwrap_err().contains("unknown backend type"));
    }

    #[test]
    fn sockets_syslog_and_collectors_are_read() {
        for (kind, options, right) in [
            ("socket", vec![("address", "collector:9000")], true),
            ("socket", vec![("address", "[::1]:9000"), ("write_timeout", "5s")], true),
            ("socket", vec![("address", "/run/c.sock"), ("socket_type", "unix")], true),
            ("socket", vec![("address", "collector")], false),
            ("socket", vec![("address", "c:1"), ("socket_type", "udp")], false),
            ("socket", vec![("address", "c:1"), ("write_timeout", "1h")], false),
            ("socket", vec![], false),
            ("syslog", vec![], true),
            ("syslog", vec![("facility", "local3"), ("tag", "vault")], true),
            ("syslog", vec![("facility", "NONE")], false),
            ("syslog", vec![("tag", "a b")], false),
            ("syslog", vec![("tag", "a[1]:")], false),
            ("http", vec![("uri", "http://collector.example/audit")], true),
            ("http", vec![("uri", "ftp://collector.example/audit")], false),
            ("http", vec![("uri", "http://user:word@collector.example/")], false),
            ("http", vec![("uri", "https://c/"), ("ca_cert", "none")], false),
        ] {
            assert_eq!(parse(kind, &options).is_ok(), right, "{kind} {options:?}");
        }
    }

    #[test]
    fn no_two_devices_meet_in_one_file() {
        let file =
            |name: &str| parse("file", &[("file_path", &format!("/var/log/mssm/{name}"))]).unwrap();
        let one = file("one.log");
        for (other, meets) in [
            ("one.log", true),
            ("one.log.2", true),
            ("one", true),
            ("two.log", false),
            ("one.logs", false),
        ] {
            assert_eq!(one.meets(&file(other)), meets, "{other}");
            assert_eq!(file(other).meets(&one), meets, "{other}");
        }
    }
}
