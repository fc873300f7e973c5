//! The tasks of a core whose I/O is on [`super::ring`]: a slab of futures and queues of those that are ready. A waker
//! is a task's number, so that cloning and dropping one costs nothing, a completion wakes by a push, and the thread
//! waits in the kernel exactly when nothing is ready. What tasks are for is not known here.
//!
//! Tasks that the kernel has woken do not wait for all that others have: one client may begin, or end, hundreds of requests at once,
//! and those take their turns beside everyone else's.
#![expect(unsafe_code, reason = "wakers that are numbers need a virtual table of their own")]

use std::{
    cell::RefCell,
    collections::VecDeque,
    future::Future,
    pin::{Pin, pin},
    ptr,
    task::{Context, Poll, RawWaker, RawWakerVTable, Waker},
};

use slab::Slab;

/// A task's number. It may wake a later task that has taken the number over, which then finds nothing to do.
pub(super) type TaskId = u32;

/// The future that the thread runs to its end.
const MAIN: TaskId = u32::MAX;

/// How often what is ready is run between two looks at the ring: what the first pass wakes is mostly worth doing before,
/// and tasks that wake each other, or themselves, cannot keep the core from its I/O.
const PASSES: usize = 2;

/// Tasks woken or spawned by others that are run in one pass.
const INNER_MAX: usize = 16;

type Work = Pin<Box<dyn Future<Output = ()>>>;

struct Task {
    /// Absent while it is polled.
    work: Option<Work>,
    is_ready: bool,
}

struct Tasks {
    slots: Slab<Task>,
    /// Woken by completions.
    ready: VecDeque<TaskId>,
    /// New, or woken by tasks.
    inner: VecDeque<TaskId>,
    is_main_ready: bool,
}

thread_local! {
    static TASKS: RefCell<Tasks> = const {
        RefCell::new(Tasks { slots: Slab::new(), ready: VecDeque::new(), inner: VecDeque::new(), is_main_ready: true })
    };
}

impl Tasks {
    /// Makes a task ready, if it is not.
    #[inline]
    fn wake(&mut self, id: TaskId, by: By) {
        if id == MAIN {
            self.is_main_ready = true;
        } else if let Some(task) = self.slots.get_mut(id as usize)
            && !task.is_ready
        {
            task.is_ready = true;
            self.queue(by).push_back(id);
        }
    }

    #[inline]
    fn queue(&mut self, by: By) -> &mut VecDeque<TaskId> {
        match by {
            By::Completion => &mut self.ready,
            By::Task => &mut self.inner,
        }
    }

    fn take_ready(&mut self, by: By) -> Option<(TaskId, Work)> {
        while let Some(id) = self.queue(by).pop_front() {
            let Some(task) = self.slots.get_mut(id as usize) else { continue };
            task.is_ready = false;
            if let Some(work) = task.work.take() {
                return Some((id, work));
            }
        }
        None
    }

    fn is_idle(&self) -> bool {
        self.ready.is_empty() && self.inner.is_empty() && !self.is_main_ready
    }
}

/// Who wakes a task.
#[derive(Debug, Clone, Copy)]
enum By {
    Completion,
    Task,
}

#[inline]
fn wake(id: TaskId, by: By) {
    // Wakers may outlive the thread's tasks when the process ends.
    let _ = TASKS.try_with(|tasks| tasks.borrow_mut().wake(id, by));
}

/// Adds a task, ready to begin.
pub(super) fn spawn(work: impl Future<Output = ()> + 'static) {
    let work: Work = Box::pin(work);
    TASKS.with_borrow_mut(|tasks| {
        let id = tasks.slots.insert(Task { work: Some(work), is_ready: true }) as TaskId;
        tasks.inner.push_back(id);
    });
}

/// Runs `main` to its end, and tasks beside it. `turn` is called when a round of tasks is over, with whether there is
/// nothing left to do but to wait.
pub(super) fn run<F: Future>(main: F, mut turn: impl FnMut(bool)) -> F::Output {
    let mut main = pin!(main);
    let main_waker = waker_of(MAIN);
    loop {
        if TASKS.with_borrow_mut(|tasks| std::mem::take(&mut tasks.is_main_ready))
            && let Poll::Ready(output) = main.as_mut().poll(&mut Context::from_waker(&main_waker))
        {
            return output;
        }
        for _ in 0..PASSES {
            let [ready, inner] = TASKS.with_borrow(|tasks| [tasks.ready.len(), tasks.inner.len()]);
            for (by, count) in [(By::Completion, ready), (By::Task, inner.min(INNER_MAX))] {
                for _ in 0..count {
                    let Some((id, work)) = TASKS.with_borrow_mut(|tasks| tasks.take_ready(by)) else { break };
                    poll(id, work);
                }
            }
        }
        turn(TASKS.with_borrow(Tasks::is_idle));
    }
}

fn poll(id: TaskId, mut work: Work) {
    let waker = waker_of(id);
    if work.as_mut().poll(&mut Context::from_waker(&waker)).is_pending() {
        TASKS.with_borrow_mut(|tasks| tasks.slots[id as usize].work = Some(work));
        return;
    }
    // What it held may wake others when it goes, so not while the tasks are borrowed.
    drop(work);
    TASKS.with_borrow_mut(|tasks| {
        tasks.slots.remove(id as usize);
        if tasks.slots.is_empty() {
            tasks.slots.shrink_to_fit();
        }
    });
}

