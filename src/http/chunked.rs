//! Chunked transfer coding (RFC 9112 §7.1), both ways: a decoder that works in place on whatever piece of the body has
//! come, and the size line of a chunk to be sent. Chunk extensions are checked and dropped, trailers checked and
//! kept. Requests and responses are decoded alike; a body that breaks here is cut by whoever relays it, so that it
//! can never look complete.

use super::{
    field::FieldName,
    head::{field_line, is_value_byte},
};

/// What a chunked body may have beside its payload.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct ChunkLimits {
    /// A chunk's size line, extensions included, CRLF not; in bytes.
    pub line_bytes: usize,
    /// The trailer section, in bytes.
    pub trailer_bytes: usize,
    /// Trailer fields.
    pub trailers: usize,
}

impl Default for ChunkLimits {
    fn default() -> Self {
        Self { line_bytes: 256, trailer_bytes: 8 * 1024, trailers: 64 }
    }
}

/// Extension bytes that may come beyond one for each byte of payload. Without it, a client could have the gateway
/// read a size line of the longest allowed for every byte it relays.
const EXTENSION_EXCESS_MAX: u64 = 16 * 1024;

/// The largest chunk: half of what 16 digits can say, so that no sum of sizes overflows soon.
const CHUNK_SIZE_MAX: u64 = u64::MAX / 2;

/// What [`ChunkedDecoder::decode`] did.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct Decoded {
    /// Payload bytes, now at the front of the bytes given.
    pub payload: usize,
    /// Bytes of the input that belonged to the body: all of them until it is done; then the rest, which was not
    /// touched, is the next message.
    pub consumed: usize,
    /// Whether the body has ended.
    pub done: bool,
}

/// Why a chunked body is refused.
#[derive(Copy, Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ChunkError {
    /// No size, or something but a digit, `;` or CRLF behind it.
    #[error("an invalid chunk size")]
    SizeInvalid,
    /// More than 16 digits, or more than 2^63 - 1.
    #[error("a chunk size that is too large")]
    SizeTooLarge,
    /// A size line beyond the limit.
    #[error("a chunk size line that is too long")]
    LineTooLong,
    /// A control character or a non-ASCII byte in an extension.
    #[error("an invalid chunk extension")]
    ExtensionInvalid,
    /// Too many extension bytes for so little payload.
    #[error("too many chunk extensions")]
    ExtensionsTooLarge,
    /// A size line that ends in CR or LF alone.
    #[error("a broken end of a chunk size line")]
    LineEnding,
    /// A chunk that CRLF does not follow.
    #[error("a broken chunk ending")]
    DataEnding,
    /// A trailer line that is not a valid field line, or ends in CR or LF alone.
    #[error("an invalid trailer")]
    TrailerInvalid,
    /// A trailer that must not be one; see [`FieldName::is_forbidden_in_trailers`].
    #[error("a forbidden trailer")]
    TrailerForbidden,
    /// A trailer section beyond the limit.
    #[error("trailers that are too large")]
    TrailersTooLarge,
    /// More trailers than the limit.
    #[error("too many trailers")]
    TrailersTooMany,
}

/// Where in a body the next byte stands.
///
/// ```text
/// Size ─┬─────────────▶ SizeLf ─┬─▶ Data ─▶ DataCr ─▶ DataLf ─▶ Size
///       └─▶ Extension ─▶┘       └─▶ LineStart ─┬─▶ Line ─▶ LineLf ─▶ LineStart
///                             (size 0)         └─▶ EndLf ─▶ Done
/// ```
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
enum State {
    Size,
    Extension,
    SizeLf,
    Data,
    DataCr,
    DataLf,
    /// At the beginning of a trailer line.
    LineStart,
    Line,
    LineLf,
    EndLf,
    Done,
    Broken(ChunkError),
}

/// Decodes one chunked body, in pieces cut anywhere.
#[derive(Clone, Debug)]
pub struct ChunkedDecoder {
    state: State,
    limits: ChunkLimits,
    /// The size read so far, then what is left of the chunk.
    remaining: u64,
    digits: u32,
    /// Bytes of the size line so far.
    line_bytes: usize,
    /// Extension bytes not outweighed by payload.
    excess: u64,
    trailers: Vec<u8>,
    trailer_count: usize,
    trailer_bytes: usize,
    /// Where the current line begins in `trailers`.
    line_start: usize,
}

