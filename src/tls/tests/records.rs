//! Records: ours against rustls' for every suite, and everything that is wrong with one.

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use proptest::prelude::*;
use rustls::{
    AlertDescription, ConnectionCommon, ConnectionTrafficSecrets, ContentType, ProtocolVersion, SideData,
    version::TLS13,
};

use super::{
    mint::Mint,
    talk::{client, heard, our_client, our_server, said, server, spoken, suites, with_client, with_server},
};
use crate::{
    buf::{Buf, Size},
    tls::{
        inbound::{Direction, Inbound, Role, Secrets, State},
        record::{PLAINTEXT_BYTES_MAX, Protection, RecordError, record_len},
        rehearsal::{CIPHERS, End},
        send::Outbound,
    },
};

pub(super) const ALERT: u8 = 21;
pub(super) const HANDSHAKE: u8 = 22;
pub(super) const DATA: u8 = 23;

fn bytes(length: usize) -> Vec<u8> {
    (0..length).map(|place| (place % 251) as u8).collect()
}

fn talk<D: SideData>(peer: &mut ConnectionCommon<D>, end: &mut End) {
    for length in [0, 1, 100, PLAINTEXT_BYTES_MAX - 1, PLAINTEXT_BYTES_MAX] {
        let plaintext = bytes(length);
        assert_eq!(end.hear(&spoken(peer, &plaintext)), plaintext, "{length}");
        assert_eq!(heard(peer, &end.record(DATA, &plaintext).unwrap()).unwrap(), plaintext, "{length}");
    }
    for (length, is_streaming) in [(20_000, false), (20_000, true), (60_000, false), (300_000, true)] {
        end.is_streaming = is_streaming;
        let plaintext = bytes(length);
        assert_eq!(end.hear(&spoken(peer, &plaintext)), plaintext, "{length}, {is_streaming}");
    }
    let plaintext = bytes(60_000);
    assert_eq!(heard(peer, &end.records(&plaintext, false).unwrap()).unwrap(), plaintext);
    assert_eq!(end.ending(), None);
    peer.send_close_notify();
    assert_eq!(end.hear(&said(peer)), b"");
    assert_eq!(end.ending(), Some(Ok(())));
    heard(peer, &end.record(ALERT, &[1, 0]).unwrap()).unwrap();
    assert!(peer.process_new_packets().unwrap().peer_has_closed());
}

#[test]
fn rustls_understands_us_and_we_understand_rustls() {
    let root = Mint::root("root");
    for (suite, version) in suites() {
        let (mut peer, mut end) = with_client(&client(&root, suite, version), &our_server(&root));
        assert_eq!(peer.negotiated_cipher_suite(), Some(suite));
        talk(&mut peer, &mut end);
        let (mut peer, mut end) = with_server(&our_client(&root), &server(&root, suite, version));
        assert_eq!(peer.negotiated_cipher_suite(), Some(suite));
        talk(&mut peer, &mut end);
    }
}

#[test]
fn keys_are_renewed_by_either_side() {
    fn renew<D: SideData>(
        peer: &mut ConnectionCommon<D>,
        end: &mut End,
        refresh: impl Fn(&mut ConnectionCommon<D>),
    ) {
        for round in 0..3 {
            refresh(peer);
            let wire = [said(peer), spoken(peer, b"under new keys")].concat();
            assert_eq!(end.hear(&wire), b"under new keys", "{round}");
            assert!(end.take_wants_update() && !end.take_wants_update());
            let plaintext = bytes(60_000);
            assert_eq!(heard(peer, &end.records(&plaintext, true).unwrap()).unwrap(), plaintext);
            assert_eq!(heard(peer, &end.record(DATA, b"more").unwrap()).unwrap(), b"more");
            // Without having been asked.
            assert_eq!(heard(peer, &end.records(b"again", true).unwrap()).unwrap(), b"again");
            assert_eq!(end.hear(&spoken(peer, b"and back")), b"and back");
        }
    }
    let root = Mint::root("root");
    for (suite, version) in suites().into_iter().filter(|(_, version)| *version == &TLS13) {
        let (mut peer, mut end) = with_client(&client(&root, suite, version), &our_server(&root));
        renew(&mut peer, &mut end, |peer| peer.refresh_traffic_keys().unwrap());
        let (mut peer, mut end) = with_server(&our_client(&root), &server(&root, suite, version));
        renew(&mut peer, &mut end, |peer| peer.refresh_traffic_keys().unwrap());
    }
}

