//! Long-polling: GET and POST onto a session.
//!
//! A GET is answered as soon as there is anything to send, with everything that waits. A POST is
//! answered when its last packet was handed on, so a handler that pauses holds the client back.
//! Whoever leaves in the midst of either has left its session.

use std::pin::pin;

use futures_util::future::{Either, select};

use super::{Closed, Connection, Mount, Response, turns};
use crate::engine::{CloseReason, Engine, Key, Outcome, Refusal, Transport};
use crate::wire::Text;
use crate::wire::engine_io::decode_payload;
use crate::wire::http::RequestHead;

/// Answers a GET of a session whose transport is polling, as soon as there is anything to send.
/// Also the first one, right after the session was opened.
///
/// The answer goes out through [`Connection::respond`]; `Err` ends the connection.
pub async fn get(
    connection: &mut Connection,
    mount: &Mount,
    key: Key,
    request: &RequestHead,
) -> Result<(), Closed> {
    let engine = &mount.engine;
    if let Err(refusal) = engine.begin_poll(key) {
        return connection.respond(request, refused(refusal)).await;
    }
    // Dropped before it is disarmed, this ends the session.
    let pending = Pending::new(engine, key, Engine::abort_poll);
    let payload = loop {
        if let Some(payload) = engine.take_payload(key) {
            break payload;
        }
        wait(connection, engine, key).await?;
    };
    let mut response = Response::with_body(200, "text/plain; charset=UTF-8", payload.body);
    response.compress = payload.compress;
    connection.respond(request, response).await?;
    pending.disarm();
    Ok(())
}

/// Takes the packets of a POST ([`Connection::read_body`] within the mount's bound) and answers it.
pub async fn post(
    connection: &mut Connection,
    mount: &Mount,
    key: Key,
    request: &RequestHead,
) -> Result<(), Closed> {
    let engine = &mount.engine;
    if let Err(refusal) = engine.begin_post(key) {
        return connection.respond(request, refused(refusal)).await;
    }
    let pending = Pending::new(engine, key, Engine::abort_post);
    let body = match connection
        .read_body(request, engine.options().max_payload)
        .await
    {
        Ok(body) => body,
        Err(closed) => {
            if matches!(closed, Closed::Refused) {
                // Too large, or malformed: the client may try again.
                pending.disarm();
                engine.end_post(key);
            }
            return Err(closed);
        }
    };
    let response = if is_octet_stream(request) {
        // Binary bodies belong to an older version of the protocol.
        engine.close(key, CloseReason::TransportError);
        empty_refusal()
    } else if let Ok(body) = Text::from_utf8(body.into()) {
        hand_on(connection, engine, key, &body).await?
    } else {
        engine.close(key, CloseReason::ParseError);
        empty_refusal()
    };
    pending.disarm();
    engine.end_post(key);
    connection.respond(request, response).await
}

/// Hands on the packets of a body, waiting whenever the handler pauses.
async fn hand_on(
    connection: &mut Connection,
    engine: &Engine,
    key: Key,
    body: &Text,
) -> Result<Response, Closed> {
    // The session may have gone while the body came.
    if engine.transport(key).is_none() {
        return Ok(refused(Refusal::Unknown));
    }
    for (number, packet) in (1_u32..).zip(decode_payload(body)) {
        while engine.is_paused(key) {
            wait(connection, engine, key).await?;
        }
        if number.is_multiple_of(turns::MESSAGES) {
            connection.shard().end_turn().next().await;
        }
        let Ok(packet) = packet else {
            engine.close(key, CloseReason::ParseError);
            break;
        };
        if engine.receive(key, Transport::Polling, packet) == Outcome::Closed {
            break;
        }
    }
    // Not until the handler has room again: the answer is what lets the client go on.
    while engine.is_paused(key) {
        wait(connection, engine, key).await?;
    }
    Ok(Response::with_body(200, "text/html", "ok"))
}

/// Waits until something happened to the session, or the client has left.
async fn wait(connection: &mut Connection, engine: &Engine, key: Key) -> Result<(), Closed> {
    let changed = engine.changed(key);
    let left = pin!(connection.closed_by_peer());
    match select(changed, left).await {
        Either::Left(((), _)) => Ok(()),
        Either::Right((closed, _)) => Err(closed),
    }
}

/// A body that is no text. Parameters after the type do not matter.
fn is_octet_stream(request: &RequestHead) -> bool {
    let kind = request.field("Content-Type").unwrap_or_default();
    let kind = kind.split(';').next().unwrap_or_default().trim();
    kind.eq_ignore_ascii_case("application/octet-stream")
}

/// The answer of a request that its session does not take.
fn refused(refusal: Refusal) -> Response {
    let code = match refusal {
        Refusal::Unknown => 1,
        Refusal::WrongTransport | Refusal::AlreadyUpgrading => 3,
        Refusal::Overlap => return empty_refusal(),
    };
    let body = format!(r#"{{"code":{code},"message":"{refusal}"}}"#);
    Response::json(400, body)
}

fn empty_refusal() -> Response {
    Response::new(400)
}

/// A request that its session waits for. Ends the session when it is dropped without an answer.
struct Pending<'a> {
    engine: &'a Engine,
    key: Key,
    abort: Option<fn(&Engine, Key)>,
}

impl<'a> Pending<'a> {
    fn new(engine: &'a Engine, key: Key, abort: fn(&Engine, Key)) -> Self {
        Self {
            engine,
            key,
            abort: Some(abort),
        }
    }

    fn disarm(mut self) {
        self.abort = None;
    }
}

impl Drop for Pending<'_> {
    fn drop(&mut self) {
        if let Some(abort) = self.abort {
            abort(self.engine, self.key);
        }
    }
}