impl ChunkedDecoder {
    /// A decoder at the beginning of a body. Allocates nothing until a trailer comes.
    pub const fn new(limits: ChunkLimits) -> Self {
        Self {
            state: State::Size,
            limits,
            remaining: 0,
            digits: 0,
            line_bytes: 0,
            excess: 0,
            trailers: Vec::new(),
            trailer_count: 0,
            trailer_bytes: 0,
            line_start: 0,
        }
    }

    /// Whether the body has ended.
    #[inline]
    pub fn is_done(&self) -> bool {
        self.state == State::Done
    }

    /// The trailers, after the body has ended: lines `name: value` CRLF, valid, none of them forbidden. Empty when
    /// there are none.
    #[inline]
    pub fn trailers(&self) -> &[u8] {
        if self.is_done() { &self.trailers } else { &[] }
    }

    /// Drops the trailers whose name `keeps` does not want. Before the body has ended there are none to drop.
    pub fn retain_trailers(&mut self, keeps: impl Fn(&[u8]) -> bool) {
        if !self.is_done() {
            return;
        }
        let is_kept = |line: &&[u8]| keeps(line.split(|byte| *byte == b':').next().unwrap_or_default());
        let lines = self.trailers.split_inclusive(|byte| *byte == b'\n');
        self.trailers = lines.filter(is_kept).flatten().copied().collect();
    }

    /// Decodes the next piece of the body in place: the payload in it is moved to its front. After an error the body
    /// is broken, and every further call says so again; the bytes given are then worthless.
    pub fn decode(&mut self, bytes: &mut [u8]) -> Result<Decoded, ChunkError> {
        let mut at = 0;
        let mut payload = 0;
        while at < bytes.len() && self.state != State::Done {
            if self.state == State::Data {
                let len = usize::try_from(self.remaining).unwrap_or(usize::MAX).min(bytes.len() - at);
                if payload != at {
                    bytes.copy_within(at..at + len, payload);
                }
                payload += len;
                at += len;
                self.remaining -= len as u64;
                if self.remaining == 0 {
                    self.state = State::DataCr;
                }
            } else {
                self.state = self.next(bytes[at]).inspect_err(|error| self.state = State::Broken(*error))?;
                at += 1;
            }
        }
        match self.state {
            State::Broken(error) => Err(error),
            state => Ok(Decoded { payload, consumed: at, done: state == State::Done }),
        }
    }

    /// The state after `byte`, which is not payload.
    fn next(&mut self, byte: u8) -> Result<State, ChunkError> {
        match (self.state, byte) {
            (State::Size, b'\r') if self.digits > 0 => Ok(State::SizeLf),
            (State::Size, _) => self.size_byte(byte),
            (State::Extension, b'\r') => Ok(State::SizeLf),
            (State::Extension, b'\n') => Err(ChunkError::LineEnding),
            (State::Extension, _) => self.extension_byte(byte),
            (State::SizeLf, b'\n') => self.begin_chunk(),
            (State::SizeLf, _) => Err(ChunkError::LineEnding),
            (State::DataCr, b'\r') => Ok(State::DataLf),
            (State::DataLf, b'\n') => Ok(State::Size),
            (State::DataCr | State::DataLf, _) => Err(ChunkError::DataEnding),
            (State::LineStart, b'\r') => Ok(State::EndLf),
            (State::Line, b'\r') => self.count_trailer_byte().map(|()| State::LineLf),
            (State::LineStart | State::Line, _) => self.trailer_byte(byte),
            (State::LineLf, b'\n') => self.count_trailer_byte().and_then(|()| self.end_trailer()),
            (State::EndLf, b'\n') => Ok(State::Done),
            (State::LineLf | State::EndLf, _) => Err(ChunkError::TrailerInvalid),
            (State::Broken(error), _) => Err(error),
            // `decode` handles these two itself.
            (State::Data | State::Done, _) => Ok(self.state),
        }
    }

