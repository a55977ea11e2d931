//! Answers the requests that belong to no session: health, history, the demo's page and documents.

use std::sync::Arc;

use futures_util::FutureExt as _;
use futures_util::future::LocalBoxFuture;

use super::announce;
use super::demo::{self, Page};
use super::status::{Health, Status};
use crate::auth::AuthOptions;
use crate::chat::rest::Rest;
use crate::net::{Request, Response};
use crate::wire::http::Method;

/// What a path that is there may be asked for.
const METHODS: &str = "GET, HEAD, OPTIONS";

/// The paths that probes ask for.
pub const HEALTH: &[&str] = &["/health", "/health/ready"];

/// The documents of the interface, which `tests/clients/node/documents.test.mjs` keeps true.
const DOCUMENTS: &[(&str, &str)] = &[
    ("/openapi.json", include_str!("openapi.json")),
    ("/asyncapi.json", include_str!("asyncapi.json")),
];

/// The document at this path.
fn document(path: &str) -> Option<&'static str> {
    DOCUMENTS
        .iter()
        .find_map(|(place, text)| (*place == path).then_some(*text))
}

/// The demo's page and what its tokens are signed with.
pub struct Demo {
    page: Page,
    auth: AuthOptions,
}

impl Demo {
    /// The page that comes with the program.
    #[must_use]
    pub fn new(auth: AuthOptions) -> Self {
        Self {
            page: Page::new(include_str!("../chat/page.html")),
            auth,
        }
    }

    fn answer(&self, host: &str) -> Response {
        if !demo::is_loopback_host(host) {
            let text = "the demo is for this machine: open it as http://localhost";
            return Response::error(403, "forbidden", text);
        }
        let html = self.page.render(&announce::tokens(&self.auth));
        Response::with_body(200, "text/html; charset=utf-8", html)
            .field("Content-Security-Policy", self.page.policy.clone())
    }
}

/// Everything that is served beside the sessions.
pub struct Routes {
    /// What `/health` tells.
    pub status: Arc<Status>,
    /// Answers `/api/messages`.
    pub history: Rest,
    /// Answers `/` and the documents, in demo mode.
    pub demo: Option<Demo>,
}

impl Routes {
    /// The answer to one request.
    #[must_use]
    pub fn respond(&self, request: &Request) -> LocalBoxFuture<'static, Response> {
        let known = match request.head.path() {
            "/health" | "/health/ready" | "/api/messages" => true,
            "/" => self.demo.is_some(),
            path => self.demo.is_some() && document(path).is_some(),
        };
        if !known {
            let text = "there is nothing at this path";
            return ready(Response::error(404, "not_found", text));
        }
        match request.head.method() {
            Method::Get | Method::Head => {}
            Method::Options => return ready(Response::new(204).field("Allow", METHODS)),
            _ => {
                let text = "this path is for GET, HEAD and OPTIONS";
                let refusal = Response::error(405, "method_not_allowed", text);
                return ready(refusal.field("Allow", METHODS));
            }
        }
        match (request.head.path(), &self.demo) {
            ("/health", _) => ready(health(self.status.health())),
            ("/health/ready", _) => ready(health(self.status.ready())),
            ("/", Some(demo)) => ready(demo.answer(request.head.field("host").unwrap_or_default())),
            (path, Some(_)) if let Some(text) = document(path) => ready(Response::json(200, text)),
            _ => {
                // One that is no text is still one: with a good one beside it, nobody knows which counts.
                let authorization = request.head.raw_values("authorization");
                let authorization =
                    authorization.map(|value| std::str::from_utf8(value).unwrap_or_default());
                self.history.history(request.head.query(), authorization)
            }
        }
    }
}

fn health(health: Health) -> Response {
    let response = Response::json(health.code, health.body);
    match health.code {
        200 => response,
        _ => response.field("Retry-After", "1"),
    }
}

fn ready(response: Response) -> LocalBoxFuture<'static, Response> {
    std::future::ready(response).boxed_local()
}
