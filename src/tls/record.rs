//! The record layer (RFC 8446 §5, RFC 5246 §6.2) over buffers of the core: plaintext becomes a record where it lies, and a
//! record plaintext. rustls agrees on the keys and gives them out when the handshake is over; from then on nothing is copied
//! or allocated for a record. It knows bytes and keys, and nothing of sockets or of what a message means.

use std::{fmt, ops::Range};

use aws_lc_rs::aead::{
    AES_128_GCM, AES_256_GCM, Aad, CHACHA20_POLY1305, LessSafeKey, NONCE_LEN, Nonce, UnboundKey,
};
use rustls::{AlertDescription, ConnectionTrafficSecrets, ContentType, ProtocolVersion};

use crate::buf::{Buf, FRAMING_BYTES};

/// Plaintext in one record, at most (RFC 8446 §5.1).
pub(super) const PLAINTEXT_BYTES_MAX: usize = 16 * 1024;

/// Type, version and length.
pub(super) const HEADER_BYTES: usize = 5;

/// What a record's length may be beyond its plaintext's (RFC 8446 §5.2).
const EXPANSION_BYTES_MAX: usize = 256;

/// A record, at most.
pub(super) const RECORD_BYTES_MAX: usize = HEADER_BYTES + PLAINTEXT_BYTES_MAX + EXPANSION_BYTES_MAX;

const TAG_BYTES: usize = 16;
/// The part of the nonce that AES-GCM sends in each record of TLS 1.2 (RFC 5288 §3).
const EXPLICIT_BYTES: usize = 8;

/// What is put before a plaintext, and behind it, at most.
pub(super) const SEAL_FRONT_BYTES: usize = HEADER_BYTES + EXPLICIT_BYTES;
pub(super) const SEAL_BACK_BYTES: usize = 1 + TAG_BYTES;

/// An alert as a record, at most.
const ALERT_BYTES_MAX: usize = SEAL_FRONT_BYTES + 2 + SEAL_BACK_BYTES;

const _: () = assert!(SEAL_FRONT_BYTES <= FRAMING_BYTES && SEAL_BACK_BYTES <= FRAMING_BYTES);

/// Records that a key still bears when it counts as used up.
const LAST_RECORDS: u64 = 16;

/// Both versions say so on the wire.
const LEGACY_VERSION: [u8; 2] = [3, 3];

/// Why a record is not understood; the connection ends, since what follows cannot be either.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum RecordError {
    /// Its header is not one of TLS.
    Malformed,
    /// It is longer than records may be.
    TooLong,
    /// Its sender has not the key, or someone has changed it.
    BadMac,
    /// So many records were protected with one key that the next would weaken it, and it cannot be renewed.
    Exhausted,
}

/// How nonces are made and what is authenticated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Scheme {
    Tls13,
    /// AES-GCM of TLS 1.2.
    Explicit,
    /// ChaCha20-Poly1305 of TLS 1.2 (RFC 7905).
    Implicit,
}

/// One direction's keys.
pub(super) struct Protection {
    key: LessSafeKey,
    iv: [u8; NONCE_LEN],
    sequence: u64,
    /// Records that may be protected with the key.
    sequence_max: u64,
    scheme: Scheme,
}

impl fmt::Debug for Protection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Protection").field("sequence", &self.sequence).finish_non_exhaustive()
    }
}

/// A record that came, opened: what it is, and where in it its plaintext is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Opened {
    pub(super) kind: ContentType,
    pub(super) plaintext: Range<usize>,
}

/// Bytes of the record that `bytes` begin with, once its header is there.
///
/// # Errors
/// It is none, or too long.
pub(super) fn record_len(bytes: &[u8]) -> Result<Option<usize>, RecordError> {
    let &[kind, major, _, high, low, ..] = bytes else { return Ok(None) };
    // Change of cipher, alert, handshake, application data (RFC 8446 §B.1).
    if !(20..=23).contains(&kind) || major != 3 {
        return Err(RecordError::Malformed);
    }
    let length = HEADER_BYTES + usize::from(u16::from_be_bytes([high, low]));
    if length > RECORD_BYTES_MAX { Err(RecordError::TooLong) } else { Ok(Some(length)) }
}

