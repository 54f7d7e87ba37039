//! Keeper of the root key and the keyring.
