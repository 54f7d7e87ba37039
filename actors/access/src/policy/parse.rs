//! From a policy's text to its rules.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use mssm_domain::parse_duration_secs;
use mssm_domain::policy::{Capabilities, Capability, ParameterRules};

use super::canonical::canonical;
use super::hcl::{Item, Value, read};

/// The longest text.
const TEXT_MAX: usize = 128 * 1024;
/// The most rules in one policy.
const RULES_MAX: usize = 10_000;

/// Capabilities that Vault and its relatives know and that name nothing here.
const FOREIGN_CAPABILITIES: [&str; 3] = ["recover", "scan", "subscribe"];

/// Why a rule with bounds on wrapping is not written.
const UNWRAPPED: &str = "min_wrapping_ttl and max_wrapping_ttl allow only wrapped answers, \
                         and response wrapping is not supported yet";

/// A policy's rules, as written.
#[derive(Clone, Debug, Default)]
pub(crate) struct Policy {
    /// In the order of the text.
    pub(crate) rules: Vec<Rule>,
    /// What its writer should know.
    pub(crate) warnings: Vec<String>,
    /// What it asks for and nothing here keeps: such a text is not written anew. The rule of one that
    /// is stored denies.
    pub(crate) unkept: Option<String>,
    /// Nobody knows what it said: it denies everything, whatever other policies allow.
    pub(crate) unreadable: bool,
}

/// What one `path` block says.
#[derive(Clone, Debug)]
pub(crate) struct Rule {
    /// Where it holds.
    pub(crate) pattern: Pattern,
    /// What it allows; with `Deny` nothing else is in it.
    pub(crate) capabilities: Capabilities,
    /// What requests must look like.
    pub(crate) parameters: ParameterRules,
}

/// The bounds on response wrapping, both in seconds, 0 for none.
#[derive(Default)]
struct Wrapping {
    least: u64,
    most: u64,
}

/// The three kinds of path, each with its text as Vault keeps it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Pattern {
    /// This very path.
    Exact(String),
    /// Every path that begins so; without its `*`.
    Prefix(String),
    /// With `+` for whole segments; a `*` at its end is kept.
    Segments(String),
}

/// The text itself, if it was sent in base64, as Vault allows.
pub(crate) fn decode_text(text: &str) -> String {
    let decoded = STANDARD.decode(text.trim()).ok().and_then(|bytes| String::from_utf8(bytes).ok());
    decoded.unwrap_or_else(|| text.to_owned())
}

impl Policy {
    /// What holds in place of a policy whose record is damaged: nothing is allowed.
    pub(crate) fn deny_everything() -> Self {
        let rule = Rule {
            pattern: Pattern::Prefix(String::new()),
            capabilities: Capabilities::NONE.with(Capability::Deny),
            parameters: ParameterRules::default(),
        };
        Self { rules: vec![rule], unreadable: true, ..Self::default() }
    }

