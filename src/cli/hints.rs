//! What to do next after a failure: one place, so that every command advises alike.

use super::failure::{Failure, Refusal, Seal};

/// Advice after the server refused.
pub(crate) fn for_refusal(refusal: &Refusal) -> Option<String> {
    let said = |needle: &str| refusal.texts.iter().any(|text| text.contains(needle));
    let path = &refusal.path;
    match refusal.status {
        307 | 308 => Some("this server is a standby: set MSSM_ADDR to the active one".to_owned()),
        400 if said("HTTP request to an HTTPS server") => {
            Some("the server speaks TLS: let MSSM_ADDR begin with https://".to_owned())
        }
        400 | 503 if said("not initialized") => Some(INITIALISE.to_owned()),
        400 if said("already initialized") => {
            Some("its shares were shown when that was done: go on with `mssm operator unseal` (a static key opens it by itself)".to_owned())
        }
        400 if path == "sys/leases/lookup" => Some(
            "no such lease, or it is gone already (`mssm lease revoke -prefix` ends all leases below a path)"
                .to_owned(),
        ),
        400 if said("check-and-set") => Some(
            "somebody else may have written meanwhile: look at `mssm kv metadata get`, then give the current version as -cas"
                .to_owned(),
        ),
        403 if !refusal.with_token => {
            Some("no token was sent: run `mssm login`, or set MSSM_TOKEN".to_owned())
        }
        403 if path == "auth/token/lookup-self" => {
            Some("the token is unknown, has expired or was revoked: run `mssm login` with another".to_owned())
        }
        403 if path.starts_with(MOUNT_QUESTION) => Some(format!(
            "nothing may be mounted at {}: `mssm secrets list`, `mssm secrets enable -path kv kv`; or your token may do nothing there: `mssm token lookup` shows its policies",
            path.trim_start_matches(MOUNT_QUESTION)
        )),
        403 if said("is not an allowed role") => Some(
            "add it to allowed_roles of the connection: `mssm db config write NAME allowed_roles=...`"
                .to_owned(),
        ),
        403 => Some(format!(
            "`mssm token capabilities {path}` shows what your token may do there, `mssm token lookup` whether it still lives"
        )),
        404 if said("no handler for route") => Some(
            "nothing is mounted there: `mssm secrets list` shows what is; `mssm secrets enable -path kv kv` mounts keys and values"
                .to_owned(),
        ),
        405 => Some(format!("{path} exists, but does not take {}", refusal.verb)),
        413 => Some("the request is larger than the server accepts".to_owned()),
        429 => Some("the server is busy or a quota is used up: wait a little and try again".to_owned()),
        501 => Some(INITIALISE.to_owned()),
        503 if said("audit log cannot be written") => Some(
            "`mssm read sys/health` says why (audit_blocked_reason), and so does the server's log; mend that, and the next request is answered".to_owned(),
        ),
        503 if said("sealed") => Some(for_seal(refusal.seal).unwrap_or(LOOK).to_owned()),
        _ => None,
    }
}

/// Where `kv` commands ask which mount a path is on.
const MOUNT_QUESTION: &str = "sys/internal/ui/mounts/";

/// Advice on how the seal stands.
pub(crate) fn for_seal(seal: Seal) -> Option<&'static str> {
    match seal {
        Seal::Unknown => None,
        Seal::New => Some(INITIALISE),
        Seal::Shares => {
            Some("run `mssm operator unseal` once per share; `mssm status` shows the progress")
        }
        Seal::Key => Some(
            "it opens itself with its static key at its start: if the key did not open it, the server's log says why; if it was sealed by hand, restart it",
        ),
    }
}

const LOOK: &str = "run `mssm status`: a new server needs `mssm operator init`, a sealed one `mssm operator unseal`";

const INITIALISE: &str = "the server holds no data yet: run `mssm operator init` once";

