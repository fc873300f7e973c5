//! Listening sockets: bound on the control thread, one per core and address (`SO_REUSEPORT`), accepted from on the core.
//! What was accepted is a plain socket until a core begins to serve it.
#![expect(
    unsafe_code,
    reason = "poll(2), listen(2) and shutdown(2) on a descriptor that something else owns"
)]

use std::{
    cell::Cell,
    io,
    net::SocketAddr,
    os::fd::{AsRawFd, OwnedFd, RawFd},
};

use monoio::net::TcpStream;
use socket2::{Domain, Protocol, SockRef, Socket, Type};

use super::{
    count::{Count, Origin, count},
    ring,
    stream::Stream,
    wait::Waitable,
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
pub fn bind(
    address: SocketAddr,
    backlog: u32,
    defer_accept: bool,
    count: usize,
) -> io::Result<Vec<BoundListener>> {
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
            if defer_accept {
                set_defer_accept(&socket)?;
            }
            socket.listen(i32::try_from(backlog).unwrap_or(i32::MAX))?;
            Ok(BoundListener { socket: socket.into(), address })
        })
        .collect()
}

/// How long the kernel waits for a connection's first bytes before it offers the connection all the same.
const DEFER_SECONDS: libc::c_int = 1;

/// Has connections offered only when their first bytes are there.
fn set_defer_accept(socket: &Socket) -> io::Result<()> {
    let seconds = DEFER_SECONDS;
    // SAFETY: the descriptor is open, and the option's value is one int.
    let set = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::IPPROTO_TCP,
            libc::TCP_DEFER_ACCEPT,
            (&raw const seconds).cast(),
            size_of::<libc::c_int>() as libc::socklen_t,
        )
    };
    if set == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
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
    socket: Waitable,
    fd: RawFd,
    closed: Cell<bool>,
}

impl Listener {
    /// Brings a bound socket to this core.
    pub fn new(bound: BoundListener) -> io::Result<Self> {
        SockRef::from(&bound.socket).set_nonblocking(true)?;
        let fd = bound.socket.as_raw_fd();
        Ok(Self { socket: Waitable::new(bound.socket)?, fd, closed: Cell::new(false) })
    }

    /// The next connection. After [`Listener::close`] it fails.
    pub async fn accept(&self) -> io::Result<Accepted> {
        count(Count::Accept);
        let accepted = self.next().await;
        if accepted.is_err() {
            count(Count::Error);
        }
        accepted
    }

    async fn next(&self) -> io::Result<Accepted> {
        loop {
            match SockRef::from(&self.socket).accept() {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => self.socket.readable().await?,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
                Ok((socket, peer)) => {
                    let peer = peer.as_socket().ok_or(io::ErrorKind::AddrNotAvailable)?;
                    return Ok(Accepted { socket: socket.into(), peer });
                }
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

/// A connection that was accepted and is on no core's driver yet: it can be served by any of them.
#[derive(Debug)]
pub struct Accepted {
    socket: OwnedFd,
    /// Who connected.
    pub peer: SocketAddr,
}

impl Accepted {
    /// Brings it to this thread's driver.
    pub fn into_stream(self) -> io::Result<Stream> {
        if ring::is_open() {
            return Stream::on_ring(self.socket, Origin::Accepted);
        }
        let socket = std::net::TcpStream::from(self.socket);
        socket.set_nonblocking(true)?;
        Ok(Stream::on_epoll(TcpStream::from_std(socket)?, Origin::Accepted))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn defers(listener: &BoundListener) -> bool {
        let mut seconds: libc::c_int = -1;
        let mut length = size_of::<libc::c_int>() as libc::socklen_t;
        // SAFETY: the descriptor is open, and the kernel writes one int.
        let read = unsafe {
            libc::getsockopt(
                listener.socket.as_raw_fd(),
                libc::IPPROTO_TCP,
                libc::TCP_DEFER_ACCEPT,
                (&raw mut seconds).cast(),
                &raw mut length,
            )
        };
        assert_eq!(read, 0);
        seconds > 0
    }

    #[test]
    fn accepting_is_deferred_where_that_is_asked_for() {
        for defer_accept in [false, true] {
            let bound = bind("127.0.0.1:0".parse().unwrap(), 16, defer_accept, 2).unwrap();
            assert_eq!(bound.iter().map(defers).collect::<Vec<_>>(), [defer_accept; 2]);
        }
    }
}
