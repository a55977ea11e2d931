//! Where the database is and how to come in, out of one URL. Pure.

use std::fmt;
use std::path::{Path, PathBuf};

use tokio_postgres::config::{Host, SslMode};

use super::passfile::{self, Asked};
use crate::wire::http::percent_decode;

/// The name under which the server's connections stand in `pg_stat_activity`.
const APPLICATION_NAME: &str = "project-yum";

/// Why a URL cannot be used. Never holds the URL itself: it may hold a password.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct UrlError(Box<str>);

/// Whether connections are secret, and how sure the server's identity must be: `sslmode`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mode {
    /// `disable`, and `allow`: plain.
    Plain,
    /// TLS if the server can, otherwise plain.
    Prefer,
    /// TLS, with any certificate unless trusted ones are given.
    Require,
    /// TLS, with a certificate that a trusted one has signed.
    VerifyCa,
    /// The same, and it must be the host's own.
    VerifyFull,
}

impl Mode {
    fn parse(name: &str) -> Option<Self> {
        Some(match name {
            "disable" | "allow" => Self::Plain,
            "prefer" => Self::Prefer,
            "require" => Self::Require,
            "verify-ca" => Self::VerifyCa,
            "verify-full" => Self::VerifyFull,
            _ => return None,
        })
    }

    pub(super) fn may_encrypt(self) -> bool {
        self != Self::Plain
    }

    pub(super) fn names_the_host(self) -> bool {
        self == Self::VerifyFull
    }

    fn needs_roots(self) -> bool {
        matches!(self, Self::VerifyCa | Self::VerifyFull)
    }

    fn of_the_client(self) -> SslMode {
        match self {
            Self::Plain => SslMode::Disable,
            Self::Prefer => SslMode::Prefer,
            Self::Require | Self::VerifyCa | Self::VerifyFull => SslMode::Require,
        }
    }
}

/// How connections are made secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Secrecy {
    pub(super) mode: Mode,
    /// The file of the trusted certificates: `sslrootcert`.
    pub(super) roots: Option<PathBuf>,
}

impl Secrecy {
    fn parse(mode: Option<&str>, roots: Option<&str>, tcp: bool) -> Result<Self, UrlError> {
        let named = mode.unwrap_or("prefer");
        let Some(mode) = Mode::parse(named) else {
            return Err(UrlError("sslmode is none of PostgreSQL's".into()));
        };
        // Nobody can listen in on a Unix socket.
        let mode = if tcp { mode } else { Mode::Plain };
        let roots = roots.filter(|path| !path.is_empty());
        if roots == Some("system") {
            let message = "sslrootcert=system is not supported: name a file of certificates";
            return Err(UrlError(message.into()));
        }
        if mode.needs_roots() && roots.is_none() {
            let message =
                format!("sslmode={named} needs sslrootcert=PATH, the trusted certificates");
            return Err(UrlError(message.into()));
        }
        // In a URL's query of PostgreSQL's kind, a plus is a plus.
        let path = |text: &str| {
            percent_decode(&text.replace('+', "%2B"))
                .into_owned()
                .into()
        };
        let roots = roots.map(path);
        Ok(Self { mode, roots })
    }
}

/// A database to connect to.
#[derive(Clone, PartialEq, Eq)]
pub struct Target {
    pub(super) config: tokio_postgres::Config,
    pub(super) secrecy: Secrecy,
    /// Where the password stands, when the URL has none.
    passfile: Option<PathBuf>,
}

impl fmt::Debug for Target {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Target({self})")
    }
}

impl fmt::Display for Target {
    /// The hosts and the database; no user, no password.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let hosts: Vec<String> = self
            .places()
            .map(|(host, port)| place(host, port))
            .collect();
        let database = self.config.get_dbname().or(self.config.get_user());
        write!(
            formatter,
            "{}/{}",
            hosts.join(","),
            database.unwrap_or_default()
        )
    }
}

/// A host and its port, for a message.
pub(super) fn place(host: &Host, port: u16) -> String {
    match host {
        Host::Tcp(name) if name.contains(':') => format!("[{name}]:{port}"),
        Host::Tcp(name) => format!("{name}:{port}"),
        Host::Unix(directory) => format!("{}/.s.PGSQL.{port}", directory.display()),
    }
}

impl Target {
    /// Reads a URL `postgres://user:password@host:port/database?parameters`.
    pub fn parse(url: &str) -> Result<Self, UrlError> {
        let (base, query) = url.split_once('?').unwrap_or((url, ""));
        let mut passed_on = Vec::new();
        let (mut mode, mut roots, mut passfile) = (None, None, None);
        for parameter in query.split('&').filter(|parameter| !parameter.is_empty()) {
            match parameter.split_once('=') {
                Some(("sslmode", name)) => mode = Some(name),
                Some(("sslrootcert", path)) => roots = Some(path),
                Some(("passfile", path)) => passfile = Some(PathBuf::from(path)),
                _ => passed_on.push(parameter),
            }
        }
        let rest = format!("{base}?{}", passed_on.join("&"));
        let mut config: tokio_postgres::Config = rest
            .trim_end_matches('?')
            .parse()
            .map_err(|error| UrlError(cause(&error).into()))?;
        if config.get_hosts().is_empty() {
            config.host("localhost");
        }
        let is_tcp = |host: &Host| matches!(host, Host::Tcp(_));
        let secrecy = Secrecy::parse(mode, roots, config.get_hosts().iter().any(is_tcp))?;
        config.ssl_mode(secrecy.mode.of_the_client());
        config.application_name(APPLICATION_NAME);
        let (hosts, ports) = (config.get_hosts().len(), config.get_ports().len());
        if ports > 1 && ports != hosts {
            return Err(UrlError("as many ports as hosts are needed, or one".into()));
        }
        Ok(Self {
            config,
            secrecy,
            passfile,
        })
    }

