//! The one handler behind every path: limits, the body, the deadline, and what is sent.

use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use actix_web::body::{BodySize, BoxBody, MessageBody};
use actix_web::http::{Method, StatusCode, header};
use actix_web::web::{Bytes, Payload};
use actix_web::{HttpRequest, HttpResponse};
use mssm_domain::RequestId;
use mssm_messages::access::{LookupToken, TokenRef};
use mssm_messages::guarded_async;
use tokio::time::Instant;

use crate::answer::Answer;
use crate::body::Body;
use crate::call::{Call, Headers, Media, sent_token};
use crate::connection::Connection;
use crate::door::{FAR, Worker, ask};
use crate::error::Refusal;
use crate::handed::Handed;
use crate::limits::{Reservation, SMALL, UNPROVEN, crowded};
use crate::path::{Address, parse};
use crate::{form, pipeline, resources};

/// What the head of an answer takes, or more.
const HEAD: usize = 512;

/// Answers one request, whatever it is, once its client has taken the answers before.
pub(crate) async fn front(
    worker: Rc<Worker>,
    request: HttpRequest,
    payload: Payload,
) -> HttpResponse {
    let Some(connection) = request.conn_data::<Rc<Connection>>().map(Rc::clone) else {
        return turned(worker, request, payload, None).await;
    };
    let _answering = Connection::answering(&connection);
    connection.room().await;
    let response = turned(worker, request, payload, Some(Rc::clone(&connection))).await;
    let body = match response.body().size() {
        BodySize::Sized(bytes) => usize::try_from(bytes).unwrap_or(usize::MAX),
        BodySize::None | BodySize::Stream => 0,
    };
    connection.owes(body.saturating_add(HEAD));
    response
}

/// Answers it, or turns it away unread.
async fn turned(
    worker: Rc<Worker>,
    request: HttpRequest,
    payload: Payload,
    connection: Option<Rc<Connection>>,
) -> HttpResponse {
    let start = Instant::now();
    if !admitted(&worker, &request, start) {
        worker.metrics.turned_away(start.elapsed());
        worker.metrics.refused(429);
        let text = "rate limit quota exceeded, try again later";
        let refusal = Refusal::new(StatusCode::TOO_MANY_REQUESTS, text);
        // What is left unread cannot be told from the next request.
        let refusal = if has_body(&request) { refusal.closing() } else { refusal };
        return send(refusal.into_answer(), worker.request_id(), false);
    }
    let busy = connection.as_ref().map(Connection::busy);
    let id = worker.request_id();
    let head = request.method() == Method::HEAD;
    let work = respond(Rc::clone(&worker), request, payload, id);
    let answer = guarded_async(work).await.unwrap_or_else(|_| {
        worker.metrics.panicked();
        Refusal::internal("the front door panicked").into_answer()
    });
    drop(busy);
    if let Some(connection) = connection.filter(|_| answer.close) {
        Connection::end_soon(&connection);
    }
    worker.metrics.count(answer.sent_status().as_u16(), start.elapsed());
    send(answer, id, head)
}

/// True if a client does not come too fast; whoever watches the server always may.
fn admitted(worker: &Worker, request: &HttpRequest, now: Instant) -> bool {
    if resources::is_watched(request.method(), request.uri().path()) {
        return true;
    }
    let address = request.peer_addr().map(|address| address.ip());
    let headers = Headers::of(request);
    let token = sent_token(headers.map());
    let vital = resources::vital(request.method(), request.uri().path());
    worker.turnstile.borrow_mut().admits(address, token.map(str::as_bytes), vital, now)
}

fn has_body(request: &HttpRequest) -> bool {
    let headers = Headers::of(request);
    let headers = headers.map();
    let announced = headers.get(header::CONTENT_LENGTH).is_some_and(|value| value != "0");
    announced || headers.contains_key(header::TRANSFER_ENCODING)
}

async fn respond(
    worker: Rc<Worker>,
    request: HttpRequest,
    payload: Payload,
    id: RequestId,
) -> Answer {
    let mut call = match address(&request, id) {
        Err(refusal) => return unwritten(&worker, refusal),
        Ok(None) => return unwritten(&worker, Refusal::not_found()),
        Ok(Some(call)) => call,
    };
    let connection = request.conn_data::<Rc<Connection>>();
    connection.inspect(|it| it.receiving(true));
    let received = receive(&worker, payload, &call).await;
    connection.inspect(|it| it.receiving(false));
    match received {
        Ok(body) => {
            call.body = body;
            limited(worker, call).await
        }
        // The path is known now, so this is written down, unless anybody at all may send it.
        Err(refusal) if call.token.is_some() && !refusal.is_sealed() => {
            pipeline::unreadable(&worker, &call, refusal).await
        }
        Err(refusal) => unwritten(&worker, refusal),
    }
}

/// A refusal that has no line of its own in the audit log; it is counted there.
fn unwritten(worker: &Worker, refusal: Refusal) -> Answer {
    let answer = refusal.into_answer();
    worker.metrics.refused(answer.sent_status().as_u16());
    answer
}

