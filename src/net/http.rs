//! One connection's requests: read, route, answer, keep alive.
//!
//! Requests are answered one after the other in their order, so a client that pipelines waits in the
//! connection's bounded buffer and then in its own TCP window. Nothing is read while an answer is
//! being written. Each step has its own deadline, which single bytes do not push back.

use std::rc::Rc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use super::addresses::Refused;
use super::routing::{self, Route};
use super::{
    Client, Closed, Connection, Mount, Request, Response, Shard, handoff, polling, websocket,
};
use crate::engine::Transport;
use crate::wire::http::{
    Body, BodyDecoder, Context, Framing, HeadReader, HttpError, Method, RequestHead, Unique,
};

/// From a connection's begin to the first byte of its first request.
const FIRST_BYTE_TIMEOUT: Duration = Duration::from_secs(10);
/// Between an answer and the first byte of the next request.
const KEEP_ALIVE_TIMEOUT: Duration = Duration::from_secs(30);
/// From the first byte of a head to its last.
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);
/// From the end of a head to the last byte of its body.
const BODY_TIMEOUT: Duration = Duration::from_secs(20);
/// After this time a body must have come at [`BODY_BYTES_PER_SECOND`] or faster.
const BODY_GRACE: Duration = Duration::from_secs(5);
const BODY_BYTES_PER_SECOND: u64 = 500;

/// When to try again after too many connections.
const TOO_MANY_WAIT: Duration = Duration::from_secs(1);

const METHODS: &str = "GET, HEAD, POST, OPTIONS";

/// Serves a connection until it ends, moves to another shard or becomes a WebSocket.
pub(super) async fn serve(connection: Connection) {
    let mut connection = connection;
    let mut idle = FIRST_BYTE_TIMEOUT;
    loop {
        let head = match read_head(&mut connection, idle).await {
            Ok(Some(head)) => head,
            Ok(None) => return,
            Err(error) => return Box::pin(refuse(connection, error)).await,
        };
        // Boxed, so that an idle connection does not keep the memory of its busiest moment.
        match Box::pin(answer(connection, head)).await {
            Some(kept) => connection = kept,
            None => return,
        }
        connection.trim();
        idle = KEEP_ALIVE_TIMEOUT;
    }
}

/// The next request's head; `None` when none comes.
async fn read_head(
    connection: &mut Connection,
    idle: Duration,
) -> Result<Option<RequestHead>, HttpError> {
    let mut reader = HeadReader::default();
    let mut deadline = Instant::now() + idle;
    let mut begun = false;
    loop {
        if !connection.buffer().is_empty() {
            if let Some(head) = reader.read(connection.buffer())? {
                return Ok(Some(head));
            }
            if !begun {
                begun = true;
                deadline = Instant::now() + HEAD_TIMEOUT;
            }
        }
        match connection.fill(deadline).await {
            Ok(1..) => {}
            Err(Closed::TimedOut) if begun => return Err(HttpError::TimedOut),
            Err(Closed::TimedOut) => {
                let first = idle == FIRST_BYTE_TIMEOUT;
                let bound = if first {
                    "first_byte_time"
                } else {
                    "keep_alive_time"
                };
                connection.shard().metrics.bounds.increment(bound);
                return Ok(None);
            }
            Ok(0) | Err(_) => return Ok(None),
        }
    }
}

/// Answers what is no request, and ends the connection.
async fn refuse(mut connection: Connection, error: HttpError) {
    let shard = Rc::clone(connection.shard());
    let _busy = shard.busy();
    count_bound(&shard, error, "head_time");
    let response = refusal(error);
    shard
        .metrics
        .http_requests
        .increment(class(response.status));
    let common = shard.common_fields(true);
    let bytes = response.encode(Context {
        http_1_0: false,
        head_only: false,
        close: true,
        common: &common,
    });
    if connection.write_all(&bytes).await.is_ok() {
        connection.linger().await;
    }
}

/// Counts the bound that a refusal means; `time` is the one of a step that took too long.
fn count_bound(shard: &Shard, error: HttpError, time: &'static str) {
    let time = (error == HttpError::TimedOut).then_some(time);
    if let Some(bound) = error.bound().or(time) {
        shard.metrics.bounds.increment(bound);
    }
}

