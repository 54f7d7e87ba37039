//! To audit.
