//! To lease.