    /// A digit of the size, or the `;` behind it. RFC 9112 §7.1.1 tells of whitespace before the `;` only so that it
    /// be tolerated; here it is refused, as before and behind the size.
    fn size_byte(&mut self, byte: u8) -> Result<State, ChunkError> {
        self.count_line_byte()?;
        let digit = match byte {
            b'0'..=b'9' => byte - b'0',
            b'a'..=b'f' => byte - b'a' + 10,
            b'A'..=b'F' => byte - b'A' + 10,
            b';' if self.digits > 0 => return Ok(State::Extension),
            b'\n' if self.digits > 0 => return Err(ChunkError::LineEnding),
            _ => return Err(ChunkError::SizeInvalid),
        };
        self.digits += 1;
        if self.digits > 16 || self.remaining > CHUNK_SIZE_MAX >> 4 {
            return Err(ChunkError::SizeTooLarge);
        }
        self.remaining = self.remaining << 4 | u64::from(digit);
        Ok(State::Size)
    }

    fn extension_byte(&mut self, byte: u8) -> Result<State, ChunkError> {
        self.count_line_byte()?;
        self.excess += 1;
        if is_value_byte(byte) && byte.is_ascii() {
            Ok(State::Extension)
        } else {
            Err(ChunkError::ExtensionInvalid)
        }
    }

    fn count_line_byte(&mut self) -> Result<(), ChunkError> {
        self.line_bytes += 1;
        if self.line_bytes > self.limits.line_bytes { Err(ChunkError::LineTooLong) } else { Ok(()) }
    }

    /// The size line has ended.
    fn begin_chunk(&mut self) -> Result<State, ChunkError> {
        self.excess = self.excess.saturating_sub(self.remaining);
        if self.excess > EXTENSION_EXCESS_MAX {
            return Err(ChunkError::ExtensionsTooLarge);
        }
        self.line_bytes = 0;
        self.digits = 0;
        Ok(if self.remaining == 0 { State::LineStart } else { State::Data })
    }

    fn trailer_byte(&mut self, byte: u8) -> Result<State, ChunkError> {
        self.count_trailer_byte()?;
        if byte == b'\n' {
            return Err(ChunkError::TrailerInvalid);
        }
        self.trailers.push(byte);
        Ok(State::Line)
    }

    fn count_trailer_byte(&mut self) -> Result<(), ChunkError> {
        self.trailer_bytes += 1;
        if self.trailer_bytes > self.limits.trailer_bytes {
            Err(ChunkError::TrailersTooLarge)
        } else {
            Ok(())
        }
    }

    /// A trailer line has ended: it is checked and brought to its one form.
    fn end_trailer(&mut self) -> Result<State, ChunkError> {
        self.trailer_count += 1;
        if self.trailer_count > self.limits.trailers {
            return Err(ChunkError::TrailersTooMany);
        }
        let line = &self.trailers[self.line_start..];
        let (name, value) = field_line(line).map_err(|_| ChunkError::TrailerInvalid)?;
        if FieldName::recognise(name).is_forbidden_in_trailers() {
            return Err(ChunkError::TrailerForbidden);
        }
        let value_start = value.as_ptr().addr() - line.as_ptr().addr() + self.line_start;
        let value_end = value_start + value.len();
        let colon = self.line_start + name.len();
        self.trailers.truncate(value_end);
        self.trailers.splice(colon..value_start, *b": ");
        self.trailers.extend_from_slice(b"\r\n");
        self.line_start = self.trailers.len();
        Ok(State::LineStart)
    }
}

/// Room for the longest size line of a chunk: 16 digits and CRLF.
pub const CHUNK_HEADER_BYTES: usize = 18;

/// What ends the payload of a chunk.
pub const CHUNK_END: &[u8] = b"\r\n";

/// What ends a chunked body without trailers, behind the last chunk's end. With trailers: `0` CRLF, their lines, CRLF.
pub const LAST_CHUNK: &[u8] = b"0\r\n\r\n";

/// Writes the size line of a chunk of `len` bytes at the end of `into`, so that it lies right before the payload when
/// `into` is the room before it. Returns where in `into` the line begins. `len` is not 0, which would end the body.
#[inline]
pub fn write_chunk_header(len: usize, into: &mut [u8; CHUNK_HEADER_BYTES]) -> usize {
    debug_assert!(len > 0, "a chunk of no bytes is the last one");
    let mut at = CHUNK_HEADER_BYTES - 2;
    into[at..].copy_from_slice(b"\r\n");
    let mut rest = len as u64;
    loop {
        at -= 1;
        into[at] = b"0123456789abcdef"[(rest & 0xf) as usize];
        rest >>= 4;
        if rest == 0 {
            return at;
        }
    }
}

#[cfg(test)]
mod tests;
