//! A connected socket as two halves, each with at most one operation under way. Operations survive the futures that
//! wait for them, so a receive can be armed early, watched by one phase and finished by the next. Whether the core's
//! ring or monoio's epoll driver does them is hidden here.
#![expect(unsafe_code, reason = "shutdown(2) and its like on a descriptor that the stream owns")]

use std::{
    io,
    net::SocketAddr,
    os::fd::{AsRawFd, BorrowedFd, OwnedFd, RawFd},
    task::{Context, Poll, ready},
};

use monoio::net::TcpStream;
use socket2::SockRef;

use super::{
    count::{Count, Origin, count, received, sent},
    epoll::{Slot, slots},
    ring::{RingSocket, SocketNumber, ready as ready_for},
};
use crate::buf::{Buf, Size};

/// An operation's outcome: its result and its buffer.
pub type Outcome<T> = (io::Result<T>, Buf);

/// A connected socket. Dropping it ends what is under way and closes it.
pub struct Stream {
    /// The receiving half.
    pub rx: Rx,
    /// The sending half.
    pub tx: Tx,
    /// Goes last: it closes the socket.
    pub socket: Socket,
}

/// What closes a [`Stream`]'s socket, and ends what is under way, when it is dropped; on epoll the halves do so.
#[derive(Debug)]
pub struct Socket {
    _on_ring: Option<RingSocket>,
}

/// The receiving half of a [`Stream`].
pub struct Rx {
    receiver: Receiver,
    fd: RawFd,
}

enum Receiver {
    Ring(SocketNumber),
    Epoll { slot: Slot, origin: Origin },
}

/// The sending half of a [`Stream`].
pub struct Tx {
    sender: Sender,
    fd: RawFd,
}

enum Sender {
    Ring(SocketNumber),
    Epoll { slot: Slot, origin: Origin, sent: u64 },
}

impl Stream {
    /// On this thread's ring; the socket must be a blocking one.
    pub(super) fn on_ring(socket: OwnedFd, origin: Origin) -> io::Result<Self> {
        let Some(socket) = RingSocket::new(socket, origin) else {
            return Err(io::ErrorKind::Unsupported.into());
        };
        let (number, fd) = (socket.number(), socket.as_raw_fd());
        let (rx, tx) = (Receiver::Ring(number), Sender::Ring(number));
        Ok(Self {
            rx: Rx { receiver: rx, fd },
            tx: Tx { sender: tx, fd },
            socket: Socket { _on_ring: Some(socket) },
        })
    }

    /// On monoio's epoll driver.
    pub(super) fn on_epoll(socket: TcpStream, origin: Origin) -> Self {
        let fd = socket.as_raw_fd();
        let (receive, send) = slots(socket);
        let rx = Receiver::Epoll { slot: receive, origin };
        let tx = Sender::Epoll { slot: send, origin, sent: 0 };
        Self { rx: Rx { receiver: rx, fd }, tx: Tx { sender: tx, fd }, socket: Socket { _on_ring: None } }
    }
}

impl Stream {
    /// The address at this end. A system call.
    pub fn local_address(&self) -> io::Result<SocketAddr> {
        // SAFETY: the descriptor is open for as long as `self`.
        let socket = unsafe { BorrowedFd::borrow_raw(self.rx.fd) };
        let address = SockRef::from(&socket).local_addr()?;
        address.as_socket().ok_or_else(|| io::ErrorKind::Unsupported.into())
    }
}

impl std::fmt::Debug for Stream {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Stream").field("fd", &self.rx.fd).finish_non_exhaustive()
    }
}

impl std::fmt::Debug for Rx {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Rx").field("fd", &self.fd).finish_non_exhaustive()
    }
}

impl std::fmt::Debug for Tx {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tx").field("fd", &self.fd).finish_non_exhaustive()
    }
}

impl Drop for Rx {
    fn drop(&mut self) {
        if matches!(&self.receiver, Receiver::Epoll { slot, .. } if slot.is_started()) {
            count(Count::Cancel);
        }
    }
}

