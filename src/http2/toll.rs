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

/// What a head costs that is longer, as it comes, than heads may be. `h2` answers it with 431 by itself.
const PER_OVERSIZE: i64 = 200;

/// Bytes of a frame's header (RFC 9113 §4.1).
const HEADER_BYTES: usize = 9;

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const CONTINUATION: u8 = 9;

/// Bytes of a frame that are as much work as the frame itself: about a microsecond.
const BYTES_PER_WORK: u32 = 4096;
const FIELDS_BYTES_PER_WORK: u32 = 256;

/// The account of one connection.
#[derive(Debug)]
pub(super) struct Toll {
    balance: i64,
    /// The header that is being read, and how much of it there is.
    header: [u8; HEADER_BYTES],
    has: usize,
    /// Bytes until the next header.
    skip: usize,
    /// Bytes of the head that came last, and how many a head may have.
    head_bytes: u32,
    head_bytes_max: u32,
    /// Bytes of bodies and of what is sent that are not paid for yet.
    bytes: usize,
    /// When time last paid.
    paid_ms: u64,
}

impl Toll {
    /// For a connection that begins with its preface.
    pub(super) fn new(head_bytes_max: u32) -> Self {
        Self {
            balance: BALANCE_MAX,
            header: [0; HEADER_BYTES],
            has: 0,
            skip: PREFACE.len(),
            head_bytes: 0,
            head_bytes_max,
            bytes: 0,
            paid_ms: 0,
        }
    }

    /// Looks at bytes that were read, up to the frame at which the work that may be done now is used up: what is beyond it is not
    /// to be taken yet. Returns how many bytes may be.
    pub(super) fn read(&mut self, bytes: &[u8], work: &mut u32) -> usize {
        let mut rest = bytes;
        while !rest.is_empty() {
            let skipped = self.skip.min(rest.len());
            self.skip -= skipped;
            rest = &rest[skipped..];
            if *work == 0 && self.has == 0 {
                break;
            }
            let taken = rest.len().min(HEADER_BYTES - self.has);
            self.header[self.has..][..taken].copy_from_slice(&rest[..taken]);
            self.has += taken;
            rest = &rest[taken..];
            if self.has == HEADER_BYTES {
                self.has = 0;
                *work = work.saturating_sub(self.frame());
            }
        }
        bytes.len() - rest.len()
    }

    /// Takes from the account, or pays into it; returns what work the frame is.
    fn frame(&mut self) -> u32 {
        let [high, middle, low, kind, ..] = self.header;
        self.skip = u32::from_be_bytes([0, high, middle, low]) as usize;
        let len = self.skip as u32;
        let work = match kind {
            HEADERS => 2 + len / FIELDS_BYTES_PER_WORK,
            CONTINUATION => 1 + len / FIELDS_BYTES_PER_WORK,
            _ => 1 + len / BYTES_PER_WORK,
        };
        match kind {
            HEADERS => {
                self.pay(PER_REQUEST);
                self.head_bytes = 0;
                self.head(len);
            }
            CONTINUATION => {
                self.balance -= 1;
                self.head(len);
            }
            // A body may come in pieces as small as its sender likes: flow control has allowed them.
            DATA if len > 0 => self.sent(self.skip),
            _ => self.balance -= 1,
        }
        work
    }

    /// So much more of a head.
    fn head(&mut self, len: u32) {
        let was_within = self.head_bytes <= self.head_bytes_max;
        self.head_bytes = self.head_bytes.saturating_add(len);
        if was_within && self.head_bytes > self.head_bytes_max {
            self.charge(PER_OVERSIZE);
        }
    }

    /// So many bytes of use went either way.
    pub(super) fn sent(&mut self, bytes: usize) {
        self.bytes += bytes;
        self.pay((self.bytes / 1024) as i64 * PER_KIB);
        self.bytes %= 1024;
    }

