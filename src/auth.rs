//! Who a token is: JSON Web Tokens (RFC 7519), checked as RFC 8725 asks.
//!
//! The algorithm follows from the kind of key configured, never from the token: a secret is HS256, and
//! each public key ([`jwks`]) has its one algorithm. A token's `alg` and `kid` only choose among them. Claims of the wrong
//! type refuse the token instead of counting as absent. The library checks the signature and nothing
//! else: it would read the clock itself, so header and claims are judged here, at a time given.
//! Nothing here does I/O or reads a clock.

pub mod jwks;
mod seen;

use std::cell::RefCell;
use std::fmt;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header};
use serde_json::{Map, Value};

use self::jwks::{Kind, PublicKey};
use self::seen::Seen;

/// Longest token that is looked at, in bytes.
pub const TOKEN_BYTES_MAX: usize = 8 * 1024;
/// Longest `sub` in bytes.
pub const USER_BYTES_MAX: usize = 128;
/// Most entries of a `rooms` claim.
pub const ROOM_PATTERNS_MAX: usize = 1_000;
/// The one algorithm of secrets, and its name in a token's header.
const ALGORITHM: Algorithm = Algorithm::HS256;
const ALGORITHM_NAME: &str = "HS256";
/// Largest `NumericDate` that is told apart, in seconds: the last second of 9999, which RFC 3339 can write.
const DATE_SECONDS_MAX: f64 = 253_402_300_799.0;

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
    /// `kid` names no key of that kind, or there is none for tokens without `kid`.
    #[error("the token's key is not known")]
    Key,
    /// There is nothing to sign with.
    #[error("only JWT_SECRET signs tokens; public keys verify them")]
    NoSecret,
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
#[derive(Clone, Default)]
pub struct Keys {
    /// HS256. The first signs, all verify, so that a secret can be replaced without a pause.
    pub secrets: Vec<Box<[u8]>>,
    /// Keys of somebody else, who signs: RS256, ES256 and EdDSA.
    pub public: Vec<PublicKey>,
}

impl Keys {
    /// Secrets alone.
    #[must_use]
    pub fn secrets(secrets: Vec<Box<[u8]>>) -> Self {
        let public = Vec::new();
        Self { secrets, public }
    }
}

impl fmt::Debug for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} x ***, {:?}", self.secrets.len(), self.public)
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

/// Checks tokens, by rules that can be replaced while it is in use.
#[derive(Debug)]
pub struct Verifier {
    rules: RefCell<Arc<Rules>>,
    seen: RefCell<Seen>,
}

impl Verifier {
    /// A verifier for these keys and expectations.
    #[must_use]
    pub fn new(options: &AuthOptions) -> Self {
        Self::with_rules(Arc::new(Rules::new(options)))
    }

    /// A verifier by rules that others share.
    #[must_use]
    pub fn with_rules(rules: Arc<Rules>) -> Self {
        Self {
            rules: RefCell::new(rules),
            seen: RefCell::default(),
        }
    }

    /// Goes by other rules from now on. Whoever was let in before stays so.
    pub fn replace(&self, rules: Arc<Rules>) {
        *self.rules.borrow_mut() = rules;
        self.seen.take();
    }

    /// Says whom the token names, or why it is refused at `now_wall_ms`.
    pub fn verify(&self, token: &str, now_wall_ms: u64) -> Result<User, AuthError> {
        let mut seen = self.seen.borrow_mut();
        self.rules.borrow().verify(token, now_wall_ms, &mut seen)
    }
}

/// Keys and expectations, ready for use by any number of shards.
pub struct Rules {
    secrets: Vec<DecodingKey>,
    public: Vec<PublicKey>,
    issuer: Option<Box<str>>,
    audience: Option<Box<str>>,
    leeway_ms: u64,
}

impl fmt::Debug for Rules {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Rules")
            .field("secrets", &self.secrets.len())
            .field("public", &self.public)
            .field("issuer", &self.issuer)
            .field("audience", &self.audience)
            .field("leeway_ms", &self.leeway_ms)
            .finish_non_exhaustive()
    }
}

