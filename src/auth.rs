//! Who a token is: JSON Web Tokens (RFC 7519), checked as RFC 8725 asks.
//!
//! The algorithm follows from the kind of key configured, never from the token. Claims of the wrong
//! type refuse the token instead of counting as absent. The library checks the signature and nothing
//! else: it would read the clock itself, so header and claims are judged here, at a time given.
//! Nothing here does I/O or reads a clock.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header};
use serde_json::{Map, Value};

/// Longest token that is looked at, in bytes.
pub const TOKEN_BYTES_MAX: usize = 8 * 1024;
/// Longest `sub` in bytes.
pub const USER_BYTES_MAX: usize = 128;
/// Most entries of a `rooms` claim.
pub const ROOM_PATTERNS_MAX: usize = 1_000;
/// The one algorithm of [`Keys::Secrets`], and its name in a token's header.
const ALGORITHM: Algorithm = Algorithm::HS256;
const ALGORITHM_NAME: &str = "HS256";
/// Largest `NumericDate` that is told apart, in seconds: the year 9999 is below it.
const DATE_SECONDS_MAX: f64 = 1e12;

/// Why a token is refused. The texts go to the client; none of them carries a part of the token.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum AuthError {
    /// No token where one is needed.
    #[error("a token is required")]
    Missing,
    /// Not three parts of base64url, or no JSON objects in them.
    #[error("the token is malformed")]
    Malformed,
    /// Another algorithm than the one of the configured keys.
    #[error("the token's algorithm is not accepted")]
    Algorithm,
    /// RFC 7515 section 4.1.11: an extension that must be understood, and is not.
    #[error("the token's crit header is not understood")]
    Critical,
    /// No key verifies it.
    #[error("the token's signature is not valid")]
    Signature,
    /// A claim is missing, of the wrong type or outside its bounds.
    #[error("the token's claim {0} is missing or not valid")]
    Claim(&'static str),
    /// `nbf` lies in the future.
    #[error("the token is not valid yet")]
    NotYetValid,
    /// `exp` is past.
    #[error("the token has expired")]
    Expired,
}

impl AuthError {
    /// Whether the code is `token_expired`; else it is `unauthorized`.
    #[must_use]
    pub fn is_expired(self) -> bool {
        self == Self::Expired
    }
}

/// The keys of a configuration. Each kind fixes its algorithm.
#[derive(Clone)]
#[non_exhaustive]
pub enum Keys {
    /// HS256. The first signs, all verify, so that a secret can be replaced without a pause.
    Secrets(Vec<Box<[u8]>>),
}

impl fmt::Debug for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Secrets(secrets) => write!(f, "Secrets({} x ***)", secrets.len()),
        }
    }
}

/// What a token is checked against.
#[derive(Debug, Clone)]
pub struct AuthOptions {
    /// The keys.
    pub keys: Keys,
    /// The `iss` that a token must have.
    pub issuer: Option<Box<str>>,
    /// The `aud` that a token must be for.
    pub audience: Option<Box<str>>,
    /// How far the issuer's clock may be off.
    pub leeway_seconds: u32,
}

/// Which rooms a token opens.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Rooms {
    All,
    /// Names, compared byte for byte; one that ends in `*` matches what begins with the rest.
    Only(Box<[Box<str>]>),
}

/// Whom a token names, and what it allows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct User {
    /// `sub`.
    pub id: Box<str>,
    /// When it runs out: `exp`, in milliseconds since 1970.
    pub expires_wall_ms: u64,
    /// When it stops being taken for valid, the leeway included.
    pub refused_wall_ms: u64,
    rooms: Rooms,
}

impl User {
    /// Whether the token's `rooms` claim allows the room. Without that claim every room is allowed.
    #[must_use]
    pub fn may_enter(&self, room: &str) -> bool {
        match &self.rooms {
            Rooms::All => true,
            Rooms::Only(patterns) => patterns.iter().any(|pattern| {
                pattern
                    .strip_suffix('*')
                    .map_or(**pattern == *room, |prefix| room.starts_with(prefix))
            }),
        }
    }
}

