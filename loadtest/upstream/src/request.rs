//! What a client sent: a request's head and the framing of its body. Bytes in, values out; nothing here knows a
//! socket, a route or a response. Whatever could be framed in two ways is refused (RFC 9112 §6.3).

use std::mem::MaybeUninit;

/// Bytes of a request head, or of one line between chunks.
pub(crate) const HEAD_BYTES_MAX: usize = 64 * 1024;

/// Fields of a request head.
const FIELDS_MAX: usize = 256;

/// A request's head, as far as this upstream cares.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Head<'b> {
    /// The method, as sent.
    pub(crate) method: &'b str,
    /// The target without its query.
    pub(crate) path: &'b str,
    /// How the body is delimited.
    pub(crate) body: Incoming,
    /// Whether the connection outlives this exchange.
    pub(crate) keep_alive: bool,
    /// Whether the client is of HTTP/1.1, and so understands chunks.
    pub(crate) is_1_1: bool,
    /// Whether the client waits for `100 Continue`.
    pub(crate) expects_continue: bool,
    /// Length of the head, its empty line included.
    pub(crate) bytes: usize,
}

/// Why a request is refused: the status to answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Refused(pub(crate) u16);

/// Reads one head from the front of `input`. `None`: it is not complete yet.
pub(crate) fn parse(input: &[u8]) -> Result<Option<Head<'_>>, Refused> {
    let mut fields = [const { MaybeUninit::uninit() }; FIELDS_MAX];
    let mut parsed = httparse::Request::new(&mut []);
    let bytes = match parsed.parse_with_uninit_headers(input, &mut fields) {
        Ok(httparse::Status::Complete(bytes)) => bytes,
        Ok(httparse::Status::Partial) if input.len() > HEAD_BYTES_MAX => return Err(Refused(431)),
        Ok(httparse::Status::Partial) => return Ok(None),
        Err(httparse::Error::TooManyHeaders) => return Err(Refused(431)),
        Err(_) => return Err(Refused(400)),
    };
    let (Some(method), Some(target), Some(version)) = (parsed.method, parsed.path, parsed.version) else {
        return Err(Refused(400));
    };
    let is_1_1 = version == 1;
    let mut head = Head {
        method,
        path: target.split_once('?').map_or(target, |(path, _)| path),
        body: Incoming::Empty,
        keep_alive: is_1_1,
        is_1_1,
        expects_continue: false,
        bytes,
    };
    for field in parsed.headers.iter() {
        head.note(field)?;
    }
    Ok(Some(head))
}

impl Head<'_> {
    /// Takes in what one field says about framing and the connection.
    fn note(&mut self, field: &httparse::Header<'_>) -> Result<(), Refused> {
        // Most names are told apart by their length alone.
        match field.name.len() {
            14 if field.name.eq_ignore_ascii_case("content-length") => {
                if self.body != Incoming::Empty {
                    return Err(Refused(400));
                }
                self.body = Incoming::Sized(content_length(field.value)?);
            }
            17 if field.name.eq_ignore_ascii_case("transfer-encoding") => {
                if self.body != Incoming::Empty
                    || !self.is_1_1
                    || !field.value.eq_ignore_ascii_case(b"chunked")
                {
                    return Err(Refused(400));
                }
                self.body = Incoming::Chunked(Chunk::Size);
            }
            10 if field.name.eq_ignore_ascii_case("connection") => {
                for option in field.value.split(|byte| *byte == b',') {
                    match option.trim_ascii() {
                        word if word.eq_ignore_ascii_case(b"close") => self.keep_alive = false,
                        word if word.eq_ignore_ascii_case(b"keep-alive") => self.keep_alive = true,
                        _ => {}
                    }
                }
            }
            6 if field.name.eq_ignore_ascii_case("expect") => {
                self.expects_continue = field.value.eq_ignore_ascii_case(b"100-continue");
            }
            _ => {}
        }
        Ok(())
    }
}

/// Digits only: no sign, no list, no space (RFC 9110 §8.6).
fn content_length(value: &[u8]) -> Result<u64, Refused> {
    let digits = std::str::from_utf8(value).map_err(|_| Refused(400))?;
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(Refused(400));
    }
    digits.parse().map_err(|_| Refused(400))
}

/// A request body on its way in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Incoming {
    /// There is none.
    Empty,
    /// This many bytes are still to come.
    Sized(u64),
    /// Chunks (RFC 9112 §7.1).
    Chunked(Chunk),
}

/// What comes next in a chunked body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Chunk {
    /// A size line.
    Size,
    /// This many bytes of a chunk.
    Bytes(u64),
    /// The line end behind a chunk.
    End,
    /// Trailer fields, or the empty line that ends the body.
    Trailer,
    /// Nothing: the body is complete.
    Complete,
}

impl Incoming {
    /// Whether every byte of the body has been taken.
    pub(crate) fn is_complete(self) -> bool {
        matches!(self, Self::Empty | Self::Sized(0) | Self::Chunked(Chunk::Complete))
    }

