//! Listening: sockets, workers, TLS, and the way to stop.

use std::cell::RefCell;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use actix_server::{Server, ServerHandle};
use mssm_domain::Clock;
use mssm_messages::Port;
use mssm_messages::audit::{Append, Entry, Event};
use socket2::{Domain, Protocol, Socket, Type};

use crate::connection::sweep;
use crate::door::{FrontDoor, Glances, Worker};
use crate::limits::{Gate, Limits};
use crate::listening;
use crate::metrics::Metrics;
use crate::rates::Turnstile;
use crate::tls::{self, Certificate, TlsError};

/// What the kernel keeps of an answer that is not read: without a bound up to 4 MiB a connection, until nobody on the
/// machine gets any.
const UNREAD: usize = 128 << 10;
/// How many connections may wait to be accepted.
const BACKLOG: i32 = 1024;

/// Where and how to listen.
pub struct ServerConfig {
    /// The addresses; port 0 takes a free one.
    pub listen: Vec<SocketAddr>,
    /// How many workers; each has its own replicas.
    pub workers: usize,
    /// The certificate.
    pub certificate: Arc<Certificate>,
    /// The bounds.
    pub limits: Limits,
    /// How long requests in flight may take when the server is told to stop.
    pub drain: Duration,
}

/// Why the server does not listen; for the operator.
#[derive(Debug, thiserror::Error)]
pub enum ServerError {
    /// An address cannot be listened on.
    #[error("cannot listen on {address}: {problem}")]
    Listen {
        /// Which.
        address: SocketAddr,
        /// Why.
        problem: io::Error,
    },
    /// The certificate.
    #[error(transparent)]
    Tls(#[from] TlsError),
}

/// A server that listens.
pub struct Running {
    /// Runs while this is polled; ends when the server has stopped.
    pub server: Server,
    /// Stops it: `handle.stop(true)` drains.
    pub handle: ServerHandle,
    /// Where it listens, in the order asked for.
    pub addresses: Vec<SocketAddr>,
    /// What was refused and is not written down yet.
    pub refused: Refused,
}

/// What was refused without a line of its own, by all workers together.
#[derive(Clone, Debug, Default)]
pub struct Refused(Arc<Metrics>);

impl Refused {
    /// The events that say how often and why since this was asked last; none if there is nothing to say.
    pub fn take(&self) -> Vec<Event> {
        let counted = [
            ("requests-refused", self.0.take_refused()),
            ("handshakes-failed", self.0.take_handshakes()),
        ];
        let event = |(name, counts): (_, Vec<(_, u64)>)| {
            let details = counts.into_iter().map(|(why, number)| (why, number.to_string()));
            Event { name, details: details.collect() }
        };
        counted.into_iter().filter(|(_, counts)| !counts.is_empty()).map(event).collect()
    }
}

thread_local! {
    /// This worker's front door: one set of replicas, however many listeners there are.
    static WORKER: RefCell<Option<Rc<Worker>>> = const { RefCell::new(None) };
}

/// Listens. The factory is called once on each worker's own arbiter, where replicas may start.
pub fn serve<F>(config: ServerConfig, factory: F) -> Result<Running, ServerError>
where
    F: Fn() -> FrontDoor + Clone + Send + 'static,
{
    let gate = Arc::new(Gate::new(config.limits));
    let metrics = Arc::new(Metrics::default());
    let refused = Refused(Arc::clone(&metrics));
    // Idle time, one head, and a little: then a connection is stuck, not idle.
    let patience = config.limits.keep_alive + config.limits.head;
    // The first worker speaks for all.
    let reported = Arc::new(AtomicBool::new(false));
    let make = move || {
        WORKER.with_borrow_mut(|slot| {
            let worker = slot.get_or_insert_with(|| {
                actix_rt::spawn(sweep(patience));
                let (gate, metrics) = (Arc::clone(&gate), Arc::clone(&metrics));
                let door = factory();
                if !reported.swap(true, Ordering::Relaxed) {
                    let (audit, clock) = (door.audit.append.clone(), Arc::clone(&door.clock));
                    actix_rt::spawn(report(audit, clock, Refused(Arc::clone(&metrics))));
                }
                let turnstile = RefCell::new(Turnstile::new(gate.limits.rates));
                let glances = Glances::default();
                Rc::new(Worker { door, gate, turnstile, metrics, glances })
            });
            Rc::clone(worker)
        })
    };
    // Handshakes that are never finished must not keep others from beginning theirs: what bounds
    // them is the number of connections.
    actix_tls::accept::max_concurrent_tls_connect(config.limits.connections);
    let mut server = Server::build()
        .workers(config.workers.max(1))
        .disable_signals()
        .shutdown_timeout(config.drain.as_secs())
        .max_concurrent_connections(config.limits.connections);
    let stopping = server.graceful_shutdown_signal();
    let tls = tls::config(config.certificate)?;
    let mut addresses = Vec::new();
    for address in config.listen {
        let problem = |problem| ServerError::Listen { address, problem };
        let listener = listener(address).map_err(problem)?;
        addresses.push(listener.local_addr().map_err(problem)?);
        let (make, tls, stopping) = (make.clone(), tls.clone(), stopping.clone());
        let service =
            move || listening::service(make(), tls.clone(), config.limits, stopping.clone());
        server = server.listen(address.to_string(), listener, service).map_err(problem)?;
    }
    let server = server.run();
    Ok(Running { handle: server.handle(), server, addresses, refused })
}

/// How often refusals are written down, however many there are.
const REPORT: Duration = Duration::from_mins(1);

/// Writes down how much was refused without a line of its own, for ever.
async fn report(audit: Port<Append>, clock: Arc<dyn Clock>, refused: Refused) {
    let mut entries = Vec::new();
    loop {
        tokio::time::sleep(REPORT).await;
        // What could not be written down is said again, and what came since is counted on.
        if entries.is_empty() {
            let events = refused.take().into_iter();
            entries.extend(events.map(|event| Entry::Event { time: clock.now(), event }));
        }
        if entries.is_empty() {
            continue;
        }
        if let Ok(Ok(())) = audit.ask(Append(entries.clone()), REPORT).await {
            entries.clear();
        } else {
            tracing::warn!("what was refused could not be written to the audit log yet");
        }
    }
}

fn listener(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    // Its connections have the same. An answer goes out at once: it would wait for the client's word, 40 ms, that it
    // has the end of the handshake.
    socket.set_tcp_nodelay(true)?;
    socket.set_send_buffer_size(UNREAD)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

#[cfg(test)]
mod tests {
    use mssm_messages::audit::AuditError;
    use mssm_testkit::TestClock;
    use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};
    use tokio::time::Instant;

    use super::*;
    use crate::metrics::Handshake;
    use crate::tests::world::fake;

    /// Counters that are reported, to a log that refuses so many times first.
    fn reported(mut refuses: u32) -> (Arc<Metrics>, UnboundedReceiver<Vec<Entry>>) {
        let (written, log) = unbounded_channel();
        let audit = fake(move |Append(entries)| {
            if refuses > 0 {
                refuses -= 1;
                return Err(AuditError::Blocked("the disk is full".to_owned()));
            }
            written.send(entries).unwrap();
            Ok(())
        });
        let metrics = Arc::new(Metrics::default());
        let refused = Refused(Arc::clone(&metrics));
        actix_rt::spawn(report(audit.into(), Arc::new(TestClock::new()), refused));
        (metrics, log)
    }

    fn told(entries: &[Entry]) -> Vec<(&str, &[(&str, String)])> {
        let told = entries.iter().map(|entry| match entry {
            Entry::Event { event, .. } => (event.name, event.details.as_slice()),
            other => panic!("{other:?}"),
        });
        told.collect()
    }

    #[actix_rt::test]
    async fn handshakes_that_failed_are_written_down_once_a_minute_and_not_when_there_were_none() {
        tokio::time::pause();
        let (metrics, mut log) = reported(0);
        let start = Instant::now();
        for (minute, failed) in [(1, 3), (4, 1)] {
            tokio::time::sleep_until(start + REPORT * minute - Duration::from_secs(1)).await;
            assert!(log.try_recv().is_err(), "nothing before its minute");
            for _ in 0..failed {
                metrics.handshake_failed(Handshake::NotTls);
            }
            let entries = log.recv().await.unwrap();
            assert_eq!(start.elapsed().as_secs(), 60 * u64::from(minute));
            let counted = [("not_tls", failed.to_string())];
            assert_eq!(told(&entries), [("handshakes-failed", counted.as_slice())]);
        }
    }

    #[actix_rt::test]
    async fn requests_that_were_refused_are_one_line_a_minute_however_many_they_were() {
        tokio::time::pause();
        let (metrics, mut log) = reported(0);
        let start = Instant::now();
        for minute in [1, 2] {
            tokio::time::sleep_until(start + REPORT * minute - Duration::from_secs(1)).await;
            assert!(log.try_recv().is_err(), "nothing before its minute");
            for _ in 0..10_000 {
                metrics.refused(429);
            }
            metrics.refused(400);
            let entries = log.recv().await.unwrap();
            assert_eq!(start.elapsed().as_secs(), 60 * u64::from(minute));
            let counted = [("malformed", "1".to_owned()), ("too_many", "10000".to_owned())];
            assert_eq!(told(&entries), [("requests-refused", counted.as_slice())]);
        }
        tokio::time::sleep(REPORT * 3).await;
        assert!(log.try_recv().is_err(), "nothing of minutes in which nothing was refused");
    }

    #[actix_rt::test]
    async fn what_was_refused_while_nothing_could_be_written_down_follows() {
        tokio::time::pause();
        let (metrics, mut log) = reported(2);
        let start = Instant::now();
        metrics.refused(404);
        tokio::time::sleep_until(start + REPORT + Duration::from_secs(1)).await;
        metrics.refused(404);
        for minute in [3, 4] {
            let entries = log.recv().await.unwrap();
            assert_eq!(start.elapsed().as_secs(), 60 * minute);
            let counted = [("no_such_path", "1".to_owned())];
            assert_eq!(told(&entries), [("requests-refused", counted.as_slice())]);
        }
    }
}