/// Parses the head; `None` for what lies outside of the API.
fn address(request: &HttpRequest, id: RequestId) -> Result<Option<Call>, Refusal> {
    // The raw path: what actix offers beside it is decoded with losses.
    let path = match parse(request.uri().path()) {
        Ok(Address::Api(path)) => path,
        Ok(Address::Elsewhere) => return Ok(None),
        Err(error) => return Err(Refusal::invalid(error.to_string())),
    };
    let call = Call::parse(request, id, path)?;
    if request.method() == Method::HEAD && !resources::answers_head(&call) {
        return Err(Refusal::unsupported_operation());
    }
    Ok(Some(call))
}

/// Reads the body of who may have one read.
async fn receive(worker: &Worker, payload: Payload, call: &Call) -> Result<Body, Refusal> {
    // Without a token nothing but the open paths is answered, so there is no body worth reading.
    if !call.verb.has_body() || !(call.token.is_some() || resources::is_open(call)) {
        return Ok(Body::empty());
    }
    let headers = call.headers.map();
    let announced = headers.get(header::CONTENT_LENGTH);
    let announced = announced.and_then(|value| value.to_str().ok()?.parse().ok());
    let chunked = headers.contains_key(header::TRANSFER_ENCODING);
    let most = match &call.token {
        // Anybody can make up a token: what is more than a little is read for one that lives.
        Some(token) if chunked || announced.is_some_and(|bytes| bytes > UNPROVEN as u64) => {
            let question = LookupToken(TokenRef::Secret(token.duplicate()));
            let living = ask(&worker.door.tokens.lookup, question, FAR).await;
            living.map_err(|refusal| refusal.into_no_token().closing())?;
            usize::MAX
        }
        Some(_) => usize::MAX,
        None => SMALL,
    };
    let (bytes, reservation) = worker.gate.read(announced, most, payload).await?;
    let bytes = if call.media == Media::Form { form::into_json(bytes)? } else { bytes };
    Body::parse(bytes, Some(reservation))
}

/// Waits for the request's turn and works on it, both within their time.
async fn limited(worker: Rc<Worker>, call: Call) -> Answer {
    // Whoever watches the server is answered even when it is full.
    let turn = if resources::is_watching(&call) {
        None
    } else {
        match worker.gate.turn(resources::class(&worker, &call).await).await {
            Ok(turn) => Some(turn),
            Err(none) => {
                // Its body's part of the budget is for others from now on.
                drop(call);
                none.hold_up().await;
                return unwritten(&worker, crowded());
            }
        }
    };
    let deadline = worker.gate.limits.request;
    let id = call.id;
    let answer = tokio::time::timeout(deadline, pipeline::answer(worker, call)).await;
    drop(turn);
    answer.unwrap_or_else(|_| {
        tracing::error!(request = %id, "request took too long");
        let text = "no answer within the time limit; the outcome is unknown";
        Refusal::new(StatusCode::SERVICE_UNAVAILABLE, text).into_answer()
    })
}

/// Turns an answer into what goes over the wire.
fn send(mut answer: Answer, id: RequestId, head: bool) -> HttpResponse {
    let status = answer.sent_status();
    let mut response = HttpResponse::build(status);
    let cache = match answer.max_age {
        Some(seconds) => format!("public, max-age={seconds}"),
        None => "no-store".to_owned(),
    };
    response
        .insert_header((header::CACHE_CONTROL, cache))
        .insert_header((header::STRICT_TRANSPORT_SECURITY, "max-age=31536000; includeSubDomains"))
        .insert_header((header::X_CONTENT_TYPE_OPTIONS, "nosniff"));
    if matches!(status, StatusCode::TOO_MANY_REQUESTS) {
        response.insert_header((header::RETRY_AFTER, "1"));
    }
    if answer.close {
        response.force_close();
    }
    let (handed, held) = (answer.handed.take(), answer.held.take());
    let Some(text) = answer.render(id) else { return response.finish() };
    response.insert_header((header::CONTENT_TYPE, answer.content_type()));
    if head {
        return response.finish();
    }
    // EXPOSE: the caller is who it is for.
    let bytes = Bytes::copy_from_slice(text.expose().as_bytes());
    if handed.is_none() && held.is_none() {
        return response.body(bytes);
    }
    response.body(BoxBody::new(Watched { bytes: Some(bytes), handed, _held: held }))
}

/// A body whose loss ends what was handed out with it, and that counts until its last byte is on its way.
struct Watched {
    bytes: Option<Bytes>,
    handed: Option<Handed>,
    _held: Option<Reservation>,
}

impl MessageBody for Watched {
    type Error = std::convert::Infallible;

    fn size(&self) -> BodySize {
        BodySize::Sized(self.bytes.as_ref().map_or(0, |bytes| bytes.len() as u64))
    }

    fn poll_next(
        mut self: Pin<&mut Self>,
        _cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Bytes, Self::Error>>> {
        let bytes = self.bytes.take();
        if bytes.is_none() {
            // Asked for more after the last byte: all of them are on their way.
            self.handed.iter_mut().for_each(Handed::delivered);
        }
        Poll::Ready(bytes.map(Ok))
    }
}
