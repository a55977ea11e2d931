//! Where the database is and how to come in, out of one URL. Pure.

use std::fmt;
use std::path::{Path, PathBuf};

use tokio_postgres::config::{Host, SslMode};

use super::passfile::{self, Asked};

/// The name under which the server's connections stand in `pg_stat_activity`.
const APPLICATION_NAME: &str = "project-yum";

/// Why a URL cannot be used. Never holds the URL itself: it may hold a password.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct UrlError(Box<str>);

/// A database to connect to.
#[derive(Clone, PartialEq, Eq)]
pub struct Target {
    pub(super) config: tokio_postgres::Config,
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
        let (mut tls, mut passfile) = (None, None);
        for parameter in query.split('&').filter(|parameter| !parameter.is_empty()) {
            match parameter.split_once('=') {
                Some(("sslmode", mode)) => tls = Some(mode),
                Some(("passfile", path)) => passfile = Some(PathBuf::from(path)),
                _ => passed_on.push(parameter),
            }
        }
        let rest = format!("{base}?{}", passed_on.join("&"));
        let mut config: tokio_postgres::Config = rest
            .trim_end_matches('?')
            .parse()
            .map_err(|error| UrlError(cause(&error).into()))?;
        match tls.unwrap_or("prefer") {
            "disable" | "allow" | "prefer" => config.ssl_mode(SslMode::Disable),
            mode @ ("require" | "verify-ca" | "verify-full") => {
                return Err(UrlError(format!("sslmode={mode} is not built yet").into()));
            }
            _ => return Err(UrlError("sslmode is none of PostgreSQL's".into())),
        };
        if config.get_hosts().is_empty() {
            config.host("localhost");
        }
        config.application_name(APPLICATION_NAME);
        let (hosts, ports) = (config.get_hosts().len(), config.get_ports().len());
        if ports > 1 && ports != hosts {
            return Err(UrlError("as many ports as hosts are needed, or one".into()));
        }
        Ok(Self { config, passfile })
    }

    /// The file to look for the password in; `None`: it is in the URL, or none is needed.
    pub(super) fn passfile(&self) -> Option<&Path> {
        let given = self.config.get_password().is_some();
        self.passfile.as_deref().filter(|_| !given)
    }

    /// The client's settings for one place, with the password that stands in the password file.
    pub(super) fn config_for(&self, host: &Host, port: u16, file: &str) -> tokio_postgres::Config {
        let host = match host {
            Host::Tcp(name) => name.clone(),
            Host::Unix(directory) => directory.display().to_string(),
        };
        let user = self.config.get_user().unwrap_or_default();
        let database = self.config.get_dbname().unwrap_or(user);
        let asked = Asked {
            host: &host,
            port,
            database,
            user,
        };
        let mut config = self.config.clone();
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
    fn refuses_what_it_would_not_keep() {
        for mode in ["require", "verify-full", "perhaps"] {
            assert!(Target::parse(&format!("postgres://u@db/c?sslmode={mode}")).is_err());
        }
    }
}
