//! What one request, one connection and all of them together may take.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use actix_web::http::StatusCode;
use actix_web::web::{Bytes, Payload};
use futures_util::StreamExt;
use mssm_domain::SecretBytes;
use tokio::time::{Instant, timeout_at};

use crate::error::Refusal;
use crate::rates::Rates;
use crate::turns::{Class, Crowded, Turn, Turns};

/// The bounds of the front door.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// The largest body, in bytes. Vault takes 32 MiB and then refuses to store more than 1 MiB.
    pub body_bytes: usize,
    /// All bodies in flight together, in bytes; as much for answers that wait for their readers.
    pub bodies_bytes: usize,
    /// How many reads are worked on at once, and as many changes.
    pub requests: usize,
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
    /// And how many of those one address may hold.
    pub connections_of_one: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            body_bytes: 2 << 20,
            bodies_bytes: 256 << 20,
            requests: READS_A_CORE * std::thread::available_parallelism().map_or(1, usize::from),
            rates: Rates::default(),
            head: Duration::from_secs(5),
            keep_alive: Duration::from_secs(75),
            body: Duration::from_secs(30),
            body_grace: Duration::from_secs(5),
            body_rate: 1024,
            request: Duration::from_mins(1),
            connections: 4096,
            connections_of_one: 3072,
        }
    }
}

/// More at once than keep a core busy while the disk is waited for only make each other late.
const READS_A_CORE: usize = 32;

/// The largest body that is read for a token of which nobody knows yet whether it lives, in bytes.
pub(crate) const UNPROVEN: usize = 64 << 10;
/// A body of up to so many bytes, of a request or of an answer, counts nowhere: the number of connections bounds them, and
/// what ends access has no larger ones. None without a token is larger: shares are small.
pub(crate) const SMALL: usize = 8 << 10;

/// The bounds, and how much of them is taken; one for all workers.
#[derive(Debug)]
pub(crate) struct Gate {
    pub(crate) limits: Limits,
    pub(crate) turns: Turns,
    bodies: Arc<AtomicUsize>,
    answers: Arc<AtomicUsize>,
}

/// The part of a budget that a body takes, of a request or of an answer; given back when it is dropped.
#[derive(Debug)]
pub(crate) struct Reservation {
    bodies: Arc<AtomicUsize>,
    bytes: usize,
    /// All bodies together may take so much for this one to grow.
    budget: usize,
}

impl Drop for Reservation {
    fn drop(&mut self) {
        self.bodies.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

impl Reservation {
    /// Takes more of the budget, if there is enough left.
    fn grow(&mut self, bytes: usize) -> bool {
        let before = self.bodies.fetch_add(bytes, Ordering::Relaxed);
        self.bytes = self.bytes.saturating_add(bytes);
        before.saturating_add(bytes) <= self.budget
    }
}

impl Gate {
    /// Bounds that nobody has taken anything of.
    pub(crate) fn new(limits: Limits) -> Self {
        let turns = Turns::new(limits.requests);
        Self { limits, turns, bodies: Arc::default(), answers: Arc::default() }
    }

    /// How many bytes of bodies are in flight.
    pub(crate) fn bytes_in_flight(&self) -> usize {
        self.bodies.load(Ordering::Relaxed)
    }

    /// Room for an answer of so many bytes, until it has been sent: a client need not read it.
    pub(crate) fn answer(&self, bytes: usize) -> Result<Option<Reservation>, Refusal> {
        if bytes <= SMALL {
            return Ok(None);
        }
        let (bodies, budget) = (Arc::clone(&self.answers), self.limits.bodies_bytes);
        let mut reservation = Reservation { bodies, bytes: 0, budget };
        if !reservation.grow(bytes) {
            let text = "too many answers wait for their readers, try again";
            return Err(Refusal::new(StatusCode::TOO_MANY_REQUESTS, text));
        }
        Ok(Some(reservation))
    }

    /// Waits for the request's turn.
    pub(crate) async fn turn(&self, class: Class) -> Result<Turn, Crowded> {
        self.turns.take(class).await
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
        let (bodies, budget) = (Arc::clone(&self.bodies), limits.bodies_bytes);
        let mut reservation = Reservation { bodies, bytes: 0, budget };
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
            let counted = |bytes: usize| bytes.saturating_sub(SMALL);
            let more = counted(body.len().saturating_add(chunk.len())) - counted(body.len());
            if !reservation.grow(more) {
                let text = "too many request bodies in flight, try again";
                return Err(Refusal::new(StatusCode::TOO_MANY_REQUESTS, text).closing());
            }
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

/// The refusal of who found no turn. The body is read: the connection can go on, which is cheaper than
/// another handshake.
pub(crate) fn crowded() -> Refusal {
    Refusal::new(StatusCode::TOO_MANY_REQUESTS, "too many requests in flight, try again")
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
        assert_eq!(read(&gate, None, SMALL + 101).await, Err(429));
        assert_eq!(gate.bytes_in_flight(), 0);
        assert_eq!(read(&gate, None, SMALL + 100).await, Ok(SMALL + 100));
    }

    #[test]
    fn a_body_must_keep_up_a_rate() {
        let limits = Limits::default();
        assert_eq!(allowance(&limits, 0), Duration::from_secs(5));
        assert_eq!(allowance(&limits, 10 * 1024), Duration::from_secs(15));
        assert_eq!(allowance(&limits, 10 << 20), Duration::from_secs(30));
    }
}
