//! Which kind of database a connection leads to, and by whose rules its SQL is read.

use mssm_messages::engine::EngineError;
use serde::{Deserialize, Serialize};

use crate::lexer::{Token, Unterminated};
use crate::{lexer, mysql, quote, statements};

/// What `plugin_name` is for PostgreSQL.
pub(crate) const POSTGRESQL_PLUGIN: &str = "postgresql-database-plugin";
/// What `plugin_name` may be for MySQL and MariaDB: the same to us, since what a server can do is
/// asked of the server.
const MYSQL_PLUGINS: [&str; 4] = [
    "mysql-database-plugin",
    "mysql-aurora-database-plugin",
    "mysql-rds-database-plugin",
    "mysql-legacy-database-plugin",
];

/// Whose SQL it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Dialect {
    /// PostgreSQL.
    #[default]
    Postgres,
    /// MySQL, or MariaDB while it is not known which.
    MySql,
    /// MariaDB, by the server's own word.
    MariaDb,
}

impl Dialect {
    /// The dialect behind one of Vault's names; an error lists those that there are.
    pub(crate) fn of_plugin(name: &str) -> Result<Self, String> {
        if name == POSTGRESQL_PLUGIN {
            Ok(Self::Postgres)
        } else if MYSQL_PLUGINS.contains(&name) {
            Ok(Self::MySql)
        } else {
            let known = MYSQL_PLUGINS.join(", ");
            Err(format!("unknown plugin_name: there are {POSTGRESQL_PLUGIN}, {known}"))
        }
    }

    /// True if it is PostgreSQL.
    #[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks by reference")]
    pub(crate) fn is_postgres(&self) -> bool {
        *self == Self::Postgres
    }

    /// Digits of a lease's hash that a survey tells logins by; a name on MySQL has room for no more.
    pub(crate) const fn hash_chars(self) -> usize {
        match self {
            Self::Postgres => 24,
            Self::MySql | Self::MariaDb => 14,
        }
    }

    /// All tokens of a text, in order.
    pub(crate) fn lex(self, text: &str) -> Result<Vec<Token<'_>>, Unterminated> {
        match self {
            Self::Postgres => lexer::lex(text),
            Self::MySql | Self::MariaDb => mysql::lexer::lex(text),
        }
    }

    /// The statements of all texts, in order, without empty ones.
    pub(crate) fn split_all(self, texts: &[String]) -> Result<Vec<String>, Unterminated> {
        let split = match self {
            Self::Postgres => statements::split,
            Self::MySql | Self::MariaDb => mysql::statements::split,
        };
        let mut statements = Vec::new();
        for text in texts {
            statements.extend(split(text)?);
        }
        Ok(statements)
    }

    /// A quoted name.
    pub(crate) fn identifier(self, text: &str) -> String {
        match self {
            Self::Postgres => quote::identifier(text),
            Self::MySql | Self::MariaDb => mysql::quote::identifier(text),
        }
    }

    /// A quoted string.
    pub(crate) fn literal(self, text: &str) -> String {
        match self {
            Self::Postgres => quote::literal(text),
            Self::MySql | Self::MariaDb => mysql::quote::literal(text),
        }
    }

    /// An error if a role that was written for one dialect is used on a connection of another.
    pub(crate) fn check_role(self, written_for: Self) -> Result<(), EngineError> {
        if self.is_postgres() == written_for.is_postgres() {
            return Ok(());
        }
        let name = if self.is_postgres() { "PostgreSQL" } else { "MySQL" };
        Err(EngineError::Invalid(format!(
            "the role was written for another kind of database than its connection, which is {name}: write it again"
        )))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn vaults_names_choose_the_dialect_and_others_are_answered_with_what_there_is() {
        assert_eq!(Dialect::of_plugin("postgresql-database-plugin"), Ok(Dialect::Postgres));
        for name in MYSQL_PLUGINS {
            assert_eq!(Dialect::of_plugin(name), Ok(Dialect::MySql), "{name}");
        }
        let error = Dialect::of_plugin("oracle-database-plugin").unwrap_err();
        for name in MYSQL_PLUGINS.iter().chain([&POSTGRESQL_PLUGIN]) {
            assert!(error.contains(name), "{error}");
        }
    }
}
