//! What a connection needs only while it serves a request: the exchange's future and its scratch space. The core keeps a
//! few of them and lends one for each request, so that a connection that waits holds neither, and no request allocates.

use std::{
    cell::Cell,
    future::{Future, poll_fn},
    pin::Pin,
    rc::Rc,
    task::{Context, Poll},
};

use super::{
    connection::Connection,
    core::{Core, Scratch},
    exchange::Next,
};

/// How many idle slots a core keeps.
const SLOTS_MAX: usize = 1024;

/// A place where requests are served, one after the other, by a future that never ends: to begin one anew would move its
/// memory for each request.
pub(super) struct Slot {
    work: Pin<Box<dyn Future<Output = ()>>>,
    desk: Rc<Desk>,
}

/// Where a slot's future finds its connection, and leaves it again.
#[derive(Default)]
struct Desk {
    to_serve: Cell<Option<Box<Connection>>>,
    served: Cell<Option<(Box<Connection>, Next)>>,
}

/// A core's idle slots.
#[derive(Default)]
pub(super) struct Slots {
    idle: Cell<Vec<Slot>>,
    in_use: Cell<usize>,
    /// The most in use since the last trim.
    peak: Cell<usize>,
}

impl Slots {
    fn take(&self) -> Slot {
        let mut idle = self.idle.take();
        let slot = idle.pop();
        self.idle.set(idle);
        slot.unwrap_or_else(Slot::new)
    }

    fn put(&self, slot: Slot) {
        let mut idle = self.idle.take();
        if idle.len() < SLOTS_MAX {
            idle.push(slot);
        }
        self.idle.set(idle);
    }

    /// Counts a slot as in use as long as the guard lives, however its exchange ends.
    fn lend(&self) -> Lent<'_> {
        self.in_use.set(self.in_use.get() + 1);
        self.peak.set(self.peak.get().max(self.in_use.get()));
        Lent(self)
    }

    /// Frees the slots that were not needed since the last trim. Called now and then, off the request path.
    pub(super) fn trim(&self) {
        let mut idle = self.idle.take();
        let keep = self.peak.replace(self.in_use.get()).saturating_sub(self.in_use.get());
        if idle.len() > keep {
            idle.truncate(keep);
            idle.shrink_to_fit();
        }
        self.idle.set(idle);
    }
}

struct Lent<'s>(&'s Slots);

impl Drop for Lent<'_> {
    fn drop(&mut self) {
        self.0.in_use.set(self.0.in_use.get() - 1);
    }
}

impl Slot {
    fn new() -> Self {
        let desk = Rc::<Desk>::default();
        Self { work: Box::pin(work(Rc::clone(&desk))), desk }
    }
}

async fn work(desk: Rc<Desk>) {
    let mut scratch = Scratch::default();
    loop {
        let mut connection = poll_fn(|_| desk.to_serve.take().map_or(Poll::Pending, Poll::Ready)).await;
        let next = connection.serve_request(&mut scratch).await;
        desk.served.set(Some((connection, next)));
    }
}

/// Serves the next request of a connection, of which something has come, and gives the connection back.
pub(super) async fn serve(core: &Core, connection: Box<Connection>) -> (Box<Connection>, Next) {
    let _lent = core.slots.lend();
    let mut slot = core.slots.take();
    slot.desk.to_serve.set(Some(connection));
    let served = poll_fn(|cx| slot.poll(cx)).await;
    core.slots.put(slot);
    served
}

impl Slot {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<(Box<Connection>, Next)> {
        // It never ends; what it has to say is on the desk.
        let _ = self.work.as_mut().poll(cx);
        self.desk.served.take().map_or(Poll::Pending, Poll::Ready)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_trim_keeps_what_the_period_before_needed() {
        let slots = Slots::default();
        {
            let _lent = [slots.lend(), slots.lend(), slots.lend()];
            (0..5).for_each(|_| slots.put(Slot::new()));
            slots.trim();
            assert_eq!(count(&slots), 0, "three are in use, and three was the most");
        }
        (0..5).for_each(|_| slots.put(Slot::new()));
        slots.trim();
        assert_eq!(count(&slots), 3, "three were in use when the period began");
        slots.trim();
        assert_eq!(count(&slots), 0, "none was since");
    }

    fn count(slots: &Slots) -> usize {
        let idle = slots.idle.take();
        let count = idle.len();
        slots.idle.set(idle);
        count
    }

    #[test]
    fn idle_slots_are_bounded() {
        let slots = Slots::default();
        (0..SLOTS_MAX + 3).for_each(|_| slots.put(Slot::new()));
        assert_eq!(count(&slots), SLOTS_MAX);
    }
}