impl Rules {
    /// The rules of these keys and expectations.
    #[must_use]
    pub fn new(options: &AuthOptions) -> Self {
        let secrets = options.keys.secrets.iter();
        Self {
            secrets: secrets.map(|s| DecodingKey::from_secret(s)).collect(),
            public: options.keys.public.clone(),
            issuer: options.issuer.clone(),
            audience: options.audience.clone(),
            leeway_ms: u64::from(options.leeway_seconds) * 1000,
        }
    }

    /// See [`Verifier::verify`].
    fn verify(&self, token: &str, now_wall_ms: u64, seen: &mut Seen) -> Result<User, AuthError> {
        if token.is_empty() {
            return Err(AuthError::Missing);
        }
        let claims = self.check_signature(token, seen)?;
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
    fn check_signature(
        &self,
        token: &str,
        seen: &mut Seen,
    ) -> Result<Map<String, Value>, AuthError> {
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
        let is_signed = match head.get("alg").and_then(Value::as_str) {
            Some(ALGORITHM_NAME) if !self.secrets.is_empty() => {
                let message = message.as_bytes();
                self.secrets.iter().any(|key| {
                    jsonwebtoken::crypto::verify(signature, message, key, ALGORITHM)
                        .unwrap_or(false)
                })
            }
            Some(name) => {
                let key = self.public_key(name, head.get("kid"))?;
                seen.is_good(token, || {
                    let signature = URL_SAFE_NO_PAD.decode(signature);
                    signature.is_ok_and(|signature| key.verifies(message.as_bytes(), &signature))
                })
            }
            None => return Err(AuthError::Algorithm),
        };
        if !is_signed {
            return Err(AuthError::Signature);
        }
        object(body)
    }

    /// The one key for tokens of this algorithm and `kid`; without `kid`, the one that has none.
    fn public_key(&self, algorithm: &str, name: Option<&Value>) -> Result<&PublicKey, AuthError> {
        let kind = Kind::of(algorithm).ok_or(AuthError::Algorithm)?;
        let mut keys = self.public.iter().filter(|key| key.kind == kind).peekable();
        if keys.peek().is_none() {
            return Err(AuthError::Algorithm);
        }
        let name = match name {
            None => None,
            Some(Value::String(name)) => Some(&**name),
            Some(_) => return Err(AuthError::Malformed),
        };
        keys.find(|key| key.kid.as_deref() == name)
            .ok_or(AuthError::Key)
    }

    /// RFC 7519 sections 4.1.1 and 4.1.3: the issuer is one, an audience may be several. Of another type
    /// they are refused, also when nobody has said who they must be.
    fn check_parties(&self, claims: &Map<String, Value>) -> Result<(), AuthError> {
        let issuer = match claims.get("iss") {
            None => None,
            Some(Value::String(issuer)) => Some(&**issuer),
            Some(_) => return Err(AuthError::Claim("iss")),
        };
        if self.issuer.is_some() && issuer != self.issuer.as_deref() {
            return Err(AuthError::Claim("iss"));
        }
        let audience = audience_of(claims).ok_or(AuthError::Claim("aud"))?;
        match &self.audience {
            Some(expected) if !audience.contains(&&**expected) => Err(AuthError::Claim("aud")),
            _ => Ok(()),
        }
    }
}

/// A part of a token that must be a JSON object.
fn object(part: &str) -> Result<Map<String, Value>, AuthError> {
    let bytes = URL_SAFE_NO_PAD
        .decode(part)
        .map_err(|_| AuthError::Malformed)?;
    serde_json::from_slice(&bytes).map_err(|_| AuthError::Malformed)
}

/// Whom a token is for: nobody in particular, one, or several. `None`: it is neither.
fn audience_of(claims: &Map<String, Value>) -> Option<Vec<&str>> {
    match claims.get("aud") {
        None => Some(Vec::new()),
        Some(Value::Array(several)) => several.iter().map(Value::as_str).collect(),
        Some(one) => one.as_str().map(|one| vec![one]),
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
        reason = "clamped to 0..=1e12, which both types hold"
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
    let secret = options.keys.secrets.first().ok_or(AuthError::NoSecret)?;
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
mod tests;
