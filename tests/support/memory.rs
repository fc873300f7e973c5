//! HTTP/2 input through the adapter without a socket: bytes that a client sends, and what an exchange would read of each stream. For
//! property tests and fuzzing.

use std::{
    future::Future,
    io,
    pin::pin,
    rc::Rc,
    task::{Context, Poll, Waker},
};

use ringgate::{
    buf::{Buf, Size},
    clock::Deadlines,
    http::{
        body::BodyReader,
        field::FIELDS_MAX,
        head::{HeadLimits, Parsed},
        request::{RequestHead, parse_request},
    },
    http2::{Downstream, DownstreamLimits, Io},
    tls::{OtherRx, OtherTx, Stream},
};

/// A connection of memory: what was sent comes in pieces, and then its end.
struct Sent {
    bytes: Vec<u8>,
    at: usize,
    piece: usize,
    /// Polls until the end comes: what was sent is read before.
    lingers: usize,
    armed: Option<Buf>,
}

/// So many polls read all that a stream may hold.
const LINGER: usize = 100;

impl OtherRx for Sent {
    fn arm(&mut self, buf: Buf) {
        self.armed = Some(buf);
    }

    fn arm_lazily(&mut self) -> bool {
        self.armed = Buf::take(Size::Small);
        self.armed.is_some()
    }

    fn is_armed(&self) -> bool {
        self.armed.is_some()
    }

    fn poll_recv(&mut self, _: &mut Context<'_>) -> Poll<(io::Result<usize>, Buf)> {
        if self.at == self.bytes.len() && self.lingers > 0 {
            self.lingers -= 1;
            return Poll::Pending;
        }
        let Some(mut buf) = self.armed.take() else { return Poll::Pending };
        if buf.capacity() == 0 {
            buf = Buf::take(Size::Small).expect("a buffer");
        }
        let count = self.piece.min(self.bytes.len() - self.at).min(buf.spare_len());
        assert!(buf.push(&self.bytes[self.at..][..count]), "there is room for it");
        self.at += count;
        Poll::Ready((Ok(count), buf))
    }
}

/// What is sent back goes nowhere.
struct Nowhere(Option<Buf>);

impl OtherTx for Nowhere {
    fn arm(&mut self, mut buf: Buf) {
        buf.reset(0, 0);
        self.0 = Some(buf);
    }

    fn is_sending(&self) -> bool {
        self.0.is_some()
    }

    fn poll_sent(&mut self, _: &mut Context<'_>) -> Poll<(io::Result<()>, Buf)> {
        Poll::Ready((Ok(()), self.0.take().unwrap_or_else(Buf::none)))
    }

    fn taken(&self) -> u64 {
        0
    }

    fn abort(&mut self) {}

    fn finish(&mut self) {}
}

/// Polls of one connection, at most: more means that it does not come to an end.
const POLLS_MAX: usize = 100_000;

const LIMITS: HeadLimits = HeadLimits { head_bytes: 64 * 1024, headers: FIELDS_MAX, target_bytes: 64 * 1024 };

/// Sends `bytes` on a connection, `piece` at a time, and reads every request that comes of them. Gives back the requests that were
/// understood, as their methods and targets, and how long their bodies were.
///
/// # Panics
/// What an exchange would read of a stream is not exactly one request and its body.
pub fn requests(bytes: &[u8], piece: usize) -> Vec<(String, usize)> {
    let rx = Sent { bytes: bytes.to_vec(), at: 0, piece: piece.max(1), lingers: LINGER, armed: None };
    let io = Io::new(Stream::other(Box::new(rx), Box::new(Nowhere(None)), None), None);
    let deadline = Rc::new(Deadlines::default()).register();
    let limits = DownstreamLimits {
        streams: 16,
        head_bytes: 16 * 1024,
        stream_window: 64 * 1024,
        connection_window: 256 * 1024,
    };
    let mut cx = Context::from_waker(Waker::noop());
    let mut accepting = pin!(Downstream::accept(io, &limits, &deadline));
    let accepted = (0..POLLS_MAX).find_map(|_| match accepting.as_mut().poll(&mut cx) {
        Poll::Ready(accepted) => Some(accepted),
        Poll::Pending => None,
    });
    let Ok(mut downstream) = accepted.expect("a handshake comes to an end") else { return Vec::new() };
    let mut streams: Vec<Reading> = Vec::new();
    let mut understood = Vec::new();
    for polls in 0.. {
        assert!(polls < POLLS_MAX, "the connection does not come to an end");
        let over = match downstream.poll_request(streams.len(), &deadline, &mut cx) {
            Poll::Ready(Some(accepted)) => {
                streams.push(Reading { rx: accepted.rx, _tx: accepted.tx, received: Vec::new() });
                false
            }
            Poll::Ready(None) => true,
            Poll::Pending => false,
        };
        streams.retain_mut(|stream| match stream.read(&mut cx) {
            Poll::Pending => true,
            Poll::Ready(is_whole) => {
                understood.extend(stream.judge(is_whole));
                false
            }
        });
        if over {
            break;
        }
    }
    drop(downstream);
    for mut stream in streams {
        let Poll::Ready(is_whole) = stream.read(&mut cx) else { panic!("a stream outlives its connection") };
        understood.extend(stream.judge(is_whole));
    }
    understood
}

/// A stream that is read to its end.
struct Reading {
    rx: Box<dyn OtherRx>,
    _tx: Box<dyn OtherTx>,
    received: Vec<u8>,
}

impl Reading {
    /// Reads on: ready at the end, which was reached (`true`) or cut off.
    fn read(&mut self, cx: &mut Context<'_>) -> Poll<bool> {
        loop {
            if !self.rx.is_armed() {
                self.rx.arm_lazily();
            }
            match self.rx.poll_recv(cx) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready((Ok(0), _)) => return Poll::Ready(true),
                Poll::Ready((Ok(_), buf)) => self.received.extend_from_slice(buf.filled()),
                Poll::Ready((Err(_), _)) => return Poll::Ready(false),
            }
        }
    }

    /// The request that was read, if it is one: then nothing is behind it, whatever was sent.
    fn judge(&mut self, is_whole: bool) -> Option<(String, usize)> {
        let mut head = RequestHead::default();
        let Ok(Parsed::Complete { head_len }) = parse_request(&self.received, &mut 0, &LIMITS, &mut head)
        else {
            return None;
        };
        let line = self.received.split(|byte| *byte == b'\r').next().unwrap_or_default();
        let line = String::from_utf8_lossy(line).into_owned();
        if head.upgrade.is_some() {
            return Some((line, 0));
        }
        let (_, rest) = self.received.split_at_mut(head_len);
        let mut body = BodyReader::request(head.body, u64::MAX);
        let rest_len = rest.len();
        // A length that the data does not keep to is found out here, as in an exchange.
        let taken = body.take(rest).ok()?;
        if !body.is_done() {
            assert!(
                !is_whole || taken.payload < rest_len.max(1) || rest_len == taken.consumed,
                "{line}: a body without its end"
            );
            return None;
        }
        assert_eq!(taken.consumed, rest_len, "{line}: something is behind the request");
        Some((line, taken.payload))
    }
}
