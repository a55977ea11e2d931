//! `GET /api/messages`: pages of a room's history.
//!
//! Parameters are checked strictly: what is repeated, empty or out of range is the client's fault and
//! answered 400, never guessed. No hub, no engine, no socket.

use std::io::Write as _;
use std::rc::Rc;

use futures_util::future::{LocalBoxFuture, ready};
use serde_json::Value;

use super::event::{Code, Failed, Failure, INTEGER_MAX, MessageView, check_room_id};
use super::permission::{Act, Permissions};
use crate::auth::{self, AuthError, User, Verifier};
use crate::env::Env;
use crate::store::{Cursor, SharedStore, StoreError, Written};
use crate::wire::http::{Query, Response, Unique};

/// Messages of a page when the request does not say.
pub const LIMIT_DEFAULT: usize = 50;
/// The most messages of a page.
pub const LIMIT_MAX: usize = 100;

/// Bytes of a page beside its messages and its room.
const BODY_ROOM: usize = 128;

/// What the endpoint needs.
pub struct Rest {
    env: Rc<Env>,
    store: SharedStore,
    verifier: Rc<Verifier>,
    permissions: Rc<dyn Permissions>,
}

/// A page as it is asked for.
#[derive(Debug, PartialEq, Eq)]
struct Wanted {
    room: Box<str>,
    cursor: Cursor,
    limit: usize,
}

impl Rest {
    /// The endpoint over a shard's store.
    #[must_use]
    pub fn new(
        env: Rc<Env>,
        store: SharedStore,
        verifier: Rc<Verifier>,
        permissions: Rc<dyn Permissions>,
    ) -> Self {
        Self {
            env,
            store,
            verifier,
            permissions,
        }
    }

    /// Answers a request with this query and these values of `Authorization`.
    #[must_use]
    pub fn history<'a>(
        &self,
        query: Query<'_>,
        authorization: impl Iterator<Item = &'a str>,
    ) -> LocalBoxFuture<'static, Response> {
        let (user, wanted) = match self.check(query, authorization) {
            Ok(wanted) => wanted,
            Err(failure) => return Box::pin(ready(refuse(&failure))),
        };
        let (permissions, store) = (self.permissions.clone(), self.store.clone());
        Box::pin(async move {
            if let Err(denied) = permissions.check(&user, &wanted.room, Act::Read).await {
                return refuse(&denied.into());
            }
            let Wanted {
                room,
                cursor,
                limit,
            } = &wanted;
            let page = store.history_written(room, *cursor, *limit, MessageView::write);
            match page.await {
                Ok(page) => answer(&wanted, &page),
                Err(error) => refuse(&unread(&error)),
            }
        })
    }

    fn check<'a>(
        &self,
        query: Query<'_>,
        authorization: impl Iterator<Item = &'a str>,
    ) -> Result<(User, Wanted), Failure> {
        Ok((self.user(authorization)?, parse(query)?))
    }

    fn user<'a>(&self, mut values: impl Iterator<Item = &'a str>) -> Result<User, Failure> {
        let (Some(value), None) = (values.next(), values.next()) else {
            return Err(AuthError::Missing.into());
        };
        let token = auth::bearer(value).ok_or(AuthError::Missing)?;
        Ok(self.verifier.verify(token, self.env.wall_ms())?)
    }
}

fn parse(query: Query<'_>) -> Result<Wanted, Failure> {
    let room = once(query, "roomId")?.ok_or_else(|| Failure::field("roomId", "is required"))?;
    check_room_id(&room)?;
    // Bytes that are no UTF-8 arrive as U+FFFD: they name no room, and not another one either.
    if room.contains('\u{fffd}') && !spells_replacement(query.as_str()) {
        return Err(Failure::field("roomId", "must be UTF-8"));
    }
    let limit = number(query, "limit")?.unwrap_or(LIMIT_DEFAULT as u64);
    let limit = usize::try_from(limit)
        .ok()
        .filter(|limit| (1..=LIMIT_MAX).contains(limit))
        .ok_or_else(|| Failure::field("limit", "must be 1 to 100"))?;
    let cursor = match (number(query, "beforeSeq")?, number(query, "afterSeq")?) {
        (None, None) => Cursor::Newest,
        (Some(seq), None) => Cursor::Before(seq),
        (None, Some(seq)) => Cursor::After(seq),
        (Some(_), Some(_)) => {
            return Err(Failure::field("afterSeq", "excludes beforeSeq"));
        }
    };
    Ok(Wanted {
        room,
        cursor,
        limit,
    })
}

