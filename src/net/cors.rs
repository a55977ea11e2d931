//! Which other origins may read the answers (the CORS protocol of the Fetch standard).
//!
//! Only an allow-list is known: an origin that is on it is named itself, never `*`, and may send
//! credentials. With an empty list no field of the protocol is ever sent.

use std::borrow::Cow;
use std::cell::RefCell;
use std::rc::Rc;

use super::Response;
use crate::wire::http::RequestHead;

/// Methods that a cross-origin request may use.
const METHODS: &str = "GET, HEAD, POST, OPTIONS";
/// How long a browser may remember a preflight, in seconds.
const MAX_AGE: &str = "600";

/// An allow-list of origins. Empty: no CORS field is ever sent.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Cors {
    origins: RefCell<Vec<Rc<str>>>,
}

impl Cors {
    /// An allow-list; each origin as a browser writes it, `https://example.org`.
    #[must_use]
    pub fn new(origins: impl IntoIterator<Item = String>) -> Self {
        let cors = Self::default();
        cors.replace(origins);
        cors
    }

    /// Goes by another list from now on. Sessions that are open stay.
    pub fn replace(&self, origins: impl IntoIterator<Item = String>) {
        *self.origins.borrow_mut() = origins.into_iter().map(Rc::from).collect();
    }

    /// Whether there is an allow-list at all.
    #[must_use]
    pub fn is_on(&self) -> bool {
        !self.origins.borrow().is_empty()
    }

    /// Whether a request may come from where it says. One without an Origin comes from no page.
    #[must_use]
    pub fn admits(&self, request: &RequestHead) -> bool {
        !self.is_on()
            || request.raw_values("Origin").next().is_none()
            || self.origin(request).is_some()
    }

    /// The request's origin, if it is on the list.
    fn origin(&self, request: &RequestHead) -> Option<Rc<str>> {
        let mut values = request.raw_values("Origin");
        let (Some(origin), None) = (values.next(), values.next()) else {
            return None;
        };
        let origins = self.origins.borrow();
        let listed = origins.iter().find(|listed| listed.as_bytes() == origin);
        listed.cloned()
    }

    /// The answer to OPTIONS.
    #[must_use]
    pub fn preflight(&self, request: &RequestHead) -> Response {
        let mut response = Response::new(204);
        if self.origin(request).is_some() {
            response = response
                .field("Access-Control-Allow-Methods", METHODS)
                .field("Access-Control-Max-Age", MAX_AGE);
            // Echoed: what a page may send is limited by the origin, not by names of fields.
            if let Some(fields) = request.field("Access-Control-Request-Headers") {
                response = response.field("Access-Control-Allow-Headers", printable(fields));
            }
        }
        response
    }

    /// Adds the fields that every answer to this request has.
    pub fn mark(&self, request: &RequestHead, response: &mut Response) {
        if !self.is_on() {
            return;
        }
        // Also for origins that are not allowed, since a cache would mix them up.
        response.fields.push(("Vary", "Origin".into()));
        if let Some(origin) = self.origin(request) {
            let allow = (
                "Access-Control-Allow-Origin",
                Cow::Owned(origin.as_ref().to_owned()),
            );
            response.fields.push(allow);
            let credentials = ("Access-Control-Allow-Credentials", "true".into());
            response.fields.push(credentials);
        }
    }
}

/// A client's text, fit to stand in a field value.
fn printable(text: &str) -> String {
    text.chars()
        .filter(|character| *character == ' ' || character.is_ascii_graphic())
        .collect()
}

#[cfg(test)]
mod tests {
    use bytes::BytesMut;

    use super::*;
    use crate::wire::http::HeadReader;

    fn request(fields: &str) -> RequestHead {
        let text = format!("OPTIONS / HTTP/1.1\r\nHost: a\r\n{fields}\r\n");
        let mut buffer = BytesMut::from(text.as_bytes());
        let head = HeadReader::default().read(&mut buffer);
        head.expect("the head is valid").expect("it is complete")
    }

    fn marked(cors: &Cors, fields: &str) -> Vec<(&'static str, Cow<'static, str>)> {
        let request = request(fields);
        let mut response = cors.preflight(&request);
        cors.mark(&request, &mut response);
        response.fields
    }

    fn list() -> Cors {
        Cors::new(["https://a.example".to_owned(), "http://b:1".to_owned()])
    }

    #[test]
    fn an_origin_on_the_list_is_named_with_credentials() {
        let fields = "Origin: http://b:1\r\nAccess-Control-Request-Headers: x,\ty\r\n";
        let expected = [
            ("Access-Control-Allow-Methods", METHODS),
            ("Access-Control-Max-Age", MAX_AGE),
            ("Access-Control-Allow-Headers", "x,y"),
            ("Vary", "Origin"),
            ("Access-Control-Allow-Origin", "http://b:1"),
            ("Access-Control-Allow-Credentials", "true"),
        ];
        let expected = expected.map(|(name, value)| (name, value.into()));
        assert_eq!(marked(&list(), fields), expected);
        assert!(list().admits(&request(fields)));
    }

    #[test]
    fn any_other_origin_gets_only_vary() {
        for origin in [
            "null",
            "https://a.example.org",
            "https://a.example:443",
            "http://a.example",
        ] {
            let fields = format!("Origin: {origin}\r\n");
            assert_eq!(marked(&list(), &fields), [("Vary", "Origin".into())]);
            assert!(!list().admits(&request(&fields)), "{origin}");
        }
        assert!(list().admits(&request("")));
    }

    #[test]
    fn without_a_list_nothing_is_said_and_everybody_admitted() {
        assert_eq!(marked(&Cors::default(), "Origin: http://b:1\r\n"), []);
        assert!(Cors::default().admits(&request("Origin: http://b:1\r\n")));
    }
}
