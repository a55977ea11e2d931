//! What the chat's clients send and get: payloads with their limits, and the error codes.
//!
//! A payload is judged on its raw JSON, field by field, so that each refusal names its field and a
//! text that JSON cannot turn into UTF-8 (a lone surrogate) is refused instead of replaced. Unknown
//! fields are ignored; of a repeated field the last counts. Pure: no I/O, no clock.

use std::borrow::Cow;
use std::fmt;
use std::time::Duration;

use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, Visitor};
use serde::{Deserialize, Serialize, Serializer};
use serde_json::value::RawValue;

use crate::auth::{AuthError, is_name};
use crate::store::{Message, MessageRef, StoreError};

/// Longest `roomId` in bytes.
pub const ROOM_BYTES_MAX: usize = 128;
/// Longest `content` in bytes.
pub const CONTENT_BYTES_MAX: usize = 65_536;
/// Longest `clientMsgId` in bytes.
pub const CLIENT_MSG_ID_BYTES_MAX: usize = 64;
/// The largest integer that a JavaScript number holds exactly.
pub const INTEGER_MAX: u64 = (1 << 53) - 1;
/// When to try again after `unavailable`.
pub const RETRY_AFTER_MS: u64 = 1_000;

/// The stable codes of refusals, the same for acks, exceptions and REST.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Code {
    /// A field is missing, of the wrong type or outside its bounds.
    InvalidPayload,
    /// No valid token.
    Unauthorized,
    /// The token has run out.
    TokenExpired,
    /// The token does not allow this.
    Forbidden,
    /// A send before the join.
    NotInRoom,
    /// No such path.
    NotFound,
    /// No such method on this path.
    MethodNotAllowed,
    /// Over the bound of rooms on a connection.
    TooManyRooms,
    /// Over a rate.
    RateLimited,
    /// Surely not done; try again.
    Unavailable,
    /// Not known whether it was done.
    Timeout,
    /// This server is going away.
    Draining,
    /// A bug of ours.
    Internal,
}

impl Code {
    /// The code as it travels.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::InvalidPayload => "invalid_payload",
            Self::Unauthorized => "unauthorized",
            Self::TokenExpired => "token_expired",
            Self::Forbidden => "forbidden",
            Self::NotInRoom => "not_in_room",
            Self::NotFound => "not_found",
            Self::MethodNotAllowed => "method_not_allowed",
            Self::TooManyRooms => "too_many_rooms",
            Self::RateLimited => "rate_limited",
            Self::Unavailable => "unavailable",
            Self::Timeout => "timeout",
            Self::Draining => "draining",
            Self::Internal => "internal",
        }
    }

    /// The HTTP status that goes with it. Codes that REST never gives count as the client's fault.
    #[must_use]
    pub fn status(self) -> u16 {
        match self {
            Self::InvalidPayload | Self::NotInRoom | Self::TooManyRooms => 400,
            Self::Unauthorized | Self::TokenExpired => 401,
            Self::Forbidden => 403,
            Self::NotFound => 404,
            Self::MethodNotAllowed => 405,
            Self::RateLimited => 429,
            Self::Internal => 500,
            Self::Unavailable | Self::Draining => 503,
            Self::Timeout => 504,
        }
    }
}

impl Serialize for Code {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

/// A refusal: `{code, message, retryAfterMs?}`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, thiserror::Error)]
#[error("{}: {message}", code.as_str())]
#[serde(rename_all = "camelCase")]
pub struct Failure {
    /// For programs.
    pub code: Code,
    /// For people.
    pub message: Cow<'static, str>,
    /// When it is worth trying again.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retry_after_ms: Option<u64>,
}

impl Failure {
    /// A refusal.
    pub fn new(code: Code, message: impl Into<Cow<'static, str>>) -> Self {
        Self {
            code,
            message: message.into(),
            retry_after_ms: (code == Code::Unavailable).then_some(RETRY_AFTER_MS),
        }
    }

    /// `rate_limited`: there is no room for this before `wait` is over.
    #[must_use]
    pub fn rate_limited(message: &'static str, wait: Duration) -> Self {
        let ms = wait.as_micros().div_ceil(1000);
        Self {
            retry_after_ms: Some(u64::try_from(ms).unwrap_or(u64::MAX)),
            ..Self::new(Code::RateLimited, message)
        }
    }

