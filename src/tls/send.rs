//! The sending half of a secured connection: bytes become records, in their own buffer where there is room for it, or else
//! as many at a time as another one takes.

use std::{
    io,
    rc::Rc,
    task::{Context, Poll, ready},
};

use rustls::{AlertDescription, ContentType, ProtocolVersion};

use super::{
    inbound::{Direction, Secrets},
    record::{PLAINTEXT_BYTES_MAX, Protection, RecordError, SEAL_BACK_BYTES, SEAL_FRONT_BYTES},
    stream::Shared,
};
use crate::{
    buf::{Buf, LARGE_BYTES, SMALL_BYTES, Size},
    net::{self, Outcome},
};

/// New keys follow; the peer's need not be renewed (RFC 8446 §4.6.3).
const KEY_UPDATE: [u8; 5] = [24, 0, 0, 1, 0];

/// What is put around a plaintext, at most.
const AROUND_BYTES: usize = SEAL_FRONT_BYTES + SEAL_BACK_BYTES;

/// A record that says that keys are renewed, at most.
const KEY_UPDATE_BYTES_MAX: usize = KEY_UPDATE.len() + AROUND_BYTES;

/// Plaintext that goes into one large buffer of records.
const PLAINTEXT_PER_SEND: usize = LARGE_BYTES / (PLAINTEXT_BYTES_MAX + AROUND_BYTES) * PLAINTEXT_BYTES_MAX;

const _: () = assert!(
    PLAINTEXT_PER_SEND.div_ceil(PLAINTEXT_BYTES_MAX) * AROUND_BYTES
        + PLAINTEXT_PER_SEND
        + KEY_UPDATE_BYTES_MAX
        <= LARGE_BYTES
);

/// What goes out over a secured connection, without its socket.
pub(super) struct Outbound {
    seal: Protection,
    is_renewable: bool,
}

impl Outbound {
    pub(super) fn new(seal: Protection, version: ProtocolVersion) -> Self {
        Self { seal, is_renewable: version == ProtocolVersion::TLSv1_3 }
    }

    pub(super) fn protection(&mut self) -> &mut Protection {
        &mut self.seal
    }

    /// Whether `buf` can become a record where it lies.
    #[inline]
    pub(super) fn takes(&self, buf: &Buf) -> bool {
        buf.len() <= PLAINTEXT_BYTES_MAX
            && buf.has_room(SEAL_FRONT_BYTES, SEAL_BACK_BYTES)
            && !(self.is_renewable && self.seal.is_used_up())
    }

    /// Makes a buffer that it [takes](Self::takes) a record.
    #[inline]
    pub(super) fn seal(&mut self, buf: &mut Buf) -> Result<(), RecordError> {
        self.seal.seal(ContentType::ApplicationData, buf)
    }

    /// Records of as much of `rest` as fits into one buffer, which is taken from it. Keys that are used up are renewed first,
    /// and those that the peer wants renewed.
    pub(super) fn records_of(
        &mut self,
        rest: &mut Buf,
        owes_update: bool,
        secrets: &mut dyn Secrets,
    ) -> Result<Buf, io::ErrorKind> {
        let failed = |_: RecordError| io::ErrorKind::Other;
        // One record is all that a small one takes.
        let is_small = rest.len() + AROUND_BYTES + KEY_UPDATE_BYTES_MAX <= SMALL_BYTES;
        let size = if is_small { Size::Small } else { Size::Large };
        let mut out = Buf::take(size).ok_or(io::ErrorKind::OutOfMemory)?;
        if self.is_renewable && (owes_update || self.seal.is_used_up()) {
            self.seal.seal_behind(ContentType::Handshake, &KEY_UPDATE, &mut out).map_err(failed)?;
            self.seal = secrets.renewed(Direction::Send).map_err(|_| io::ErrorKind::Other)?;
        }
        let mut left = PLAINTEXT_PER_SEND;
        while !rest.is_empty() && left > 0 {
            let count = rest.len().min(PLAINTEXT_BYTES_MAX);
            let plaintext = &rest.filled()[..count];
            self.seal.seal_behind(ContentType::ApplicationData, plaintext, &mut out).map_err(failed)?;
            rest.consume(count);
            left -= PLAINTEXT_BYTES_MAX;
        }
        Ok(out)
    }
}

/// The sending half of a secured connection.
pub struct SecuredTx {
    inner: net::Tx,
    outbound: Outbound,
    shared: Rc<Shared>,
    /// Plaintext that is to follow what is under way.
    rest: Option<Buf>,
    /// Why no more can be sent.
    failure: Option<io::ErrorKind>,
}

