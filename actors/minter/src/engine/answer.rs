//! What a PostgreSQL server is answered that asks for the password: SCRAM, which shows it to nobody.
//!
//! The driver answers whatever it is asked. So the first message of the server is looked at before the driver
//! gets it: after one that asks for SCRAM the driver says nothing that a server could read the password from.

use std::convert::Infallible;
use std::error::Error;
use std::fmt;
use std::future::{Ready, ready};
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready as done};

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_postgres::tls::{ChannelBinding, MakeTlsConnect, TlsConnect, TlsStream};

use crate::dsn::Dsn;
use crate::record::ConnectionRecord;

/// As long as a first message must be to say what it asks for: its letter, length and number.
const HEAD: usize = 9;
/// "You are in", and SCRAM.
const HARMLESS: [[u8; 4]; 2] = [0_u32.to_be_bytes(), 10_u32.to_be_bytes()];

/// A server asked for the password in a form that it could read it from.
#[derive(Debug)]
pub(super) struct AsksInClear;

impl fmt::Display for AsksInClear {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        to.write_str(
            "the server asks for the password in clear text, as MD5 or in another form, and got no answer: SCRAM alone is answered. \
             Let pg_hba.conf there say scram-sha-256, and give the user its password anew under \
             password_encryption = 'scram-sha-256'; password_authentication=password answers all the same, over \
             TLS that is verified or on this machine",
        )
    }
}

impl Error for AsksInClear {}

/// True if a server that [`AsksInClear`] gets its answer: the definition must say so, and nobody may be in between.
pub(super) fn in_clear(dsn: &Dsn, record: &ConnectionRecord) -> bool {
    dsn.is_sure(!record.tls_ca.is_empty()) && record.password_authentication == "password"
}

/// Sessions over a layer below, `T`, in which a server that [`AsksInClear`] is refused.
#[derive(Clone)]
pub(super) struct ScramAlone<T>(pub(super) T);

/// What lies below where there is no TLS.
#[derive(Clone)]
pub(super) struct Bare;

impl<S, T> MakeTlsConnect<S> for ScramAlone<T>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    T: MakeTlsConnect<S>,
    T::TlsConnect: Send + 'static,
    <T::TlsConnect as TlsConnect<S>>::Future: Send + 'static,
{
    type Stream = Watched<T::Stream>;
    type TlsConnect = ScramAlone<T::TlsConnect>;
    type Error = T::Error;

    fn make_tls_connect(&mut self, domain: &str) -> Result<Self::TlsConnect, Self::Error> {
        self.0.make_tls_connect(domain).map(ScramAlone)
    }
}

impl<S, T> TlsConnect<S> for ScramAlone<T>
where
    T: TlsConnect<S>,
    T::Future: Send + 'static,
{
    type Stream = Watched<T::Stream>;
    type Error = T::Error;
    type Future = BoxFuture<'static, Result<Self::Stream, Self::Error>>;

    fn connect(self, stream: S) -> Self::Future {
        let connecting = self.0.connect(stream);
        connecting.map(|made| made.map(|below| Watched { below, head: Vec::new() })).boxed()
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> MakeTlsConnect<S> for Bare {
    type Stream = BareStream<S>;
    type TlsConnect = Self;
    type Error = Infallible;

    fn make_tls_connect(&mut self, _domain: &str) -> Result<Self, Infallible> {
        Ok(Self)
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> TlsConnect<S> for Bare {
    type Stream = BareStream<S>;
    type Error = Infallible;
    type Future = Ready<Result<BareStream<S>, Infallible>>;

    fn connect(self, stream: S) -> Self::Future {
        ready(Ok(BareStream(stream)))
    }
}

/// A stream whose first message is looked at.
pub(super) struct Watched<S> {
    below: S,
    /// What came so far of the first message's head.
    head: Vec<u8>,
}

impl<S> Watched<S> {
    fn look(&mut self, came: &[u8]) -> io::Result<()> {
        let lacks = HEAD.saturating_sub(self.head.len());
        if lacks == 0 {
            return Ok(());
        }
        self.head.extend(came.iter().take(lacks));
        match self.head.as_slice() {
            [b'R', _, _, _, _, asked @ ..]
                if asked.len() == 4 && !HARMLESS.iter().any(|one| one == asked) =>
            {
                Err(io::Error::other(AsksInClear))
            }
            _ => Ok(()),
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Watched<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = into.filled().len();
        done!(Pin::new(&mut self.below).poll_read(context, into))?;
        Poll::Ready(self.look(into.filled().get(before..).unwrap_or_default()))
    }
}

impl<S: TlsStream + Unpin> TlsStream for Watched<S> {
    fn channel_binding(&self) -> ChannelBinding {
        self.below.channel_binding()
    }
}

/// A stream as it is.
pub(super) struct BareStream<S>(S);

impl<S: AsyncRead + Unpin> AsyncRead for BareStream<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(context, into)
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> TlsStream for BareStream<S> {
    fn channel_binding(&self) -> ChannelBinding {
        ChannelBinding::none()
    }
}

macro_rules! writes_below {
    ($stream:ident, $below:tt) => {
        impl<S: AsyncWrite + Unpin> AsyncWrite for $stream<S> {
            fn poll_write(
                mut self: Pin<&mut Self>,
                context: &mut Context<'_>,
                bytes: &[u8],
            ) -> Poll<io::Result<usize>> {
                Pin::new(&mut self.$below).poll_write(context, bytes)
            }

            fn poll_flush(
                mut self: Pin<&mut Self>,
                context: &mut Context<'_>,
            ) -> Poll<io::Result<()>> {
                Pin::new(&mut self.$below).poll_flush(context)
            }

            fn poll_shutdown(
                mut self: Pin<&mut Self>,
                context: &mut Context<'_>,
            ) -> Poll<io::Result<()>> {
                Pin::new(&mut self.$below).poll_shutdown(context)
            }
        }
    };
}

writes_below!(Watched, below);
writes_below!(BareStream, 0);

#[cfg(test)]
mod tests {
    use mssm_domain::{ConnectionId, SecretText};
    use uuid::Uuid;

    use super::*;

    #[test]
    fn clear_text_is_answered_where_the_definition_says_so_and_nobody_is_in_between() {
        for (place, how, answers) in [
            ("db.x", "scram-sha-256", false),
            ("127.0.0.1", "scram-sha-256", false),
            ("db.x", "password", true),
            ("db.x/?sslmode=verify-full", "password", true),
            ("db.x/?sslmode=require", "password", false),
            ("db.x/?sslmode=disable", "password", false),
            ("127.0.0.1,db.x/?sslmode=require", "password", false),
            ("localhost/?sslmode=disable", "password", true),
            ("%2Frun%2Fpostgresql", "password", true),
        ] {
            let mut record = ConnectionRecord::new(ConnectionId::from_uuid(Uuid::nil()));
            record.plugin_name = "postgresql-database-plugin".to_owned();
            record.connection_url = SecretText::new(format!("postgresql://{place}"));
            record.password_authentication = how.to_owned();
            assert_eq!(in_clear(&record.dsn().unwrap(), &record), answers, "{place} {how}");
        }
    }
}
