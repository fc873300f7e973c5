//! What comes over a secured connection: what a peer has sealed is understood, however it is cut, and what it has not is
//! never plaintext.

#![no_main]

use libfuzzer_sys::fuzz_target;
use ringgate::tls::rehearsal::{CIPHERS, End};

const ALERT: u8 = 21;
const HANDSHAKE: u8 = 22;
const DATA: u8 = 23;

fuzz_target!(|input: (u8, bool, bool, Vec<(u8, u16, u8)>, Vec<u16>, &[u8])| {
    let (cipher, is_client, is_streaming, acts, cuts, forged) = input;
    let made = |is_client| End::made(usize::from(cipher) % CIPHERS, is_client).expect("the cipher");
    let (mut peer, mut end) = (made(!is_client), made(is_client));
    end.is_streaming = is_streaming;

    let (mut wire, mut plaintext) = (Vec::new(), Vec::new());
    for (act, length, byte) in acts {
        let length = usize::from(length);
        let content = vec![byte; length];
        let record = match act % 6 {
            0 => peer.record(DATA, &content),
            1 => peer.padded(DATA, &content, usize::from(byte)),
            2 => peer.records(&content, byte % 2 == 1),
            3 => peer.renew(byte % 2 == 1),
            4 => peer.record(ALERT, &[byte % 3, byte]),
            _ => peer.record(HANDSHAKE, &content),
        };
        // More than a record takes is no record.
        let Some(record) = record else { continue };
        if act % 6 < 3 {
            plaintext.extend_from_slice(&content);
        }
        wire.extend_from_slice(&record);
    }
    let mut heard = Vec::new();
    let mut rest = &wire[..];
    for cut in cuts.into_iter().map(usize::from).chain([usize::MAX]) {
        let (piece, later) = rest.split_at(cut.min(rest.len()));
        heard.extend(end.hear(piece));
        rest = later;
    }
    assert!(plaintext.starts_with(&heard));
    assert!(end.ending().is_some() || heard == plaintext);
    assert!(end.hear(forged).is_empty());
    end.hang_up();
    assert!(end.ending().is_some());

    // By themselves, and as what a record would consist of.
    let mut end = made(is_client);
    assert!(end.hear(forged).is_empty());
    let mut end = made(is_client);
    if let Ok(length) = u16::try_from(forged.len()) {
        let [high, low] = length.to_be_bytes();
        assert!(end.hear(&[&[DATA, 3, 3, high, low], forged].concat()).is_empty());
        assert!(end.ending().is_some());
    }
});
