//! Bodies: data of a stream as bytes of HTTP/1, and bytes of HTTP/1 as data of a stream. Neither takes more than the other side's
//! flow control allows.

use std::{
    io,
    task::{Context, Poll, ready},
};

use bytes::{Buf as _, Bytes};
use h2::{Reason, RecvStream, SendStream};

use super::{
    grpc_web::{Decoder, GrpcWeb},
    message::{Framing, trailer_lines, trailers_of},
};
use crate::{
    buf::{Buf, FRAMING_BYTES, SMALL_BYTES, Size},
    http::{
        body::BodyReader,
        chunked::{CHUNK_HEADER_BYTES, write_chunk_header},
    },
    net::Outcome,
};

/// Where bytes are to go that were asked for.
pub(super) enum Armed {
    No,
    /// Into whatever buffer is taken for them.
    Anywhere,
    /// Behind what is in this one.
    Behind(Buf),
}

impl Armed {
    pub(super) fn with(buf: Buf) -> Self {
        if buf.capacity() > 0 { Self::Behind(buf) } else { Self::Anywhere }
    }

    pub(super) fn is_armed(&self) -> bool {
        !matches!(self, Self::No)
    }

    pub(super) fn take(&mut self) -> Self {
        std::mem::replace(self, Self::No)
    }
}

/// A body that comes.
pub(super) struct Incoming {
    body: RecvStream,
    framing: Framing,
    /// What came and found no room yet.
    chunk: Bytes,
    /// How many bytes came for it, if it is not those.
    translated: Option<usize>,
    /// What is left of the body's end: the last chunk, with trailers.
    end: Vec<u8>,
    state: State,
    /// What the body is made into.
    web: Option<GrpcWeb>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// More of it comes.
    Data,
    /// All data came; trailers may follow.
    Trailers,
    /// Nothing more comes.
    Whole,
}

/// Bytes around a chunk's payload.
const CHUNK_FRAMING: usize = CHUNK_HEADER_BYTES + 2;

impl Incoming {
    pub(super) fn new(body: RecvStream, framing: Framing) -> Self {
        let state = if framing == Framing::None { State::Whole } else { State::Data };
        Self { body, framing, chunk: Bytes::new(), translated: None, end: Vec::new(), state, web: None }
    }

    /// The same made into gRPC-Web.
    pub(super) fn translated(self, web: Option<GrpcWeb>) -> Self {
        Self { web, ..self }
    }

    /// Whether what follows is another protocol's.
    pub(super) fn is_tunnel(&self) -> bool {
        self.framing == Framing::Tunnel
    }

    /// Whether there is something to deliver: `false` when there never will be.
    pub(super) fn poll_more(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<bool>> {
        while self.chunk.is_empty() && self.end.is_empty() {
            match self.state {
                State::Data => match ready!(self.body.poll_data(cx)) {
                    Some(Ok(chunk)) => self.on_data(chunk),
                    Some(Err(error)) => return Poll::Ready(Err(broken(&error))),
                    None => self.state = State::Trailers,
                },
                State::Trailers => {
                    let trailers = ready!(self.body.poll_trailers(cx)).map_err(|error| broken(&error))?;
                    self.state = State::Whole;
                    if self.framing == Framing::Chunked {
                        self.end.extend_from_slice(b"0\r\n");
                    }
                    if let (Some(web), Some(trailers)) = (self.web, &trailers) {
                        (self.chunk, self.translated) = (web.last_frame(trailers), Some(0));
                    } else if self.framing == Framing::Chunked {
                        self.end.extend_from_slice(&trailers.as_ref().map(trailer_lines).unwrap_or_default());
                    }
                    if self.framing == Framing::Chunked {
                        self.end.extend_from_slice(b"\r\n");
                    }
                }
                State::Whole => return Poll::Ready(Ok(false)),
            }
        }
        Poll::Ready(Ok(true))
    }

    fn on_data(&mut self, chunk: Bytes) {
        match self.web.and_then(|web| web.encode(&chunk)) {
            Some(encoded) => (self.chunk, self.translated) = (encoded, Some(chunk.len())),
            None => self.chunk = chunk,
        }
    }

    /// Delivers what is there, or as much of it as there is room for.
    pub(super) fn deliver(&mut self, armed: Armed) -> Outcome<usize> {
        let mut buf = match armed {
            Armed::Behind(buf) if buf.spare_len() > CHUNK_FRAMING => buf,
            // Only a head is received in pieces, and a stream's comes whole.
            Armed::Behind(buf) if !buf.is_empty() => return (Err(io::ErrorKind::OutOfMemory.into()), buf),
            Armed::Behind(_) | Armed::Anywhere | Armed::No => {
                let wants_large = self.chunk.len() + CHUNK_FRAMING + 2 * FRAMING_BYTES > SMALL_BYTES;
                let taken = Buf::take(if wants_large { Size::Large } else { Size::Small });
                let Some(mut buf) = taken else {
                    return (Err(io::ErrorKind::OutOfMemory.into()), Buf::none());
                };
                buf.reset(FRAMING_BYTES, FRAMING_BYTES);
                buf
            }
        };
        let before = buf.len();
        if self.chunk.is_empty() {
            let count = self.end.len().min(buf.spare_len());
            let fits = buf.push(&self.end[..count]);
            debug_assert!(fits, "there is room for it");
            self.end.drain(..count);
            return (Ok(buf.len() - before), buf);
        }
        let is_chunked = self.framing == Framing::Chunked;
        let framing = if is_chunked { CHUNK_FRAMING } else { 0 };
        let count = self.chunk.len().min(buf.spare_len().saturating_sub(framing));
        let mut header = [0; CHUNK_HEADER_BYTES];
        let start = write_chunk_header(count, &mut header);
        let fits = (!is_chunked || buf.push(&header[start..]))
            && buf.push(&self.chunk[..count])
            && (!is_chunked || buf.push(b"\r\n"));
        debug_assert!(fits, "there is room for it");
        self.chunk.advance(count);
        // The peer may send as much more only now that someone has taken it.
        let taken = match self.translated {
            None => count,
            Some(_) if !self.chunk.is_empty() => 0,
            Some(came) => {
                self.translated = None;
                came
            }
        };
        let _ = self.body.flow_control().release_capacity(taken);
        (Ok(buf.len() - before), buf)
    }
}

/// What a stream's failure means to whoever waits for its bytes.
pub(super) fn broken(error: &h2::Error) -> io::Error {
    match error.get_io() {
        Some(error) => error.kind().into(),
        // What came breaks the rules, and was answered so from here.
        None if error.is_library() && error.reason().is_some_and(is_rule) => {
            io::ErrorKind::InvalidData.into()
        }
        None => io::ErrorKind::ConnectionReset.into(),
    }
}

/// Whether it stands for a rule that was broken (RFC 9113 §7).
fn is_rule(reason: Reason) -> bool {
    matches!(
        reason,
        Reason::PROTOCOL_ERROR
            | Reason::COMPRESSION_ERROR
            | Reason::FLOW_CONTROL_ERROR
            | Reason::FRAME_SIZE_ERROR
            | Reason::STREAM_CLOSED
    )
}

/// A body that goes.
pub(super) struct Outgoing {
    send: SendStream<Bytes>,
    /// None in a tunnel.
    body: Option<BodyReader>,
    /// What the body comes in, if it is not what goes.
    decoder: Option<Decoder>,
    /// What is still to be sent of what was taken.
    payload: Bytes,
    /// Whether the stream ends with that.
    is_last: bool,
    is_over: bool,
    pub(super) sent: u64,
}

impl Outgoing {
    pub(super) fn new(send: SendStream<Bytes>, body: Option<BodyReader>) -> Self {
        Self { send, body, decoder: None, payload: Bytes::new(), is_last: false, is_over: false, sent: 0 }
    }

