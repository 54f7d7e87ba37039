//! Every lease, its timer, and revocation that never gives up.