    /// `invalid_payload`; the message is `field` and what must hold for it.
    #[must_use]
    pub fn field(field: &str, rule: &str) -> Self {
        Self::new(Code::InvalidPayload, format!("{field} {rule}"))
    }
}

impl From<AuthError> for Failure {
    fn from(error: AuthError) -> Self {
        let code = match error {
            AuthError::Expired => Code::TokenExpired,
            _ => Code::Unauthorized,
        };
        Self::new(code, error.to_string())
    }
}

impl From<StoreError> for Failure {
    /// The cause is for the log; the client learns what it may rely on.
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Unavailable(_) => Self::new(
                Code::Unavailable,
                "the store does not take this now; nothing was stored",
            ),
            StoreError::Timeout => Self::new(
                Code::Timeout,
                "the store has not answered; send again with the same clientMsgId",
            ),
        }
    }
}

/// The body of a failed ack, and of a REST error: `{ok:false, error}` or `{error}`.
#[derive(Debug, Serialize)]
pub struct Failed<'a> {
    /// `false` in an ack, absent in REST.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ok: Option<bool>,
    /// The refusal.
    pub error: &'a Failure,
}

/// `exception`: a failed event that asked for no ack, or a coming disconnect with its cause.
#[derive(Debug, Serialize)]
pub struct Exception<'a> {
    /// The event that failed.
    pub event: &'a str,
    /// The refusal.
    pub error: &'a Failure,
}

/// `joinRoom`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JoinRoom {
    /// The room.
    pub room: Box<str>,
    /// The newest message that the client has.
    pub last_seq: Option<u64>,
}

/// `leaveRoom`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LeaveRoom {
    /// The room.
    pub room: Box<str>,
}

/// `sendMessage`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SendMessage {
    /// The room.
    pub room: Box<str>,
    /// The text, as it was meant.
    pub content: Box<str>,
    /// Must be the token's `sub` if it is there.
    pub user: Option<Box<str>>,
    /// The sender's key against duplicates.
    pub client_msg_id: Option<Box<str>>,
}

/// `authenticate`.
#[derive(Clone, PartialEq, Eq)]
pub struct Authenticate {
    /// A fresh token.
    pub token: Box<str>,
}

impl fmt::Debug for Authenticate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Authenticate { token: *** }")
    }
}

impl JoinRoom {
    /// Reads the first argument of the event.
    pub fn parse(payload: Option<&RawValue>) -> Result<Self, Failure> {
        let [room, last_seq] = fields(payload, ["roomId", "lastSeq"])?;
        Ok(Self {
            room: room_id(room)?,
            last_seq: last_seq.map(|raw| integer(raw, "lastSeq")).transpose()?,
        })
    }
}

impl LeaveRoom {
    /// Reads the first argument of the event.
    pub fn parse(payload: Option<&RawValue>) -> Result<Self, Failure> {
        let [room] = fields(payload, ["roomId"])?;
        let room = room_id(room)?;
        Ok(Self { room })
    }
}

impl SendMessage {
    /// Reads the first argument of the event.
    pub fn parse(payload: Option<&RawValue>) -> Result<Self, Failure> {
        let names = ["roomId", "content", "userId", "clientMsgId"];
        let [room, content, user, client_msg_id] = fields(payload, names)?;
        Ok(Self {
            room: room_id(room)?,
            content: content_of(content)?,
            user: user.map(|raw| string(raw, "userId")).transpose()?,
            client_msg_id: client_msg_id.map(client_msg_id_of).transpose()?,
        })
    }
}

impl Authenticate {
    /// Reads the first argument of the event, or the payload of a CONNECT.
    pub fn parse(payload: Option<&RawValue>) -> Result<Self, Failure> {
        let [token] = fields(payload, ["token"])?;
        let token = token.ok_or_else(|| Failure::field("token", "is required"))?;
        let token = string(token, "token")?;
        Ok(Self { token })
    }
}

/// Checks a room's name, wherever it came from.
pub fn check_room_id(room: &str) -> Result<(), Failure> {
    if is_name(room, ROOM_BYTES_MAX) {
        return Ok(());
    }
    let rule = "must be 1 to 128 bytes without control characters";
    Err(Failure::field("roomId", rule))
}

fn room_id(raw: Option<&RawValue>) -> Result<Box<str>, Failure> {
    let raw = raw.ok_or_else(|| Failure::field("roomId", "is required"))?;
    let room = string(raw, "roomId")?;
    check_room_id(&room)?;
    Ok(room)
}

