//! The server's side: from certificates and what is demanded of clients to a configuration of rustls.

use std::sync::Arc;

use aws_lc_rs::digest;
use rustls::{
    ServerConfig, SupportedProtocolVersion,
    compress::CompressionCache,
    server::{NoServerSessionStorage, WebPkiClientVerifier, danger::ClientCertVerifier},
    version::{TLS12, TLS13},
};

use super::{
    authority::Authorities,
    certificate::Certificate,
    provider,
    select::{Resolver, Selection, Shadowed},
    tickets::{TicketKeys, Ticketer},
};
use crate::config::types::{AlpnProtocol, ClientAuthMode, TlsVersion};

/// Tickets for a client of TLS 1.3, each of which it uses once (RFC 8446 §C.4): it may come back with two connections.
const TICKETS_PER_HANDSHAKE: usize = 2;

/// What a TLS listener serves with. Every core has a configuration made from it.
#[derive(Debug)]
pub struct ServerTls {
    certificates: Vec<Certificate>,
    selection: Selection,
    shadowed: Vec<Shadowed>,
    min_version: TlsVersion,
    alpn: Vec<AlpnProtocol>,
    client_auth: Option<ClientAuthority>,
}

/// What is demanded of clients.
#[derive(Debug)]
pub struct ClientAuthority {
    /// Whom their certificates must come from.
    pub authorities: Authorities,
    /// Whether they must have one.
    pub mode: ClientAuthMode,
}

impl ServerTls {
    /// `certificates`: at least one; the first is for everyone whose name is in none.
    ///
    /// # Errors
    /// What rustls has against it.
    pub fn new(
        certificates: Vec<Certificate>,
        min_version: TlsVersion,
        client_auth: Option<ClientAuthority>,
    ) -> Result<Self, rustls::Error> {
        if certificates.is_empty() {
            return Err(rustls::Error::General("there is no certificate".into()));
        }
        let (selection, shadowed) = Selection::new(certificates.iter().map(Certificate::facts));
        let server = Self {
            certificates,
            selection,
            shadowed,
            min_version,
            alpn: vec![AlpnProtocol::Http11],
            client_auth,
        };
        // Whatever rustls refuses it refuses now, not on a core.
        server.config(&TicketKeys::generate()?)?;
        Ok(server)
    }

    /// The same, with these protocols to be agreed on by ALPN, the preferred one first.
    pub fn offering(self, alpn: &[AlpnProtocol]) -> Self {
        Self { alpn: alpn.into(), ..self }
    }

    /// A configuration for one core, which shares nothing with another's that is written to: each has its own keys, since
    /// those of RSA hold a lock. To be made again, from new keys, when the ticket keys are rotated.
    ///
    /// # Errors
    /// Randomness or memory ran out: everything else was tried by [`Self::new`].
    pub fn config(&self, tickets: &TicketKeys) -> Result<Arc<ServerConfig>, rustls::Error> {
        let provider = provider();
        let versions: &[&SupportedProtocolVersion] = match self.min_version {
            TlsVersion::Tls12 => &[&TLS13, &TLS12],
            TlsVersion::Tls13 => &[&TLS13],
        };
        let verifier = self.verifier(&provider)?;
        let keys = self.certificates.iter().map(Certificate::certified_key).collect::<Result<_, _>>()?;
        let resolver = Resolver::new(self.selection.clone(), keys);
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(versions)?
            .with_client_cert_verifier(verifier)
            .with_cert_resolver(Arc::new(resolver));
        config.alpn_protocols = self.alpn.iter().map(|protocol| protocol.name().into()).collect();
        // The record layer is our own, over the core's buffers.
        config.enable_secret_extraction = true;
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.ticketer = Arc::new(Ticketer::new(tickets, self.scope())?);
        config.send_tls13_tickets = TICKETS_PER_HANDSHAKE;
        // No 0-RTT: it can be replayed (RFC 8446 §8), and a gateway cannot tell which requests may be.
        config.max_early_data_size = 0;
        config.cert_compression_cache = Arc::new(CompressionCache::Disabled);
        Ok(Arc::new(config))
    }

    /// The certificates, in the order of the file.
    pub fn certificates(&self) -> &[Certificate] {
        &self.certificates
    }

    /// Which certificate is preferred for a name, without port: by its place in the list. `None`: no name was asked for.
    pub fn certificate_for(&self, name: Option<&str>) -> usize {
        self.selection.group(name)[0]
    }

    /// Whether a request for `host`, without its port, came over a connection that was made for another certificate: it is
    /// answered with 421 (RFC 9110 §15.5.20). Who asked for no name cannot be wrong.
    pub fn is_misdirected(&self, asked: Option<&str>, host: &str) -> bool {
        asked.is_some_and(|asked| {
            // The ordinary case, without a look into the table.
            !asked.eq_ignore_ascii_case(host)
                && self.certificate_for(Some(asked)) != self.certificate_for(Some(host))
        })
    }

    /// Whether one of its certificates is for `host`.
    pub fn is_for(&self, host: &str) -> bool {
        self.selection.named(host).is_some()
    }

    /// Names for which a certificate is never used.
    pub fn shadowed(&self) -> &[Shadowed] {
        &self.shadowed
    }

    fn verifier(
        &self,
        provider: &Arc<rustls::crypto::CryptoProvider>,
    ) -> Result<Arc<dyn ClientCertVerifier>, rustls::Error> {
        let Some(ClientAuthority { authorities, mode }) = &self.client_auth else {
            return Ok(WebPkiClientVerifier::no_client_auth());
        };
        // The authorities' names go to the clients, so that they know which certificate to show.
        let roots = Arc::new((**authorities.roots()).clone());
        let builder = WebPkiClientVerifier::builder_with_provider(roots, Arc::clone(provider));
        let builder = match mode {
            ClientAuthMode::Require => builder,
            ClientAuthMode::Optional => builder.allow_unauthenticated(),
        };
        builder.build().map_err(|error| rustls::Error::General(error.to_string()))
    }

    /// Listeners that demand the same of their clients take each other's tickets.
    fn scope(&self) -> [u8; 32] {
        let mut digest = digest::Context::new(&digest::SHA256);
        if let Some(ClientAuthority { authorities, mode }) = &self.client_auth {
            digest.update(match mode {
                ClientAuthMode::Require => b"require",
                ClientAuthMode::Optional => b"optional",
            });
            digest.update(authorities.digest());
        }
        digest.finish().as_ref().try_into().unwrap_or([0; 32])
    }
}
