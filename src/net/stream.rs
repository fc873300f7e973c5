//! A connected socket as two halves, each with at most one operation under way. Operations survive the futures that
//! wait for them, so a receive can be armed early, watched by one phase and finished by the next.
#![expect(unsafe_code, reason = "shutdown(2) and its like on a descriptor that monoio owns")]

use std::{
    io,
    os::fd::{AsRawFd, RawFd},
    task::{Context, Poll, ready},
};

use monoio::net::TcpStream;

use super::{
    count::{Count, Origin, count, received, sent},
    event::is_epoll,
    operation::{Outcome, Slot, slots},
};
use crate::buf::Buf;

/// A connected socket. Dropping it ends what is under way and closes it.
pub struct Stream {
    /// The receiving half.
    pub rx: Rx,
    /// The sending half.
    pub tx: Tx,
    fd: RawFd,
}

/// The receiving half of a [`Stream`].
pub struct Rx {
    slot: Slot,
    origin: Origin,
}

/// The sending half of a [`Stream`].
pub struct Tx {
    slot: Slot,
    origin: Origin,
    fd: RawFd,
    /// Bytes given to the kernel.
    sent: u64,
    begins_when_polled: bool,
}

impl Stream {
    pub(super) fn new(socket: TcpStream, origin: Origin) -> Self {
        let fd = socket.as_raw_fd();
        let (receive, send) = slots(socket);
        Self {
            rx: Rx { slot: receive, origin },
            tx: Tx { slot: send, origin, fd, sent: 0, begins_when_polled: is_epoll() },
            fd,
        }
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        // An operation in flight holds the descriptor and its buffer: end it, so that both come home.
        let under_way = [self.rx.is_armed(), self.tx.is_sending()];
        under_way.iter().filter(|is_under_way| **is_under_way).for_each(|_| count(Count::Cancel));
        if under_way != [false, false] {
            shutdown(self.fd, libc::SHUT_RDWR);
        }
    }
}

impl std::fmt::Debug for Stream {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Stream").field("fd", &self.fd).finish_non_exhaustive()
    }
}

fn shutdown(fd: RawFd, how: libc::c_int) {
    // SAFETY: `fd` belongs to a `Stream` that is alive; shutdown touches no memory.
    unsafe { libc::shutdown(fd, how) };
}

impl Rx {
    /// Starts to receive into the buffer's spare room. One receive at a time.
    #[inline]
    pub fn arm(&mut self, buf: Buf) {
        count(Count::Receive);
        self.slot.as_mut().start(buf);
    }

    /// Whether a receive was started and its result not yet taken.
    #[inline]
    pub fn is_armed(&self) -> bool {
        self.slot.is_started()
    }

    /// The result of the receive that was armed: how many bytes came (0: the peer's end) and the buffer.
    #[inline]
    pub fn poll_recv(&mut self, cx: &mut Context<'_>) -> Poll<Outcome> {
        let outcome = ready!(self.slot.as_mut().poll(cx));
        match &outcome.0 {
            Ok(bytes) => received(self.origin, *bytes),
            Err(_) => count(Count::Error),
        }
        Poll::Ready(outcome)
    }
}

impl Tx {
    /// Starts to send the buffer's filled bytes. One send at a time.
    #[inline]
    pub fn arm(&mut self, buf: Buf) {
        count(Count::Send);
        self.slot.as_mut().start(buf);
    }

    /// Bytes that the peer has taken so far, as far as it has said so.
    pub fn taken(&self) -> u64 {
        let mut queued: libc::c_int = 0;
        // SAFETY: the descriptor is open for as long as `self`, and the kernel writes one int.
        unsafe { libc::ioctl(self.fd, libc::TIOCOUTQ, &raw mut queued) };
        self.sent.saturating_sub(u64::try_from(queued).unwrap_or(0))
    }

    /// Whether a send begins only when it is polled, as it does on epoll.
    #[inline]
    pub fn begins_when_polled(&self) -> bool {
        self.begins_when_polled
    }

    /// Whether a send was started and its result not yet taken.
    #[inline]
    pub fn is_sending(&self) -> bool {
        self.slot.is_started()
    }

    /// Finishes what [`Tx::arm`] started: sends on until all bytes are out, and gives the emptied buffer back.
    #[inline]
    pub fn poll_sent(&mut self, cx: &mut Context<'_>) -> Poll<(io::Result<()>, Buf)> {
        loop {
            let (result, mut buf) = ready!(self.slot.as_mut().poll(cx));
            match result {
                Ok(0) => return Poll::Ready((Err(io::ErrorKind::WriteZero.into()), buf)),
                Ok(bytes) => {
                    sent(self.origin, bytes);
                    self.sent += bytes as u64;
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
        shutdown(self.fd, libc::SHUT_WR);
    }
}
