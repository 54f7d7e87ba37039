//! End-to-end tests over HTTPS.
