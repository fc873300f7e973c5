//! The figures of one core: plain counters without atomics, counted in place by whoever does the work, copied when
//! the control plane asks and merged there. The counters are declared once, with their description: that
//! declaration is the metrics reference. This room gives names to indexes, never meaning to a request.

use super::histogram::Histogram;

/// What a [`Figure`] is to a reader.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Only grows.
    Counter,
    /// Goes up and down; over several cores it is the sum.
    Gauge,
}

/// One counter with its name and description.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Figure {
    /// Its name, as [`Counters`] has it.
    pub name: &'static str,
    /// Counter or gauge.
    pub kind: Kind,
    /// What it counts, in one or more sentences.
    pub about: &'static str,
    /// Its value.
    pub value: u64,
}

/// Declares a struct of `u64` figures with `merge` and `each`, so that no figure can be forgotten in either.
macro_rules! figures {
    (
        $(#[$attribute:meta])*
        pub struct $type:ident {
            $($(#[doc = $doc:literal])+ $kind:ident $name:ident,)+
        }
    ) => {
        $(#[$attribute])*
        #[derive(Debug, Clone, Default, PartialEq, Eq)]
        pub struct $type {
            $($(#[doc = $doc])+ pub $name: u64,)+
        }

        impl $type {
            /// Adds all that `other` counted.
            pub fn merge(&mut self, other: &Self) {
                $(self.$name = self.$name.wrapping_add(other.$name);)+
            }

            /// Every figure, in the order of declaration.
            pub fn each(&self) -> impl Iterator<Item = Figure> {
                [$(Figure {
                    name: stringify!($name),
                    kind: Kind::$kind,
                    about: concat!($($doc),+).trim_ascii(),
                    value: self.$name,
                }),+].into_iter()
            }
        }
    };
}

figures! {
    /// What is counted once per core.
    pub struct Counters {
        /// Client connections accepted, counted by the core that serves them.
        Counter connections_accepted,
        /// Client connections that a core accepted and gave to another one, which held clearly fewer.
        Counter connections_handed_over,
        /// Client connections open now.
        Gauge connections_active,
        /// Client connections answered 503 and closed because the core held `max_connections`.
        Counter connections_refused,
        /// Failed accepts: no descriptor, no memory, a connection gone before it was taken.
        Counter accept_errors,
        /// TLS handshakes with clients that came to their end.
        Counter handshakes,
        /// Those of them that resumed a session.
        Counter handshakes_resumed,
        /// TLS handshakes with clients that failed, or were not over in time.
        Counter handshakes_failed,
        /// Connections closed because of their PROXY header: it was missing, malformed or late.
        Counter proxy_headers_refused,
        /// Exchanges under way now.
        Gauge exchanges_active,
        /// Bytes received from clients.
        Counter downstream_bytes_received,
        /// Bytes sent to clients.
        Counter downstream_bytes_sent,
        /// Bytes received from endpoints.
        Counter upstream_bytes_received,
        /// Bytes sent to endpoints.
        Counter upstream_bytes_sent,
        /// Tries that got a connection from the pool that had been used before.
        Counter pool_hits,
        /// Tries for which a connection had to be opened.
        Counter pool_misses,
        /// Idle connections that the endpoint had closed, or had sent something on, before they were used again.
        Counter pool_dead,
        /// Tries that waited for a connection because the endpoint had its `max_connections`.
        Counter pool_waits,
        /// Connections to endpoints open now, idle, in use or being opened.
        Gauge upstream_connections_active,
        /// Connections to endpoints that could not be opened.
        Counter connect_failures,
        /// Tries after a request's first, on another connection or at another endpoint.
        Counter retries,
        /// Endpoints left alone after failures in a row.
        Counter ejections,
        /// Picks made among all endpoints because none was healthy.
        Counter panic_mode_picks,
        /// Connections upgraded to a tunnel, such as WebSocket.
        Counter upgrades,
        /// Exchanges whose client left before the response's end.
        Counter clients_gone,
        /// Connections ended by a panic, which is a defect in the gateway.
        Counter panics,
        /// Times that a buffer was wanted and the core had none left.
        Counter buffers_exhausted,
        /// Buffers in use now, counted in units of the small size.
        Gauge buffers_active,
        /// Expressions (`when`, `allow`, …) that had no value for a request, such as one of a field that it does not have.
        Counter expressions_failed,
        /// Passwords that were tried with a user's hash. Those that are remembered are not.
        Counter passwords_tried,
        /// Clients of rate limits that were forgotten before their time because more came than `keys`.
        Counter rate_limit_evictions,
        /// Access-log lines written, those included that were dropped later because the writer did not keep up.
        Counter log_lines,
        /// Access-log lines dropped because the writer did not keep up, or because they were too long.
        Counter log_dropped,
    }
}

figures! {
    /// What a core asked of its ring (or of epoll).
    pub struct RingCounters {
        /// Accepts started.
        Counter accepts,
        /// Connects started.
        Counter connects,
        /// Receives started.
        Counter receives,
        /// Sends started; what the kernel took only a part of counts again for the rest.
        Counter sends,
        /// Operations given up before their end, mostly receives on connections that were closed.
        Counter cancels,
        /// Operations that ended in an error.
        Counter errors,
        /// Calls of `io_uring_enter`; 0 on epoll, as are the next two.
        Counter enters,
        /// Entries submitted.
        Counter submissions,
        /// Completions taken.
        Counter completions,
    }
}

/// Which deadline passed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Timeout {
    /// `timeouts.handshake`: the TLS handshake was not over in time.
    Handshake,
    /// `timeouts.head`: the request's head was not complete in time.
    Head,
    /// `timeouts.body_idle`: the client sent nothing of its body for too long.
    BodyIdle,
    /// `timeouts.keep_alive`: no request came on an open connection.
    KeepAlive,
    /// `timeouts.write_stall`: the client took nothing of its response for too long.
    WriteStall,
    /// `timeouts.tunnel_idle`: an upgraded connection was silent for too long.
    TunnelIdle,
    /// `cluster.pool.queue_timeout`: no connection to the endpoint became free.
    Queue,
    /// `cluster.timeouts.connect`: the endpoint did not accept.
    Connect,
    /// `cluster.timeouts.first_byte`: the endpoint did not begin to answer.
    FirstByte,
    /// `cluster.timeouts.idle`: the endpoint stopped amid its answer, or took nothing of the request.
    UpstreamIdle,
    /// `route.timeout`: the whole exchange took too long.
    Exchange,
}

impl Timeout {
    /// Every kind, in the order of their indexes.
    pub const ALL: [Self; 11] = [
        Self::Handshake,
        Self::Head,
        Self::BodyIdle,
        Self::KeepAlive,
        Self::WriteStall,
        Self::TunnelIdle,
        Self::Queue,
        Self::Connect,
        Self::FirstByte,
        Self::UpstreamIdle,
        Self::Exchange,
    ];

    /// Its name in figures.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Handshake => "handshake",
            Self::Head => "head",
            Self::BodyIdle => "body_idle",
            Self::KeepAlive => "keep_alive",
            Self::WriteStall => "write_stall",
            Self::TunnelIdle => "tunnel_idle",
            Self::Queue => "queue",
            Self::Connect => "connect",
            Self::FirstByte => "first_byte",
            Self::UpstreamIdle => "upstream_idle",
            Self::Exchange => "exchange",
        }
    }
}

/// Ids of refusal reasons are below this; the reply table that gives them out asserts it.
pub const REFUSALS_MAX: usize = 96;

/// Responses by the first digit of their status: index 0 is 1xx, index 4 is 5xx.
pub type StatusClasses = [u64; 5];

/// What is counted per route. 56 bytes each, so that 100,000 routes cost a core under 6 MB.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RouteFigures {
    /// Final responses by status class.
    pub responses: StatusClasses,
    /// Exchanges that ended without a response: the client had gone.
    pub unanswered: u64,
    /// The sum of the durations of all exchanges, in µs.
    pub total_us: u64,
}

const _: () = assert!(size_of::<RouteFigures>() == 56);

impl RouteFigures {
    fn merge(&mut self, other: &Self) {
        merge_counts(&mut self.responses, &other.responses);
        self.unanswered += other.unanswered;
        self.total_us = self.total_us.wrapping_add(other.total_us);
    }
}

/// What is counted per endpoint.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct EndpointFigures {
    /// Requests offered to it, every try counted, those included that found no connection.
    pub requests: u64,
    /// Response heads by status class.
    pub responses: StatusClasses,
    /// Connections that could not be opened.
    pub connect_failures: u64,
    /// Exchanges that failed after the connection stood: cut, malformed, timed out, or answered 502, 503 or 504.
    pub failures: u64,
    /// The sum of the times from having a connection to the response's head, in µs.
    pub first_byte_us: u64,
}

impl EndpointFigures {
    fn merge(&mut self, other: &Self) {
        self.requests += other.requests;
        merge_counts(&mut self.responses, &other.responses);
        self.connect_failures += other.connect_failures;
        self.failures += other.failures;
        self.first_byte_us = self.first_byte_us.wrapping_add(other.first_byte_us);
    }
}

/// What is counted per policy.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PolicyFigures {
    /// Requests that it let pass.
    pub passed: u64,
    /// Requests that it refused; the reasons are among the core's refusals.
    pub refused: u64,
}

