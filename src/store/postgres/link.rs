//! One connection to PostgreSQL on this shard: made, set up, and watched for its end.

use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::LocalBoxFuture;
use glommio::Task;
use glommio::net::TcpStream;
use socket2::SockAddr;
use tokio_postgres::config::{Host, SslMode};
use tokio_postgres::error::{Severity, SqlState};
use tokio_postgres::tls::TlsConnect;
use tokio_postgres::{Client, NoTls};

use super::stream::{self, Compat};
use super::target::{Target, cause, place};
use super::tls::Tls;
use crate::dial::{self, within};

/// How long one address has, from the first packet to a connection that is set up.
const CONNECT_WITHIN: Duration = Duration::from_millis(1_200);

/// What every session is told. A statement's deadline lies before the one of whoever waits for it, so
/// that the server says how it ended; a session that was cut off in a transaction does not keep its
/// locks; the plans are those that stay right when a small table has grown; and a commit is durable
/// before it is answered, whatever the database's default.
const SET_UP: &str = "SET statement_timeout = '3500ms'; \
    SET lock_timeout = '3s'; \
    SET idle_in_transaction_session_timeout = '5s'; \
    SET default_transaction_isolation = 'read committed'; \
    SET work_mem = '32MB'; \
    SET jit = off; \
    SET enable_seqscan = off; \
    SET enable_bitmapscan = off; \
    SELECT set_config('synchronous_commit', 'on', false) \
        WHERE current_setting('synchronous_commit') IN ('off', 'local')";

/// Whether the server must be one that can be written to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Needs {
    Writing,
    Reading,
}

/// Why there is no connection.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LinkError {
    /// Nobody answers there, or not in time.
    #[error("cannot reach PostgreSQL at {place}: {cause}")]
    Unreachable {
        /// The host and port.
        place: String,
        /// Why not.
        cause: String,
    },
    /// The server does not let us in.
    #[error("PostgreSQL at {place} refuses: {cause}")]
    Refused {
        /// The host and port.
        place: String,
        /// What it says.
        cause: String,
    },
    /// The connection cannot be made secret, or not with a server that proves itself.
    #[error("no TLS with PostgreSQL at {place}: {cause}")]
    Tls {
        /// The host and port.
        place: String,
        /// Why not.
        cause: String,
    },
    /// There is nobody to trust.
    #[error("cannot use sslrootcert {path}: {cause}")]
    Roots {
        /// The file.
        path: String,
        /// Why not.
        cause: String,
    },
    /// The server takes no writes.
    #[error("PostgreSQL at {0} is read-only (a standby, or default_transaction_read_only is on)")]
    ReadOnly(String),
}

/// A connection that is up.
pub(super) struct Link {
    pub(super) client: Client,
    /// Never gets anything: disconnected when the connection has ended.
    ended: flume::Receiver<()>,
    /// Dropped with the link, so that a connection that hangs does not live on.
    _driver: Task<()>,
}

impl Link {
    /// Connects to the first host that is what is needed.
    pub(super) async fn open(target: &Target, needs: Needs) -> Result<Self, LinkError> {
        let mut failure = None;
        let passwords = passwords(target).await;
        let tls = Tls::load(&target.secrecy).await?;
        for (host, port) in target.places() {
            let config = target.config_for(host, port, &passwords);
            let place = place(host, port);
            let unreachable = |cause: String| {
                let place = place.clone();
                LinkError::Unreachable { place, cause }
            };
            let addresses = match stream::addresses(host, port).await {
                Ok(addresses) => addresses,
                Err(error) => {
                    failure = Some(unreachable(error.to_string()));
                    continue;
                }
            };
            let way = Way {
                config,
                tls: match host {
                    Host::Tcp(name) => tls.as_ref().map(|tls| (tls, name.as_str())),
                    Host::Unix(_) => None,
                },
                place: &place,
                needs,
            };
            for address in addresses {
                match within(CONNECT_WITHIN, way.open(&address)).await {
                    Some(Ok(link)) => return Ok(link),
                    Some(Err(error)) => failure = Some(error),
                    None => failure = Some(unreachable("no answer in time".to_owned())),
                }
            }
        }
        Err(failure.unwrap_or_else(|| LinkError::Unreachable {
            place: target.to_string(),
            cause: "the name has no address".to_owned(),
        }))
    }

    /// Sets up a connection that has been let in.
    async fn set_up(
        client: Client,
        connection: Connecting,
        way: &Way<'_>,
    ) -> Result<Self, LinkError> {
        let (ending, ended) = flume::bounded(1);
        let driver = glommio::spawn_local(async move {
            if let Err(error) = connection.await {
                tracing::debug!(
                    error = cause(&error),
                    "a connection to PostgreSQL has ended"
                );
            }
            drop(ending);
        });
        let link = Self {
            client,
            ended,
            _driver: driver,
        };
        let failed = |error| way.failed(&error);
        link.client.batch_execute(SET_UP).await.map_err(failed)?;
        if way.needs == Needs::Writing {
            let asked = "SELECT current_setting('transaction_read_only') = 'on'";
            let row = link.client.query_one(asked, &[]).await.map_err(failed)?;
            if row.get::<_, bool>(0) {
                return Err(LinkError::ReadOnly(way.place.to_owned()));
            }
        }
        Ok(link)
    }

