//! The real lease manager, minter and store writer against model databases, a disk and a clock that
//! fail, delay, lose answers and crash, all from one seed and in virtual time.
//!
//! `run.rs` is one run and what must hold in it, `boot.rs` one run of the server, `postgres.rs`,
//! `mysql.rs` and `disk.rs` are the world. To add a fault: a chance in the world's `Weather`. To add a rule: a
//! check in `run.rs`.

#[cfg(test)]
mod boot;
#[cfg(test)]
mod disk;
#[cfg(test)]
mod ground;
#[cfg(test)]
mod link;
#[cfg(test)]
mod model;
#[cfg(test)]
mod mysql;
#[cfg(test)]
mod postgres;
#[cfg(test)]
mod run;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod weather;
