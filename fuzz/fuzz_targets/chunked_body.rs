//! A chunked body, at once and in pieces: both must come to the same. The first byte of the input says how long the
//! pieces are.

#![no_main]

use libfuzzer_sys::fuzz_target;
use ringgate::http::chunked::{ChunkError, ChunkLimits, ChunkedDecoder};

type Outcome = Result<(Vec<u8>, usize, bool, Vec<u8>), ChunkError>;

fn decode(wire: &[u8], piece_len: usize) -> Outcome {
    let mut decoder = ChunkedDecoder::new(ChunkLimits { line_bytes: 32, trailer_bytes: 128, trailers: 4 });
    let (mut payload, mut consumed) = (Vec::new(), 0);
    for piece in wire.chunks(piece_len) {
        let mut bytes = piece.to_vec();
        let decoded = decoder.decode(&mut bytes)?;
        assert!(decoded.payload <= decoded.consumed && decoded.consumed <= piece.len());
        payload.extend_from_slice(&bytes[..decoded.payload]);
        consumed += decoded.consumed;
    }
    Ok((payload, consumed, decoder.is_done(), decoder.trailers().to_vec()))
}

fuzz_target!(|input: &[u8]| {
    let Some((piece_len, wire)) = input.split_first() else { return };
    let at_once = decode(wire, wire.len().max(1));
    assert_eq!(at_once, decode(wire, usize::from(*piece_len).max(1)));
    if let Ok((payload, consumed, _, trailers)) = at_once {
        assert!(payload.len() <= consumed && consumed <= wire.len() && trailers.len() <= 2 * 128);
    }
});
