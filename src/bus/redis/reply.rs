//! What a whole reply of Redis means to a link. Pure.

use std::str;

use bytes::Bytes;
use redis::{PushKind, ServerError, Value};

/// A reply.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Reply {
    /// Something that answers no command, or a SUBSCRIBE.
    Push(Push),
    /// A number.
    Number(i64),
    /// The answer to HELLO, with the server's mode.
    Hello(String),
    /// The answer to PUBSUB NUMSUB for one channel.
    Counted(usize),
    /// An error, as [`text_of`] shows it.
    Error(String),
    /// Anything else.
    Other,
}

/// A push.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Push {
    /// A message: its channel and content.
    Message(Bytes, Bytes),
    /// A SUBSCRIBE of this channel is confirmed.
    Subscribed(Vec<u8>),
    /// An UNSUBSCRIBE of this channel is confirmed.
    Unsubscribed(Vec<u8>),
    /// Anything else.
    Other,
}

/// What Redis says, up to where it begins to quote: of a command that it does not know it repeats all that
/// it was sent, a password or a message.
pub(super) fn text_of(error: &ServerError) -> String {
    let text = format!("{} {}", error.code(), error.details().unwrap_or_default());
    match text.find(['\'', '"', '`']) {
        Some(quote) => format!("{}…", &text[..quote]),
        None => text,
    }
}

impl Reply {
    /// Reads a whole reply.
    pub(super) fn parse(reply: &Bytes) -> Self {
        // The two that come with every message take the short way, without a copy.
        if let Some((channel, message)) = message(reply) {
            return Self::Push(Push::Message(channel, message));
        }
        if let Some(number) = number(reply) {
            return Self::Number(number);
        }
        match redis::parse_redis_value(reply) {
            Ok(value) => Self::from_value(value),
            Err(_) => Self::Other,
        }
    }

    fn from_value(value: Value) -> Self {
        match value {
            Value::Push { kind, data } => Self::Push(Push::new(&kind, data)),
            Value::Int(number) => Self::Number(number),
            Value::ServerError(error) => Self::Error(text_of(&error)),
            Value::Map(fields) => mode(fields).map_or(Self::Other, Self::Hello),
            Value::Array(items) => match &*items {
                [Value::BulkString(_), Value::Int(count)] => {
                    Self::Counted(usize::try_from(*count).unwrap_or(0))
                }
                _ => Self::Other,
            },
            _ => Self::Other,
        }
    }
}

impl Push {
    fn new(kind: &PushKind, data: Vec<Value>) -> Self {
        let Some(Value::BulkString(channel)) = data.into_iter().next() else {
            return Self::Other;
        };
        match kind {
            PushKind::Subscribe => Self::Subscribed(channel),
            PushKind::Unsubscribe => Self::Unsubscribed(channel),
            _ => Self::Other,
        }
    }
}

/// The server's mode, as HELLO tells it.
fn mode(fields: Vec<(Value, Value)>) -> Option<String> {
    let mode = fields.into_iter().find(|(name, _)| match name {
        Value::BulkString(name) => name == b"mode",
        Value::SimpleString(name) => name == "mode",
        _ => false,
    });
    match mode?.1 {
        Value::BulkString(mode) => String::from_utf8(mode).ok(),
        Value::SimpleString(mode) => Some(mode),
        _ => None,
    }
}

/// A message push: `>3 $7 message $N channel $M content`.
fn message(reply: &Bytes) -> Option<(Bytes, Bytes)> {
    const HEAD: &[u8] = b">3\r\n$7\r\nmessage\r\n";
    if !reply.starts_with(HEAD) {
        return None;
    }
    let (channel, after) = bulk(reply, HEAD.len())?;
    let (content, _) = bulk(reply, after)?;
    Some((channel, content))
}

/// The bulk string at `start`, and where it ends.
fn bulk(reply: &Bytes, start: usize) -> Option<(Bytes, usize)> {
    let rest = reply.get(start..)?.strip_prefix(b"$")?;
    let line = rest.iter().position(|byte| *byte == b'\r')?;
    let length: usize = str::from_utf8(&rest[..line]).ok()?.parse().ok()?;
    let from = start + 1 + line + 2;
    let to = from.checked_add(length)?;
    (to + 2 <= reply.len()).then(|| (reply.slice(from..to), to + 2))
}

fn number(reply: &Bytes) -> Option<i64> {
    let digits = reply.strip_prefix(b":")?.strip_suffix(b"\r\n")?;
    str::from_utf8(digits).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(reply: &'static str) -> Reply {
        Reply::parse(&Bytes::from_static(reply.as_bytes()))
    }

    #[test]
    fn reads_what_a_link_needs() {
        let message = parse(">3\r\n$7\r\nmessage\r\n$1\r\nc\r\n$3\r\na\r\n\r\n");
        let (channel, content) = (Bytes::from_static(b"c"), Bytes::from_static(b"a\r\n"));
        assert_eq!(message, Reply::Push(Push::Message(channel, content)));
        assert_eq!(parse(":12\r\n"), Reply::Number(12));
        assert_eq!(parse("*2\r\n$1\r\nc\r\n:4\r\n"), Reply::Counted(4));
        let subscribed = parse(">3\r\n$9\r\nsubscribe\r\n$1\r\nc\r\n:1\r\n");
        assert_eq!(subscribed, Reply::Push(Push::Subscribed(b"c".to_vec())));
        let hello = "%2\r\n$6\r\nserver\r\n$5\r\nredis\r\n$4\r\nmode\r\n$7\r\ncluster\r\n";
        assert_eq!(parse(hello), Reply::Hello("cluster".into()));
        assert_eq!(
            parse("-NOAUTH who are you\r\n"),
            Reply::Error("NOAUTH who are you".into())
        );
        for (error, shown) in [
            (
                "-ERR unknown command 'HELLO', with args beginning with: '3' 'AUTH' 'default' 'hunter2' \r\n",
                "ERR unknown command …",
            ),
            (
                "-ERR unknown command `HELLO`, with args beginning with: `3`, `hunter2`, \r\n",
                "ERR unknown command …",
            ),
            (
                "-NOPERM User a has no permissions to run the 'publish' command\r\n",
                "NOPERM User a has no permissions to run the …",
            ),
        ] {
            assert_eq!(parse(error), Reply::Error(shown.into()));
        }
        assert_eq!(parse("+PONG\r\n"), Reply::Other);
        assert_eq!(parse(">1\r\n$1\r\nx\r\n"), Reply::Push(Push::Other));
    }
}
