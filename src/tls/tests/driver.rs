//! The driver of handshakes: fed in pieces, with too much, with what is no TLS, and what it says when it fails.

use std::sync::Arc;

use proptest::{prelude::*, sample::Index};
use rustls::{
    AlertDescription, ClientConfig, ClientConnection, ServerConfig, ServerConnection, version::TLS13,
};

use super::{
    handshakes::name,
    mint::Mint,
    records::{DATA, HANDSHAKE},
    talk::{client, heard, our_client, our_server, said, server, spoken, suites},
};
use crate::{
    config::types::{ClientAuthMode, TlsVersion},
    tls::{
        ClientAuthority, HandshakeError, ServerTls, TicketKeys,
        rehearsal::{End, Shaking},
    },
};

/// Shakes hands with rustls' client, whose flights come cut by `cut`; a request comes with the last one, where the version
/// allows that.
fn serve(
    client: &Arc<ClientConfig>,
    server: &Arc<ServerConfig>,
    mut cut: impl FnMut(&[u8]) -> Vec<Vec<u8>>,
) -> (ClientConnection, End) {
    const REQUEST: &[u8] = &[b'r'; 20_000];
    let mut peer = ClientConnection::new(Arc::clone(client), name("a.test")).unwrap();
    let mut ours = Shaking::server(Arc::clone(server)).unwrap();
    let mut has_asked = false;
    let mut behind = Vec::new();
    let mut is_done = false;
    loop {
        let mut wire = said(&mut peer);
        if !peer.is_handshaking() && !has_asked {
            has_asked = true;
            wire.extend(spoken(&mut peer, REQUEST));
        }
        for piece in cut(&wire) {
            if is_done {
                behind.extend(piece);
            } else {
                is_done = ours.hear(&piece).unwrap();
            }
        }
        heard(&mut peer, &ours.take_flight()).unwrap();
        if is_done && has_asked && !peer.wants_write() {
            let mut end = ours.finish().unwrap();
            assert_eq!([end.hear(b""), end.hear(&behind)].concat(), REQUEST);
            return (peer, end);
        }
    }
}

#[test]
fn a_handshake_may_come_byte_by_byte() {
    let root = Mint::root("root");
    let ours = our_server(&root);
    for (suite, version) in [suites()[0], suites()[3]] {
        let client = client(&root, suite, version);
        let bytes = |wire: &[u8]| wire.chunks(1).map(Vec::from).collect();
        let (mut peer, mut end) = serve(&client, &ours, bytes);
        assert_eq!(heard(&mut peer, &end.record(DATA, b"hello").unwrap()).unwrap(), b"hello");
        serve(&client, &ours, |wire| vec![wire.to_vec()]);

        let ours = our_client(&root);
        let mut peer = ServerConnection::new(server(&root, suite, version)).unwrap();
        let mut shaking = Shaking::client(ours, name("a.test")).unwrap();
        let mut is_done = shaking.hear(b"").unwrap();
        while !is_done {
            heard(&mut peer, &shaking.take_flight()).unwrap();
            for byte in said(&mut peer) {
                assert!(!is_done);
                is_done = shaking.hear(&[byte]).unwrap();
            }
        }
        heard(&mut peer, &shaking.take_flight()).unwrap();
        let mut end = shaking.finish().unwrap();
        let wire = [said(&mut peer), spoken(&mut peer, b"hello")].concat();
        let plaintext: Vec<u8> = wire.chunks(1).flat_map(|byte| end.hear(byte)).collect();
        assert_eq!(plaintext, b"hello");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn a_handshake_may_come_in_pieces(cuts in prop::collection::vec(any::<Index>(), 0..8), is_tls13 in any::<bool>()) {
        let root = Mint::root("root");
        let (suite, version) = suites()[if is_tls13 { 0 } else { 3 }];
        serve(&client(&root, suite, version), &our_server(&root), |wire| {
            let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut.index(wire.len() + 1)).collect();
            cuts.sort_unstable();
            let mut pieces = Vec::new();
            let mut from = 0;
            for cut in cuts.into_iter().chain([wire.len()]) {
                pieces.push(wire[from..cut].to_vec());
                from = cut;
            }
            pieces
        });
    }

    #[test]
    fn arbitrary_bytes_are_no_handshake(wire in prop::collection::vec(any::<u8>(), 0..300), is_framed in any::<bool>()) {
        let root = Mint::root("root");
        let mut shaking = Shaking::server(our_server(&root)).unwrap();
        let header = [HANDSHAKE, 3, 1, (wire.len() >> 8) as u8, wire.len() as u8];
        let wire = if is_framed { [&header[..], &wire].concat() } else { wire };
        prop_assert!(!shaking.hear(&wire).unwrap_or(false));
    }
}

