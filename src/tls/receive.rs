//! The receiving half of a secured connection: what [`Inbound`] makes of what its socket brings.

use std::{
    io,
    rc::Rc,
    task::{Context, Poll, ready},
};

use super::{
    inbound::{Break, Inbound, ROOM_BYTES, Room, State},
    stream::Shared,
};
use crate::{
    buf::{Buf, FRAMING_BYTES},
    net::{self, Outcome},
};

/// The receiving half of a secured connection.
pub struct SecuredRx {
    inner: net::Rx,
    inbound: Inbound,
    shared: Rc<Shared>,
    armed: Armed,
}

/// Where plaintext is to go.
enum Armed {
    No,
    /// Into whatever buffer it comes in.
    Lazily,
    /// The same, but who asks gave a buffer and has one back.
    Anywhere,
    /// Behind what is in this one.
    Behind(Buf),
}

impl std::fmt::Debug for SecuredRx {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SecuredRx").field("state", &self.inbound.state()).finish_non_exhaustive()
    }
}

impl SecuredRx {
    pub(super) fn new(inner: net::Rx, inbound: Inbound, shared: Rc<Shared>) -> Self {
        Self { inner, inbound, shared, armed: Armed::No }
    }

    pub(super) fn arm(&mut self, mut buf: Buf) {
        debug_assert!(!self.is_armed(), "one receive at a time");
        debug_assert!(buf.spare_len() > 0, "nothing received would look like the end");
        if buf.is_empty() {
            self.armed = Armed::Anywhere;
            // A large buffer takes several records at once, and what came of one before.
            if !self.inbound.is_ready() && buf.spare_len() >= ROOM_BYTES {
                self.inbound.room_in(&mut buf);
                return self.inner.arm(buf);
            }
            drop(buf);
        } else {
            self.armed = Armed::Behind(buf);
        }
        // Without a buffer it is tried again, and said, when the result is asked for.
        let _ = self.receive();
    }

    pub(super) fn arm_lazily(&mut self) -> bool {
        self.armed = Armed::Lazily;
        if !self.receive() {
            self.armed = Armed::No;
        }
        self.is_armed()
    }

    pub(super) fn is_armed(&self) -> bool {
        !matches!(self.armed, Armed::No)
    }

    pub(super) fn probe(&self, leaves_with_its_end: bool) -> net::Probe {
        self.inner.probe(leaves_with_its_end)
    }

    pub(super) fn has_waiting(&self) -> bool {
        self.inbound.has_any() || self.inner.has_waiting()
    }

    /// Asks the socket for more unless the next result may be here; `false` when there is no buffer for it.
    fn receive(&mut self) -> bool {
        if self.inbound.is_ready() {
            return true;
        }
        match self.inbound.room() {
            Some(Room::Any) => self.inner.arm_lazily(),
            Some(Room::Behind(partial)) => {
                self.inner.arm(partial);
                true
            }
            None => false,
        }
    }

    pub(super) fn poll_recv(&mut self, cx: &mut Context<'_>) -> Poll<Outcome<usize>> {
        if !self.is_armed() {
            return Poll::Pending;
        }
        loop {
            let plaintext = self.inbound.next(&mut *self.shared.kernel.borrow_mut());
            self.heed();
            if let Some(plaintext) = plaintext {
                return Poll::Ready(self.deliver(plaintext));
            }
            match self.inbound.state() {
                State::Open => {}
                // What is still to be said may be put into the buffer.
                State::Ended => return Poll::Ready((Ok(0), self.disarm())),
                State::Broken(reason) => return Poll::Ready((Err(reason.kind().into()), self.disarm())),
            }
            if !self.inner.is_armed() && !self.receive() {
                return Poll::Ready((Err(io::ErrorKind::OutOfMemory.into()), self.disarm()));
            }
            match ready!(self.inner.poll_recv(cx)) {
                (Ok(1..), buf) => self.inbound.on_received(buf),
                (Ok(0), _) => self.inbound.on_end(),
                (Err(error), _) => return Poll::Ready((Err(error), self.disarm())),
            }
        }
    }

    /// What the sending half must know of what came.
    fn heed(&mut self) {
        if self.inbound.take_wants_update() {
            self.shared.owes_update.set(true);
        }
        match self.inbound.state() {
            State::Broken(Break::Misunderstood(alert)) => self.shared.say_instead(alert),
            State::Broken(Break::Alerted) => self.shared.say_nothing(),
            State::Open | State::Ended | State::Broken(Break::Cut | Break::NoBuffer) => {}
        }
    }

    /// Ends a receive without plaintext.
    fn disarm(&mut self) -> Buf {
        match std::mem::replace(&mut self.armed, Armed::No) {
            Armed::Behind(buf) => buf,
            Armed::No | Armed::Lazily => Buf::none(),
            Armed::Anywhere => Buf::take_reserved().map_or_else(Buf::none, |mut buf| {
                buf.reset(FRAMING_BYTES, FRAMING_BYTES);
                buf
            }),
        }
    }

    fn deliver(&mut self, mut plaintext: Buf) -> Outcome<usize> {
        match std::mem::replace(&mut self.armed, Armed::No) {
            Armed::No | Armed::Lazily | Armed::Anywhere => (Ok(plaintext.len()), plaintext),
            Armed::Behind(mut buf) => {
                let count = plaintext.len().min(buf.spare_len());
                let fits = buf.push(&plaintext.filled()[..count]);
                debug_assert!(fits, "there is room for it");
                plaintext.consume(count);
                self.inbound.hold(plaintext);
                (Ok(count), buf)
            }
        }
    }
}
