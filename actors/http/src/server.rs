//! Listening: sockets, workers, TLS, and the way to stop.

use std::cell::RefCell;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use actix_tls::accept::rustls_0_23::TlsStream;
use actix_web::dev::{Server, ServerHandle};
use actix_web::rt::net::TcpStream;
use actix_web::web::Payload;
use actix_web::{App, HttpRequest, HttpServer, web};
use mssm_domain::Clock;
use mssm_messages::Port;
use mssm_messages::audit::{Append, Entry, Event};
use socket2::{Domain, Protocol, Socket, Type};

use crate::connection::{Connection, sweep};
use crate::door::{FrontDoor, Worker};
use crate::front::front;
use crate::limits::{Gate, Limits};
use crate::metrics::Metrics;
use crate::rates::Turnstile;
use crate::tls::{self, Certificate, TlsError};

/// How many connections may wait to be accepted.
const BACKLOG: i32 = 1024;
/// How long a TLS handshake may take.
const HANDSHAKE: Duration = Duration::from_secs(5);
/// How long a closing connection may linger.
const GOODBYE: Duration = Duration::from_secs(2);

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
                    actix_rt::spawn(report(audit, clock, Arc::clone(&metrics)));
                }
                let turnstile = RefCell::new(Turnstile::new(gate.limits.rates));
                Rc::new(Worker { door, gate, turnstile, metrics })
            });
            Rc::clone(worker)
        })
    };
    let mut server = HttpServer::new(move || {
        let worker = make();
        App::new().default_service(web::to(move |request: HttpRequest, payload: Payload| {
            front(Rc::clone(&worker), request, payload)
        }))
    })
    .workers(config.workers.max(1))
    .disable_signals()
    .shutdown_timeout(config.drain.as_secs())
    .max_connections(config.limits.connections)
    // Handshakes that are never finished must not keep others from beginning theirs: what bounds
    // them is the number of connections.
    .max_connection_rate(config.limits.connections)
    .keep_alive(config.limits.keep_alive)
    .client_request_timeout(config.limits.head)
    .client_disconnect_timeout(GOODBYE)
    .tls_handshake_timeout(HANDSHAKE)
    .on_connect(|io, extensions| {
        let stream = io.downcast_ref::<TlsStream<TcpStream>>().map(|stream| stream.get_ref().0);
        if let Some(connection) = stream.and_then(Connection::enter) {
            extensions.insert(connection);
        }
    });
    let tls = tls::config(config.certificate)?;
    let mut addresses = Vec::new();
    for address in config.listen {
        let problem = |problem| ServerError::Listen { address, problem };
        let listener = listener(address).map_err(problem)?;
        addresses.push(listener.local_addr().map_err(problem)?);
        server = server.listen_rustls_0_23(listener, tls.clone()).map_err(problem)?;
    }
    let server = server.run();
    Ok(Running { handle: server.handle(), server, addresses })
}

/// How often refusals are written down, however many there are.
const REPORT: Duration = Duration::from_mins(1);

/// Writes down how many requests were refused without a line of their own, for ever.
async fn report(audit: Port<Append>, clock: Arc<dyn Clock>, metrics: Arc<Metrics>) {
    loop {
        tokio::time::sleep(REPORT).await;
        let refused = metrics.take_refused();
        if refused.is_empty() {
            continue;
        }
        let details = refused.into_iter().map(|(kind, number)| (kind, number.to_string()));
        let event = Event { name: "requests-refused", details: details.collect() };
        let entry = Entry::Event { time: clock.now(), event };
        if !matches!(audit.ask(Append(vec![entry]), REPORT).await, Ok(Ok(()))) {
            tracing::warn!("refused requests could not be written to the audit log");
        }
    }
}

fn listener(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}
