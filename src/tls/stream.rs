//! A connection as the proxy sees it: plain, or one whose bytes are records on the wire. Both have two halves of the same
//! shape, with operations that survive whoever waits for them. Records are opened and made in the buffers that carry the
//! bytes anyway.

use std::{
    cell::{Cell, RefCell},
    io,
    rc::Rc,
    task::{Context, Poll, ready},
};

use rustls::{
    AlertDescription, ContentType, ExtractedSecrets, HandshakeType, ProtocolVersion,
    client::ClientConnectionData, kernel::KernelConnection, server::ServerConnectionData,
};

use super::{
    handshake::Session,
    record::{
        Opened, PLAINTEXT_BYTES_MAX, Protection, RECORD_BYTES_MAX, RecordError, SEAL_BACK_BYTES,
        SEAL_FRONT_BYTES, record_len,
    },
};
use crate::{
    buf::{Buf, FRAMING_BYTES, LARGE_BYTES, SMALL_BYTES, Size},
    net::{self, Outcome},
};

/// Records in a row that carry nothing: tickets, renewed keys, and empty ones. Who sends more does nothing else.
const IDLE_RECORDS_MAX: u32 = 32;

/// Bytes of a handshake message behind the handshake, which is a ticket.
const MESSAGE_BYTES_MAX: usize = 64 * 1024;

/// A connected socket, plain or secured. Dropping it ends what is under way and closes it.
#[derive(Debug)]
pub struct Stream {
    /// The receiving half.
    pub rx: Rx,
    /// The sending half.
    pub tx: Tx,
    session: Option<Rc<Session>>,
    /// Goes last: it closes the socket, if there is one of its own.
    _socket: Option<net::Socket>,
}

/// The receiving half of a [`Stream`].
#[derive(Debug)]
pub enum Rx {
    /// Bytes are as they come.
    Plain(net::Rx),
    /// Bytes come in records.
    Secured(Box<SecuredRx>),
    /// Bytes are made of something else.
    Other(Box<dyn OtherRx>),
}

/// The sending half of a [`Stream`].
#[derive(Debug)]
pub enum Tx {
    /// Bytes go as they are.
    Plain(net::Tx),
    /// Bytes go in records.
    Secured(Box<SecuredTx>),
    /// Bytes are made into something else.
    Other(Box<dyn OtherTx>),
}

/// A receiving half that is no socket's, such as that of a stream of HTTP/2. Its methods are those of [`Rx`].
pub trait OtherRx {
    /// See [`Rx::arm`].
    fn arm(&mut self, buf: Buf);
    /// See [`Rx::arm_lazily`].
    fn arm_lazily(&mut self) -> bool;
    /// See [`Rx::is_armed`].
    fn is_armed(&self) -> bool;
    /// See [`Rx::poll_recv`].
    fn poll_recv(&mut self, cx: &mut Context<'_>) -> Poll<Outcome<usize>>;
}

/// A sending half that is no socket's. Its methods are those of [`Tx`]; no send of it goes on without being polled.
pub trait OtherTx {
    /// See [`Tx::arm`].
    fn arm(&mut self, buf: Buf);
    /// See [`Tx::is_sending`].
    fn is_sending(&self) -> bool;
    /// See [`Tx::poll_sent`].
    fn poll_sent(&mut self, cx: &mut Context<'_>) -> Poll<Outcome<()>>;
    /// See [`Tx::taken`].
    fn taken(&self) -> u64;
    /// See [`Tx::abort`].
    fn abort(&mut self);
    /// See [`Tx::finish`].
    fn finish(&mut self);
}

impl std::fmt::Debug for dyn OtherRx {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("OtherRx")
    }
}

impl std::fmt::Debug for dyn OtherTx {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("OtherTx")
    }
}

/// What rustls keeps of a connection: what renews its keys.
pub(super) enum Kernel {
    Client(KernelConnection<ClientConnectionData>),
    Server(KernelConnection<ServerConnectionData>),
}

/// What both halves of a secured connection need.
struct Shared {
    seal: RefCell<Protection>,
    kernel: RefCell<Kernel>,
    version: ProtocolVersion,
    sequence_max: u64,
    session: Rc<Session>,
    /// The peer wants our keys renewed (RFC 8446 §4.6.3): before the next bytes that we send.
    owes_update: Cell<bool>,
    /// A send is under way, so that nothing may come between its records.
    is_sending: Cell<bool>,
    /// Nothing more is to be said: we said that we close, or what was said is not understood.
    is_over: Cell<bool>,
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared").field("session", &self.session).finish_non_exhaustive()
    }
}

