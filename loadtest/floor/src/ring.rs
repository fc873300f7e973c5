//! The ring: what is asked of the kernel goes in as an [`Operation`] of a connection, and comes out again as a
//! [`Completion`]. Knows how operations are numbered and submitted, and nothing of what they are for.

use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::os::fd::RawFd;

use io_uring::squeue::Entry;
use io_uring::{IoUring, cqueue, opcode, types};
use socket2::SockAddr;

use crate::buffers::{self, Buffers};

/// Operations submitted in one enter at most.
const ENTRIES: u32 = 4096;

/// Completions that may wait: every connection can have some at once.
const COMPLETIONS: u32 = 32768;

/// Tries, from what a new kernel can do to what every one with multishot receives can.
const FLAVOURS: usize = 3;

/// Which operation of a connection this is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Operation {
    /// The listener's, with [`LISTENER`] as its connection.
    Accept,
    /// To the upstream.
    Connect,
    /// From this side.
    Receive(Side),
    /// To this side.
    Send(Side),
}

/// One of the two sockets of a connection through the relay.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Side {
    /// The client's.
    Downstream,
    /// The upstream's.
    Upstream,
}

impl Side {
    /// The other one.
    pub(crate) fn other(self) -> Self {
        match self {
            Self::Downstream => Self::Upstream,
            Self::Upstream => Self::Downstream,
        }
    }
}

/// The listener's place among connections.
pub(crate) const LISTENER: usize = u32::MAX as usize;

/// What the kernel says.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Completion {
    pub(crate) connection: usize,
    pub(crate) operation: Operation,
    /// A length or descriptor, or an error's number below 0.
    pub(crate) result: i32,
    /// The provided buffer that holds what was received.
    pub(crate) buffer: Option<u16>,
    /// Whether the same operation will say more.
    pub(crate) has_more: bool,
}

/// An io_uring instance with its provided buffers.
pub(crate) struct Ring {
    // The ring goes first: the kernel may use what is behind it until it is gone.
    ring: IoUring,
    pub(crate) buffers: Buffers,
    /// What all connects point at.
    upstream: Box<SockAddr>,
}

impl Ring {
    pub(crate) fn new(upstream: SocketAddr) -> io::Result<Self> {
        let ring = build()?;
        let buffers = Buffers::register(&ring)?;
        Ok(Self { ring, buffers, upstream: Box::new(upstream.into()) })
    }

    /// Accepts until told otherwise.
    pub(crate) fn accept(&mut self, listener: RawFd) -> io::Result<()> {
        let entry = opcode::AcceptMulti::new(types::Fd(listener)).flags(libc::SOCK_CLOEXEC).build();
        self.push(entry, LISTENER, Operation::Accept)
    }

    /// Connects to the upstream.
    pub(crate) fn connect(&mut self, connection: usize, socket: RawFd) -> io::Result<()> {
        let address = self.upstream.as_ptr().cast();
        let entry = opcode::Connect::new(types::Fd(socket), address, self.upstream.len()).build();
        self.push(entry, connection, Operation::Connect)
    }

    /// Receives into provided buffers until the end, an error, or no buffer is left.
    pub(crate) fn receive(&mut self, connection: usize, side: Side, socket: RawFd) -> io::Result<()> {
        let entry = opcode::RecvMulti::new(types::Fd(socket), buffers::GROUP).build();
        self.push(entry, connection, Operation::Receive(side))
    }

    /// Sends the first `length` bytes of a buffer, all of them.
    pub(crate) fn send(
        &mut self,
        connection: usize,
        side: Side,
        socket: RawFd,
        (buffer, length): (u16, u32),
    ) -> io::Result<()> {
        let entry = opcode::Send::new(types::Fd(socket), self.buffers.address(buffer), length)
            .flags(libc::MSG_NOSIGNAL | libc::MSG_WAITALL)
            .build();
        self.push(entry, connection, Operation::Send(side))
    }

    /// Submits what was asked for and waits until something has happened; `into` gets it.
    pub(crate) fn turn(&mut self, into: &mut Vec<Completion>) -> io::Result<()> {
        match self.ring.submit_and_wait(1) {
            // EBUSY: completions overflowed and are taken first.
            Err(error)
                if error.kind() == ErrorKind::Interrupted || error.raw_os_error() == Some(libc::EBUSY) => {}
            other => drop(other?),
        }
        into.extend(self.ring.completion().map(|entry| completion(&entry)));
        Ok(())
    }

    #[expect(unsafe_code, reason = "the kernel reads what entries point at")]
    fn push(&mut self, entry: Entry, connection: usize, operation: Operation) -> io::Result<()> {
        let entry = entry.user_data(encode(connection, operation));
        if self.ring.submission().is_full() {
            self.ring.submit()?;
        }
        let mut queue = self.ring.submission();
        // SAFETY: what entries point at lives as long as the ring, which is dropped before it: the upstream's address,
        // and the provided buffers. The relay gives no buffer back while a send of it is under way, and closes no
        // descriptor while an operation on it is.
        let pushed = unsafe { queue.push(&entry) };
        pushed.map_err(io::Error::other)
    }
}

/// A ring of this thread alone, which runs completions when it waits for them, as far as the kernel can.
fn build() -> io::Result<IoUring> {
    let flavour = |index: usize| {
        let mut builder = IoUring::builder();
        builder.setup_cqsize(COMPLETIONS).setup_clamp().setup_submit_all();
        match index {
            0 => builder.setup_single_issuer().setup_defer_taskrun(),
            1 => builder.setup_coop_taskrun(),
            _ => &mut builder,
        }
        .build(ENTRIES)
    };
    (1..FLAVOURS).fold(flavour(0), |tried, index| tried.or_else(|_| flavour(index)))
}

/// An operation as a number: the connection below, the operation above.
fn encode(connection: usize, operation: Operation) -> u64 {
    let code = match operation {
        Operation::Accept => 0,
        Operation::Connect => 1,
        Operation::Receive(Side::Downstream) => 2,
        Operation::Receive(Side::Upstream) => 3,
        Operation::Send(Side::Downstream) => 4,
        Operation::Send(Side::Upstream) => 5,
    };
    (code << 32) | connection as u64
}

fn decode(number: u64) -> (usize, Operation) {
    let operation = match number >> 32 {
        0 => Operation::Accept,
        1 => Operation::Connect,
        2 => Operation::Receive(Side::Downstream),
        3 => Operation::Receive(Side::Upstream),
        4 => Operation::Send(Side::Downstream),
        _ => Operation::Send(Side::Upstream),
    };
    ((number & u64::from(u32::MAX)) as usize, operation)
}

fn completion(entry: &cqueue::Entry) -> Completion {
    let (connection, operation) = decode(entry.user_data());
    Completion {
        connection,
        operation,
        result: entry.result(),
        buffer: cqueue::buffer_select(entry.flags()),
        has_more: cqueue::more(entry.flags()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn operations_survive_their_numbers() {
        for connection in [0, 7, LISTENER] {
            for operation in [
                Operation::Accept,
                Operation::Connect,
                Operation::Receive(Side::Downstream),
                Operation::Receive(Side::Upstream),
                Operation::Send(Side::Downstream),
                Operation::Send(Side::Upstream),
            ] {
                assert_eq!(decode(encode(connection, operation)), (connection, operation));
            }
        }
    }
}
