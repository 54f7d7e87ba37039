//! To minter.