    /// Takes what it can from the front of `input`, hands the body's bytes to `sink`, and returns how many bytes of
    /// `input` are done with. Bytes left over belong to an incomplete line, or to the next request.
    pub(crate) fn take(&mut self, input: &[u8], mut sink: impl FnMut(&[u8])) -> Result<usize, Refused> {
        let mut used = 0;
        loop {
            let rest = &input[used..];
            let step = match self {
                Self::Empty => 0,
                Self::Sized(left) => take_bytes(left, rest, &mut sink),
                Self::Chunked(chunk) => chunk.take(rest, &mut sink)?,
            };
            used += step;
            if step == 0 || self.is_complete() {
                return Ok(used);
            }
        }
    }
}

impl Chunk {
    /// One step of a chunked body. 0: more input is needed, or the body is complete.
    fn take(&mut self, input: &[u8], sink: &mut impl FnMut(&[u8])) -> Result<usize, Refused> {
        match self {
            Self::Size => match httparse::parse_chunk_size(input).map_err(|_| Refused(400))? {
                httparse::Status::Complete((used, size)) => {
                    *self = if size == 0 { Self::Trailer } else { Self::Bytes(size) };
                    Ok(used)
                }
                httparse::Status::Partial => line_is_short(input),
            },
            Self::Bytes(left) => {
                let used = take_bytes(left, input, sink);
                if *left == 0 {
                    *self = Self::End;
                }
                Ok(used)
            }
            Self::End => match input {
                [b'\r', b'\n', ..] => {
                    *self = Self::Size;
                    Ok(2)
                }
                [] | [b'\r'] => Ok(0),
                _ => Err(Refused(400)),
            },
            Self::Trailer => match input.windows(2).position(|pair| pair == b"\r\n") {
                Some(0) => {
                    *self = Self::Complete;
                    Ok(2)
                }
                Some(end) => Ok(end + 2),
                None => line_is_short(input),
            },
            Self::Complete => Ok(0),
        }
    }
}

/// Hands at most `left` bytes of `input` to `sink`.
fn take_bytes(left: &mut u64, input: &[u8], sink: &mut impl FnMut(&[u8])) -> usize {
    let used = usize::try_from(*left).map_or(input.len(), |left| left.min(input.len()));
    if used > 0 {
        sink(&input[..used]);
    }
    *left -= used as u64;
    used
}

/// An incomplete line may wait for more, within reason.
fn line_is_short(input: &[u8]) -> Result<usize, Refused> {
    if input.len() > HEAD_BYTES_MAX { Err(Refused(431)) } else { Ok(0) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn head_partial_at_every_split() {
        let wire = b"POST /echo?x=1 HTTP/1.1\r\nhost: a\r\ncontent-length: 5\r\nconnection: close\r\n\r\n";
        for end in 0..wire.len() {
            assert_eq!(parse(&wire[..end]), Ok(None), "cut at {end}");
        }
        let head = parse(wire).unwrap().unwrap();
        assert_eq!((head.method, head.path, head.bytes), ("POST", "/echo", wire.len()));
        assert_eq!(head.body, Incoming::Sized(5));
        assert!(!head.keep_alive);
    }

    #[test]
    fn ambiguous_framing_is_refused() {
        for fields in [
            "content-length: 5\r\ntransfer-encoding: chunked\r\n",
            "transfer-encoding: chunked\r\ncontent-length: 5\r\n",
            "content-length: 5\r\ncontent-length: 5\r\n",
            "content-length: +5\r\n",
            "content-length: 5, 5\r\n",
            "content-length:\r\n",
            "content-length: 18446744073709551616\r\n",
            "transfer-encoding: gzip, chunked\r\n",
        ] {
            let wire = format!("POST / HTTP/1.1\r\nhost: a\r\n{fields}\r\n");
            assert_eq!(parse(wire.as_bytes()), Err(Refused(400)), "{fields}");
        }
        let old = b"POST / HTTP/1.0\r\ntransfer-encoding: chunked\r\n\r\n";
        assert_eq!(parse(old), Err(Refused(400)));
    }

    #[test]
    fn chunks_at_every_split() {
        let wire = b"5;x=y\r\nhello\r\n1\r\n!\r\n0\r\nx-sum: 1\r\n\r\nGET ";
        let body_end = wire.len() - 4;
        for cut in 0..=wire.len() {
            let mut body = Incoming::Chunked(Chunk::Size);
            let mut got = Vec::new();
            let first = body.take(&wire[..cut], |piece| got.extend_from_slice(piece)).unwrap();
            let second = body.take(&wire[first..], |piece| got.extend_from_slice(piece)).unwrap();
            assert_eq!(got, b"hello!", "cut at {cut}");
            assert_eq!(first + second, body_end, "cut at {cut}");
            assert!(body.is_complete(), "cut at {cut}");
        }
    }

    #[test]
    fn broken_chunks_are_refused() {
        for wire in [&b"x\r\n"[..], b"1\r\nabc\r\n", b"-1\r\n", b"11111111111111111\r\n"] {
            let mut body = Incoming::Chunked(Chunk::Size);
            assert_eq!(body.take(wire, |_| {}), Err(Refused(400)), "{wire:?}");
        }
    }
}