fn content_of(raw: Option<&RawValue>) -> Result<Box<str>, Failure> {
    let raw = raw.ok_or_else(|| Failure::field("content", "is required"))?;
    let content = string(raw, "content")?;
    if !(1..=CONTENT_BYTES_MAX).contains(&content.len()) {
        return Err(Failure::field("content", "must be 1 to 65536 bytes"));
    }
    // PostgreSQL's text cannot hold it, and no two stores should differ.
    if content.contains('\0') {
        return Err(Failure::field("content", "must not contain U+0000"));
    }
    Ok(content)
}

fn client_msg_id_of(raw: &RawValue) -> Result<Box<str>, Failure> {
    let id = string(raw, "clientMsgId")?;
    if !(1..=CLIENT_MSG_ID_BYTES_MAX).contains(&id.len()) || id.contains('\0') {
        let rule = "must be 1 to 64 bytes without U+0000";
        return Err(Failure::field("clientMsgId", rule));
    }
    Ok(id)
}

fn string(raw: &RawValue, field: &str) -> Result<Box<str>, Failure> {
    if !raw.get().starts_with('"') {
        return Err(Failure::field(field, "must be a string"));
    }
    serde_json::from_str(raw.get()).map_err(|_| Failure::field(field, "must be text of Unicode"))
}

fn integer(raw: &RawValue, field: &str) -> Result<u64, Failure> {
    match serde_json::from_str(raw.get()) {
        Ok(number) if number <= INTEGER_MAX => Ok(number),
        _ => Err(Failure::field(field, "must be an integer from 0 to 2^53-1")),
    }
}

/// Picks the named fields out of a JSON object, each as the text it stands as.
fn fields<'a, const N: usize>(
    payload: Option<&'a RawValue>,
    names: [&'static str; N],
) -> Result<[Option<&'a RawValue>; N], Failure> {
    let text = payload.map_or("", RawValue::get);
    if !text.starts_with('{') {
        return Err(Failure::field("payload", "must be an object"));
    }
    let mut deserializer = serde_json::Deserializer::from_str(text);
    deserializer
        .deserialize_map(Fields { names })
        .map_err(|_| Failure::field("payload", "must be an object with names of Unicode text"))
}

struct Fields<const N: usize> {
    names: [&'static str; N],
}

impl<'de, const N: usize> Visitor<'de> for Fields<N> {
    type Value = [Option<&'de RawValue>; N];

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut found = [None; N];
        while let Some(place) = map.next_key_seed(Name { names: &self.names })? {
            match place {
                Some(place) => found[place] = Some(map.next_value::<&RawValue>()?),
                None => drop(map.next_value::<IgnoredAny>()?),
            }
        }
        Ok(found)
    }
}

/// Finds a field's name among those wanted, without keeping it.
struct Name<'n> {
    names: &'n [&'static str],
}

impl<'de> DeserializeSeed<'de> for Name<'_> {
    type Value = Option<usize>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl Visitor<'_> for Name<'_> {
    type Value = Option<usize>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a field's name")
    }

    fn visit_str<E>(self, text: &str) -> Result<Self::Value, E> {
        Ok(self.names.iter().position(|name| *name == text))
    }
}

/// The token of a CONNECT's payload: `None` when it has none, so that the handshake's may count.
pub fn connect_token(auth: &RawValue) -> Result<Option<Box<str>>, Failure> {
    #[derive(Deserialize)]
    struct Auth<'a> {
        #[serde(borrow)]
        token: Option<&'a RawValue>,
    }
    // Other keys are the client's business, twice the same key is not worth an answer of its own.
    let malformed = || Failure::new(Code::Unauthorized, "auth must be an object with a token");
    let auth: Auth<'_> = serde_json::from_str(auth.get()).map_err(|_| malformed())?;
    let token = auth.token.map(|raw| string(raw, "token"));
    token.transpose().map_err(|_| malformed())
}

/// The ack of `joinRoom`.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Joined<'a> {
    /// `true`.
    pub ok: bool,
    /// The room.
    pub room_id: &'a str,
    /// The newest message when the join took effect; `null` if that is not known.
    pub seq: Option<u64>,
    /// Whether all missed messages follow; present if `lastSeq` was.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub recovered: Option<bool>,
    /// How many messages follow.
    pub replayed: u64,
}

/// The ack of `leaveRoom`.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Left<'a> {
    /// `true`.
    pub ok: bool,
    /// The room.
    pub room_id: &'a str,
}

/// The ack of `sendMessage`.
#[derive(Debug, Serialize)]
pub struct Sent {
    /// `true`.
    pub ok: bool,
    /// The message's id.
    pub id: Id,
    /// Its place in the room.
    pub seq: u64,
    /// When it was stored.
    pub timestamp: Timestamp,
    /// `true` if its `clientMsgId` was known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub duplicate: Option<bool>,
}

