//! Database credentials: connections, roles, pools, the revocation ladder, rotation of passwords.
//!
//! Holds the definitions of connections and roles (in memory only what is in use, and nothing while
//! sealed) and the pools to the databases. Knows nothing of leases but their ids, and nothing of
//! keys: what it stores goes through the barrier, markers are hashed by the key replica.
//!
//! Invariants: a login is made only in the one transaction that also marks it; what went wrong
//! without a clear word of the database is `in doubt`, and is fenced before it counts as absent;
//! no login counts as ended by another server's word; no error says a password; no password is sent
//! that is not stored, nor given up while a backend may still set it.
//!
//! To add a database: its implementation of `engine::Dialer`, its dialect beside `mint` and `ladder`.

mod book;
mod confirm;
mod connections;
mod dialect;
mod dsn;
mod engine;
#[cfg(any(fuzzing, test))]
pub mod fuzz;
mod guard;
mod ladder;
mod lexer;
mod marker;
mod mint;
mod minter;
mod moving;
mod mysql;
mod pool;
mod quote;
mod reconcile;
mod record;
mod rolecheck;
mod roles;
mod rotation;
mod selftest;
mod spec;
mod statements;
mod sweep;
mod template;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;
mod tls;
mod username;

pub use engine::{DbError, Dialer, Refusal, Row, Session};
pub use minter::{LeaseManagerPorts, Minter, MinterConfig};
pub use spec::Spec;
