//! Secrets that stand in the settings themselves, where others may read them.

use toml::Value;

/// The key of the first secret in the settings: a password, or an address with a password in it.
pub(super) fn secret(text: &str) -> Option<String> {
    let settings: toml::Table = text.parse().ok()?;
    settings.iter().find_map(|(name, value)| find(name, value))
}

fn find(key: &str, value: &Value) -> Option<String> {
    let is_one = match value {
        Value::Table(table) => {
            return table.iter().find_map(|(name, value)| find(&format!("{key}.{name}"), value));
        }
        Value::Array(values) => return values.iter().find_map(|value| find(key, value)),
        Value::String(text) => is_password(key) && !text.is_empty() || holds_password(text),
        _ => is_password(key),
    };
    is_one.then(|| key.to_owned())
}

fn is_password(key: &str) -> bool {
    key.ends_with("password")
}

/// True for `scheme://user:password@host`, MySQL's `user:password@tcp(host)` and `password=...`.
fn holds_password(text: &str) -> bool {
    let after = |user: &str| user.split_once(':').is_some_and(|(_, password)| is_told(password));
    let in_url = |rest: &str| {
        let address = rest.split_ascii_whitespace().next().unwrap_or_default();
        address.rsplit_once('@').is_some_and(|(user, _)| after(user))
    };
    text.split("://").skip(1).any(in_url)
        || ["@tcp(", "@unix("]
            .iter()
            .any(|at| text.rsplit_once(at).is_some_and(|(user, _)| after(user)))
        || text.split("password=").skip(1).any(is_told)
}

/// A place that is filled in later tells nothing.
fn is_told(password: &str) -> bool {
    !password.is_empty() && !password.starts_with("{{")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_is_found_wherever_it_stands() {
        for (text, key) in [
            ("[db.connections.a]\npassword = \"x\"", "db.connections.a.password"),
            ("[db.connections.a]\npassword = 7", "db.connections.a.password"),
            ("[db.connections.a]\nroot_password = \"x\"", "db.connections.a.root_password"),
            ("[db.connections.a]\nhost = \"postgres://u:x@h/d\"", "db.connections.a.host"),
            ("[db.connections.a]\nhost = \"postgres://u:x/y@h/d\"", "db.connections.a.host"),
            ("[db.connections.a]\nhost = \"u:x@tcp(h:1)/\"", "db.connections.a.host"),
            ("[db.connections.a]\nhost = \"host=h password=x\"", "db.connections.a.host"),
            ("[db.roles.a]\ncreation = [\"a\", \"b 'https://u:x@h'\"]", "db.roles.a.creation"),
            ("[[db]]\n[[db.list]]\npassword = \"x\"", "db.list.password"),
        ] {
            assert_eq!(secret(text).as_deref(), Some(key), "{text}");
        }
    }

    #[test]
    fn what_names_a_password_holds_none() {
        for text in [
            "[db.connections.a]\npassword_file = \"/etc/x\"\npassword_env = \"X\"\npassword = \"\"",
            "[db.connections.a]\nhost = \"postgres://{{username}}:{{password}}@h/d\"",
            "[db.connections.a]\nhost = \"{{username}}:{{password}}@tcp(h:1)/\"",
            "[db.connections.a]\nhost = \"postgres://u@h:5432/d\"",
            "[server]\napi_addr = \"https://h:8200\"\naddress = \"[::1]:8200\"",
            "[db.roles.password]\ncreation = [\"CREATE USER '{{name}}'@'%' IDENTIFIED BY '{{password}}'\"]",
            "not toml: password = x",
        ] {
            assert_eq!(secret(text), None, "{text}");
        }
    }
}
