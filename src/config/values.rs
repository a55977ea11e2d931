//! Texts to typed values. Every error says what is allowed.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use ipnet::IpNet;

use super::settings::OFF;
use super::{Database, LogFormat, Read, Secret};
use crate::auth::jwks::{self, Jwks};
use crate::bus::redis;
use crate::net::Trust;
use crate::store::postgres::{REPLICAS_MAX, Target};

/// A whole number within bounds.
pub(super) fn number<T>(text: &str, least: T, most: T) -> Result<T, String>
where
    T: FromStr + PartialOrd + std::fmt::Display + Copy,
{
    let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    text.parse::<T>()
        .ok()
        .filter(|value| digits && *value >= least && *value <= most)
        .ok_or_else(|| format!("must be a whole number from {least} to {most}"))
}

pub(super) fn milliseconds(text: &str, least: u64, most: u64) -> Result<Duration, String> {
    number(text, least, most).map(Duration::from_millis)
}

pub(super) fn seconds(text: &str, least: u64, most: u64) -> Result<Duration, String> {
    number(text, least, most).map(Duration::from_secs)
}

pub(super) fn host(text: &str) -> Result<IpAddr, String> {
    if text == "localhost" {
        return Ok(IpAddr::V4(Ipv4Addr::LOCALHOST));
    }
    text.trim_matches(['[', ']'])
        .parse()
        .map_err(|_| "must be an IP address, such as 127.0.0.1, 0.0.0.0 or ::".to_owned())
}

/// An address with a port, or `None` for `none`.
pub(super) fn address(text: &str) -> Result<Option<SocketAddr>, String> {
    if text == "none" {
        return Ok(None);
    }
    text.replace("localhost:", "127.0.0.1:")
        .parse()
        .map(Some)
        .map_err(|_| "must be ADDRESS:PORT, such as 127.0.0.1:9464, or none".to_owned())
}

pub(super) fn database(text: &str) -> Result<Database, String> {
    let (scheme, rest) = text
        .split_once(':')
        .ok_or("must be postgres://…, sqlite:PATH or memory:")?;
    match scheme {
        "memory" if rest.is_empty() => Ok(Database::Memory),
        "sqlite" => {
            let path = rest.strip_prefix("//").unwrap_or(rest);
            if path.is_empty() || path == ":memory:" {
                return Err("needs a path: sqlite:data/chat.db".to_owned());
            }
            Ok(Database::Sqlite(PathBuf::from(path)))
        }
        "postgres" | "postgresql" => Target::parse(text)
            .map(|target| Database::Postgres(Box::new(target)))
            .map_err(|error| error.to_string()),
        _ => Err("must be postgres://…, sqlite:PATH or memory:".to_owned()),
    }
}

/// Several databases. A comma inside a URL stands between its hosts.
pub(super) fn replicas(text: &str) -> Result<Vec<Target>, String> {
    let mut urls: Vec<String> = Vec::new();
    for piece in text
        .split(',')
        .map(str::trim)
        .filter(|piece| !piece.is_empty())
    {
        let begins = piece.starts_with("postgres://") || piece.starts_with("postgresql://");
        match urls.last_mut() {
            Some(last) if !begins => last.extend([",", piece]),
            _ if begins => urls.push(piece.to_owned()),
            _ => return Err("each must be postgres://…".to_owned()),
        }
    }
    if urls.len() > REPLICAS_MAX {
        return Err(format!("at most {REPLICAS_MAX} replicas are used"));
    }
    let targets = urls.iter().map(|url| Target::parse(url));
    targets
        .collect::<Result<_, _>>()
        .map_err(|error| error.to_string())
}

/// `None` for `none`.
pub(super) fn redis(text: &str) -> Result<Option<redis::Target>, String> {
    if text == "none" {
        return Ok(None);
    }
    let target = redis::Target::parse(text);
    target.map(Some).map_err(|error| error.to_string())
}

/// At least 32 bytes each (RFC 7518 section 3.2 asks that of HS256).
pub(super) fn secrets(text: &str) -> Result<Vec<Secret>, String> {
    let secrets: Vec<Secret> = text
        .split(',')
        .map(str::trim)
        .filter(|secret| !secret.is_empty())
        .map(|secret| Secret(secret.to_owned()))
        .collect();
    if secrets.is_empty() || secrets.iter().any(|secret| secret.0.len() < 32) {
        return Err(
            "each secret must have at least 32 bytes; make one with: openssl rand -hex 32"
                .to_owned(),
        );
    }
    Ok(secrets)
}

/// A file of public keys, read.
#[derive(Clone)]
pub struct JwksFile {
    /// Where it is.
    pub path: PathBuf,
    /// The keys, and what is of no use.
    pub set: Jwks,
    /// As it was read.
    text: Box<str>,
}

