//! The settings, out of the environment.

use std::fmt::Display;
use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;
use std::time::Duration;

use project_yum::bus::redis::Target;

/// How long a drain may take: SIGTERM ends the process within 5 s.
pub(crate) const DRAIN: Duration = Duration::from_secs(3);

/// What the environment says.
#[derive(Debug, Clone)]
pub(crate) struct Settings {
    pub(crate) address: SocketAddr,
    pub(crate) ping_interval: Duration,
    pub(crate) ping_timeout: Duration,
    pub(crate) connect_timeout: Duration,
    pub(crate) upgrade_timeout: Duration,
    pub(crate) max_payload: usize,
    pub(crate) origins: Vec<String>,
    pub(crate) shards: u8,
    /// The Redis of a fleet.
    pub(crate) redis: Option<Target>,
}

impl Settings {
    /// Reads every setting with `get`. An error names the setting.
    pub(crate) fn from_env(get: impl Fn(&str) -> Option<String>) -> Result<Self, String> {
        let get = |name: &'static str, default: &str| {
            let value = get(name).filter(|value| !value.is_empty());
            (name, value.unwrap_or_else(|| default.to_owned()))
        };
        let millis = |name, default| number(get(name, default)).map(Duration::from_millis);
        let host: IpAddr = number(get("HOST", "127.0.0.1"))?;
        let redis = match get("REDIS_URL", "").1 {
            url if url.is_empty() => None,
            url => Some(Target::parse(&url).map_err(|error| format!("REDIS_URL: {error}"))?),
        };
        if get("ADAPTER", "redis").1 != "redis" {
            return Err("ADAPTER must be redis".into());
        }
        let cpus = std::thread::available_parallelism().map_or(1, usize::from);
        Ok(Self {
            address: SocketAddr::new(host, number(get("PORT", "3000"))?),
            ping_interval: millis("PING_INTERVAL_MS", "300")?,
            ping_timeout: millis("PING_TIMEOUT_MS", "200")?,
            connect_timeout: millis("CONNECT_TIMEOUT_MS", "1000")?,
            upgrade_timeout: millis("UPGRADE_TIMEOUT_MS", "10000")?,
            max_payload: number(get("MAX_PAYLOAD_BYTES", "1000000"))?,
            origins: get("CORS_ORIGINS", "")
                .1
                .split(',')
                .map(str::trim)
                .filter(|origin| !origin.is_empty())
                .map(str::to_owned)
                .collect(),
            shards: number::<u8>(get("SHARDS", &cpus.to_string()))?.clamp(1, 64),
            redis,
        })
    }
}

fn number<T: FromStr<Err: Display>>((name, value): (&str, String)) -> Result<T, String> {
    value
        .parse()
        .map_err(|error| format!("{name}={value}: {error}"))
}
