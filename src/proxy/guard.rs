//! A connection's task in a cage: a panic in it ends it, and nothing else on the core.

use std::{
    future::Future,
    panic::{AssertUnwindSafe, catch_unwind},
    pin::Pin,
    task::{Context, Poll},
};

use pin_project_lite::pin_project;

pin_project! {
    /// Runs a future to its end or its panic.
    pub struct Guard<F> {
        #[pin]
        task: F,
    }
}

/// The task panicked.
#[derive(Debug, PartialEq, Eq)]
pub struct Panicked;

/// Puts a task into the cage.
pub fn guard<F: Future<Output = ()>>(task: F) -> Guard<F> {
    Guard { task }
}

impl<F: Future<Output = ()>> Future for Guard<F> {
    type Output = Result<(), Panicked>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let task = self.project().task;
        // A task shares only cells of plain values with others; the guards it holds undo themselves when it is dropped.
        match catch_unwind(AssertUnwindSafe(|| task.poll(cx))) {
            Ok(poll) => poll.map(Ok),
            Err(_) => Poll::Ready(Err(Panicked)),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::task::Waker;

    use super::*;

    #[test]
    fn a_panic_is_an_outcome() {
        let mut cx = Context::from_waker(Waker::noop());
        let mut panicking = Box::pin(guard(async { panic!("on purpose, in a test") }));
        assert_eq!(panicking.as_mut().poll(&mut cx), Poll::Ready(Err(Panicked)));
        let mut calm = Box::pin(guard(async {}));
        assert_eq!(calm.as_mut().poll(&mut cx), Poll::Ready(Ok(())));
    }
}
