//! The chained, durable, fail-closed log.
