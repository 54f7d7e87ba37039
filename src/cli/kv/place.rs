//! Finds out which mount a key is on and which version it has, as Vault's client does.

use serde_json::Value;

use super::At;
use crate::cli::call::Call;
use crate::cli::failure::Failure;
use crate::cli::session::Session;

/// What of a versioned secret is addressed.
#[derive(Clone, Copy)]
pub(super) enum Part {
    Data,
    Delete,
    Undelete,
    Destroy,
    Metadata,
}

impl Part {
    fn text(self) -> &'static str {
        match self {
            Self::Data => "data",
            Self::Delete => "delete",
            Self::Undelete => "undelete",
            Self::Destroy => "destroy",
            Self::Metadata => "metadata",
        }
    }
}

/// Where a key is.
pub(super) struct Place {
    /// The mount's path, without a slash at its end.
    mount: String,
    /// The key below it; empty for the mount itself.
    key: String,
    /// Whether the mount keeps versions.
    pub(super) versioned: bool,
}

impl Place {
    /// Asks the server which mount `at` is on.
    pub(super) fn find(at: &At, session: &mut Session<'_>) -> Result<Self, Failure> {
        let given = at.path.trim().trim_matches('/');
        let full = match &at.mount {
            Some(mount) => format!("{}/{given}", mount.trim().trim_matches('/')),
            None => given.to_owned(),
        };
        let call = Call::read(&format!("sys/internal/ui/mounts/{full}"));
        let answer = session.attempt(&call)?;
        if answer.status == 404 {
            // A server without this question: the path is taken as it stands, as Vault's client does.
            return Ok(Self { mount: full, key: String::new(), versioned: false });
        }
        if answer.status >= 300 {
            return Err(session.refused(&call, &answer));
        }
        let data = answer.member("data");
        let version = data.get("options").and_then(|options| options.get("version"));
        let mount = data.get("path").and_then(Value::as_str).unwrap_or_default().trim_matches('/');
        Ok(Self {
            mount: mount.to_owned(),
            key: full.strip_prefix(mount).unwrap_or(&full).trim_matches('/').to_owned(),
            versioned: version.is_some_and(|version| version.as_str() == Some("2")),
        })
    }

    /// The path of a part of a versioned secret.
    pub(super) fn part(&self, part: Part) -> String {
        joined(&[&self.mount, part.text(), &self.key])
    }

    /// The path of a secret without versions.
    pub(super) fn plain(&self) -> String {
        joined(&[&self.mount, &self.key])
    }

    /// The failure of asking for versions where there are none.
    pub(super) fn has_no_versions(&self) -> Failure {
        Failure::advised(
            format!("`{}` is a mount of kv version 1, which keeps no versions", self.mount),
            "`mssm secrets list` shows each mount's version",
        )
    }
}

fn joined(parts: &[&str]) -> String {
    let parts: Vec<&str> = parts.iter().copied().filter(|part| !part.is_empty()).collect();
    parts.join("/")
}
