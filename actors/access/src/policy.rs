//! What policies say: parsed once when written, compiled once for each set of them.

mod acl;
mod canonical;
mod default;
mod hcl;
mod parse;
#[cfg(test)]
mod reference;

pub(crate) use acl::{Acl, Asked, EVERYTHING};
pub(crate) use default::DEFAULT_POLICY;
#[cfg(test)]
pub(crate) use parse::{Pattern, Rule};
pub(crate) use parse::{Policy, decode_text};
