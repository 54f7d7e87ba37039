//! Watching connections that actix does not: a head that never ends, a reader that never reads.
//!
//! actix bounds the head of a connection's first request and its idle time after an answer. It has
//! no bound for the head of a later request, nor for an answer that nobody takes. So each worker
//! sweeps its connections: one on which no request has been worked on for too long is shut down.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::rc::{Rc, Weak};
use std::task::{Poll, Waker};
use std::time::Duration;

use actix_web::rt::net::TcpStream;
use socket2::{SockRef, Socket};
use tokio::time::Instant;

/// How often a worker looks at its connections.
const SWEEP: Duration = Duration::from_secs(5);

/// So many bytes of answers may wait to be taken before another is made.
const OWED: usize = 16 << 10;

/// So much of what a client sends ahead is read before it is worked on, and of a body. Each request that waits,
/// parsed, takes some 5 KB.
pub(crate) const AHEAD: usize = 1 << 10;
const BODY: usize = 4 << 10;

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
    /// Bytes of answers since all of them were taken, and who waits for that.
    owed: Cell<usize>,
    waiting: Cell<Option<Waker>>,
    /// True while a request is answered, and while its body is read.
    answering: Cell<bool>,
    receiving: Cell<bool>,
    /// Who waits until more is to be read.
    reader: Cell<Option<Waker>>,
}

/// While this lives, what its client has sent ahead is left where it is.
pub(crate) struct Answering(Rc<Connection>);

impl Drop for Answering {
    fn drop(&mut self) {
        self.0.answering.set(false);
        self.0.receiving.set(false);
        self.0.read_on();
    }
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
        let connection = Rc::new(Self {
            socket,
            busy: Cell::new(0),
            rested_at,
            owed: Cell::new(0),
            waiting: Cell::new(None),
            answering: Cell::new(false),
            receiving: Cell::new(false),
            reader: Cell::new(None),
        });
        CONNECTIONS.with_borrow_mut(|all| all.push(Rc::downgrade(&connection)));
        Some(connection)
    }

    /// Says that a request is being worked on.
    pub(crate) fn busy(connection: &Rc<Self>) -> Busy {
        connection.busy.set(connection.busy.get().saturating_add(1));
        Busy(Rc::clone(connection))
    }

    /// Says that a request is answered; there is one at a time.
    pub(crate) fn answering(connection: &Rc<Self>) -> Answering {
        connection.answering.set(true);
        Answering(Rc::clone(connection))
    }

    /// Says whether a request's body is read.
    pub(crate) fn receiving(&self, now: bool) {
        self.receiving.set(now);
        self.read_on();
    }

    /// How much of what comes may be read before it is worked on; `None` while nothing may.
    pub(crate) fn may_read(&self) -> Option<usize> {
        let waits = self.answering.get() || self.owed.get() >= OWED;
        if self.receiving.get() { Some(BODY) } else { (!waits).then_some(AHEAD) }
    }

    /// Wakes this once [`Self::may_read`] may say more.
    pub(crate) fn wake_reader(&self, reader: Waker) {
        self.reader.set(Some(reader));
    }

    fn read_on(&self) {
        if let Some(reader) = self.reader.take() {
            reader.wake();
        }
    }

    /// Waits until there is room for one more answer.
    pub(crate) async fn room(&self) {
        poll_fn(|context| {
            if self.owed.get() < OWED {
                return Poll::Ready(());
            }
            self.waiting.set(Some(context.waker().clone()));
            Poll::Pending
        })
        .await;
    }

    /// An answer of so many bytes is on its way.
    pub(crate) fn owes(&self, bytes: usize) {
        self.owed.set(self.owed.get().saturating_add(bytes));
    }

    /// All answers so far are taken. True if nothing is answered either: what was read has had its turn.
    pub(crate) fn taken(&self) -> bool {
        self.owed.set(0);
        if let Some(waiting) = self.waiting.take() {
            waiting.wake();
        }
        self.read_on();
        !self.answering.get()
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
