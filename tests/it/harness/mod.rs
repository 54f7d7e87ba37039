//! The ground the tests stand on: a server of their own, a client, a database, and patience.

mod client;
mod database;
mod disk;
mod raw;
mod server;
mod wait;

pub(crate) use client::{Answer, Client};
pub(crate) use database::{CREATE, Database, Login};
pub(crate) use disk::SmallDisk;

pub(crate) use raw::Raw;
pub(crate) use server::{Options, Server, free_port, write_private};
pub(crate) use wait::{Stopwatch, eventually, pass, skipped, stays};
