//! What comes in pieces: the same plaintext whatever the cuts, in buffers that are taken when they are needed and not when
//! a peer says so.

use proptest::{prelude::*, sample::Index};

use super::records::{ALERT, DATA, HANDSHAKE, ends};
use crate::{
    buf::{figures, set_budget},
    tls::{record::RECORD_BYTES_MAX, rehearsal::End},
};

/// What a peer does.
#[derive(Debug, Clone)]
enum Act {
    Data(usize),
    Padded(usize, usize),
    /// New keys; whether ours are wanted too.
    Renew(bool),
    /// A ticket, in pieces of so many bytes.
    Ticket(usize, usize),
    /// Two tickets in one record.
    Tickets,
    Warning,
}

impl Act {
    fn records(&self, peer: &mut End) -> (Vec<u8>, Vec<u8>) {
        let mut wire = Vec::new();
        let mut plaintext = Vec::new();
        let ticket =
            |length: usize| [&[4, 0, (length >> 8) as u8, length as u8][..], &vec![9; length]].concat();
        match *self {
            Self::Data(length) => {
                plaintext = (0..length).map(|place| (place * 7 % 256) as u8).collect();
                wire = peer.record(DATA, &plaintext).unwrap();
            }
            Self::Padded(length, padding) => {
                plaintext = vec![length as u8; length];
                wire = peer.padded(DATA, &plaintext, padding).unwrap();
            }
            Self::Renew(asks) => wire = peer.renew(asks).unwrap(),
            Self::Ticket(length, piece) => {
                let ticket = ticket(length);
                ticket.chunks(piece).for_each(|piece| wire.extend(peer.record(HANDSHAKE, piece).unwrap()));
            }
            Self::Tickets => {
                let tickets = [ticket(10), ticket(0)].concat();
                wire = peer.record(HANDSHAKE, &tickets).unwrap();
            }
            Self::Warning => wire = peer.record(ALERT, &[1, 90]).unwrap(),
        }
        (wire, plaintext)
    }
}

fn act() -> impl Strategy<Value = Act> {
    prop_oneof![
        4 => (0..300usize).prop_map(Act::Data),
        2 => (0..=16_384usize).prop_map(Act::Data),
        1 => (0..300usize, 0..1000usize).prop_map(|(length, padding)| Act::Padded(length, padding)),
        1 => any::<bool>().prop_map(Act::Renew),
        1 => (0..300usize, 150..400usize).prop_map(|(length, piece)| Act::Ticket(length, piece)),
        1 => Just(Act::Tickets),
        1 => Just(Act::Warning),
    ]
}

/// The wire, and its plaintext, of a server whose client this is.
fn said(acts: &[Act], cipher: usize) -> (Vec<u8>, Vec<u8>) {
    let mut peer = End::made(cipher, false).unwrap();
    let (mut wire, mut plaintext) = (Vec::new(), Vec::new());
    for act in acts {
        let (records, bytes) = act.records(&mut peer);
        wire.extend(records);
        plaintext.extend(bytes);
    }
    (wire, plaintext)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn plaintext_is_the_same_whatever_the_cuts(
        acts in prop::collection::vec(act(), 1..10),
        cuts in prop::collection::vec(any::<Index>(), 0..12),
        cipher in 0..2usize,
        is_streaming in any::<bool>(),
    ) {
        let (wire, plaintext) = said(&acts, cipher);
        let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut.index(wire.len() + 1)).collect();
        cuts.sort_unstable();
        let mut end = End::made(cipher, true).unwrap();
        end.is_streaming = is_streaming;
        let mut heard = Vec::new();
        let mut from = 0;
        for cut in cuts.into_iter().chain([wire.len()]) {
            heard.extend(end.hear(&wire[from..cut]));
            from = cut;
        }
        prop_assert_eq!(end.ending(), None);
        prop_assert_eq!(heard, plaintext);
        let asks = acts.iter().any(|act| matches!(act, Act::Renew(true)));
        prop_assert_eq!(end.take_wants_update(), asks);
        drop(end);
        prop_assert_eq!(figures().units_in_use, 0);
    }
}

