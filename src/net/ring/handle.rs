//! What the users of a socket hold: its number, by which they ask the ring, and the guard that closes it.

use std::{
    io,
    os::fd::{AsRawFd, IntoRawFd, OwnedFd, RawFd},
    ptr,
    task::{Context, Poll},
};

use io_uring::{opcode, squeue, types};

use super::{
    super::{
        count::{Count, Origin, count, received, sent},
        provided::GROUP,
        stream::Outcome,
        tasks::Waiter,
    },
    Kind, Ring,
    socket::{Receiving, Sending, Socket, Standing, free_if_over},
    user_data, with,
};
use crate::buf::Buf;

/// `IORING_RECVSEND_POLL_FIRST` of Linux's `io_uring.h`: do not try before the socket is known to be ready.
const POLL_FIRST: u16 = 1;

/// A socket on this thread's ring. Dropping it ends what is under way and closes it.
#[derive(Debug)]
pub(in crate::net) struct RingSocket {
    number: usize,
    fd: RawFd,
}

/// What the halves of a socket ask of the ring, by the socket's number.
#[derive(Debug, Clone, Copy)]
pub(in crate::net) struct SocketNumber(usize);

impl RingSocket {
    /// Puts a connected, blocking socket on this thread's ring; `None` when it has none.
    pub(in crate::net) fn new(fd: OwnedFd, origin: Origin) -> Option<Self> {
        with(|ring| {
            let fd = fd.into_raw_fd();
            let number = ring.sockets.insert(Box::new(Socket::new(fd, origin)));
            Self { number, fd }
        })
    }

    pub(in crate::net) fn number(&self) -> SocketNumber {
        SocketNumber(self.number)
    }
}

impl AsRawFd for RingSocket {
    fn as_raw_fd(&self) -> RawFd {
        self.fd
    }
}

impl Drop for RingSocket {
    fn drop(&mut self) {
        with(|ring| ring.close(self.number));
    }
}

/// A completion's result.
fn outcome(result: i32) -> io::Result<usize> {
    usize::try_from(result).map_err(|_| io::Error::from_raw_os_error(-result))
}

impl SocketNumber {
    /// Starts to receive, into `into` or else into a buffer that the kernel takes when something comes. What came
    /// already is the result, in a buffer of its own unless `into` holds something.
    #[inline]
    pub(in crate::net) fn receive(self, into: Option<Buf>) {
        count(Count::Receive);
        with(|ring| ring.receive(self.0, into));
    }

    #[inline]
    pub(in crate::net) fn is_receiving(self) -> bool {
        with(|ring| !matches!(ring.sockets[self.0].receiving, Receiving::Idle)).unwrap_or(false)
    }

    #[inline]
    pub(in crate::net) fn poll_received(self, cx: &Context<'_>) -> Poll<Outcome<usize>> {
        let received = with(|ring| {
            let socket = &mut ring.sockets[self.0];
            if !matches!(socket.receiving, Receiving::Done(..)) {
                socket.receiver.set(cx);
                return None;
            }
            match std::mem::replace(&mut socket.receiving, Receiving::Idle) {
                Receiving::Done(result, buf) => Some((outcome(result), buf)),
                Receiving::Idle | Receiving::UnderWay(_) => None,
            }
        });
        received.flatten().map_or(Poll::Pending, Poll::Ready)
    }

    /// Starts to send the buffer's bytes, all of them.
    #[inline]
    pub(in crate::net) fn send(self, buf: Buf) {
        count(Count::Send);
        with(|ring| {
            ring.sockets[self.0].sender = Waiter::Nobody;
            ring.push_send(self.0, buf);
        });
    }

    /// Whether a send is under way, or its end was not well or is waited for.
    #[inline]
    pub(in crate::net) fn is_sending(self) -> bool {
        with(|ring| !matches!(ring.sockets[self.0].sending, Sending::Idle)).unwrap_or(false)
    }

    /// The end of a send. A send that ended well while no one waited has gone, and its buffer with it. With no `cx`
    /// nobody is woken by the end of it.
    #[inline]
    pub(in crate::net) fn poll_sent(self, cx: Option<&Context<'_>>) -> Poll<Outcome<()>> {
        let poll = with(|ring| {
            let socket = &mut ring.sockets[self.0];
            match &socket.sending {
                Sending::Idle => return Poll::Ready((Ok(()), Buf::none())),
                Sending::UnderWay(_) => {
                    if let Some(cx) = cx {
                        socket.sender.set(cx);
                    }
                    return Poll::Pending;
                }
                Sending::Done(..) => {}
            }
            match std::mem::replace(&mut socket.sending, Sending::Idle) {
                Sending::Done(result, buf) => Poll::Ready((outcome(result).map(drop), buf)),
                Sending::Idle | Sending::UnderWay(_) => Poll::Pending,
            }
        });
        poll.unwrap_or(Poll::Pending)
    }

