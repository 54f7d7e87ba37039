//! Tokens, policies and the decision: who asks, and may they.
//!
//! [`AccessKeeper`] is the sole writer of tokens and policies; an [`AccessReplica`] on each HTTP
//! worker answers from what the keeper told it and from records read in place.
//!
//! Invariants:
//! - No token's text is stored or kept: a token is known by its keyed hash.
//! - A token is dead everywhere, durably, before its revocation is answered; what it leaves behind
//!   is named by a record until it is gone.
//! - A policy is in force on every worker before its writing is answered.
//! - A token whose ancestor is dead is dead, whether anybody has got round to it or not.
//!
//! To add a rule of the decision: `policy/acl.rs`, and the same in `policy/reference.rs` by another
//! way. To add an auth method: a module of its own that ends in the keeper's `create`.

mod cache;
#[cfg(any(fuzzing, test))]
pub mod fuzz;
mod keeper;
mod policies;
mod policy;
mod replica;
mod token;
mod words;

pub use keeper::AccessKeeper;
pub use replica::AccessReplica;
