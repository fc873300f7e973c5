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
    ClientConfig, CommonState, ExtractedSecrets, InvalidMessage, PeerMisbehaved, ServerConfig,
    client::{ClientConnectionData, UnbufferedClientConnection},
    kernel::KernelConnection,
    server::{ServerConnectionData, UnbufferedServerConnection},
    unbuffered::{ConnectionState, EncodeError, UnbufferedStatus},
};
use rustls_pki_types::ServerName;
use thiserror::Error;

use super::{
    certificate::Facts,
    inbound::copy_of,
    record::{RecordError, record_len},
    select,
    stream::{Kernel, KernelSide, Stream},
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
    /// What the client's certificate says, if it has shown one. Of an endpoint's no one asks once it is believed.
    pub peer: Option<Box<Facts>>,
}

/// One side of a handshake.
pub(super) trait Side {
    type Data;
    /// Whether what the peer's certificate says is kept.
    const KEEPS_PEER: bool;
    fn process<'c, 'i>(&'c mut self, incoming: &'i mut [u8]) -> UnbufferedStatus<'c, 'i, Self::Data>;
    fn common(&self) -> &CommonState;
    fn into_kernel(self) -> Result<(ExtractedSecrets, KernelSide), rustls::Error>;
}

impl Side for UnbufferedServerConnection {
    type Data = ServerConnectionData;
    const KEEPS_PEER: bool = true;

    fn process<'c, 'i>(&'c mut self, incoming: &'i mut [u8]) -> UnbufferedStatus<'c, 'i, Self::Data> {
        self.process_tls_records(incoming)
    }

    fn common(&self) -> &CommonState {
        self
    }

    fn into_kernel(self) -> Result<(ExtractedSecrets, KernelSide), rustls::Error> {
        let (secrets, kernel): (_, KernelConnection<ServerConnectionData>) =
            self.dangerous_into_kernel_connection()?;
        Ok((secrets, KernelSide::Server(kernel)))
    }
}

impl Side for UnbufferedClientConnection {
    type Data = ClientConnectionData;
    const KEEPS_PEER: bool = false;

    fn process<'c, 'i>(&'c mut self, incoming: &'i mut [u8]) -> UnbufferedStatus<'c, 'i, Self::Data> {
        self.process_tls_records(incoming)
    }

    fn common(&self) -> &CommonState {
        self
    }

    fn into_kernel(self) -> Result<(ExtractedSecrets, KernelSide), rustls::Error> {
        let (secrets, kernel): (_, KernelConnection<ClientConnectionData>) =
            self.dangerous_into_kernel_connection()?;
        Ok((secrets, KernelSide::Client(kernel)))
    }
}

/// Serves a client's handshake, of which `early` has come already. Its last flight may still be on its way out when this is over.
///
/// # Errors
/// The peer was told why, as far as it listens.
pub async fn accept(
    socket: net::Stream,
    config: Arc<ServerConfig>,
    early: Option<Buf>,
) -> Result<Stream, HandshakeError> {
    let mut handshake = Handshake::new(UnbufferedServerConnection::new(config)?);
    if let Some(early) = early {
        handshake.on_received(early.filled())?;
    }
    handshake.run(socket).await
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
    let mut stream = Handshake::new(UnbufferedClientConnection::new(config, name)?).run(socket).await?;
    if stream.tx.is_sending() {
        let (result, _) = poll_fn(|cx| stream.tx.poll_sent(cx)).await;
        result?;
    }
    Ok(stream)
}

/// What who speaks HTTP without TLS is told, in his own words.
const PLAIN_ANSWER: &[u8] = b"HTTP/1.1 400 Bad Request\r\nContent-Type: text/plain\r\nContent-Length: 34\r\n\
    Connection: close\r\n\r\nThis port speaks TLS: use https://\n";