fn refusal(error: HttpError) -> Response {
    if error == HttpError::Origin {
        // Its path is not known yet: this body is an error of Engine.IO's protocol, and one of REST.
        let body = serde_json::json!({
            "code": 3,
            "message": "Bad request",
            "error": {"code": "invalid_payload", "message": error.to_string()},
        });
        return Response::json(error.status(), body.to_string()).closing();
    }
    let code = match error {
        HttpError::TimedOut => "timeout",
        _ => "invalid_payload",
    };
    Response::error(error.status(), code, &error.to_string()).closing()
}

/// Answers one request. `None`: the connection has ended, or belongs to somebody else now.
async fn answer(mut connection: Connection, head: RequestHead) -> Option<Connection> {
    let shard = Rc::clone(connection.shard());
    let busy = shard.busy();
    connection.begin(head.framing());
    let client = shard.options.trust.client(connection.origin(), &head);
    if let Err(response) = admit(&mut connection, &client, &head) {
        let refused = connection.respond(&head, response).await;
        return finish(connection, refused).await;
    }
    let mut mounts = shard.site.mounts.iter();
    let mount = mounts.find(|mount| head.path().starts_with(&*mount.path));
    let result = match (head.method(), mount) {
        (Method::Trace | Method::Connect | Method::Unknown, _) => {
            let response = limited(&shard, &client, &head, || unknown_method(head.method()));
            connection.respond(&head, response.closing()).await
        }
        (Method::Options, _) if shard.site.cors.is_on() => {
            let preflight = || shard.site.cors.preflight(&head);
            // A page that adds fields of its own asks so before each poll.
            let is_of_session = mount.is_some() && head.query().unique("sid") != Unique::Absent;
            let response = if is_of_session {
                preflight()
            } else {
                limited(&shard, &client, &head, preflight)
            };
            connection.respond(&head, response).await
        }
        (_, Some(mount)) => match routing::route(&shard, mount, &client, &head) {
            Route::Elsewhere(target) => {
                let kept = handoff::send(connection, head, target).await?;
                return finish(kept, Ok(())).await;
            }
            Route::WebSocket(start, accept) => {
                let mount = Rc::clone(mount);
                tunnel(connection, mount, &head, start, accept);
                return None;
            }
            Route::Refuse(response) => connection.respond(&head, response).await,
            Route::Open(handshake) => {
                let key = mount.engine.open(Transport::Polling, *handshake);
                polling::get(&mut connection, mount, key, &head).await
            }
            Route::Get(key) => polling::get(&mut connection, mount, key, &head).await,
            Route::Post(key) => polling::post(&mut connection, mount, key, &head).await,
        },
        (_, None) => plain(&mut connection, &shard, &head, client).await,
    };
    let kept = finish(connection, result).await;
    drop(busy);
    kept
}

/// Refuses a request for where it comes from, whatever it is for.
fn admit(connection: &mut Connection, client: &Client, head: &RequestHead) -> Result<(), Response> {
    let options = connection.shard().options();
    if options.require_https && !client.secure && !options.plain_paths.contains(&head.path()) {
        let text = "this server is reached by https only";
        return Err(Response::error(403, "forbidden", text).closing());
    }
    connection.count_for(client).map_err(|refused| {
        let wait = match refused {
            Refused::TooFast(wait) => wait,
            Refused::TooMany => TOO_MANY_WAIT,
        };
        let text = "too many connections from this address";
        Response::error(503, "rate_limited", text)
            .field("Retry-After", retry_after(wait))
            .closing()
    })
}

/// The answer to a request over the rate of its address.
pub(super) fn too_many_requests(wait: Duration) -> Response {
    let text = "too many requests from this address";
    Response::error(429, "rate_limited", text).field("Retry-After", retry_after(wait))
}

/// Whole seconds, as the field has them.
fn retry_after(wait: Duration) -> String {
    wait.as_millis().div_ceil(1000).max(1).to_string()
}

/// Takes a request that is no session's own. A probe that were refused would take down a server that
/// is well.
fn take_request(shard: &Shard, client: &Client, head: &RequestHead) -> Result<(), Duration> {
    if shard.options.plain_paths.contains(&head.path()) {
        return Ok(());
    }
    shard.take_request(client)
}

