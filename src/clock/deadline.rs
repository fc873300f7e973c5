//! Deadlines: each connection task owns one [`Deadline`] with a few timers; setting one is a store. The worker's tick
//! sweeps over all of them and wakes the tasks whose time has come; the task then sees which timer it was. So a request
//! costs stores, not timer operations, and a deadline is late by up to a tick.

use std::{
    cell::{Cell, RefCell},
    rc::Rc,
    task::Waker,
};

/// What a connection task can wait for at the same time, each with a deadline of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Timer {
    /// The client's bytes on their way to the upstream: head, body, keep-alive.
    Request = 0,
    /// The upstream's bytes on their way to the client, and connecting.
    Response = 1,
    /// The whole exchange.
    Exchange = 2,
}

const TIMERS: usize = 3;
const NEVER: u64 = u64::MAX;

#[derive(Debug)]
struct Entry {
    at_ms: [Cell<u64>; TIMERS],
    waker: RefCell<Option<Waker>>,
}

/// Deadlines that lie together in memory, so that the sweep over thousands of idle ones reads it from end to end.
const CHUNK: usize = 64;

#[derive(Debug)]
struct Chunk([Entry; CHUNK]);

impl Chunk {
    fn new() -> Self {
        Self(
            [const { Entry { at_ms: [const { Cell::new(NEVER) }; TIMERS], waker: RefCell::new(None) } };
                CHUNK],
        )
    }
}

/// All deadlines of a core.
#[derive(Debug, Default)]
pub struct Deadlines {
    chunks: RefCell<Vec<Rc<Chunk>>>,
    /// Places that are not taken.
    free: RefCell<Vec<u32>>,
    now_ms: Cell<u64>,
}

impl Deadlines {
    /// A new deadline, with no timer running.
    pub fn register(self: &Rc<Self>) -> Deadline {
        let mut chunks = self.chunks.borrow_mut();
        let place = self.free.borrow_mut().pop();
        let place = place.unwrap_or_else(|| {
            let first = (chunks.len() * CHUNK) as u32;
            chunks.push(Rc::new(Chunk::new()));
            self.free.borrow_mut().extend((first + 1..first + CHUNK as u32).rev());
            first
        });
        Deadline { all: Rc::clone(self), chunk: Rc::clone(&chunks[place as usize / CHUNK]), place }
    }

    /// Wakes every task one of whose timers has run out by `now_ms`.
    pub fn sweep(&self, now_ms: u64) {
        self.now_ms.set(now_ms);
        self.each(|entry| {
            if entry.at_ms.iter().any(|at| at.get() <= now_ms) {
                entry.wake();
            }
        });
    }

    /// Lets a timer of every task run out now.
    pub fn expire_all(&self, timer: Timer) {
        self.each(|entry| {
            if entry.waker.borrow().is_some() {
                entry.at_ms[timer as usize].set(0);
                entry.wake();
            }
        });
    }

    /// Wakes every task.
    pub fn wake_all(&self) {
        self.each(Entry::wake);
    }

