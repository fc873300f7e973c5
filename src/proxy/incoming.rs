//! The response's side of a try, up to its head.

use std::cell::Cell;

use super::{
    error::Error,
    relay::{Wait, received, with_room},
};
use crate::{
    buf::Buf,
    clock::{Deadline, Timer},
    http::{
        head::{HeadLimits, Parsed},
        response::{ResponseHead, parse_response},
    },
    tls::Rx,
};

/// Interim responses one response may have before it.
const INTERIMS_MAX: u32 = 16;

/// The response's side, up to its head.
pub(super) struct Incoming<'a> {
    pub(super) upstream: &'a mut Rx,
    pub(super) limits: &'a HeadLimits,
    pub(super) deadline: &'a Deadline,
    pub(super) idle_ms: u64,
    /// Set with the first byte of any response: from then on the request must not be sent again.
    pub(super) began: &'a Cell<bool>,
    interims: u32,
}

/// A received response head: the buffer begins with it.
pub(super) struct ReceivedHead {
    pub(super) buf: Buf,
    pub(super) head_len: usize,
}

impl<'a> Incoming<'a> {
    pub(super) fn new(
        upstream: &'a mut Rx,
        limits: &'a HeadLimits,
        deadline: &'a Deadline,
        idle_ms: u64,
        began: &'a Cell<bool>,
    ) -> Self {
        Self { upstream, limits, deadline, idle_ms, began, interims: 0 }
    }

    /// The next response head, interim ones included. `rest` is what was received behind the one before.
    pub(super) async fn head(
        &mut self,
        rest: Option<Buf>,
        into: &mut ResponseHead,
    ) -> Result<ReceivedHead, Error> {
        let mut scanned = 0;
        let mut held = rest.filter(|buf| !buf.is_empty());
        loop {
            if let Some(buf) = held.take() {
                match parse_response(buf.filled(), &mut scanned, self.limits, into) {
                    Ok(Parsed::Complete { head_len }) => return self.complete(buf, head_len, into),
                    Ok(Parsed::Partial) => held = Some(with_room(buf)?),
                    Err(error) => return Err(Error::ResponseHead(error)),
                }
            }
            let had = held.as_ref().map_or(0, Buf::len);
            if !self.upstream.is_armed() {
                match held.take() {
                    Some(buf) => self.upstream.arm(buf),
                    None if self.upstream.arm_lazily() => {}
                    None => return Err(Error::NoBuffer),
                }
            }
            match received(self.upstream, self.deadline, Timer::Response).await {
                Ok((0, _)) if had == 0 => return Err(Error::UpstreamClosed),
                Ok((0, _)) => return Err(Error::ResponseTruncated),
                Ok((_, buf)) => {
                    self.began.set(true);
                    // Absolute, from the head's first byte: sending slowly gains nothing.
                    if had == 0 {
                        self.deadline.set(Timer::Response, self.idle_ms);
                    }
                    held = Some(buf);
                }
                Err(Wait::Timeout) if self.began.get() => return Err(Error::ResponseIdle),
                Err(Wait::Timeout) => return Err(Error::FirstByteTimeout),
                Err(Wait::ExchangeTimeout) => return Err(Error::ExchangeTimeout),
                Err(Wait::NoBuffer) => return Err(Error::NoBuffer),
                Err(Wait::Refused) => return Err(Error::UpstreamRefused),
                Err(Wait::Malformed) => return Err(Error::ResponseUnexpected),
                Err(Wait::Broken | Wait::Abandoned) if had == 0 => return Err(Error::UpstreamClosed),
                Err(Wait::Broken | Wait::Abandoned) => return Err(Error::ResponseTruncated),
            }
        }
    }

    fn complete(&mut self, buf: Buf, head_len: usize, head: &ResponseHead) -> Result<ReceivedHead, Error> {
        if head.status < 200 && head.status != 101 {
            self.interims += 1;
            if self.interims > INTERIMS_MAX {
                return Err(Error::ResponseUnexpected);
            }
        }
        Ok(ReceivedHead { buf, head_len })
    }
}
