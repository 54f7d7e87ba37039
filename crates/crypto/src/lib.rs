//! Envelopes, keyring, shares, hidden names, fingerprints, SCRAM verifiers, audit chains and the keys
//! that sign tokens.
//!
//! No actor, no input, no output; time and randomness come in through `mssm_domain`. What is public
//! cannot be misused by its types: nobody outside chooses a nonce, no key prints itself, every
//! key wipes itself. What can be misused lives in `hazmat`, which is private.
//!
//! To add a suite: its primitive in `hazmat`, its published vectors beside it, a number in
//! [`envelope::Suite`] that is never reused. To add a purpose: a label in [`keyring::Label`].

pub mod chain;
mod checksum;
pub mod envelope;
pub mod fingerprint;
mod hazmat;
pub mod jose;
mod key;
pub mod keyring;
pub mod names;
pub mod native;
pub mod proof;
pub mod scram;
pub mod shares;
#[cfg(test)]
mod testing;

pub use checksum::checksum;
pub use key::Key32;