/// A handshake under way.
pub(super) struct Handshake<S> {
    side: S,
    incoming: Incoming,
    /// What is to be sent.
    flight: Vec<u8>,
    /// The name that a client has asked for.
    asked: Option<Box<str>>,
}

/// How far a handshake has come.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Step {
    Done,
    /// More must come; and what is to be said before was said.
    Blocked,
}

/// What a handshake came to.
pub(super) struct Shaken {
    pub(super) kernel: Kernel,
    pub(super) secrets: ExtractedSecrets,
    pub(super) session: Session,
    /// What came behind it.
    pub(super) rest: Vec<u8>,
}

impl<S: Side> Handshake<S> {
    pub(super) fn new(side: S) -> Self {
        Self { side, incoming: Incoming::default(), flight: Vec::new(), asked: None }
    }

    async fn run(mut self, mut socket: net::Stream) -> Result<Stream, HandshakeError> {
        if let Err(error) = self.shake(&mut socket).await {
            if matches!(error, HandshakeError::PlainHttp) {
                self.flight = PLAIN_ANSWER.to_vec();
            }
            see_off(&mut socket, &mut self.flight).await;
            return Err(error);
        }
        let Shaken { kernel, secrets, session, rest } = self.finish()?;
        let rest = match &*rest {
            [] => None,
            rest => Some(copy_of(rest).ok_or_else(no_buffer)?),
        };
        Ok(Stream::secured(socket, kernel, secrets, session, rest)?)
    }

    async fn shake(&mut self, socket: &mut net::Stream) -> Result<(), HandshakeError> {
        loop {
            pace().await;
            let step = self.advance()?;
            send(&mut socket.tx, &mut self.flight).await?;
            if step == Step::Done {
                return Ok(());
            }
            // A peer that sends little at a time is not worth a step each time.
            while !self.incoming.has_next() {
                let buf = receive(&mut socket.rx).await?;
                self.on_received(buf.filled())?;
            }
        }
    }

    /// Takes what came.
    ///
    /// # Errors
    /// It is too much.
    pub(super) fn on_received(&mut self, bytes: &[u8]) -> Result<(), HandshakeError> {
        self.incoming.add(bytes)
    }

    /// Takes what is to be sent.
    pub(super) fn take_flight(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.flight)
    }

    /// Does all that can be done without further bytes.
    ///
    /// # Errors
    /// What is to be sent may be an alert.
    pub(super) fn advance(&mut self) -> Result<Step, HandshakeError> {
        let step = self.advance_side();
        if let Some(asked) = select::take_asked() {
            self.asked = Some(asked);
        }
        step
    }

    fn advance_side(&mut self) -> Result<Step, HandshakeError> {
        let Self { side, incoming, flight, .. } = self;
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
                // Something is left of what it was shown: a piece of a message under keys that are no longer in use.
                let is_clean = incoming.shown == 0;
                return if is_clean { Ok(Step::Done) } else { Err(pending_fragment()) };
            }
            if !incoming.show_next()? {
                return Ok(Step::Blocked);
            }
        }
    }

    /// What a handshake that is done came to.
    ///
    /// # Errors
    /// It is not done.
    pub(super) fn finish(self) -> Result<Shaken, HandshakeError> {
        let session = session(&self.side, self.asked);
        let sequence_max = limit(self.side.common());
        let (secrets, side) = self.side.into_kernel()?;
        Ok(Shaken { kernel: Kernel::new(side, sequence_max), secrets, session, rest: self.incoming.bytes })
    }
}

fn pending_fragment() -> HandshakeError {
    rustls::Error::from(PeerMisbehaved::KeyEpochWithPendingFragment).into()
}

