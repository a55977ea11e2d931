//! TLS to another server, over the shard's own stream.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use futures_rustls::TlsConnector;
use futures_rustls::client::TlsStream;
use futures_rustls::pki_types::pem::PemObject;
use futures_rustls::pki_types::{CertificateDer, ServerName};
use futures_rustls::rustls::client::Resumption;
use futures_rustls::rustls::crypto::ring;
use futures_rustls::rustls::{self, CertificateError, ClientConfig, RootCertStore};
use glommio::net::TcpStream;

use super::verifier::{Trusted, Verifier};

/// The most names of a wrong certificate that a message says.
const NAMES_SHOWN: usize = 4;

/// Why the handshake failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct TlsError(String);

/// There is nobody to trust.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("cannot use the certificates of {path}: {cause}")]
pub struct RootsError {
    /// The file.
    pub path: String,
    /// Why not.
    pub cause: String,
}

/// How sure the server's identity must be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trust {
    /// The file of trusted certificates (PEM); `None`: any certificate does.
    pub roots: Option<PathBuf>,
    /// Whether the certificate must be the host's own.
    pub names_the_host: bool,
}

/// How to make a connection secret. Cheap to clone.
#[derive(Clone)]
pub struct Tls(Arc<ClientConfig>);

impl Tls {
    /// Reads the trusted certificates, each time anew, so that they can be exchanged while the server
    /// runs.
    ///
    /// # Panics
    /// Never: the provider has suites for all versions of TLS that are safe.
    pub async fn load(trust: &Trust) -> Result<Self, RootsError> {
        let trusted = match trust.roots.clone() {
            None => None,
            Some(path) => {
                let shown = path.display().to_string();
                let read = move || read_roots(&path);
                let read = glommio::executor().spawn_blocking(read).await;
                Some(read.map_err(|cause| RootsError { path: shown, cause })?)
            }
        };
        let provider = Arc::new(ring::default_provider());
        let algorithms = provider.signature_verification_algorithms;
        let verifier = Verifier::new(trusted, trust.names_the_host, algorithms);
        let mut config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("the provider has suites for these versions")
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(verifier))
            .with_no_client_auth();
        // Connections are few and live long.
        config.resumption = Resumption::disabled();
        Ok(Self(Arc::new(config)))
    }

    /// Makes one connection to this host secret.
    pub async fn connect(
        &self,
        host: &str,
        stream: TcpStream,
    ) -> Result<TlsStream<TcpStream>, TlsError> {
        let name = ServerName::try_from(host.to_owned())
            .map_err(|_| TlsError("the host's name is none that a certificate has".into()))?;
        let connector = TlsConnector::from(self.0.clone());
        connector
            .connect(name, stream)
            .await
            .map_err(|error| explain(&error))
    }
}

/// The certificates of a PEM file.
fn read_roots(path: &Path) -> Result<Trusted, String> {
    let text = std::fs::read(path).map_err(|error| error.to_string())?;
    let mut store = RootCertStore::empty();
    let mut certificates = Vec::new();
    for certificate in CertificateDer::pem_slice_iter(&text) {
        let certificate = certificate.map_err(|_| "it is not a PEM file".to_owned())?;
        store
            .add(certificate.clone())
            .map_err(|_| "it holds a certificate that cannot be read".to_owned())?;
        certificates.push(certificate);
    }
    if certificates.is_empty() {
        return Err("it holds no certificate (PEM)".to_owned());
    }
    Ok(Trusted {
        store,
        certificates,
    })
}

/// A failed handshake in words that say what to look at.
fn explain(error: &io::Error) -> TlsError {
    let inner = error.get_ref().and_then(|inner| inner.downcast_ref());
    TlsError(match inner {
        Some(rustls::Error::InvalidCertificate(cause)) => refused(cause),
        Some(other) => other.to_string(),
        None if error.kind() == io::ErrorKind::UnexpectedEof => {
            "the server ended the connection".to_owned()
        }
        None => error.to_string(),
    })
}

fn refused(cause: &CertificateError) -> String {
    match cause {
        CertificateError::UnknownIssuer => {
            "its certificate is not signed by one of the trusted ones".to_owned()
        }
        CertificateError::BadSignature => "its certificate is signed by another key".to_owned(),
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
            "its certificate has expired".to_owned()
        }
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
            "its certificate is not valid yet".to_owned()
        }
        CertificateError::NotValidForNameContext {
            expected,
            presented,
        } => {
            let expected = expected.to_str();
            if presented.is_empty() {
                return format!(
                    "its certificate has no subjectAltName, so it is not for {expected}"
                );
            }
            let shown: Vec<&str> = presented
                .iter()
                .take(NAMES_SHOWN)
                .map(|n| bare(n))
                .collect();
            format!(
                "its certificate is for {}, not for {expected}",
                shown.join(", ")
            )
        }
        other => format!("its certificate is refused: {other}"),
    }
}

/// A name without rustls's own words around it.
fn bare(name: &str) -> &str {
    let inner = name.strip_prefix("DnsName(\"");
    let inner = inner.and_then(|inner| inner.strip_suffix("\")"));
    inner.unwrap_or(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_without_certificates_is_refused_in_words() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let told = |text: &str| {
            std::fs::write(file.path(), text).unwrap();
            read_roots(file.path()).map(|_| ()).unwrap_err()
        };
        assert_eq!(told("nothing"), "it holds no certificate (PEM)");
        let broken = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
        assert_eq!(told(broken), "it holds a certificate that cannot be read");
        assert_eq!(
            told(&broken.replace("-----END", "!")),
            "it is not a PEM file"
        );
    }

    #[test]
    fn says_whom_a_certificate_is_for() {
        let named = |presented: &[&str]| {
            refused(&CertificateError::NotValidForNameContext {
                expected: ServerName::try_from("db.example").unwrap(),
                presented: presented.iter().map(ToString::to_string).collect(),
            })
        };
        assert_eq!(
            named(&["DnsName(\"a\")", "DnsName(\"b\")"]),
            "its certificate is for a, b, not for db.example"
        );
        assert_eq!(
            named(&[]),
            "its certificate has no subjectAltName, so it is not for db.example"
        );
    }
}
