//! What a client's frames cost beside its requests. Frames that ask for nothing (PING, SETTINGS, empty DATA, …) are few where all is well:
//! each takes from an account, into which time, requests, bodies and responses pay. A client whose account is empty floods. Frames
//! are counted as they are read, by their headers alone; what they mean is for `h2` to know.

use super::PREFACE;

/// What an account holds at most, and in the beginning, in frames.
const BALANCE_MAX: i64 = 10_000;

/// What a second pays.
const PER_SECOND: i64 = 200;

/// What a request, and each KiB of a body or of what is sent, pays.
const PER_REQUEST: i64 = 16;
const PER_KIB: i64 = 4;

/// Bytes of a frame's header (RFC 9113 §4.1).
const HEADER_BYTES: usize = 9;

const DATA: u8 = 0;
const HEADERS: u8 = 1;

/// The account of one connection.
#[derive(Debug)]
pub(super) struct Toll {
    balance: i64,
    /// The header that is being read, and how much of it there is.
    header: [u8; HEADER_BYTES],
    has: usize,
    /// Bytes until the next header.
    skip: usize,
    /// Bytes of bodies and of what is sent that are not paid for yet.
    bytes: usize,
    /// When time last paid.
    paid_ms: u64,
}

impl Toll {
    /// For a connection that begins with its preface.
    pub(super) fn new() -> Self {
        Self {
            balance: BALANCE_MAX,
            header: [0; HEADER_BYTES],
            has: 0,
            skip: PREFACE.len(),
            bytes: 0,
            paid_ms: 0,
        }
    }

    /// Looks at bytes that were read.
    pub(super) fn read(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let skipped = self.skip.min(bytes.len());
            self.skip -= skipped;
            bytes = &bytes[skipped..];
            let taken = bytes.len().min(HEADER_BYTES - self.has);
            self.header[self.has..][..taken].copy_from_slice(&bytes[..taken]);
            self.has += taken;
            bytes = &bytes[taken..];
            if self.has == HEADER_BYTES {
                self.has = 0;
                self.frame();
            }
        }
    }

    fn frame(&mut self) {
        let [high, middle, low, kind, ..] = self.header;
        self.skip = u32::from_be_bytes([0, high, middle, low]) as usize;
        match kind {
            HEADERS => self.pay(PER_REQUEST),
            DATA => {
                self.balance -= 1;
                self.sent(self.skip);
            }
            _ => self.balance -= 1,
        }
    }

    /// So many bytes of use went either way.
    pub(super) fn sent(&mut self, bytes: usize) {
        self.bytes += bytes;
        self.pay((self.bytes / 1024) as i64 * PER_KIB);
        self.bytes %= 1024;
    }

    fn pay(&mut self, frames: i64) {
        self.balance = (self.balance + frames).min(BALANCE_MAX);
    }

    /// Whether the account is empty, now that it is so late.
    pub(super) fn is_overdrawn(&mut self, now_ms: u64) -> bool {
        let seconds = now_ms.saturating_sub(self.paid_ms) / 1000;
        if seconds > 0 {
            self.paid_ms += seconds * 1000;
            self.pay(i64::try_from(seconds).unwrap_or(i64::MAX).saturating_mul(PER_SECOND).min(BALANCE_MAX));
        }
        self.balance < 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn frame(kind: u8, len: usize) -> Vec<u8> {
        let mut frame = (len as u32).to_be_bytes()[1..].to_vec();
        frame.extend([kind, 0, 0, 0, 0, 1]);
        frame.resize(HEADER_BYTES + len, 0);
        frame
    }

    fn begun() -> Toll {
        let mut toll = Toll::new();
        toll.read(PREFACE);
        toll
    }

    #[test]
    fn frames_that_ask_for_nothing_empty_the_account() {
        for kind in [0, 2, 3, 4, 6, 7, 8, 9, 0x16] {
            let mut toll = begun();
            // A body's empty frames; those with something in them pay for themselves.
            let frames = frame(kind, if kind == DATA { 0 } else { 8 });
            let most = BALANCE_MAX as usize;
            (0..most).for_each(|_| toll.read(&frames));
            assert!(!toll.is_overdrawn(999), "{kind}");
            (0..100).for_each(|_| toll.read(&frames));
            assert!(toll.is_overdrawn(999), "{kind}");
            assert!(!toll.is_overdrawn(2000), "time pays");
        }
    }

    #[test]
    fn requests_bodies_and_responses_pay() {
        let mut toll = begun();
        // A request with its PING and its windows, a hundred thousand times.
        for _ in 0..100_000 {
            toll.read(&frame(HEADERS, 40));
            (0..4).for_each(|_| toll.read(&frame(8, 4)));
            toll.read(&frame(6, 8));
        }
        assert!(!toll.is_overdrawn(0));
        // A download, whose windows the client opens by each KiB; and an upload in frames of a KiB.
        for _ in 0..100_000 {
            toll.sent(1024);
            toll.read(&frame(8, 4));
            toll.read(&frame(DATA, 1024));
        }
        assert!(!toll.is_overdrawn(0));
    }

    proptest! {
        /// It counts alike however the bytes come.
        #[test]
        fn pieces_do_not_matter(frames in proptest::collection::vec((0u8..12, 0usize..3000), 0..40), piece in 1usize..500) {
            let bytes: Vec<u8> = frames.iter().flat_map(|(kind, len)| frame(*kind, *len)).collect();
            let (mut whole, mut pieces) = (begun(), begun());
            whole.read(&bytes);
            bytes.chunks(piece).for_each(|piece| pieces.read(piece));
            prop_assert_eq!((whole.balance, whole.has, whole.skip), (pieces.balance, pieces.has, pieces.skip));
        }
    }
}