/// Who waits for an operation.
#[derive(Debug, Default)]
pub(super) enum Waiter {
    /// No one.
    #[default]
    Nobody,
    /// A task of this thread.
    Task(TaskId),
    /// A waker that is not a task's, such as a combinator's.
    Other(Waker),
}

impl Waiter {
    /// Makes it whoever polls.
    #[inline]
    pub(super) fn set(&mut self, cx: &Context<'_>) {
        let waker = cx.waker();
        if ptr::eq(waker.vtable(), &raw const VTABLE) {
            let id = waker.data().addr() as TaskId;
            match self {
                Self::Task(same) => *same = id,
                Self::Nobody | Self::Other(_) => *self = Self::Task(id),
            }
        } else {
            *self = Self::Other(waker.clone());
        }
    }

    /// Wakes who waits, once, as what it waited for is complete.
    #[inline]
    pub(super) fn wake(&mut self) {
        match std::mem::take(self) {
            Self::Nobody => {}
            Self::Task(id) => wake(id, By::Completion),
            Self::Other(waker) => waker.wake(),
        }
    }
}

static VTABLE: RawWakerVTable =
    RawWakerVTable::new(|data| RawWaker::new(data, &VTABLE), wake_number, wake_number, |_| {});

/// Called on another thread it would wake a task of that one, or none: other threads reach a core by its mailbox only.
fn wake_number(data: *const ()) {
    wake(data.addr() as TaskId, By::Task);
}

fn waker_of(id: TaskId) -> Waker {
    let raw = RawWaker::new(ptr::without_provenance(id as usize), &VTABLE);
    // SAFETY: the data is a number that the functions of the table only read; there is nothing to own or free, so the
    // contract of `RawWaker` holds for any number, on any thread.
    unsafe { Waker::from_raw(raw) }
}

#[cfg(test)]
mod tests {
    use std::{cell::Cell, future::poll_fn, rc::Rc};

    use super::*;

    #[test]
    fn tasks_wake_each_other_and_main_ends() {
        let (from_main, to_main) = (Rc::new(Cell::new(0)), Rc::new(RefCell::new(None::<Waker>)));
        let (count, wake_main) = (Rc::clone(&from_main), Rc::clone(&to_main));
        spawn(async move {
            for round in 0..3 {
                let mut yielded = false;
                poll_fn(|cx| {
                    if std::mem::replace(&mut yielded, true) {
                        return Poll::Ready(());
                    }
                    cx.waker().wake_by_ref();
                    Poll::Pending
                })
                .await;
                count.set(round + 1);
            }
            if let Some(waker) = wake_main.borrow_mut().take() {
                waker.wake();
            }
        });
        let mut turns = 0;
        let output = run(
            poll_fn(|cx| {
                *to_main.borrow_mut() = Some(cx.waker().clone());
                if from_main.get() == 3 { Poll::Ready("over") } else { Poll::Pending }
            }),
            |is_idle| {
                turns += 1;
                assert!(!is_idle, "something is ready all the time");
            },
        );
        assert_eq!((output, turns), ("over", 2), "two passes a turn");
        assert!(TASKS.with_borrow(|tasks| tasks.slots.is_empty()));
    }

    #[test]
    fn a_late_wake_harms_no_one() {
        spawn(async {});
        wake(0, By::Completion);
        wake(7, By::Task);
        assert_eq!(TASKS.with_borrow(|tasks| (tasks.ready.len(), tasks.inner.len())), (0, 1));
        let mut polls = 0;
        run(
            poll_fn(|cx| {
                polls += 1;
                cx.waker().wake_by_ref();
                if polls == 2 { Poll::Ready(()) } else { Poll::Pending }
            }),
            |is_idle| assert!(!is_idle),
        );
        wake(0, By::Task);
        assert!(TASKS.with_borrow(|tasks| tasks.ready.is_empty() && tasks.inner.is_empty()));
    }

    #[test]
    fn who_waits_for_the_kernel_does_not_wait_for_a_crowd() {
        let crowd = Rc::new(Cell::new(0));
        let seen = Rc::new(Cell::new(None));
        let waiter = Rc::new(RefCell::new(Waiter::Nobody));
        let (waits, sees, others) = (Rc::clone(&waiter), Rc::clone(&seen), Rc::clone(&crowd));
        spawn(async move {
            let mut has_waited = false;
            poll_fn(|cx| {
                if std::mem::replace(&mut has_waited, true) {
                    return Poll::Ready(());
                }
                waits.borrow_mut().set(cx);
                Poll::Pending
            })
            .await;
            sees.set(Some(others.get()));
        });
        for _ in 0..10 * INNER_MAX {
            let crowd = Rc::clone(&crowd);
            spawn(async move { crowd.set(crowd.get() + 1) });
        }
        let all = 10 * INNER_MAX;
        run(
            poll_fn(|cx| {
                cx.waker().wake_by_ref();
                if crowd.get() == all { Poll::Ready(()) } else { Poll::Pending }
            }),
            |_| waiter.borrow_mut().wake(),
        );
        assert_eq!(seen.get(), Some(PASSES * INNER_MAX - 1), "what ran before the kernel was asked");
    }

    #[test]
    fn other_wakers_are_kept_as_they_are() {
        let mut waiter = Waiter::Nobody;
        waiter.set(&Context::from_waker(Waker::noop()));
        assert!(matches!(waiter, Waiter::Other(_)));
        waiter.wake();
        assert!(matches!(waiter, Waiter::Nobody));
        waiter.set(&Context::from_waker(&waker_of(5)));
        assert!(matches!(waiter, Waiter::Task(5)));
    }
}