fn server_shaking(root: &Mint) -> Shaking {
    Shaking::server(our_server(root)).unwrap()
}

/// The alert that a flight consists of, in the clear.
fn alert(flight: &[u8]) -> AlertDescription {
    match *flight {
        [21, 3, _, 0, 2, 2, description] => description.into(),
        _ => panic!("{flight:?}"),
    }
}

#[test]
fn a_request_without_tls_is_known_as_such() {
    let root = Mint::root("root");
    for cut in 0..5 {
        let mut shaking = server_shaking(&root);
        let request = b"GET / HTTP/1.1\r\n\r\n";
        assert!(!shaking.hear(&request[..cut]).unwrap());
        assert!(matches!(shaking.hear(&request[cut..]), Err(HandshakeError::PlainHttp)));
        assert_eq!(shaking.take_flight(), b"");
    }
    // What begins in lower case is nothing that is known.
    let mut shaking = server_shaking(&root);
    assert!(matches!(shaking.hear(b"get / http"), Err(HandshakeError::Tls(_))));
    // Nor is it a request when a record came before it.
    let mut shaking = server_shaking(&root);
    let (suite, version) = suites()[0];
    let mut peer = ClientConnection::new(client(&root, suite, version), name("a.test")).unwrap();
    assert!(!shaking.hear(&said(&mut peer)).unwrap());
    assert!(matches!(shaking.hear(b"GET / HTTP/1.1\r\n"), Err(HandshakeError::Tls(_))));
}

#[test]
fn what_is_no_record_is_refused_and_not_waited_for() {
    let root = Mint::root("root");
    // Types and versions that TLS has not; rustls knows of the last two.
    for header in [[19, 3, 3, 0, 9], [99, 3, 3, 0, 9], [22, 9, 3, 0, 9], [24, 3, 3, 0, 9], [22, 2, 0, 0, 9]] {
        let mut shaking = server_shaking(&root);
        assert!(shaking.hear(&header).is_err(), "{header:?}");
    }
    let mut shaking = server_shaking(&root);
    assert!(matches!(shaking.hear(&[22, 3, 3, 0x41, 0x01]), Err(HandshakeError::TooLong)));
    // A record with nothing in it, and data before there are keys.
    for record in [&[22, 3, 3, 0, 0][..], &[DATA, 3, 3, 0, 1, 1]] {
        let mut shaking = server_shaking(&root);
        assert!(matches!(shaking.hear(record), Err(HandshakeError::Tls(_))));
        alert(&shaking.take_flight());
    }
}

#[test]
fn a_handshake_that_does_not_end_is_given_up() {
    let root = Mint::root("root");
    // A hello in pieces, as long as a message may be.
    let mut shaking = server_shaking(&root);
    let mut piece = vec![HANDSHAKE, 3, 3, 0, 104, 1, 0, 0xff, 0xff];
    piece.resize(5 + 104, 0);
    let mut sent = 0;
    while shaking.hear(&piece).is_ok() {
        sent += piece.len();
        assert!(sent < 256 * 1024);
        piece[5] = 0;
    }
    // And pieces of a record.
    let mut shaking = server_shaking(&root);
    assert!(shaking.hear(&[HANDSHAKE, 3, 3, 0x40, 0]).is_ok());
    assert!(matches!(shaking.hear(&vec![0; 129 * 1024]), Err(HandshakeError::TooLong)));
}