    /// Reads HCL or JSON; the error is for the caller.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        if text.len() > TEXT_MAX {
            return Err(format!("failed to parse policy: longer than {TEXT_MAX} bytes"));
        }
        Self::parse_items(text).map_err(|error| format!("failed to parse policy: {error}"))
    }

    fn parse_items(text: &str) -> Result<Self, String> {
        let mut policy = Self::default();
        for item in read(text)? {
            let mut keys = item.keys.iter();
            match (keys.next().map(String::as_str), keys.next(), keys.next()) {
                (Some("name"), None, None) => {}
                (Some("path"), Some(path), None) => policy.add(path, &item.value)?,
                (Some("path"), None, None) => policy.add_all(&item.value, item.line)?,
                (Some("path"), ..) => {
                    return Err(format!("a path on line {} has more than one name", item.line));
                }
                (key, ..) => return Err(invalid_key(key.unwrap_or_default(), item.line)),
            }
            if policy.rules.len() > RULES_MAX {
                return Err(format!("more than {RULES_MAX} rules"));
            }
        }
        Ok(policy)
    }

    /// JSON's form: an object of paths, or a list of such.
    fn add_all(&mut self, value: &Value, line: usize) -> Result<(), String> {
        match value {
            Value::Object(items) => items.iter().try_for_each(|item| match &item.keys[..] {
                [path] => self.add(path, &item.value),
                _ => Err(format!("a path on line {} has more than one name", item.line)),
            }),
            Value::List(values) => values.iter().try_for_each(|value| self.add_all(value, line)),
            Value::Text(_) | Value::Word(_) => {
                Err(format!("path on line {line} must be followed by rules"))
            }
        }
    }

    fn add(&mut self, path: &str, value: &Value) -> Result<(), String> {
        let items = match value {
            Value::Object(items) => items,
            Value::List(values) => {
                return values.iter().try_for_each(|value| self.add(path, value));
            }
            Value::Text(_) | Value::Word(_) => {
                return Err(format!("path {path:?}: must be followed by rules"));
            }
        };
        // No token has an entity, and Vault passes over templated rules of tokens without one.
        let templated = path.contains("{{");
        let named = |error| format!("path {path:?}: {error}");
        let (mut rule, wrapping) = Rule::parse(path, items, &mut self.warnings).map_err(named)?;
        if wrapping && !rule.capabilities.has(Capability::Deny) {
            rule.deny();
            self.unkept = Some(named(UNWRAPPED.to_owned()));
        }
        if templated {
            self.warnings.push(format!("path {path:?} is templated and matches nothing here"));
        } else {
            self.rules.push(rule);
        }
        Ok(())
    }
}

impl Rule {
    /// The rule, and whether it allows only what is wrapped.
    fn parse(
        path: &str,
        items: &[Item],
        warnings: &mut Vec<String>,
    ) -> Result<(Self, bool), String> {
        let mut rule = Self {
            pattern: Pattern::parse(path)?,
            capabilities: Capabilities::NONE,
            parameters: ParameterRules::default(),
        };
        let mut wrapping = Wrapping::default();
        let mut seen = Vec::new();
        for item in items {
            let [key] = &item.keys[..] else {
                return Err(invalid_key(&item.keys.join(" "), item.line));
            };
            // HCL joins lists that are given twice; what else is given twice is a mistake.
            if key != "capabilities" && seen.contains(&key) {
                return Err(format!("key {key:?} is given twice, again on line {}", item.line));
            }
            seen.push(key);
            rule.set(key, item, &mut wrapping, warnings)?;
        }
        if rule.capabilities.has(Capability::Deny) {
            rule.deny();
        }
        let Wrapping { least, most } = wrapping;
        if most != 0 && most < least {
            return Err("max_wrapping_ttl cannot be less than min_wrapping_ttl".to_owned());
        }
        Ok((rule, least > 0 || most > 0))
    }

    fn deny(&mut self) {
        self.capabilities = Capabilities::NONE.with(Capability::Deny);
        self.parameters = ParameterRules::default();
    }

    fn set(
        &mut self,
        key: &str,
        item: &Item,
        wrapping: &mut Wrapping,
        warnings: &mut Vec<String>,
    ) -> Result<(), String> {
        let value = &item.value;
        match key {
            "comment" => {}
            "policy" => {
                self.capabilities = self.capabilities.union(legacy(&text(key, value)?)?);
            }
            "capabilities" => {
                for name in texts(key, value)? {
                    match Capability::parse(&name) {
                        Some(capability) => self.capabilities = self.capabilities.with(capability),
                        None if FOREIGN_CAPABILITIES.contains(&name.as_str()) => {
                            warnings.push(format!("capability {name:?} grants nothing here"));
                        }
                        None => return Err(format!("invalid capability {name:?}")),
                    }
                }
            }
            "allowed_parameters" => self.parameters.allowed = parameters(key, value)?,
            "denied_parameters" => self.parameters.denied = parameters(key, value)?,
            "required_parameters" => self.parameters.required = texts(key, value)?,
            "min_wrapping_ttl" => wrapping.least = seconds(key, value)?,
            "max_wrapping_ttl" => wrapping.most = seconds(key, value)?,
            _ => return Err(invalid_key(key, item.line)),
        }
        Ok(())
    }
}