impl JwksFile {
    /// Whether both were read from the same text.
    #[must_use]
    pub fn is_same(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

impl fmt::Debug for JwksFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {:?}", self.path.display(), self.set.keys)
    }
}

/// Reads a file of public keys; the error says why not.
pub fn jwks_file(path: &Path, read: Read<'_>) -> Result<JwksFile, String> {
    let text = read(path).map_err(|error| format!("cannot read {}: {error}", path.display()))?;
    let set = jwks::parse(&text).map_err(|error| format!("{}: {error}", path.display()))?;
    Ok(JwksFile {
        path: path.to_owned(),
        set,
        text: text.into(),
    })
}

/// A list of origins as browsers send them: in lower case, and without the port that the scheme has anyway.
pub(super) fn origins(text: &str) -> Result<Vec<Box<str>>, String> {
    let wrong = |origin: &str| {
        format!(
            "{origin:?} is no origin; write each as https://app.example or http://localhost:3000"
        )
    };
    text.split(',')
        .map(str::trim)
        .filter(|origin| !origin.is_empty())
        .map(|origin| {
            let origin = origin.to_ascii_lowercase();
            let (host, port) = match origin.strip_prefix("https://") {
                Some(host) => (host, ":443"),
                None => match origin.strip_prefix("http://") {
                    Some(host) => (host, ":80"),
                    None => return Err(wrong(&origin)),
                },
            };
            let plain = host
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b".-:[]_".contains(&b));
            if host.is_empty() || !plain {
                return Err(wrong(&origin));
            }
            Ok(origin.strip_suffix(port).unwrap_or(&origin).into())
        })
        .collect()
}

/// Addresses and ranges of proxies, or `none`.
pub(super) fn trust(text: &str) -> Result<Trust, String> {
    if text == "none" {
        return Ok(Trust::Nobody);
    }
    let words = text
        .split(',')
        .map(str::trim)
        .filter(|word| !word.is_empty());
    let networks: Option<Box<[IpNet]>> = words.map(network).collect();
    networks
        .filter(|networks| !networks.is_empty())
        .map(Trust::Only)
        .ok_or_else(|| {
            "must be none, or addresses and ranges such as 10.0.0.7, 10.0.0.0/8, fd00::/8"
                .to_owned()
        })
}

fn network(text: &str) -> Option<IpNet> {
    let address = text.parse::<IpAddr>().map(|address| address.to_canonical());
    address.map(IpNet::from).or_else(|_| text.parse()).ok()
}

pub(super) fn truth(text: &str) -> Result<bool, String> {
    match text {
        "true" | "1" | "yes" | "on" => Ok(true),
        "false" | "0" | "no" | "off" | "none" => Ok(false),
        _ => Err("must be true or false".to_owned()),
    }
}

pub(super) fn room_prefix(text: &str) -> Result<Box<str>, String> {
    if text.len() > 64 || text.chars().any(char::is_control) {
        return Err("must have at most 64 bytes and no control characters".to_owned());
    }
    Ok(text.into())
}

pub(super) fn log_level(text: &str) -> Result<Box<str>, String> {
    // A word alone would be taken for a module of which everything is logged.
    let is_level = |word: &str| word.parse::<tracing::level_filters::LevelFilter>().is_ok();
    // Nothing at all would be taken for a level.
    let is_word = |word: &str| !word.is_empty() && (word.contains('=') || is_level(word));
    text.split(',')
        .map(str::trim)
        .all(is_word)
        .then(|| text.parse::<tracing_subscriber::filter::Targets>())
        .and_then(Result::ok)
        .map(|_| text.into())
        .ok_or_else(|| "must be error, warn, info, debug, trace or off, also by module".to_owned())
}

/// Where reports go, or `None` for `none`. The error does not show the key.
pub(super) fn dsn(text: &str) -> Result<Option<sentry::types::Dsn>, String> {
    if OFF.contains(&text) {
        return Ok(None);
    }
    text.parse()
        .map(Some)
        .map_err(|_| "must be as Sentry gives it, https://KEY@HOST/PROJECT, or none".to_owned())
}

/// A name as Sentry allows it for an environment.
pub(super) fn environment(text: &str) -> Result<Box<str>, String> {
    let plain = |b: u8| b.is_ascii_graphic() && b != b'/';
    if text.len() > 64 || text == "None" || !text.bytes().all(plain) {
        return Err(
            "must be at most 64 letters, digits and signs, without spaces and /".to_owned(),
        );
    }
    Ok(text.into())
}