/// The answer to a request that needs no look at its body, unless its address asks too often.
fn limited(
    shard: &Shard,
    client: &Client,
    head: &RequestHead,
    answer: impl FnOnce() -> Response,
) -> Response {
    match take_request(shard, client, head) {
        Ok(()) => answer(),
        Err(wait) => too_many_requests(wait),
    }
}

/// A request outside the mounts.
async fn plain(
    connection: &mut Connection,
    shard: &Shard,
    head: &RequestHead,
    client: Client,
) -> Result<(), Closed> {
    if let Err(wait) = take_request(shard, &client, head) {
        return connection.respond(head, too_many_requests(wait)).await;
    }
    let body = connection
        .read_body(head, shard.options.body_bytes_max)
        .await?;
    let request = Request {
        head: head.clone(),
        body: body.into(),
        client,
    };
    let response = (shard.site.respond)(request).await;
    connection.respond(head, response).await
}

/// Ends the connection when it has to end.
async fn finish(connection: Connection, result: Result<(), Closed>) -> Option<Connection> {
    match result {
        Ok(()) if !connection.is_ending() => Some(connection),
        Ok(()) | Err(Closed::Refused) => {
            connection.linger().await;
            None
        }
        Err(_) => None,
    }
}

fn unknown_method(method: Method) -> Response {
    let text = match method {
        Method::Unknown => "unknown method",
        _ => "this method is not served",
    };
    Response::error(405, "method_not_allowed", text).field("Allow", METHODS)
}

/// Answers an opening handshake and gives the connection away, to a task of its own: the one of the
/// HTTP connection ends, and its memory with it.
fn tunnel(
    mut connection: Connection,
    mount: Rc<Mount>,
    head: &RequestHead,
    start: websocket::Start,
    accept: String,
) {
    let response = Response::new(101)
        .field("Upgrade", "websocket")
        .field("Connection", "Upgrade")
        .field("Sec-WebSocket-Accept", accept);
    // Not sent alone: it leaves with the open packet.
    let opening = connection.encode(head, response);
    connection.trim();
    let busy = connection.shard().busy();
    // Begun here, so that the task holds the driver alone and not what it was made of.
    let driving = websocket::drive(connection, mount, start, opening);
    glommio::spawn_local(async move {
        driving.await;
        drop(busy);
    })
    .detach();
}

fn class(status: u16) -> &'static str {
    match status {
        100..=199 => "1xx",
        200..=299 => "2xx",
        300..=399 => "3xx",
        400..=499 => "4xx",
        _ => "5xx",
    }
}

/// Longest part of a path, or of a request's id, in the log.
const NOTED_BYTES_MAX: usize = 128;

/// Logs a request, under the id that a proxy gave it or one of our own. Never its query: it may hold
/// a session's id.
fn note(request: &RequestHead, status: u16) {
    static COUNT: AtomicU64 = AtomicU64::new(1);
    let plain = |id: &&str| {
        let is_plain = |b: u8| b.is_ascii_alphanumeric() || b == b'-' || b == b'_';
        !id.is_empty() && id.len() <= NOTED_BYTES_MAX && id.bytes().all(is_plain)
    };
    let id = match request.field("x-request-id").filter(plain) {
        Some(id) => id.to_owned(),
        None => COUNT.fetch_add(1, Ordering::Relaxed).to_string(),
    };
    let path: String = request.path().chars().take(NOTED_BYTES_MAX).collect();
    tracing::debug!(
        http.request.id = id,
        http.request.method = format!("{:?}", request.method()).to_uppercase(),
        url.path = path,
        http.response.status_code = status,
        "request answered"
    );
}

impl Connection {
    /// Answers a request, with the fields that every answer has. The answer to HEAD loses its body.
    pub async fn respond(
        &mut self,
        request: &RequestHead,
        response: Response,
    ) -> Result<(), Closed> {
        let bytes = self.encode(request, response);
        self.write_all(&bytes).await
    }

    fn encode(&mut self, request: &RequestHead, mut response: Response) -> Vec<u8> {
        let shard = Rc::clone(self.shard());
        shard
            .metrics
            .http_requests
            .increment(class(response.status));
        if tracing::enabled!(tracing::Level::DEBUG) {
            note(request, response.status);
        }
        shard.site.cors.mark(request, &mut response);
        super::compress::compress(request, &mut response);
        // What was not read of this request must never be taken for the next one.
        let close =
            response.close || !request.keep_alive() || self.has_body() || shard.is_draining();
        if close {
            self.end();
        }
        let own_policy = response.fields.iter().any(|(name, _)| *name == POLICY);
        let common = shard.common_fields(!own_policy);
        response.encode(Context {
            http_1_0: request.is_http_1_0(),
            head_only: request.method() == Method::Head,
            close,
            common: &common,
        })
    }

