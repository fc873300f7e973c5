//! A message body as it arrives: how much of what was received is payload, where the body ends, and whether it ended
//! as it should. A state machine over received bytes; it knows no socket. Framing on the way out is here too: the chunk
//! line and the line ends that go around a payload (RFC 9112 §7.1).

use super::{
    chunked::{ChunkError, ChunkLimits, ChunkedDecoder},
    framing::BodyLength,
    response::ResponseBody,
};

/// How a body's end is known.
#[derive(Debug)]
enum Framing {
    /// So many bytes are still to come.
    Exact(u64),
    /// The chunked coding says.
    Chunked(ChunkedDecoder),
    /// The sender closes the connection.
    UntilClose,
}

/// Reads one body.
#[derive(Debug)]
pub struct BodyReader {
    framing: Framing,
    done: bool,
    payload: u64,
    payload_max: u64,
}

/// What is wrong with a body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BodyError {
    /// The chunked coding is broken.
    Chunked(ChunkError),
    /// More payload than allowed.
    TooLarge,
    /// The sender closed before the end.
    Truncated,
}

/// What became of received bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Taken {
    /// Payload bytes, now at the front.
    pub payload: usize,
    /// Bytes that belonged to this body; what follows is another message's.
    pub consumed: usize,
}

impl BodyReader {
    /// A request's body of at most `payload_max` bytes.
    #[inline]
    pub fn request(length: BodyLength, payload_max: u64) -> Self {
        let framing = match length {
            BodyLength::None => Framing::Exact(0),
            BodyLength::Exact(length) => Framing::Exact(length),
            BodyLength::Chunked => Framing::Chunked(ChunkedDecoder::new(ChunkLimits::default())),
        };
        Self { done: length.is_empty(), framing, payload: 0, payload_max }
    }

    /// A response's body.
    #[inline]
    pub fn response(body: ResponseBody) -> Self {
        let framing = match body {
            ResponseBody::None => Framing::Exact(0),
            ResponseBody::Exact(length) => Framing::Exact(length),
            ResponseBody::Chunked => Framing::Chunked(ChunkedDecoder::new(ChunkLimits::default())),
            ResponseBody::UntilClose => Framing::UntilClose,
        };
        let done = matches!(framing, Framing::Exact(0));
        Self { framing, done, payload: 0, payload_max: u64::MAX }
    }

    /// Sets the limit anew; what came already counts, and so does a length that was announced.
    pub fn limit_payload(&mut self, payload_max: u64) -> Result<(), BodyError> {
        self.payload_max = payload_max;
        let announced = self.payload.saturating_add(self.bytes_left().unwrap_or(0));
        if announced > payload_max { Err(BodyError::TooLarge) } else { Ok(()) }
    }

    /// Whether the body is complete.
    #[inline]
    pub fn is_done(&self) -> bool {
        self.done
    }

    /// Payload bytes so far.
    #[inline]
    pub fn payload(&self) -> u64 {
        self.payload
    }

    /// The most bytes that can still belong to this body, if that is known.
    #[inline]
    pub fn bytes_left(&self) -> Option<u64> {
        match &self.framing {
            Framing::Exact(left) => Some(*left),
            Framing::Chunked(_) | Framing::UntilClose => None,
        }
    }

    /// The trailer section's lines (`name: value\r\n`), once the body is complete; empty when there are none.
    #[inline]
    pub fn trailers(&self) -> &[u8] {
        match &self.framing {
            Framing::Chunked(decoder) => decoder.trailers(),
            Framing::Exact(_) | Framing::UntilClose => &[],
        }
    }

    /// Drops the trailers, once they are here, whose name `keeps` does not want.
    #[inline]
    pub fn retain_trailers(&mut self, keeps: impl Fn(&[u8]) -> bool) {
        if let Framing::Chunked(decoder) = &mut self.framing
            && !decoder.trailers().is_empty()
        {
            decoder.retain_trailers(keeps);
        }
    }