#[test]
fn plaintext_is_the_same_cut_anywhere_once() {
    let acts = [
        Act::Data(3),
        Act::Data(0),
        Act::Renew(true),
        Act::Data(40),
        Act::Ticket(20, 5),
        Act::Tickets,
        Act::Padded(9, 9),
        Act::Renew(false),
        Act::Warning,
        Act::Data(1),
    ];
    for is_streaming in [false, true] {
        let (wire, plaintext) = said(&acts, 0);
        for cut in 0..=wire.len() {
            let mut end = End::made(0, true).unwrap();
            end.is_streaming = is_streaming;
            let heard = [end.hear(&wire[..cut]), end.hear(&wire[cut..])].concat();
            assert_eq!(heard, plaintext, "cut at {cut}");
        }
        let mut end = End::made(0, true).unwrap();
        end.is_streaming = is_streaming;
        let heard: Vec<u8> = wire.chunks(1).flat_map(|byte| end.hear(byte)).collect();
        assert_eq!(heard, plaintext, "byte by byte");
    }
}

/// What is said about a chunk is written before it where it lies: a record that had been moved to the very front of its
/// buffer had no room for that.
#[test]
fn a_record_that_was_moved_together_has_room_for_framing() {
    let (mut peer, mut end) = ends(0);
    // The second one begins near the end of a buffer in which it does not fit, and would fit in one of its own.
    let wire = [peer.record(DATA, &[1; 12_000]).unwrap(), peer.record(DATA, &[2; 6_000]).unwrap()].concat();
    assert_eq!(end.hear(&wire).len(), 18_000);
    // Nothing was taken of the first.
    let (mut peer, mut end) = ends(0);
    let empty = (0..30).flat_map(|_| peer.padded(DATA, b"", 400).unwrap());
    let wire = empty.collect::<Vec<_>>();
    let wire = [wire, peer.record(DATA, &[2; 6_000]).unwrap()].concat();
    // [`End::hear`] sees to the room.
    assert_eq!(end.hear(&wire).len(), 6_000);
}

#[test]
fn who_says_that_a_record_is_long_gets_no_large_buffer_for_it() {
    let (mut peer, mut end) = ends(0);
    let wire = peer.record(DATA, &[0; 16_384]).unwrap();
    for cut in [1, 4, 5, 6, 8_000, 16_000] {
        let (_, mut end) = ends(0);
        end.hear(&wire[..cut]);
        assert_eq!(figures().units_in_use, 1, "cut at {cut}");
    }
    assert_eq!(end.hear(&wire).len(), 16_384);
    assert_eq!(figures().units_in_use, 0, "nothing is kept when nothing is there");
    // Behind others.
    let wire = [peer.record(DATA, b"first").unwrap(), wire[..9_000].to_vec()].concat();
    assert_eq!(end.hear(&wire), b"first");
    assert_eq!(figures().units_in_use, 1);
}

#[test]
fn without_a_buffer_nothing_is_lost() {
    let (mut peer, mut end) = ends(0);
    let wire = peer.record(DATA, &[5; 16_384]).unwrap();
    set_budget(2);
    // A small one is full, and there is no large one.
    let kept = crate::buf::SMALL_BYTES - 2 * crate::buf::FRAMING_BYTES;
    assert_eq!(end.hear(&wire[..kept]), b"");
    assert_eq!(end.hear(&wire[kept..]), b"", "it cannot be received");
    assert_eq!(end.ending(), None);
    set_budget(usize::MAX);
    assert_eq!(end.hear(&wire[kept..]), vec![5; 16_384]);
}

#[test]
fn a_record_takes_no_more_than_its_room() {
    let (mut peer, mut end) = ends(0);
    end.is_streaming = true;
    let wire = peer.record(DATA, &[5; 16_384]).unwrap();
    assert!(wire.len() <= RECORD_BYTES_MAX);
    let wire: Vec<u8> =
        [wire, (0..9).flat_map(|_| peer.record(DATA, &[5; 16_384]).unwrap()).collect()].concat();
    assert_eq!(end.hear(&wire).len(), 10 * 16_384);
}