    /// The file to look for the password in; `None`: it is in the URL, or none is needed.
    pub(super) fn passfile(&self) -> Option<&Path> {
        let given = self.config.get_password().is_some();
        self.passfile.as_deref().filter(|_| !given)
    }

    /// The client's settings for one place, with the password that stands in the password file.
    pub(super) fn config_for(&self, host: &Host, port: u16, file: &str) -> tokio_postgres::Config {
        let mut config = self.config.clone();
        let host = match host {
            Host::Tcp(name) => name.clone(),
            Host::Unix(directory) => {
                config.ssl_mode(SslMode::Disable);
                directory.display().to_string()
            }
        };
        let user = self.config.get_user().unwrap_or_default();
        let database = self.config.get_dbname().unwrap_or(user);
        let asked = Asked {
            host: &host,
            port,
            database,
            user,
        };
        if let Some(password) = passfile::password(file, asked) {
            config.password(password);
        }
        config
    }

    /// Every host with its port, in the order of trying.
    pub(super) fn places(&self) -> impl Iterator<Item = (&Host, u16)> {
        let ports = self.config.get_ports();
        let port = move |nth: usize| ports.get(nth).or(ports.first()).copied().unwrap_or(5432);
        self.config
            .get_hosts()
            .iter()
            .enumerate()
            .map(move |(nth, host)| (host, port(nth)))
    }
}

/// The innermost words of an error: what the client says around them is the same each time.
pub(super) fn cause(error: &tokio_postgres::Error) -> String {
    if let Some(answer) = error.as_db_error() {
        return answer.message().to_owned();
    }
    let mut innermost: &dyn std::error::Error = error;
    while let Some(source) = innermost.source() {
        innermost = source;
    }
    innermost.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_hosts_ports_and_the_database() {
        let shown = |url| Target::parse(url).unwrap().to_string();
        assert_eq!(
            shown("postgres://u:p@db.example:6000/chat"),
            "db.example:6000/chat"
        );
        assert_eq!(
            shown("postgresql://u@a,b:1/chat?sslmode=disable"),
            "a:5432,b:1/chat"
        );
        assert_eq!(
            shown("postgres:///chat?host=/run/pg&user=u"),
            "/run/pg/.s.PGSQL.5432/chat"
        );
        assert_eq!(shown("postgres://u@[::1]/chat"), "[::1]:5432/chat");
    }

    #[test]
    fn shows_no_secret() {
        let url = "postgres://ann:hunter2@db/chat";
        assert!(!format!("{:?}", Target::parse(url).unwrap()).contains("hunter2"));
        for bad in [
            "postgres://ann:hunter2@db:x/chat",
            "postgres://ann:hunter2@db/c?huh=hunter2",
        ] {
            let error = Target::parse(bad).unwrap_err();
            assert!(!error.to_string().contains("hunter2"), "{error}");
        }
    }

    #[test]
    fn takes_the_password_from_its_file_unless_the_url_has_one() {
        let target = Target::parse("postgres://ann@db/chat?passfile=/etc/pass").unwrap();
        assert_eq!(target.passfile(), Some(Path::new("/etc/pass")));
        let host = Host::Tcp("db".to_owned());
        let config = target.config_for(&host, 5432, "db:5432:chat:ann:hunter2");
        assert_eq!(config.get_password(), Some(&b"hunter2"[..]));
        let target = Target::parse("postgres://ann:own@db/chat?passfile=/etc/pass").unwrap();
        assert_eq!(target.passfile(), None);
    }

    #[test]
    fn keeps_how_sure_it_must_be_of_the_server() {
        let parse = |query: &str| Target::parse(&format!("postgres://u@db/c{query}"));
        let secrecy = |query: &str| {
            let target = parse(query).unwrap();
            (target.secrecy.mode, target.secrecy.roots)
        };
        assert_eq!(secrecy(""), (Mode::Prefer, None));
        assert_eq!(secrecy("?sslmode=disable"), (Mode::Plain, None));
        assert_eq!(secrecy("?sslmode=require"), (Mode::Require, None));
        let roots = Some(PathBuf::from("/etc/a b+c"));
        assert_eq!(
            secrecy("?sslrootcert=/etc/a%20b+c&sslmode=verify-ca"),
            (Mode::VerifyCa, roots.clone())
        );
        assert_eq!(
            secrecy("?sslmode=verify-full&sslrootcert=%2Fetc/a%20b%2Bc"),
            (Mode::VerifyFull, roots)
        );
        for wrong in [
            "?sslmode=verify-ca",
            "?sslmode=verify-full&sslrootcert=",
            "?sslmode=require&sslrootcert=system",
            "?sslmode=perhaps",
        ] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_unix_socket_stays_plain() {
        let target = Target::parse("postgres://u@db/c?sslmode=require").unwrap();
        let mode = |host| target.config_for(&host, 5432, "").get_ssl_mode();
        assert_eq!(mode(Host::Tcp("db".to_owned())), SslMode::Require);
        assert_eq!(mode(Host::Unix("/run/pg".into())), SslMode::Disable);
        let target = Target::parse("postgres:///c?host=/run/pg&user=u&sslmode=verify-full");
        assert_eq!(target.unwrap().secrecy.mode, Mode::Plain);
    }
}
