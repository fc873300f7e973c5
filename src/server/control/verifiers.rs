//! Threads that try passwords, beside the control plane and with a lower priority than the cores: they take what cores ask out of a queue of
//! each, in turns, so that no core's clients wait for another's only, and answer by the mailbox.

use std::{
    io,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, Thread},
    time::Duration,
};

use crossbeam_queue::ArrayQueue;

use crate::{
    net::{self, MailboxSender},
    proxy::{Trial, TrialLane, WAITING_MAX},
    server::worker::Message,
};

/// Threads at most. Each needs the memory of one argon2 while it tries.
const THREADS_MAX: usize = 4;

/// How long a mailbox that is full is left alone.
const REST: Duration = Duration::from_millis(1);

/// The threads. They end with this.
pub(super) struct Verifiers {
    is_over: Arc<AtomicBool>,
    threads: Vec<Thread>,
    queues: Arc<[Queue]>,
}

struct Queue {
    trials: Arc<ArrayQueue<Trial>>,
    mailbox: MailboxSender<Message>,
}

impl Verifiers {
    /// Starts them for the cores with these mailboxes.
    pub(super) fn start(mailboxes: Vec<MailboxSender<Message>>) -> io::Result<Self> {
        let queue = |mailbox| Queue { trials: Arc::new(ArrayQueue::new(WAITING_MAX)), mailbox };
        let queues: Arc<[Queue]> = mailboxes.into_iter().map(queue).collect();
        let mut own = Self { is_over: Arc::default(), threads: Vec::new(), queues };
        for number in 0..(own.queues.len() / 4).clamp(1, THREADS_MAX) {
            let (is_over, queues) = (Arc::clone(&own.is_over), Arc::clone(&own.queues));
            let thread = thread::Builder::new()
                .name("passwords".into())
                .spawn(move || run(number, &is_over, &queues))?;
            own.threads.push(thread.thread().clone());
        }
        Ok(own)
    }

    /// The way of the core of this number to them.
    pub(super) fn lane(&self, core: usize) -> TrialLane {
        TrialLane::new(Arc::clone(&self.queues[core].trials), self.threads.clone())
    }
}

impl Drop for Verifiers {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::Release);
        self.threads.iter().for_each(Thread::unpark);
    }
}

fn run(number: usize, is_over: &AtomicBool, queues: &[Queue]) {
    net::lower_priority();
    let mut turn = number;
    let is_over = || is_over.load(Ordering::Acquire);
    while !is_over() {
        let mut has_tried = false;
        for step in 0..queues.len() {
            let queue = &queues[(turn + step) % queues.len()];
            let Some(trial) = queue.trials.pop() else { continue };
            has_tried = true;
            // What cannot be tried is not right.
            let is_right = catch_unwind(AssertUnwindSafe(|| trial.is_right())).unwrap_or(false);
            let mut message = Message::Password { number: trial.number, is_right };
            drop(trial);
            while let Err(unheard) = queue.mailbox.send(message) {
                message = unheard;
                if is_over() {
                    return;
                }
                thread::park_timeout(REST);
            }
        }
        turn += 1;
        if !has_tried {
            // Whoever has asked since the look above has left a token: this returns at once.
            thread::park();
        }
    }
}