impl Stream {
    /// A connection without TLS.
    pub fn plain(socket: net::Stream) -> Self {
        let net::Stream { rx, tx, socket } = socket;
        Self { rx: Rx::Plain(rx), tx: Tx::Plain(tx), session: None, _socket: Some(socket) }
    }

    /// A connection that is made of another one's streams; `session` is that one's.
    pub fn other(rx: Box<dyn OtherRx>, tx: Box<dyn OtherTx>, session: Option<Rc<Session>>) -> Self {
        Self { rx: Rx::Other(rx), tx: Tx::Other(tx), session, _socket: None }
    }

    /// A connection whose handshake is over; `rest` is what came behind it.
    pub(super) fn secured(
        socket: net::Stream,
        kernel: Kernel,
        secrets: ExtractedSecrets,
        sequence_max: u64,
        session: Session,
        rest: Option<Buf>,
    ) -> Result<Self, rustls::Error> {
        let version = kernel.version();
        let session = Rc::new(session);
        let shared = Rc::new(Shared {
            seal: RefCell::new(Protection::new(version, secrets.tx, sequence_max)?),
            kernel: RefCell::new(kernel),
            version,
            sequence_max,
            session: Rc::clone(&session),
            owes_update: Cell::new(false),
            is_sending: Cell::new(false),
            is_over: Cell::new(false),
        });
        let net::Stream { rx, tx, socket } = socket;
        let rx = SecuredRx {
            open: Protection::new(version, secrets.rx, u64::MAX)?,
            inner: rx,
            shared: Rc::clone(&shared),
            partial: rest,
            held: None,
            armed: Armed::No,
            state: State::Open,
            idle_records: 0,
            message: Vec::new(),
        };
        let tx = SecuredTx { inner: tx, shared: Rc::clone(&shared), rest: None, failure: None };
        Ok(Self {
            rx: Rx::Secured(Box::new(rx)),
            tx: Tx::Secured(Box::new(tx)),
            session: Some(session),
            _socket: Some(socket),
        })
    }

    /// What its handshake came to, if it is secured.
    pub fn session(&self) -> Option<&Rc<Session>> {
        self.session.as_ref()
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        if let Tx::Secured(tx) = &mut self.tx {
            tx.say_close();
        }
    }
}

/// Calls the method of the half that is there.
macro_rules! either {
    ($half:expr, $this:pat => $call:expr) => {
        match $half {
            Self::Plain($this) => $call,
            Self::Secured($this) => $call,
            Self::Other($this) => $call,
        }
    };
}

impl Rx {
    /// Starts to receive into the buffer's spare room. One receive at a time. What comes may be in another buffer when this
    /// one is empty.
    #[inline]
    pub fn arm(&mut self, buf: Buf) {
        either!(self, rx => rx.arm(buf));
    }

    /// Starts to receive into a buffer that is taken only when something comes; `false` when there is none.
    #[inline]
    pub fn arm_lazily(&mut self) -> bool {
        either!(self, rx => rx.arm_lazily())
    }

    /// Whether a receive was started and its result not yet taken.
    #[inline]
    pub fn is_armed(&self) -> bool {
        either!(self, rx => rx.is_armed())
    }

    /// The result of the receive that was armed: how many bytes came (0: the peer's end) and the buffer.
    /// [`io::ErrorKind::OutOfMemory`] means that something came and the core had no buffer for it.
    #[inline]
    pub fn poll_recv(&mut self, cx: &mut Context<'_>) -> Poll<Outcome<usize>> {
        either!(self, rx => rx.poll_recv(cx))
    }

    /// Whether something waits to be received, the peer's end included. A system call.
    pub fn has_waiting(&self) -> bool {
        match self {
            Self::Plain(rx) => rx.has_waiting(),
            Self::Secured(rx) => rx.has_waiting(),
            Self::Other(_) => false,
        }
    }

    /// Whether its bytes can go through a [`net::Pipe`].
    pub fn can_splice(&self) -> bool {
        matches!(self, Self::Plain(rx) if rx.can_splice())
    }

    /// The socket's half, where bytes are as they come.
    pub fn as_plain(&mut self) -> Option<&mut net::Rx> {
        match self {
            Self::Plain(rx) => Some(rx),
            Self::Secured(_) | Self::Other(_) => None,
        }
    }
}

