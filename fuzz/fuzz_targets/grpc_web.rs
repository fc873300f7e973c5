//! Base64 of gRPC-Web: judged alike in any pieces, never longer than it may be, and what it stands for can be said again.

#![no_main]

use libfuzzer_sys::fuzz_target;
use ringgate::http2::{GrpcWebDecoder, grpc_web_text};

fn decoded(pieces: &[&[u8]]) -> Option<Vec<u8>> {
    let (mut decoder, mut out) = (GrpcWebDecoder::default(), Vec::new());
    pieces.iter().try_for_each(|piece| decoder.decode(piece, &mut out)).ok()?;
    decoder.is_whole().then_some(out)
}

fuzz_target!(|input: &[u8]| {
    let Some((cut, text)) = input.split_first() else { return };
    let whole = decoded(&[text]);
    let cut = usize::from(*cut).min(text.len());
    assert_eq!(decoded(&[&text[..cut], &text[cut..]]), whole);
    if let Some(bytes) = whole {
        assert!(bytes.len() <= text.len() / 4 * 3);
        assert_eq!(decoded(&[&grpc_web_text(&bytes)]), Some(bytes));
    }
});
