//! Database credentials: connections, roles, pools, the revocation ladder.