impl Tx {
    /// Starts to send the buffer's filled bytes. One send at a time.
    #[inline]
    pub fn arm(&mut self, buf: Buf) {
        either!(self, tx => tx.arm(buf));
    }

    /// Whether a send was started and has not ended well, or its result was waited for and not yet taken.
    #[inline]
    pub fn is_sending(&self) -> bool {
        either!(self, tx => tx.is_sending())
    }

    /// Whether a send that was started goes on without being polled.
    #[inline]
    pub fn goes_on_alone(&self) -> bool {
        match self {
            Self::Plain(tx) => tx.goes_on_alone(),
            Self::Secured(tx) => tx.goes_on_alone(),
            Self::Other(_) => false,
        }
    }

    /// Finishes what [`Tx::arm`] started: sends on until all bytes are out, and gives an emptied buffer back.
    #[inline]
    pub fn poll_sent(&mut self, cx: &mut Context<'_>) -> Poll<Outcome<()>> {
        either!(self, tx => tx.poll_sent(cx))
    }

    /// Whether what [`Tx::arm`] started has ended, without asking to be woken where it goes on alone.
    #[inline]
    pub fn look(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Plain(tx) => tx.look(cx),
            Self::Secured(tx) => tx.look(cx),
            Self::Other(tx) => tx.poll_sent(cx).map(|(result, _)| result),
        }
    }

    /// Bytes that the peer has taken so far, as far as it has said so; records count whole.
    pub fn taken(&self) -> u64 {
        match self {
            Self::Plain(tx) => tx.taken(),
            Self::Secured(tx) => tx.inner.taken(),
            Self::Other(tx) => tx.taken(),
        }
    }

    /// Resets the connection.
    pub fn abort(&mut self) {
        match self {
            Self::Plain(tx) => tx.abort(),
            Self::Secured(tx) => {
                tx.shared.is_over.set(true);
                tx.inner.abort();
            }
            Self::Other(tx) => tx.abort(),
        }
    }

    /// Ends this direction: the peer sees the end of the stream, and can still send.
    pub fn finish(&mut self) {
        match self {
            Self::Plain(tx) => tx.finish(),
            Self::Secured(tx) => {
                tx.say_close();
                tx.inner.finish();
            }
            Self::Other(tx) => tx.finish(),
        }
    }

    /// Whether bytes can come to it through a [`net::Pipe`].
    pub fn can_splice(&self) -> bool {
        matches!(self, Self::Plain(tx) if tx.can_splice())
    }

    /// The socket's half, where bytes go as they are.
    pub fn as_plain(&mut self) -> Option<&mut net::Tx> {
        match self {
            Self::Plain(tx) => Some(tx),
            Self::Secured(_) | Self::Other(_) => None,
        }
    }
}

impl Kernel {
    fn version(&self) -> ProtocolVersion {
        match self {
            Self::Client(kernel) => kernel.protocol_version(),
            Self::Server(kernel) => kernel.protocol_version(),
        }
    }
}

impl Shared {
    /// New keys for what comes, or for what goes.
    fn renewed(&self, sends: bool) -> Result<Protection, rustls::Error> {
        let secrets = match (&mut *self.kernel.borrow_mut(), sends) {
            (Kernel::Client(kernel), true) => kernel.update_tx_secret(),
            (Kernel::Client(kernel), false) => kernel.update_rx_secret(),
            (Kernel::Server(kernel), true) => kernel.update_tx_secret(),
            (Kernel::Server(kernel), false) => kernel.update_rx_secret(),
        };
        Protection::new(self.version, secrets?, if sends { self.sequence_max } else { u64::MAX })
    }

    /// An alert as a record (RFC 8446 §6).
    fn alert(&self, description: AlertDescription) -> Option<Buf> {
        let level = if description == AlertDescription::CloseNotify { 1 } else { 2 };
        let mut buf = Buf::take_reserved()?;
        buf.reset(SEAL_FRONT_BYTES, SEAL_BACK_BYTES);
        let is_sealed = buf.push(&[level, u8::from(description)])
            && self.seal.borrow_mut().seal(ContentType::Alert, &mut buf).is_ok();
        is_sealed.then_some(buf)
    }
}

