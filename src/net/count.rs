//! What this thread's sockets were asked to do and what they carried, in plain cells: a count costs an addition, and a
//! reader on another thread asks for a copy. Which requests the bytes belonged to is not known here.

use std::cell::Cell;

use crate::telemetry::figures::RingCounters;

/// Where a socket came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Origin {
    /// A client connected to us.
    Accepted,
    /// We connected to an endpoint.
    Connected,
}

/// Bytes that sockets of one origin carried.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Traffic {
    /// Received.
    pub received: u64,
    /// Sent.
    pub sent: u64,
}

/// What is counted.
#[derive(Debug, Clone, Copy)]
pub(super) enum Count {
    Accept,
    Connect,
    Receive,
    Send,
    Cancel,
    Error,
    Enter,
    Submission,
    Completion,
}

const COUNTS_MAX: usize = Count::Completion as usize + 1;

struct Counts {
    operations: [Cell<u64>; COUNTS_MAX],
    received: [Cell<u64>; 2],
    sent: [Cell<u64>; 2],
}

thread_local! {
    static COUNTS: Counts = const {
        Counts {
            operations: [const { Cell::new(0) }; COUNTS_MAX],
            received: [const { Cell::new(0) }; 2],
            sent: [const { Cell::new(0) }; 2],
        }
    };
}

#[inline]
fn add(to: &Cell<u64>, more: u64) {
    to.set(to.get().wrapping_add(more));
}

/// One operation.
#[inline]
pub(super) fn count(what: Count) {
    count_many(what, 1);
}

/// Several of a kind.
#[inline]
pub(super) fn count_many(what: Count, more: u64) {
    COUNTS.with(|counts| add(&counts.operations[what as usize], more));
}

/// What a socket received.
#[inline]
pub(super) fn received(origin: Origin, bytes: usize) {
    COUNTS.with(|counts| add(&counts.received[origin as usize], bytes as u64));
}

/// What a socket sent.
#[inline]
pub(super) fn sent(origin: Origin, bytes: usize) {
    COUNTS.with(|counts| add(&counts.sent[origin as usize], bytes as u64));
}

/// What this thread asked of its ring, or of epoll.
pub fn operations() -> RingCounters {
    COUNTS.with(|counts| {
        let of = |what: Count| counts.operations[what as usize].get();
        RingCounters {
            accepts: of(Count::Accept),
            connects: of(Count::Connect),
            receives: of(Count::Receive),
            sends: of(Count::Send),
            cancels: of(Count::Cancel),
            errors: of(Count::Error),
            enters: of(Count::Enter),
            submissions: of(Count::Submission),
            completions: of(Count::Completion),
        }
    })
}

/// What this thread's client connections carried, and its connections to endpoints.
pub fn traffic() -> [Traffic; 2] {
    COUNTS.with(|counts| {
        [Origin::Accepted, Origin::Connected].map(|origin| Traffic {
            received: counts.received[origin as usize].get(),
            sent: counts.sent[origin as usize].get(),
        })
    })
}