    /// Whether nothing is received, held or to come by a standing receive.
    pub(in crate::net) fn is_quiet(self) -> bool {
        with(|ring| {
            let socket = &ring.sockets[self.0];
            matches!(socket.receiving, Receiving::Idle)
                && socket.standing == Standing::Off
                && !socket.has_early()
        })
        .unwrap_or(false)
    }

    /// Counts what was received in another way than by the ring.
    pub(in crate::net) fn count_received(self, bytes: usize) {
        with(|ring| received(ring.sockets[self.0].origin, bytes));
    }

    /// Counts what was sent in another way than by the ring.
    pub(in crate::net) fn count_sent(self, bytes: usize) {
        with(|ring| {
            let socket = &mut ring.sockets[self.0];
            sent(socket.origin, bytes);
            socket.sent += bytes as u64;
        });
    }

    /// Bytes given to the kernel so far.
    pub(in crate::net) fn sent(self) -> u64 {
        with(|ring| ring.sockets[self.0].sent).unwrap_or(0)
    }
}

impl Ring {
    fn receive(&mut self, number: usize, into: Option<Buf>) {
        let socket = &mut self.sockets[number];
        if socket.has_early() {
            self.unasked -= socket.take_early(into);
            return;
        }
        let is_streaming = into.is_some();
        socket.receiving = Receiving::UnderWay(into);
        match socket.standing {
            Standing::Off => self.push_receive(number),
            Standing::On if is_streaming => socket.end_standing(number, &mut self.uring.submission()),
            // What comes next comes by it, or else it ends, and the receive is started again.
            Standing::On | Standing::Ending => {}
        }
    }

    pub(super) fn push_receive(&mut self, number: usize) {
        let is_wary = self.is_wary;
        let Some(socket) = self.sockets.get_mut(number) else { return };
        let poll_first = if socket.has_more { 0 } else { POLL_FIRST };
        let fd = types::Fd(socket.fd);
        let is_calm = socket.is_calm() && !is_wary;
        let Receiving::UnderWay(into) = &mut socket.receiving else { return };
        let (entry, kind) = match into {
            Some(buf) => {
                let room = buf.spare_mut();
                let entry = opcode::Recv::new(fd, room.as_mut_ptr(), room.len() as u32);
                (entry.ioprio(poll_first).build(), Kind::Receive)
            }
            None if is_calm => {
                socket.standing = Standing::On;
                (opcode::RecvMulti::new(fd, GROUP).build(), Kind::Standing)
            }
            None => {
                let entry = opcode::Recv::new(fd, ptr::null_mut(), 0).ioprio(poll_first).buf_group(GROUP);
                (entry.build().flags(squeue::Flags::BUFFER_SELECT), Kind::Receive)
            }
        };
        self.push(entry.user_data(user_data(number, kind)));
    }

    #[inline]
    fn push_send(&mut self, number: usize, buf: Buf) {
        let entry = self.sockets[number].send_entry(number, &buf);
        self.push(entry);
        self.sockets[number].sending = Sending::UnderWay(buf);
    }

    fn close(&mut self, number: usize) {
        // A receive that is to be started again is not with the kernel.
        if let Some(at) = self.again.iter().position(|other| *other == number) {
            self.again.remove(at);
            self.sockets[number].receiving = Receiving::Idle;
        }
        // Nor is the rest of a send.
        if let Some(at) = self.unsent.iter().position(|other| *other == number) {
            self.unsent.swap_remove(at);
            self.sockets[number].sending = Sending::Idle;
        }
        let socket = &mut self.sockets[number];
        socket.is_closed = true;
        self.unasked -= socket.drop_early();
        let (fd, standing) = (socket.fd, socket.standing);
        let sends = matches!(socket.sending, Sending::UnderWay(_));
        if standing != Standing::Off {
            socket.receiving = Receiving::Idle;
        }
        let receives = matches!(socket.receiving, Receiving::UnderWay(_));
        // The kernel's operations refer to the socket, not to its descriptor, so that cancel and close can go together.
        if standing != Standing::Off {
            self.push_cancel(number, Kind::Standing);
        }
        if receives {
            self.push_cancel(number, Kind::Receive);
        }
        if sends {
            self.push_cancel(number, Kind::Send);
        }
        let close = opcode::Close::new(types::Fd(fd)).build().flags(squeue::Flags::SKIP_SUCCESS);
        self.push(close.user_data(user_data(0, Kind::Forgotten)));
        free_if_over(&mut self.sockets, number);
    }
}
