//! How many client connections each core holds, side by side for all cores to see, and the rule by which a core gives a
//! connection that it has just accepted to one that holds clearly fewer. This is the one thing that cores share. It knows
//! counts only: sockets and mailboxes are the worker's.

use std::{
    cell::Cell,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
};

/// Connections on their way to one core, at most. A core that stalls gets no more than these, and they leave room in its
/// mailbox for the control plane.
pub(super) const PROMISED_MAX: usize = 32;

/// A core gives nothing away while it holds more than the least loaded one by at most one in so many of its own.
const SLACK_SHARE: usize = 16;

/// Connections that a core gives away in a row; after that one per tick. Long-lived ones need no more, since chance alone
/// spreads so many well enough. Short ones would be passed to and fro at every request, for nothing: their spread heals by
/// itself.
const BUDGET_MAX: u32 = 64;

/// How often a core looks anew because another one was quicker.
const PROMISES_TRIED: usize = 3;

/// Set in [`Load::promised`] while the core takes nothing.
const CLOSED: usize = 1 << (usize::BITS - 1);

/// What one core holds, alone in its cache lines (x86 fetches them in pairs). No other memory depends on these counts, so
/// they need no order among them; a socket goes through a mailbox, which has its own.
#[derive(Debug)]
#[repr(align(128))]
struct Load {
    /// Client connections that the core serves. Only the core writes it, by plain stores.
    held: AtomicUsize,
    /// Connections that others have promised it and that it has not taken yet, and [`CLOSED`]. A promise and the core's
    /// end are changes of this one word, so either the core knows of the promise when it looks whether all is done, or
    /// whoever promises knows that it ends.
    promised: AtomicUsize,
}

/// A core that may take a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Candidate {
    /// Its number.
    pub(super) core: usize,
    /// Connections it holds at most.
    pub(super) max_connections: usize,
}

/// One core's view of all.
#[derive(Debug)]
pub(super) struct Spread {
    loads: Arc<[Load]>,
    own: usize,
    budget: Cell<u32>,
}

/// As long as it lives, others may promise the core connections.
pub(super) struct Opened<'s>(&'s Spread);

impl Drop for Opened<'_> {
    fn drop(&mut self) {
        self.0.close();
    }
}

/// Whether a core that holds `own` connections gives a new one to one that holds `least`. Below 16 any difference is enough,
/// so that few connections are spread evenly. Beyond that a sixteenth is let be: the hash of `SO_REUSEPORT` is as good as
/// chance, whose differences grow with the square root only and so rarely reach it where connections are many.
const fn is_clearly_more(own: usize, least: usize) -> bool {
    own > least + own / SLACK_SHARE
}

impl Spread {
    /// The views of so many cores, none of which takes anything yet.
    pub(super) fn new(cores: usize) -> Vec<Self> {
        let load = || Load { held: AtomicUsize::new(0), promised: AtomicUsize::new(CLOSED) };
        let loads: Arc<[Load]> = (0..cores).map(|_| load()).collect();
        (0..cores).map(|own| Self { loads: Arc::clone(&loads), own, budget: Cell::new(BUDGET_MAX) }).collect()
    }

    fn own(&self) -> &Load {
        &self.loads[self.own]
    }

    /// Takes promises from now on.
    pub(super) fn open(&self) -> Opened<'_> {
        self.own().promised.fetch_and(!CLOSED, Relaxed);
        Opened(self)
    }

    /// Takes no further promises; those already given are kept.
    pub(super) fn close(&self) {
        self.own().promised.fetch_or(CLOSED, Relaxed);
    }

    /// Says how many connections this core serves.
    #[inline]
    pub(super) fn hold(&self, connections: usize) {
        self.own().held.store(connections, Relaxed);
    }

    /// Whether connections are on their way here.
    pub(super) fn is_promised_any(&self) -> bool {
        self.own().promised.load(Relaxed) & !CLOSED > 0
    }

    /// A promised connection has come.
    pub(super) fn keep_promise(&self) {
        self.own().promised.fetch_sub(1, Relaxed);
    }

    /// The place among the candidates of the core to which a connection that has just been accepted goes, if it is better
    /// off there. It counts as that core's from now on: either it is sent there, or the promise is broken.
    pub(super) fn promise(&self, candidates: impl Iterator<Item = Candidate> + Clone) -> Option<usize> {
        let own = self.own().held.load(Relaxed) + (self.own().promised.load(Relaxed) & !CLOSED);
        // Without a budget it does not even look at the others, which is most of the time where connections are many and
        // short.
        if own == 0 || self.budget.get() == 0 {
            return None;
        }
        for _ in 0..PROMISES_TRIED {
            let (least, promised, core, place) = self.least(candidates.clone())?;
            if !is_clearly_more(own, least) {
                return None;
            }
            // Only if no one has promised it something since, and it has not closed: a burst does not overshoot.
            let word = &self.loads[core].promised;
            if word.compare_exchange(promised, promised + 1, Relaxed, Relaxed).is_ok() {
                self.budget.set(self.budget.get() - 1);
                return Some(place);
            }
        }
        None
    }

    /// Of those that take connections and have room, the one with the fewest: how many, how many of these are promised, its
    /// number, and its place among the candidates.
    fn least(&self, candidates: impl Iterator<Item = Candidate>) -> Option<(usize, usize, usize, usize)> {
        let open = candidates.enumerate().filter_map(|(place, candidate)| {
            let load = &self.loads[candidate.core];
            let promised = load.promised.load(Relaxed);
            // So is that of a closed core.
            if promised >= PROMISED_MAX {
                return None;
            }
            let count = load.held.load(Relaxed) + promised;
            (count < candidate.max_connections).then_some((count, promised, candidate.core, place))
        });
        open.min_by_key(|(count, ..)| *count)
    }

    /// The connection stays here after all.
    pub(super) fn break_promise(&self, core: usize) {
        self.loads[core].promised.fetch_sub(1, Relaxed);
    }

    /// A tick has passed: one more may be given away.
    #[inline]
    pub(super) fn tick(&self) {
        self.budget.set((self.budget.get() + 1).min(BUDGET_MAX));
    }
}

#[cfg(test)]
mod tests;