/// Checks tokens.
pub struct Verifier {
    keys: Vec<DecodingKey>,
    issuer: Option<Box<str>>,
    audience: Option<Box<str>>,
    leeway_ms: u64,
}

impl fmt::Debug for Verifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Verifier")
            .field("keys", &self.keys.len())
            .field("issuer", &self.issuer)
            .field("audience", &self.audience)
            .field("leeway_ms", &self.leeway_ms)
            .finish_non_exhaustive()
    }
}

impl Verifier {
    /// A verifier for these keys and expectations.
    #[must_use]
    pub fn new(options: &AuthOptions) -> Self {
        let Keys::Secrets(secrets) = &options.keys;
        Self {
            keys: secrets
                .iter()
                .map(|s| DecodingKey::from_secret(s))
                .collect(),
            issuer: options.issuer.clone(),
            audience: options.audience.clone(),
            leeway_ms: u64::from(options.leeway_seconds) * 1000,
        }
    }

    /// Says whom the token names, or why it is refused at `now_wall_ms`.
    pub fn verify(&self, token: &str, now_wall_ms: u64) -> Result<User, AuthError> {
        if token.is_empty() {
            return Err(AuthError::Missing);
        }
        let claims = self.check_signature(token)?;
        self.check_parties(&claims)?;
        let id = claims
            .get("sub")
            .and_then(Value::as_str)
            .filter(|id| is_name(id, USER_BYTES_MAX))
            .ok_or(AuthError::Claim("sub"))?;
        let rooms = rooms_of(&claims)?;
        let expires_wall_ms = date_ms(&claims, "exp")?.ok_or(AuthError::Claim("exp"))?;
        let not_before_ms = date_ms(&claims, "nbf")?.unwrap_or(0);
        date_ms(&claims, "iat")?;
        let refused_wall_ms = expires_wall_ms.saturating_add(self.leeway_ms);
        if now_wall_ms >= refused_wall_ms {
            return Err(AuthError::Expired);
        }
        if not_before_ms > now_wall_ms.saturating_add(self.leeway_ms) {
            return Err(AuthError::NotYetValid);
        }
        Ok(User {
            id: id.into(),
            expires_wall_ms,
            refused_wall_ms,
            rooms,
        })
    }

    /// Checks the header and the signature (RFC 7515 section 5.2), and gives the claims.
    fn check_signature(&self, token: &str) -> Result<Map<String, Value>, AuthError> {
        if token.len() > TOKEN_BYTES_MAX {
            return Err(AuthError::Malformed);
        }
        let (message, signature) = token.rsplit_once('.').ok_or(AuthError::Malformed)?;
        let (head, body) = message.split_once('.').ok_or(AuthError::Malformed)?;
        if body.contains('.') {
            return Err(AuthError::Malformed);
        }
        let head = object(head)?;
        if head.contains_key("crit") {
            return Err(AuthError::Critical);
        }
        if head.get("alg").and_then(Value::as_str) != Some(ALGORITHM_NAME) {
            return Err(AuthError::Algorithm);
        }
        let signed = |key| {
            jsonwebtoken::crypto::verify(signature, message.as_bytes(), key, ALGORITHM)
                .unwrap_or(false)
        };
        if !self.keys.iter().any(signed) {
            return Err(AuthError::Signature);
        }
        object(body)
    }

    fn check_parties(&self, claims: &Map<String, Value>) -> Result<(), AuthError> {
        let matches = |expected: &Option<Box<str>>, name| match expected {
            Some(expected) => names(claims.get(name), expected),
            None => true,
        };
        if !matches(&self.issuer, "iss") {
            return Err(AuthError::Claim("iss"));
        }
        if !matches(&self.audience, "aud") {
            return Err(AuthError::Claim("aud"));
        }
        Ok(())
    }
}

