//! What a client sends by HTTP/2, through the adapter: each stream shows itself as one request of HTTP/1 or as none, and a connection comes
//! to an end.

#![no_main]

#[path = "../../tests/support/memory.rs"]
mod memory;

use libfuzzer_sys::fuzz_target;

const BEGINNING: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";

fuzz_target!(|input: &[u8]| {
    let Some((piece, frames)) = input.split_first() else { return };
    memory::requests(&[BEGINNING, frames].concat(), usize::from(*piece) * 8);
});
