//! Handshakes in memory: a listener's configuration against rustls' own client, which knows nothing of this code.

use std::sync::Arc;

use rustls::{
    ClientConfig, ClientConnection, HandshakeKind, NamedGroup, ProtocolVersion, ServerConfig,
    ServerConnection, SupportedProtocolVersion,
    crypto::{CryptoProvider, WebPkiSupportedAlgorithms, aws_lc_rs::default_provider},
    sign::SingleCertAndKey,
    version::{TLS12, TLS13},
};
use rustls_pki_types::{CertificateDer, ServerName};

use super::mint::{Mint, Pair};
use crate::{
    config::types::{ClientAuthMode, TlsVersion},
    tls::{Certificate, ClientAuthority, Facts, ServerTls, TicketKeys},
};

/// Both sides after a handshake.
pub(super) struct Shaken {
    pub(super) client: ClientConnection,
    pub(super) server: ServerConnection,
}

impl Shaken {
    /// The place in `pairs` of the certificate that the client got.
    pub(super) fn served(&self, pairs: &[&Pair]) -> usize {
        let got = self.client.peer_certificates().unwrap();
        pairs.iter().position(|pair| first_der(pair) == got[0]).unwrap()
    }

    fn is_resumed(&self) -> bool {
        assert_eq!(self.client.handshake_kind(), self.server.handshake_kind());
        self.server.handshake_kind() == Some(HandshakeKind::Resumed)
    }
}

fn first_der(pair: &Pair) -> CertificateDer<'static> {
    let mut text = pair.cert.as_bytes();
    rustls_pki_types::pem::from_buf(&mut text).unwrap().unwrap().1.into()
}

/// Shakes hands, and goes on until neither side has anything to say. The error is the side's that refused.
pub(super) fn shake(
    client: &Arc<ClientConfig>,
    server: &Arc<ServerConfig>,
    name: &ServerName<'static>,
) -> Result<Shaken, rustls::Error> {
    let mut client = ClientConnection::new(Arc::clone(client), name.clone()).unwrap();
    let mut server = ServerConnection::new(Arc::clone(server)).unwrap();
    while client.wants_write() || server.wants_write() {
        let mut wire = Vec::new();
        while client.wants_write() {
            client.write_tls(&mut wire).unwrap();
        }
        let mut wire = &wire[..];
        while !wire.is_empty() {
            server.read_tls(&mut wire).unwrap();
            server.process_new_packets()?;
        }
        let mut wire = Vec::new();
        while server.wants_write() {
            server.write_tls(&mut wire).unwrap();
        }
        let mut wire = &wire[..];
        while !wire.is_empty() {
            client.read_tls(&mut wire).unwrap();
            client.process_new_packets()?;
        }
    }
    assert!(!client.is_handshaking() && !server.is_handshaking());
    Ok(Shaken { client, server })
}

pub(super) fn name(name: &str) -> ServerName<'static> {
    ServerName::try_from(name.to_owned()).unwrap()
}

fn listener(pairs: &[&Pair]) -> ServerTls {
    let certificates = pairs.iter().map(|pair| pair.read()).collect();
    ServerTls::new(certificates, TlsVersion::Tls12, None).unwrap()
}

fn config(server: &ServerTls) -> Arc<ServerConfig> {
    server.config(&TicketKeys::generate().unwrap()).unwrap()
}