impl std::fmt::Debug for SecuredTx {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SecuredTx").field("failure", &self.failure).finish_non_exhaustive()
    }
}

impl SecuredTx {
    pub(super) fn new(inner: net::Tx, outbound: Outbound, shared: Rc<Shared>) -> Self {
        Self { inner, outbound, shared, rest: None, failure: None }
    }

    pub(super) fn arm(&mut self, mut buf: Buf) {
        // Nothing follows the end that was said, nor a failure of either half.
        if self.failure.is_some() || !self.shared.is_sound() {
            self.failure.get_or_insert(io::ErrorKind::BrokenPipe);
            return;
        }
        if self.shared.owes_update.get() || !self.outbound.takes(&buf) {
            return self.send_on(buf);
        }
        match self.outbound.seal(&mut buf) {
            Ok(()) => self.inner.arm(buf),
            Err(_) => self.fail(io::ErrorKind::Other),
        }
    }

    /// Sends as much of the rest as fits into one buffer.
    fn send_on(&mut self, mut rest: Buf) {
        let owes_update = self.shared.owes_update.take();
        let records = self.outbound.records_of(&mut rest, owes_update, &mut *self.shared.kernel.borrow_mut());
        match records {
            Ok(records) => {
                self.rest = Some(rest).filter(|rest| !rest.is_empty());
                self.inner.arm(records);
            }
            Err(kind) => self.fail(kind),
        }
    }

    /// What was to be sent is not sent, or not all of it: an end that is said now would make it look complete.
    fn fail(&mut self, kind: io::ErrorKind) {
        self.failure = Some(kind);
        self.rest = None;
        self.shared.say_instead(AlertDescription::InternalError);
    }

    pub(super) fn is_sending(&self) -> bool {
        self.inner.is_sending() || self.rest.is_some() || self.failure.is_some()
    }

    pub(super) fn goes_on_alone(&self) -> bool {
        self.inner.goes_on_alone() && self.rest.is_none() && self.failure.is_none()
    }

    pub(super) fn taken(&self) -> u64 {
        self.inner.taken()
    }

    pub(super) fn poll_sent(&mut self, cx: &mut Context<'_>) -> Poll<Outcome<()>> {
        loop {
            if let Some(kind) = self.failure {
                return Poll::Ready((Err(kind.into()), Buf::none()));
            }
            let (result, buf) = ready!(self.inner.poll_sent(cx));
            if let Err(error) = result {
                return Poll::Ready((Err(self.on_error(error)), buf));
            }
            match self.rest.take() {
                None => return Poll::Ready((Ok(()), buf)),
                Some(_) if !self.shared.is_sound() => self.fail(io::ErrorKind::BrokenPipe),
                Some(rest) => {
                    // Its room may be what the next records need.
                    drop(buf);
                    self.send_on(rest);
                }
            }
        }
    }

    pub(super) fn look(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.rest.is_some() || self.failure.is_some() {
            // More is to be sent than goes by itself.
            return self.poll_sent(cx).map(|(result, _)| result);
        }
        self.inner.look(cx).map(|result| result.map_err(|error| self.on_error(error)))
    }

    /// The socket failed, perhaps in the midst of a record: nothing that follows would be understood.
    fn on_error(&mut self, error: io::Error) -> io::Error {
        self.failure = Some(error.kind());
        self.rest = None;
        self.shared.say_nothing();
        error
    }

    /// Resets the connection.
    pub(super) fn abort(&mut self) {
        self.say_nothing();
        self.inner.abort();
    }

    /// From now on the peer is not told how this ends.
    pub(super) fn say_nothing(&mut self) {
        self.shared.say_nothing();
    }

    /// Ends this direction.
    pub(super) fn finish(&mut self) {
        self.say_last();
        self.inner.finish();
    }

    /// Has the connection end without a word.
    pub(super) fn break_off(&mut self) {
        self.shared.say_nothing();
    }

    /// Tells the peer that no more comes, or what is wrong (RFC 8446 §6), if that can be said between two records. Whether it
    /// hears it is its own business.
    pub(super) fn say_last(&mut self) {
        if self.inner.is_sending() || self.rest.is_some() {
            return;
        }
        if let Some(alert) = self.shared.take_last()
            && let Ok((record, length)) = self.outbound.seal.seal_alert(alert)
        {
            self.inner.send_at_once(&record[..length]);
        }
    }
}
