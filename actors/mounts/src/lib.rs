//! The table that maps a path prefix to an engine.
//!
//! [`MountKeeper`] owns it: one record a mount, every change durable before it is in force, in
//! force on every worker before it is answered. [`MountReplica`] lives on each HTTP worker and hands
//! the table out; while the server is sealed it has none.
//!
//! No mount lies below another, so that a path has one owner. To add a kind of engine that can be
//! mounted: its name in `messages::engine`, its line in `rules::mountable`.

#[cfg(any(fuzzing, test))]
pub mod fuzz;
mod keeper;
mod record;
mod replica;
mod rules;
#[cfg(test)]
mod tests;

pub use keeper::MountKeeper;
pub use replica::MountReplica;