pub(super) fn log_format(text: &str) -> Result<LogFormat, String> {
    match text {
        "json" => Ok(LogFormat::Json),
        "pretty" => Ok(LogFormat::Pretty),
        _ => Err("must be json or pretty".to_owned()),
    }
}

/// A time such as `90`, `90s`, `15m`, `1h`, `7d`, at most ten years.
pub fn duration(text: &str) -> Result<Duration, String> {
    let wrong = || "must be a time such as 90s, 15m, 1h or 7d".to_owned();
    let (digits, unit) = match text.char_indices().next_back() {
        Some((at, 's')) => (&text[..at], 1),
        Some((at, 'm')) => (&text[..at], 60),
        Some((at, 'h')) => (&text[..at], 3_600),
        Some((at, 'd')) => (&text[..at], 86_400),
        _ => (text, 1),
    };
    let count: u64 = number(digits, 1, 315_360_000).map_err(|_| wrong())?;
    let seconds = count * unit;
    (seconds <= 315_360_000)
        .then(|| Duration::from_secs(seconds))
        .ok_or_else(wrong)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_digits_within_bounds() {
        assert_eq!(number("64", 1_u8, 64), Ok(64));
        for wrong in [
            "",
            "0",
            "65",
            "+1",
            "-1",
            " 1",
            "1.0",
            "0x1",
            "999999999999",
        ] {
            assert!(number(wrong, 1_u8, 64).is_err(), "{wrong}");
        }
    }

    #[test]
    fn databases_are_told_by_their_scheme() {
        assert_eq!(
            database("sqlite:data/chat.db"),
            Ok(Database::Sqlite("data/chat.db".into()))
        );
        assert_eq!(
            database("sqlite:///var/lib/chat.db"),
            Ok(Database::Sqlite("/var/lib/chat.db".into()))
        );
        assert_eq!(database("memory:"), Ok(Database::Memory));
        assert!(matches!(
            database("postgres://ann:secret@db/chat"),
            Ok(Database::Postgres(target)) if target.to_string() == "db:5432/chat"
        ));
        for wrong in ["", "chat.db", "sqlite:", "mysql://x", "postgres://u@h:x/d"] {
            assert!(database(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn replicas_are_databases_of_which_each_may_have_hosts() {
        let shown = |text| {
            let targets = replicas(text).expect("each is a URL");
            targets.iter().map(Target::to_string).collect::<Vec<_>>()
        };
        let urls = "postgres://u:p@a,b/chat, postgresql://c:6000/chat";
        assert_eq!(shown(urls), ["a:5432,b:5432/chat", "c:6000/chat"]);
        let nine = ["postgres://u@h/d"; 9].join(",");
        for wrong in ["sqlite:x", "h, postgres://u@h/d", &nine] {
            assert!(replicas(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn origins_are_scheme_and_host_only() {
        let all = "https://App.example, http://localhost:3000, HTTPS://b.example:443,http://[::1]:80, http://c:443";
        let expected = [
            "https://app.example",
            "http://localhost:3000",
            "https://b.example",
            "http://[::1]",
            "http://c:443",
        ];
        assert_eq!(
            origins(all).expect("all are origins"),
            expected.map(Box::<str>::from)
        );
        for wrong in [
            "*",
            "app.example",
            "https://app.example/",
            "https://",
            "null",
        ] {
            assert!(origins(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn proxies_are_addresses_and_ranges() {
        assert_eq!(trust("none"), Ok(Trust::Nobody));
        let Ok(Trust::Only(networks)) = trust("10.0.0.7, fd00::/8,::ffff:10.0.0.8") else {
            panic!("three are proxies");
        };
        let shown: Vec<_> = networks.iter().map(ToString::to_string).collect();
        assert_eq!(shown, ["10.0.0.7/32", "fd00::/8", "10.0.0.8/32"]);
        for wrong in [
            "",
            "all",
            "10.0.0.0/33",
            "10.0.0.0/8;10.0.0.1",
            "proxy.example",
        ] {
            assert!(trust(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn log_levels_are_levels_or_say_of_which_module() {
        for right in ["warn", "off", "INFO", "info,project_yum::net=debug"] {
            assert!(log_level(right).is_ok(), "{right}");
        }
        for wrong in ["loud", "info,net", "net=loud"] {
            assert!(log_level(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn durations_have_units() {
        assert_eq!(duration("90"), Ok(Duration::from_secs(90)));
        assert_eq!(duration("15m"), Ok(Duration::from_mins(15)));
        assert_eq!(duration("7d"), Ok(Duration::from_hours(168)));
        for wrong in ["", "h", "0s", "-1h", "1w", "99999999d"] {
            assert!(duration(wrong).is_err(), "{wrong}");
        }
    }
}
