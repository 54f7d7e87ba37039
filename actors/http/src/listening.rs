//! From an accepted socket to requests: the TLS handshake, which may fail, and HTTP over it.

use std::convert::Infallible;
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use actix_http::{HttpService, Protocol};
use actix_server::GracefulShutdownSignal;
use actix_service::{
    IntoServiceFactory, ServiceFactory, ServiceFactoryExt, apply_fn_factory, map_config,
};
use actix_tls::accept::TlsError;
use actix_tls::accept::rustls_0_23::{Acceptor, TlsStream};
use actix_web::dev::{AppConfig, Service};
use actix_web::rt::net::TcpStream;
use actix_web::web::Payload;
use actix_web::{App, HttpRequest, web};
use rustls::ServerConfig;

use crate::call::Headers;
use crate::door::Worker;
use crate::front::front;
use crate::limits::Limits;
use crate::metrics::Handshake;
use crate::paced::Paced;
use crate::places::Place;

/// How long a TLS handshake may take.
const HANDSHAKE: Duration = Duration::from_secs(5);
/// How long a closing connection may linger.
const GOODBYE: Duration = Duration::from_secs(2);

/// What one worker does with each socket that one listener accepts.
pub(crate) fn service(
    worker: Rc<Worker>,
    tls: ServerConfig,
    limits: Limits,
    stopping: GracefulShutdownSignal,
) -> impl ServiceFactory<TcpStream, Config = (), Response = (), Error = (), InitError = ()> {
    let (metrics, refused) = (Arc::clone(&worker.metrics), Arc::clone(&worker.metrics));
    let door = web::to(move |request: HttpRequest, payload: Payload| {
        front(Rc::clone(&worker), request, payload)
    });
    let app = App::new()
        .wrap_fn(|mut request, next| {
            Headers::take_out(&mut request);
            next.call(request)
        })
        .default_service(door);
    let app = app.into_factory().map_err(|error: actix_web::Error| error.error_response());
    let http = HttpService::build()
        .graceful_shutdown_signal(move || {
            let stopping = stopping.clone();
            async move { stopping.notified().await }
        })
        .keep_alive(limits.keep_alive)
        .client_request_timeout(limits.head)
        .client_disconnect_timeout(GOODBYE)
        .on_connect_ext(|stream: &Paced, extensions| {
            if let Some(connection) = stream.connection() {
                extensions.insert(Rc::clone(connection));
            }
        })
        .finish(map_config(app, |()| AppConfig::default()));
    let mut acceptor = Acceptor::new(tls);
    acceptor.set_handshake_timeout(HANDSHAKE);
    let served = acceptor
        .map_err(move |error| metrics.handshake_failed(why(&error)))
        .and_then(|stream: TlsStream<TcpStream>| async {
            let peer = stream.get_ref().0.peer_addr().ok();
            Ok((Paced::new(stream), Protocol::Http1, peer))
        })
        // What goes wrong on a connection is its client's affair.
        .and_then(http.map_err(drop));
    apply_fn_factory(served, move |stream: TcpStream, served| {
        let client = stream.peer_addr().ok();
        let place = client.and_then(|it| Place::take(it.ip(), limits.connections_of_one));
        if place.is_none() {
            refused.handshake_failed(Handshake::TooMany);
        }
        let served = place.is_some().then(|| served.call(stream));
        async move {
            let answered = match served {
                Some(served) => served.await,
                None => Err(()),
            };
            drop(place);
            answered
        }
    })
}

/// Why there was no TLS, in words that no client chooses.
fn why(error: &TlsError<io::Error, Infallible>) -> Handshake {
    let error = match error {
        TlsError::Timeout => return Handshake::TimedOut,
        TlsError::Tls(error) => error,
        TlsError::Service(never) => match *never {},
    };
    match error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()) {
        None => Handshake::BrokenOff,
        Some(rustls::Error::AlertReceived(_)) => Handshake::RefusedByClient,
        Some(rustls::Error::InvalidMessage(_)) => Handshake::NotTls,
        Some(rustls::Error::PeerIncompatible(_)) => Handshake::NothingInCommon,
        Some(_) => Handshake::Wrong,
    }
}
