//! What the client works with, once flags, environment and token files are weighed: a flag wins.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, ValueEnum};
use mssm_domain::SecretText;

use super::environment::Environment;
use super::failure::Failure;

/// Where a server listens unless something else is said.
const DEFAULT_ADDRESS: &str = "https://127.0.0.1:8200";
/// How long one request may take, in seconds; the same as Vault's clients.
const DEFAULT_TIMEOUT_SECS: u64 = 60;

/// How answers are printed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// Aligned columns, for people.
    #[default]
    Table,
    /// The server's JSON, for programs.
    Json,
}

/// Flags that every client command takes.
#[derive(Args, Clone, Debug, Default)]
pub(crate) struct GlobalFlags {
    /// Print as an aligned table or as JSON [env: MSSM_FORMAT]
    #[arg(long, global = true, value_enum, help_heading = "Connection and output")]
    pub(crate) format: Option<Format>,
    /// Print only this field's value, raw
    #[arg(long, global = true, value_name = "NAME", help_heading = "Connection and output")]
    pub(crate) field: Option<String>,
    /// The server's address [env: MSSM_ADDR] [default: https://127.0.0.1:8200]
    #[arg(long, global = true, value_name = "URL", help_heading = "Connection and output")]
    pub(crate) address: Option<String>,
    /// PEM file of the authority to trust [env: MSSM_CACERT] [default: the system's]
    #[arg(long, global = true, value_name = "FILE", help_heading = "Connection and output")]
    pub(crate) ca_cert: Option<PathBuf>,
    /// Do not verify the server's certificate: for experiments only
    #[arg(long, global = true, help_heading = "Connection and output")]
    pub(crate) tls_skip_verify: bool,
    /// Namespace to send, for servers that have them [env: MSSM_NAMESPACE]
    #[arg(long, global = true, value_name = "NAME", help_heading = "Connection and output")]
    pub(crate) namespace: Option<String>,
}

/// Everything the client needs to know before its first request.
#[derive(Debug)]
pub(crate) struct Settings {
    /// `https://host:port`, without a slash at its end.
    pub(crate) address: String,
    /// The token from the environment, if any; token files are read later.
    pub(crate) token: Option<SecretText>,
    /// PEM file of the authority to trust; none means the system's authorities.
    pub(crate) ca_cert: Option<PathBuf>,
    /// Whether the server's certificate goes unverified.
    pub(crate) skip_verify: bool,
    /// Sent as `X-Vault-Namespace`.
    pub(crate) namespace: Option<String>,
    /// The longest that one request may take.
    pub(crate) timeout: Duration,
    /// How answers are printed.
    pub(crate) format: Format,
    /// The folder of token files.
    pub(crate) home: Option<PathBuf>,
}

impl Settings {
    /// Weighs flags against the environment.
    pub(crate) fn resolve(flags: &GlobalFlags, environment: &Environment) -> Result<Self, Failure> {
        let address = flags
            .address
            .clone()
            .or_else(|| environment.client("ADDR"))
            .unwrap_or_else(|| DEFAULT_ADDRESS.to_owned());
        let timeout = match environment.client("CLIENT_TIMEOUT") {
            None => Duration::from_secs(DEFAULT_TIMEOUT_SECS),
            Some(text) => parse_timeout(&text)?,
        };
        let format = match (flags.format, environment.client("FORMAT")) {
            (Some(format), _) => format,
            (None, None) => Format::Table,
            (None, Some(text)) => Format::from_str(&text, true).map_err(|_| {
                Failure::usage(format!(
                    "MSSM_FORMAT (or VAULT_FORMAT) is `{text}`: say table or json"
                ))
            })?,
        };
        Ok(Self {
            address: checked_address(&address)?,
            token: environment
                .client("TOKEN")
                .map(|token| SecretText::new(token.trim().to_owned())),
            ca_cert: flags
                .ca_cert
                .clone()
                .or_else(|| environment.client("CACERT").map(PathBuf::from)),
            skip_verify: flags.tls_skip_verify || is_true(environment.client("SKIP_VERIFY")),
            namespace: flags.namespace.clone().or_else(|| environment.client("NAMESPACE")),
            timeout,
            format,
            home: environment.exact("HOME").map(PathBuf::from),
        })
    }
}