/// The ack of `authenticate`.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Authenticated {
    /// `true`.
    pub ok: bool,
    /// When the fresh token runs out.
    pub expires_at: Timestamp,
}

/// `userJoined` and `userLeft`.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct UserNotice<'a> {
    /// The room.
    pub room_id: &'a str,
    /// Who.
    pub user_id: &'a str,
}

/// A message as clients see it: in `receiveMessage`, in history and in a replay.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct MessageView<'a> {
    room_id: &'a str,
    user_id: &'a str,
    content: &'a str,
    timestamp: Timestamp,
    id: Id,
    seq: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    client_msg_id: Option<&'a str>,
}

impl<'a> From<MessageRef<'a>> for MessageView<'a> {
    fn from(message: MessageRef<'a>) -> Self {
        Self {
            room_id: message.room,
            user_id: message.user,
            content: message.content,
            timestamp: Timestamp(message.wall_ms),
            id: Id(message.id),
            seq: message.seq,
            client_msg_id: message.client_msg_id,
        }
    }
}

impl<'a> From<&'a Message> for MessageView<'a> {
    fn from(message: &'a Message) -> Self {
        MessageRef::from(message).into()
    }
}

impl MessageView<'_> {
    /// Writes a message as clients see it.
    ///
    /// # Panics
    /// Never: a message has a JSON form.
    pub fn write(text: &mut Vec<u8>, message: &MessageRef<'_>) {
        serde_json::to_writer(text, &MessageView::from(*message))
            .expect("a message has a JSON form");
    }
}

/// A message's id as it travels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Id(pub uuid::Uuid);

impl Serialize for Id {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut buffer = uuid::Uuid::encode_buffer();
        serializer.serialize_str(self.0.hyphenated().encode_lower(&mut buffer))
    }
}

/// Milliseconds since 1970, which print as RFC 3339 in UTC: `2026-11-22T12:30:00.123Z`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Timestamp(pub u64);

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (days, ms) = (self.0 / 86_400_000, self.0 % 86_400_000);
        let (year, month, day) = civil(days);
        let (hour, minute) = (ms / 3_600_000, ms / 60_000 % 60);
        let (second, ms) = (ms / 1_000 % 60, ms % 1_000);
        write!(
            f,
            "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{ms:03}Z"
        )
    }
}

impl Timestamp {
    /// Where years begin to have five digits.
    const YEAR_10000: u64 = 253_402_300_800_000;

    /// The same text, of a year with four digits, for the one that every message carries.
    fn digits(self) -> [u8; 24] {
        let (days, ms) = (self.0 / 86_400_000, self.0 % 86_400_000);
        let (year, month, day) = civil(days);
        let mut text = *b"0000-00-00T00:00:00.000Z";
        let mut put = |begin: usize, digits: usize, mut number: u64| {
            for digit in text[begin..begin + digits].iter_mut().rev() {
                *digit += u8::try_from(number % 10).expect("a digit");
                number /= 10;
            }
        };
        put(0, 4, year);
        put(5, 2, month);
        put(8, 2, day);
        put(11, 2, ms / 3_600_000);
        put(14, 2, ms / 60_000 % 60);
        put(17, 2, ms / 1_000 % 60);
        put(20, 3, ms % 1_000);
        text
    }
}

impl Serialize for Timestamp {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if self.0 < Self::YEAR_10000 {
            let digits = self.digits();
            return serializer.serialize_str(std::str::from_utf8(&digits).expect("ASCII"));
        }
        serializer.collect_str(self)
    }
}

/// Year, month and day of a day counted from 1970-01-01, in the Gregorian calendar.
///
/// Years are counted from March, so that the leap day is a year's last and months have a formula.
fn civil(days: u64) -> (u64, u64, u64) {
    const DAYS_TO_1970_FROM_MARCH_OF_YEAR_0: u64 = 719_468;
    const DAYS_OF_400_YEARS: u64 = 146_097;
    let days = days + DAYS_TO_1970_FROM_MARCH_OF_YEAR_0;
    let (era, day_of_era) = (days / DAYS_OF_400_YEARS, days % DAYS_OF_400_YEARS);
    let leap_days = day_of_era / 1_460 - day_of_era / 36_524 + day_of_era / 146_096;
    let year_of_era = (day_of_era - leap_days) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = (month_from_march + 2) % 12 + 1;
    let year = era * 400 + year_of_era + u64::from(month <= 2);
    (year, month, day)
}

#[cfg(test)]
mod tests;