/// Both ends of a connection with keys that were made.
pub(super) fn ends(cipher: usize) -> (End, End) {
    (End::made(cipher, true).unwrap(), End::made(cipher, false).unwrap())
}

fn complains(end: &End, alert: AlertDescription) {
    assert_eq!(end.complaint().map(AlertDescription::from), Some(alert));
}

#[test]
fn a_record_in_which_a_bit_was_changed_is_refused() {
    for cipher in 0..CIPHERS {
        let wire = ends(cipher).0.record(DATA, b"hello").unwrap();
        for bit in 0..wire.len() * 8 {
            let (_, mut end) = ends(cipher);
            let mut changed = wire.clone();
            changed[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(end.hear(&changed), b"", "cipher {cipher}, bit {bit}");
            // One that seems longer is waited for.
            let is_longer = record_len(&changed).is_ok_and(|length| length > Some(changed.len()));
            assert_eq!(end.ending().is_none(), is_longer, "cipher {cipher}, bit {bit}");
        }
    }
}

#[test]
fn records_that_are_replayed_reordered_or_left_out_are_refused() {
    for cipher in 0..CIPHERS {
        let (mut peer, _) = ends(cipher);
        let wire: Vec<Vec<u8>> = (0..4u8).map(|n| peer.record(DATA, &[n; 10]).unwrap()).collect();
        for (order, good) in [(vec![0, 0], 1), (vec![0, 2, 1], 1), (vec![1, 0], 0), (vec![0, 1, 3], 2)] {
            let (_, mut end) = ends(cipher);
            let sent: Vec<u8> = order.iter().flat_map(|at| wire[*at].clone()).collect();
            // What came before it is good whether or not it comes in one buffer with it.
            let expected: Vec<u8> = (0..good as u8).flat_map(|n| [n; 10]).collect();
            assert_eq!(end.hear(&sent), expected, "cipher {cipher}, {order:?}");
            complains(&end, AlertDescription::BadRecordMac);
            assert_eq!(end.hear(&wire[good]), b"", "nothing is understood any more");
        }
    }
}

#[test]
fn a_record_of_the_other_direction_is_refused() {
    for cipher in 0..CIPHERS {
        let (mut peer, mut end) = ends(cipher);
        let own = end.record(DATA, b"reflected").unwrap();
        assert_eq!(end.hear(&own), b"");
        complains(&end, AlertDescription::BadRecordMac);
        assert_eq!(peer.hear(&own), b"reflected");
    }
}

#[test]
fn what_is_cut_is_not_the_end() {
    for cipher in 0..CIPHERS {
        let (mut peer, _) = ends(cipher);
        let wire = [peer.record(DATA, b"hello").unwrap(), peer.record(ALERT, &[1, 0]).unwrap()].concat();
        for cut in 0..wire.len() {
            let (_, mut end) = ends(cipher);
            end.hear(&wire[..cut]);
            end.hang_up();
            assert_eq!(end.ending(), Some(Err(std::io::ErrorKind::UnexpectedEof)), "cut at {cut}");
            assert_eq!(end.complaint(), None);
        }
        let (_, mut end) = ends(cipher);
        assert_eq!(end.hear(&wire), b"hello");
        end.hang_up();
        assert_eq!(end.ending(), Some(Ok(())));
    }
}

#[test]
fn lengths_have_limits() {
    for cipher in 0..CIPHERS {
        let (mut peer, mut end) = ends(cipher);
        assert_eq!(peer.record(DATA, &bytes(PLAINTEXT_BYTES_MAX + 1)), None);
        let most = bytes(PLAINTEXT_BYTES_MAX);
        assert_eq!(end.hear(&peer.record(DATA, &most).unwrap()), most);
        // 2^14 and 256 (RFC 8446 §5.2).
        end.hear(&[DATA, 3, 3, 0x41, 0x00]);
        assert_eq!(end.ending(), None);
        let (_, mut end) = ends(cipher);
        end.hear(&[DATA, 3, 3, 0x41, 0x01]);
        complains(&end, AlertDescription::RecordOverflow);
        // Too short for what is around a plaintext.
        for length in 0..24 {
            let (_, mut end) = ends(cipher);
            end.hear(&[&[DATA, 3, 3, 0, length][..], &vec![0; length.into()]].concat());
            complains(&end, AlertDescription::BadRecordMac);
        }
        for header in [[19, 3, 3], [24, 3, 3], [DATA, 2, 3], *b"GET"] {
            let (_, mut end) = ends(cipher);
            end.hear(&[&header[..], &[0, 0]].concat());
            complains(&end, AlertDescription::UnexpectedMessage);
        }
    }
}

/// A record of TLS 1.3, from a client to an [`End`] of the first cipher, with this around it whatever that is.
fn sealed_by_hand(inner: &[u8]) -> Vec<u8> {
    let key = LessSafeKey::new(UnboundKey::new(&AES_256_GCM, &[0x80; 32]).unwrap());
    let [high, low] = ((inner.len() + 16) as u16).to_be_bytes();
    let header = [DATA, 3, 3, high, low];
    let mut sealed = inner.to_vec();
    let nonce = Nonce::assume_unique_for_key([0; 12]);
    key.seal_in_place_append_tag(nonce, Aad::from(header), &mut sealed).unwrap();
    [&header[..], &sealed].concat()
}

#[test]
fn padding_is_taken_off_and_counts() {
    let padded = |length: usize, padding: usize| [&vec![7; length][..], &[DATA], &vec![0; padding]].concat();
    for (length, padding) in [(5, 0), (5, 1), (0, 100), (100, PLAINTEXT_BYTES_MAX - 100)] {
        let (mut peer, mut end) = ends(0);
        assert_eq!(end.hear(&sealed_by_hand(&padded(length, padding))), vec![7; length]);
        assert_eq!(end.ending(), None);
        let (_, mut end) = ends(0);
        assert_eq!(end.hear(&peer.padded(DATA, &vec![7; length], padding).unwrap()), vec![7; length]);
    }
    let (_, mut end) = ends(0);
    end.hear(&sealed_by_hand(&padded(100, PLAINTEXT_BYTES_MAX - 99)));
    complains(&end, AlertDescription::RecordOverflow);
    // Nothing but padding has no type.
    for zeros in [0, 1, 100] {
        let (_, mut end) = ends(0);
        end.hear(&sealed_by_hand(&vec![0; zeros]));
        complains(&end, AlertDescription::UnexpectedMessage);
    }
}

#[test]
fn what_is_no_application_data_is_judged() {
    use AlertDescription as Alert;
    let key_update = [24, 0, 0, 1, 0];
    let cases: [(u8, &[u8], Option<Alert>); 14] = [
        (ALERT, &[1, 0, 0], Some(Alert::DecodeError)),
        (ALERT, &[], Some(Alert::UnexpectedMessage)),
        (ALERT, &[1, 90], None),
        (HANDSHAKE, &[], Some(Alert::UnexpectedMessage)),
        (HANDSHAKE, &key_update, None),
        (HANDSHAKE, &[24, 0, 0, 1, 2], Some(Alert::IllegalParameter)),
        (HANDSHAKE, &[24, 0, 0, 0], Some(Alert::DecodeError)),
        (HANDSHAKE, &[24, 0, 0, 2, 0, 0], Some(Alert::DecodeError)),
        (HANDSHAKE, &[24, 0, 0, 1, 0, 24], Some(Alert::UnexpectedMessage)),
        // A certificate's request, and a hello.
        (HANDSHAKE, &[13, 0, 0, 1, 0], Some(Alert::UnexpectedMessage)),
        (HANDSHAKE, &[1, 0, 0, 1, 0], Some(Alert::UnexpectedMessage)),
        (20, &[1], Some(Alert::UnexpectedMessage)),
        (24, &[1], Some(Alert::UnexpectedMessage)),
        (99, &[1], Some(Alert::UnexpectedMessage)),
    ];
    for (kind, content, expected) in cases {
        let (mut peer, mut end) = ends(0);
        assert_eq!(end.hear(&peer.record(kind, content).unwrap()), b"");
        assert_eq!(end.complaint().map(Alert::from), expected, "{kind}, {content:?}");
        assert_eq!(end.ending().is_some(), expected.is_some());
    }
    // TLS 1.2 renegotiates no keys, and has warnings.
    let cases: [(u8, &[u8], bool); 4] = [
        (HANDSHAKE, &[0, 0, 0, 0], true),
        (20, &[1], true),
        (ALERT, &[1, 100], false),
        (ALERT, &[1, 90], false),
    ];
    for (kind, content, is_refused) in cases {
        let (mut peer, mut end) = ends(2);
        end.hear(&peer.record(kind, content).unwrap());
        assert_eq!(end.ending().is_some(), is_refused, "{kind}, {content:?}");
    }
    for cipher in 0..CIPHERS {
        let (mut peer, mut end) = ends(cipher);
        end.hear(&peer.record(ALERT, &[2, 40]).unwrap());
        assert_eq!(end.ending(), Some(Err(std::io::ErrorKind::ConnectionReset)));
        assert_eq!(end.complaint(), None, "who complains is not complained to");
    }
}

#[test]
fn tickets_are_for_clients() {
    let ticket = [&[4, 0, 1, 0][..], &[9; 256]].concat();
    let (mut server, mut client) = (End::made(0, false).unwrap(), End::made(0, true).unwrap());
    client.hear(&server.record(HANDSHAKE, &ticket).unwrap());
    assert_eq!(client.ending(), None);
    // A server refuses one at its header: nothing of it is kept.
    let (mut peer, mut end) = ends(0);
    end.hear(&peer.record(HANDSHAKE, &ticket[..4]).unwrap());
    complains(&end, AlertDescription::UnexpectedMessage);
    // So does a client one that is longer than any.
    client.hear(&server.record(HANDSHAKE, &[4, 1, 0, 1]).unwrap());
    complains(&client, AlertDescription::DecodeError);
}

#[test]
fn nothing_comes_between_the_pieces_of_a_message() {
    let between: [(u8, &[u8]); 3] = [(DATA, b"between"), (DATA, b""), (ALERT, &[1, 90])];
    for (kind, content) in between {
        let (mut peer, mut end) = ends(0);
        end.hear(&peer.record(HANDSHAKE, &[24, 0]).unwrap());
        assert_eq!(end.ending(), None);
        assert_eq!(end.hear(&peer.record(kind, content).unwrap()), b"");
        complains(&end, AlertDescription::UnexpectedMessage);
    }
}

#[test]
fn who_sends_only_what_carries_nothing_is_refused() {
    type Nothing = fn(&mut End) -> Option<Vec<u8>>;
    let nothings: [Nothing; 4] = [
        |peer| peer.record(DATA, b""),
        |peer| peer.padded(DATA, b"", 16_000),
        |peer| peer.renew(true),
        |peer| peer.record(ALERT, &[1, 90]),
    ];
    for nothing in nothings {
        let (mut peer, mut end) = ends(0);
        let mut records = 0;
        while end.ending().is_none() {
            assert!(records < 100);
            end.hear(&nothing(&mut peer).unwrap());
            records += 1;
        }
        complains(&end, AlertDescription::UnexpectedMessage);
    }
    // Empty ones are not excused by a byte that came before them in the same buffer.
    let (mut peer, mut end) = ends(0);
    let mut wire = peer.record(DATA, b"x").unwrap();
    (0..100).for_each(|_| wire.extend(peer.record(DATA, b"").unwrap()));
    assert_eq!(end.hear(&wire), b"x");
    complains(&end, AlertDescription::UnexpectedMessage);
    // Those between others are harmless.
    let (mut peer, mut end) = ends(0);
    for _ in 0..100 {
        let wire = [peer.record(DATA, b"").unwrap(), peer.record(DATA, b"x").unwrap()].concat();
        assert_eq!(end.hear(&wire), b"x");
    }
}

/// Keys of which each bears so many records.
struct Weak {
    renewals: u8,
    sequence_max: u64,
}

impl Weak {
    fn next(&mut self, version: ProtocolVersion) -> Protection {
        let (key, iv) = ([self.renewals; 32].into(), [0; 12].into());
        self.renewals += 1;
        let secrets = ConnectionTrafficSecrets::Aes256Gcm { key, iv };
        Protection::new(version, (0, secrets), self.sequence_max).unwrap()
    }
}

impl Secrets for Weak {
    fn renewed(&mut self, _: Direction) -> Result<Protection, rustls::Error> {
        Ok(self.next(ProtocolVersion::TLSv1_3))
    }

    fn on_ticket(&mut self, _: &[u8]) -> Result<(), rustls::Error> {
        unreachable!("none is sent")
    }
}

#[test]
fn a_key_is_renewed_before_it_is_used_up() {
    const SEQUENCE_MAX: u64 = 40;
    let version = ProtocolVersion::TLSv1_3;
    let mut theirs = Weak { renewals: 0, sequence_max: SEQUENCE_MAX };
    let mut ours = Weak { renewals: 0, sequence_max: u64::MAX };
    let mut outbound = Outbound::new(theirs.next(version), version);
    let mut inbound = Inbound::new(ours.next(version), Role { version, is_client: false }, None);
    for round in 0..SEQUENCE_MAX * 3 {
        let mut buf = Buf::take(Size::Small).unwrap();
        buf.reset(32, 32);
        assert!(buf.push(&round.to_be_bytes()));
        let wire = if outbound.takes(&buf) {
            outbound.seal(&mut buf).unwrap();
            buf
        } else {
            outbound.records_of(&mut buf, false, &mut theirs).unwrap()
        };
        inbound.on_received(wire);
        assert_eq!(inbound.next(&mut ours).unwrap().filled(), round.to_be_bytes());
        assert_eq!(inbound.state(), State::Open);
        assert!(!inbound.take_wants_update());
    }
    assert!(ours.renewals > 3 && ours.renewals == theirs.renewals);
}

#[test]
fn a_key_that_cannot_be_renewed_bears_no_more_than_it_may() {
    const SEQUENCE_MAX: u64 = 40;
    for version in [ProtocolVersion::TLSv1_2, ProtocolVersion::TLSv1_3] {
        let mut protection = Weak { renewals: 0, sequence_max: SEQUENCE_MAX }.next(version);
        let mut seal = || {
            protection.seal_behind(ContentType::ApplicationData, b"x", &mut Buf::take(Size::Small).unwrap())
        };
        for _ in 0..SEQUENCE_MAX {
            seal().unwrap();
        }
        assert_eq!(seal(), Err(RecordError::Exhausted));
        assert_eq!(seal(), Err(RecordError::Exhausted));
        assert!(protection.seal_alert(AlertDescription::CloseNotify).is_err());
    }
    let version = ProtocolVersion::TLSv1_2;
    let mut weak = Weak { renewals: 0, sequence_max: SEQUENCE_MAX };
    let mut outbound = Outbound::new(weak.next(version), version);
    let mut rest = Buf::take(Size::Large).unwrap();
    assert!(rest.push(&[0; 60_000]));
    for _ in 0..SEQUENCE_MAX {
        let mut one = Buf::take(Size::Small).unwrap();
        one.reset(32, 32);
        assert!(outbound.takes(&one));
        outbound.seal(&mut one).unwrap();
    }
    assert!(outbound.records_of(&mut rest, true, &mut weak).is_err());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn what_was_sealed_in_place_is_opened_in_place(
        cipher in 0..CIPHERS,
        content in prop::collection::vec(any::<u8>(), 0..2000),
        kind in 20u8..24,
        front in 13usize..64,
    ) {
        let (mut key, mut other) = (made(cipher), made(cipher));
        let mut buf = Buf::take(Size::Small).unwrap();
        buf.reset(front, 32);
        prop_assert!(buf.push(&content));
        key.seal(kind.into(), &mut buf).unwrap();
        let mut behind = Buf::take(Size::Small).unwrap();
        prop_assert!(behind.push(b"before"));
        other.seal_behind(kind.into(), &content, &mut behind).unwrap();
        prop_assert_eq!(buf.filled(), &behind.filled()[6..]);
        let length = record_len(buf.filled()).unwrap();
        prop_assert_eq!(length, Some(buf.len()));
        let opened = made(cipher).open(buf.filled_mut()).unwrap();
        prop_assert_eq!(opened.kind, ContentType::from(kind));
        prop_assert_eq!(&buf.filled()[opened.plaintext], &content[..]);
    }

    #[test]
    fn arbitrary_bytes_are_never_plaintext(cipher in 0..CIPHERS, wire in prop::collection::vec(any::<u8>(), 0..500)) {
        let (_, mut end) = ends(cipher);
        prop_assert_eq!(end.hear(&wire), b"");
        let framed = [&[DATA, 3, 3, (wire.len() >> 8) as u8, wire.len() as u8][..], &wire].concat();
        let (_, mut end) = ends(cipher);
        prop_assert_eq!(end.hear(&framed), b"");
        prop_assert!(end.ending().is_some());
    }
}

fn made(cipher: usize) -> Protection {
    let (key, iv) = ([3; 32].into(), [5; 12].into());
    let version = if cipher < 2 { ProtocolVersion::TLSv1_3 } else { ProtocolVersion::TLSv1_2 };
    let secrets = match cipher % 2 {
        0 => ConnectionTrafficSecrets::Aes256Gcm { key, iv },
        _ => ConnectionTrafficSecrets::Chacha20Poly1305 { key, iv },
    };
    Protection::new(version, (7, secrets), u64::MAX).unwrap()
}
