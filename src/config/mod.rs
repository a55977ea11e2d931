//! The settings: flags, then the environment, then `.env`, then the file, then defaults.
//!
//! [`Config::load`] is one function of its arguments: it reads nothing by itself, so that every rule
//! is tested without a process. It names every wrong value, not only the first. No other module knows
//! this one; `server` fills each module's own small options from it.

pub mod args;
mod dotenv;
pub mod files;
mod live;
pub mod settings;
mod sources;
pub mod values;

use std::collections::BTreeMap;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use crate::bus::redis;
use crate::net::Trust;
use crate::store::postgres::Target;
pub use live::Changes;
pub use sources::{FILE_BYTES_MAX, Read, Vars};
use sources::{Found, fitting, parse_file, resolve};
pub use values::{JwksFile, jwks_file};

/// A text that is never shown.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(pub String);

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

/// Which store keeps the messages.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Database {
    /// The embedded store, in this file.
    Sqlite(PathBuf),
    /// A PostgreSQL database.
    Postgres(Box<Target>),
    /// A bounded history in memory; nothing is durable.
    Memory,
}

/// How a log line looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// One JSON object a line, with ECS field names.
    Json,
    /// For people.
    Pretty,
}

/// The highest rate and burst that can be set.
const RATE_MAX: u32 = 1_000_000;

/// What a wrong setting is called, and what is allowed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// The name of the setting, flag or key.
    pub key: String,
    /// What is wrong and what to do. Never the value of a secret.
    pub message: String,
}

impl Problem {
    fn new(key: impl Into<String>, message: impl Into<String>) -> Self {
        Self {
            key: key.into(),
            message: message.into(),
        }
    }
}

/// Everything that is wrong with the settings.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub struct Problems(pub Vec<Problem>);

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, problem) in self.0.iter().enumerate() {
            let end = if index == 0 { "" } else { "\n" };
            write!(f, "{end}{}: {}", problem.key, problem.message)?;
        }
        Ok(())
    }
}

/// One line of `config print`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shown {
    /// The setting's name.
    pub name: &'static str,
    /// Its value, `***` for a secret.
    pub value: String,
    /// Where it came from.
    pub source: &'static str,
}

/// What the process is started with.
#[derive(Debug, Clone)]
pub struct Config {
    /// Nothing was set: loopback only, a secret of our own, a page to try it with.
    pub demo: bool,
    /// Address to listen on.
    pub host: IpAddr,
    /// Port to listen on; 0 takes a free one.
    pub port: u16,
    /// The store.
    pub database: Database,
    /// Replicas of it that pages of history are read from.
    pub replicas: Vec<Target>,
    /// The Redis between servers; `None`: this host alone.
    pub redis: Option<redis::Target>,
    /// Put before a chat room's name.
    pub room_prefix: Box<str>,
    /// HS256 secrets; none in demo mode, which keeps its own.
    pub jwt_secrets: Vec<Secret>,
    /// Public keys.
    pub jwt_jwks: Option<JwksFile>,
    /// The `iss` that a token must carry.
    pub jwt_issuer: Option<Box<str>>,
    /// The `aud` that a token must carry.
    pub jwt_audience: Option<Box<str>>,
    /// Tolerance for other clocks.
    pub jwt_leeway: Duration,
    /// Origins whose pages may connect.
    pub cors_origins: Vec<Box<str>>,
    /// Threads that serve; `None`: one a CPU.
    pub shards: Option<usize>,
    /// Between two heartbeats.
    pub ping_interval: Duration,
    /// How long a heartbeat's answer may take.
    pub ping_timeout: Duration,
    /// How long a session may stay without a namespace.
    pub connect_timeout: Duration,
    /// Largest polling body or WebSocket message.
    pub max_payload_bytes: usize,
    /// Unsent output of one connection.
    pub outbox_bytes_max: usize,
    /// Messages of one user a second; 0: no limit.
    pub rate_messages_per_second: u32,
    /// Messages of one user at once.
    pub rate_burst: u32,
    /// REST requests and handshakes of one address a second; 0: no limit.
    pub rate_http_per_second: u32,
    /// New connections of one address a second; 0: no limit.
    pub rate_connections_per_second: u32,
    /// Open connections of one address; 0: no limit.
    pub max_connections_per_ip: u32,
    /// Whose word about clients' addresses is taken.
    pub trust_proxy: Trust,
    /// Refuse what did not come through TLS.
    pub require_https: bool,
    /// Where connections begin with a header of the PROXY protocol.
    pub proxy_protocol_addr: Option<SocketAddr>,
    /// Where `/metrics` is served; `None`: nowhere.
    pub metrics_addr: Option<SocketAddr>,
    /// Whether somebody asked for that address: only then is it an error when it is taken.
    pub metrics_required: bool,
    /// What is logged.
    pub log_level: Box<str>,
    /// How it is logged; `None`: pretty on a terminal, else JSON.
    pub log_format: Option<LogFormat>,
    /// Where bugs are reported; `None`: nowhere.
    pub sentry_dsn: Option<sentry::types::Dsn>,
    /// What the reports call this installation.
    pub sentry_environment: Box<str>,
    /// How long clients may take to leave.
    pub drain: Duration,
    /// The values as they are, for `config print`.
    pub shown: Vec<Shown>,
    /// The values that somebody has set, to see what a reload changes.
    set: BTreeMap<&'static str, Secret>,
}

