//! Tickets of other keys, of other listeners, and such as no one made.

use proptest::prelude::*;

use crate::tls::{TICKET_BYTES_MAX, TicketKeys, Ticketer};

fn ticketer(keys: &TicketKeys) -> Ticketer {
    Ticketer::new(keys, [0; 32]).unwrap()
}

#[test]
fn every_core_opens_what_one_of_them_sealed_for_two_generations() {
    let first = TicketKeys::generate().unwrap();
    let ticket = ticketer(&first).seal(b"session").unwrap();
    assert_eq!(ticketer(&first).open(&ticket).as_deref(), Some(&b"session"[..]));
    let second = first.rotated().unwrap();
    assert_eq!(ticketer(&second).open(&ticket).as_deref(), Some(&b"session"[..]));
    assert_eq!(ticketer(&second.rotated().unwrap()).open(&ticket), None);
    assert_eq!(ticketer(&TicketKeys::generate().unwrap()).open(&ticket), None);
    // The new generation seals with its own.
    let ticket = ticketer(&second).seal(b"session").unwrap();
    assert_eq!(ticketer(&first).open(&ticket), None);
}

#[test]
fn tickets_stay_in_their_scope() {
    let keys = TicketKeys::generate().unwrap();
    let ticket = ticketer(&keys).seal(b"session").unwrap();
    assert_eq!(Ticketer::new(&keys, [1; 32]).unwrap().open(&ticket), None);
}

#[test]
fn large_sessions_get_no_ticket() {
    let ticketer = ticketer(&TicketKeys::generate().unwrap());
    let overhead = ticketer.seal(b"").unwrap().len();
    let largest = vec![7; TICKET_BYTES_MAX - overhead];
    let ticket = ticketer.seal(&largest).unwrap();
    assert_eq!(ticketer.open(&ticket), Some(largest.clone()));
    assert_eq!(ticketer.seal(&[&largest[..], &[7]].concat()), None);
    assert_eq!(ticketer.open(&[&ticket[..], &[0]].concat()), None);
}

#[test]
fn keys_are_not_shown() {
    let keys = TicketKeys::generate().unwrap().rotated().unwrap();
    assert_eq!(format!("{keys:?}"), "TicketKeys { current: TicketKey(…), previous: Some(TicketKey(…)) }");
    assert_eq!(format!("{:?}", ticketer(&keys)), "Ticketer(…)");
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn what_was_sealed_is_opened(session in any::<Vec<u8>>()) {
        let ticketer = ticketer(&TicketKeys::generate().unwrap());
        let ticket = ticketer.seal(&session).unwrap();
        prop_assert_ne!(&ticket, &ticketer.seal(&session).unwrap());
        prop_assert_eq!(ticketer.open(&ticket), Some(session));
    }

    #[test]
    fn any_change_is_noticed(session in any::<Vec<u8>>(), at in any::<prop::sample::Index>(), bit in 0..8u8) {
        let ticketer = ticketer(&TicketKeys::generate().unwrap());
        let mut ticket = ticketer.seal(&session).unwrap();
        let at = at.index(ticket.len());
        prop_assert_eq!(ticketer.open(&ticket[..at]), None);
        ticket[at] ^= 1 << bit;
        prop_assert_eq!(ticketer.open(&ticket), None);
    }

    #[test]
    fn any_bytes_are_no_ticket(bytes in any::<Vec<u8>>()) {
        prop_assert_eq!(ticketer(&TicketKeys::generate().unwrap()).open(&bytes), None);
    }
}
