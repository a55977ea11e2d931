//! Which session an Engine.IO request is for, or why it is refused.
//!
//! The checks and their order are those of the reference server, since clients and tests tell them
//! apart: transport, origin, session id, method, the application's own check, protocol version.

use std::time::Duration;

use super::websocket::Start;
use super::{Client, Mount, Response, Shard, http};
use crate::engine::{Handshake, Key, Sid, Transport};
use crate::wire::http::{Method, RequestHead, Unique};
use crate::wire::websocket::{HandshakeError, accept, is_upgrade};

/// What is to be done with a request.
#[derive(Debug)]
pub(super) enum Route {
    /// Answer this.
    Refuse(Response),
    /// The session lives on this shard of the process.
    Elsewhere(u8),
    /// Open a session, and answer as its first poll.
    Open(Box<Handshake>),
    /// Answer with what the session has to say.
    Get(Key),
    /// Take packets for the session.
    Post(Key),
    /// Become a WebSocket, with this value of `Sec-WebSocket-Accept`.
    WebSocket(Start, String),
}

/// The errors of the protocol, with their codes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Refusal {
    Transport,
    Sid,
    Method,
    Request,
    Forbidden,
    Version,
}

impl Refusal {
    fn code(self) -> u8 {
        self as u8
    }

    fn message(self) -> &'static str {
        match self {
            Self::Transport => "Transport unknown",
            Self::Sid => "Session ID unknown",
            Self::Method => "Bad handshake method",
            Self::Request => "Bad request",
            Self::Forbidden => "Forbidden",
            Self::Version => "Unsupported protocol version",
        }
    }

    /// How it is counted.
    fn reason(self) -> &'static str {
        match self {
            Self::Transport => "transport",
            Self::Sid => "sid",
            Self::Method => "method",
            Self::Request => "request",
            Self::Forbidden => "forbidden",
            Self::Version => "version",
        }
    }

    fn status(self) -> u16 {
        if self == Self::Forbidden { 403 } else { 400 }
    }
}

/// Decides about a request below a mount's path.
pub(super) fn route(shard: &Shard, mount: &Mount, client: &Client, head: &RequestHead) -> Route {
    let upgrade = is_upgrade(head);
    match find(shard, mount, client, head, upgrade) {
        Ok(route) => route,
        Err((refusal, text)) => {
            // No session's own, so it counts as a handshake does.
            if let Err(wait) = shard.take_request(client) {
                return too_many(shard, wait, upgrade);
            }
            shard.metrics.handshakes_refused.increment(refusal.reason());
            let text = text.as_deref().unwrap_or(refusal.message());
            Route::Refuse(refuse(refusal, text, upgrade))
        }
    }
}

/// A refusal, perhaps with the application's own words.
type Refused = (Refusal, Option<String>);

fn find(
    shard: &Shard,
    mount: &Mount,
    client: &Client,
    head: &RequestHead,
    upgrade: bool,
) -> Result<Route, Refused> {
    let refused = |refusal| Err((refusal, None));
    let query = head.query();
    let transport = match query.unique("transport") {
        Unique::One(name) if mount.transports.polling && name == "polling" => Transport::Polling,
        Unique::One(name) if mount.transports.websocket && name == "websocket" => {
            Transport::WebSocket
        }
        _ => return refused(Refusal::Transport),
    };
    let is_odd = |origin: &[u8]| !origin.iter().all(|byte| *byte >= b' ');
    if head.raw_values("Origin").any(is_odd) {
        return refused(Refusal::Request);
    }
    if !shard.site.cors.admits(head) {
        return refused(Refusal::Forbidden);
    }
    let fits = upgrade == (transport == Transport::WebSocket);
    match query.unique("sid") {
        Unique::Absent => {
            if head.method() != Method::Get {
                return refused(Refusal::Method);
            }
            if !fits {
                return refused(Refusal::Request);
            }
            let handshake = Box::new(handshake(shard, client, head));
            if let Some(Err(text)) = mount.admit.as_ref().map(|admit| admit(&handshake)) {
                return Err((Refusal::Forbidden, Some(text)));
            }
            if query.unique("EIO") != Unique::One("4".into()) {
                return refused(Refusal::Version);
            }
            if let Err(wait) = shard.take_request(client) {
                return Ok(too_many(shard, wait, upgrade));
            }
            if shard.is_draining() {
                shard.metrics.handshakes_refused.increment("draining");
                return Ok(Route::Refuse(draining()));
            }
            match transport {
                Transport::Polling => Ok(Route::Open(handshake)),
                Transport::WebSocket => Ok(tunnel(shard, head, Start::Open(handshake))),
            }
        }
        Unique::Repeated => refused(Refusal::Sid),
        Unique::One(sid) => {
            let Some(sid) = Sid::parse(&sid).filter(|sid| sid.host() == shard.options.host) else {
                return refused(Refusal::Sid);
            };
            if sid.shard() != shard.options.shard && sid.shard() < shard.options.shards {
                return Ok(Route::Elsewhere(sid.shard()));
            }
            let Some(key) = mount.engine.find(&sid) else {
                return refused(Refusal::Sid);
            };
            if upgrade && fits {
                return Ok(tunnel(shard, head, Start::Probe(key)));
            }
            // A WebSocket session takes no plain request, not even one that says so.
            if !fits || mount.engine.transport(key) != Some(transport) {
                return refused(Refusal::Request);
            }
            match head.method() {
                Method::Get => Ok(Route::Get(key)),
                Method::Post => Ok(Route::Post(key)),
                _ => refused(Refusal::Request),
            }
        }
    }
}

fn tunnel(shard: &Shard, head: &RequestHead, start: Start) -> Route {
    match accept(head) {
        Ok(accept) => Route::WebSocket(start, accept),
        Err(error) => {
            shard.metrics.handshakes_refused.increment("websocket");
            let response = Response::with_body(error.status(), "text/html", error.to_string());
            Route::Refuse(match error {
                HandshakeError::Version => response.field("Sec-WebSocket-Version", "13").closing(),
                _ => response.closing(),
            })
        }
    }
}

/// A plain request is answered in JSON; one that wanted a tunnel gets the text alone, and its
/// connection ends, because what the client sends next is not HTTP.
fn refuse(refusal: Refusal, text: &str, upgrade: bool) -> Response {
    if upgrade {
        return Response::with_body(refusal.status(), "text/html", text.to_owned()).closing();
    }
    let body = serde_json::json!({"code": refusal.code(), "message": text});
    Response::json(refusal.status(), body.to_string())
}

fn draining() -> Response {
    Response::error(503, "draining", "this server is going away; reconnect")
        .field("Retry-After", "1")
        .closing()
}

/// What wanted a tunnel is not followed by HTTP.
fn too_many(shard: &Shard, wait: Duration, upgrade: bool) -> Route {
    shard.metrics.handshakes_refused.increment("rate_limited");
    let response = http::too_many_requests(wait);
    Route::Refuse(if upgrade {
        response.closing()
    } else {
        response
    })
}

fn handshake(shard: &Shard, client: &Client, head: &RequestHead) -> Handshake {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned().into_boxed_str();
    Handshake {
        address: client.address,
        headers: head
            .fields()
            .map(|field| {
                let name = field.name.to_ascii_lowercase().into_boxed_str();
                (name, text(field.value))
            })
            .collect(),
        query: head.query().as_str().into(),
        secure: client.secure,
        issued_wall_ms: shard.env.wall_ms(),
    }
}
