//! A socket on the ring, as a state machine over completions: what each of its halves is doing, what came unasked, and
//! who waits. It submits nothing but what continues an operation.

use std::{collections::VecDeque, os::fd::RawFd};

use io_uring::{cqueue, opcode, squeue, types};
use slab::Slab;

use super::{
    super::{
        count::{Count, Origin, count, count_many, received, sent},
        tasks::Waiter,
    },
    Kind, cancel_entry, push, user_data,
};
use crate::buf::Buf;

/// The receiving half.
pub(super) enum Receiving {
    Idle,
    /// Into this buffer, or else into one that the kernel takes.
    UnderWay(Option<Buf>),
    /// How many bytes came, or the error's number below 0.
    Done(i32, Buf),
}

/// A receive that the kernel goes on with by itself, into provided buffers: it saves the submission, and the look at the
/// socket that finds nothing, for each message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Standing {
    Off,
    On,
    /// It was told to end; what is on its way still comes.
    Ending,
}

/// Messages in a row that came one at a time and when they were asked for, before a receive is left standing.
const CALM_MIN: i8 = 2;
/// What a message that came unasked counts against them: what streams or pipelines is asked for piece by piece.
const UNASKED: i8 = -32;

/// The sending half.
pub(super) enum Sending {
    Idle,
    UnderWay(Buf),
    /// 0, or the error's number below 0; and what is not sent.
    Done(i32, Buf),
}

pub(super) struct Socket {
    pub(super) fd: RawFd,
    pub(super) origin: Origin,
    /// Whether the kernel said, when it last received, that there is more.
    pub(super) has_more: bool,
    /// Its user has gone: what comes is dropped, and the number is free after the last word.
    pub(super) is_closed: bool,
    pub(super) standing: Standing,
    /// How far it can be expected to send only what is asked for.
    calm: i8,
    pub(super) receiving: Receiving,
    /// What came unasked.
    #[expect(clippy::box_collection, reason = "hardly any socket has it, and so each is smaller")]
    early: Option<Box<VecDeque<(i32, Buf)>>>,
    pub(super) sending: Sending,
    /// Bytes that the kernel took.
    pub(super) sent: u64,
    pub(super) receiver: Waiter,
    pub(super) sender: Waiter,
}

/// What a received message means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Received {
    /// It was waited for, or nothing came that matters.
    Asked,
    /// All or a part of it is held until it is asked for.
    Unasked,
    /// Nothing came, and the receive is to be started again.
    Again,
}

/// How far a send has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Sent {
    /// To its end, or the rest is under way.
    ToItsEnd,
    /// The rest found no room in the submission queue.
    InPart,
}

impl Socket {
    pub(super) fn new(fd: RawFd, origin: Origin) -> Self {
        Self {
            fd,
            origin,
            // Whoever has just connected has mostly sent something.
            has_more: origin == Origin::Accepted,
            is_closed: false,
            standing: Standing::Off,
            calm: 0,
            receiving: Receiving::Idle,
            early: None,
            sending: Sending::Idle,
            sent: 0,
            receiver: Waiter::Nobody,
            sender: Waiter::Nobody,
        }
    }

    /// Whether the kernel has something to say on it.
    pub(super) fn is_busy(&self) -> bool {
        matches!(self.receiving, Receiving::UnderWay(_))
            || matches!(self.sending, Sending::UnderWay(_))
            || self.standing != Standing::Off
    }

    /// Whether its next receive is worth leaving to the kernel for good.
    pub(super) fn is_calm(&self) -> bool {
        self.calm >= CALM_MIN
    }

    /// Whether something came unasked.
    pub(super) fn has_early(&self) -> bool {
        self.early.is_some()
    }

    /// How many messages came unasked, which are dropped.
    pub(super) fn drop_early(&mut self) -> usize {
        self.early.take().map_or(0, |early| early.len())
    }

    /// Makes what came first of all the result of a receive into `into`. Returns how many fewer are held.
    pub(super) fn take_early(&mut self, into: Option<Buf>) -> usize {
        let Some((result, own)) = self.early.as_mut().and_then(|early| early.pop_front()) else { return 0 };
        let left = self.finish_receive(result, Some(own), into);
        if self.early.as_ref().is_some_and(|early| early.is_empty()) {
            self.early = None;
        }
        1 - usize::from(left)
    }

    /// Brings a receive to its end: what came is in a buffer of its own, or has been put into `into`. A buffer that
    /// holds something already gets what came behind that; what does not fit is held, which is returned.
    fn finish_receive(&mut self, result: i32, own: Option<Buf>, into: Option<Buf>) -> bool {
        let (outcome, rest) = match (result, own, into) {
            (1.., Some(mut own), Some(mut into)) if !into.is_empty() => {
                let fits = own.len().min(into.spare_len());
                let pushed = into.push(&own.filled()[..fits]);
                debug_assert!(pushed, "there is room for it");
                own.consume(fits);
                ((fits as i32, into), (!own.is_empty()).then_some(own))
            }
            (result, Some(own), None) => ((result, own), None),
            (result, Some(own), Some(into)) => ((result, if own.is_empty() { into } else { own }), None),
            (result, None, into) => ((result, into.unwrap_or_else(Buf::none)), None),
        };
        self.receiving = Receiving::Done(outcome.0, outcome.1);
        let is_held = rest.is_some();
        if let Some(rest) = rest {
            self.early.get_or_insert_default().push_front((rest.len() as i32, rest));
        }
        is_held
    }

