//! Health: which endpoints of a cluster this core leaves alone for a while. This room owns what was learnt from the
//! outcome of requests (passive ejection) and what was pushed from outside (`set_down`), in one view. It does not know
//! what counts as a failure, tells no other core, and has no clock: times are milliseconds of any clock that does not
//! go back.
//!
//! ```text
//!                        `failures` in a row
//!     ┌─────────┐ ─────────────────────────────► ┌─────────┐ ◄─────────────┐
//!     │ Serving │                                │ Ejected │               │ failure
//!     └─────────┘ ◄──── success ──── Returned ◄─ └─────────┘ ──► Returned ─┘
//!                                      its back-off is over
//! ```
//! - **Serving.** A success forgets the failures counted so far. The `failures`th in a row ejects.
//! - **Ejected** for the back-off. What still ends in that time was begun before, or in panic: it changes nothing.
//! - **Returned**, on trial: the first outcome decides. A failure ejects again at once, a success makes it serve.
//!
//! **Back-off.** The first ejection lasts `backoff_ms`, each further one twice the one before, up to `max_backoff_ms`.
//! It shrinks as it grew: an endpoint that has served, since its first success after an ejection, as long as that
//! ejection lasted, loses one doubling; then as long as the one before, another. It is settled when it is ejected next.
//!
//! **Half.** An endpoint is ejected only while at most half of those with a weight, itself included, are then ejected
//! or down: of one never, of two or three at most one. When refused, it stays as it is and its next failure asks again;
//! the time spent so shrinks no back-off.
//!
//! **Down** is beside all this: an active check says so and takes it back, without limit. A down endpoint is not ejected
//! on top, and comes back with no failure counted. When no endpoint with a weight is left the mode is
//! [`Mode::Panic`]: all are used, for a wrong view of all is likelier than their death, and if they are dead nothing is
//! lost.

#[cfg(test)]
mod tests;

/// When to eject and for how long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EjectPolicy {
    /// Failures in a row that eject; 0: never.
    pub failures: u32,
    /// The first ejection, in milliseconds; 0 counts as 1.
    pub backoff_ms: u64,
    /// The longest, in milliseconds; also bounds the first.
    pub max_backoff_ms: u64,
}

/// An endpoint was ejected just now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ejected {
    /// For so many milliseconds.
    pub for_ms: u64,
}

/// Whether the view of health is to be believed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Some endpoint is usable: only usable ones are used.
    Normal,
    /// None is: all are used.
    Panic,
}

/// The health of one cluster's endpoints as one core sees it.
#[derive(Debug)]
pub struct Health {
    policy: EjectPolicy,
    endpoints: Box<[Endpoint]>,
    /// Endpoints with a weight.
    counted: usize,
    /// Those of them that are `Ejected` (over or not) or down. 0 lets `is_usable` answer without a look.
    out: usize,
    /// No ejection ends before this; early when the one that set it was settled in the meantime.
    earliest_return_ms: u64,
}

#[derive(Debug, Clone)]
struct Endpoint {
    /// It has a weight. One without gets no requests, and nothing is noted of it.
    counted: bool,
    down: bool,
    standing: Standing,
    /// The next ejection lasts `backoff_ms` times two to this; the last one lasted half of it, or the longest.
    doublings: u32,
    /// Since when it has served and not been due for ejection.
    calm_since_ms: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Standing {
    Serving {
        /// In a row.
        failures: u32,
    },
    Ejected {
        /// From this moment on it is `Returned`, noted when it next matters.
        until_ms: u64,
    },
    Returned,
}

impl Health {
    /// All endpoints of a cluster serving, one per weight. Endpoints of weight 0 are never picked: they do not count
    /// in the half, and nothing that is said of them changes anything.
    pub fn new(weights: &[u32], policy: EjectPolicy) -> Self {
        let endpoints: Box<[Endpoint]> = weights.iter().map(|&weight| Endpoint::new(weight > 0)).collect();
        let counted = endpoints.iter().filter(|endpoint| endpoint.counted).count();
        Self { policy, endpoints, counted, out: 0, earliest_return_ms: u64::MAX }
    }

    /// Whether endpoint `i` is neither down nor ejected. One branch while none is.
    #[inline]
    pub fn is_usable(&self, i: usize, now_ms: u64) -> bool {
        self.out == 0 || self.endpoints[i].is_usable(now_ms)
    }

    /// Whether any endpoint is usable. One branch while any is neither down nor was ejected lately.
    #[inline]
    pub fn mode(&self, now_ms: u64) -> Mode {
        if self.out < self.counted || self.endpoints.iter().any(|e| e.counted && e.is_usable(now_ms)) {
            Mode::Normal
        } else {
            Mode::Panic
        }
    }

    /// Endpoint `i` answered a request well.
    #[inline]
    pub fn on_success(&mut self, i: usize, now_ms: u64) {
        if !matches!(self.endpoints[i].standing, Standing::Serving { failures: 0 }) {
            self.settle_success(i, now_ms);
        }
    }

