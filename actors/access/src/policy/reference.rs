//! The decision once more, slow and obvious, written from Vault's documentation: for tests alone.

use std::cmp::Ordering;

use mssm_domain::policy::{Capabilities, Capability};

use super::{Asked, Pattern, Policy, Rule};

/// What the policies allow on the path, if any rule speaks of it.
pub(crate) fn decide(policies: &[Policy], path: &str, asked: Asked) -> Option<Capabilities> {
    let folder = match asked {
        Asked::Listing if !path.ends_with('/') => format!("{path}/"),
        _ => path.to_owned(),
    };
    let bare = folder.strip_suffix('/').map(str::to_owned);
    let listing = asked != Asked::Request;

    let (exact, best) = (exact(policies, &folder), best(policies, &folder));
    let Some(bare) = bare else { return exact.or(best.map(|(_, c)| c)) };
    let (bare_exact, bare_best) = (self::exact(policies, &bare), self::best(policies, &bare));
    let denies = |c: &Capabilities| c.has(Capability::Deny);

    if exact.is_some() {
        return exact;
    }
    if let Some(capabilities) = bare_exact.filter(|c| listing || denies(c)) {
        return Some(capabilities);
    }
    let overruled = match (&best, &bare_best) {
        (Some((pattern, _)), Some((bare, c))) => {
            denies(c) && more_specific(bare, pattern) == Ordering::Greater
        }
        (None, Some((_, c))) => listing || denies(c),
        (_, None) => false,
    };
    if overruled { bare_best.map(|(_, c)| c) } else { best.map(|(_, c)| c) }
}

/// A rule's path as it was written.
fn written(rule: &Rule) -> String {
    match &rule.pattern {
        Pattern::Exact(path) | Pattern::Segments(path) => path.clone(),
        Pattern::Prefix(path) => format!("{path}*"),
    }
}

fn together(policies: &[Policy], path: &str) -> Option<Capabilities> {
    let rules = policies.iter().flat_map(|policy| &policy.rules);
    let same: Vec<Capabilities> =
        rules.filter(|rule| written(rule) == path).map(|rule| rule.capabilities).collect();
    let deny = Capabilities::NONE.with(Capability::Deny);
    if same.contains(&deny) {
        return Some(deny);
    }
    same.into_iter().reduce(Capabilities::union)
}

fn is_pattern(path: &str) -> bool {
    path.ends_with('*') || path.split('/').any(|segment| segment == "+")
}

fn exact(policies: &[Policy], path: &str) -> Option<Capabilities> {
    if is_pattern(path) { None } else { together(policies, path) }
}

fn best(policies: &[Policy], path: &str) -> Option<(String, Capabilities)> {
    let rules = policies.iter().flat_map(|policy| &policy.rules).map(written);
    let winner = rules
        .filter(|pattern| is_pattern(pattern) && matches(pattern, path))
        .max_by(|a, b| more_specific(a, b))?;
    let capabilities = together(policies, &winner)?;
    Some((winner, capabilities))
}

/// Character by character: `+` eats up to the next slash, a `*` at the end eats all.
fn matches(pattern: &str, path: &str) -> bool {
    if pattern == "*" {
        return true;
    }
    let whole_segment = |rest: &str| rest.is_empty() || rest.starts_with('/');
    match (pattern.chars().next(), path.chars().next()) {
        (None, None) => true,
        (Some('+'), _) if whole_segment(&pattern[1..]) => {
            let end = path.find('/').unwrap_or(path.len());
            matches(&pattern[1..], &path[end..])
        }
        (Some(a), Some(b)) if a == b => matches(&pattern[a.len_utf8()..], &path[b.len_utf8()..]),
        _ => false,
    }
}

/// The five rules of priority, one after the other.
fn more_specific(a: &str, b: &str) -> Ordering {
    let first = |p: &str| p.find(['+', '*']).unwrap();
    let glob = |p: &str| p.ends_with('*');
    let pluses = |p: &str| p.trim_end_matches('*').split('/').filter(|s| *s == "+").count();
    let text = |p: &str| p.trim_end_matches('*').to_owned();
    first(a)
        .cmp(&first(b))
        .then(glob(b).cmp(&glob(a)))
        .then(pluses(b).cmp(&pluses(a)))
        .then(text(a).len().cmp(&text(b).len()))
        .then(text(a).cmp(&text(b)))
}