    /// The same decoded.
    pub(super) fn decoded(self, decoder: Option<Decoder>) -> Self {
        Self { decoder, ..self }
    }

    /// Whether all of it was sent.
    pub(super) fn is_over(&self) -> bool {
        self.is_over
    }

    pub(super) fn stream(&mut self) -> &mut SendStream<Bytes> {
        &mut self.send
    }

    /// Takes what was written of the body, as bytes of HTTP/1. [`io::ErrorKind::InvalidInput`]: whoever wrote them is to blame.
    pub(super) fn take(&mut self, bytes: &mut [u8]) -> io::Result<()> {
        debug_assert!(self.payload.is_empty(), "one send at a time");
        let count = match &mut self.body {
            Some(body) => {
                let taken = body.take(bytes).map_err(|_| io::ErrorKind::InvalidData)?;
                self.is_last = body.is_done();
                taken.payload
            }
            None => bytes.len(),
        };
        self.payload = match &mut self.decoder {
            None => Bytes::copy_from_slice(&bytes[..count]),
            Some(decoder) => {
                let mut decoded = Vec::new();
                let result = decoder.decode(&bytes[..count], &mut decoded);
                if result.is_err() || (self.is_last && !decoder.is_whole()) {
                    return Err(io::ErrorKind::InvalidInput.into());
                }
                decoded.into()
            }
        };
        Ok(())
    }

    /// Sends what was taken, as far as the peer allows it.
    pub(super) fn poll_sent(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.payload.is_empty() {
            self.send.reserve_capacity(self.payload.len());
            // Mostly it is there at once.
            let capacity = match self.send.capacity() {
                0 => match ready!(self.send.poll_capacity(cx)) {
                    Some(Ok(capacity)) => capacity,
                    Some(Err(_)) | None => return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into())),
                },
                capacity => capacity,
            };
            let now = self.payload.split_to(capacity.min(self.payload.len()));
            self.sent += now.len() as u64;
            let ends = self.is_last && self.payload.is_empty() && self.trailers().is_empty();
            self.is_over = ends;
            self.send.send_data(now, ends).map_err(|error| broken(&error))?;
        }
        if self.is_last && !self.is_over {
            self.is_over = true;
            let trailers = trailers_of(self.trailers());
            let ended = if trailers.is_empty() {
                self.send.send_data(Bytes::new(), true)
            } else {
                self.send.send_trailers(trailers)
            };
            ended.map_err(|error| broken(&error))?;
        }
        Poll::Ready(Ok(()))
    }

    fn trailers(&self) -> &[u8] {
        self.body.as_ref().map_or(&[], BodyReader::trailers)
    }

    /// Ends a tunnel's direction. A message's end is known from its framing.
    pub(super) fn finish(&mut self) {
        if self.body.is_none() && !self.is_over {
            self.is_over = true;
            let _ = self.send.send_data(Bytes::new(), true);
        }
    }
}