    /// Takes received bytes: moves the payload in them to the front and says where the body ends.
    #[inline]
    pub fn take(&mut self, bytes: &mut [u8]) -> Result<Taken, BodyError> {
        let taken = match &mut self.framing {
            Framing::Exact(left) => {
                let payload = bytes.len().min(usize::try_from(*left).unwrap_or(usize::MAX));
                *left -= payload as u64;
                self.done = *left == 0;
                Taken { payload, consumed: payload }
            }
            Framing::UntilClose => Taken { payload: bytes.len(), consumed: bytes.len() },
            Framing::Chunked(decoder) => {
                let decoded = decoder.decode(bytes).map_err(BodyError::Chunked)?;
                self.done = decoded.done;
                Taken { payload: decoded.payload, consumed: decoded.consumed }
            }
        };
        self.payload += taken.payload as u64;
        if self.payload > self.payload_max { Err(BodyError::TooLarge) } else { Ok(taken) }
    }

    /// Counts payload that went by unseen. Only of a body of known length, and no more than is left of it.
    pub fn pass(&mut self, bytes: u64) -> Result<(), BodyError> {
        if let Framing::Exact(left) = &mut self.framing {
            debug_assert!(bytes <= *left);
            *left = left.saturating_sub(bytes);
            self.done = *left == 0;
        }
        self.payload += bytes;
        if self.payload > self.payload_max { Err(BodyError::TooLarge) } else { Ok(()) }
    }

    /// The sender closed its side.
    pub fn on_close(&mut self) -> Result<(), BodyError> {
        if self.done {
            return Ok(());
        }
        match self.framing {
            Framing::UntilClose => {
                self.done = true;
                Ok(())
            }
            Framing::Exact(_) | Framing::Chunked(_) => Err(BodyError::Truncated),
        }
    }
}

/// How a body is sent on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SendAs {
    /// As it is: its length was announced, or the connection's end is its end.
    Plain,
    /// In chunks.
    Chunked,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exact_leaves_what_follows() {
        let mut body = BodyReader::request(BodyLength::Exact(5), 100);
        let mut bytes = *b"helloGET /";
        assert_eq!(body.take(&mut bytes), Ok(Taken { payload: 5, consumed: 5 }));
        assert!(body.is_done());
    }

    #[test]
    fn what_passes_unseen_counts() {
        let mut body = BodyReader::request(BodyLength::Exact(5), 4);
        assert_eq!(body.pass(3), Ok(()));
        assert_eq!((body.bytes_left(), body.is_done(), body.payload()), (Some(2), false, 3));
        assert_eq!(body.pass(2), Err(BodyError::TooLarge));
        assert!(body.is_done());
    }

    #[test]
    fn truncation_is_an_error_unless_the_close_is_the_end() {
        let mut body = BodyReader::request(BodyLength::Exact(5), 100);
        assert!(body.take(&mut b"hell".to_vec()).is_ok());
        assert_eq!(body.on_close(), Err(BodyError::Truncated));
        let mut body = BodyReader::response(ResponseBody::UntilClose);
        assert!(!body.is_done());
        assert_eq!(body.on_close(), Ok(()));
        assert!(body.is_done());
        let mut body = BodyReader::response(ResponseBody::Chunked);
        assert!(body.take(&mut b"5\r\nhel".to_vec()).is_ok());
        assert_eq!(body.on_close(), Err(BodyError::Truncated));
    }

    #[test]
    fn too_large_is_noticed_with_the_byte_that_is_too_many() {
        let mut body = BodyReader::request(BodyLength::Chunked, 4);
        assert!(body.take(&mut b"4\r\nabcd\r\n".to_vec()).is_ok());
        assert_eq!(body.take(&mut b"1\r\ne\r\n0\r\n\r\n".to_vec()), Err(BodyError::TooLarge));
    }
}