/// A part of a token that must be a JSON object.
fn object(part: &str) -> Result<Map<String, Value>, AuthError> {
    let bytes = URL_SAFE_NO_PAD
        .decode(part)
        .map_err(|_| AuthError::Malformed)?;
    serde_json::from_slice(&bytes).map_err(|_| AuthError::Malformed)
}

/// Whether a claim is the expected string, or an array of strings with it.
fn names(claim: Option<&Value>, expected: &str) -> bool {
    match claim {
        Some(Value::String(one)) => one == expected,
        Some(Value::Array(several)) => {
            several.iter().all(Value::is_string)
                && several.iter().any(|one| one.as_str() == Some(expected))
        }
        _ => false,
    }
}

/// A `NumericDate` claim in milliseconds; `None` when absent. Negative ones count as 1970.
fn date_ms(claims: &Map<String, Value>, name: &'static str) -> Result<Option<u64>, AuthError> {
    let Some(claim) = claims.get(name) else {
        return Ok(None);
    };
    let seconds = claim.as_f64().ok_or(AuthError::Claim(name))?;
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "clamped to 0..=1e15, which both types hold"
    )]
    let ms = (seconds.clamp(0.0, DATE_SECONDS_MAX) * 1000.0) as u64;
    Ok(Some(ms))
}

fn rooms_of(claims: &Map<String, Value>) -> Result<Rooms, AuthError> {
    let Some(claim) = claims.get("rooms") else {
        return Ok(Rooms::All);
    };
    let wrong = AuthError::Claim("rooms");
    let entries = claim.as_array().ok_or(wrong)?;
    if entries.len() > ROOM_PATTERNS_MAX {
        return Err(wrong);
    }
    let patterns: Option<Box<[Box<str>]>> =
        entries.iter().map(|e| e.as_str().map(Box::from)).collect();
    patterns.map(Rooms::Only).ok_or(wrong)
}

/// Whether a text is a name: 1 to `bytes_max` bytes without control characters.
#[must_use]
pub fn is_name(text: &str, bytes_max: usize) -> bool {
    (1..=bytes_max).contains(&text.len()) && !text.chars().any(char::is_control)
}

/// The token of an `Authorization` field value; `None` for another scheme.
#[must_use]
pub fn bearer(field_value: &str) -> Option<&str> {
    let (scheme, token) = field_value.split_once(' ')?;
    scheme
        .eq_ignore_ascii_case("bearer")
        .then(|| token.trim_matches(' '))
}

/// What a new token says.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Claims {
    /// `sub`.
    pub user: Box<str>,
    /// `rooms`; `None` allows every room.
    pub rooms: Option<Vec<Box<str>>>,
    /// `iat`, in seconds since 1970.
    pub issued_seconds: u64,
    /// `exp`, in seconds since 1970.
    pub expires_seconds: u64,
}

