//! End-to-end tests: the real program, over HTTPS, with a real PostgreSQL and a real MariaDB.

// Everything here is for tests alone, the helpers too.
#[cfg(test)]
mod attack_front;
#[cfg(test)]
mod audit;
#[cfg(test)]
mod audit_devices;
#[cfg(test)]
mod audit_faults;
#[cfg(test)]
mod audit_forged;
#[cfg(test)]
mod audit_people;
#[cfg(test)]
mod audit_refused;
#[cfg(test)]
mod canary;
#[cfg(test)]
mod catalogue;
#[cfg(test)]
mod catalogue_bounds;
#[cfg(test)]
mod catalogue_leaks;
#[cfg(test)]
mod catalogue_lives;
#[cfg(test)]
mod catalogue_names;
#[cfg(test)]
mod cli;
#[cfg(test)]
mod clients;
#[cfg(test)]
mod configured;
#[cfg(test)]
mod coverage;
#[cfg(test)]
mod damage;
#[cfg(test)]
mod disk;
#[cfg(test)]
mod engines;
#[cfg(test)]
mod fields;
#[cfg(test)]
mod front_door;
#[cfg(test)]
mod harness;
#[cfg(test)]
mod hostile;
#[cfg(test)]
mod impostor;
#[cfg(test)]
mod jwt;
#[cfg(test)]
mod kills;
#[cfg(test)]
mod kv;
#[cfg(test)]
mod leases;
#[cfg(test)]
mod main_job;
#[cfg(test)]
mod memory;
#[cfg(test)]
mod mounts;
#[cfg(test)]
mod mysql;
#[cfg(test)]
mod overdue;
#[cfg(test)]
mod overload;
#[cfg(test)]
mod policies;
#[cfg(test)]
mod pooler;
#[cfg(test)]
mod process;
#[cfg(test)]
mod reconcile;
#[cfg(test)]
mod rollback;
#[cfg(test)]
mod rooms;
#[cfg(test)]
mod rotation;
#[cfg(test)]
mod seal;
#[cfg(test)]
mod selftest;
#[cfg(test)]
mod supply;
#[cfg(test)]
mod tokens;
#[cfg(test)]
mod troubles;
#[cfg(test)]
mod upgrade;
#[cfg(test)]
mod victim;
