//! Handshakes: rustls says what to send and what it makes of what comes; here is the waiting and sending between. In the end
//! the keys are taken over and rustls keeps only what renews them. Deadlines are the caller's, who drops the future.

use std::{
    cell::Cell,
    future::poll_fn,
    io,
    sync::Arc,
    task::{Context, Poll, ready},
};

use rustls::{
    ClientConfig, CommonState, ExtractedSecrets, ServerConfig,
    client::{ClientConnectionData, UnbufferedClientConnection},
    kernel::KernelConnection,
    server::{ServerConnectionData, UnbufferedServerConnection},
    unbuffered::{ConnectionState, EncodeError, UnbufferedStatus},
};
use rustls_pki_types::ServerName;
use thiserror::Error;

use super::{
    certificate::Facts,
    record::{RECORD_BYTES_MAX, record_len},
    select,
    stream::{Kernel, Stream},
};
use crate::{
    buf::{Buf, Size},
    clock,
    net::{self, Rx, Tx},
};

/// Bytes that a peer may send before the handshake is over, at most. A chain of certificates and a few short messages is
/// all that it has to say.
const HANDSHAKE_BYTES_MAX: usize = 128 * 1024;

/// Bytes of one of our flights, at most.
const FLIGHT_BYTES_MAX: usize = 128 * 1024;

/// Steps of handshakes per turn of a core's ring: a step may cost some 100 µs, and whoever waits for bytes comes between.
const STEPS_PER_TURN: u32 = 4;

/// Why there is no secure connection.
#[derive(Debug, Error)]
pub enum HandshakeError {
    /// What the peer sent, or what it did not accept.
    #[error(transparent)]
    Tls(#[from] rustls::Error),
    /// The peer's first bytes are those of a request without TLS.
    #[error("the peer speaks HTTP without TLS")]
    PlainHttp,
    /// The peer has sent too much.
    #[error("the peer's handshake is too long")]
    TooLong,
    /// The socket failed, or the core has no buffer left.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// The peer has left.
    #[error("the peer has left during the handshake")]
    Gone,
}

/// What is known about a secure connection, from its handshake.
#[derive(Debug, Clone)]
pub struct Session {
    /// The name that the client asked for (SNI), in lower case.
    pub server_name: Option<Box<str>>,
    /// `TLSv1.2` or `TLSv1.3`.
    pub version: &'static str,
    /// The cipher suite's name, as registered.
    pub cipher: &'static str,
    /// Whether an earlier session was resumed.
    pub is_resumed: bool,
    /// The protocol agreed by ALPN.
    pub protocol: Option<Box<[u8]>>,
    /// What the peer's certificate says, if it has shown one.
    pub peer: Option<Box<Facts>>,
}

/// One side of a handshake.
pub(super) trait Side {
    type Data;
    fn process<'c, 'i>(&'c mut self, incoming: &'i mut [u8]) -> UnbufferedStatus<'c, 'i, Self::Data>;
    fn common(&self) -> &CommonState;
    fn into_kernel(self) -> Result<(ExtractedSecrets, Kernel), rustls::Error>;
}

impl Side for UnbufferedServerConnection {
    type Data = ServerConnectionData;

    fn process<'c, 'i>(&'c mut self, incoming: &'i mut [u8]) -> UnbufferedStatus<'c, 'i, Self::Data> {
        self.process_tls_records(incoming)
    }

    fn common(&self) -> &CommonState {
        self
    }

    fn into_kernel(self) -> Result<(ExtractedSecrets, Kernel), rustls::Error> {
        let (secrets, kernel): (_, KernelConnection<ServerConnectionData>) =
            self.dangerous_into_kernel_connection()?;
        Ok((secrets, Kernel::Server(kernel)))
    }
}

impl Side for UnbufferedClientConnection {
    type Data = ClientConnectionData;

    fn process<'c, 'i>(&'c mut self, incoming: &'i mut [u8]) -> UnbufferedStatus<'c, 'i, Self::Data> {
        self.process_tls_records(incoming)
    }

    fn common(&self) -> &CommonState {
        self
    }

