//! The closed loop: as many connections under way as there are clients, each followed by the next one of its client.

use std::io;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use mio::{Events, Poll, Registry, Token};

use crate::client::Client;
use crate::connection::{Connection, Problem};
use crate::tally::Tally;

/// Connections that may fail before the rest is not worth trying.
const PROBLEMS_MAX: u64 = 1000;

const EVENTS: usize = 1024;

/// What to do.
pub(crate) struct Plan {
    pub(crate) address: SocketAddr,
    pub(crate) clients: Vec<Client>,
    /// After which the server is to close.
    pub(crate) request: Vec<u8>,
    pub(crate) time: Duration,
}

/// Runs the loop. What is under way at its end counts for nothing.
pub(crate) fn run(plan: Plan) -> io::Result<Tally> {
    let mut poll = Poll::new()?;
    let mut events = Events::with_capacity(EVENTS);
    let mut tally = Tally::default();
    let begun = now();
    let deadline = begun + plan.time;
    let mut slots: Vec<Option<Connection>> = plan.clients.iter().map(|_| None).collect();
    for (index, slot) in slots.iter_mut().enumerate() {
        advance(&plan, index, slot, poll.registry(), &mut tally);
    }
    loop {
        let left = deadline.saturating_duration_since(now());
        if left.is_zero() || tally.problems() > PROBLEMS_MAX {
            break;
        }
        match poll.poll(&mut events, Some(left)) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        }
        for event in &events {
            let Token(index) = event.token();
            advance(&plan, index, &mut slots[index], poll.registry(), &mut tally);
        }
    }
    tally.time = begun.elapsed();
    Ok(tally)
}

/// Takes a client's connection as far as it goes, and begins the next one when it is over.
fn advance(plan: &Plan, index: usize, slot: &mut Option<Connection>, registry: &Registry, tally: &mut Tally) {
    while tally.problems() <= PROBLEMS_MAX {
        match step(plan, index, slot, registry, tally) {
            Ok(true) => *slot = None,
            Ok(false) => return,
            Err(problem) => {
                tally.on_problem(&problem);
                *slot = None;
            }
        }
    }
}

/// Whether the connection in the slot, which is opened if there is none, is over.
fn step(
    plan: &Plan,
    index: usize,
    slot: &mut Option<Connection>,
    registry: &Registry,
    tally: &mut Tally,
) -> Result<bool, Problem> {
    let connection = match slot {
        Some(connection) => connection,
        None => slot.insert(Connection::open(
            plan.address,
            &plan.clients[index],
            &plan.request,
            registry,
            Token(index),
            now(),
        )?),
    };
    let answered = connection.drive()?;
    if let Some(answered) = &answered {
        tally.on_answered(answered, now());
    }
    Ok(answered.is_some())
}

/// The time, for latencies. Here is no data plane whose clock it would bypass.
#[expect(clippy::disallowed_methods, reason = "a load tool has no cached clock")]
pub(crate) fn now() -> Instant {
    Instant::now()
}