    fn each(&self, on: impl FnMut(&Entry)) {
        self.chunks.borrow().iter().flat_map(|chunk| &chunk.0).for_each(on);
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.chunks.borrow().len() * CHUNK - self.free.borrow().len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl Entry {
    fn wake(&self) {
        if let Some(waker) = self.waker.borrow().as_ref() {
            waker.wake_by_ref();
        }
    }
}

/// The timers of one connection task. Gone when dropped.
#[derive(Debug)]
pub struct Deadline {
    all: Rc<Deadlines>,
    chunk: Rc<Chunk>,
    place: u32,
}

impl Deadline {
    #[inline]
    fn entry(&self) -> &Entry {
        &self.chunk.0[self.place as usize % CHUNK]
    }

    /// Says which task to wake. Once per task is enough.
    pub fn wake_with(&self, waker: &Waker) {
        *self.entry().waker.borrow_mut() = Some(waker.clone());
    }

    /// Lets `timer` run out `after_ms` from the last sweep; 0 stops it.
    #[inline]
    pub fn set(&self, timer: Timer, after_ms: u64) {
        let at = if after_ms == 0 { NEVER } else { self.all.now_ms.get() + after_ms };
        self.entry().at_ms[timer as usize].set(at);
    }

    /// Stops `timer`.
    #[inline]
    pub fn clear(&self, timer: Timer) {
        self.entry().at_ms[timer as usize].set(NEVER);
    }

    /// The time that its timers go by.
    pub fn now_ms(&self) -> u64 {
        self.all.now_ms.get()
    }

    /// Whether `timer` has run out.
    #[inline]
    pub fn has_expired(&self, timer: Timer) -> bool {
        self.entry().at_ms[timer as usize].get() <= self.all.now_ms.get()
    }
}

impl Drop for Deadline {
    fn drop(&mut self) {
        let entry = self.entry();
        entry.at_ms.iter().for_each(|at| at.set(NEVER));
        *entry.waker.borrow_mut() = None;
        self.all.free.borrow_mut().push(self.place);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    };
    use std::task::Wake;

    use super::*;

    struct Count(AtomicUsize);

    impl Wake for Count {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    #[test]
    fn wakes_when_a_timer_runs_out_and_not_before() {
        let all = Rc::new(Deadlines::default());
        all.sweep(1000);
        let deadline = all.register();
        let count = Arc::new(Count(AtomicUsize::new(0)));
        deadline.wake_with(&Waker::from(Arc::clone(&count)));
        deadline.set(Timer::Response, 50);
        all.sweep(1049);
        assert_eq!(count.0.load(Ordering::Relaxed), 0);
        assert!(!deadline.has_expired(Timer::Response));
        all.sweep(1050);
        assert_eq!(count.0.load(Ordering::Relaxed), 1);
        assert!(deadline.has_expired(Timer::Response));
        assert!(!deadline.has_expired(Timer::Request));
        deadline.clear(Timer::Response);
        all.sweep(5000);
        assert_eq!(count.0.load(Ordering::Relaxed), 1);
        drop(deadline);
        assert!(all.is_empty());
    }

    #[test]
    fn zero_means_no_deadline() {
        let all = Rc::new(Deadlines::default());
        let deadline = all.register();
        deadline.set(Timer::Exchange, 0);
        all.sweep(u64::MAX - 1);
        assert!(!deadline.has_expired(Timer::Exchange));
    }

    #[test]
    fn places_are_used_again_without_what_was_there() {
        let all = Rc::new(Deadlines::default());
        let count = Arc::new(Count(AtomicUsize::new(0)));
        let waker = Waker::from(Arc::clone(&count));
        let mut held: Vec<Deadline> = (0..2 * CHUNK + 1).map(|_| all.register()).collect();
        for deadline in &held {
            deadline.wake_with(&waker);
            deadline.set(Timer::Request, 10);
        }
        held.drain(CHUNK / 2..CHUNK + CHUNK / 2);
        assert_eq!(all.len(), CHUNK + 1);
        all.sweep(10);
        assert_eq!(count.0.load(Ordering::Relaxed), CHUNK + 1, "those that are gone wake no one");
        let again: Vec<Deadline> = (0..CHUNK).map(|_| all.register()).collect();
        assert_eq!((all.len(), all.chunks.borrow().len()), (2 * CHUNK + 1, 3), "no chunk is added");
        assert!(again.iter().all(|deadline| !deadline.has_expired(Timer::Request)));
        all.expire_all(Timer::Exchange);
        assert!(
            again.iter().all(|deadline| !deadline.has_expired(Timer::Exchange)),
            "they wait for nothing yet"
        );
        assert!(held.iter().all(|deadline| deadline.has_expired(Timer::Exchange)));
    }
}
