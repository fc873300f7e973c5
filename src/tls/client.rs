//! The client's side, towards endpoints: whom to believe, as whom to appear, and a configuration of rustls from that.

use std::{collections::HashSet, net::SocketAddr, sync::Arc};

use aws_lc_rs::digest;
use rustls::{
    ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme,
    client::{
        Resumption, WebPkiServerVerifier,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    },
    crypto::{CryptoProvider, WebPkiSupportedAlgorithms, verify_tls12_signature, verify_tls13_signature},
    sign::SingleCertAndKey,
    version::{TLS12, TLS13},
};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};

use super::{certificate::Certificate, provider};
use crate::config::types::{AlpnProtocol, UpstreamProtocol};

/// Names whose sessions a core remembers, for each cluster.
const SESSION_NAMES_MAX: usize = 256;

/// Sessions that rustls keeps for a name.
const SESSIONS_PER_NAME: usize = 8;

/// Whose certificates are believed.
#[derive(Debug, Clone)]
pub enum Trust {
    /// Those that come from one of these authorities and are for the endpoint's name.
    Authorities(Arc<RootCertStore>),
    /// Everyone's.
    Anyone,
}

/// See [`ClientTls::identity`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Identity([u8; 32]);

/// What a cluster's connections are made with. Every core has a configuration made from it.
#[derive(Debug)]
pub struct ClientTls {
    trust: Trust,
    certificate: Option<Certificate>,
    /// The name of each endpoint.
    names: Vec<ServerName<'static>>,
    protocol: UpstreamProtocol,
}

impl ClientTls {
    /// `server_name`: the name of all endpoints, instead of their addresses. `certificate`: shown to endpoints that ask.
    ///
    /// # Errors
    /// What rustls has against it.
    pub fn new(
        trust: Trust,
        certificate: Option<Certificate>,
        server_name: Option<ServerName<'static>>,
        endpoints: &[SocketAddr],
    ) -> Result<Self, rustls::Error> {
        let name = |endpoint: &SocketAddr| server_name.clone().unwrap_or_else(|| endpoint.ip().into());
        let client = Self {
            trust,
            certificate,
            names: endpoints.iter().map(name).collect(),
            protocol: UpstreamProtocol::Http1,
        };
        // Whatever rustls refuses it refuses now, not on a core.
        client.config()?;
        Ok(client)
    }

    /// The same, with another version of HTTP to be agreed on by ALPN.
    pub fn offering(self, protocol: UpstreamProtocol) -> Self {
        Self { protocol, ..self }
    }

    /// Whether an endpoint's certificate is looked at.
    pub fn verifies(&self) -> bool {
        matches!(self.trust, Trust::Authorities(_))
    }

    fn alpn(&self) -> &'static [AlpnProtocol] {
        match self.protocol {
            UpstreamProtocol::Http1 => &[AlpnProtocol::Http11],
            UpstreamProtocol::Http2 => &[AlpnProtocol::Http2],
            UpstreamProtocol::Auto => &[AlpnProtocol::Http2, AlpnProtocol::Http11],
        }
    }

    /// A configuration for one core. Its memory of sessions is behind a lock, so no two cores may have the same one.
    ///
    /// # Errors
    /// Memory ran out: everything else was tried by [`Self::new`].
    pub fn config(&self) -> Result<Arc<ClientConfig>, rustls::Error> {
        let provider = provider();
        let verifier: Arc<dyn ServerCertVerifier> = match &self.trust {
            Trust::Authorities(roots) => {
                let builder =
                    WebPkiServerVerifier::builder_with_provider(Arc::clone(roots), Arc::clone(&provider));
                builder.build().map_err(|error| rustls::Error::General(error.to_string()))?
            }
            Trust::Anyone => Arc::new(BelieveAnyone::new(&provider)),
        };
        let builder = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&TLS13, &TLS12])?
            .dangerous()
            .with_custom_certificate_verifier(verifier);
        let mut config = match &self.certificate {
            Some(own) => {
                builder.with_client_cert_resolver(Arc::new(SingleCertAndKey::from(own.certified_key()?)))
            }
            None => builder.with_no_client_auth(),
        };
        config.alpn_protocols = self.alpn().iter().map(|protocol| protocol.name().into()).collect();
        // The record layer is our own, over the core's buffers.
        config.enable_secret_extraction = true;
        let names: HashSet<&ServerName<'_>> = self.names.iter().take(SESSION_NAMES_MAX).collect();
        config.resumption = Resumption::in_memory_sessions(names.len() * SESSIONS_PER_NAME);
        Ok(Arc::new(config))
    }

    /// What tells connections to an endpoint from those that were made by other rules: whom to believe, as whom to appear,
    /// and the name that was asked for.
    pub fn identity(&self, endpoint: usize) -> Identity {
        let mut digest = digest::Context::new(&digest::SHA256);
        let mut add = |part: &[u8]| {
            digest.update(&(part.len() as u64).to_be_bytes());
            digest.update(part);
        };
        match &self.trust {
            Trust::Anyone => add(b"anyone"),
            Trust::Authorities(roots) => {
                for root in &roots.roots {
                    add(&root.subject);
                    add(&root.subject_public_key_info);
                    add(root.name_constraints.as_deref().unwrap_or_default());
                }
            }
        }
        self.alpn().iter().for_each(|protocol| add(protocol.name().as_bytes()));
        add(self.certificate.as_ref().map_or(b"", |own| &own.facts().fingerprint[..]));
        add(self.server_name(endpoint).map_or(String::new(), |name| name.to_str().into_owned()).as_bytes());
        Identity(digest.finish().as_ref().try_into().unwrap_or([0; 32]))
    }

    /// The name of an endpoint, by its place in the cluster: asked for by SNI unless it is an address, and what the
    /// endpoint's certificate must be for.
    pub fn server_name(&self, endpoint: usize) -> Option<&ServerName<'static>> {
        self.names.get(endpoint)
    }

    /// The certificate shown to endpoints that ask.
    pub fn certificate(&self) -> Option<&Certificate> {
        self.certificate.as_ref()
    }
}

/// DANGEROUS: believes whoever has the key to the certificate that it shows, whatever certificate that is. It is what
/// `verify = false` asks for, and nothing else makes one.
#[derive(Debug)]
struct BelieveAnyone {
    algorithms: WebPkiSupportedAlgorithms,
}

impl BelieveAnyone {
    fn new(provider: &CryptoProvider) -> Self {
        Self { algorithms: provider.signature_verification_algorithms }
    }
}

impl ServerCertVerifier for BelieveAnyone {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, certificate, signature, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signature, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}