impl Drop for Tx {
    fn drop(&mut self) {
        if matches!(&self.sender, Sender::Epoll { slot, .. } if slot.is_started()) {
            count(Count::Cancel);
        }
    }
}

impl Rx {
    /// Starts to receive into the buffer's spare room. One receive at a time.
    #[inline]
    pub fn arm(&mut self, buf: Buf) {
        match &mut self.receiver {
            Receiver::Ring(number) => number.receive(Some(buf)),
            Receiver::Epoll { slot, .. } => {
                count(Count::Receive);
                slot.as_mut().start(buf);
            }
        }
    }

    /// Starts to receive into a small buffer that is taken only when something comes, as far as the driver can do that:
    /// a socket that waits holds no memory. `false` when there is no buffer.
    #[inline]
    pub fn arm_lazily(&mut self) -> bool {
        match &mut self.receiver {
            Receiver::Ring(number) => number.receive(None),
            Receiver::Epoll { .. } => match Buf::take(Size::Small) {
                Some(buf) => self.arm(buf),
                None => return false,
            },
        }
        true
    }

    /// Whether its bytes can go through a [`super::Pipe`]: the driver is the ring, and nothing is under way or held.
    pub fn can_splice(&self) -> bool {
        matches!(&self.receiver, Receiver::Ring(number) if number.is_quiet())
    }

    /// Whether something waits in the kernel to be received, the peer's end included. A system call.
    pub fn has_waiting(&self) -> bool {
        let mut byte = 0u8;
        let flags = libc::MSG_PEEK | libc::MSG_DONTWAIT;
        // SAFETY: one valid byte, and the descriptor is open for as long as `self`.
        let peeked = unsafe { libc::recv(self.fd(), (&raw mut byte).cast(), 1, flags) };
        peeked >= 0 || io::Error::last_os_error().kind() != io::ErrorKind::WouldBlock
    }

    /// Tells, as long as the stream is open, whether the peer has left: by an error of the socket, or by the end of what it sends
    /// where it `leaves_with_its_end`.
    pub fn probe(&self, leaves_with_its_end: bool) -> Probe {
        Probe { fd: self.fd, leaves_with_its_end, awaited: 0 }
    }

    /// Waits until there is something to receive, or the peer's end. Only for a socket that can be spliced.
    pub async fn readable(&self) -> io::Result<()> {
        ready_for(self.fd(), libc::POLLIN).await
    }

    pub(super) fn fd(&self) -> RawFd {
        self.fd
    }

    pub(super) fn count_received(&self, bytes: usize) {
        if let Receiver::Ring(number) = &self.receiver {
            number.count_received(bytes);
        }
    }

    /// Whether a receive was started and its result not yet taken.
    #[inline]
    pub fn is_armed(&self) -> bool {
        match &self.receiver {
            Receiver::Ring(number) => number.is_receiving(),
            Receiver::Epoll { slot, .. } => slot.is_started(),
        }
    }

    /// The result of the receive that was armed: how many bytes came (0: the peer's end) and the buffer.
    /// [`io::ErrorKind::OutOfMemory`] means that something came and the core had no buffer for it.
    #[inline]
    pub fn poll_recv(&mut self, cx: &mut Context<'_>) -> Poll<Outcome<usize>> {
        let (slot, origin) = match &mut self.receiver {
            Receiver::Ring(number) => return number.poll_received(cx),
            Receiver::Epoll { slot, origin } => (slot, *origin),
        };
        let outcome = ready!(slot.as_mut().poll(cx));
        match &outcome.0 {
            Ok(bytes) => received(origin, *bytes),
            Err(_) => count(Count::Error),
        }
        Poll::Ready(outcome)
    }
}