/// Whether a query itself spells U+FFFD, plainly or percent-encoded.
fn spells_replacement(query: &str) -> bool {
    query.contains('\u{fffd}') || query.to_ascii_lowercase().contains("%ef%bf%bd")
}

fn once(query: Query<'_>, name: &'static str) -> Result<Option<Box<str>>, Failure> {
    match query.unique(name) {
        Unique::Absent => Ok(None),
        Unique::One(value) => Ok(Some(value.into())),
        Unique::Repeated => Err(Failure::field(name, "must be given once")),
    }
}

fn number(query: Query<'_>, name: &'static str) -> Result<Option<u64>, Failure> {
    let Some(text) = once(query, name)? else {
        return Ok(None);
    };
    let digits = text.bytes().all(|byte| byte.is_ascii_digit());
    match text.parse() {
        Ok(number) if digits && number <= INTEGER_MAX => Ok(Some(number)),
        _ => Err(Failure::field(name, "must be an integer from 0 to 2^53-1")),
    }
}

/// The page around its messages, whose text is copied as it is.
fn answer(wanted: &Wanted, page: &Written) -> Response {
    // Where the next page in the same direction begins.
    let (name, next) = match wanted.cursor {
        Cursor::Newest | Cursor::Before(_) => ("nextBeforeSeq", page.span.map(|(first, _)| first)),
        Cursor::After(seq) => (
            "nextAfterSeq",
            Some(page.span.map_or(seq, |(_, last)| last)),
        ),
    };
    let mut body = Vec::with_capacity(page.text.len() + wanted.room.len() + BODY_ROOM);
    body.extend_from_slice(br#"{"roomId":"#);
    serde_json::to_writer(&mut body, &*wanted.room).expect("a name has a JSON form");
    body.extend_from_slice(br#","messages":["#);
    body.extend_from_slice(&page.text);
    let (has_more, next) = (page.has_more, next.map_or(Value::Null, Value::from));
    write!(body, r#"],"hasMore":{has_more},"{name}":{next}}}"#).expect("memory takes it");
    Response::json(200, body)
}

fn unread(error: &StoreError) -> Failure {
    match error {
        StoreError::Unavailable(_) => {
            Failure::new(Code::Unavailable, "the store does not answer now")
        }
        StoreError::Timeout => Failure::new(Code::Timeout, "the store has not answered in time"),
    }
}

/// The REST answer of a refusal.
///
/// # Panics
/// Never: a refusal has a JSON form.
#[must_use]
pub fn refuse(failure: &Failure) -> Response {
    let body = Failed {
        ok: None,
        error: failure,
    };
    let body = serde_json::to_vec(&body).expect("a refusal has a JSON form");
    let response = Response::json(failure.code.status(), body);
    let response = match failure.retry_after_ms {
        Some(ms) => response.field("Retry-After", ms.div_ceil(1_000).to_string()),
        None => response,
    };
    match failure.code {
        Code::Unauthorized | Code::TokenExpired => response.field("WWW-Authenticate", "Bearer"),
        _ => response,
    }
}

#[cfg(test)]
mod tests {
    use super::super::permission::{Denied, TokenRooms};
    use super::*;
    use crate::auth::{AuthOptions, Claims, Keys, sign};
    use crate::store::memory::MemoryStore;
    use crate::store::{Draft, Store};
    use futures_lite::future::block_on;
    use serde_json::json;

    fn options() -> AuthOptions {
        AuthOptions {
            keys: Keys::secrets(vec![
                b"a secret of the tests, long enough".as_slice().into(),
            ]),
            issuer: None,
            audience: None,
            leeway_seconds: 5,
        }
    }

    struct Place {
        rest: Rest,
        env: Rc<Env>,
        store: Rc<MemoryStore>,
    }

    fn place() -> Place {
        let env = Env::seeded(1);
        let store = Rc::new(MemoryStore::default());
        let verifier = Rc::new(Verifier::new(&options()));
        Place {
            rest: Rest::new(env.clone(), store.clone(), verifier, Rc::new(TokenRooms)),
            env,
            store,
        }
    }

    impl Place {
        fn token(&self, rooms: Option<Vec<Box<str>>>, ttl_seconds: u64) -> String {
            let issued_seconds = self.env.wall_ms() / 1000;
            let claims = Claims {
                user: "alice".into(),
                rooms,
                issued_seconds,
                expires_seconds: issued_seconds + ttl_seconds,
            };
            format!("Bearer {}", sign(&options(), &claims).expect("signs"))
        }

        fn fill(&self, room: &str, count: u64) {
            for n in 1..=count {
                let draft = Draft {
                    room: room.into(),
                    user: "bob".into(),
                    content: format!("message {n}").into(),
                    client_msg_id: None,
                    id: uuid::Uuid::from_u128(n.into()),
                    wall_ms: self.env.wall_ms(),
                };
                block_on(self.store.append(draft)).expect("stored");
            }
        }

        fn get(&self, query: &str, authorization: &[&str]) -> (Response, Value) {
            let values = authorization.iter().copied();
            let response = block_on(self.rest.history(Query::new(query), values));
            let body = serde_json::from_slice(&response.body).expect("JSON");
            (response, body)
        }

        /// The sequence numbers, `hasMore` and the cursor of a page.
        fn page(&self, query: &str) -> (Vec<u64>, bool, Value) {
            let (response, body) = self.get(query, &[&self.token(None, 60)]);
            assert_eq!(response.status, 200, "{body}");
            let messages = body["messages"].as_array().expect("messages");
            let seqs = messages.iter().filter_map(|m| m["seq"].as_u64()).collect();
            let mut next = body.clone();
            let next = next.as_object_mut().expect("an object");
            for key in ["roomId", "messages", "hasMore"] {
                next.remove(key);
            }
            (seqs, body["hasMore"] == true, json!(next))
        }

        fn refusal(&self, query: &str, authorization: &[&str]) -> (u16, String, String) {
            let (response, body) = self.get(query, authorization);
            let text = |key: &str| body["error"][key].as_str().expect("text").to_owned();
            (response.status, text("code"), text("message"))
        }
    }

    fn has(response: &Response, name: &str, value: &str) -> bool {
        let mut fields = response.fields.iter();
        fields.any(|(n, v)| *n == name && v == value)
    }

    #[test]
    fn pages_go_both_ways() {
        let place = place();
        place.fill("r", 7);
        let newest = place.page("roomId=r&limit=3");
        assert_eq!(newest, (vec![5, 6, 7], true, json!({"nextBeforeSeq": 5})));
        let before = place.page("roomId=r&limit=4&beforeSeq=5");
        assert_eq!(
            before,
            (vec![1, 2, 3, 4], false, json!({"nextBeforeSeq": 1}))
        );
        let after = place.page("roomId=r&limit=2&afterSeq=0");
        assert_eq!(after, (vec![1, 2], true, json!({"nextAfterSeq": 2})));
        let end = place.page("roomId=r&afterSeq=7");
        assert_eq!(end, (vec![], false, json!({"nextAfterSeq": 7})));
        assert_eq!(place.page("roomId=r").0.len(), 7);
    }

    #[test]
    fn a_room_without_messages_is_an_empty_page() {
        let nothing = place().page("roomId=nowhere");
        assert_eq!(nothing, (vec![], false, json!({"nextBeforeSeq": null})));
    }

    #[test]
    fn a_message_looks_as_it_does_live() {
        let place = place();
        place.fill("a room/ü", 1);
        let query = "roomId=a+room%2F%C3%BC";
        let (_, body) = place.get(query, &[&place.token(None, 60)]);
        assert_eq!(body["roomId"], "a room/ü");
        assert_eq!(
            body["messages"][0],
            json!({
                "roomId": "a room/ü", "userId": "bob", "content": "message 1", "seq": 1,
                "timestamp": "2026-01-01T00:00:00.000Z",
                "id": "00000000-0000-0000-0000-000000000001",
            })
        );
    }

    #[test]
    fn parameters_are_checked_strictly() {
        let place = place();
        let token = place.token(None, 60);
        let long = format!("roomId={}", "x".repeat(129));
        for (query, field) in [
            ("", "roomId"),
            ("roomId=", "roomId"),
            ("roomId=a&roomId=b", "roomId"),
            ("roomId=x%00y", "roomId"),
            ("roomId=%ff", "roomId"),
            (&long, "roomId"),
            ("roomId=r&limit=0", "limit"),
            ("roomId=r&limit=101", "limit"),
            ("roomId=r&limit=", "limit"),
            ("roomId=r&limit=%2B5", "limit"),
            ("roomId=r&limit=1.5", "limit"),
            ("roomId=r&limit=5&limit=5", "limit"),
            ("roomId=r&limit=99999999999999999999", "limit"),
            ("roomId=r&beforeSeq=-1", "beforeSeq"),
            ("roomId=r&beforeSeq=x", "beforeSeq"),
            ("roomId=r&afterSeq=", "afterSeq"),
            ("roomId=r&afterSeq=1&afterSeq=1", "afterSeq"),
            ("roomId=r&afterSeq=9007199254740992", "afterSeq"),
            ("roomId=r&afterSeq=1&beforeSeq=9", "afterSeq"),
        ] {
            let (status, code, message) = place.refusal(query, &[&token]);
            assert_eq!((status, &*code), (400, "invalid_payload"), "{query}");
            assert!(message.starts_with(field), "{query}: {message}");
        }
        let (response, _) = place.get("roomId=%EF%BF%BD&limit=100&extra=1", &[&token]);
        assert_eq!(response.status, 200);
    }

    #[test]
    fn history_needs_a_token_that_allows_the_room() {
        let place = place();
        let good = place.token(None, 60);
        let expired = place.token(None, 0);
        place.env.advance(std::time::Duration::from_secs(6));
        let check = |authorization: &[&str]| {
            let (response, body) = place.get("roomId=r", authorization);
            assert!(has(&response, "WWW-Authenticate", "Bearer"));
            (response.status, body["error"]["code"].clone())
        };
        let unauthorized = (401, json!("unauthorized"));
        assert_eq!(check(&[]), unauthorized);
        assert_eq!(check(&["Bearer x.y.z"]), unauthorized);
        assert_eq!(check(&["Basic eDp5"]), unauthorized);
        assert_eq!(check(&[&good, &good]), unauthorized);
        assert_eq!(check(&[&expired]), (401, json!("token_expired")));
        let narrow = place.token(Some(vec!["lobby".into()]), 60);
        let (status, code, _) = place.refusal("roomId=r", &[&narrow]);
        assert_eq!((status, &*code), (403, "forbidden"));
        assert_eq!(place.get("roomId=lobby", &[&narrow]).0.status, 200);
    }

    #[test]
    fn the_installations_own_rules_are_asked_before_the_store() {
        struct Nobody(Denied);
        impl Permissions for Nobody {
            fn check<'a>(
                &'a self,
                _user: &'a User,
                room: &'a str,
                act: Act,
            ) -> LocalBoxFuture<'a, Result<(), Denied>> {
                assert_eq!((room, act), ("r", Act::Read));
                Box::pin(ready(Err(self.0)))
            }
        }
        let mut place = place();
        let token = place.token(None, 60);
        for (denied, status) in [(Denied::Forbidden, 403), (Denied::Unknown, 503)] {
            place.rest.permissions = Rc::new(Nobody(denied));
            assert_eq!(place.get("roomId=r", &[&token]).0.status, status);
        }
    }

    #[test]
    fn a_store_that_does_not_answer_is_said_so() {
        let down = refuse(&unread(&StoreError::Unavailable("a secret cause".into())));
        assert_eq!(down.status, 503);
        assert!(has(&down, "Retry-After", "1"));
        assert!(!String::from_utf8_lossy(&down.body).contains("secret"));
        assert_eq!(refuse(&unread(&StoreError::Timeout)).status, 504);
    }
}
