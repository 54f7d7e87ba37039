//! Tokens, policies and the decision.