impl Protection {
    /// From what a handshake came to. `sequence_max`: how many records the cipher bears.
    pub(super) fn new(
        version: ProtocolVersion,
        (sequence, secrets): (u64, ConnectionTrafficSecrets),
        sequence_max: u64,
    ) -> Result<Self, rustls::Error> {
        let (algorithm, key, iv) = match &secrets {
            ConnectionTrafficSecrets::Aes128Gcm { key, iv } => (&AES_128_GCM, key, iv),
            ConnectionTrafficSecrets::Aes256Gcm { key, iv } => (&AES_256_GCM, key, iv),
            ConnectionTrafficSecrets::Chacha20Poly1305 { key, iv } => (&CHACHA20_POLY1305, key, iv),
            _ => return Err(rustls::Error::General("a cipher that is not known here".into())),
        };
        let scheme = match version {
            ProtocolVersion::TLSv1_3 => Scheme::Tls13,
            _ if matches!(secrets, ConnectionTrafficSecrets::Chacha20Poly1305 { .. }) => Scheme::Implicit,
            _ => Scheme::Explicit,
        };
        let unusable = |_| rustls::Error::General("a key that its cipher does not take".into());
        let key = LessSafeKey::new(UnboundKey::new(algorithm, key.as_ref()).map_err(unusable)?);
        let iv = iv.as_ref().try_into().map_err(|_| rustls::Error::General("an unusual nonce".into()))?;
        Ok(Self { key, iv, sequence, sequence_max, scheme })
    }

    /// Whether the key should be renewed before it protects more. It still bears a few records: those that say so.
    #[inline]
    pub(super) fn is_used_up(&self) -> bool {
        self.sequence >= self.sequence_max.saturating_sub(LAST_RECORDS)
    }

    /// Bytes that a record has before its plaintext, and behind it.
    #[inline]
    pub(super) const fn overhead(&self) -> (usize, usize) {
        match self.scheme {
            Scheme::Tls13 => (HEADER_BYTES, 1 + TAG_BYTES),
            Scheme::Explicit => (HEADER_BYTES + EXPLICIT_BYTES, TAG_BYTES),
            Scheme::Implicit => (HEADER_BYTES, TAG_BYTES),
        }
    }

    /// Makes the bytes in `buf` a record. There must be [`SEAL_FRONT_BYTES`] of room before them and [`SEAL_BACK_BYTES`]
    /// behind, and they must not be more than [`PLAINTEXT_BYTES_MAX`].
    ///
    /// # Errors
    /// The key is used up, or there is no room; then `buf` is spoilt.
    #[inline]
    pub(super) fn seal(&mut self, kind: ContentType, buf: &mut Buf) -> Result<(), RecordError> {
        let (front, back) = self.overhead();
        let fits = buf.push_front(&[0; SEAL_FRONT_BYTES][..front]) && buf.push(&[0; SEAL_BACK_BYTES][..back]);
        if fits { self.seal_in_place(kind, buf.filled_mut()) } else { Err(RecordError::TooLong) }
    }

    /// Adds a record with this plaintext to what is in `buf`.
    ///
    /// # Errors
    /// As above.
    pub(super) fn seal_behind(
        &mut self,
        kind: ContentType,
        plaintext: &[u8],
        buf: &mut Buf,
    ) -> Result<(), RecordError> {
        let (front, back) = self.overhead();
        let at = buf.len();
        let fits = buf.push(&[0; SEAL_FRONT_BYTES][..front])
            && buf.push(plaintext)
            && buf.push(&[0; SEAL_BACK_BYTES][..back]);
        if fits { self.seal_in_place(kind, &mut buf.filled_mut()[at..]) } else { Err(RecordError::TooLong) }
    }

    /// An alert as a record, and how long that is (RFC 8446 §6).
    ///
    /// # Errors
    /// The key is used up.
    pub(super) fn seal_alert(
        &mut self,
        description: AlertDescription,
    ) -> Result<([u8; ALERT_BYTES_MAX], usize), RecordError> {
        let level = if description == AlertDescription::CloseNotify { 1 } else { 2 };
        let mut record = [0; ALERT_BYTES_MAX];
        let (front, back) = self.overhead();
        record[front..front + 2].copy_from_slice(&[level, description.into()]);
        let length = front + 2 + back;
        self.seal_in_place(ContentType::Alert, &mut record[..length])?;
        Ok((record, length))
    }

    /// A record's room, with its plaintext in the right place, becomes the record.
    fn seal_in_place(&mut self, kind: ContentType, record: &mut [u8]) -> Result<(), RecordError> {
        let (front, back) = self.overhead();
        let length = record.len() - front - back;
        if length > PLAINTEXT_BYTES_MAX {
            return Err(RecordError::TooLong);
        }
        if self.sequence >= self.sequence_max {
            return Err(RecordError::Exhausted);
        }
        let kind = u8::from(kind);
        let nonce = self.next_nonce();
        let on_wire = (record.len() - HEADER_BYTES) as u16;
        let (header, about) = match self.scheme {
            Scheme::Tls13 => {
                // What it is comes last and is encrypted too (RFC 8446 §5.2).
                record[front + length] = kind;
                let header = header(ContentType::ApplicationData.into(), on_wire);
                (header, About::Tls13(header))
            }
            Scheme::Explicit | Scheme::Implicit => {
                record[HEADER_BYTES..front].copy_from_slice(&nonce[NONCE_LEN - (front - HEADER_BYTES)..]);
                let about = self.about(header(kind, length as u16));
                (header(kind, on_wire), About::Tls12(about))
            }
        };
        record[..HEADER_BYTES].copy_from_slice(&header);
        let end = record.len() - TAG_BYTES;
        let (sealed, tag_at) = record[front..].split_at_mut(end - front);
        let tag = self.key.seal_in_place_separate_tag(unique(nonce), Aad::from(about), sealed);
        tag_at.copy_from_slice(tag.map_err(|_| RecordError::Exhausted)?.as_ref());
        self.sequence += 1;
        Ok(())
    }