/// What [`Config::load`] is made from.
pub struct Inputs<'a> {
    /// Flags, by the name of their setting.
    pub flags: &'a Vars,
    /// The environment.
    pub env: &'a Vars,
    /// The text of `.env`, if there is one.
    pub dotenv: Option<&'a str>,
    /// The text of the file that `--config` names, if it does.
    pub file: Option<&'a str>,
    /// Reads the file that a `NAME_FILE` names.
    pub read: Read<'a>,
}

impl Config {
    /// Puts the sources together and checks every value.
    pub fn load(inputs: &Inputs<'_>) -> Result<Self, Problems> {
        let mut problems = Vec::new();
        let dotenv = fitting(".env", inputs.dotenv, &mut problems)
            .map(|text| dotenv::parse(text, inputs.env, &mut problems))
            .unwrap_or_default();
        let file = fitting("--config", inputs.file, &mut problems)
            .map(|text| parse_file(text, &mut problems))
            .unwrap_or_default();
        let layers = [
            ("flag", inputs.flags),
            ("environment", inputs.env),
            (".env", &dotenv),
            ("file", &file),
        ];
        let mut values = Values {
            found: resolve(&layers, inputs.read, &mut problems),
            problems,
        };
        let demo = demo_mode(inputs, &layers, &mut values);
        let config = values.config(demo, inputs.read);
        if values.problems.is_empty() {
            Ok(config)
        } else {
            Err(Problems(values.problems))
        }
    }
}

/// Demo mode is what starts when no key is set and nothing looks like production.
fn demo_mode(inputs: &Inputs<'_>, layers: &[(&str, &Vars)], values: &mut Values) -> bool {
    let set = |name: &str| {
        layers
            .iter()
            .any(|(_, vars)| vars.get(name).is_some_and(|value| !value.is_empty()))
    };
    // A key that cannot be read is a problem of its own, not the absence of a key.
    let keys = ["JWT_SECRET", "JWT_SECRET_FILE", "JWT_JWKS_FILE"];
    if keys.into_iter().any(set) {
        return false;
    }
    let production = if inputs.file.is_some() {
        Some("--config")
    } else {
        [
            "DATABASE_URL",
            "DATABASE_URL_FILE",
            "REDIS_URL",
            "REDIS_URL_FILE",
            "NOTIFY_SOCKET",
        ]
        .into_iter()
        .find(|name| set(name))
    };
    if let Some(cause) = production {
        let text = format!(
            "it or JWT_JWKS_FILE is required, since {cause} is set (demo mode starts only without it); make one with: openssl rand -hex 32"
        );
        values.problems.push(Problem::new("JWT_SECRET", text));
    }
    production.is_none()
}

struct Values {
    found: BTreeMap<&'static str, Found>,
    problems: Vec<Problem>,
}

