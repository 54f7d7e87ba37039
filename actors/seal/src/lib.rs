//! Keeper of the root key and the keyring.
//!
//! [`SealKeeper`] lives on the system arbiter. It founds the store, collects shares, opens the
//! keyring, hands it to a [`KeyReplica`] on each arbiter that needs keys, rotates and wipes it.
//! Sends `Found`, `Opened` and `Closing` to the owners of state and `InstallAuditKey` to the audit
//! log. Knows nothing of HTTP, tokens or what records say.
//!
//! Invariants
//! - A sealed keeper has no keyring: its state has no field for one.
//! - "Sealed", "unsealed" and "rotated" are replied only after every replica has followed, or is gone.
//! - Founding is one commit: configuration, keyring and all seeds, or nothing.
//! - Changes of state run one after the other; a panic in one seals.
//!
//! To add a kind of seal: a variant of [`RootKeySource`] and of `messages::seal::SealKind`, a number
//! for it in `record.rs`, and its way to the root key in `opening.rs`.

mod attempt;
mod founding;
#[cfg(any(fuzzing, test))]
pub mod fuzz;
mod index;
mod keeper;
mod keyset;
mod opening;
mod record;
mod replica;
mod roster;
mod rotation;
mod state;
#[cfg(test)]
mod tests;
mod vault;

pub use keeper::{KeeperConfig, Link, RootKeySource, SealKeeper};
pub use replica::KeyReplica;