    /// A receive's completion; `own` is the provided buffer that it names.
    pub(super) fn on_received(
        &mut self,
        is_standing: bool,
        entry: &cqueue::Entry,
        own: Option<Buf>,
    ) -> Received {
        let result = entry.result();
        self.has_more = cqueue::sock_nonempty(entry.flags());
        if is_standing && !cqueue::more(entry.flags()) {
            self.standing = Standing::Off;
        }
        if self.is_closed {
            if !is_standing {
                self.receiving = Receiving::Idle;
            }
            return Received::Asked;
        }
        let is_asked = matches!(self.receiving, Receiving::UnderWay(_));
        if matches!(-result, libc::ENOBUFS | libc::ECANCELED) {
            return if is_asked { Received::Again } else { Received::Asked };
        }
        debug_assert!(!is_standing || result <= 0 || own.is_some(), "a standing receive names its buffer");
        let came = usize::try_from(result).unwrap_or(0);
        if result < 0 {
            count(Count::Error);
        } else {
            received(self.origin, came);
        }
        if !is_asked {
            self.calm = UNASKED;
            self.early.get_or_insert_default().push_back((result, own.unwrap_or_else(Buf::none)));
            return Received::Unasked;
        }
        let Receiving::UnderWay(mut into) = std::mem::replace(&mut self.receiving, Receiving::Idle) else {
            return Received::Asked;
        };
        if own.is_none()
            && !is_standing
            && let Some(into) = &mut into
        {
            into.commit(came);
        }
        // What is received into a buffer of its user's is a message in pieces.
        self.calm = if into.is_none() { self.calm.saturating_add(1) } else { self.calm.min(0) };
        let is_held = self.finish_receive(result, own, into);
        self.receiver.wake();
        if is_held { Received::Unasked } else { Received::Asked }
    }

    /// A send's completion.
    pub(super) fn on_sent(
        &mut self,
        number: usize,
        result: i32,
        queue: &mut squeue::SubmissionQueue<'_>,
    ) -> Sent {
        let Sending::UnderWay(mut buf) = std::mem::replace(&mut self.sending, Sending::Idle) else {
            return Sent::ToItsEnd;
        };
        if self.is_closed {
            return Sent::ToItsEnd;
        }
        let result = match usize::try_from(result) {
            Err(_) => result,
            Ok(0) => -libc::EPIPE,
            Ok(bytes) => {
                sent(self.origin, bytes);
                self.sent += bytes as u64;
                buf.consume(bytes);
                if !buf.is_empty() {
                    // The kernel took a part: the rest follows without waking anyone.
                    let is_pushed = push(queue, &self.send_entry(number, &buf));
                    count_many(Count::Send, is_pushed.into());
                    self.sending = Sending::UnderWay(buf);
                    return if is_pushed { Sent::ToItsEnd } else { Sent::InPart };
                }
                0
            }
        };
        if result < 0 {
            count(Count::Error);
        } else if matches!(self.sender, Waiter::Nobody) {
            // All of it is out and no one waits to hear so: the buffer goes home.
            return Sent::ToItsEnd;
        }
        self.sending = Sending::Done(result, buf);
        self.sender.wake();
        Sent::ToItsEnd
    }

    /// A send of the buffer's bytes. The buffer must then be kept in [`Sending::UnderWay`].
    #[inline]
    pub(super) fn send_entry(&self, number: usize, buf: &Buf) -> squeue::Entry {
        let bytes = buf.filled();
        opcode::Send::new(types::Fd(self.fd), bytes.as_ptr(), bytes.len() as u32)
            .flags(libc::MSG_NOSIGNAL)
            .build()
            .user_data(user_data(number, Kind::Send))
    }

    /// Tells a standing receive to end. When there is no room to say so, its next message will try again.
    pub(super) fn end_standing(&mut self, number: usize, queue: &mut squeue::SubmissionQueue<'_>) {
        if self.standing == Standing::On && push(queue, &cancel_entry(number, Kind::Standing)) {
            self.standing = Standing::Ending;
        }
    }
}

/// Frees the number of a socket whose user has gone, and on which the kernel has said its last word.
#[inline]
pub(super) fn free_if_over(sockets: &mut Slab<Box<Socket>>, number: usize) {
    if sockets.get(number).is_some_and(|socket| socket.is_closed && !socket.is_busy()) {
        sockets.remove(number);
    }
}
