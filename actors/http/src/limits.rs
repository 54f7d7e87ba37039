//! What one request, one connection and all of them together may take.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use actix_web::http::StatusCode;
use actix_web::web::{Bytes, Payload};
use futures_util::StreamExt;
use mssm_domain::SecretBytes;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, timeout_at};

use crate::error::Refusal;
use crate::rates::Rates;

/// The bounds of the front door.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// The largest body, in bytes. Vault takes 32 MiB and then refuses to store more than 1 MiB.
    pub body_bytes: usize,
    /// All bodies in flight together, in bytes.
    pub bodies_bytes: usize,
    /// How many reads are worked on at once, half as many changes, and half as many logins made.
    pub requests: usize,
    /// How long a read or a change may wait for its turn. Short: what is answered late was better
    /// refused at once, since its caller asks again.
    pub queue: Duration,
    /// How long a login and what ends access may wait for their turn.
    pub patience: Duration,
    /// How fast one client may come.
    pub rates: Rates,
    /// How long the head of a connection's first request may take.
    pub head: Duration,
    /// How long a connection may be idle between requests.
    pub keep_alive: Duration,
    /// How long a body may take.
    pub body: Duration,
    /// From when on a body must keep up [`Self::body_rate`].
    pub body_grace: Duration,
    /// The least rate of a body, in bytes a second.
    pub body_rate: u64,
    /// How long a request may take once its body is there.
    pub request: Duration,
    /// How many connections one worker takes.
    pub connections: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            body_bytes: 2 << 20,
            bodies_bytes: 256 << 20,
            requests: 512,
            queue: Duration::from_millis(20),
            patience: Duration::from_secs(5),
            rates: Rates::default(),
            head: Duration::from_secs(5),
            keep_alive: Duration::from_secs(75),
            body: Duration::from_secs(30),
            body_grace: Duration::from_secs(5),
            body_rate: 1024,
            request: Duration::from_mins(1),
            connections: 4096,
        }
    }
}

/// The largest body of a request without a token, in bytes: shares are small.
pub(crate) const ANONYMOUS: usize = 64 << 10;

/// Places that are kept for what must go on however many ask for the rest.
const VITAL: usize = 256;

/// What waits for what: a flood of one kind takes no place of another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Class {
    /// Unsealing, sealing, and what ends or prolongs access.
    Vital,
    /// What is made in a database.
    Mint,
    /// What else changes something.
    Change,
    /// The rest.
    Read,
}

/// The bounds, and how much of them is taken; one for all workers.
#[derive(Debug)]
pub(crate) struct Gate {
    pub(crate) limits: Limits,
    turns: [Arc<Semaphore>; 4],
    places: usize,
    bodies: Arc<AtomicUsize>,
}

/// A body's part of the budget for all bodies in flight; given back when it is dropped.
#[derive(Debug)]
pub(crate) struct Reservation {
    bodies: Arc<AtomicUsize>,
    bytes: usize,
}