    /// Whether the connection has ended.
    pub(super) fn is_lost(&self) -> bool {
        self.client.is_closed()
    }

    /// Resolves when the connection has ended.
    pub(super) async fn lost(&self) {
        let _ = self.ended.recv_async().await;
    }
}

/// What drives a connection until it ends.
type Connecting = LocalBoxFuture<'static, Result<(), tokio_postgres::Error>>;

/// How to get in at one place.
struct Way<'a> {
    config: tokio_postgres::Config,
    /// With the host's name, as its certificate has it.
    tls: Option<(&'a Tls, &'a str)>,
    place: &'a str,
    needs: Needs,
}

impl Way<'_> {
    async fn open(&self, address: &SockAddr) -> Result<Link, LinkError> {
        match self.open_with(address, self.tls).await {
            // What nobody has to prove is better plain than not at all.
            Err(LinkError::Tls { cause, .. }) if self.config.get_ssl_mode() == SslMode::Prefer => {
                tracing::debug!(place = self.place, cause, "goes on without TLS");
                self.open_with(address, None).await
            }
            opened => opened,
        }
    }

    async fn open_with(
        &self,
        address: &SockAddr,
        tls: Option<(&Tls, &str)>,
    ) -> Result<Link, LinkError> {
        let stream = dial::connect(address).map_err(|error| LinkError::Unreachable {
            place: self.place.to_owned(),
            cause: error.to_string(),
        })?;
        let begun = match tls {
            Some((tls, host)) => self.begin(stream, tls.to(host)).await,
            None => self.begin(stream, NoTls).await,
        };
        let (client, connection) = begun.map_err(|error| self.failed(&error))?;
        Link::set_up(client, connection, self).await
    }

    async fn begin<T>(
        &self,
        stream: TcpStream,
        tls: T,
    ) -> Result<(Client, Connecting), tokio_postgres::Error>
    where
        T: TlsConnect<Compat<TcpStream>>,
        T::Stream: 'static,
    {
        let (client, connection) = self.config.connect_raw(Compat::new(stream), tls).await?;
        Ok((client, connection.boxed_local()))
    }

    fn failed(&self, error: &tokio_postgres::Error) -> LinkError {
        let (place, cause) = (self.place.to_owned(), cause(error));
        if error.as_db_error().is_some() {
            return LinkError::Refused { place, cause };
        }
        // The client has no other sign of it.
        if error.to_string().starts_with(HANDSHAKE_FAILED) {
            return LinkError::Tls { place, cause };
        }
        LinkError::Unreachable { place, cause }
    }
}

/// How the client's own words begin when TLS does not come about.
const HANDSHAKE_FAILED: &str = "error performing TLS handshake";

/// The text of the password file; empty when there is none to be read. Read for each connection, so that
/// a password can be changed while the server runs.
async fn passwords(target: &Target) -> String {
    let Some(path) = target.passfile().map(std::path::Path::to_path_buf) else {
        return String::new();
    };
    let shown = path.display().to_string();
    match glommio::executor()
        .spawn_blocking(move || std::fs::read_to_string(path))
        .await
    {
        Ok(text) => text,
        Err(error) => {
            tracing::warn!(path = shown, %error, "the password file cannot be read");
            String::new()
        }
    }
}

/// What is known after a statement failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Outcome {
    /// The server has rolled back, and one of the rows may be to blame.
    RefusedForARow,
    /// The server has rolled back.
    Refused,
    /// The server has rolled back, and cannot be written to: another may be by now.
    ReadOnly,
    /// The connection is of no use any more; whether the commit took place is not known.
    Unknown,
}

/// Judges a failed statement that was a transaction of its own.
pub(super) fn outcome(error: &tokio_postgres::Error) -> Outcome {
    let Some(answer) = error.as_db_error() else {
        return Outcome::Unknown;
    };
    // A session that is ended while it waits to commit says so with FATAL, committed or not.
    if answer.parsed_severity() != Some(Severity::Error) {
        return Outcome::Unknown;
    }
    let code = answer.code();
    if *code == SqlState::READ_ONLY_SQL_TRANSACTION {
        return Outcome::ReadOnly;
    }
    // Data exception, integrity constraint violation, program limit exceeded.
    match code.code().get(..2) {
        Some("22" | "23" | "54") => Outcome::RefusedForARow,
        _ => Outcome::Refused,
    }
}