fn checked_address(address: &str) -> Result<String, Failure> {
    let trimmed = address.trim().trim_end_matches('/');
    if trimmed.contains('@') {
        // Not echoed: what stands before an @ may be a password.
        return Err(Failure::usage("the server's address must not hold a user name"));
    }
    if trimmed.starts_with("https://") {
        return Ok(trimmed.to_owned());
    }
    if trimmed.starts_with("http://") {
        return Err(Failure::usage(format!(
            "the server's address `{address}` must begin with https://: nothing was sent, as http:// shows the token to the network"
        )));
    }
    Err(Failure::usage(format!("the server's address `{address}` must begin with https://")))
}

fn is_true(value: Option<String>) -> bool {
    value.is_some_and(|text| matches!(text.to_ascii_lowercase().as_str(), "1" | "t" | "true"))
}

/// Reads `60`, `60s`, `2m` or `1h`.
fn parse_timeout(text: &str) -> Result<Duration, Failure> {
    let (number, scale) =
        match text.trim().split_at(text.trim().trim_end_matches(['s', 'm', 'h']).len()) {
            (number, "" | "s") => (number, 1),
            (number, "m") => (number, 60),
            (number, "h") => (number, 3600),
            (_, _) => ("", 1),
        };
    match number.parse::<u64>().ok().and_then(|count| count.checked_mul(scale)) {
        Some(secs) if secs > 0 => Ok(Duration::from_secs(secs)),
        _ => Err(Failure::usage(format!(
            "MSSM_CLIENT_TIMEOUT is `{text}`: say seconds, or a duration like 90s or 2m"
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resolve(flags: &GlobalFlags, pairs: &[(&str, &str)]) -> Result<Settings, Failure> {
        Settings::resolve(flags, &Environment::of(pairs))
    }

    #[test]
    fn a_flag_wins_over_the_environment_and_the_environment_over_the_default() {
        let pairs = [("MSSM_ADDR", "https://env:1/"), ("VAULT_FORMAT", "json")];
        let flags =
            GlobalFlags { address: Some("https://flag:2".to_owned()), ..GlobalFlags::default() };
        assert_eq!(resolve(&flags, &pairs).unwrap().address, "https://flag:2");
        let from_environment = resolve(&GlobalFlags::default(), &pairs).unwrap();
        assert_eq!(from_environment.address, "https://env:1");
        assert_eq!(from_environment.format, Format::Json);
        assert_eq!(resolve(&GlobalFlags::default(), &[]).unwrap().address, DEFAULT_ADDRESS);
    }

    #[test]
    fn a_timeout_is_seconds_or_a_duration() {
        for (text, secs) in
            [("5", Some(5)), ("90s", Some(90)), ("2m", Some(120)), ("1h", Some(3600))]
        {
            assert_eq!(parse_timeout(text).ok().map(|span| span.as_secs()), secs, "{text}");
        }
        for text in ["", "0", "-1", "soon", "1d", "5ss"] {
            assert!(parse_timeout(text).is_err(), "{text}");
        }
    }

    #[test]
    fn the_token_is_in_no_debug_text() {
        let settings = resolve(&GlobalFlags::default(), &[("MSSM_TOKEN", "s.hidden")]).unwrap();
        assert!(!format!("{settings:?}").contains("hidden"));
    }

    #[test]
    fn an_address_without_a_scheme_or_with_a_user_name_is_refused() {
        for address in ["127.0.0.1:8200", "ftp://x", "https://user:pass@host"] {
            let refused = resolve(&GlobalFlags::default(), &[("MSSM_ADDR", address)]);
            assert!(!refused.unwrap_err().message().contains("pass"), "{address}");
        }
    }

    #[test]
    fn an_address_that_would_show_the_token_is_refused_before_anything_is_sent() {
        for variable in ["MSSM_ADDR", "VAULT_ADDR"] {
            for address in ["http://127.0.0.1:8200", "http://vault.test/"] {
                let refused = resolve(&GlobalFlags::default(), &[(variable, address)]).unwrap_err();
                assert!(refused.message().contains("must begin with https://"), "{address}");
            }
        }
    }

    #[test]
    fn vaults_skip_verify_is_understood() {
        for (value, expected) in [("true", true), ("1", true), ("false", false), ("", false)] {
            let settings =
                resolve(&GlobalFlags::default(), &[("VAULT_SKIP_VERIFY", value)]).unwrap();
            assert_eq!(settings.skip_verify, expected, "{value}");
        }
    }
}
