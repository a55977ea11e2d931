//! Where Redis is and how to come in, out of one URL. Pure.

use std::fmt;
use std::path::PathBuf;

use crate::dial::tls::Trust;
use crate::wire::http::{Query, percent_decode};

const PORT: u16 = 6_379;
const FORMS: &str = "must be redis://HOST, rediss://HOST or redis+unix:///PATH";
/// What is said to whoever names more than one server.
const ONE_ONLY: &str = "Redis Cluster and Sentinel are not supported yet: name a single Redis or Valkey server, as redis://HOST";

/// Why a URL cannot be used. Never holds the URL itself: it may hold a password.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct UrlError(Box<str>);

/// Who we are.
#[derive(Clone, PartialEq, Eq, Default)]
pub(super) struct Login {
    /// The user; Redis's own `default` if there is only a password.
    pub(super) user: Option<String>,
    /// The password; `None`: Redis asks for none.
    pub(super) password: Option<String>,
    /// The database. Channels are the same in all of them.
    pub(super) database: u32,
}

impl fmt::Debug for Login {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Login(database {})", self.database)
    }
}

/// How to get there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Place {
    /// A host and its port; with TLS, how sure we must be of it.
    Tcp(String, u16, Option<Secrecy>),
    /// A Unix socket.
    Unix(PathBuf),
}

/// How a connection is made secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Secrecy {
    /// The certificate must be the host's own, signed by one of this file; `None`: of the system's.
    Verified(Option<PathBuf>),
    /// Any certificate does.
    Unverified,
}

impl Secrecy {
    /// Whom to trust.
    pub(super) fn trust(&self, of_system: impl FnOnce() -> PathBuf) -> Trust {
        match self {
            Self::Verified(roots) => Trust {
                roots: Some(roots.clone().unwrap_or_else(of_system)),
                names_the_host: true,
            },
            Self::Unverified => Trust {
                roots: None,
                names_the_host: false,
            },
        }
    }
}

/// A Redis to connect to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    pub(super) place: Place,
    pub(super) login: Login,
}

impl fmt::Display for Target {
    /// The host or the socket; no user, no password.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.place {
            Place::Tcp(host, port, _) if host.contains(':') => write!(formatter, "[{host}]:{port}"),
            Place::Tcp(host, port, _) => write!(formatter, "{host}:{port}"),
            Place::Unix(path) => write!(formatter, "{}", path.display()),
        }
    }
}

impl Target {
    /// Reads `redis://[USER[:PASSWORD]@]HOST[:PORT][/DATABASE]`, the same with `rediss` (TLS;
    /// `?sslrootcert=PATH` names the trusted certificates, `#insecure` takes any), or
    /// `redis+unix:///PATH[?db=DATABASE&user=USER&pass=PASSWORD]`.
    pub fn parse(url: &str) -> Result<Self, UrlError> {
        let fail = |message: &str| Err(UrlError(message.into()));
        let Some((scheme, rest)) = url.split_once("://") else {
            return fail(FORMS);
        };
        if scheme.contains("cluster") || scheme.contains("sentinel") {
            return fail(ONE_ONLY);
        }
        let (rest, fragment) = rest.split_once('#').unwrap_or((rest, ""));
        let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
        let query = Query::new(query);
        match scheme {
            "redis" | "rediss" => {
                let (place, login) = tcp(rest)?;
                let secrecy = secrecy(scheme == "rediss", fragment, query)?;
                let (host, port) = place;
                let place = Place::Tcp(host, port, secrecy);
                Ok(Self { place, login })
            }
            "redis+unix" | "unix" => unix(rest, query),
            _ => fail(FORMS),
        }
    }
}

type HostAndPort = (String, u16);

fn tcp(rest: &str) -> Result<(HostAndPort, Login), UrlError> {
    let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
    let (user, place) = match authority.rsplit_once('@') {
        Some((user, place)) => (user, place),
        None => ("", authority),
    };
    if place.contains(',') {
        return Err(UrlError(ONE_ONLY.into()));
    }
    let (user, password) = match user.split_once(':') {
        Some((user, password)) => (user, Some(decode(password))),
        None => (user, None),
    };
    // As `redis-cli -u` has it: what stands alone before the host is the password.
    let (user, password) = match password {
        None if !user.is_empty() => ("", Some(decode(user))),
        password => (user, password),
    };
    let login = Login {
        user: Some(decode(user)).filter(|user| !user.is_empty()),
        password,
        database: database(path)?,
    };
    Ok((host_and_port(place)?, login))
}

fn host_and_port(place: &str) -> Result<HostAndPort, UrlError> {
    let wrong = || UrlError("its host and port cannot be read".into());
    let (host, port) = match place.strip_prefix('[') {
        Some(rest) => {
            let (host, port) = rest.split_once(']').ok_or_else(wrong)?;
            (host, port.strip_prefix(':').unwrap_or(port))
        }
        None => place.split_once(':').unwrap_or((place, "")),
    };
    let host = if host.is_empty() { "localhost" } else { host };
    let is_name = |c: char| c.is_ascii_alphanumeric() || "-._:%".contains(c);
    if !host.chars().all(is_name) {
        return Err(wrong());
    }
    let port = match port {
        "" => PORT,
        port => port
            .parse()
            .ok()
            .filter(|port| *port > 0)
            .ok_or_else(wrong)?,
    };
    Ok((host.to_owned(), port))
}

