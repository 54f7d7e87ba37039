//! The front door: TLS, limits, routing, wire shapes.
//!
//! Every request takes one way ([`serve`]): its head and body are read within bounds and parsed once,
//! it is authenticated, decided, written down, becomes one typed message to one actor, and leaves
//! only when everything it promises is durable. What an answer hands out ends if the answer is lost.
//!
//! Holds no state but counters; sends to every actor; the only room that knows HTTP and JSON on the
//! wire.
//!
//! To add a resource: a file in `resources/`, its arm in `resources::answer`, and, if its verbs
//! change something, nothing more: they are written down before they act.

mod answer;
mod body;
mod call;
mod connection;
mod door;
mod error;
mod form;
mod front;
#[cfg(any(fuzzing, test))]
pub mod fuzz;
mod glance;
mod handed;
mod json;
mod limits;
mod listening;
mod masked;
mod metrics;
mod paced;
mod path;
mod pipeline;
mod places;
mod policy;
mod rates;
mod redact;
mod resources;
mod scan;
mod selfsigned;
mod server;
#[cfg(test)]
mod tests;
mod tls;
mod trail;
mod turns;

pub use door::{
    About, AuditPorts, DevicePorts, FrontDoor, JwtKeeperPorts, JwtPorts, JwtSignerPorts,
    LeasePorts, MinterPorts, SealPorts,
};
pub use limits::Limits;
pub use rates::{Rate, Rates};
pub use selfsigned::ensure as ensure_self_signed;
pub use server::{Refused, Running, ServerConfig, ServerError, serve};
pub use tls::{Certificate, TlsError};
