//! Keeps the token that `login` was given: a file of its owner's alone in the home folder.

use std::fs;
use std::io::Write;
use std::path::PathBuf;

use mssm_domain::SecretText;

use super::failure::Failure;

/// The file that `login` writes.
const OWN: &str = ".mssm-token";
/// Files that are read, in this order; Vault's own is never written.
const READ: [&str; 2] = [OWN, ".vault-token"];

/// The token files below a home folder.
pub(crate) struct TokenFiles {
    home: Option<PathBuf>,
}

impl TokenFiles {
    /// The files below `home`; without a home there are none.
    pub(crate) fn below(home: Option<PathBuf>) -> Self {
        Self { home }
    }

    /// The first token found.
    pub(crate) fn load(&self) -> Option<SecretText> {
        let home = self.home.as_ref()?;
        READ.iter().find_map(|name| {
            let text = SecretText::new(fs::read_to_string(home.join(name)).ok()?);
            // EXPOSE: only the white space around it is looked at and taken off.
            let trimmed = text.expose().trim();
            (!trimmed.is_empty()).then(|| SecretText::new(trimmed.to_owned()))
        })
    }

    /// Writes the token for its owner's eyes alone (0600); answers where.
    pub(crate) fn store(&self, token: &SecretText) -> Result<PathBuf, Failure> {
        let home = self.home.as_ref().ok_or_else(|| {
            Failure::advised(
                "there is no home folder to keep the token in",
                "set HOME, or use MSSM_TOKEN",
            )
        })?;
        let path = home.join(OWN);
        let fresh = home.join(format!("{OWN}.new"));
        // A new file in place of the old one: it is never readable to others, not even for a moment,
        // and a link that somebody laid there is not followed.
        let written = Self::write_fresh(&fresh, token).and_then(|()| fs::rename(&fresh, &path));
        written
            .map_err(|error| Failure::usage(format!("cannot write {}: {error}", path.display())))?;
        Ok(path)
    }

    fn write_fresh(path: &PathBuf, token: &SecretText) -> std::io::Result<()> {
        match fs::remove_file(path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let mut options = fs::OpenOptions::new();
        options.write(true).create_new(true);
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        let mut file = options.open(path)?;
        // EXPOSE: keeping the token is what `login` is for.
        file.write_all(token.expose().as_bytes())?;
        file.sync_all()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[cfg(unix)]
    #[test]
    fn a_stored_token_is_its_owners_alone_and_comes_back() {
        use std::os::unix::fs::PermissionsExt;
        let home = tempfile::tempdir().unwrap();
        let files = TokenFiles::below(Some(home.path().to_owned()));
        fs::write(home.path().join(OWN), "old, and readable to all").unwrap();
        let path = files.store(&SecretText::new("s.new".to_owned())).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(files.load().unwrap().expose(), "s.new");
    }

    #[test]
    fn our_own_file_wins_over_vaults() {
        let home = tempfile::tempdir().unwrap();
        let files = TokenFiles::below(Some(home.path().to_owned()));
        assert!(files.load().is_none());
        fs::write(home.path().join(".vault-token"), "s.vault\n").unwrap();
        assert_eq!(files.load().unwrap().expose(), "s.vault");
        fs::write(home.path().join(OWN), "s.own").unwrap();
        assert_eq!(files.load().unwrap().expose(), "s.own");
    }

    #[test]
    fn without_a_home_nothing_is_kept() {
        assert!(TokenFiles::below(None).store(&SecretText::new("s.x".to_owned())).is_err());
    }
}
