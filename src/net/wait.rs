//! Waiting until a descriptor is ready, on the core's ring or on epoll: for listeners, connects, the mailbox's eventfd and
//! the tick's timerfd.
#![expect(unsafe_code, reason = "wraps any descriptor as a socket, which is all that monoio waits for")]

use std::{
    io,
    os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, IntoRawFd, OwnedFd, RawFd},
};

use monoio::net::TcpStream;

use super::ring;

/// A descriptor whose readiness can be awaited. It must be a non-blocking one.
pub(super) enum Waitable {
    Ring(OwnedFd),
    /// monoio offers it only on its socket types; what is not a socket is only polled and closed by it.
    Epoll(TcpStream),
}

impl Waitable {
    /// On this thread's driver.
    pub(super) fn new(fd: OwnedFd) -> io::Result<Self> {
        if ring::is_open() {
            return Ok(Self::Ring(fd));
        }
        // SAFETY: the descriptor is owned and given away; `TcpStream` only polls and closes it.
        let stream = unsafe { std::net::TcpStream::from_raw_fd(fd.into_raw_fd()) };
        Ok(Self::Epoll(TcpStream::from_std(stream)?))
    }

    /// Waits until it can be read, or accepted from.
    pub(super) async fn readable(&self) -> io::Result<()> {
        match self {
            Self::Ring(fd) => ring::ready(fd.as_raw_fd(), libc::POLLIN).await,
            Self::Epoll(stream) => stream.readable(false).await,
        }
    }

    /// Waits until it can be written, or is connected.
    pub(super) async fn writable(&self) -> io::Result<()> {
        match self {
            Self::Ring(fd) => ring::ready(fd.as_raw_fd(), libc::POLLOUT).await,
            Self::Epoll(stream) => stream.writable(false).await,
        }
    }
}

impl AsFd for Waitable {
    fn as_fd(&self) -> BorrowedFd<'_> {
        // SAFETY: the descriptor is open for as long as what is borrowed.
        unsafe { BorrowedFd::borrow_raw(self.as_raw_fd()) }
    }
}

impl AsRawFd for Waitable {
    fn as_raw_fd(&self) -> RawFd {
        match self {
            Self::Ring(fd) => fd.as_raw_fd(),
            Self::Epoll(stream) => stream.as_raw_fd(),
        }
    }
}
