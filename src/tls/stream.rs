//! A connection as the proxy sees it: plain, or one whose bytes are records on the wire. Both have two halves of the same
//! shape, with operations that survive whoever waits for them. Records are opened and made in the buffers that carry the
//! bytes anyway.

use std::{
    cell::{Cell, RefCell},
    io,
    rc::Rc,
    task::{Context, Poll},
};

use rustls::{
    AlertDescription, ExtractedSecrets, client::ClientConnectionData, kernel::KernelConnection,
    server::ServerConnectionData,
};

use super::{
    handshake::Session,
    inbound::{Direction, Inbound, Role, Secrets},
    receive::SecuredRx,
    record::Protection,
    send::{Outbound, SecuredTx},
};
use crate::{
    buf::{Buf, LARGE_BYTES},
    net::{self, Outcome},
};

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

/// What rustls keeps of a connection.
pub(super) enum KernelSide {
    Client(KernelConnection<ClientConnectionData>),
    Server(KernelConnection<ServerConnectionData>),
}

/// What renews a connection's keys.
pub(super) struct Kernel {
    side: KernelSide,
    /// Records that the agreed cipher bears under one key.
    sequence_max: u64,
}

/// What both halves of a secured connection need.
pub(super) struct Shared {
    pub(super) kernel: RefCell<Kernel>,
    session: Rc<Session>,
    /// The peer wants our keys renewed (RFC 8446 §4.6.3): before the next bytes that we send.
    pub(super) owes_update: Cell<bool>,
    /// What is to be said before the connection is closed, unless it was said: that this is its end, or else what is wrong.
    /// Then nothing else is sent any more.
    last: Cell<Option<AlertDescription>>,
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
        session: Session,
        rest: Option<Buf>,
    ) -> Result<Self, rustls::Error> {
        let session = Rc::new(session);
        let role = kernel.role();
        let open = Protection::new(role.version, secrets.rx, u64::MAX)?;
        let seal = Protection::new(role.version, secrets.tx, kernel.sequence_max)?;
        let shared = Rc::new(Shared {
            kernel: RefCell::new(kernel),
            session: Rc::clone(&session),
            owes_update: Cell::new(false),
            last: Cell::new(Some(AlertDescription::CloseNotify)),
        });
        let net::Stream { rx, tx, socket } = socket;
        let rx = SecuredRx::new(rx, Inbound::new(open, role, rest), Rc::clone(&shared));
        let tx = SecuredTx::new(tx, Outbound::new(seal, role.version), Rc::clone(&shared));
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
            // What a panic breaks off must not look complete.
            if std::thread::panicking() {
                tx.say_nothing();
            }
            tx.say_last();
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

    /// Tells whether the peer has left, of which so many bytes are still to come (see [`net::Rx::probe`]); `None` where no socket
    /// can be asked.
    pub fn probe(&self, leaves_with_its_end: bool, awaited: u64) -> Option<net::Probe> {
        // Some may have been received already, and wait here. Nothing is shorter for being encrypted.
        let awaited = awaited.saturating_sub(2 * LARGE_BYTES as u64);
        match self {
            Self::Plain(rx) => Some(rx.probe(leaves_with_its_end).awaiting(awaited)),
            Self::Secured(rx) => Some(rx.probe(leaves_with_its_end).awaiting(awaited)),
            Self::Other(_) => None,
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
        either!(self, tx => tx.taken())
    }

    /// Resets the connection.
    pub fn abort(&mut self) {
        either!(self, tx => tx.abort());
    }

    /// What was sent is not all: where that can be said, the peer does not take the connection's end for an end.
    pub fn break_off(&mut self) {
        match self {
            // A plain connection's end says nothing of the kind, and a reset could destroy what is on its way.
            Self::Plain(_) => {}
            Self::Secured(tx) => tx.break_off(),
            Self::Other(tx) => tx.abort(),
        }
    }

    /// Ends this direction: the peer sees the end of the stream, and can still send.
    pub fn finish(&mut self) {
        either!(self, tx => tx.finish());
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
    pub(super) fn new(side: KernelSide, sequence_max: u64) -> Self {
        Self { side, sequence_max }
    }

    pub(super) fn sequence_max(&self) -> u64 {
        self.sequence_max
    }

    pub(super) fn role(&self) -> Role {
        match &self.side {
            KernelSide::Client(kernel) => Role { version: kernel.protocol_version(), is_client: true },
            KernelSide::Server(kernel) => Role { version: kernel.protocol_version(), is_client: false },
        }
    }
}

impl Secrets for Kernel {
    fn renewed(&mut self, direction: Direction) -> Result<Protection, rustls::Error> {
        let secrets = match (&mut self.side, direction) {
            (KernelSide::Client(kernel), Direction::Receive) => kernel.update_rx_secret(),
            (KernelSide::Client(kernel), Direction::Send) => kernel.update_tx_secret(),
            (KernelSide::Server(kernel), Direction::Receive) => kernel.update_rx_secret(),
            (KernelSide::Server(kernel), Direction::Send) => kernel.update_tx_secret(),
        };
        let sequence_max = match direction {
            // The peer's to know: what it has sent it has sent.
            Direction::Receive => u64::MAX,
            Direction::Send => self.sequence_max,
        };
        Protection::new(self.role().version, secrets?, sequence_max)
    }

    fn on_ticket(&mut self, ticket: &[u8]) -> Result<(), rustls::Error> {
        match &mut self.side {
            KernelSide::Client(kernel) => kernel.handle_new_session_ticket(ticket),
            KernelSide::Server(_) => Err(rustls::Error::General("a ticket for a server".into())),
        }
    }
}

impl Shared {
    /// Whether neither half has failed, and the end was not said.
    pub(super) fn is_sound(&self) -> bool {
        self.last.get() == Some(AlertDescription::CloseNotify)
    }

    /// The first thing that is wrong is what the peer is told, if it is still told anything.
    pub(super) fn say_instead(&self, alert: AlertDescription) {
        if self.is_sound() {
            self.last.set(Some(alert));
        }
    }

    pub(super) fn say_nothing(&self) {
        self.last.set(None);
    }

    /// What is to be said last; it is said once.
    pub(super) fn take_last(&self) -> Option<AlertDescription> {
        self.last.take()
    }
}