impl PolicyFigures {
    fn merge(&mut self, other: &Self) {
        self.passed += other.passed;
        self.refused += other.refused;
    }
}

/// Everything one core counts. A clone is what a core answers when it is asked; its size is that of its routes and
/// endpoints.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Figures {
    /// What is counted once per core.
    pub counters: Counters,
    /// What the core asked of its ring.
    pub ring: RingCounters,
    /// Final responses to clients by status class, and the 1xx sent before them.
    pub responses: StatusClasses,
    /// Deadlines that passed, by [`Timeout`].
    pub timeouts: [u64; Timeout::ALL.len()],
    /// Exchanges that did not end well, by the reason's id in the reply table.
    pub refusals: [u64; REFUSALS_MAX],
    /// By route id.
    pub routes: Vec<RouteFigures>,
    /// By endpoint id.
    pub endpoints: Vec<EndpointFigures>,
    /// By policy id.
    pub policies: Vec<PolicyFigures>,
    /// Whole exchanges, from the request's first byte to the response's last, in µs.
    pub exchange_us: Histogram,
    /// Opening a connection to an endpoint, the wait for a place among `max_connections` included, in µs.
    pub connect_us: Histogram,
    /// From having a connection to an endpoint to its response's head, in µs.
    pub first_byte_us: Histogram,
}

