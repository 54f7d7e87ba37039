//! The decision: what a set of policies allows on a path.
//!
//! Vault's order: the exact path decides if there is one, else the most specific of the patterns
//! that match. Patterns are ranked by [`Rank`]. The same path in several policies is one rule:
//! capabilities together, `deny` alone if it is among them.

use std::cmp::Reverse;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use mssm_domain::PolicyName;
use mssm_domain::policy::{Capabilities, Capability, ParameterRules};
use mssm_messages::access::ResultantAcl;

use super::canonical::canonical;
use super::parse::{Pattern, Policy, Rule};

/// What root may do.
pub(crate) const EVERYTHING: Capabilities = Capabilities::NONE
    .with(Capability::Create)
    .with(Capability::Delete)
    .with(Capability::List)
    .with(Capability::Patch)
    .with(Capability::Read)
    .with(Capability::Sudo)
    .with(Capability::Update);

/// What the decision is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Asked {
    /// A request on the path.
    Request,
    /// A list of what is below the path; its trailing slash may be missing.
    Listing,
    /// What the path allows, for `sys/capabilities`: as a list, but of the path as it stands.
    Capabilities,
}

/// What one path of a set of policies says.
#[derive(Clone, Debug)]
pub(crate) struct Granted {
    /// What is allowed.
    pub(crate) capabilities: Capabilities,
    /// What requests must look like.
    pub(crate) parameters: Option<Arc<ParameterRules>>,
    /// The policies that say so.
    pub(crate) granting: Vec<PolicyName>,
}

/// The rules of a set of policies, ready for decisions. Never changes.
#[derive(Debug, Default)]
pub(crate) struct Acl {
    root: bool,
    exact: HashMap<String, Granted>,
    prefixes: HashMap<String, Granted>,
    /// The lengths of prefixes, longest first, each once.
    lengths: Vec<usize>,
    /// Most specific first.
    segments: Vec<Segments>,
}

/// How specific a pattern is: the greater wins.
///
/// Compared in this order: where its first `+` or `*` stands, not ending in `*`, fewer `+`, longer,
/// and last, so that there is always one winner, later in the alphabet.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Rank {
    pub(super) first_wildcard: usize,
    pub(super) whole: bool,
    pub(super) fewer_segments: Reverse<usize>,
    pub(super) length: usize,
    pub(super) text: String,
}

#[derive(Debug)]
struct Segments {
    rank: Rank,
    granted: Granted,
}

