//! The operations of a socket on monoio's epoll driver, for kernels and containers without a ring. There is one slot for
//! one kind of operation of one socket: started with a buffer, polled until the buffer comes back. The
//! slot's memory is allocated once per connection and used for every operation after that, and the operation lives in
//! the slot, not in the future of whoever waits for it: dropping the waiter loses nothing.
#![expect(unsafe_code, reason = "lends buffers to the kernel and halves of a socket to its two slots")]

use std::{
    cell::UnsafeCell,
    future::Future,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, ready},
};

use monoio::{
    BufResult,
    buf::{IoBuf, IoBufMut},
    io::{AsyncReadRent, AsyncWriteRent},
    net::TcpStream,
};
use pin_project_lite::pin_project;

use crate::buf::Buf;

// SAFETY: the block is a heap allocation that does not move with the `Buf`, and `filled` is initialised memory.
unsafe impl IoBuf for Buf {
    #[inline]
    fn read_ptr(&self) -> *const u8 {
        self.filled().as_ptr()
    }

    #[inline]
    fn bytes_init(&self) -> usize {
        self.len()
    }
}

// SAFETY: the spare room belongs to the block, which the operation owns until it completes.
unsafe impl IoBufMut for Buf {
    #[inline]
    fn write_ptr(&mut self) -> *mut u8 {
        self.spare_mut().as_mut_ptr()
    }

    #[inline]
    fn bytes_total(&mut self) -> usize {
        self.spare_len()
    }

    #[inline]
    unsafe fn set_init(&mut self, received: usize) {
        self.commit(received);
    }
}

/// A slot for one operation at a time.
pub(super) type Slot = Pin<Box<dyn Operation>>;

/// What a slot can do.
pub(super) trait Operation {
    /// Pushes the operation's submission. The slot must be empty.
    fn start(self: Pin<&mut Self>, buf: Buf);
    /// The operation's result and its buffer, once; pending when nothing was started.
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<BufResult<usize, Buf>>;
    /// Whether an operation was started and its result not yet taken.
    fn is_started(&self) -> bool;
}

pin_project! {
    struct Of<M, F> {
        make: M,
        #[pin]
        running: Option<F>,
    }
}

impl<M: FnMut(Buf) -> F, F: Future<Output = BufResult<usize, Buf>>> Operation for Of<M, F> {
    #[inline]
    fn start(self: Pin<&mut Self>, buf: Buf) {
        let mut this = self.project();
        debug_assert!(this.running.is_none());
        let running = (this.make)(buf);
        this.running.set(Some(running));
    }

    #[inline]
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<BufResult<usize, Buf>> {
        let mut this = self.project();
        let Some(running) = this.running.as_mut().as_pin_mut() else { return Poll::Pending };
        let result = ready!(running.poll(cx));
        this.running.set(None);
        Poll::Ready(result)
    }

    #[inline]
    fn is_started(&self) -> bool {
        self.running.is_some()
    }
}

fn slot<F>(make: impl FnMut(Buf) -> F + 'static) -> Slot
where
    F: Future<Output = BufResult<usize, Buf>> + 'static,
{
    Box::pin(Of { make, running: None })
}

/// The receiving and the sending slot of one socket.
pub(super) fn slots(socket: TcpStream) -> (Slot, Slot) {
    let socket = Rc::new(UnsafeCell::new(socket));
    let sending = Rc::clone(&socket);
    let receive = slot(move |buf| {
        // SAFETY: monoio's operations copy the socket's descriptor and keep no reference to it, so this borrow and the
        // sender's never overlap; the socket lives as long as the slots that own it.
        let socket: &'static mut TcpStream = unsafe { &mut *socket.get() };
        socket.read(buf)
    });
    let send = slot(move |buf| {
        // SAFETY: as above.
        let socket: &'static mut TcpStream = unsafe { &mut *sending.get() };
        socket.write(buf)
    });
    (receive, send)
}
