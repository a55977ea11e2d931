//! TLS to the server, in the traits of its client.

use futures_rustls::client::TlsStream;
use futures_util::future::LocalBoxFuture;
use futures_util::{FutureExt as _, TryFutureExt as _};
use glommio::net::TcpStream;
use tokio_postgres::tls::{ChannelBinding, TlsConnect};

use super::endpoint;
use super::link::LinkError;
use super::stream::Compat;
use super::target::Secrecy;
use crate::dial::tls::{self, RootsError, TlsError, Trust};

/// How to make a connection secret. Cheap to clone.
#[derive(Clone)]
pub(super) struct Tls(tls::Tls);

impl Tls {
    /// Reads the trusted certificates. `None`: the connection is to be plain.
    pub(super) async fn load(secrecy: &Secrecy) -> Result<Option<Self>, LinkError> {
        if !secrecy.mode.may_encrypt() {
            return Ok(None);
        }
        let trust = Trust {
            roots: secrecy.roots.clone(),
            names_the_host: secrecy.mode.names_the_host(),
        };
        let loaded = tls::Tls::load(&trust).await;
        let tls = loaded.map_err(|RootsError { path, cause }| LinkError::Roots { path, cause })?;
        Ok(Some(Self(tls)))
    }

    /// What makes one connection to this host secret.
    pub(super) fn to(&self, host: &str) -> Handshake {
        Handshake {
            tls: self.0.clone(),
            host: host.to_owned(),
        }
    }
}

/// One connection's handshake.
pub(super) struct Handshake {
    tls: tls::Tls,
    host: String,
}

impl TlsConnect<Compat<TcpStream>> for Handshake {
    type Stream = Compat<TlsStream<TcpStream>>;
    type Error = TlsError;
    type Future = LocalBoxFuture<'static, Result<Self::Stream, TlsError>>;

    fn connect(self, stream: Compat<TcpStream>) -> Self::Future {
        let stream = stream.into_stream();
        let connect = async move { self.tls.connect(&self.host, stream).await };
        connect.map_ok(Compat::new).boxed_local()
    }
}

impl tokio_postgres::tls::TlsStream for Compat<TlsStream<TcpStream>> {
    fn channel_binding(&self) -> ChannelBinding {
        let (_, session) = self.stream().get_ref();
        let certificate = session.peer_certificates().and_then(<[_]>::first);
        match certificate.and_then(|certificate| endpoint::hash(certificate)) {
            Some(hash) => ChannelBinding::tls_server_end_point(hash),
            None => ChannelBinding::none(),
        }
    }
}