impl Acl {
    /// The rules of these policies together, each with its name.
    pub(crate) fn new<'a>(
        policies: impl IntoIterator<Item = (&'a PolicyName, &'a Policy)>,
    ) -> Self {
        let mut acl = Self::default();
        let mut segments: BTreeMap<String, Granted> = BTreeMap::new();
        let policies: Vec<_> = policies.into_iter().collect();
        // A longer path of another would win over what it may have denied.
        let shut = policies.iter().any(|(_, policy)| policy.unreadable);
        for (name, policy) in policies.into_iter().filter(|(_, policy)| policy.unreadable == shut) {
            for rule in &policy.rules {
                match &rule.pattern {
                    Pattern::Exact(path) => merge(acl.exact.get_mut(path), rule, name)
                        .map(|granted| acl.exact.insert(path.clone(), granted)),
                    Pattern::Prefix(path) => merge(acl.prefixes.get_mut(path), rule, name)
                        .map(|granted| acl.prefixes.insert(path.clone(), granted)),
                    Pattern::Segments(path) => merge(segments.get_mut(path), rule, name)
                        .map(|granted| segments.insert(path.clone(), granted)),
                };
            }
        }
        acl.lengths = acl.prefixes.keys().map(String::len).collect();
        acl.lengths.sort_unstable_by_key(|length| Reverse(*length));
        acl.lengths.dedup();
        acl.segments = segments
            .into_iter()
            .map(|(path, granted)| Segments { rank: Rank::of_segments(&path), granted })
            .collect();
        acl.segments.sort_by(|a, b| b.rank.cmp(&a.rank));
        acl
    }

    /// The rules of root: none, and everything is allowed.
    pub(crate) fn root() -> Self {
        Self { root: true, ..Self::default() }
    }

    /// True if everything is allowed.
    pub(crate) const fn is_root(&self) -> bool {
        self.root
    }

    /// The rule that decides on a path; `None` allows nothing.
    pub(crate) fn decide(&self, path: &str, asked: Asked) -> Option<&Granted> {
        let path = &*canonical(path.trim_start_matches('/'));
        if asked == Asked::Listing && !path.is_empty() && !path.ends_with('/') {
            return self.decide_spelled(&format!("{path}/"), asked);
        }
        self.decide_spelled(path, asked)
    }

    fn decide_spelled(&self, path: &str, asked: Asked) -> Option<&Granted> {
        if let Some(granted) = self.exact.get(path) {
            return Some(granted);
        }
        let Some(bare) = path.strip_suffix('/') else {
            return self.best_pattern(path).map(|(_, granted)| granted);
        };
        // A folder is also the path without its slash: rules for that decide on lists where none
        // names the folder, and where they deny more specifically, on everything.
        let lists = asked != Asked::Request;
        match self.exact.get(bare) {
            Some(granted) if lists || is_deny(granted) => return Some(granted),
            _ => {}
        }
        match (self.best_pattern(path), self.best_pattern(bare)) {
            (Some((rank, _)), Some((bare_rank, bare))) if is_deny(bare) && bare_rank > rank => {
                Some(bare)
            }
            (Some((_, granted)), _) => Some(granted),
            (None, Some((_, bare))) if lists || is_deny(bare) => Some(bare),
            (None, _) => None,
        }
    }

    /// The most specific pattern that matches.
    fn best_pattern(&self, path: &str) -> Option<(Rank, &Granted)> {
        let prefix = self.lengths.iter().find_map(|length| {
            let (text, granted) = self.prefixes.get_key_value(path.get(..*length)?)?;
            Some((Rank::of_prefix(text), granted))
        });
        let segments = self.segments.iter().find(|segments| segments.rank.matches(path));
        let segments = segments.map(|segments| (segments.rank.clone(), &segments.granted));
        match (prefix, segments) {
            (Some(prefix), Some(segments)) if segments.0 < prefix.0 => Some(prefix),
            (prefix, segments) => segments.or(prefix),
        }
    }

    /// True if anything is allowed on the prefix (which ends in a slash) or below it.
    pub(crate) fn reaches_below(&self, prefix: &str) -> bool {
        let allows = |granted: &Granted| !is_deny(granted) && !granted.capabilities.is_empty();
        self.root
            || self.decide(prefix, Asked::Capabilities).is_some_and(allows)
            || self.exact.iter().any(|(path, rule)| path.starts_with(prefix) && allows(rule))
            || self.prefixes.iter().any(|(path, rule)| path.starts_with(prefix) && allows(rule))
            || self
                .segments
                .iter()
                .any(|segments| allows(&segments.granted) && segments.rank.meets(prefix))
    }

    /// All rules, sorted by path.
    pub(crate) fn resultant(&self) -> ResultantAcl {
        let sorted = |rules: &HashMap<String, Granted>| {
            let mut rules: Vec<(String, Capabilities)> =
                rules.iter().map(|(path, rule)| (path.clone(), rule.capabilities)).collect();
            rules.sort_by(|a, b| a.0.cmp(&b.0));
            rules
        };
        let mut patterns = sorted(&self.prefixes);
        patterns.extend(self.segments.iter().map(|segments| {
            let star = if segments.rank.whole { "" } else { "*" };
            (format!("{}{star}", segments.rank.text), segments.granted.capabilities)
        }));
        patterns.sort_by(|a, b| a.0.cmp(&b.0));
        ResultantAcl { root: self.root, exact: sorted(&self.exact), patterns }
    }
}

