//! Connecting to an address, in a way that can be given up: the attempt is made on a non-blocking socket and its end
//! awaited, so that whoever stops waiting closes the socket and leaves nothing behind.

use std::{io, net::SocketAddr};

use socket2::{Domain, Protocol, SockRef, Socket, Type};

use super::{
    count::{Count, Origin, count},
    stream::Stream,
    wait::Waitable,
};

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
    let socket = Waitable::new(socket.into())?;
    if under_way {
        socket.writable().await?;
        if let Some(error) = SockRef::from(&socket).take_error()? {
            return Err(error);
        }
    }
    match socket {
        Waitable::Ring(fd) => {
            // The ring waits for a blocking socket by itself and returns EAGAIN for a non-blocking one.
            SockRef::from(&fd).set_nonblocking(false)?;
            Stream::on_ring(fd, Origin::Connected)
        }
        Waitable::Epoll(stream) => Ok(Stream::on_epoll(stream, Origin::Connected)),
    }
}
