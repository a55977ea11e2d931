//! The stream of a node: made, read and written, made again. Nothing is decided here.

use std::future::poll_fn;
use std::io;
use std::path::PathBuf;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures_lite::io::{AsyncRead, AsyncWrite};
use futures_rustls::client::TlsStream;
use glommio::net::TcpStream;
use glommio::timer::sleep;
use socket2::SockAddr;

use super::Redis;
use super::target::{Place, Target};
use crate::dial::tls::{RootsError, Tls, TlsError};
use crate::dial::{self, within};
use crate::wire::adapter::HostNews;

/// How long one address has, from the name to a stream that is secret.
pub(super) const CONNECT_WITHIN: Duration = Duration::from_millis(1_200);
/// Bytes read at once.
const READ_BYTES: usize = 32 << 10;
/// Reads before others get their turn.
const READS_AT_ONCE: usize = 8;
/// How long a node that leaves waits until the fleet has its last words.
const LEAVE_WITHIN: Duration = Duration::from_millis(500);
const LEAVE_LOOK: Duration = Duration::from_millis(5);
/// Where systems keep the certificates that they trust.
const SYSTEM_ROOTS: &[&str] = &[
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
];

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub(super) enum OpenError {
    #[error("{0}")]
    Io(#[from] io::Error),
    #[error("no TLS: {0}")]
    Tls(#[from] TlsError),
    #[error("{0}")]
    Roots(#[from] RootsError),
    #[error("no answer in time")]
    Late,
    #[error("the name has no address")]
    NoAddress,
}

/// A connection, plain or secret.
pub(super) enum Stream {
    Plain(TcpStream),
    Secret(Box<TlsStream<TcpStream>>),
}

impl Stream {
    /// Opens a stream to the target's address number `nth`.
    pub(super) async fn open(target: &Target, nth: usize) -> Result<Self, OpenError> {
        let (host, port, secrecy) = match &target.place {
            Place::Unix(path) => {
                return Ok(Self::Plain(dial::connect(&SockAddr::unix(path)?)?));
            }
            Place::Tcp(host, port, secrecy) => (host, *port, secrecy),
        };
        let addresses = dial::addresses(host, port).await?;
        let count = addresses.len().max(1);
        let address = addresses.get(nth % count).ok_or(OpenError::NoAddress)?;
        let stream = dial::connect(address)?;
        let Some(secrecy) = secrecy else {
            return Ok(Self::Plain(stream));
        };
        let tls = Tls::load(&secrecy.trust(system_roots)).await?;
        let stream = tls.connect(host, stream).await?;
        Ok(Self::Secret(Box::new(stream)))
    }

    pub(super) fn poll_read(
        &mut self,
        context: &mut Context<'_>,
        buffer: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        match self {
            Self::Plain(stream) => Pin::new(stream).poll_read(context, buffer),
            Self::Secret(stream) => Pin::new(stream).poll_read(context, buffer),
        }
    }

    pub(super) fn poll_write(
        &mut self,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self {
            Self::Plain(stream) => Pin::new(stream).poll_write(context, bytes),
            Self::Secret(stream) => Pin::new(stream).poll_write(context, bytes),
        }
    }

    pub(super) fn poll_flush(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            // There is nothing between us and the kernel.
            Self::Plain(_) => Poll::Ready(Ok(())),
            Self::Secret(stream) => Pin::new(stream).poll_flush(context),
        }
    }
}

/// The file of the certificates that the system trusts: what `SSL_CERT_FILE` names, or where it usually is.
fn system_roots() -> PathBuf {
    if let Some(path) = std::env::var_os("SSL_CERT_FILE") {
        return path.into();
    }
    let mut usual = SYSTEM_ROOTS.iter().map(PathBuf::from);
    let found = usual.find(|path| path.exists());
    found.unwrap_or_else(|| SYSTEM_ROOTS[0].into())
}

impl Redis {
    /// Keeps the link up until the process ends. Spawn it once for each shard, after
    /// [`Redis::attach_to`].
    pub async fn run(self: Rc<Self>) {
        let mut nth = 0;
        while !self.state.borrow().is_over {
            let opened = within(CONNECT_WITHIN, Stream::open(&self.target, nth)).await;
            match opened.unwrap_or(Err(OpenError::Late)) {
                Ok(stream) => self.drive(stream).await,
                Err(error) => self.lost(&error.to_string()),
            }
            nth += 1;
            let mut chance = [0];
            self.env.fill(&mut chance);
            let wait = self.with(|state| state.backoff.failed(chance[0]));
            sleep(wait).await;
        }
    }

    /// Reads and writes until the connection is of no use any more.
    async fn drive(self: &Rc<Self>, stream: Stream) {
        let epoch = self.state.borrow().epoch;
        self.connected();
        let mut driver = Driver {
            redis: self,
            stream,
            epoch,
            buffer: vec![0; READ_BYTES],
            is_open: false,
            is_flushed: true,
        };
        poll_fn(|context| driver.poll(context)).await;
    }

    /// This shard ends: tells the fleet, if it is the last of its host.
    pub fn say_stop(&self) {
        if self.fleet.end(self.shard) {
            self.say(self.env.now(), HostNews::Stop);
            self.wake();
        }
    }

    /// The shard ends: says so, if it is the last of its host, and waits until the rest is written.
    pub async fn leave(&self) {
        let now = self.env.now();
        self.say_stop();
        while self.env.now() < now + LEAVE_WITHIN && !self.state.borrow().link.is_idle() {
            sleep(LEAVE_LOOK).await;
        }
        self.with(|state| state.is_over = true);
    }
}

struct Driver<'a> {
    redis: &'a Redis,
    stream: Stream,
    epoch: u64,
    buffer: Vec<u8>,
    /// The connection is made: what was written first has gone.
    is_open: bool,
    is_flushed: bool,
}

impl Driver<'_> {
    fn is_over(&self) -> bool {
        self.redis.state.borrow().epoch != self.epoch
    }

    /// Writes and reads what is possible now.
    fn poll(&mut self, context: &mut Context<'_>) -> Poll<()> {
        for _ in 0..READS_AT_ONCE {
            self.redis
                .with(|state| state.waker = Some(context.waker().clone()));
            if self.is_over() {
                return Poll::Ready(());
            }
            if let Err(error) = self.write(context) {
                self.redis.lost(&error.to_string());
                return Poll::Ready(());
            }
            if !self.is_open {
                return Poll::Pending;
            }
            match self.stream.poll_read(context, &mut self.buffer) {
                Poll::Ready(Ok(0)) => self.redis.lost("Redis has ended the connection"),
                Poll::Ready(Ok(count)) => self.redis.received(&self.buffer[..count]),
                Poll::Ready(Err(error)) => self.redis.lost(&error.to_string()),
                Poll::Pending => return Poll::Pending,
            }
        }
        context.waker().wake_by_ref();
        Poll::Pending
    }

    fn write(&mut self, context: &mut Context<'_>) -> io::Result<()> {
        loop {
            let written = {
                let state = self.redis.state.borrow();
                let output = state.link.output();
                if output.is_empty() {
                    break;
                }
                self.stream.poll_write(context, output)
            };
            match written {
                Poll::Ready(Ok(0)) => return Err(io::ErrorKind::WriteZero.into()),
                Poll::Ready(Ok(count)) => {
                    self.redis.with(|state| state.link.sent(count));
                    (self.is_open, self.is_flushed) = (true, false);
                }
                Poll::Ready(Err(error)) => return Err(error),
                Poll::Pending => return Ok(()),
            }
        }
        if !self.is_flushed && self.stream.poll_flush(context)?.is_ready() {
            self.is_flushed = true;
        }
        Ok(())
    }
}