/// Makes a token with the first key, carrying the `iss` and `aud` of the options.
pub fn sign(options: &AuthOptions, claims: &Claims) -> Result<String, AuthError> {
    if !is_name(&claims.user, USER_BYTES_MAX) {
        return Err(AuthError::Claim("sub"));
    }
    let Keys::Secrets(secrets) = &options.keys;
    let secret = secrets.first().ok_or(AuthError::Missing)?;
    let mut body = Map::new();
    body.insert("sub".into(), claims.user.as_ref().into());
    body.insert("iat".into(), claims.issued_seconds.into());
    body.insert("exp".into(), claims.expires_seconds.into());
    if let Some(rooms) = &claims.rooms {
        let rooms = rooms.iter().map(|room| Value::from(room.as_ref()));
        body.insert("rooms".into(), rooms.collect());
    }
    for (name, value) in [("iss", &options.issuer), ("aud", &options.audience)] {
        if let Some(value) = value {
            body.insert(name.into(), value.as_ref().into());
        }
    }
    let header = Header::new(ALGORITHM);
    jsonwebtoken::encode(&header, &body, &EncodingKey::from_secret(secret))
        .map_err(|_| AuthError::Malformed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    const NOW_S: u64 = 1_800_000_000;
    const NOW: u64 = NOW_S * 1000;
    const SECRET: &[u8] = b"0123456789abcdef0123456789abcdef";
    const OLD: &[u8] = b"an older secret of enough bytes!";

    fn options(secrets: &[&[u8]]) -> AuthOptions {
        AuthOptions {
            keys: Keys::Secrets(secrets.iter().map(|s| Box::from(*s)).collect()),
            issuer: None,
            audience: None,
            leeway_seconds: 5,
        }
    }

    fn verify(token: &str) -> Result<User, AuthError> {
        Verifier::new(&options(&[SECRET, OLD])).verify(token, NOW)
    }

    fn token_with(header: &Value, body: &Value, secret: &[u8], algorithm: Algorithm) -> String {
        let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
        let message = format!("{}.{}", part(header), part(body));
        let key = EncodingKey::from_secret(secret);
        let signature =
            jsonwebtoken::crypto::sign(message.as_bytes(), &key, algorithm).expect("signs");
        format!("{message}.{signature}")
    }

    fn token(body: &Value) -> String {
        token_with(&json!({"alg": "HS256"}), body, SECRET, Algorithm::HS256)
    }

    fn good() -> Value {
        json!({"sub": "alice", "exp": NOW_S + 60})
    }

    /// The good claims with one of them replaced.
    fn with(name: &str, value: Value) -> String {
        let mut body = good();
        body[name] = value;
        token(&body)
    }

    #[test]
    fn takes_a_token_of_each_secret() {
        for secret in [SECRET, OLD] {
            let header = json!({"alg": "HS256", "typ": "JWT"});
            let token = token_with(&header, &good(), secret, Algorithm::HS256);
            let user = verify(&token).expect("valid");
            assert_eq!(&*user.id, "alice");
            assert_eq!(user.expires_wall_ms, NOW + 60_000);
            assert!(user.may_enter("anywhere"));
        }
    }

    #[test]
    fn refuses_a_foreign_secret_and_a_changed_token() {
        let header = json!({"alg": "HS256"});
        let foreign = token_with(&header, &good(), b"somebody else", Algorithm::HS256);
        assert_eq!(verify(&foreign), Err(AuthError::Signature));
        let token = token(&good());
        let (message, _) = token.rsplit_once('.').expect("three parts");
        for signature in ["", "AAAA", &"A".repeat(43)] {
            let forged = format!("{message}.{signature}");
            assert_eq!(verify(&forged), Err(AuthError::Signature), "{forged}");
        }
        let (head, rest) = token.split_once('.').expect("three parts");
        let (_, signature) = rest.split_once('.').expect("three parts");
        let body = URL_SAFE_NO_PAD.encode(json!({"sub": "root", "exp": NOW_S + 60}).to_string());
        let forged = format!("{head}.{body}.{signature}");
        assert_eq!(verify(&forged), Err(AuthError::Signature));
    }

    #[test]
    fn the_configuration_fixes_the_algorithm() {
        for name in [
            "none", "None", "", "HS384", "HS512", "RS256", "ES256", "EdDSA",
        ] {
            let header = json!({"alg": name});
            let token = token_with(&header, &good(), SECRET, Algorithm::HS256);
            assert_eq!(verify(&token), Err(AuthError::Algorithm), "{name}");
        }
        for header in [json!({}), json!({"alg": null}), json!({"alg": ["HS256"]})] {
            let token = token_with(&header, &good(), SECRET, Algorithm::HS256);
            assert_eq!(verify(&token), Err(AuthError::Algorithm), "{header}");
        }
        let really_512 = token_with(&json!({"alg": "HS512"}), &good(), SECRET, Algorithm::HS512);
        assert_eq!(verify(&really_512), Err(AuthError::Algorithm));
        let unsigned = token_with(&json!({"alg": "none"}), &good(), SECRET, Algorithm::HS256);
        let (message, _) = unsigned.rsplit_once('.').expect("three parts");
        assert_eq!(verify(&format!("{message}.")), Err(AuthError::Algorithm));
    }

    #[test]
    fn refuses_crit_whatever_it_says() {
        for crit in [json!(["exp"]), json!([]), json!(null), json!("b64")] {
            let header = json!({"alg": "HS256", "crit": crit});
            let token = token_with(&header, &good(), SECRET, Algorithm::HS256);
            assert_eq!(verify(&token), Err(AuthError::Critical), "{header}");
        }
    }

    #[test]
    fn refuses_what_is_not_a_token() {
        assert_eq!(verify(""), Err(AuthError::Missing));
        let good = token(&good());
        let long = format!("{good}{}", "A".repeat(TOKEN_BYTES_MAX));
        let part = URL_SAFE_NO_PAD.encode("[]");
        for text in [
            "x",
            "..",
            "a.b",
            "a.b.c.d",
            "ä.ö.ü",
            &format!("{good}.x"),
            &format!(" {good}"),
            &long,
            &format!("{part}.{part}.{part}"),
        ] {
            assert_eq!(verify(text), Err(AuthError::Malformed), "{text}");
        }
        let array = token_with(
            &json!({"alg": "HS256"}),
            &json!([1]),
            SECRET,
            Algorithm::HS256,
        );
        assert_eq!(verify(&array), Err(AuthError::Malformed));
    }

    #[test]
    fn sub_and_exp_are_required() {
        assert_eq!(
            verify(&token(&json!({"exp": NOW_S + 60}))),
            Err(AuthError::Claim("sub"))
        );
        assert_eq!(
            verify(&token(&json!({"sub": "alice"}))),
            Err(AuthError::Claim("exp"))
        );
    }

    #[test]
    fn claims_of_the_wrong_type_refuse_the_token() {
        let long = "x".repeat(129);
        let wrong = [
            (
                "sub",
                vec![
                    json!(1),
                    json!(null),
                    json!(["alice"]),
                    json!(""),
                    json!("a\u{7}"),
                ],
            ),
            ("sub", vec![json!(long), json!("a\u{85}b"), json!({"a": 1})]),
            (
                "exp",
                vec![
                    json!("1900000000"),
                    json!(null),
                    json!(true),
                    json!([NOW_S]),
                ],
            ),
            (
                "nbf",
                vec![json!("1"), json!(null), json!(false), json!({})],
            ),
            ("iat", vec![json!("1"), json!(null)]),
            (
                "rooms",
                vec![json!("lobby"), json!(null), json!([1]), json!(["a", null])],
            ),
        ];
        for (name, values) in wrong {
            for value in values {
                let token = with(name, value.clone());
                assert_eq!(
                    verify(&token),
                    Err(AuthError::Claim(name)),
                    "{name} {value}"
                );
            }
        }
        let most = vec![json!("r"); ROOM_PATTERNS_MAX + 1];
        let token = with("rooms", json!(most));
        assert_eq!(verify(&token), Err(AuthError::Claim("rooms")));
        assert!(verify(&with("sub", json!("x".repeat(128)))).is_ok());
        assert!(verify(&with("sub", json!("ünï 🦀"))).is_ok());
    }

    #[test]
    fn exp_is_judged_with_the_leeway() {
        let at = |exp: f64| verify(&with("exp", json!(exp)));
        let now = 1_800_000_000.0;
        assert!(at(now - 4.9).is_ok());
        assert_eq!(at(now - 5.0), Err(AuthError::Expired));
        assert_eq!(at(-1.0), Err(AuthError::Expired));
        assert_eq!(at(0.0), Err(AuthError::Expired));
        let user = at(now + 0.5).expect("valid");
        assert_eq!(user.expires_wall_ms, NOW + 500);
        assert_eq!(user.refused_wall_ms, NOW + 5_500);
        assert!(at(1e300).is_ok());
        assert!(AuthError::Expired.is_expired() && !AuthError::Signature.is_expired());
    }

    #[test]
    fn nbf_is_honoured_with_the_leeway() {
        assert!(verify(&with("nbf", json!(NOW_S + 5))).is_ok());
        assert_eq!(
            verify(&with("nbf", json!(NOW_S + 6))),
            Err(AuthError::NotYetValid)
        );
        assert_eq!(
            verify(&with("nbf", json!(1e300))),
            Err(AuthError::NotYetValid)
        );
        assert!(verify(&with("iat", json!(NOW_S))).is_ok());
    }

    #[test]
    fn issuer_and_audience_are_checked_when_configured() {
        let mut options = options(&[SECRET]);
        options.issuer = Some("here".into());
        options.audience = Some("chat".into());
        let verifier = Verifier::new(&options);
        let check = |iss: Value, aud: Value| {
            let mut body = good();
            body["iss"] = iss;
            body["aud"] = aud;
            verifier.verify(&token(&body), NOW).map(|_| ())
        };
        assert_eq!(check(json!("here"), json!("chat")), Ok(()));
        assert_eq!(check(json!("here"), json!(["x", "chat"])), Ok(()));
        let iss = Err(AuthError::Claim("iss"));
        let aud = Err(AuthError::Claim("aud"));
        assert_eq!(check(json!("there"), json!("chat")), iss);
        assert_eq!(check(json!(null), json!("chat")), iss);
        assert_eq!(check(json!("here"), json!([])), aud);
        assert_eq!(check(json!("here"), json!(["chat", 1])), aud);
        assert_eq!(check(json!("here"), json!(7)), aud);
        assert_eq!(verifier.verify(&token(&good()), NOW).map(|_| ()), iss);
        assert!(verify(&with("aud", json!("anything"))).is_ok());
    }

    #[test]
    fn the_rooms_claim_names_rooms_and_prefixes() {
        let user = verify(&with("rooms", json!(["lobby", "team-*", "a*b"]))).expect("valid");
        for (room, allowed) in [
            ("lobby", true),
            ("lobby2", false),
            ("Lobby", false),
            ("team-", true),
            ("team-7", true),
            ("team", false),
            ("a*b", true),
            ("axb", false),
            ("", false),
        ] {
            assert_eq!(user.may_enter(room), allowed, "{room}");
        }
        let none = verify(&with("rooms", json!([]))).expect("valid");
        assert!(!none.may_enter("lobby"));
        let all = verify(&with("rooms", json!(["*"]))).expect("valid");
        assert!(all.may_enter("lobby"));
    }

    #[test]
    fn what_is_signed_verifies() {
        let mut options = options(&[SECRET, OLD]);
        options.issuer = Some("here".into());
        options.audience = Some("chat".into());
        let claims = Claims {
            user: "bob".into(),
            rooms: Some(vec!["a".into(), "b*".into()]),
            issued_seconds: NOW_S,
            expires_seconds: NOW_S + 10,
        };
        let token = sign(&options, &claims).expect("signs");
        let user = Verifier::new(&options).verify(&token, NOW).expect("valid");
        assert_eq!(&*user.id, "bob");
        assert!(user.may_enter("b7") && !user.may_enter("c"));
        options.keys = Keys::Secrets(vec![OLD.into()]);
        let old = Verifier::new(&options);
        assert_eq!(old.verify(&token, NOW), Err(AuthError::Signature));
        let nameless = Claims::default();
        assert_eq!(sign(&options, &nameless), Err(AuthError::Claim("sub")));
    }

    #[test]
    fn the_authorization_field_is_read_as_a_bearer_token() {
        assert_eq!(bearer("Bearer abc"), Some("abc"));
        assert_eq!(bearer("bearer  abc "), Some("abc"));
        assert_eq!(bearer("Basic abc"), None);
        assert_eq!(bearer("Bearer"), None);
        assert_eq!(bearer(""), None);
    }

    #[test]
    fn secrets_are_not_printed() {
        let text = format!(
            "{:?} {:?}",
            options(&[SECRET]),
            Verifier::new(&options(&[SECRET]))
        );
        assert!(!text.contains("0123456789"), "{text}");
    }
}