/// Names why the server was not reached, with advice; `text` is the transport's own reason.
pub(crate) fn unreachable(address: &str, text: &str) -> Failure {
    let low = text.to_ascii_lowercase();
    let has = |needle: &str| low.contains(needle);
    let hint = if has("unknownissuer") || has("unknown issuer") {
        "the server's certificate is not signed by an authority known here: set MSSM_CACERT to the authority's PEM file"
    } else if has("notvalidforname") || has("not valid for name") {
        "the server's certificate is for another name: set MSSM_ADDR to a name that the certificate holds"
    } else if has("causedasendentity") {
        "the server's certificate is a CA certificate: make one with -addext basicConstraints=critical,CA:FALSE"
    } else if has("expired") {
        "the server's certificate has expired, or this machine's clock is wrong"
    } else if has("certificate") {
        "the server's certificate was refused: check MSSM_CACERT and the name in MSSM_ADDR"
    } else if has("http parse fail") || has("invalid http version") {
        "an MSSM server speaks HTTPS only: let MSSM_ADDR begin with https://"
    } else if has("invalidcontenttype") || has("corrupt message") {
        "the server does not speak TLS: mssm sends no token without it: check MSSM_ADDR"
    } else if has("timeout") || has("timed out") {
        "the server took too long: check MSSM_ADDR, or raise MSSM_CLIENT_TIMEOUT"
    } else {
        "check MSSM_ADDR (or -address), and that the server runs"
    };
    Failure::advised(format!("cannot reach {address}: {text}"), hint)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hint(status: u16, text: &str, with_token: bool) -> String {
        for_refusal(&Refusal {
            status,
            verb: "PUT",
            path: "kv/app".to_owned(),
            with_token,
            texts: vec![text.to_owned()],
            seal: Seal::Unknown,
        })
        .unwrap_or_default()
    }

    #[test]
    fn every_common_refusal_says_what_to_do_next() {
        let cases = [
            (503, "Vault is sealed", true, "run `mssm status`"),
            (
                503,
                "the audit log cannot be written, so the request was refused",
                true,
                "sys/health",
            ),
            (403, "\"x\" is not an allowed role", true, "allowed_roles=..."),
            (503, "server is not initialized", true, "mssm operator init"),
            (403, "permission denied", true, "mssm token capabilities kv/app"),
            (403, "permission denied", false, "mssm login"),
            (404, "no handler for route \"x\"", true, "mssm secrets list"),
            (405, "unsupported operation", true, "does not take PUT"),
            (307, "", true, "MSSM_ADDR"),
            (400, "check-and-set parameter required for this call", true, "-cas"),
            (400, "Client sent an HTTP request to an HTTPS server.", true, "https://"),
        ];
        for (status, text, with_token, expected) in cases {
            assert!(hint(status, text, with_token).contains(expected), "{status} {text}");
        }
    }

    #[test]
    fn a_refused_question_about_the_token_or_the_mount_has_its_own_advice() {
        let refused = |path: &str| Refusal {
            status: 403,
            verb: "GET",
            path: path.to_owned(),
            with_token: true,
            texts: Vec::new(),
            seal: Seal::Unknown,
        };
        let token = for_refusal(&refused("auth/token/lookup-self")).unwrap();
        assert!(token.contains("mssm login"));
        let mount = for_refusal(&refused("sys/internal/ui/mounts/kv/app")).unwrap();
        assert!(mount.contains("mounted at kv/app: `mssm secrets list`"));
    }

    #[test]
    fn what_is_not_understood_gets_no_advice() {
        assert_eq!(hint(500, "internal", true), "");
    }

    #[test]
    fn an_unreached_server_says_which_setting_to_look_at() {
        let cases = [
            ("io: Connection refused", "MSSM_ADDR"),
            ("rustls: invalid peer certificate: UnknownIssuer", "MSSM_CACERT"),
            ("invalid peer certificate: certificate not valid for name", "another name"),
            ("received corrupt message of type InvalidContentType", "check MSSM_ADDR"),
            ("timeout: global", "MSSM_CLIENT_TIMEOUT"),
            ("invalid peer certificate: Other(CaUsedAsEndEntity)", "CA:FALSE"),
            ("http parse fail: invalid HTTP version", "https://"),
        ];
        for (text, expected) in cases {
            let failure = unreachable("https://h", text);
            assert!(failure.hint().unwrap().contains(expected), "{text}");
            assert_eq!(failure.code(), 1);
        }
    }
}