    /// Reads the request's whole body, of at most `max` bytes. When it cannot be had, the refusal is
    /// sent and the connection is of no more use.
    pub async fn read_body(
        &mut self,
        request: &RequestHead,
        max: usize,
    ) -> Result<Vec<u8>, Closed> {
        if request.framing() == Framing::Length(0) {
            return Ok(Vec::new());
        }
        let error = match self.take_body(request, max).await? {
            Ok(body) => return Ok(body),
            Err(error) => error,
        };
        count_bound(self.shard(), error, "body_time");
        self.respond(request, refusal(error)).await?;
        Err(match error {
            HttpError::TimedOut => Closed::TimedOut,
            _ => Closed::Refused,
        })
    }

    async fn take_body(
        &mut self,
        request: &RequestHead,
        max: usize,
    ) -> Result<Result<Vec<u8>, HttpError>, Closed> {
        let mut decoder = match BodyDecoder::new(request.framing(), max) {
            Ok(decoder) => decoder,
            Err(error) => return Ok(Err(error)),
        };
        let waits = request.lists("Expect", "100-continue") && !request.is_http_1_0();
        if waits && self.buffer().is_empty() {
            self.write_all(b"HTTP/1.1 100 Continue\r\n\r\n").await?;
        }
        let begin = Instant::now();
        let mut body = Vec::new();
        loop {
            match decoder.decode(self.buffer(), &mut body) {
                Ok(Body::Partial) => {}
                Ok(Body::Complete) => {
                    self.begin(Framing::Length(0));
                    return Ok(Ok(body));
                }
                Err(error) => return Ok(Err(error)),
            }
            match self.fill(body_deadline(begin, body.len())).await {
                Ok(0) => return Err(Closed::ByPeer),
                Ok(_) => {}
                Err(Closed::TimedOut) => return Ok(Err(HttpError::TimedOut)),
                Err(error) => return Err(error),
            }
        }
    }
}

/// When a body that began to come at `begin` is too late, or was too slow so far.
fn body_deadline(begin: Instant, received: usize) -> Instant {
    let received = u64::try_from(received).unwrap_or(u64::MAX);
    let paid = Duration::from_millis(received.saturating_mul(1000) / BODY_BYTES_PER_SECOND);
    begin + paid.clamp(BODY_GRACE, BODY_TIMEOUT)
}

/// The name of the field that a page may replace.
const POLICY: &str = "Content-Security-Policy";

/// What every answer carries beside its policy: the set that helmet 8 gives an API, and that no cache
/// keeps it. Most is somebody's own or true for a moment only, refusals too.
pub const SECURITY_FIELDS: &str = "Cache-Control: no-store\r\n\
Cross-Origin-Opener-Policy: same-origin\r\n\
Cross-Origin-Resource-Policy: same-origin\r\n\
Origin-Agent-Cluster: ?1\r\n\
Referrer-Policy: no-referrer\r\n\
Strict-Transport-Security: max-age=31536000; includeSubDomains\r\n\
X-Content-Type-Options: nosniff\r\n\
X-DNS-Prefetch-Control: off\r\n\
X-Download-Options: noopen\r\n\
X-Frame-Options: SAMEORIGIN\r\n\
X-Permitted-Cross-Domain-Policies: none\r\n\
X-XSS-Protection: 0\r\n";

/// The policy of answers that are no pages.
pub const POLICY_FIELD: &str =
    "Content-Security-Policy: default-src 'none'; frame-ancestors 'none'\r\n";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slow_body_is_cut_off_and_a_steady_one_has_its_time() {
        let begin = Instant::now();
        let after = |received| body_deadline(begin, received) - begin;
        assert_eq!(after(0), BODY_GRACE);
        assert_eq!(after(2_500), BODY_GRACE);
        assert_eq!(after(5_000), Duration::from_secs(10));
        assert_eq!(after(1_000_000), BODY_TIMEOUT);
    }
}
