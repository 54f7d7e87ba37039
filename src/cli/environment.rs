//! Reads the client's environment variables: MSSM's own names first, then OpenBao's, then Vault's.

/// The prefixes under which a variable is looked for; the first that is set and not empty wins.
const PREFIXES: [&str; 3] = ["MSSM_", "BAO_", "VAULT_"];

/// Finds a variable's value by its name.
type Lookup = dyn Fn(&str) -> Option<String>;

/// Where variables come from: the process, or a test's table.
pub(crate) struct Environment {
    lookup: Box<Lookup>,
}

impl Environment {
    /// The variables of this process.
    #[expect(
        clippy::disallowed_methods,
        reason = "the command line is a client of its own, with Vault's variable names; the server's settings are read in config"
    )]
    pub(crate) fn of_process() -> Self {
        Self { lookup: Box::new(|name| std::env::var(name).ok()) }
    }

    /// A fixed set of variables.
    #[cfg(test)]
    pub(crate) fn of(pairs: &[(&str, &str)]) -> Self {
        let table: std::collections::BTreeMap<String, String> =
            pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        Self { lookup: Box::new(move |name| table.get(name).cloned()) }
    }

    /// The value of the variable of exactly this name; an empty one counts as unset.
    pub(crate) fn exact(&self, name: &str) -> Option<String> {
        (self.lookup)(name).filter(|value| !value.is_empty())
    }

    /// The value of `MSSM_<suffix>`, or else of its OpenBao and Vault equivalents.
    pub(crate) fn client(&self, suffix: &str) -> Option<String> {
        PREFIXES.iter().find_map(|prefix| self.exact(&format!("{prefix}{suffix}")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mssm_wins_over_openbao_and_openbao_over_vault() {
        let all = [("VAULT_ADDR", "v"), ("BAO_ADDR", "b"), ("MSSM_ADDR", "m")];
        for (taken, expected) in [(1, "v"), (2, "b"), (3, "m")] {
            let environment = Environment::of(&all[..taken]);
            assert_eq!(environment.client("ADDR").as_deref(), Some(expected));
        }
    }

    #[test]
    fn an_empty_variable_is_as_good_as_none() {
        let environment = Environment::of(&[("MSSM_TOKEN", ""), ("VAULT_TOKEN", "t")]);
        assert_eq!(environment.client("TOKEN").as_deref(), Some("t"));
        assert_eq!(environment.client("CACERT"), None);
    }
}
