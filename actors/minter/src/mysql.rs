//! MySQL and MariaDB: what is different where nothing undoes a change of users.
//!
//! A mint is several statements, each of which is final when it is done: what fails is undone by
//! statements of its own, and what is not certain is ended from outside. Every session of ours holds
//! named locks (`locks`), by which any other finds it, ends it, and sees it gone; only then does the
//! absence of a login prove anything.

mod blockers;
pub(crate) mod confirm;
pub(crate) mod dsn;
pub(crate) mod errors;
pub(crate) mod facts;
pub(crate) mod ladder;
pub(crate) mod lexer;
pub(crate) mod locks;
pub(crate) mod marker;
pub(crate) mod mint;
pub(crate) mod password;
pub(crate) mod quote;
pub(crate) mod rolecheck;
pub(crate) mod rotation;
pub(crate) mod selftest;
pub(crate) mod session;
pub(crate) mod statements;
pub(crate) mod survey;
pub(crate) mod sweep;
