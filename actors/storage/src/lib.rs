//! Sole writer of the store.
