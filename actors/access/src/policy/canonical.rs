//! Paths that name a policy: the name in the one spelling that counts.

use std::borrow::Cow;

/// What comes before a policy's name in paths, and in the patterns that can only mean such paths.
const BEFORE_NAMES: [&str; 4] =
    ["sys/policies/acl/", "sys/policy/", "sys/policies/+/", "+/policies/acl/"];

/// The path or pattern with a policy's name in lower case.
///
/// Names of policies are kept in lower case, so `Admin` is `admin` to whoever answers, and must be
/// `admin` to the rules too: a rule for one spelling would say nothing of the other.
pub(super) fn canonical(path: &str) -> Cow<'_, str> {
    let names_policy = BEFORE_NAMES.iter().any(|before| path.starts_with(before));
    if names_policy && path.bytes().any(|byte| byte.is_ascii_uppercase()) {
        Cow::Owned(path.to_ascii_lowercase())
    } else {
        Cow::Borrowed(path)
    }
}
