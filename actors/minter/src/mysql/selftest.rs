//! What a role's trial asks of a server that cannot undo a rehearsal.

use mssm_messages::engine::EngineError;

use super::lexer::lex;
use super::quote::{account, literal};
use super::rolecheck::mighty;
use crate::engine::DbError;
use crate::lexer::Token;
use crate::pool::Live;

/// Users and their rights over the whole server, but for logins of ours, which come and go.
pub(crate) fn snapshot(when: &str) -> String {
    format!(
        "SELECT '{when}', 'user', CONCAT(User, '@', Host), CONCAT(Super_priv, Create_user_priv, \
         Grant_priv, File_priv, Shutdown_priv) FROM mysql.user \
         WHERE User NOT REGEXP '^v-.*-[A-Za-z0-9]{{20}}$'"
    )
}

/// The rights of a login, its own and those of the roles it can take on, with which access outlives its
/// lease.
pub(crate) async fn rights(live: &Live, username: &str) -> Result<Vec<String>, DbError> {
    let sql = format!("SELECT Host FROM mysql.user WHERE User = {}", literal(username));
    let hosts = live.run(&sql).await?;
    let mut asked: Vec<String> =
        hosts.iter().flatten().flatten().map(|host| account(username, host)).collect();
    let (mut found, mut next) = (Vec::new(), 0);
    while let Some(whose) = asked.get(next) {
        for grant in live.run(&format!("SHOW GRANTS FOR {whose}")).await?.iter().flatten().flatten()
        {
            found.extend(of_grant(grant));
            let more: Vec<String> =
                roles(grant).into_iter().filter(|role| !asked.contains(role)).collect();
            asked.extend(more);
        }
        next += 1;
    }
    found.sort();
    found.dedup();
    Ok(found)
}

/// The roles that a grant hands out, as the server writes them.
fn roles(grant: &str) -> Vec<String> {
    let tokens = lex(grant).unwrap_or_default();
    let words: Vec<&Token<'_>> = tokens.iter().filter(|token| token.counts()).collect();
    let end = words.iter().position(|word| word.is_word("to"));
    let list = end.and_then(|end| words.get(1..end)).unwrap_or_default();
    if list.is_empty() || list.iter().any(|word| word.is_word("on")) {
        return Vec::new();
    }
    list.split(|word| word.text == ",")
        .map(|role| role.iter().map(|word| word.text).collect())
        .collect()
}

fn of_grant(grant: &str) -> Vec<String> {
    let upper = grant.to_ascii_uppercase();
    let list = upper.strip_prefix("GRANT ").unwrap_or_default();
    let list = list.split(" TO ").next().unwrap_or_default();
    mighty(list, upper.contains(" WITH GRANT OPTION") || upper.contains(" WITH ADMIN OPTION"))
}

/// Why a role whose login has such rights is not stored.
pub(crate) fn refuse(rights: &[String]) -> EngineError {
    EngineError::Refused(format!(
        "creation_statements: the login would have {}, which outlives its revocation; \
         allow_privileged=true permits it",
        rights.join(", ")
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grants_as_servers_write_them_are_read() {
        let harmless = [
            "GRANT USAGE ON *.* TO `v-a`@`%` IDENTIFIED BY PASSWORD '*0'",
            "GRANT SELECT, INSERT ON `shop`.* TO `v-a`@`%`",
            "GRANT `reader` TO `v-a`@`%`",
            "GRANT ALL PRIVILEGES ON `shop`.* TO `v-a`@`%`",
        ];
        for grant in harmless {
            assert_eq!(of_grant(grant), Vec::<String>::new(), "{grant}");
        }
        assert_eq!(roles("GRANT `a TO`@`%`,`b`@`h` TO `v-a`@`%`"), ["`a TO`@`%`", "`b`@`h`"]);
        assert_eq!(roles("GRANT `reader` TO `v-a`@`%` WITH ADMIN OPTION"), ["`reader`"]);
        for none in ["GRANT SELECT, INSERT ON `a`.* TO `b`", "SET DEFAULT ROLE `a` FOR `b`", ""] {
            assert_eq!(roles(none), Vec::<String>::new(), "{none}");
        }
        let mighty = [
            ("GRANT ALL PRIVILEGES ON *.* TO `v-a`@`%`", "ALL PRIVILEGES"),
            ("GRANT SELECT, CREATE USER ON *.* TO `v-a`@`%`", "CREATE USER"),
            ("GRANT SYSTEM_USER ON *.* TO `v-a`@`%`", "SYSTEM_USER"),
            ("GRANT INSERT ON `mysql`.`user` TO `v-a`@`%`", "INSERT"),
            ("GRANT SELECT ON `shop`.* TO `v-a`@`%` WITH GRANT OPTION", "GRANT OPTION"),
            ("GRANT `reader` TO `v-a`@`%` WITH ADMIN OPTION", "GRANT OPTION"),
        ];
        for (grant, right) in mighty {
            assert_eq!(of_grant(grant), [right], "{grant}");
        }
    }
}