    fn into_kernel(self) -> Result<(ExtractedSecrets, Kernel), rustls::Error> {
        let (secrets, kernel): (_, KernelConnection<ClientConnectionData>) =
            self.dangerous_into_kernel_connection()?;
        Ok((secrets, Kernel::Client(kernel)))
    }
}

/// Serves a client's handshake. Its last flight may still be on its way out when this is over.
///
/// # Errors
/// The peer was told why, as far as it listens.
pub async fn accept(socket: net::Stream, config: Arc<ServerConfig>) -> Result<Stream, HandshakeError> {
    shake(UnbufferedServerConnection::new(config)?, socket).await
}

/// Greets an endpoint, which must be who `name` says. All that was to be sent is then sent.
///
/// # Errors
/// As above.
pub async fn connect(
    socket: net::Stream,
    config: Arc<ClientConfig>,
    name: ServerName<'static>,
) -> Result<Stream, HandshakeError> {
    let mut stream = shake(UnbufferedClientConnection::new(config, name)?, socket).await?;
    if stream.tx.is_sending() {
        let (result, _) = poll_fn(|cx| stream.tx.poll_sent(cx)).await;
        result?;
    }
    Ok(stream)
}

async fn shake<S: Side>(mut side: S, mut socket: net::Stream) -> Result<Stream, HandshakeError> {
    let mut incoming = Incoming::default();
    let mut flight = Vec::new();
    let mut asked = None;
    loop {
        pace().await;
        let advanced = advance(&mut side, &mut incoming, &mut flight);
        asked = select::take_asked().or(asked);
        match advanced {
            Ok(Step::Done) => break,
            Ok(Step::Blocked) => {
                send(&mut socket.tx, &mut flight).await?;
                incoming.receive(&mut socket.rx).await?;
            }
            Err(error) => {
                // What rustls has to say about it goes out; whether it arrives is the peer's business.
                if send(&mut socket.tx, &mut flight).await.is_ok() && socket.tx.is_sending() {
                    let _ = poll_fn(|cx| poll_out(&mut socket.tx, cx)).await;
                }
                return Err(error);
            }
        }
    }
    send(&mut socket.tx, &mut flight).await?;
    let session = session(&side, asked);
    let suite_limit = limit(side.common());
    let (secrets, kernel) = side.into_kernel()?;
    let rest = match incoming.bytes.as_slice() {
        [] => None,
        rest => Some(buffer(rest).ok_or_else(no_buffer)?),
    };
    Ok(Stream::secured(socket, kernel, secrets, suite_limit, session, rest)?)
}

/// How far a handshake has come.
enum Step {
    Done,
    /// More must come; and what is to be said before was said.
    Blocked,
}

/// Does all that can be done without further bytes. What is to be sent is put into `flight`.
fn advance<S: Side>(
    side: &mut S,
    incoming: &mut Incoming,
    flight: &mut Vec<u8>,
) -> Result<Step, HandshakeError> {
    loop {
        let status = side.process(&mut incoming.bytes[..incoming.shown]);
        let discard = status.discard;
        let is_blocked = match status.state {
            Ok(ConnectionState::EncodeTlsData(mut data)) => {
                encode(flight, |room| data.encode(room))?;
                false
            }
            Ok(ConnectionState::TransmitTlsData(transmit)) => {
                transmit.done();
                false
            }
            Ok(ConnectionState::BlockedHandshake | ConnectionState::WriteTraffic(_)) => true,
            // Nothing is shown to rustls beyond its handshake, and there is no early data.
            Ok(_) => return Err(HandshakeError::Gone),
            Err(error) => {
                incoming.discard(discard);
                tell(side, incoming, flight);
                return Err(error.into());
            }
        };
        incoming.discard(discard);
        if !is_blocked {
            continue;
        }
        if !side.common().is_handshaking() {
            return Ok(Step::Done);
        }
        if !incoming.show_next()? {
            return Ok(Step::Blocked);
        }
    }
}

/// Adds the alert that rustls has made of an error.
fn tell<S: Side>(side: &mut S, incoming: &mut Incoming, flight: &mut Vec<u8>) {
    loop {
        // With what is left of its input, which it may still refer to.
        let status = side.process(&mut incoming.bytes[..incoming.shown]);
        let discard = status.discard;
        match status.state {
            Ok(ConnectionState::EncodeTlsData(mut data)) => {
                if encode(flight, |room| data.encode(room)).is_err() {
                    return;
                }
            }
            _ => return,
        }
        incoming.discard(discard);
    }
}

fn encode(
    flight: &mut Vec<u8>,
    mut data: impl FnMut(&mut [u8]) -> Result<usize, EncodeError>,
) -> Result<(), HandshakeError> {
    let used = flight.len();
    let mut room = 0;
    loop {
        if used + room > FLIGHT_BYTES_MAX {
            return Err(HandshakeError::TooLong);
        }
        flight.resize(used + room, 0);
        match data(&mut flight[used..]) {
            Ok(count) => {
                flight.truncate(used + count);
                return Ok(());
            }
            Err(EncodeError::InsufficientSize(needed)) if needed.required_size > room => {
                room = needed.required_size;
            }
            Err(_) => return Err(HandshakeError::Gone),
        }
    }
}

/// What came, of which rustls sees whole records only, one more each time that it needs one: so nothing beyond the handshake
/// is decrypted by it.
#[derive(Default)]
struct Incoming {
    bytes: Vec<u8>,
    shown: usize,
    received: usize,
}

impl Incoming {
    fn discard(&mut self, count: usize) {
        self.bytes.drain(..count);
        self.shown -= count;
    }

