//! Connecting to an address, in a way that can be given up: the attempt is made on a non-blocking socket and its end
//! awaited, so that whoever stops waiting shuts the socket down and leaves nothing behind.
#![expect(unsafe_code, reason = "shutdown(2) and options of a descriptor that monoio owns")]

use std::{
    io,
    net::SocketAddr,
    os::fd::{AsRawFd, BorrowedFd, RawFd},
};

use monoio::net::TcpStream;
use socket2::{Domain, Protocol, SockRef, Socket, Type};

use super::{
    count::{Count, Origin, count},
    event::is_epoll,
    stream::Stream,
};

/// Shuts the socket down unless the attempt came to its end, so that the poll in flight ends and closes it.
struct GiveUp(Option<RawFd>);

impl Drop for GiveUp {
    fn drop(&mut self) {
        if let Some(fd) = self.0 {
            // SAFETY: the socket that owns `fd` is dropped after this guard; shutdown touches no memory.
            unsafe { libc::shutdown(fd, libc::SHUT_RDWR) };
            count(Count::Cancel);
        }
    }
}

/// Connects to `address`. Bounded only by the kernel: the caller drops the future at its deadline.
pub async fn connect(address: SocketAddr) -> io::Result<Stream> {
    count(Count::Connect);
    let connected = attempt(address).await;
    if connected.is_err() {
        count(Count::Error);
    }
    connected
}

async fn attempt(address: SocketAddr) -> io::Result<Stream> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM.nonblocking(), Some(Protocol::TCP))?;
    socket.set_tcp_nodelay(true)?;
    let under_way = match socket.connect(&address.into()) {
        Ok(()) => false,
        Err(error) if error.raw_os_error() == Some(libc::EINPROGRESS) => true,
        Err(error) => return Err(error),
    };
    let stream = TcpStream::from_std(socket.into())?;
    if under_way {
        let mut guard = GiveUp(Some(stream.as_raw_fd()));
        let ready = stream.writable(false).await;
        guard.0 = None;
        ready?;
        if let Some(error) = SockRef::from(&descriptor(&stream)).take_error()? {
            return Err(error);
        }
    }
    // io_uring waits for a blocking socket by itself and returns EAGAIN for a non-blocking one.
    if !is_epoll() {
        SockRef::from(&descriptor(&stream)).set_nonblocking(false)?;
    }
    Ok(Stream::new(stream, Origin::Connected))
}

fn descriptor(stream: &TcpStream) -> BorrowedFd<'_> {
    // SAFETY: the descriptor is open for as long as the stream that is borrowed.
    unsafe { BorrowedFd::borrow_raw(stream.as_raw_fd()) }
}