impl Rank {
    /// Of a pattern that ends in `*` and has no `+`; given without its `*`.
    pub(super) fn of_prefix(prefix: &str) -> Self {
        Self {
            first_wildcard: prefix.len(),
            whole: false,
            fewer_segments: Reverse(0),
            length: prefix.len(),
            text: prefix.to_owned(),
        }
    }

    /// Of a pattern with `+`.
    pub(super) fn of_segments(pattern: &str) -> Self {
        let text = pattern.strip_suffix('*').unwrap_or(pattern);
        Self {
            first_wildcard: pattern.find('+').unwrap_or(pattern.len()),
            whole: text.len() == pattern.len(),
            fewer_segments: Reverse(text.split('/').filter(|segment| *segment == "+").count()),
            length: text.len(),
            text: text.to_owned(),
        }
    }

    /// True if the pattern (with `+`) matches the path.
    fn matches(&self, path: &str) -> bool {
        let mut have = path.split('/');
        let mut want = self.text.split('/').peekable();
        while let Some(segment) = want.next() {
            let Some(given) = have.next() else { return false };
            let last = want.peek().is_none();
            let fits = segment == "+"
                || segment == given
                || (last && !self.whole && given.starts_with(segment));
            if !fits {
                return false;
            }
        }
        !self.whole || have.next().is_none()
    }

    /// True if the pattern (with `+`) could match something below the prefix.
    fn meets(&self, prefix: &str) -> bool {
        let folder = prefix.strip_suffix('/').unwrap_or(prefix);
        let mut want = self.text.split('/').peekable();
        for given in folder.split('/') {
            let Some(segment) = want.next() else { return false };
            let last = want.peek().is_none();
            if last && !self.whole && (segment == "+" || given.starts_with(segment)) {
                return true;
            }
            if segment != "+" && segment != given {
                return false;
            }
        }
        want.peek().is_some()
    }
}

fn is_deny(granted: &Granted) -> bool {
    granted.capabilities.has(Capability::Deny)
}

/// Adds a rule to what is there for its path, or gives what begins there.
fn merge(there: Option<&mut Granted>, rule: &Rule, name: &PolicyName) -> Option<Granted> {
    let demands = |rules: &ParameterRules| (!rules.is_empty()).then(|| Arc::new(rules.clone()));
    let Some(there) = there else {
        return Some(Granted {
            capabilities: rule.capabilities,
            parameters: demands(&rule.parameters),
            granting: vec![name.clone()],
        });
    };
    if is_deny(there) {
        return None;
    }
    if rule.capabilities.has(Capability::Deny) {
        there.capabilities = rule.capabilities;
        there.parameters = None;
        there.granting = vec![name.clone()];
        return None;
    }
    there.capabilities = there.capabilities.union(rule.capabilities);
    if !there.granting.contains(name) {
        there.granting.push(name.clone());
    }
    let mut rules = there.parameters.as_deref().cloned().unwrap_or_default();
    merge_values(&mut rules.allowed, &rule.parameters.allowed);
    merge_values(&mut rules.denied, &rule.parameters.denied);
    for required in &rule.parameters.required {
        if !rules.required.contains(required) {
            rules.required.push(required.clone());
        }
    }
    there.parameters = demands(&rules);
    None
}

/// Values of the same name together; none (any value) stays none.
fn merge_values(into: &mut BTreeMap<String, Vec<String>>, from: &BTreeMap<String, Vec<String>>) {
    for (name, values) in from {
        match into.get_mut(name) {
            Some(there) if there.is_empty() => {}
            Some(there) if values.is_empty() => there.clear(),
            Some(there) => there.extend(values.iter().cloned()),
            None => {
                into.insert(name.clone(), values.clone());
            }
        }
    }
}

#[cfg(test)]
mod tests;