/// Asks whether a socket's peer is still there, while the socket is open.
#[derive(Debug, Clone, Copy)]
pub struct Probe {
    fd: RawFd,
    /// Whether the end of what it sends is its leave.
    leaves_with_its_end: bool,
    /// Bytes still to come from it, at least.
    awaited: u64,
}

impl Probe {
    /// The same, for a peer of which so many bytes are still to come, at least: if it ends before them it has left.
    pub fn awaiting(self, bytes: u64) -> Self {
        Self { awaited: bytes, ..self }
    }

    /// Whether it has left. Up to two system calls.
    pub fn has_left(self) -> bool {
        let mut poll = libc::pollfd { fd: self.fd, events: libc::POLLRDHUP, revents: 0 };
        // SAFETY: one valid pollfd, no waiting.
        let has_ended = unsafe { libc::poll(&raw mut poll, 1, 0) == 1 };
        if !has_ended || poll.revents != libc::POLLRDHUP {
            return has_ended;
        }
        self.leaves_with_its_end || self.waiting() < self.awaited
    }

    /// Bytes that can be received.
    fn waiting(self) -> u64 {
        let mut queued: libc::c_int = 0;
        // SAFETY: the kernel writes one int.
        unsafe { libc::ioctl(self.fd, libc::FIONREAD, &raw mut queued) };
        u64::try_from(queued).unwrap_or(0)
    }
}

impl Tx {
    /// Sends a few bytes at once, if the kernel takes them. Only while no send is under way. Whether they were sent no one
    /// asks: they are a connection's last words.
    pub fn send_at_once(&self, bytes: &[u8]) {
        let flags = libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL;
        // SAFETY: valid bytes, and the descriptor is open for as long as `self`.
        unsafe { libc::send(self.fd, bytes.as_ptr().cast(), bytes.len(), flags) };
    }

    /// Starts to send the buffer's filled bytes. One send at a time.
    #[inline]
    pub fn arm(&mut self, buf: Buf) {
        match &mut self.sender {
            Sender::Ring(number) => number.send(buf),
            Sender::Epoll { slot, .. } => {
                count(Count::Send);
                slot.as_mut().start(buf);
            }
        }
    }

    /// Whether bytes can come to it through a [`super::Pipe`]: the driver is the ring, and no send is under way.
    pub fn can_splice(&self) -> bool {
        matches!(&self.sender, Sender::Ring(number) if !number.is_sending())
    }

    /// Waits until it takes bytes again, or is broken.
    pub async fn writable(&self) -> io::Result<()> {
        ready_for(self.fd, libc::POLLOUT).await
    }

    pub(super) fn fd(&self) -> RawFd {
        self.fd
    }

    pub(super) fn count_sent(&self, bytes: usize) {
        if let Sender::Ring(number) = &self.sender {
            number.count_sent(bytes);
        }
    }

    /// Bytes that the peer has taken so far, as far as it has said so.
    pub fn taken(&self) -> u64 {
        let mut queued: libc::c_int = 0;
        // SAFETY: the descriptor is open for as long as `self`, and the kernel writes one int.
        unsafe { libc::ioctl(self.fd, libc::TIOCOUTQ, &raw mut queued) };
        let sent = match &self.sender {
            Sender::Ring(number) => number.sent(),
            Sender::Epoll { sent, .. } => *sent,
        };
        sent.saturating_sub(u64::try_from(queued).unwrap_or(0))
    }

    /// Whether a send that was started goes on without being polled, as it does on the ring.
    #[inline]
    pub fn goes_on_alone(&self) -> bool {
        matches!(self.sender, Sender::Ring(_))
    }

    /// Whether a send was started and has not ended well, or its result was waited for and not yet taken.
    #[inline]
    pub fn is_sending(&self) -> bool {
        match &self.sender {
            Sender::Ring(number) => number.is_sending(),
            Sender::Epoll { slot, .. } => slot.is_started(),
        }
    }

