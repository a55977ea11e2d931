//! Whether a server's certificate is good enough, by the levels of `sslmode`. Pure: the time is given.

use futures_rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use futures_rustls::rustls::client::danger::{
    HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier,
};
use futures_rustls::rustls::client::{
    verify_server_cert_signed_by_trust_anchor, verify_server_name,
};
use futures_rustls::rustls::crypto::{
    WebPkiSupportedAlgorithms, verify_tls12_signature, verify_tls13_signature,
};
use futures_rustls::rustls::server::ParsedCertificate;
use futures_rustls::rustls::{
    CertificateError, DigitallySignedStruct, Error, RootCertStore, SignatureScheme,
};

/// Whom to trust.
#[derive(Debug)]
pub(super) struct Trusted {
    /// The certificates, to sign others.
    pub(super) store: RootCertStore,
    /// The same, as they are: a server may have one of them itself.
    pub(super) certificates: Vec<CertificateDer<'static>>,
}

/// Judges one server's certificate.
#[derive(Debug)]
pub(super) struct Verifier {
    /// `None`: any certificate does.
    trusted: Option<Trusted>,
    /// Whether it must be the host's own.
    names: bool,
    algorithms: WebPkiSupportedAlgorithms,
}

impl Verifier {
    pub(super) fn new(
        trusted: Option<Trusted>,
        names: bool,
        algorithms: WebPkiSupportedAlgorithms,
    ) -> Self {
        Self {
            trusted,
            names,
            algorithms,
        }
    }
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let Some(trusted) = &self.trusted else {
            return Ok(ServerCertVerified::assertion());
        };
        let certificate = ParsedCertificate::try_from(end_entity)?;
        let signed = verify_server_cert_signed_by_trust_anchor(
            &certificate,
            &trusted.store,
            intermediates,
            now,
            self.algorithms.all,
        );
        match signed {
            // What `openssl req -x509` makes says of itself that it signs others, which a server's must
            // not. It stands in the file as it is, and its dates have been looked at before that.
            Err(Error::InvalidCertificate(CertificateError::Other(_)))
                if trusted.certificates.contains(end_entity) => {}
            other => other?,
        }
        if self.names {
            verify_server_name(&certificate, server_name)?;
        }
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, certificate, signature, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, certificate, signature, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}
