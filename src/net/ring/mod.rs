//! The core's ring: what sockets are asked to do goes in, what became of it comes out, and whoever waits is woken. It
//! owns each socket with its buffers for as long as the kernel may use them, whatever their users do meanwhile. It
//! knows bytes, descriptors and tasks.
//!
//! Every operation carries the number of its socket or wait and its kind; a number is not used again before the kernel
//! has said its last word on each operation under it.
#![expect(unsafe_code, reason = "entries point the kernel at buffers and descriptors")]

mod handle;
mod socket;
mod wait;

use std::{cell::RefCell, collections::VecDeque, io};

use io_uring::{IoUring, cqueue, opcode, squeue};
use slab::Slab;

pub(super) use self::{
    handle::{RingSocket, SocketNumber},
    wait::ready,
};
use self::{
    socket::{Received, Receiving, Sending, Sent, Socket, Standing, free_if_over},
    wait::{Wait, on_ready},
};
use super::{
    count::{Count, count, count_many},
    pipe,
    provided::Provided,
};
use crate::{buf::Buf, clock};

/// `IORING_ENTER_GETEVENTS`: run what has completed, though nothing is waited for.
const GET_EVENTS: u32 = 1;

/// Completions that may wait for each entry that may be submitted at once.
const COMPLETIONS_PER_ENTRY: u32 = 4;

/// What a number in a completion means; the lowest bits of `user_data`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// One receive.
    Receive = 0,
    /// A receive that goes on until it is told to end.
    Standing = 1,
    Send = 2,
    Wait = 3,
    /// Nobody waits for it.
    Forgotten = 4,
}

const KIND_BITS: u32 = 3;
const RECEIVE: u64 = Kind::Receive as u64;
const STANDING: u64 = Kind::Standing as u64;
const SEND: u64 = Kind::Send as u64;
const WAIT: u64 = Kind::Wait as u64;

fn user_data(number: usize, kind: Kind) -> u64 {
    (number as u64) << KIND_BITS | kind as u64
}

struct Ring {
    // The ring goes first: the kernel may use what is behind it until it is gone.
    uring: IoUring,
    provided: Provided,
    /// Boxed, so that thousands more move none of them.
    sockets: Slab<Box<Socket>>,
    waits: Slab<Wait>,
    /// Entries that found no room in the submission queue.
    late: VecDeque<squeue::Entry>,
    /// Receives to be started again: those of the last turn that found no buffer, or whose standing receive ended.
    again: VecDeque<usize>,
    /// Sends whose rest found no room in the submission queue.
    unsent: Vec<usize>,
    /// A receive found no buffer.
    lacked: bool,
    /// Messages that came unasked and are held.
    unasked: usize,
    unasked_max: usize,
    /// Too many came: for a while no receive is left standing.
    is_wary: bool,
    /// A failing enter was logged.
    has_complained: bool,
}

/// The share of the core's buffers that what comes unasked may hold before the core becomes wary.
const UNASKED_SHARE: usize = 16;

thread_local! {
    static RING: RefCell<Option<Ring>> = const { RefCell::new(None) };
}

/// The set-up flags, which Linux has since 6.1: one thread submits, completions run when it enters, and an entry that
/// fails does not hold up those behind it. Older kernels lack more of what is used here, and get epoll.
const FLAGS: &str = "single_issuer|defer_taskrun|submit_all";

/// Makes this thread's ring; returns its flags' names. `buffers` is how many small buffers the core may use.
pub(super) fn open(entries: u32, buffers: usize) -> io::Result<&'static str> {
    let mut builder = IoUring::builder();
    builder.setup_single_issuer().setup_defer_taskrun().setup_submit_all();
    builder.setup_clamp().setup_cqsize(entries.saturating_mul(COMPLETIONS_PER_ENTRY));
    let uring = builder.build(entries)?;
    let provided = Provided::register(&uring, buffers)?;
    RING.set(Some(Ring {
        uring,
        provided,
        sockets: Slab::new(),
        waits: Slab::new(),
        late: VecDeque::new(),
        again: VecDeque::new(),
        unsent: Vec::new(),
        lacked: false,
        unasked: 0,
        unasked_max: buffers / UNASKED_SHARE,
        is_wary: false,
        has_complained: false,
    }));
    Ok(FLAGS)
}

/// Takes the ring from this thread and never tears it down: the kernel may still write to buffers that it owns.
pub(super) fn retire() {
    std::mem::forget(RING.take());
}

/// Whether this thread has a ring.
pub(super) fn is_open() -> bool {
    RING.with_borrow(Option::is_some)
}

/// Gives the kernel what was asked for and takes what has completed; waits for something when `is_idle`.
pub(super) fn turn(is_idle: bool) {
    with(|ring| ring.turn(is_idle));
}

/// Forgets what load and clients made necessary for a while. Called now and then.
pub fn calm_down() {
    with(|ring| {
        ring.is_wary = false;
        ring.provided.lower_level();
    });
    pipe::trim();
}

/// Buffers that the kernel has, to receive into.
pub fn buffers_provided() -> usize {
    RING.with_borrow(|ring| ring.as_ref().map_or(0, |ring| ring.provided.count()))
}

#[inline]
fn with<T>(use_it: impl FnOnce(&mut Ring) -> T) -> Option<T> {
    RING.try_with(|ring| ring.borrow_mut().as_mut().map(use_it)).ok().flatten()
}

impl Ring {
    fn turn(&mut self, is_idle: bool) {
        let has_woken = self.feed();
        self.push_late();
        self.enter(is_idle && !has_woken && self.late.is_empty() && self.again.is_empty());
        clock::begin_turn();
        self.reap();
    }

