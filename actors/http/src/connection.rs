//! Watching connections that actix does not: a head that never ends, a reader that never reads.
//!
//! actix bounds the head of a connection's first request and its idle time after an answer. It has
//! no bound for the head of a later request, nor for an answer that nobody takes. So each worker
//! sweeps its connections: one on which no request has been worked on for too long is shut down.

use std::cell::{Cell, RefCell};
use std::rc::{Rc, Weak};
use std::time::Duration;

use actix_web::rt::net::TcpStream;
use socket2::{SockRef, Socket};
use tokio::time::Instant;

/// How often a worker looks at its connections.
const SWEEP: Duration = Duration::from_secs(5);

/// How long a refused caller has to read why.
const FAREWELL: Duration = Duration::from_secs(2);

thread_local! {
    /// The connections of this worker.
    static CONNECTIONS: RefCell<Vec<Weak<Connection>>> = const { RefCell::new(Vec::new()) };
}

/// One connection, as the sweep sees it.
pub(crate) struct Connection {
    /// A second handle on the socket, to shut it down from outside; gone with the connection.
    socket: Socket,
    /// How many requests are being worked on.
    busy: Cell<u32>,
    /// When the last of them was answered.
    rested_at: Cell<Instant>,
}

/// While this lives its connection is busy.
pub(crate) struct Busy(Rc<Connection>);

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.busy.set(self.0.busy.get().saturating_sub(1));
        self.0.rested_at.set(Instant::now());
    }
}

impl Connection {
    /// Enters a new connection into this worker's book; `None` if it cannot be watched.
    pub(crate) fn enter(stream: &TcpStream) -> Option<Rc<Self>> {
        let socket = SockRef::from(stream).try_clone().ok()?;
        let rested_at = Cell::new(Instant::now());
        let connection = Rc::new(Self { socket, busy: Cell::new(0), rested_at });
        CONNECTIONS.with_borrow_mut(|all| all.push(Rc::downgrade(&connection)));
        Some(connection)
    }

    /// Says that a request is being worked on.
    pub(crate) fn busy(connection: &Rc<Self>) -> Busy {
        connection.busy.set(connection.busy.get().saturating_add(1));
        Busy(Rc::clone(connection))
    }

    /// Shuts the connection down a little later, whatever still comes: actix reads the rest of a
    /// chunked body that was refused to its end, which need not have one.
    pub(crate) fn end_soon(connection: &Rc<Self>) {
        let connection = Rc::downgrade(connection);
        actix_rt::spawn(async move {
            tokio::time::sleep(FAREWELL).await;
            if let Some(connection) = connection.upgrade() {
                connection.shut_down();
            }
        });
    }

    fn shut_down(&self) {
        // The dispatcher sees the end of the stream and lets go of the connection.
        let _ = self.socket.shutdown(std::net::Shutdown::Both);
    }

    fn is_stale(&self, now: Instant, patience: Duration) -> bool {
        self.busy.get() == 0 && now.duration_since(self.rested_at.get()) > patience
    }
}

/// Shuts down this worker's stale connections, for ever.
pub(crate) async fn sweep(patience: Duration) {
    loop {
        tokio::time::sleep(SWEEP).await;
        let now = Instant::now();
        CONNECTIONS.with_borrow_mut(|all| {
            all.retain(|weak| {
                let Some(connection) = weak.upgrade() else { return false };
                let stale = connection.is_stale(now, patience);
                if stale {
                    connection.shut_down();
                }
                !stale
            });
        });
    }
}
