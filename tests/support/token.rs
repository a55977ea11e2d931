//! Tokens for the server under test.

use std::time::{SystemTime, UNIX_EPOCH};

use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
use serde_json::{Value, json};

/// The first secret of every server under test.
pub(crate) const SECRET: &str = "a-secret-of-the-tests-which-is-long-enough";
/// The second one, which verifies too.
pub(crate) const OLD_SECRET: &str = "an-older-secret-of-the-tests-long-enough-too";

pub(crate) fn now_seconds() -> f64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.expect("the clock is past 1970").as_secs_f64()
}

/// A token of a user, good for an hour.
pub(crate) fn token(user: &str) -> String {
    signed(&json!({"sub": user, "exp": now_seconds() + 3600.0}))
}

/// A token of a user that allows these rooms.
pub(crate) fn token_for(user: &str, rooms: &[&str]) -> String {
    signed(&json!({"sub": user, "exp": now_seconds() + 3600.0, "rooms": rooms}))
}

/// A token with these claims.
pub(crate) fn signed(claims: &Value) -> String {
    signed_with(claims, &Header::new(Algorithm::HS256), SECRET)
}

/// A token with these claims and this header, signed with this secret.
pub(crate) fn signed_with(claims: &Value, header: &Header, secret: &str) -> String {
    let key = EncodingKey::from_secret(secret.as_bytes());
    encode(header, claims, &key).expect("a token can be made")
}