    /// Endpoint `i` failed a request. Says so when that ejects it.
    #[cold]
    pub fn on_failure(&mut self, i: usize, now_ms: u64) -> Option<Ejected> {
        if self.policy.failures == 0 || !self.endpoints[i].counted {
            return None;
        }
        self.settle_return(i, now_ms);
        let endpoint = &mut self.endpoints[i];
        match &mut endpoint.standing {
            Standing::Ejected { .. } => return None,
            Standing::Returned => {}
            Standing::Serving { failures } => {
                *failures = failures.saturating_add(1);
                if *failures < self.policy.failures {
                    return None;
                }
            }
        }
        if endpoint.down || !self.has_room(now_ms) {
            self.endpoints[i].calm_since_ms = now_ms;
            return None;
        }
        Some(self.eject(i, now_ms))
    }

    /// An active check says that endpoint `i` is down, or no longer.
    pub fn set_down(&mut self, i: usize, down: bool) {
        let endpoint = &mut self.endpoints[i];
        if !endpoint.counted || endpoint.down == down {
            return;
        }
        let was_out = endpoint.is_out();
        endpoint.down = down;
        if let Standing::Serving { failures } = &mut endpoint.standing {
            *failures = 0;
        }
        let is_out = endpoint.is_out();
        self.out = self.out + usize::from(is_out) - usize::from(was_out);
    }

    fn settle_success(&mut self, i: usize, now_ms: u64) {
        self.settle_return(i, now_ms);
        let endpoint = &mut self.endpoints[i];
        match endpoint.standing {
            Standing::Ejected { .. } => {}
            Standing::Serving { .. } => endpoint.standing = Standing::Serving { failures: 0 },
            Standing::Returned => {
                endpoint.standing = Standing::Serving { failures: 0 };
                endpoint.calm_since_ms = now_ms;
            }
        }
    }

    /// Notes that the ejection of `i` is over, if it is.
    fn settle_return(&mut self, i: usize, now_ms: u64) {
        let endpoint = &mut self.endpoints[i];
        if let Standing::Ejected { until_ms } = endpoint.standing
            && until_ms <= now_ms
        {
            endpoint.standing = Standing::Returned;
            self.out -= usize::from(!endpoint.down);
        }
    }

    /// Whether one more may be ejected. Goes through the endpoints only when there seems to be no room and an ejection
    /// may be over.
    fn has_room(&mut self, now_ms: u64) -> bool {
        let limit = self.counted / 2;
        if self.out >= limit && self.earliest_return_ms <= now_ms {
            let mut earliest_ms = u64::MAX;
            for i in 0..self.endpoints.len() {
                self.settle_return(i, now_ms);
                if let Standing::Ejected { until_ms } = self.endpoints[i].standing {
                    earliest_ms = earliest_ms.min(until_ms);
                }
            }
            self.earliest_return_ms = earliest_ms;
        }
        self.out < limit
    }

    /// Ejects `i`, which is in.
    fn eject(&mut self, i: usize, now_ms: u64) -> Ejected {
        let policy = self.policy;
        let endpoint = &mut self.endpoints[i];
        if let Standing::Serving { .. } = endpoint.standing {
            endpoint.lose_doublings(&policy, now_ms);
        }
        let for_ms = policy.length_ms(endpoint.doublings);
        // Once it was the longest it counts no further: what does not lengthen the next must not delay its shrinking.
        if endpoint.doublings == 0 || policy.length_ms(endpoint.doublings - 1) < policy.max_backoff_ms {
            endpoint.doublings += 1;
        }
        let until_ms = now_ms.saturating_add(for_ms);
        endpoint.standing = Standing::Ejected { until_ms };
        self.out += 1;
        self.earliest_return_ms = self.earliest_return_ms.min(until_ms);
        Ejected { for_ms }
    }
}

impl Endpoint {
    fn new(counted: bool) -> Self {
        let standing = Standing::Serving { failures: 0 };
        Self { counted, down: false, standing, doublings: 0, calm_since_ms: 0 }
    }

    fn is_usable(&self, now_ms: u64) -> bool {
        let ejected = matches!(self.standing, Standing::Ejected { until_ms } if now_ms < until_ms);
        !self.down && !ejected
    }

    fn is_out(&self) -> bool {
        self.down || matches!(self.standing, Standing::Ejected { .. })
    }

    /// Settles the time served in calm against the doublings, the longest first.
    fn lose_doublings(&mut self, policy: &EjectPolicy, now_ms: u64) {
        let mut calm_ms = now_ms.saturating_sub(self.calm_since_ms);
        while self.doublings > 0 {
            let last_ms = policy.length_ms(self.doublings - 1);
            if calm_ms < last_ms {
                break;
            }
            calm_ms -= last_ms;
            self.doublings -= 1;
        }
    }
}

impl EjectPolicy {
    /// How long an ejection lasts after so many doublings.
    fn length_ms(&self, doublings: u32) -> u64 {
        let times = 1u64.checked_shl(doublings).unwrap_or(u64::MAX);
        self.backoff_ms.max(1).saturating_mul(times).min(self.max_backoff_ms)
    }
}