/// The receiving half of a secured connection.
pub struct SecuredRx {
    inner: net::Rx,
    open: Protection,
    shared: Rc<Shared>,
    /// What came of a record that is not whole.
    partial: Option<Buf>,
    /// Plaintext that found no room.
    held: Option<Buf>,
    armed: Armed,
    state: State,
    /// Records in a row that carried nothing.
    idle_records: u32,
    /// What came of a handshake message that is not whole.
    message: Vec<u8>,
}

/// Where plaintext is to go.
enum Armed {
    No,
    /// Into whatever buffer it comes in.
    Anywhere,
    /// Behind what is in this one.
    Behind(Buf),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Open,
    /// The peer said that it sends no more.
    Ended,
    /// What comes is not understood.
    Failed(io::ErrorKind),
}

impl std::fmt::Debug for SecuredRx {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SecuredRx").field("state", &self.state).finish_non_exhaustive()
    }
}

impl SecuredRx {
    fn arm(&mut self, buf: Buf) {
        debug_assert!(!self.is_armed(), "one receive at a time");
        if !buf.is_empty() {
            self.armed = Armed::Behind(buf);
            self.receive();
            return;
        }
        self.armed = Armed::Anywhere;
        if self.needs_nothing() {
            return;
        }
        // A large buffer takes several records at once, and what came of one before.
        if buf.spare_len() >= 2 * RECORD_BYTES_MAX {
            self.receive_into(buf);
        } else {
            drop(buf);
            self.receive();
        }
    }

    fn arm_lazily(&mut self) -> bool {
        self.armed = Armed::Anywhere;
        self.receive();
        if self.state == State::Failed(io::ErrorKind::OutOfMemory) {
            self.armed = Armed::No;
            return false;
        }
        true
    }

    fn is_armed(&self) -> bool {
        !matches!(self.armed, Armed::No)
    }

    fn has_waiting(&self) -> bool {
        self.held.is_some() || self.partial.is_some() || self.inner.has_waiting()
    }

    /// Whether the next result is here already.
    fn needs_nothing(&self) -> bool {
        self.held.is_some() || self.state != State::Open || self.partial.as_ref().is_some_and(has_record)
    }

    /// Asks the socket for more, unless the next result is here already. What came of a record is added to.
    fn receive(&mut self) {
        if self.needs_nothing() {
            return;
        }
        match self.partial.take() {
            None if self.inner.arm_lazily() => {}
            Some(partial) => match with_record_room(partial) {
                Some(partial) => self.inner.arm(partial),
                None => self.state = State::Failed(io::ErrorKind::OutOfMemory),
            },
            None => self.state = State::Failed(io::ErrorKind::OutOfMemory),
        }
    }

    fn receive_into(&mut self, mut buf: Buf) {
        if let Some(partial) = self.partial.take() {
            let fits = buf.push(partial.filled());
            debug_assert!(fits, "it is less than a record");
        }
        self.inner.arm(buf);
    }

    fn poll_recv(&mut self, cx: &mut Context<'_>) -> Poll<Outcome<usize>> {
        if !self.is_armed() {
            return Poll::Pending;
        }
        loop {
            if let Some(held) = self.held.take() {
                return Poll::Ready(self.deliver(held));
            }
            let came = match self.partial.take_if(|partial| has_record(partial)) {
                Some(whole) => whole,
                None if self.state == State::Open => {
                    let (result, buf) = ready!(self.inner.poll_recv(cx));
                    match result {
                        Ok(1..) => buf,
                        // Only the peer's own word makes an end: anyone on the way can end a connection.
                        Ok(0) => {
                            self.state = State::Failed(io::ErrorKind::UnexpectedEof);
                            continue;
                        }
                        Err(error) => {
                            self.armed = Armed::No;
                            return Poll::Ready((Err(error), buf));
                        }
                    }
                }
                None => return Poll::Ready(self.end()),
            };
            match self.open_all(came) {
                Ok(Some(plaintext)) => return Poll::Ready(self.deliver(plaintext)),
                Ok(None) => self.receive(),
                Err(alert) => self.fail(alert),
            }
        }
    }

    /// The end, or the failure, each time that it is asked for.
    fn end(&mut self) -> Outcome<usize> {
        let buf = match std::mem::replace(&mut self.armed, Armed::No) {
            Armed::Behind(buf) => buf,
            Armed::No | Armed::Anywhere => Buf::none(),
        };
        match self.state {
            State::Failed(kind) => (Err(kind.into()), buf),
            State::Open | State::Ended => (Ok(0), buf),
        }
    }