    /// Submits, runs what has completed, and waits for something when `waits`.
    fn enter(&mut self, waits: bool) {
        count(Count::Enter);
        let entries = self.uring.submission().len() as u32;
        // SAFETY: no argument is passed with the flags given.
        let entered = unsafe { self.uring.submitter().enter::<()>(entries, waits.into(), GET_EVENTS, None) };
        match entered {
            Ok(submitted) => count_many(Count::Submission, submitted as u64),
            Err(error) => {
                count(Count::Error);
                // EBUSY: completions overflowed and are taken first. EAGAIN: out of memory for a moment.
                let is_passing = matches!(
                    error.raw_os_error(),
                    Some(libc::EINTR | libc::EBUSY | libc::EAGAIN | libc::ETIME)
                );
                if !is_passing && !std::mem::replace(&mut self.has_complained, true) {
                    tracing::error!(%error, "io_uring_enter failed");
                }
            }
        }
    }

    fn reap(&mut self) {
        let Self { uring, provided, sockets, waits, again, unsent, lacked, unasked, .. } = self;
        let (_, mut queue, mut completions) = uring.split();
        completions.sync();
        count_many(Count::Completion, completions.len() as u64);
        for entry in completions {
            let number = (entry.user_data() >> KIND_BITS) as usize;
            match entry.user_data() & ((1 << KIND_BITS) - 1) {
                kind @ (RECEIVE | STANDING) => {
                    let buf = cqueue::buffer_select(entry.flags())
                        .and_then(|id| provided.take(id, usize::try_from(entry.result()).unwrap_or(0)));
                    let Some(socket) = sockets.get_mut(number) else { continue };
                    *lacked |= entry.result() == -libc::ENOBUFS;
                    match socket.on_received(kind == STANDING, &entry, buf) {
                        Received::Asked => {}
                        Received::Unasked => {
                            *unasked += 1;
                            socket.end_standing(number, &mut queue);
                        }
                        Received::Again => again.push_back(number),
                    }
                    free_if_over(sockets, number);
                }
                SEND => {
                    if let Some(socket) = sockets.get_mut(number) {
                        if socket.on_sent(number, entry.result(), &mut queue) == Sent::InPart {
                            unsent.push(number);
                        }
                        free_if_over(sockets, number);
                    }
                }
                WAIT => on_ready(number, entry.result(), waits),
                _ => {}
            }
        }
        drop(queue);
        if self.unasked > self.unasked_max && !self.is_wary {
            self.end_all_standing();
        }
        if self.sockets.is_empty() {
            self.sockets.shrink_to_fit();
        }
    }

    /// Too much came unasked: for a while every receive is asked for, those that stand included.
    fn end_all_standing(&mut self) {
        self.is_wary = true;
        let standing = self.sockets.iter_mut().filter(|(_, socket)| socket.standing == Standing::On);
        let numbers: Vec<usize> = standing
            .map(|(number, socket)| {
                socket.standing = Standing::Ending;
                number
            })
            .collect();
        numbers.into_iter().for_each(|number| self.push_cancel(number, Kind::Standing));
    }

    /// Gives the kernel buffers, and starts receives again that found none; when the core's are used up, whoever
    /// receives is told so, and is awake then. No more are started than there are buffers, the oldest first: thousands that
    /// starve do not go in circles. Sends on what the kernel left of a buffer when the queue was full.
    fn feed(&mut self) -> bool {
        if std::mem::take(&mut self.lacked) {
            self.provided.raise_level();
        }
        let has_any = self.provided.refill();
        while let Some(number) = self.unsent.pop() {
            if let Some(socket) = self.sockets.get(number)
                && let Sending::UnderWay(buf) = &socket.sending
            {
                count(Count::Send);
                let entry = socket.send_entry(number, buf);
                self.push(entry);
            }
        }
        let mut has_woken = false;
        for _ in 0..self.provided.count().max(1) {
            let Some(number) = self.again.pop_front() else { break };
            let Some(socket) = self.sockets.get_mut(number) else { continue };
            if has_any || matches!(socket.receiving, Receiving::UnderWay(Some(_))) {
                self.push_receive(number);
            } else if matches!(socket.receiving, Receiving::UnderWay(None)) {
                socket.receiving = Receiving::Done(-libc::ENOMEM, Buf::none());
                socket.receiver.wake();
                has_woken = true;
            }
        }
        has_woken
    }

    /// Pushes an entry. One that finds no room goes first in the next turn: none is lost.
    #[inline]
    fn push(&mut self, entry: squeue::Entry) {
        if self.uring.submission().is_full() {
            self.enter(false);
        }
        if !self.late.is_empty() || !push(&mut self.uring.submission(), &entry) {
            self.late.push_back(entry);
        }
    }

    fn push_late(&mut self) {
        let mut queue = self.uring.submission();
        while let Some(entry) = self.late.front() {
            if !push(&mut queue, entry) {
                return;
            }
            self.late.pop_front();
        }
    }

    fn push_cancel(&mut self, number: usize, kind: Kind) {
        self.push(cancel_entry(number, kind));
    }
}

fn cancel_entry(number: usize, kind: Kind) -> squeue::Entry {
    count(Count::Cancel);
    opcode::AsyncCancel::new(user_data(number, kind)).build().user_data(user_data(0, Kind::Forgotten))
}

/// `false` when there is no room.
fn push(queue: &mut squeue::SubmissionQueue<'_>, entry: &squeue::Entry) -> bool {
    // SAFETY: what an entry points at is owned by the socket or wait whose number it carries, which lives until the
    // completion has come; blocks of buffers do not move with their owners.
    unsafe { queue.push(entry) }.is_ok()
}