/// Adds the alert that rustls has made of an error. No more is asked of it than that: it would come to the same error again,
/// and to another alert.
fn tell<S: Side>(side: &mut S, incoming: &mut Incoming, flight: &mut Vec<u8>) {
    while side.common().wants_write() {
        // With what is left of its input, which it may still refer to.
        let status = side.process(&mut incoming.bytes[..incoming.shown]);
        let discard = status.discard;
        let Ok(ConnectionState::EncodeTlsData(mut data)) = status.state else { return };
        if encode(flight, |room| data.encode(room)).is_err() {
            return;
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
    /// What follows is no record, and rustls was shown all of it, to say so.
    is_lost: bool,
}

impl Incoming {
    fn add(&mut self, bytes: &[u8]) -> Result<(), HandshakeError> {
        self.received += bytes.len();
        if self.received > HANDSHAKE_BYTES_MAX {
            return Err(HandshakeError::TooLong);
        }
        self.bytes.extend_from_slice(bytes);
        Ok(())
    }

    fn discard(&mut self, count: usize) {
        self.bytes.drain(..count);
        self.shown -= count;
    }

    /// Whether there is a record to be shown, or something that will never be one.
    fn has_next(&self) -> bool {
        let hidden = &self.bytes[self.shown..];
        record_len(hidden).map_or(true, |length| length.is_some_and(|length| length <= hidden.len()))
    }

    /// Shows one more record, if it is there.
    fn show_next(&mut self) -> Result<bool, HandshakeError> {
        if self.is_lost {
            // rustls has nothing against it so far.
            return Err(rustls::Error::from(InvalidMessage::InvalidContentType).into());
        }
        let hidden = &self.bytes[self.shown..];
        match record_len(hidden) {
            Ok(Some(length)) if length <= hidden.len() => self.shown += length,
            Ok(_) => return Ok(false),
            Err(_) if self.received == hidden.len() && is_http(hidden) => {
                return Err(HandshakeError::PlainHttp);
            }
            Err(RecordError::TooLong) => return Err(HandshakeError::TooLong),
            // rustls says what is wrong with it, to the peer too.
            Err(_) => {
                self.is_lost = true;
                self.shown = self.bytes.len();
            }
        }
        Ok(true)
    }
}

/// Whether a client seems to have taken the port for one without TLS.
fn is_http(bytes: &[u8]) -> bool {
    bytes.first().is_some_and(u8::is_ascii_uppercase)
}

async fn receive(rx: &mut Rx) -> Result<Buf, HandshakeError> {
    if !rx.is_armed() && !rx.arm_lazily() {
        return Err(no_buffer());
    }
    let (result, buf) = poll_fn(|cx| rx.poll_recv(cx)).await;
    if result? == 0 { Err(HandshakeError::Gone) } else { Ok(buf) }
}

/// Sends what there is to say about a handshake that failed. Whether it arrives is the peer's business; but what it has sent
/// meanwhile is read, since closing with bytes unread would reset the connection, and it would not learn why.
async fn see_off(socket: &mut net::Stream, flight: &mut Vec<u8>) {
    if send(&mut socket.tx, flight).await.is_err() {
        return;
    }
    if socket.tx.is_sending() && poll_fn(|cx| poll_out(&mut socket.tx, cx)).await.is_err() {
        return;
    }
    socket.tx.finish();
    let mut read = 0;
    while read < HANDSHAKE_BYTES_MAX && socket.rx.has_waiting() {
        let Ok(buf) = receive(&mut socket.rx).await else { return };
        read += buf.len();
    }
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

fn session<S: Side>(side: &S, server_name: Option<Box<str>>) -> Session {
    let common = side.common();
    Session {
        server_name,
        version: match common.protocol_version() {
            Some(rustls::ProtocolVersion::TLSv1_2) => "TLSv1.2",
            _ => "TLSv1.3",
        },
        cipher: common
            .negotiated_cipher_suite()
            .and_then(|suite| suite.suite().as_str())
            .unwrap_or("unknown"),
        is_resumed: common.handshake_kind() == Some(rustls::HandshakeKind::Resumed),
        protocol: common.alpn_protocol().map(Into::into),
        peer: common
            .peer_certificates()
            .filter(|_| S::KEEPS_PEER)
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
