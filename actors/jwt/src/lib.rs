//! Signed tokens (JWT): sets of keys that rotate, roles that say what is signed, verification,
//! revocation.
//!
//! [`JwtKeeper`] owns what is stored and is the only one to change it; [`JwtSigner`] on every HTTP
//! worker holds what is in force and signs without asking anybody. Invariants:
//!
//! - A key signs only after it has been public for as long as a verifier may keep a copy of the
//!   keys (but the first key of a set, which no copy can have been made for).
//! - A key stays public until the last token that it signed has ended: no token outlives it.
//! - Private keys leave in no answer; those that sign no more are forgotten. Sealed, none is held.
//! - A change is durable and in force on every worker before it is answered.
//!
//! To add an algorithm: its primitive in `crypto::jose`; nothing here knows one by name but the
//! default. To add a placeholder: `template.rs`.

mod claims;
mod keeper;
mod keyset;
mod make;
mod record;
mod role;
mod signer;
mod table;
mod template;
#[cfg(test)]
mod tests;
mod token;

pub use keeper::JwtKeeper;
pub use signer::JwtSigner;
