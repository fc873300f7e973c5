//! Our end of a connection against rustls' other side, in memory.

use std::{
    io::{Read, Write},
    sync::Arc,
};

use rustls::{
    ClientConfig, ClientConnection, ConnectionCommon, ServerConfig, ServerConnection, SideData,
    SupportedCipherSuite, SupportedProtocolVersion,
    crypto::{
        CryptoProvider,
        aws_lc_rs::{cipher_suite, default_provider},
    },
    sign::SingleCertAndKey,
    version::{TLS12, TLS13},
};

use super::{handshakes::name, mint::Mint};
use crate::{
    config::types::TlsVersion,
    tls::{
        ClientTls, ServerTls, TicketKeys, Trust,
        rehearsal::{End, Shaking},
    },
};

/// Every way to protect records, with its version. Suites that differ in the signature alone are not repeated.
pub(super) fn suites() -> [(SupportedCipherSuite, &'static SupportedProtocolVersion); 6] {
    [
        (cipher_suite::TLS13_AES_128_GCM_SHA256, &TLS13),
        (cipher_suite::TLS13_AES_256_GCM_SHA384, &TLS13),
        (cipher_suite::TLS13_CHACHA20_POLY1305_SHA256, &TLS13),
        (cipher_suite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256, &TLS12),
        (cipher_suite::TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384, &TLS12),
        (cipher_suite::TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256, &TLS12),
    ]
}

fn provider(suite: SupportedCipherSuite) -> Arc<CryptoProvider> {
    Arc::new(CryptoProvider { cipher_suites: vec![suite], ..default_provider() })
}

/// rustls' client, which speaks with this suite only.
pub(super) fn client(
    root: &Mint,
    suite: SupportedCipherSuite,
    version: &'static SupportedProtocolVersion,
) -> Arc<ClientConfig> {
    let config = ClientConfig::builder_with_provider(provider(suite))
        .with_protocol_versions(&[version])
        .unwrap()
        .with_root_certificates(Arc::clone(root.authorities().roots()))
        .with_no_client_auth();
    Arc::new(config)
}

/// rustls' server, the same.
pub(super) fn server(
    root: &Mint,
    suite: SupportedCipherSuite,
    version: &'static SupportedProtocolVersion,
) -> Arc<ServerConfig> {
    let key = root.pair(&["a.test"]).read().certified_key().unwrap();
    let config = ServerConfig::builder_with_provider(provider(suite))
        .with_protocol_versions(&[version])
        .unwrap()
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(SingleCertAndKey::from(key)));
    Arc::new(config)
}

/// Our server.
pub(super) fn our_server(root: &Mint) -> Arc<ServerConfig> {
    let server = ServerTls::new(vec![root.pair(&["a.test"]).read()], TlsVersion::Tls12, None).unwrap();
    server.config(&TicketKeys::generate().unwrap()).unwrap()
}

/// Our client.
pub(super) fn our_client(root: &Mint) -> Arc<ClientConfig> {
    let trust = Trust::Authorities(Arc::clone(root.authorities().roots()));
    ClientTls::new(trust, None, Some(name("a.test")), &[]).unwrap().config().unwrap()
}

/// All that it has to say.
pub(super) fn said<D: SideData>(peer: &mut ConnectionCommon<D>) -> Vec<u8> {
    let mut wire = Vec::new();
    while peer.wants_write() {
        peer.write_tls(&mut wire).unwrap();
    }
    wire
}

/// What it reads from these bytes; the error is its own.
pub(super) fn heard<D: SideData>(
    peer: &mut ConnectionCommon<D>,
    mut wire: &[u8],
) -> Result<Vec<u8>, rustls::Error> {
    let mut plaintext = Vec::new();
    while !wire.is_empty() {
        // A closed connection reads no more.
        if peer.read_tls(&mut wire).unwrap() == 0 {
            break;
        }
        let waiting = peer.process_new_packets()?.plaintext_bytes_to_read();
        let mut bytes = vec![0; waiting];
        peer.reader().read_exact(&mut bytes).unwrap();
        plaintext.extend(bytes);
    }
    Ok(plaintext)
}

/// The records of these bytes.
pub(super) fn spoken<D: SideData>(peer: &mut ConnectionCommon<D>, plaintext: &[u8]) -> Vec<u8> {
    peer.set_buffer_limit(None);
    peer.writer().write_all(plaintext).unwrap();
    said(peer)
}

/// rustls' client and our server.
pub(super) fn with_client(client: &Arc<ClientConfig>, server: &Arc<ServerConfig>) -> (ClientConnection, End) {
    let mut peer = ClientConnection::new(Arc::clone(client), name("a.test")).unwrap();
    let mut ours = Shaking::server(Arc::clone(server)).unwrap();
    loop {
        let is_done = ours.hear(&said(&mut peer)).unwrap();
        heard(&mut peer, &ours.take_flight()).unwrap();
        if is_done && !peer.wants_write() {
            assert!(!peer.is_handshaking());
            return (peer, ours.finish().unwrap());
        }
    }
}

/// rustls' server and our client.
pub(super) fn with_server(client: &Arc<ClientConfig>, server: &Arc<ServerConfig>) -> (ServerConnection, End) {
    let mut peer = ServerConnection::new(Arc::clone(server)).unwrap();
    let mut ours = Shaking::client(Arc::clone(client), name("a.test")).unwrap();
    loop {
        let is_done = ours.hear(&said(&mut peer)).unwrap();
        heard(&mut peer, &ours.take_flight()).unwrap();
        if is_done {
            assert!(!peer.is_handshaking());
            let mut end = ours.finish().unwrap();
            // Tickets.
            assert_eq!(end.hear(&said(&mut peer)), b"");
            return (peer, end);
        }
    }
}