    /// Takes from the account what was not to be seen from a frame's header.
    pub(super) fn charge(&mut self, frames: i64) {
        self.balance -= frames;
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

    fn read(toll: &mut Toll, bytes: &[u8]) {
        assert_eq!(toll.read(bytes, &mut u32::MAX.clone()), bytes.len());
    }

    fn begun() -> Toll {
        let mut toll = Toll::new(16 * 1024);
        read(&mut toll, PREFACE);
        toll
    }

    #[test]
    fn frames_that_ask_for_nothing_empty_the_account() {
        for kind in [0, 2, 3, 4, 6, 7, 8, 0x16] {
            let mut toll = begun();
            // A body's empty frames; those with something in them pay for themselves.
            let frames = frame(kind, if kind == DATA { 0 } else { 8 });
            let most = BALANCE_MAX as usize;
            (0..most).for_each(|_| read(&mut toll, &frames));
            assert!(!toll.is_overdrawn(999), "{kind}");
            (0..100).for_each(|_| read(&mut toll, &frames));
            assert!(toll.is_overdrawn(999), "{kind}");
            assert!(!toll.is_overdrawn(2000), "time pays");
        }
    }

    #[test]
    fn requests_bodies_and_responses_pay() {
        let mut toll = begun();
        // A request with its PING and its windows, a hundred thousand times.
        for _ in 0..100_000 {
            read(&mut toll, &frame(HEADERS, 40));
            (0..4).for_each(|_| read(&mut toll, &frame(8, 4)));
            read(&mut toll, &frame(6, 8));
        }
        assert!(!toll.is_overdrawn(0));
        // Messages of a few bytes each, for as long as they come.
        let balance = toll.balance;
        (0..100_000).for_each(|_| read(&mut toll, &frame(DATA, 10)));
        assert!(toll.balance >= balance);
        // A download, whose windows the client opens by each KiB; and an upload in frames of a KiB.
        for _ in 0..100_000 {
            toll.sent(1024);
            read(&mut toll, &frame(8, 4));
            read(&mut toll, &frame(DATA, 1024));
        }
        assert!(!toll.is_overdrawn(0));
    }

    #[test]
    fn heads_that_are_too_long_cost() {
        let mut toll = begun();
        read(&mut toll, &frame(HEADERS, 16 * 1024));
        assert_eq!(toll.balance, BALANCE_MAX);
        for _ in 0..3 {
            read(&mut toll, &frame(CONTINUATION, 1));
        }
        assert_eq!(toll.balance, BALANCE_MAX - PER_OVERSIZE - 3, "once for each head");
        read(&mut toll, &frame(HEADERS, 16 * 1024 + 1));
        assert_eq!(toll.balance, BALANCE_MAX - 2 * PER_OVERSIZE - 3 + PER_REQUEST);
    }

    #[test]
    fn work_ends_at_a_frame() {
        let mut toll = begun();
        let bytes = [frame(6, 8), frame(6, 8), frame(HEADERS, 600), frame(6, 8)].concat();
        let mut work = 2;
        assert_eq!((toll.read(&bytes, &mut work), work), (34, 0));
        assert_eq!((toll.read(&bytes[34..], &mut work), work), (0, 0), "none is left");
        work = 4;
        assert_eq!((toll.read(&bytes[34..], &mut work), work), (609, 0), "512 bytes of fields are two more");
    }

    proptest! {
        /// However little work may be done at once, everything is taken in the end, in whole frames.
        #[test]
        fn work_is_only_put_off(frames in proptest::collection::vec((0u8..12, 0usize..3000), 0..40), portion in 1u32..10) {
            let bytes: Vec<u8> = frames.iter().flat_map(|(kind, len)| frame(*kind, *len)).collect();
            let (mut whole, mut portions) = (begun(), begun());
            read(&mut whole, &bytes);
            let mut rest = &bytes[..];
            while !rest.is_empty() {
                let count = portions.read(rest, &mut portion.clone());
                prop_assert!(count > 0 && portions.has == 0 && portions.skip == 0);
                rest = &rest[count..];
            }
            prop_assert_eq!(whole.balance, portions.balance);
        }

        /// It counts alike however the bytes come.
        #[test]
        fn pieces_do_not_matter(frames in proptest::collection::vec((0u8..12, 0usize..3000), 0..40), piece in 1usize..500) {
            let bytes: Vec<u8> = frames.iter().flat_map(|(kind, len)| frame(*kind, *len)).collect();
            let (mut whole, mut pieces) = (begun(), begun());
            read(&mut whole, &bytes);
            bytes.chunks(piece).for_each(|piece| read(&mut pieces, piece));
            prop_assert_eq!((whole.balance, whole.has, whole.skip), (pieces.balance, pieces.has, pieces.skip));
        }
    }
}
