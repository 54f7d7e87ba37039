//! To kv.