    /// Finishes what [`Tx::arm`] started: sends on until all bytes are out, and gives the emptied buffer back.
    #[inline]
    pub fn poll_sent(&mut self, cx: &mut Context<'_>) -> Poll<Outcome<()>> {
        match &self.sender {
            Sender::Ring(number) => number.poll_sent(Some(cx)),
            Sender::Epoll { .. } => self.poll_epoll(cx),
        }
    }

    /// Whether what [`Tx::arm`] started has ended, without asking to be woken where it goes on alone.
    #[inline]
    pub fn look(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let outcome = match &self.sender {
            Sender::Ring(number) => number.poll_sent(None),
            Sender::Epoll { .. } => self.poll_epoll(cx),
        };
        outcome.map(|(result, _)| result)
    }

    fn poll_epoll(&mut self, cx: &mut Context<'_>) -> Poll<Outcome<()>> {
        loop {
            let Sender::Epoll { slot, origin, sent: all } = &mut self.sender else { return Poll::Pending };
            let (result, mut buf) = ready!(slot.as_mut().poll(cx));
            match result {
                Ok(0) => return Poll::Ready((Err(io::ErrorKind::WriteZero.into()), buf)),
                Ok(bytes) => {
                    sent(*origin, bytes);
                    *all += bytes as u64;
                    buf.consume(bytes);
                }
                Err(error) => {
                    count(Count::Error);
                    return Poll::Ready((Err(error), buf));
                }
            }
            if buf.is_empty() {
                return Poll::Ready((Ok(()), buf));
            }
            self.arm(buf);
        }
    }

    /// Resets the connection: what is under way ends, and the peer learns that what it got is not all (RFC 9112 §9.6:
    /// a plain close would look like the end of a body that only the close ends).
    pub fn abort(&mut self) {
        let nowhere = libc::sockaddr { sa_family: libc::AF_UNSPEC as libc::sa_family_t, sa_data: [0; 14] };
        // SAFETY: a valid address of the length given; connecting to no family dissolves the connection.
        unsafe { libc::connect(self.fd, &raw const nowhere, size_of::<libc::sockaddr>() as libc::socklen_t) };
    }

    /// Ends this direction: the peer sees the end of the stream, and can still send.
    pub fn finish(&mut self) {
        // SAFETY: the descriptor is open for as long as `self`; shutdown touches no memory.
        unsafe { libc::shutdown(self.fd, libc::SHUT_WR) };
    }
}

#[cfg(test)]
mod tests {
    use std::{
        io::Write,
        net::{Shutdown, TcpListener, TcpStream},
        time::Duration,
    };

    use super::*;

    fn pair() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let peer = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        (peer, listener.accept().unwrap().0)
    }

    /// Waits for what the kernel brings over the loopback in its own time.
    fn receives(own: &TcpStream, count: usize) {
        own.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
        let mut bytes = vec![0; count + 1];
        while own.peek(&mut bytes).unwrap() < count {
            std::thread::yield_now();
        }
    }

    #[test]
    fn a_peer_leaves_with_its_end_or_before_what_was_awaited() {
        let (mut peer, own) = pair();
        let probe = |leaves_with_its_end| Probe { fd: own.as_raw_fd(), leaves_with_its_end, awaited: 0 };
        peer.write_all(b"body").unwrap();
        receives(&own, 4);
        assert!(!probe(true).awaiting(9).has_left());
        peer.shutdown(Shutdown::Write).unwrap();
        while !probe(true).has_left() {
            std::thread::yield_now();
        }
        assert!(probe(false).awaiting(5).has_left());
        assert!(!probe(false).awaiting(4).has_left() && !probe(false).has_left());
    }

    #[test]
    fn a_peer_that_resets_has_left() {
        let (peer, own) = pair();
        SockRef::from(&peer).set_linger(Some(Duration::ZERO)).unwrap();
        drop(peer);
        let probe = Probe { fd: own.as_raw_fd(), leaves_with_its_end: false, awaited: 0 };
        while !probe.has_left() {
            std::thread::yield_now();
        }
    }
}