    /// Shows one more record, if it is there.
    fn show_next(&mut self) -> Result<bool, HandshakeError> {
        let hidden = &self.bytes[self.shown..];
        match record_len(hidden) {
            Ok(Some(length)) if length <= hidden.len() => self.shown += length,
            Ok(_) => return Ok(false),
            Err(_) if self.received == hidden.len() && is_http(hidden) => {
                return Err(HandshakeError::PlainHttp);
            }
            // rustls says what is wrong with it, to the peer too.
            Err(_) => self.shown = self.bytes.len(),
        }
        Ok(true)
    }

    async fn receive(&mut self, rx: &mut Rx) -> Result<(), HandshakeError> {
        if !rx.is_armed() && !rx.arm_lazily() {
            return Err(no_buffer());
        }
        let (result, buf) = poll_fn(|cx| rx.poll_recv(cx)).await;
        let count = result?;
        if count == 0 {
            return Err(HandshakeError::Gone);
        }
        self.received += count;
        if self.received > HANDSHAKE_BYTES_MAX {
            return Err(HandshakeError::TooLong);
        }
        self.bytes.extend_from_slice(buf.filled());
        Ok(())
    }
}

/// Whether a client seems to have taken the port for one without TLS.
fn is_http(bytes: &[u8]) -> bool {
    bytes.first().is_some_and(u8::is_ascii_uppercase)
}

/// Sends a flight. Its last piece may still be on its way when this is over.
async fn send(tx: &mut Tx, flight: &mut Vec<u8>) -> Result<(), HandshakeError> {
    for piece in flight.chunks(crate::buf::SMALL_BYTES) {
        if tx.is_sending() {
            poll_fn(|cx| poll_out(tx, cx)).await?;
        }
        let mut buf = Buf::take(Size::Small).ok_or_else(no_buffer)?;
        let fits = buf.push(piece);
        debug_assert!(fits, "no piece is larger than a small buffer");
        tx.arm(buf);
    }
    flight.clear();
    if tx.is_sending() && !tx.goes_on_alone() {
        poll_fn(|cx| poll_out(tx, cx)).await?;
    }
    Ok(())
}

fn poll_out(tx: &mut Tx, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
    let (result, _) = ready!(tx.poll_sent(cx));
    Poll::Ready(result)
}

fn no_buffer() -> HandshakeError {
    io::Error::from(io::ErrorKind::OutOfMemory).into()
}

fn buffer(bytes: &[u8]) -> Option<Buf> {
    let size = if bytes.len() + RECORD_BYTES_MAX <= crate::buf::SMALL_BYTES { Size::Small } else { Size::Large };
    let mut buf = Buf::take(size)?;
    buf.push(bytes).then_some(buf)
}

fn session<S: Side>(side: &S, server_name: Option<Box<str>>) -> Session {
    let common = side.common();
    Session {
        server_name,
        version: match common.protocol_version() {
            Some(rustls::ProtocolVersion::TLSv1_2) => "TLSv1.2",
            _ => "TLSv1.3",
        },
        cipher: common.negotiated_cipher_suite().and_then(|suite| suite.suite().as_str()).unwrap_or("unknown"),
        is_resumed: common.handshake_kind() == Some(rustls::HandshakeKind::Resumed),
        protocol: common.alpn_protocol().map(Into::into),
        peer: common
            .peer_certificates()
            .and_then(|chain| Facts::parse(chain.first()?).ok())
            .map(Box::new),
    }
}

/// Records that the agreed cipher bears under one key.
fn limit(common: &CommonState) -> u64 {
    match common.negotiated_cipher_suite() {
        Some(rustls::SupportedCipherSuite::Tls13(suite)) => suite.common.confidentiality_limit,
        Some(rustls::SupportedCipherSuite::Tls12(suite)) => suite.common.confidentiality_limit,
        None => 0,
    }
}

thread_local! {
    /// The turn, and the steps that it has seen.
    static STEPS: Cell<(u64, u32)> = const { Cell::new((0, 0)) };
}

/// Waits for a turn of the core in which there is room for a step: a storm of handshakes takes its share of each turn, and
/// requests that are under way have theirs.
async fn pace() {
    poll_fn(|cx| {
        let Some(turn) = clock::turn() else { return Poll::Ready(()) };
        let (seen, steps) = STEPS.get();
        let steps = if seen == turn { steps } else { 0 };
        if steps >= STEPS_PER_TURN {
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        STEPS.set((turn, steps + 1));
        Poll::Ready(())
    })
    .await;
}