    /// Opens a whole record where it lies.
    ///
    /// # Errors
    /// It is not what its sender protected with this key, in this order.
    #[inline]
    pub(super) fn open(&mut self, record: &mut [u8]) -> Result<Opened, RecordError> {
        if self.sequence == u64::MAX {
            return Err(RecordError::Exhausted);
        }
        let Some((head, body)) = record.split_first_chunk_mut::<HEADER_BYTES>() else {
            return Err(RecordError::Malformed);
        };
        let (start, kind, length) = match self.scheme {
            Scheme::Tls13 => {
                if head[0] != u8::from(ContentType::ApplicationData) {
                    return Err(RecordError::Malformed);
                }
                let nonce = unique(self.next_nonce());
                let opened = self.key.open_in_place(nonce, Aad::from(*head), body);
                let inner = opened.map_err(|_| RecordError::BadMac)?;
                // Padding counts (RFC 8446 §5.4).
                if inner.len() > PLAINTEXT_BYTES_MAX + 1 {
                    return Err(RecordError::TooLong);
                }
                // It is zeros behind the type.
                let at = inner.iter().rposition(|byte| *byte != 0).ok_or(RecordError::Malformed)?;
                (HEADER_BYTES, inner[at], at)
            }
            Scheme::Implicit => {
                let length = body.len().checked_sub(TAG_BYTES).ok_or(RecordError::BadMac)?;
                let about = Aad::from(self.about_plaintext(*head, length));
                let opened = self.key.open_in_place(unique(self.next_nonce()), about, body);
                opened.map_err(|_| RecordError::BadMac)?;
                (HEADER_BYTES, head[0], length)
            }
            Scheme::Explicit => {
                let (explicit, sealed) =
                    body.split_first_chunk_mut::<EXPLICIT_BYTES>().ok_or(RecordError::BadMac)?;
                let length = sealed.len().checked_sub(TAG_BYTES).ok_or(RecordError::BadMac)?;
                let mut nonce = self.iv;
                nonce[NONCE_LEN - EXPLICIT_BYTES..].copy_from_slice(explicit);
                let about = Aad::from(self.about_plaintext(*head, length));
                self.key.open_in_place(unique(nonce), about, sealed).map_err(|_| RecordError::BadMac)?;
                (HEADER_BYTES + EXPLICIT_BYTES, head[0], length)
            }
        };
        if length > PLAINTEXT_BYTES_MAX {
            return Err(RecordError::TooLong);
        }
        self.sequence += 1;
        Ok(Opened { kind: kind.into(), plaintext: start..start + length })
    }

    /// The record's number mixed into the connection's share (RFC 8446 §5.3, RFC 7905 §2; for AES-GCM of TLS 1.2 any
    /// nonce is good that does not come twice).
    fn next_nonce(&self) -> [u8; NONCE_LEN] {
        let mut nonce = self.iv;
        let (_, low) = nonce.split_at_mut(NONCE_LEN - size_of::<u64>());
        low.iter_mut().zip(self.sequence.to_be_bytes()).for_each(|(byte, mixed)| *byte ^= mixed);
        nonce
    }

    /// What TLS 1.2 authenticates beside the plaintext (RFC 5246 §6.2.3.3): its number, and its header as if it had not been
    /// protected.
    fn about(&self, plain_header: [u8; HEADER_BYTES]) -> [u8; 13] {
        let mut about = [0; 13];
        about[..8].copy_from_slice(&self.sequence.to_be_bytes());
        about[8..].copy_from_slice(&plain_header);
        about
    }

    /// The same for a record that came with this header.
    fn about_plaintext(&self, mut header: [u8; HEADER_BYTES], length: usize) -> [u8; 13] {
        header[HEADER_BYTES - 2..].copy_from_slice(&(length as u16).to_be_bytes());
        self.about(header)
    }
}

/// What is authenticated beside the ciphertext.
enum About {
    Tls13([u8; HEADER_BYTES]),
    Tls12([u8; 13]),
}

impl AsRef<[u8]> for About {
    #[inline]
    fn as_ref(&self) -> &[u8] {
        match self {
            Self::Tls13(about) => about,
            Self::Tls12(about) => about,
        }
    }
}

fn unique(nonce: [u8; NONCE_LEN]) -> Nonce {
    Nonce::assume_unique_for_key(nonce)
}

fn header(kind: u8, length: u16) -> [u8; HEADER_BYTES] {
    let [high, low] = length.to_be_bytes();
    [kind, LEGACY_VERSION[0], LEGACY_VERSION[1], high, low]
}