impl Figures {
    /// All zero, for this many routes, endpoints and policies. Allocates here and never later.
    pub fn new(routes: usize, endpoints: usize, policies: usize) -> Self {
        Self {
            counters: Counters::default(),
            ring: RingCounters::default(),
            responses: [0; 5],
            timeouts: [0; Timeout::ALL.len()],
            refusals: [0; REFUSALS_MAX],
            routes: vec![RouteFigures::default(); routes],
            endpoints: vec![EndpointFigures::default(); endpoints],
            policies: vec![PolicyFigures::default(); policies],
            exchange_us: Histogram::default(),
            connect_us: Histogram::default(),
            first_byte_us: Histogram::default(),
        }
    }

    /// An exchange ended: `status` is that of the final response, `None` when none was sent; `route` is absent
    /// when none was found.
    #[inline]
    pub fn on_exchange(&mut self, route: Option<usize>, status: Option<u16>, total_us: u64) {
        self.exchange_us.record(total_us);
        if let Some(status) = status {
            self.responses[class_of(status)] += 1;
        }
        let Some(route) = route.and_then(|id| self.routes.get_mut(id)) else { return };
        route.total_us = route.total_us.wrapping_add(total_us);
        match status {
            Some(status) => route.responses[class_of(status)] += 1,
            None => route.unanswered += 1,
        }
    }

    /// An interim response (1xx) went to the client.
    #[inline]
    pub fn on_interim(&mut self) {
        self.responses[0] += 1;
    }

    /// An endpoint's response head came, `first_byte_us` after there was a connection. An unknown id counts nowhere
    /// but in the core's histogram.
    #[inline]
    pub fn on_response_head(&mut self, endpoint: usize, status: u16, first_byte_us: u64) {
        self.first_byte_us.record(first_byte_us);
        if let Some(endpoint) = self.endpoints.get_mut(endpoint) {
            endpoint.responses[class_of(status)] += 1;
            endpoint.first_byte_us = endpoint.first_byte_us.wrapping_add(first_byte_us);
        }
    }

    /// A deadline passed.
    #[inline]
    pub fn on_timeout(&mut self, timeout: Timeout) {
        self.timeouts[timeout as usize] += 1;
    }

    /// An exchange did not end well. `reason`: an id of the reply table, below [`REFUSALS_MAX`];
    /// a larger one counts as the last.
    #[inline]
    pub fn on_refusal(&mut self, reason: u8) {
        self.refusals[usize::from(reason).min(REFUSALS_MAX - 1)] += 1;
    }

    /// A policy was asked. An unknown id counts nowhere.
    #[inline]
    pub fn on_policy(&mut self, policy: usize, passes: bool) {
        if let Some(policy) = self.policies.get_mut(policy) {
            policy.passed += u64::from(passes);
            policy.refused += u64::from(!passes);
        }
    }

