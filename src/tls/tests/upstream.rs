//! Handshakes in memory towards endpoints: a cluster's configuration against rustls' own server.

use std::{net::SocketAddr, sync::Arc};

use rcgen::{CertificateParams, PKCS_ECDSA_P256_SHA256, date_time_ymd};
use rustls::{
    CertificateError, HandshakeKind, NamedGroup, ServerConfig, crypto::aws_lc_rs::default_provider,
    server::WebPkiClientVerifier, sign::SingleCertAndKey,
};

use super::{
    handshakes::{Shaken, name, shake},
    mint::{Mint, Pair, key},
};
use crate::tls::{ClientTls, Trust};

const ENDPOINTS: [&str; 2] = ["10.0.0.1:443", "[::1]:443"];

fn endpoints() -> [SocketAddr; 2] {
    ENDPOINTS.map(|endpoint| endpoint.parse().unwrap())
}

fn server(pair: &Pair) -> Arc<ServerConfig> {
    let config = ServerConfig::builder_with_provider(Arc::new(default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(SingleCertAndKey::from(pair.read().certified_key().unwrap())));
    Arc::new(config)
}

fn trusting(root: &Mint) -> Trust {
    Trust::Authorities(Arc::clone(root.authorities().roots()))
}

fn connect(client: &ClientTls, endpoint: usize, server: &Arc<ServerConfig>) -> Result<Shaken, rustls::Error> {
    shake(&client.config().unwrap(), server, client.server_name(endpoint).unwrap())
}

#[test]
fn an_endpoint_is_known_by_its_name_or_its_address() {
    let root = Mint::root("root");
    let named = ClientTls::new(trusting(&root), None, Some(name("a.test")), &endpoints()).unwrap();
    let shaken = connect(&named, 0, &server(&root.below("between").pair(&["a.test"]))).unwrap();
    assert_eq!(shaken.server.server_name(), Some("a.test"));
    let group = shaken.client.negotiated_key_exchange_group().unwrap();
    assert_eq!(group.name(), NamedGroup::X25519MLKEM768);
    assert!(named.server_name(2).is_none());

    let by_address = ClientTls::new(trusting(&root), None, None, &endpoints()).unwrap();
    let server = server(&root.pair(&["10.0.0.1"]));
    let shaken = connect(&by_address, 0, &server).unwrap();
    assert_eq!(shaken.server.server_name(), None, "an address is not asked for");
    assert!(connect(&by_address, 1, &server).is_err());
}

#[test]
fn who_cannot_prove_it_is_refused() {
    let root = Mint::root("root");
    let client = ClientTls::new(trusting(&root), None, Some(name("a.test")), &endpoints()).unwrap();
    let error = |pair: &Pair| match connect(&client, 0, &server(pair)) {
        Err(rustls::Error::InvalidCertificate(error)) => error,
        Err(error) => panic!("{error}"),
        Ok(_) => panic!("it was believed"),
    };
    let expired = |params: &mut CertificateParams| params.not_after = date_time_ymd(2001, 1, 1);
    assert!(matches!(error(&root.pair(&["b.test"])), CertificateError::NotValidForNameContext { .. }));
    assert_eq!(error(&Mint::root("other").pair(&["a.test"])), CertificateError::UnknownIssuer);
    assert!(matches!(
        error(&root.pair_of(&["a.test"], &key(&PKCS_ECDSA_P256_SHA256), expired)),
        CertificateError::ExpiredContext { .. }
    ));
    // Unless it is wanted so.
    let client = ClientTls::new(Trust::Anyone, None, Some(name("a.test")), &endpoints()).unwrap();
    for pair in [
        root.pair(&["b.test"]),
        Mint::root("other").rsa(&["a.test"]),
        root.pair_of(&["a.test"], &key(&PKCS_ECDSA_P256_SHA256), expired),
    ] {
        connect(&client, 0, &server(&pair)).unwrap();
    }
}

#[test]
fn sessions_with_endpoints_are_resumed_on_their_core() {
    let root = Mint::root("root");
    let client = ClientTls::new(trusting(&root), None, Some(name("a.test")), &endpoints()).unwrap();
    let server = server(&root.pair(&["a.test"]));
    let (one, other) = (client.config().unwrap(), client.config().unwrap());
    let kind = |config| shake(config, &server, &name("a.test")).unwrap().client.handshake_kind().unwrap();
    assert_eq!(kind(&one), HandshakeKind::Full);
    assert_eq!(kind(&one), HandshakeKind::Resumed);
    assert_eq!(kind(&other), HandshakeKind::Full);
}

#[test]
fn the_gateway_shows_its_certificate_to_those_who_ask() {
    let root = Mint::root("root");
    let provider = Arc::new(default_provider());
    let roots = Arc::clone(root.authorities().roots());
    let pair = root.pair(&["a.test"]);
    let asking = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_client_cert_verifier(
            WebPkiClientVerifier::builder_with_provider(roots, provider).build().unwrap(),
        )
        .with_cert_resolver(Arc::new(SingleCertAndKey::from(pair.read().certified_key().unwrap())));
    let asking = Arc::new(asking);
    let client = |certificate| {
        ClientTls::new(trusting(&root), certificate, Some(name("a.test")), &endpoints()).unwrap()
    };
    let shaken = connect(&client(Some(root.pair(&["gateway.test"]).read())), 0, &asking).unwrap();
    assert_eq!(shaken.server.peer_certificates().map(<[_]>::len), Some(1));
    assert!(connect(&client(None), 0, &asking).is_err());
}
