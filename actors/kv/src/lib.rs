//! Versioned static secrets.
