//! The whole minter: on a database that says what it is told to, and on a real one.

mod answering;
mod becoming;
mod besieged;
mod confirming;
mod custom;
mod definitions;
mod estate;
mod fake;
mod fencing;
mod guarding;
mod held;
mod hiding;
mod hijack;
mod laden;
mod moving;
mod mysql;
mod pooling;
mod real;
mod reconciling;
mod renamed;
mod revoking;
mod rotation;
mod splitting;
mod statics;
mod tls;