fn database(text: &str) -> Result<u32, UrlError> {
    match text.trim_end_matches('/') {
        "" => Ok(0),
        digits => digits
            .parse()
            .map_err(|_| UrlError("its database must be a number".into())),
    }
}

fn secrecy(is_secret: bool, fragment: &str, query: Query<'_>) -> Result<Option<Secrecy>, UrlError> {
    let mut roots = None;
    for (key, value) in query.pairs() {
        match &*key {
            "sslrootcert" if is_secret => roots = Some(PathBuf::from(value.into_owned())),
            "sslrootcert" => {
                let message = "sslrootcert needs TLS: write rediss://";
                return Err(UrlError(message.into()));
            }
            _ => return Err(UrlError(unknown(&key))),
        }
    }
    match (is_secret, fragment) {
        (true, "") => Ok(Some(Secrecy::Verified(roots))),
        (true, "insecure") => Ok(Some(Secrecy::Unverified)),
        (false, "") => Ok(None),
        _ => Err(UrlError("only #insecure may follow, with rediss://".into())),
    }
}

fn unix(path: &str, query: Query<'_>) -> Result<Target, UrlError> {
    let mut login = Login::default();
    for (key, value) in query.pairs() {
        match &*key {
            "db" => login.database = database(&value)?,
            "user" => login.user = Some(value.into_owned()),
            "pass" => login.password = Some(value.into_owned()),
            _ => return Err(UrlError(unknown(&key))),
        }
    }
    if !path.starts_with('/') || path.len() < 2 {
        return Err(UrlError(
            "needs a socket's path: redis+unix:///run/redis.sock".into(),
        ));
    }
    let place = Place::Unix(PathBuf::from(decode(path)));
    Ok(Target { place, login })
}

/// The value of a parameter may be a secret; its name is not.
fn unknown(key: &str) -> Box<str> {
    format!("has an unknown parameter {key:?}").into()
}

/// In the parts before a query a plus is a plus.
fn decode(text: &str) -> String {
    percent_decode(&text.replace('+', "%2B")).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(url: &str) -> Target {
        Target::parse(url).unwrap_or_else(|error| panic!("{url}: {error}"))
    }

    fn login(url: &str) -> (Option<String>, Option<String>, u32) {
        let Login {
            user,
            password,
            database,
        } = parse(url).login;
        (user, password, database)
    }

    #[test]
    fn reads_host_port_login_and_database() {
        for (url, shown) in [
            ("redis://localhost", "localhost:6379"),
            ("redis://", "localhost:6379"),
            ("redis://cache.example:7000/3", "cache.example:7000"),
            ("redis://[::1]:7000", "[::1]:7000"),
            ("redis://u:p@10.0.0.1/", "10.0.0.1:6379"),
            ("redis+unix:///run/redis.sock?db=2", "/run/redis.sock"),
        ] {
            assert_eq!(parse(url).to_string(), shown, "{url}");
        }
        let own = |text: &str| Some(text.to_owned());
        assert_eq!(login("redis://h"), (None, None, 0));
        assert_eq!(
            login("redis://ann:a%40b+c@h/7"),
            (own("ann"), own("a@b+c"), 7)
        );
        assert_eq!(login("redis://:secret@h"), (None, own("secret"), 0));
        assert_eq!(login("redis://secret@h"), (None, own("secret"), 0));
        assert_eq!(
            login("redis+unix:///s?user=u&pass=p&db=1"),
            (own("u"), own("p"), 1)
        );
    }

    #[test]
    fn tls_is_verified_unless_it_is_told_otherwise() {
        let secrecy = |url: &str| match parse(url).place {
            Place::Tcp(_, _, secrecy) => secrecy,
            Place::Unix(_) => None,
        };
        assert_eq!(secrecy("redis://h"), None);
        assert_eq!(secrecy("rediss://h"), Some(Secrecy::Verified(None)));
        assert_eq!(
            secrecy("rediss://h/1?sslrootcert=/etc/ca.pem"),
            Some(Secrecy::Verified(Some("/etc/ca.pem".into())))
        );
        assert_eq!(secrecy("rediss://h#insecure"), Some(Secrecy::Unverified));
    }

    #[test]
    fn refuses_in_words_what_it_cannot_do() {
        for url in [
            "redis+cluster://a",
            "rediss+cluster://a",
            "redis+sentinel://a/mymaster",
            "redis-sentinel://a",
            "redis://a:1,b:2",
        ] {
            let told = Target::parse(url).unwrap_err().to_string();
            assert!(told.contains("not supported yet"), "{url}: {told}");
        }
        for url in [
            "localhost",
            "http://h",
            "redis://h:x",
            "redis://h/x",
            "redis://h?x=1",
            "redis://h#insecure",
            "redis://h?sslrootcert=/x",
            "redis+unix://",
            "redis://a b",
        ] {
            assert!(Target::parse(url).is_err(), "{url}");
        }
    }

    #[test]
    fn shows_no_secret() {
        let target = parse("redis://ann:hunter2@h");
        assert!(!format!("{target:?} {target}").contains("hunter2"));
        for url in ["redis://ann:hunter2@h:x", "redis://h/1?hunter=hunter2"] {
            let error = Target::parse(url).unwrap_err();
            assert!(!error.to_string().contains("hunter2"), "{error}");
        }
    }
}
