//! Connections through the relay: a client's socket, the upstream's, and the buffers on their way between them.
//! The upstream is connected to with a client's first bytes, so that an idle client costs one socket.

use std::collections::VecDeque;
use std::io;
use std::net::{Shutdown, SocketAddr, TcpListener};
use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd, RawFd};

use slab::Slab;
use socket2::{Domain, Protocol, SockRef, Socket, Type};

use crate::ring::{Completion, LISTENER, Operation, Ring, Side};

/// Relays until the ring fails.
pub(crate) fn serve(listener: &TcpListener, upstream: SocketAddr) -> io::Result<()> {
    let ring = Ring::new(upstream)?;
    let domain = Domain::for_address(upstream);
    let mut relay = Relay { ring, domain, connections: Slab::new(), starved: VecDeque::new() };
    relay.ring.accept(listener.as_raw_fd())?;
    let mut completions = Vec::new();
    loop {
        relay.ring.turn(&mut completions)?;
        for completion in completions.drain(..) {
            relay.on_completion(completion, listener.as_raw_fd())?;
        }
        relay.feed_starved()?;
    }
}

struct Relay {
    ring: Ring,
    domain: Domain,
    connections: Slab<Connection>,
    /// Receives that ended because no buffer was left.
    starved: VecDeque<(usize, Side)>,
}

struct Connection {
    downstream: OwnedFd,
    upstream: Option<OwnedFd>,
    /// Buffers and lengths to be sent downstream, the first one under way.
    to_downstream: Stream,
    /// To be sent upstream; none is under way before the upstream is connected.
    to_upstream: Stream,
    is_connected: bool,
    /// Operations that the kernel still has, and receives that starve.
    pending: u32,
    is_broken: bool,
}

/// One direction.
#[derive(Default)]
struct Stream {
    queue: VecDeque<(u16, u32)>,
    /// Whether its source has ended.
    has_ended: bool,
    is_shut: bool,
}

impl Relay {
    fn on_completion(&mut self, completion: Completion, listener: RawFd) -> io::Result<()> {
        let Completion { connection, operation, result, .. } = completion;
        match operation {
            Operation::Accept => self.on_accept(completion, listener),
            Operation::Connect => self.on_connect(connection, result),
            Operation::Receive(side) => self.on_receive(completion, side),
            Operation::Send(side) => self.on_send(connection, side, result),
        }
    }

    #[expect(unsafe_code, reason = "accept gives a bare descriptor")]
    fn on_accept(&mut self, completion: Completion, listener: RawFd) -> io::Result<()> {
        debug_assert_eq!(completion.connection, LISTENER);
        match completion.result {
            descriptor if descriptor >= 0 => {
                // SAFETY: accept has just made this descriptor, for us alone.
                let downstream = unsafe { OwnedFd::from_raw_fd(descriptor) };
                let connection = self.connections.insert(Connection::new(downstream));
                self.ring.receive(connection, Side::Downstream, descriptor)?;
            }
            // The client left before it was accepted.
            error if error == -libc::ECONNABORTED => {}
            // Out of descriptors: a load test had better be loud.
            error => return Err(io::Error::from_raw_os_error(-error)),
        }
        if completion.has_more { Ok(()) } else { self.ring.accept(listener) }
    }

    fn on_receive(&mut self, completion: Completion, side: Side) -> io::Result<()> {
        let id = completion.connection;
        if completion.buffer.is_some() {
            self.ring.buffers.on_taken();
        }
        let Some(connection) = self.connections.get_mut(id) else { return Ok(()) };
        let is_starved = completion.result == -libc::ENOBUFS && !connection.is_broken;
        match completion.buffer {
            Some(buffer) if completion.result > 0 && !connection.is_broken => {
                let stream = connection.stream_to(side.other());
                stream.queue.push_back((buffer, completion.result.unsigned_abs()));
                if stream.queue.len() == 1 {
                    self.send_next(id, side.other())?;
                }
            }
            other => {
                other.into_iter().for_each(|buffer| self.ring.buffers.give_back(buffer));
                match completion.result {
                    0 => connection.stream_to(side.other()).has_ended = true,
                    error if error < 0 && !is_starved => connection.break_off(),
                    _ => {}
                }
            }
        }
        if completion.has_more {
            return Ok(());
        }
        if is_starved {
            self.starved.push_back((id, side));
            return Ok(());
        }
        // A receive may also end without a reason, after which it goes on as a new one.
        match self.connections.get_mut(id) {
            Some(connection) if completion.result > 0 && !connection.is_broken => {
                match connection.socket(side) {
                    Some(socket) => self.ring.receive(id, side, socket),
                    None => Ok(()),
                }
            }
            _ => self.on_operation_end(id, side.other()),
        }
    }

