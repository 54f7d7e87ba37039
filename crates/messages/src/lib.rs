//! What actors say to each other: one module an actor that receives, and the ways to reach it.
//!
//! A message is an imperative, its fields are domain types, its reply is always a `Result`. No
//! message that holds a secret is `Clone`.
//!
//! To add an actor: a module here with its messages, replies and error; then its crate in
//! `actors/`; then its start in `src/wiring.rs`.

pub mod access;
pub mod audit;
mod barrier;
pub mod devices;
pub mod engine;
pub mod failpoint;
mod guard;
pub mod index;
pub mod jwt;
pub mod keys;
pub mod kv;
pub mod lease;
pub mod minter;
pub mod mounts;
mod port;
pub mod reconcile;
pub mod rotation;
pub mod seal;
pub mod storage;

pub use barrier::{Barrier, BarrierError, Change, Changes, Child, Plain};
pub use guard::{Panicked, guarded, guarded_async};
pub use port::{Letter, Port, PortError};
