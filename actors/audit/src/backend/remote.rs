//! Devices that keep nothing here: each batch is carried to somebody else, within a time limit.
//!
//! Such a log begins anew with each start of the server: its chain shows what was lost between two lines.

mod http;
mod socket;
mod syslog;

use std::io::{self, Write};
use std::time::Duration;

pub(crate) use http::Http;
pub(crate) use socket::{Address, Socket};
pub(crate) use syslog::{Syslog, facility};

use super::{AuditBackend, Blocked, Found};

/// How long somebody else may take to be reached, or to take a batch.
const LIMIT: Duration = Duration::from_secs(2);

/// A way to somebody else.
pub(crate) trait Carrier: Send + 'static {
    /// Hands over whole lines, each with its break: all of them, or an error.
    fn carry(&mut self, lines: &[u8]) -> io::Result<()>;

    /// Where they go, for the operator.
    fn place(&self) -> String;
}

/// A device over a carrier.
pub(crate) struct Remote<C>(pub(crate) C);

impl<C: Carrier> AuditBackend for Remote<C> {
    fn open(&mut self, _tail: u64, _each: &mut dyn FnMut(&[u8])) -> Result<Found, Blocked> {
        Ok(Found::default())
    }

    fn append(&mut self, lines: &[u8]) -> Result<(), Blocked> {
        let place = self.0.place();
        self.0.carry(lines).map_err(|error| Blocked(format!("{place} takes nothing: {error}")))
    }

    fn inspect(&mut self) -> Result<(), Blocked> {
        Ok(())
    }

    fn find(&mut self, _seq: u64) -> Result<Option<Vec<u8>>, Blocked> {
        Ok(None)
    }

    fn place(&self) -> String {
        self.0.place()
    }
}

/// The server's standard output. A reader that reads no more holds its thread up, nobody else.
pub(crate) struct Stdout;

impl Carrier for Stdout {
    fn carry(&mut self, lines: &[u8]) -> io::Result<()> {
        let mut out = io::stdout().lock();
        out.write_all(lines)?;
        out.flush()
    }

    fn place(&self) -> String {
        "standard output".to_owned()
    }
}

#[cfg(test)]
mod tests;