    /// Adds all that `other` counted. Where one has more routes, endpoints or policies, the result has as many.
    pub fn merge(&mut self, other: &Self) {
        self.counters.merge(&other.counters);
        self.ring.merge(&other.ring);
        merge_counts(&mut self.responses, &other.responses);
        merge_counts(&mut self.timeouts, &other.timeouts);
        merge_counts(&mut self.refusals, &other.refusals);
        if self.routes.len() < other.routes.len() {
            self.routes.resize_with(other.routes.len(), RouteFigures::default);
        }
        self.routes.iter_mut().zip(&other.routes).for_each(|(route, more)| route.merge(more));
        if self.endpoints.len() < other.endpoints.len() {
            self.endpoints.resize_with(other.endpoints.len(), EndpointFigures::default);
        }
        self.endpoints.iter_mut().zip(&other.endpoints).for_each(|(endpoint, more)| endpoint.merge(more));
        if self.policies.len() < other.policies.len() {
            self.policies.resize_with(other.policies.len(), PolicyFigures::default);
        }
        self.policies.iter_mut().zip(&other.policies).for_each(|(policy, more)| policy.merge(more));
        self.exchange_us.merge(&other.exchange_us);
        self.connect_us.merge(&other.connect_us);
        self.first_byte_us.merge(&other.first_byte_us);
    }
}

/// The index of a status in [`StatusClasses`]; what is no status counts as 5xx.
#[inline]
fn class_of(status: u16) -> usize {
    match status {
        100..=199 => 0,
        200..=299 => 1,
        300..=399 => 2,
        400..=499 => 3,
        _ => 4,
    }
}

fn merge_counts(counts: &mut [u64], more: &[u64]) {
    for (count, more) in counts.iter_mut().zip(more) {
        *count += more;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn merging_adds_everything() {
        let mut one = Figures::new(1, 2, 1);
        one.counters.connections_accepted = 3;
        one.ring.sends = 5;
        one.on_exchange(Some(0), Some(200), 10);
        one.on_response_head(1, 503, 7);
        one.on_timeout(Timeout::Exchange);
        one.on_refusal(2);
        one.connect_us.record(4);
        let mut other = Figures::new(2, 1, 2);
        other.counters.connections_accepted = 4;
        other.counters.log_dropped = 1;
        other.on_exchange(Some(1), Some(404), 20);
        other.on_exchange(Some(0), None, 30);
        other.on_exchange(None, Some(400), 1);
        other.on_interim();
        other.on_refusal(255);
        other.endpoints[0].requests = 9;
        one.on_policy(0, true);
        other.on_policy(0, false);
        other.on_policy(1, true);

        let mut sum = one.clone();
        sum.merge(&other);
        assert_eq!((sum.counters.connections_accepted, sum.counters.log_dropped, sum.ring.sends), (7, 1, 5));
        assert_eq!(sum.responses, [1, 1, 0, 2, 0]);
        assert_eq!(sum.routes[0], RouteFigures { responses: [0, 1, 0, 0, 0], unanswered: 1, total_us: 40 });
        assert_eq!(sum.routes[1].responses, [0, 0, 0, 1, 0]);
        assert_eq!((sum.endpoints[0].requests, sum.endpoints[1].responses[4]), (9, 1));
        assert_eq!(sum.endpoints[1].first_byte_us, 7);
        assert_eq!(sum.policies, [(1, 1), (1, 0)].map(|(passed, refused)| PolicyFigures { passed, refused }));
        assert_eq!(sum.timeouts[Timeout::Exchange as usize], 1);
        assert_eq!((sum.refusals[2], sum.refusals[REFUSALS_MAX - 1]), (1, 1));
        assert_eq!((sum.exchange_us.count(), sum.first_byte_us.count(), sum.connect_us.count()), (4, 1, 1));

        let mut turned = other;
        turned.merge(&one);
        assert_eq!(turned, sum);
    }

    #[test]
    fn unknown_ids_count_nowhere() {
        let mut figures = Figures::new(1, 1, 1);
        figures.on_exchange(Some(7), Some(200), 1);
        figures.on_response_head(7, 200, 1);
        figures.on_policy(7, true);
        assert_eq!(figures.routes, [RouteFigures::default()]);
        assert_eq!(figures.endpoints, [EndpointFigures::default()]);
        assert_eq!(figures.responses[1], 1);
    }

    #[test]
    fn every_figure_is_described_and_merged() {
        let mut counters = Counters { panics: 2, buffers_active: 1, ..Counters::default() };
        counters.merge(&counters.clone());
        let figures: Vec<_> = counters.each().collect();
        assert!(figures.iter().all(|figure| figure.about.ends_with('.') && !figure.about.starts_with(' ')));
        let of = |name| {
            figures.iter().find(|figure| figure.name == name).map(|figure| (figure.kind, figure.value))
        };
        assert_eq!(of("panics"), Some((Kind::Counter, 4)));
        assert_eq!(of("buffers_active"), Some((Kind::Gauge, 2)));
    }

    #[test]
    fn timeouts_are_listed_in_the_order_of_their_indexes() {
        for (at, timeout) in Timeout::ALL.into_iter().enumerate() {
            assert_eq!(timeout as usize, at, "{}", timeout.name());
        }
    }
}