impl Pattern {
    fn parse(path: &str) -> Result<Self, String> {
        let path = &*canonical(path.strip_prefix('/').unwrap_or(path));
        if path.contains("+*") {
            return Err("invalid use of wildcards ('+*' is forbidden)".to_owned());
        }
        if path == "+" || path.contains("/+") || path.starts_with("+/") {
            return Ok(Self::Segments(path.to_owned()));
        }
        Ok(match path.strip_suffix('*') {
            Some(prefix) => Self::Prefix(prefix.to_owned()),
            None => Self::Exact(path.to_owned()),
        })
    }
}

fn invalid_key(key: &str, line: usize) -> String {
    format!("invalid key {key:?} on line {line}")
}

/// The words that came before capabilities.
fn legacy(word: &str) -> Result<Capabilities, String> {
    use Capability::{Create, Delete, Deny, List, Read, Sudo, Update};
    let capabilities: &[Capability] = match word {
        "deny" => &[Deny],
        "read" => &[Read, List],
        "write" => &[Create, Read, Update, Delete, List],
        "sudo" => &[Create, Read, Update, Delete, List, Sudo],
        _ => return Err(format!("invalid policy {word:?}")),
    };
    Ok(capabilities.iter().copied().collect())
}

fn text(key: &str, value: &Value) -> Result<String, String> {
    match value {
        Value::Text(text) => Ok(text.clone()),
        _ => Err(format!("{key:?} must be a string")),
    }
}

fn texts(key: &str, value: &Value) -> Result<Vec<String>, String> {
    match value {
        Value::List(values) => values.iter().map(|value| text(key, value)).collect(),
        _ => Err(format!("{key:?} must be a list of strings")),
    }
}

fn seconds(key: &str, value: &Value) -> Result<u64, String> {
    match value {
        Value::Text(text) | Value::Word(text) => {
            parse_duration_secs(text).map_err(|error| format!("{key:?}: {error}"))
        }
        _ => Err(format!("{key:?} must be a duration")),
    }
}

/// Names with lists of values; names in lower case, as Vault compares them.
fn parameters(
    key: &str,
    value: &Value,
) -> Result<std::collections::BTreeMap<String, Vec<String>>, String> {
    let wrong = || format!("{key:?} must map names to lists of values");
    let Value::Object(items) = value else { return Err(wrong()) };
    let mut parameters = std::collections::BTreeMap::new();
    for item in items {
        let ([name], Value::List(values)) = (&item.keys[..], &item.value) else {
            return Err(wrong());
        };
        let values: Result<Vec<String>, String> = values.iter().map(json).collect();
        parameters.insert(name.to_lowercase(), values?);
    }
    Ok(parameters)
}

/// A value as compact JSON text.
fn json(value: &Value) -> Result<String, String> {
    let quoted = |text: &str| serde_json::Value::from(text).to_string();
    Ok(match value {
        Value::Text(text) => quoted(text),
        Value::Word(word) => {
            let value: serde_json::Value = serde_json::from_str(word)
                .map_err(|_| format!("{word:?} is neither a string nor a number"))?;
            value.to_string()
        }
        Value::List(values) => {
            let values: Result<Vec<String>, String> = values.iter().map(json).collect();
            format!("[{}]", values?.join(","))
        }
        Value::Object(items) => {
            let members: Result<Vec<String>, String> = items
                .iter()
                .map(|item| Ok(format!("{}:{}", quoted(&item.keys.join(" ")), json(&item.value)?)))
                .collect();
            format!("{{{}}}", members?.join(","))
        }
    })
}

#[cfg(test)]
mod tests;
