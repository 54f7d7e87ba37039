//! The front door: TLS, limits, routing, wire shapes.