#[test]
fn the_peer_is_told_why() {
    let root = Mint::root("root");
    let (suite, version) = suites()[3];
    // No version in common.
    let strict = ServerTls::new(vec![root.pair(&["a.test"]).read()], TlsVersion::Tls13, None).unwrap();
    let strict = strict.config(&TicketKeys::generate().unwrap()).unwrap();
    let mut peer = ClientConnection::new(client(&root, suite, version), name("a.test")).unwrap();
    let mut shaking = Shaking::server(strict).unwrap();
    assert!(shaking.hear(&said(&mut peer)).is_err());
    assert_eq!(alert(&shaking.take_flight()), AlertDescription::ProtocolVersion);

    // A certificate of someone whom the client does not know: the server hears so, and the client says it.
    let others = Mint::root("others");
    for (suite, version) in [suites()[0], suites()[3]] {
        let mut peer = ClientConnection::new(client(&others, suite, version), name("a.test")).unwrap();
        let mut shaking = server_shaking(&root);
        assert!(!shaking.hear(&said(&mut peer)).unwrap());
        heard(&mut peer, &shaking.take_flight()).unwrap_err();
        let refusal = shaking.hear(&said(&mut peer)).unwrap_err();
        assert!(
            matches!(refusal, HandshakeError::Tls(rustls::Error::AlertReceived(AlertDescription::UnknownCA))),
            "{refusal}"
        );
        let mut peer = ServerConnection::new(server(&others, suite, version)).unwrap();
        let mut shaking = Shaking::client(our_client(&root), name("a.test")).unwrap();
        assert!(!shaking.hear(b"").unwrap());
        heard(&mut peer, &shaking.take_flight()).unwrap();
        let refusal = shaking.hear(&said(&mut peer)).unwrap_err();
        assert!(matches!(refusal, HandshakeError::Tls(rustls::Error::InvalidCertificate(_))), "{refusal}");
        let told = heard(&mut peer, &shaking.take_flight()).unwrap_err();
        assert_eq!(told, rustls::Error::AlertReceived(AlertDescription::UnknownCA));
    }
}

/// With TLS 1.3 the client has come to its end of the handshake when it hears that it should have shown a certificate.
#[test]
fn a_client_without_a_certificate_is_told_that_it_needs_one() {
    let root = Mint::root("root");
    let auth = ClientAuthority { authorities: root.authorities(), mode: ClientAuthMode::Require };
    let strict = ServerTls::new(vec![root.pair(&["a.test"]).read()], TlsVersion::Tls12, Some(auth)).unwrap();
    let strict = strict.config(&TicketKeys::generate().unwrap()).unwrap();
    for (suite, version) in suites() {
        let mut peer = ClientConnection::new(client(&root, suite, version), name("a.test")).unwrap();
        let mut shaking = Shaking::server(Arc::clone(&strict)).unwrap();
        assert!(!shaking.hear(&said(&mut peer)).unwrap());
        heard(&mut peer, &shaking.take_flight()).unwrap();
        let mut wire = said(&mut peer);
        assert_eq!(peer.is_handshaking(), version != &TLS13);
        if !peer.is_handshaking() {
            wire.extend(spoken(&mut peer, b"a request"));
        }
        assert!(shaking.hear(&wire).is_err());
        let told = heard(&mut peer, &shaking.take_flight()).unwrap_err();
        assert_eq!(told, rustls::Error::AlertReceived(AlertDescription::CertificateRequired));
    }
}

#[test]
fn nothing_under_the_new_keys_may_begin_in_the_last_message() {
    // The end of a handshake is the end of a record too: what follows is under other keys.
    let root = Mint::root("root");
    let (suite, version) = suites()[0];
    let mut peer = ClientConnection::new(client(&root, suite, version), name("a.test")).unwrap();
    let mut shaking = server_shaking(&root);
    let hello = said(&mut peer);
    // The hello with another message begun behind it in the same record.
    let length = hello.len() - 5 + 2;
    let longer = [&[22, 3, 1, (length >> 8) as u8, length as u8][..], &hello[5..], &[1, 0]].concat();
    assert!(shaking.hear(&longer).is_err());
    assert_eq!(alert(&shaking.take_flight()), AlertDescription::UnexpectedMessage);
}
