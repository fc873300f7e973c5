//! A session ticket: whatever a client makes up is refused, and what was sealed is opened.

#![no_main]

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use ringgate::tls::{TICKET_BYTES_MAX, TicketKeys, Ticketer};

static TICKETER: LazyLock<Ticketer> = LazyLock::new(|| {
    let keys = TicketKeys::generate().and_then(|keys| keys.rotated()).expect("random bytes");
    Ticketer::new(&keys, [0; 32]).expect("the cipher")
});

fuzz_target!(|input: &[u8]| {
    assert_eq!(TICKETER.open(input), None);
    if let Some(ticket) = TICKETER.seal(input) {
        assert!(ticket.len() <= TICKET_BYTES_MAX);
        assert_eq!(TICKETER.open(&ticket).as_deref(), Some(input));
        // With a name that is known.
        let mut forged = ticket;
        forged.truncate(16);
        forged.extend_from_slice(input);
        assert_eq!(TICKETER.open(&forged), None);
    }
});
