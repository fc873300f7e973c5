//! Listening sockets: bound on the control thread, one per core and address (`SO_REUSEPORT`), accepted from on the core.
#![expect(unsafe_code, reason = "poll(2), listen(2) and shutdown(2) on a descriptor that monoio owns")]

use std::{
    cell::Cell,
    io,
    net::SocketAddr,
    os::fd::{AsRawFd, FromRawFd, IntoRawFd, OwnedFd, RawFd},
};

use monoio::net::TcpListener;
use socket2::{Domain, Protocol, Socket, Type};

use super::{
    count::{Count, Origin, count},
    event::is_epoll,
    stream::Stream,
};

/// A socket that listens, not yet on a core.
#[derive(Debug)]
pub struct BoundListener {
    socket: OwnedFd,
    /// Where it listens, with the port that the kernel chose for port 0.
    pub address: SocketAddr,
}

/// Binds `count` sockets to one address, so that the kernel spreads connections over them. Port 0 becomes one free
/// port for all. An address that someone else listens on is refused, other processes with `SO_REUSEPORT` included.
pub fn bind(address: SocketAddr, backlog: u32, count: usize) -> io::Result<Vec<BoundListener>> {
    // Without SO_REUSEPORT this fails when anyone listens there: a second gateway must not silently share the port.
    let probe = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    prepare(&probe, address)?;
    // Only bound: a client that connected to it while it listened would be reset.
    probe.bind(&address.into())?;
    let address = probe.local_addr()?.as_socket().unwrap_or(address);
    drop(probe);
    (0..count)
        .map(|_| {
            let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
            prepare(&socket, address)?;
            socket.set_reuse_port(true)?;
            // Accepted sockets inherit it, which saves a system call for each.
            socket.set_tcp_nodelay(true)?;
            socket.bind(&address.into())?;
            socket.listen(i32::try_from(backlog).unwrap_or(i32::MAX))?;
            Ok(BoundListener { socket: socket.into(), address })
        })
        .collect()
}

fn prepare(socket: &Socket, address: SocketAddr) -> io::Result<()> {
    socket.set_reuse_address(true)?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    Ok(())
}

/// A listening socket on a core.
pub struct Listener {
    socket: TcpListener,
    fd: RawFd,
    closed: Cell<bool>,
}

impl Listener {
    /// Brings a bound socket to this core.
    pub fn new(bound: BoundListener) -> io::Result<Self> {
        let fd = bound.socket.as_raw_fd();
        // SAFETY: the descriptor is an owned, listening TCP socket, and is given away here.
        let socket = unsafe { std::net::TcpListener::from_raw_fd(bound.socket.into_raw_fd()) };
        if is_epoll() {
            socket.set_nonblocking(true)?;
        }
        Ok(Self { socket: TcpListener::from_std(socket)?, fd, closed: Cell::new(false) })
    }

    /// The next connection and its peer. After [`Listener::close`] it fails.
    pub async fn accept(&self) -> io::Result<(Stream, SocketAddr)> {
        count(Count::Accept);
        match self.socket.accept().await {
            Ok((socket, peer)) => Ok((Stream::new(socket, Origin::Accepted), peer)),
            Err(error) => {
                count(Count::Error);
                Err(error)
            }
        }
    }

    /// Whether a connection waits to be accepted.
    pub fn has_waiting(&self) -> bool {
        let mut poll = libc::pollfd { fd: self.fd, events: libc::POLLIN, revents: 0 };
        // SAFETY: one valid pollfd, no waiting.
        unsafe { libc::poll(&raw mut poll, 1, 0) == 1 }
    }

    /// Makes the kernel take no further connections, but for those that wait already.
    pub fn stop_queueing(&self) {
        // SAFETY: `fd` is this listening socket; the call touches no memory.
        unsafe { libc::listen(self.fd, 0) };
    }

    /// Ends listening; an accept under way fails.
    pub fn close(&self) {
        self.closed.set(true);
        // SAFETY: `fd` is this listening socket; the call touches no memory.
        unsafe { libc::shutdown(self.fd, libc::SHUT_RD) };
    }

    /// Whether it was closed.
    pub fn is_closed(&self) -> bool {
        self.closed.get()
    }
}
