//! To mounts.