/// A client that trusts `root`, with these versions and otherwise as rustls makes them.
fn client_of(root: &Mint, versions: &[&'static SupportedProtocolVersion]) -> ClientConfig {
    client_with(root, default_provider(), versions)
}

fn client_with(
    root: &Mint,
    provider: CryptoProvider,
    versions: &[&'static SupportedProtocolVersion],
) -> ClientConfig {
    ClientConfig::builder_with_provider(Arc::new(provider))
        .with_protocol_versions(versions)
        .unwrap()
        .with_root_certificates(Arc::clone(root.authorities().roots()))
        .with_no_client_auth()
}

const BOTH: [&SupportedProtocolVersion; 2] = [&TLS13, &TLS12];

#[test]
fn both_versions_with_what_protects_later_readers_too() {
    let root = Mint::root("root");
    let pair = root.below("between").pair(&["a.test"]);
    let server = config(&listener(&[&pair]));
    for (version, expected) in [(&TLS12, ProtocolVersion::TLSv1_2), (&TLS13, ProtocolVersion::TLSv1_3)] {
        let mut client = client_of(&root, &[version]);
        client.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        let shaken = shake(&Arc::new(client), &server, &name("a.test")).unwrap();
        assert_eq!(shaken.server.protocol_version(), Some(expected));
        assert_eq!(shaken.server.server_name(), Some("a.test"));
        assert_eq!(shaken.client.alpn_protocol(), Some(&b"http/1.1"[..]));
    }
    let shaken = shake(&Arc::new(client_of(&root, &BOTH)), &server, &name("a.test")).unwrap();
    let group = shaken.server.negotiated_key_exchange_group().unwrap();
    assert_eq!(group.name(), NamedGroup::X25519MLKEM768);
    assert_eq!(shaken.server.handshake_kind(), Some(HandshakeKind::Full), "no second hello was needed");
}

#[test]
fn an_older_version_than_the_oldest_is_refused() {
    let root = Mint::root("root");
    let server = ServerTls::new(vec![root.pair(&["a.test"]).read()], TlsVersion::Tls13, None).unwrap();
    let server = config(&server);
    shake(&Arc::new(client_of(&root, &BOTH)), &server, &name("a.test")).unwrap();
    assert!(shake(&Arc::new(client_of(&root, &[&TLS12])), &server, &name("a.test")).is_err());
}

#[test]
fn the_certificate_is_the_names() {
    let root = Mint::root("root");
    let pairs = [root.pair(&["first.test", "10.0.0.1"]), root.pair(&["*.b.test"]), root.pair(&["x.b.test"])];
    let pairs = pairs.each_ref();
    let listener = listener(&pairs);
    let server = config(&listener);
    let client = Arc::new(client_of(&root, &BOTH));
    for (asked, expected) in [("first.test", 0), ("x.b.test", 2), ("y.b.test", 1), ("10.0.0.1", 0)] {
        assert_eq!(shake(&client, &server, &name(asked)).unwrap().served(&pairs), expected, "{asked}");
    }
    // Who asks for a name of no certificate gets the first, and may refuse it.
    assert!(shake(&client, &server, &name("z.test")).is_err());

    assert!(!listener.is_misdirected(Some("y.b.test"), "z.b.test"));
    assert!(!listener.is_misdirected(Some("unknown.test"), "first.test"));
    assert!(!listener.is_misdirected(None, "x.b.test"));
    assert!(listener.is_misdirected(Some("y.b.test"), "x.b.test"));
    assert!(listener.is_misdirected(Some("first.test"), "y.b.test"));
}

/// A provider that can verify signatures with one of the two types of keys only.
fn provider_for(is_rsa: bool) -> CryptoProvider {
    let all = default_provider();
    let algorithms = all.signature_verification_algorithms;
    let is_kept = |scheme: rustls::SignatureScheme| format!("{scheme:?}").starts_with("RSA") == is_rsa;
    let mapping = algorithms.mapping.iter().filter(|(scheme, _)| is_kept(*scheme)).copied();
    let mapping = Box::leak(mapping.collect::<Box<_>>());
    let signature_verification_algorithms = WebPkiSupportedAlgorithms { mapping, ..algorithms };
    CryptoProvider { signature_verification_algorithms, ..all }
}

#[test]
fn the_certificate_is_one_that_the_client_can_verify() {
    let root = Mint::root("root");
    let pairs = [root.rsa(&["a.test"]), root.pair(&["a.test"])];
    let pairs = pairs.each_ref();
    let server = config(&listener(&pairs));
    for version in BOTH {
        let served = |provider| {
            let client = Arc::new(client_with(&root, provider, &[version]));
            shake(&client, &server, &name("a.test")).unwrap().served(&pairs)
        };
        assert_eq!(served(default_provider()), 1, "both: ECDSA");
        assert_eq!(served(provider_for(false)), 1);
        assert_eq!(served(provider_for(true)), 0);
    }
    // There is no other: the handshake fails, and nothing else.
    let server = config(&listener(&pairs[1..]));
    let client = Arc::new(client_with(&root, provider_for(true), &BOTH));
    assert!(shake(&client, &server, &name("a.test")).is_err());
}

#[test]
fn sessions_resume_on_every_core_and_over_one_rotation() {
    let root = Mint::root("root");
    let listener = listener(&[&root.pair(&["a.test"])]);
    let keys = TicketKeys::generate().unwrap();
    let config = |keys: &TicketKeys| listener.config(keys).unwrap();
    let (one, other) = (config(&keys), config(&keys));
    let second = keys.rotated().unwrap();
    let third = second.rotated().unwrap();
    for version in BOTH {
        let client = || {
            let client = Arc::new(client_of(&root, &[version]));
            assert!(!shake(&client, &one, &name("a.test")).unwrap().is_resumed());
            client
        };
        let is_resumed =
            |client: &_, server: &_| shake(client, server, &name("a.test")).unwrap().is_resumed();
        let same = client();
        assert!(is_resumed(&same, &other));
        assert!(is_resumed(&same, &one), "the resumed session got a ticket too");
        assert!(is_resumed(&client(), &config(&second)));
        assert!(!is_resumed(&client(), &config(&third)));
        assert!(!is_resumed(&client(), &config(&TicketKeys::generate().unwrap())));
    }
}

fn with_auth(root: &Mint, clients: &Mint, mode: ClientAuthMode) -> ServerTls {
    let auth = ClientAuthority { authorities: clients.authorities(), mode };
    ServerTls::new(vec![root.pair(&["a.test"]).read()], TlsVersion::Tls12, Some(auth)).unwrap()
}

/// A client of `root` that shows `certificate`.
fn client_showing(
    root: &Mint,
    version: &'static SupportedProtocolVersion,
    certificate: Option<&Certificate>,
) -> Arc<ClientConfig> {
    let mut client = client_of(root, &[version]);
    if let Some(certificate) = certificate {
        client.client_auth_cert_resolver =
            Arc::new(SingleCertAndKey::from(certificate.certified_key().unwrap()));
    }
    Arc::new(client)
}

#[test]
fn clients_prove_who_they_are() {
    let (root, clients) = (Mint::root("root"), Mint::root("clients"));
    let known = clients.below("between").pair(&["client.test"]).read();
    let unknown = Mint::root("others").pair(&["client.test"]).read();
    for version in BOTH {
        for (mode, certificate, is_let_in) in [
            (ClientAuthMode::Require, Some(&known), true),
            (ClientAuthMode::Require, Some(&unknown), false),
            (ClientAuthMode::Require, None, false),
            (ClientAuthMode::Optional, Some(&known), true),
            (ClientAuthMode::Optional, Some(&unknown), false),
            (ClientAuthMode::Optional, None, true),
        ] {
            let server = config(&with_auth(&root, &clients, mode));
            let client = client_showing(&root, version, certificate);
            let shaken = shake(&client, &server, &name("a.test"));
            assert_eq!(shaken.is_ok(), is_let_in, "{mode:?}, {certificate:?}");
            let Ok(shaken) = shaken else { continue };
            let shown = shaken.server.peer_certificates().map(|chain| Facts::parse(&chain[0]).unwrap());
            assert_eq!(shown.as_ref(), certificate.map(Certificate::facts));
            // And a resumed session remembers it.
            let again = shake(&client, &server, &name("a.test")).unwrap();
            assert!(again.is_resumed());
            assert_eq!(again.server.peer_certificates(), shaken.server.peer_certificates());
        }
        // A listener that does not ask does not get.
        let server = config(&listener(&[&root.pair(&["a.test"])]));
        let client = client_showing(&root, version, Some(&known));
        assert_eq!(shake(&client, &server, &name("a.test")).unwrap().server.peer_certificates(), None);
    }
}

/// Who resumes is not asked again, so a ticket from a listener that asks for less must not be good for one that asks for
/// more.
#[test]
fn a_ticket_is_no_way_round_a_client_certificate() {
    let (root, clients, others) = (Mint::root("root"), Mint::root("clients"), Mint::root("others"));
    let keys = TicketKeys::generate().unwrap();
    let pair = root.pair(&["a.test"]);
    let open = listener(&[&pair]).config(&keys).unwrap();
    let strict = with_auth(&root, &clients, ClientAuthMode::Require).config(&keys).unwrap();
    let lenient = with_auth(&root, &clients, ClientAuthMode::Optional).config(&keys).unwrap();
    let foreign = with_auth(&root, &others, ClientAuthMode::Require).config(&keys).unwrap();
    let foreigner = others.pair(&["client.test"]).read();
    for version in BOTH {
        for (server, certificate) in [(&open, None), (&lenient, None), (&foreign, Some(&foreigner))] {
            let client = client_showing(&root, version, certificate);
            shake(&client, server, &name("a.test")).unwrap();
            assert!(shake(&client, &strict, &name("a.test")).is_err());
        }
    }
}

#[test]
fn nothing_is_sent_ahead_of_a_handshake() {
    let root = Mint::root("root");
    let server = config(&listener(&[&root.pair(&["a.test"])]));
    let mut client = client_of(&root, &[&TLS13]);
    client.enable_early_data = true;
    let client = Arc::new(client);
    shake(&client, &server, &name("a.test")).unwrap();
    let mut again = ClientConnection::new(Arc::clone(&client), name("a.test")).unwrap();
    assert!(again.early_data().is_none());
}
