//! A stream that gives its requests one after the other, and tells its connection when all answers are taken.
//!
//! actix parses all that a client has sent ahead, 128 KiB of it, and answers without a look at whether the answers
//! before went out: a stranger who sends and never reads had 18 MB of the server for each connection.

use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use actix_tls::accept::rustls_0_23::TlsStream;
use actix_web::rt::net::TcpStream;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::connection::{AHEAD, Connection};

/// TLS over a socket, and the connection that is told of it.
pub(crate) struct Paced {
    stream: TlsStream<TcpStream>,
    connection: Option<Rc<Connection>>,
    /// Bytes since what was read before had its turn.
    given: usize,
}

impl Paced {
    /// Enters a new connection into its worker's book.
    pub(crate) fn new(stream: TlsStream<TcpStream>) -> Self {
        let connection = Connection::enter(stream.get_ref().0);
        Self { stream, connection, given: 0 }
    }

    /// The connection, if it can be watched.
    pub(crate) const fn connection(&self) -> Option<&Rc<Connection>> {
        self.connection.as_ref()
    }
}

impl AsyncRead for Paced {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let Some(connection) = &self.connection else {
            return Pin::new(&mut self.stream).poll_read(cx, buffer);
        };
        let most = match (connection.may_read(), self.given) {
            (Some(most), given) if given < most => most - given,
            // What was read has its turn first.
            (Some(_), _) => {
                self.given = 0;
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            // That its client is gone is seen all the same, unless it has sent more.
            (None, given) if given < AHEAD => AHEAD - given,
            (None, _) => {
                connection.wake_reader(cx.waker().clone());
                return Poll::Pending;
            }
        };
        let most = most.min(buffer.remaining());
        let mut part = ReadBuf::new(buffer.initialize_unfilled_to(most));
        ready!(Pin::new(&mut self.stream).poll_read(cx, &mut part))?;
        let read = part.filled().len();
        buffer.advance(read);
        self.given += read;
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Paced {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        // Asked only once everything is written.
        ready!(Pin::new(&mut self.stream).poll_flush(cx))?;
        let idle = self.connection.as_ref().is_none_or(|connection| connection.taken());
        if idle {
            self.given = 0;
        }
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
