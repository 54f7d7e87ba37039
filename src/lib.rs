//! MSSM: the Minimal Secure Secrets Manager.