impl Values {
    fn config(&mut self, demo: bool, read: Read<'_>) -> Config {
        use values as v;
        let default_host = if demo {
            Ipv4Addr::LOCALHOST
        } else {
            Ipv4Addr::UNSPECIFIED
        };
        let host = self.get("HOST", default_host.into(), v::host);
        if demo && !host.is_loopback() {
            let text = "demo mode serves on loopback only, since its tokens are printed; set JWT_SECRET to serve others";
            self.problems.push(Problem::new("HOST", text));
        }
        let metrics_addr = Some(SocketAddr::from((Ipv4Addr::LOCALHOST, 9464)));
        let database = self.get(
            "DATABASE_URL",
            Database::Sqlite("data/chat.db".into()),
            v::database,
        );
        let replicas = self.get("DATABASE_REPLICA_URLS", Vec::new(), v::replicas);
        if !replicas.is_empty() && !matches!(database, Database::Postgres(_)) {
            let text = "needs DATABASE_URL=postgres://…: only PostgreSQL has replicas";
            self.problems
                .push(Problem::new("DATABASE_REPLICA_URLS", text));
        }
        let rate = |text: &str| v::number(text, 0, RATE_MAX);
        let trust_proxy = self.get("TRUST_PROXY", Trust::Unknown, v::trust);
        let require_https = self.get("REQUIRE_HTTPS", false, v::truth);
        if require_https && !matches!(trust_proxy, Trust::Only(_)) {
            let text =
                "needs TRUST_PROXY: only a trusted proxy can say that a request came through TLS";
            self.problems.push(Problem::new("REQUIRE_HTTPS", text));
        }
        Config {
            demo,
            host,
            port: self.get("PORT", 4000, |text| v::number(text, 0, u16::MAX)),
            database,
            replicas,
            redis: self.get("REDIS_URL", None, v::redis),
            room_prefix: self.get("ROOM_PREFIX", "".into(), v::room_prefix),
            jwt_secrets: self.get("JWT_SECRET", Vec::new(), v::secrets),
            jwt_jwks: self.get("JWT_JWKS_FILE", None, |path| {
                v::jwks_file(path.as_ref(), read).map(Some)
            }),
            jwt_issuer: self.get("JWT_ISSUER", None, |text| Ok(Some(text.into()))),
            jwt_audience: self.get("JWT_AUDIENCE", None, |text| Ok(Some(text.into()))),
            jwt_leeway: self.get("JWT_LEEWAY_SECONDS", Duration::from_secs(5), |text| {
                v::seconds(text, 0, 5)
            }),
            cors_origins: self.get("CORS_ORIGINS", Vec::new(), v::origins),
            shards: self.get("SHARDS", None, |text| v::number(text, 1, 64).map(Some)),
            ping_interval: self.get("PING_INTERVAL_MS", Duration::from_secs(25), |text| {
                v::milliseconds(text, 50, 3_600_000)
            }),
            ping_timeout: self.get("PING_TIMEOUT_MS", Duration::from_secs(20), |text| {
                v::milliseconds(text, 50, 3_600_000)
            }),
            connect_timeout: self.get("CONNECT_TIMEOUT_MS", Duration::from_secs(45), |text| {
                v::milliseconds(text, 50, 3_600_000)
            }),
            max_payload_bytes: self.get("MAX_PAYLOAD_BYTES", 1_000_000, |text| {
                v::number(text, 1_000, 16_777_216)
            }),
            outbox_bytes_max: self.get("OUTBOX_BYTES_MAX", 1_048_576, |text| {
                v::number(text, 65_536, 1 << 30)
            }),
            rate_messages_per_second: self.get("RATE_MESSAGES_PER_SECOND", 20, rate),
            rate_burst: self.get("RATE_BURST", 40, |text| v::number(text, 1, RATE_MAX)),
            rate_http_per_second: self.get("RATE_HTTP_PER_SECOND", 50, rate),
            rate_connections_per_second: self.get("RATE_CONNECTIONS_PER_SECOND", 200, rate),
            max_connections_per_ip: self.get("MAX_CONNECTIONS_PER_IP", 1000, rate),
            trust_proxy,
            require_https,
            proxy_protocol_addr: self.get("PROXY_PROTOCOL_ADDR", None, v::address),
            metrics_addr: self.get("METRICS_ADDR", metrics_addr, v::address),
            metrics_required: self.found.contains_key("METRICS_ADDR"),
            log_level: self.get("LOG_LEVEL", "info".into(), v::log_level),
            log_format: self.get("LOG_FORMAT", None, |text| v::log_format(text).map(Some)),
            sentry_dsn: self.get("SENTRY_DSN", None, v::dsn),
            sentry_environment: self.get("SENTRY_ENVIRONMENT", "production".into(), v::environment),
            drain: self.get("DRAIN_SECONDS", Duration::from_secs(10), |text| {
                v::seconds(text, 0, 3_600)
            }),
            shown: self.shown(host),
            set: self.set(),
        }
    }

    fn get<T>(
        &mut self,
        name: &'static str,
        default: T,
        parse: impl Fn(&str) -> Result<T, String>,
    ) -> T {
        debug_assert!(settings::find(name).is_some(), "{name} is in the table");
        let Some(found) = self.found.get(name) else {
            return default;
        };
        parse(&found.value).unwrap_or_else(|message| {
            self.problems.push(Problem::new(name, message));
            default
        })
    }

    fn set(&self) -> BTreeMap<&'static str, Secret> {
        let found = self.found.iter();
        found
            .map(|(name, found)| (*name, Secret(found.value.clone())))
            .collect()
    }

    fn shown(&self, host: IpAddr) -> Vec<Shown> {
        settings::SETTINGS
            .iter()
            .map(|setting| match self.found.get(setting.name) {
                Some(found) => Shown {
                    name: setting.name,
                    value: if setting.secret {
                        "***".to_owned()
                    } else {
                        found.value.clone()
                    },
                    source: found.source,
                },
                None => Shown {
                    name: setting.name,
                    // Where the table has words for the default, the value itself is empty.
                    value: match setting.name {
                        "HOST" => host.to_string(),
                        _ if setting.default.contains(' ') => String::new(),
                        _ => setting.default.to_owned(),
                    },
                    source: "default",
                },
            })
            .collect()
    }
}

#[cfg(test)]
mod tests;
