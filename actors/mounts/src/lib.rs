//! The table that maps a path prefix to an engine.
