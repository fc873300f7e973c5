//! Deadlines: each connection task owns one [`Deadline`] with a few timers; setting one is a store. The worker's tick
//! sweeps over all of them and wakes the tasks whose time has come; the task then sees which timer it was. So a request
//! costs stores, not timer operations, and a deadline is late by up to a tick.

use std::{
    cell::{Cell, RefCell},
    rc::Rc,
    task::Waker,
};

use slab::Slab;

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

/// All deadlines of a core.
#[derive(Debug, Default)]
pub struct Deadlines {
    entries: RefCell<Slab<Rc<Entry>>>,
    now_ms: Cell<u64>,
}

impl Deadlines {
    /// A new deadline, with no timer running.
    pub fn register(self: &Rc<Self>) -> Deadline {
        let entry = Rc::new(Entry { at_ms: [const { Cell::new(NEVER) }; TIMERS], waker: RefCell::new(None) });
        let key = self.entries.borrow_mut().insert(Rc::clone(&entry));
        Deadline { all: Rc::clone(self), entry, key }
    }

    /// Wakes every task one of whose timers has run out by `now_ms`.
    pub fn sweep(&self, now_ms: u64) {
        self.now_ms.set(now_ms);
        for (_, entry) in self.entries.borrow().iter() {
            if entry.at_ms.iter().any(|at| at.get() <= now_ms)
                && let Some(waker) = entry.waker.borrow().as_ref()
            {
                waker.wake_by_ref();
            }
        }
    }

    /// Lets a timer of every task run out now.
    pub fn expire_all(&self, timer: Timer) {
        for (_, entry) in self.entries.borrow().iter() {
            entry.at_ms[timer as usize].set(0);
        }
        self.wake_all();
    }

    /// Wakes every task.
    pub fn wake_all(&self) {
        for (_, entry) in self.entries.borrow().iter() {
            if let Some(waker) = entry.waker.borrow().as_ref() {
                waker.wake_by_ref();
            }
        }
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.entries.borrow().len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// The timers of one connection task. Gone when dropped.
#[derive(Debug)]
pub struct Deadline {
    all: Rc<Deadlines>,
    entry: Rc<Entry>,
    key: usize,
}

impl Deadline {
    /// Says which task to wake. Once per task is enough.
    pub fn wake_with(&self, waker: &Waker) {
        *self.entry.waker.borrow_mut() = Some(waker.clone());
    }

    /// Lets `timer` run out `after_ms` from the last sweep; 0 stops it.
    #[inline]
    pub fn set(&self, timer: Timer, after_ms: u64) {
        let at = if after_ms == 0 { NEVER } else { self.all.now_ms.get() + after_ms };
        self.entry.at_ms[timer as usize].set(at);
    }

    /// Stops `timer`.
    #[inline]
    pub fn clear(&self, timer: Timer) {
        self.entry.at_ms[timer as usize].set(NEVER);
    }

    /// Whether `timer` has run out.
    #[inline]
    pub fn has_expired(&self, timer: Timer) -> bool {
        self.entry.at_ms[timer as usize].get() <= self.all.now_ms.get()
    }
}

impl Drop for Deadline {
    fn drop(&mut self) {
        self.all.entries.borrow_mut().remove(self.key);
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
}
