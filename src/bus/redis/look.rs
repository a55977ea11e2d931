//! A look at a Redis for whoever sets up a server: whether it lets us in, what it is, how far it is.

use std::future::poll_fn;
use std::time::{Duration, Instant};

use glommio::{LocalExecutorBuilder, Placement};
use redis::{Cmd, Value};

use super::link::hello;
use super::reply;
use super::rim::{CONNECT_WITHIN, Stream};
use super::target::Target;
use crate::dial::within;
use crate::wire::resp::Replies;

/// How long one answer may take.
const ANSWER_WITHIN: Duration = Duration::from_secs(2);
const REPLY_BYTES_MAX: usize = 64 << 10;
const READ_BYTES: usize = 4 << 10;

/// What a look found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// `redis` or `valkey`, and the version.
    pub version: String,
    /// How long a PING took.
    pub round_trip: Duration,
}

/// Why nothing was found.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LookError {
    /// It was not asked: this host gives no ring to ask with.
    #[error("cannot start an executor: {0}")]
    Executor(String),
    /// It cannot be reached, or does not let us in.
    #[error("{0}")]
    Refused(String),
}

/// Connects as the shards do, and asks. On an executor of its own: not for a shard's thread.
pub fn look(target: &Target) -> Result<Found, LookError> {
    let target = target.clone();
    let executor = LocalExecutorBuilder::new(Placement::Unbound)
        .io_memory(0)
        .ring_depth(128)
        .make()
        .map_err(|error| LookError::Executor(error.to_string()))?;
    let found: Result<Found, String> = executor.run(async move {
        let opened = within(CONNECT_WITHIN, Stream::open(&target, 0)).await;
        let stream = opened
            .ok_or("no answer in time")?
            .map_err(|error| error.to_string())?;
        let mut asked = Asked {
            stream,
            replies: Replies::new(REPLY_BYTES_MAX),
        };
        let greeting = asked.ask(&hello(&target.login)).await?;
        let text = |name| text_of(&greeting, name).unwrap_or_default();
        let version = format!("{} {}", text("server"), text("version"));
        if target.login.database > 0 {
            let mut select = redis::cmd("SELECT");
            select.arg(target.login.database);
            asked.ask(&select).await?;
        }
        let start = Instant::now();
        asked.ask(&redis::cmd("PING")).await?;
        Ok(Found {
            version,
            round_trip: start.elapsed(),
        })
    });
    found.map_err(LookError::Refused)
}

struct Asked {
    stream: Stream,
    replies: Replies,
}

impl Asked {
    async fn ask(&mut self, command: &Cmd) -> Result<Value, String> {
        let answer = within(ANSWER_WITHIN, self.exchange(command)).await;
        match answer.ok_or("no answer in time")?? {
            Value::ServerError(error) => Err(reply::text_of(&error)),
            value => Ok(value),
        }
    }

    async fn exchange(&mut self, command: &Cmd) -> Result<Value, String> {
        let bytes = command.get_packed_command();
        let mut rest = bytes.as_slice();
        while !rest.is_empty() {
            let written = poll_fn(|context| self.stream.poll_write(context, rest)).await;
            match written.map_err(|error| error.to_string())? {
                0 => return Err("it has ended the connection".to_owned()),
                count => rest = &rest[count..],
            }
        }
        let flushed = poll_fn(|context| self.stream.poll_flush(context)).await;
        flushed.map_err(|error| error.to_string())?;
        let mut buffer = [0; READ_BYTES];
        loop {
            if let Some(reply) = self
                .replies
                .next_reply()
                .map_err(|error| error.to_string())?
            {
                return redis::parse_redis_value(&reply).map_err(|error| error.to_string());
            }
            let read = poll_fn(|context| self.stream.poll_read(context, &mut buffer)).await;
            match read.map_err(|error| error.to_string())? {
                0 => return Err("it has ended the connection".to_owned()),
                count => self.replies.push(&buffer[..count]),
            }
        }
    }
}

fn text_of(greeting: &Value, name: &str) -> Option<String> {
    let Value::Map(pairs) = greeting else {
        return None;
    };
    let is_named =
        |key: &Value| redis::from_redis_value::<String>(key.clone()).is_ok_and(|key| key == name);
    let (_, value) = pairs.iter().find(|(key, _)| is_named(key))?;
    redis::from_redis_value(value.clone()).ok()
}
