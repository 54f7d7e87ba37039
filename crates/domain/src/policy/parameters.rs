//! What a rule demands of a request's parameters.

use std::collections::BTreeMap;

/// Demands on the members of a request's body; values are compared as compact JSON text.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ParameterRules {
    /// If not empty, only these names (or `*`) may occur, with these values (none: any value).
    pub allowed: BTreeMap<String, Vec<String>>,
    /// These names (or `*`) may not occur with these values (none: with any value).
    pub denied: BTreeMap<String, Vec<String>>,
    /// These names must occur.
    pub required: Vec<String>,
}

impl ParameterRules {
    /// True if nothing is demanded.
    pub fn is_empty(&self) -> bool {
        self.allowed.is_empty() && self.denied.is_empty() && self.required.is_empty()
    }

    /// True if a request with these members (name, compact JSON text of the value) is in order.
    ///
    /// Names compare without case, as Vault compares them. A listed value that is JSON text with
    /// a `*` at one or both ends of its string matches by prefix, suffix or part.
    pub fn allow(&self, members: &[(&str, &str)]) -> bool {
        let find = |rules: &BTreeMap<String, Vec<String>>, name: &str| {
            rules.iter().find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, v)| v.clone())
        };
        let required = self
            .required
            .iter()
            .all(|name| members.iter().any(|(member, _)| member.eq_ignore_ascii_case(name)));
        if !required {
            return false;
        }
        if self.denied.contains_key("*") && !members.is_empty() {
            return false;
        }
        for (name, value) in members {
            if find(&self.denied, name).is_some_and(|values| listed(&values, value)) {
                return false;
            }
        }
        if self.allowed.is_empty() {
            return true;
        }
        let any = self.allowed.get("*");
        members.iter().all(|(name, value)| match (find(&self.allowed, name), any) {
            (Some(values), _) => listed(&values, value),
            (None, Some(values)) => listed(values, value),
            (None, None) => false,
        })
    }
}

/// True if a value is among those listed; an empty list holds every value.
fn listed(values: &[String], value: &str) -> bool {
    values.is_empty() || values.iter().any(|pattern| matches(pattern, value))
}

fn matches(pattern: &str, value: &str) -> bool {
    let unquote = |text: &str| {
        text.strip_prefix('"').and_then(|text| text.strip_suffix('"')).map(str::to_owned)
    };
    let (Some(glob), Some(text)) = (unquote(pattern), unquote(value)) else {
        return pattern == value;
    };
    match (glob.strip_prefix('*'), glob.strip_suffix('*')) {
        (Some(_), Some(_)) if glob.len() == 1 => true,
        (Some(tail), Some(_)) => text.contains(tail.strip_suffix('*').unwrap_or(tail)),
        (Some(tail), None) => text.ends_with(tail),
        (None, Some(head)) => text.starts_with(head),
        (None, None) => glob == text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules(
        allowed: &[(&str, &[&str])],
        denied: &[(&str, &[&str])],
        required: &[&str],
    ) -> ParameterRules {
        let map = |entries: &[(&str, &[&str])]| {
            entries
                .iter()
                .map(|(name, values)| {
                    ((*name).to_owned(), values.iter().map(|v| format!("\"{v}\"")).collect())
                })
                .collect()
        };
        ParameterRules {
            allowed: map(allowed),
            denied: map(denied),
            required: required.iter().map(|name| (*name).to_owned()).collect(),
        }
    }

    #[test]
    fn parameters_are_held_to_the_rule() {
        let members: &[(&str, &str)] = &[("foo", "\"bar\""), ("n", "1")];
        let cases = [
            (rules(&[], &[], &[]), true),
            (rules(&[("foo", &[]), ("n", &[])], &[], &[]), true),
            (rules(&[("foo", &["bar"]), ("*", &[])], &[], &[]), true),
            (rules(&[("foo", &["baz"]), ("*", &[])], &[], &[]), false),
            (rules(&[("foo", &["b*"]), ("*", &[])], &[], &[]), true),
            (rules(&[("foo", &[])], &[], &[]), false),
            (rules(&[], &[("FOO", &[])], &[]), false),
            (rules(&[], &[("foo", &["baz"])], &[]), true),
            (rules(&[], &[("*", &[])], &[]), false),
            (rules(&[], &[], &["foo"]), true),
            (rules(&[], &[], &["other"]), false),
        ];
        for (rules, allowed) in cases {
            assert_eq!(rules.allow(members), allowed, "{rules:?}");
        }
    }
}