    fn on_connect(&mut self, id: usize, result: i32) -> io::Result<()> {
        let Some(connection) = self.connections.get_mut(id) else { return Ok(()) };
        match connection.upstream.as_ref().map(|socket| socket.as_raw_fd()) {
            Some(socket) if result == 0 && !connection.is_broken => {
                connection.is_connected = true;
                connection.pending += 1;
                self.ring.receive(id, Side::Upstream, socket)?;
                self.send_next(id, Side::Upstream)?;
            }
            _ => connection.break_off(),
        }
        self.on_operation_end(id, Side::Upstream)
    }

    fn on_send(&mut self, id: usize, side: Side, result: i32) -> io::Result<()> {
        let Some(connection) = self.connections.get_mut(id) else { return Ok(()) };
        let stream = connection.stream_to(side);
        let sent = stream.queue.pop_front();
        if let Some((buffer, length)) = sent {
            self.ring.buffers.give_back(buffer);
            // MSG_WAITALL: less than all means that the socket is broken.
            if result < 0 || result.unsigned_abs() != length {
                connection.break_off();
            }
        }
        self.send_next(id, side)?;
        self.on_operation_end(id, side)
    }

    /// Sends the next buffer to a side, which has none under way.
    fn send_next(&mut self, id: usize, side: Side) -> io::Result<()> {
        let Some(connection) = self.connections.get_mut(id) else { return Ok(()) };
        if connection.is_broken {
            return Ok(());
        }
        let Some(first) = connection.stream_to(side).queue.front().copied() else { return Ok(()) };
        if side == Side::Upstream && !connection.is_connected {
            return self.connect(id);
        }
        let Some(socket) = connection.socket(side) else { return Ok(()) };
        connection.pending += 1;
        self.ring.send(id, side, socket, first)
    }

    fn connect(&mut self, id: usize) -> io::Result<()> {
        let socket = Socket::new(self.domain, Type::STREAM, Some(Protocol::TCP))?;
        socket.set_tcp_nodelay(true)?;
        let descriptor = socket.as_raw_fd();
        let connection = &mut self.connections[id];
        connection.upstream = Some(socket.into());
        connection.pending += 1;
        self.ring.connect(id, descriptor)
    }

    /// The kernel is done with one of a connection's operations: passes an end on to `side`, and closes the
    /// connection after the last.
    fn on_operation_end(&mut self, id: usize, side: Side) -> io::Result<()> {
        let connection = &mut self.connections[id];
        connection.pending -= 1;
        connection.pass_end(side);
        if connection.pending == 0 {
            let connection = self.connections.remove(id);
            let unsent = connection.to_downstream.queue.iter().chain(&connection.to_upstream.queue);
            unsent.for_each(|(buffer, _)| self.ring.buffers.give_back(*buffer));
        }
        Ok(())
    }

    /// Starts receives again that found no buffer, when there are some.
    fn feed_starved(&mut self) -> io::Result<()> {
        while self.ring.buffers.has_free() {
            let Some((id, side)) = self.starved.pop_front() else { return Ok(()) };
            match self.connections.get(id).and_then(|connection| connection.socket(side)) {
                Some(socket) => self.ring.receive(id, side, socket)?,
                None => self.on_operation_end(id, side.other())?,
            }
        }
        Ok(())
    }
}

impl Connection {
    /// With the first receive under way.
    fn new(downstream: OwnedFd) -> Self {
        Self {
            downstream,
            upstream: None,
            to_downstream: Stream::default(),
            to_upstream: Stream::default(),
            is_connected: false,
            pending: 1,
            is_broken: false,
        }
    }

    fn socket(&self, side: Side) -> Option<RawFd> {
        match side {
            Side::Downstream => Some(self.downstream.as_raw_fd()),
            Side::Upstream => self.upstream.as_ref().map(|socket| socket.as_raw_fd()),
        }
    }

    fn stream_to(&mut self, side: Side) -> &mut Stream {
        match side {
            Side::Downstream => &mut self.to_downstream,
            Side::Upstream => &mut self.to_upstream,
        }
    }

    /// Tells a side that nothing more comes, once all before that is sent.
    fn pass_end(&mut self, side: Side) {
        let stream = self.stream_to(side);
        if !stream.has_ended || stream.is_shut || !stream.queue.is_empty() {
            return;
        }
        stream.is_shut = true;
        let socket = match side {
            Side::Downstream => Some(&self.downstream),
            Side::Upstream => self.upstream.as_ref(),
        };
        if let Some(socket) = socket {
            // A socket that has gone needs not be told.
            let _ = SockRef::from(socket).shutdown(Shutdown::Write);
        }
    }

    /// Ends both sides; operations under way end by that.
    fn break_off(&mut self) {
        self.is_broken = true;
        for socket in std::iter::once(&self.downstream).chain(&self.upstream) {
            // One that was never connected cannot be shut down, and has nothing under way.
            let _ = SockRef::from(socket).shutdown(Shutdown::Both);
        }
    }
}
