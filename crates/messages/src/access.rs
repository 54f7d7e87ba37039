//! To access.