    fn deliver(&mut self, mut plaintext: Buf) -> Outcome<usize> {
        match std::mem::replace(&mut self.armed, Armed::No) {
            Armed::No | Armed::Anywhere => (Ok(plaintext.len()), plaintext),
            Armed::Behind(mut buf) => {
                let count = plaintext.len().min(buf.spare_len());
                let fits = buf.push(&plaintext.filled()[..count]);
                debug_assert!(fits, "there is room for it");
                plaintext.consume(count);
                self.held = Some(plaintext).filter(|rest| !rest.is_empty());
                (Ok(count), buf)
            }
        }
    }

    /// Opens the whole records in `buf`. Their plaintext stays in it, moved together; a record that is not whole is kept.
    fn open_all(&mut self, mut buf: Buf) -> Result<Option<Buf>, AlertDescription> {
        let (mut read, mut written) = (0, 0);
        while self.state == State::Open {
            let Some(length) = record_len(&buf.filled()[read..]).map_err(alert_of)? else { break };
            let Some(record) = buf.filled_mut().get_mut(read..read + length) else { break };
            let Opened { kind, plaintext } = self.open.open(record).map_err(alert_of)?;
            self.idle_records += 1;
            if kind == ContentType::ApplicationData {
                let bytes = plaintext.start + read..plaintext.end + read;
                if written == 0 && read == 0 {
                    // The ordinary case is one record, which is not moved.
                    buf.consume(bytes.start);
                    read = length - bytes.start;
                    written = bytes.len();
                } else {
                    let count = bytes.len();
                    buf.filled_mut().copy_within(bytes, written);
                    written += count;
                    read += length;
                }
                if written > 0 {
                    self.idle_records = 0;
                }
            } else {
                let message = record[plaintext].to_vec();
                read += length;
                self.on_message(kind, &message)?;
            }
            if self.idle_records > IDLE_RECORDS_MAX {
                return Err(AlertDescription::UnexpectedMessage);
            }
        }
        if self.state == State::Open && read < buf.len() {
            if written == 0 {
                buf.consume(read);
                self.partial = Some(buf);
                return Ok(None);
            }
            self.partial = Some(copy_of(&buf.filled()[read..]).ok_or(AlertDescription::InternalError)?);
        }
        buf.truncate(written);
        Ok(Some(buf).filter(|buf| !buf.is_empty()))
    }

    /// Anything that is not application data.
    fn on_message(&mut self, kind: ContentType, message: &[u8]) -> Result<(), AlertDescription> {
        match kind {
            ContentType::Alert => match *message {
                [_, description] if AlertDescription::from(description) == AlertDescription::CloseNotify => {
                    self.state = State::Ended;
                }
                // A user's cancellation is followed by the close (RFC 8446 §6.1). TLS 1.2 has warnings.
                [_, description]
                    if AlertDescription::from(description) == AlertDescription::UserCanceled => {}
                [1, _] if self.shared.version == ProtocolVersion::TLSv1_2 => {}
                [_, _] => {
                    self.shared.is_over.set(true);
                    self.state = State::Failed(io::ErrorKind::ConnectionReset);
                }
                _ => return Err(AlertDescription::DecodeError),
            },
            ContentType::Handshake if self.shared.version == ProtocolVersion::TLSv1_3 => {
                if message.is_empty() || self.message.len() + message.len() > MESSAGE_BYTES_MAX {
                    return Err(AlertDescription::UnexpectedMessage);
                }
                self.message.extend_from_slice(message);
                while let Some((kind, body)) = next_message(&self.message) {
                    let (length, body) = (body.len() + 4, body.to_vec());
                    let is_last = length == self.message.len();
                    self.message.drain(..length);
                    self.on_handshake(kind, &body, is_last)?;
                }
                if self.message.is_empty() {
                    self.message = Vec::new();
                }
            }
            // No renegotiation (RFC 9325 §3.5), and no change of ciphers behind the handshake.
            _ => return Err(AlertDescription::UnexpectedMessage),
        }
        Ok(())
    }

