//! Envelopes, keyring, shares, hidden names, fingerprints, SCRAM verifiers and audit chains.