impl Drop for Reservation {
    fn drop(&mut self) {
        self.bodies.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

impl Reservation {
    /// Takes more of the budget, if there is enough left.
    fn grow(&mut self, bytes: usize, budget: usize) -> Result<(), Refusal> {
        let before = self.bodies.fetch_add(bytes, Ordering::Relaxed);
        self.bytes = self.bytes.saturating_add(bytes);
        if before.saturating_add(bytes) > budget {
            let text = "too many request bodies in flight, try again";
            return Err(Refusal::new(StatusCode::TOO_MANY_REQUESTS, text).closing());
        }
        Ok(())
    }
}

impl Gate {
    /// Bounds that nobody has taken anything of.
    pub(crate) fn new(limits: Limits) -> Self {
        let half = limits.requests.div_ceil(2);
        let places = [VITAL, half, half, limits.requests];
        Self {
            limits,
            turns: places.map(|places| Arc::new(Semaphore::new(places))),
            places: places.iter().sum(),
            bodies: Arc::new(AtomicUsize::new(0)),
        }
    }

    /// How many requests are being worked on.
    pub(crate) fn in_flight(&self) -> usize {
        let free = self.turns.iter().map(|turns| turns.available_permits()).sum();
        self.places.saturating_sub(free)
    }

    /// How many bytes of bodies are in flight.
    pub(crate) fn bytes_in_flight(&self) -> usize {
        self.bodies.load(Ordering::Relaxed)
    }

    /// Waits for the request's turn.
    pub(crate) async fn turn(&self, class: Class) -> Result<OwnedSemaphorePermit, Refusal> {
        let [vital, mints, changes, reads] = &self.turns;
        let (turns, wait) = match class {
            Class::Vital => (vital, self.limits.patience),
            Class::Mint => (mints, self.limits.patience),
            Class::Change => (changes, self.limits.queue),
            Class::Read => (reads, self.limits.queue),
        };
        if let Ok(turn) = Arc::clone(turns).try_acquire_owned() {
            return Ok(turn);
        }
        let turn = Arc::clone(turns).acquire_owned();
        if let Ok(Ok(turn)) = tokio::time::timeout(wait, turn).await {
            return Ok(turn);
        }
        let text = "too many requests in flight, try again";
        // The body is read: the connection can go on, which is cheaper than another handshake.
        Err(Refusal::new(StatusCode::TOO_MANY_REQUESTS, text))
    }

    /// Reads a body within all bounds, and at most `most` bytes of it.
    pub(crate) async fn read(
        &self,
        announced: Option<u64>,
        most: usize,
        mut payload: Payload,
    ) -> Result<(SecretBytes, Reservation), Refusal> {
        let limits = &self.limits;
        let too_large = || {
            Refusal::new(StatusCode::PAYLOAD_TOO_LARGE, "http: request body too large").closing()
        };
        let announced = usize::try_from(announced.unwrap_or(0)).unwrap_or(usize::MAX);
        let most = most.min(limits.body_bytes);
        if announced > most {
            return Err(too_large());
        }
        let mut reservation = Reservation { bodies: Arc::clone(&self.bodies), bytes: 0 };
        // What is announced need not come: room is made for a little of it only.
        let mut body = Vec::with_capacity(announced.min(64 << 10));
        let start = Instant::now();
        loop {
            let received = u64::try_from(body.len()).unwrap_or(u64::MAX);
            let deadline = start + allowance(limits, received);
            let chunk: Option<Result<Bytes, _>> =
                timeout_at(deadline, payload.next()).await.map_err(|_| too_slow())?;
            let Some(chunk) = chunk else { break };
            let chunk = chunk.map_err(|_| {
                Refusal::invalid("failed to decode JSON input: unexpected EOF").closing()
            })?;
            if body.len().saturating_add(chunk.len()) > most {
                return Err(too_large());
            }
            reservation.grow(chunk.len(), limits.bodies_bytes)?;
            body.extend_from_slice(&chunk);
        }
        Ok((SecretBytes::new(body), reservation))
    }
}

/// How long a body may have taken once so many bytes are there.
fn allowance(limits: &Limits, received: u64) -> Duration {
    let earned = Duration::from_secs(received.checked_div(limits.body_rate).unwrap_or(0));
    limits.body.min(limits.body_grace.saturating_add(earned))
}

fn too_slow() -> Refusal {
    Refusal::new(StatusCode::REQUEST_TIMEOUT, "the request body came too slowly").closing()
}

#[cfg(test)]
mod tests {
    use actix_web::FromRequest;
    use actix_web::test::TestRequest;

    use super::*;

    async fn read(gate: &Gate, announced: Option<u64>, bytes: usize) -> Result<usize, u16> {
        let (request, mut payload) =
            TestRequest::default().set_payload(vec![b' '; bytes]).to_http_parts();
        let payload = Payload::from_request(&request, &mut payload).await.unwrap();
        match gate.read(announced, usize::MAX, payload).await {
            Ok((body, _)) => Ok(body.expose().len()),
            Err(refusal) => Err(refusal.status.as_u16()),
        }
    }

    #[actix_web::test]
    async fn a_body_has_a_largest_size_announced_or_not() {
        let gate = Gate::new(Limits { body_bytes: 100, ..Limits::default() });
        assert_eq!(read(&gate, Some(100), 100).await, Ok(100));
        assert_eq!(read(&gate, Some(101), 0).await, Err(413));
        assert_eq!(read(&gate, None, 101).await, Err(413));
        assert_eq!(gate.bytes_in_flight(), 0);
    }

    #[actix_web::test]
    async fn all_bodies_together_have_a_budget() {
        let gate = Gate::new(Limits { bodies_bytes: 100, ..Limits::default() });
        assert_eq!(read(&gate, None, 101).await, Err(429));
        assert_eq!(gate.bytes_in_flight(), 0);
        assert_eq!(read(&gate, None, 100).await, Ok(100));
    }

    #[tokio::test(start_paused = true)]
    async fn a_request_waits_for_its_turn_but_not_for_ever() {
        let gate = Gate::new(Limits { requests: 1, ..Limits::default() });
        for class in [Class::Mint, Class::Change, Class::Read] {
            let turn = gate.turn(class).await.unwrap();
            assert_eq!(gate.turn(class).await.unwrap_err().status.as_u16(), 429);
            drop(turn);
            assert!(gate.turn(class).await.is_ok());
        }
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_full_of_one_kind_has_room_for_the_others() {
        let gate = Gate::new(Limits { requests: 2, ..Limits::default() });
        let _reads = [gate.turn(Class::Read).await.unwrap(), gate.turn(Class::Read).await.unwrap()];
        let _mint = gate.turn(Class::Mint).await.unwrap();
        let _change = gate.turn(Class::Change).await.unwrap();
        assert_eq!(gate.in_flight(), 4);
        for class in [Class::Read, Class::Mint, Class::Change] {
            assert!(gate.turn(class).await.is_err(), "{class:?}");
        }
        assert!(gate.turn(Class::Vital).await.is_ok(), "access is ended all the same");
    }

    #[test]
    fn a_body_must_keep_up_a_rate() {
        let limits = Limits::default();
        assert_eq!(allowance(&limits, 0), Duration::from_secs(5));
        assert_eq!(allowance(&limits, 10 * 1024), Duration::from_secs(15));
        assert_eq!(allowance(&limits, 10 << 20), Duration::from_secs(30));
    }
}