    fn on_handshake(
        &mut self,
        kind: HandshakeType,
        body: &[u8],
        is_last: bool,
    ) -> Result<(), AlertDescription> {
        match (kind, body) {
            // What follows is under the new keys, so nothing of the old may follow (RFC 8446 §5.1).
            (HandshakeType::KeyUpdate, [request @ (0 | 1)]) if is_last => {
                self.open = self.shared.renewed(false).map_err(|_| AlertDescription::InternalError)?;
                if *request == 1 {
                    self.shared.owes_update.set(true);
                }
            }
            (HandshakeType::NewSessionTicket, ticket) => match &mut *self.shared.kernel.borrow_mut() {
                Kernel::Client(kernel) => {
                    kernel.handle_new_session_ticket(ticket).map_err(|_| AlertDescription::DecodeError)?;
                }
                Kernel::Server(_) => return Err(AlertDescription::UnexpectedMessage),
            },
            _ => return Err(AlertDescription::UnexpectedMessage),
        }
        Ok(())
    }

    /// Nothing more is understood: the peer is told why, if that can be said between two records.
    fn fail(&mut self, alert: AlertDescription) {
        self.state = State::Failed(match alert {
            AlertDescription::InternalError => io::ErrorKind::OutOfMemory,
            _ => io::ErrorKind::InvalidData,
        });
        if !self.shared.is_sending.get()
            && !self.shared.is_over.replace(true)
            && let Some(record) = self.shared.alert(alert)
        {
            self.inner.send_at_once(record.filled());
        }
    }
}

fn alert_of(error: RecordError) -> AlertDescription {
    match error {
        RecordError::Malformed => AlertDescription::UnexpectedMessage,
        RecordError::TooLong => AlertDescription::RecordOverflow,
        RecordError::BadMac => AlertDescription::BadRecordMac,
        RecordError::Exhausted => AlertDescription::InternalError,
    }
}

/// A whole handshake message at the front of `bytes`: its type and body.
fn next_message(bytes: &[u8]) -> Option<(HandshakeType, &[u8])> {
    let &[kind, high, middle, low, ref rest @ ..] = bytes else { return None };
    let length = u32::from_be_bytes([0, high, middle, low]) as usize;
    Some((kind.into(), rest.get(..length)?))
}

/// Whether a buffer begins with a whole record, or with something that will never be one.
fn has_record(buf: &Buf) -> bool {
    match record_len(buf.filled()) {
        Ok(Some(length)) => length <= buf.len(),
        Ok(None) => false,
        Err(_) => true,
    }
}

/// The same bytes with room for the rest of the record that they begin.
fn with_record_room(mut buf: Buf) -> Option<Buf> {
    let whole = record_len(buf.filled()).ok().flatten().unwrap_or(RECORD_BYTES_MAX);
    if buf.len() + buf.spare_len() >= whole {
        return Some(buf);
    }
    if whole + 2 * FRAMING_BYTES <= buf.capacity() {
        buf.compact();
        return Some(buf);
    }
    let mut large = Buf::take(Size::Large)?;
    large.reset(FRAMING_BYTES, FRAMING_BYTES);
    large.push(buf.filled()).then_some(large)
}

/// A buffer of its own for the beginning of a record, with room for the rest.
fn copy_of(bytes: &[u8]) -> Option<Buf> {
    let whole = record_len(bytes).ok().flatten().unwrap_or(RECORD_BYTES_MAX).max(bytes.len());
    let size = if whole + 2 * FRAMING_BYTES <= SMALL_BYTES { Size::Small } else { Size::Large };
    let mut buf = Buf::take(size)?;
    buf.reset(FRAMING_BYTES, FRAMING_BYTES);
    buf.push(bytes).then_some(buf)
}

/// The sending half of a secured connection.
pub struct SecuredTx {
    inner: net::Tx,
    shared: Rc<Shared>,
    /// Plaintext that is to follow what is under way.
    rest: Option<Buf>,
    /// Why no more can be sent.
    failure: Option<io::ErrorKind>,
}

impl std::fmt::Debug for SecuredTx {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SecuredTx").field("failure", &self.failure).finish_non_exhaustive()
    }
}

/// Plaintext that goes into one large buffer of records.
const PLAINTEXT_PER_SEND: usize = {
    let per_record = SEAL_FRONT_BYTES + SEAL_BACK_BYTES;
    // The last one's room is kept for keys that are to be renewed first.
    (LARGE_BYTES / (PLAINTEXT_BYTES_MAX + per_record)) * PLAINTEXT_BYTES_MAX
};

impl SecuredTx {
    fn arm(&mut self, mut buf: Buf) {
        self.shared.is_sending.set(true);
        let mut seal = self.shared.seal.borrow_mut();
        let is_simple = buf.len() <= PLAINTEXT_BYTES_MAX
            && buf.has_room(SEAL_FRONT_BYTES, SEAL_BACK_BYTES)
            && !self.shared.owes_update.get()
            && !seal.is_used_up();
        if !is_simple {
            drop(seal);
            self.rest = Some(buf);
            return self.send_on();
        }
        match seal.seal(ContentType::ApplicationData, &mut buf) {
            Ok(()) => self.inner.arm(buf),
            Err(_) => self.failure = Some(io::ErrorKind::Other),
        }
    }

    /// Sends as much of the rest as fits into one buffer.
    fn send_on(&mut self) {
        let Some(mut rest) = self.rest.take() else { return };
        match self.records_of(&mut rest) {
            Ok(records) => {
                self.rest = Some(rest);
                self.inner.arm(records);
            }
            Err(kind) => self.failure = Some(kind),
        }
    }

    fn records_of(&mut self, rest: &mut Buf) -> Result<Buf, io::ErrorKind> {
        let mut seal = self.shared.seal.borrow_mut();
        // New keys, and one record.
        let least = rest.len() + KEY_UPDATE.len() + 2 * (SEAL_FRONT_BYTES + SEAL_BACK_BYTES);
        let size = if least <= SMALL_BYTES { Size::Small } else { Size::Large };
        let mut out = Buf::take(size).ok_or(io::ErrorKind::OutOfMemory)?;
        let failed = |_| io::ErrorKind::Other;
        let is_to_renew = seal.is_used_up() && self.shared.version == ProtocolVersion::TLSv1_3;
        if self.shared.owes_update.take() || is_to_renew {
            seal.seal_behind(ContentType::Handshake, &KEY_UPDATE, &mut out).map_err(failed)?;
            *seal = self.shared.renewed(true).map_err(|_| io::ErrorKind::Other)?;
        }
        let mut left = PLAINTEXT_PER_SEND;
        while !rest.is_empty() && left > 0 {
            let count = rest.len().min(PLAINTEXT_BYTES_MAX).min(left);
            seal.seal_behind(ContentType::ApplicationData, &rest.filled()[..count], &mut out).map_err(failed)?;
            rest.consume(count);
            left -= count;
        }
        Ok(out)
    }

    fn is_sending(&self) -> bool {
        self.inner.is_sending() || self.rest.is_some() || self.failure.is_some()
    }

    fn goes_on_alone(&self) -> bool {
        self.inner.goes_on_alone() && self.rest.is_none() && self.failure.is_none()
    }

    fn poll_sent(&mut self, cx: &mut Context<'_>) -> Poll<Outcome<()>> {
        loop {
            if let Some(kind) = self.failure {
                self.shared.is_over.set(true);
                return Poll::Ready((Err(kind.into()), Buf::none()));
            }
            let (result, buf) = ready!(self.inner.poll_sent(cx));
            if result.is_err() {
                self.shared.is_over.set(true);
                self.shared.is_sending.set(false);
                return Poll::Ready((result, buf));
            }
            match self.rest.take_if(|rest| rest.is_empty()) {
                Some(sent) => {
                    self.shared.is_sending.set(false);
                    return Poll::Ready((Ok(()), sent));
                }
                None if self.rest.is_some() => self.send_on(),
                None => {
                    self.shared.is_sending.set(false);
                    return Poll::Ready((Ok(()), buf));
                }
            }
        }
    }

    fn look(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.rest.is_some() || self.failure.is_some() {
            return self.poll_sent(cx).map(|(result, _)| result);
        }
        let result = ready!(self.inner.look(cx));
        self.shared.is_sending.set(false);
        Poll::Ready(result)
    }

    /// Tells the peer that no more comes (RFC 8446 §6.1), if that can be said between two records. Whether it hears it is
    /// its own business.
    fn say_close(&mut self) {
        if self.inner.is_sending() || self.rest.is_some() || self.shared.is_over.replace(true) {
            return;
        }
        if let Some(record) = self.shared.alert(AlertDescription::CloseNotify) {
            self.inner.send_at_once(record.filled());
        }
    }
}

/// New keys follow; the peer's need not be renewed (RFC 8446 §4.6.3).
const KEY_UPDATE: [u8; 5] = [24, 0, 0, 1, 0];
