//! One thread: an epoll instance, a listener, its connections and their timers. Moves bytes between sockets and
//! [`Exchange`]s and knows nothing of HTTP. Readiness is edge-triggered, so an ordinary exchange costs one read, one
//! write and a share of one wait.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::io::{self, ErrorKind, IoSlice, Read as _, Write as _};
use std::net::Shutdown;
use std::time::{Duration, Instant, SystemTime};

use mio::event::Event;
use mio::net::{TcpListener, TcpStream};
use mio::{Events, Interest, Poll, Token};
use slab::Slab;

use crate::exchange::{Exchange, Step};
use crate::reply::Date;

/// Bytes asked of one read.
const INPUT_BYTES: usize = 256 * 1024;

/// Events taken in one wait.
const EVENTS_MAX: usize = 1024;

/// The listener's token; a connection's is its index.
const LISTENER: Token = Token(usize::MAX);

/// When a connection between two requests is closed, in ms after a response.
const IDLE_CLOSE_MS: std::ops::RangeInclusive<u64> = 1..=20;

/// Whether idle connections are closed at random moments.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum IdleClose {
    /// 1 to 20 ms after a response, if the connection is idle then.
    Random,
    /// Never.
    Never,
}

/// Serves until the process ends. Errors are those of epoll and of accepting (out of descriptors): a load test's
/// upstream that cannot keep up had better be loud.
pub(crate) fn serve(listener: std::net::TcpListener, idle_close: IdleClose) -> io::Result<()> {
    let mut listener = TcpListener::from_std(listener);
    let poll = Poll::new()?;
    poll.registry().register(&mut listener, LISTENER, Interest::READABLE)?;
    let scratch = Scratch { input: vec![0; INPUT_BYTES], out: Vec::new(), date: Date::at(0) };
    let mut server = Server {
        poll,
        listener,
        idle_close,
        scratch,
        connections: Slab::new(),
        timers: BinaryHeap::new(),
        serial: 0,
    };
    let mut events = Events::with_capacity(EVENTS_MAX);
    loop {
        server.turn(&mut events)?;
    }
}

struct Server {
    poll: Poll,
    listener: TcpListener,
    idle_close: IdleClose,
    scratch: Scratch,
    connections: Slab<Connection>,
    timers: BinaryHeap<Reverse<Timer>>,
    /// Numbers connections, so that a timer does not hit the next user of a slot.
    serial: u64,
}

/// What all connections of a thread use in turn.
struct Scratch {
    input: Vec<u8>,
    out: Vec<u8>,
    date: Date,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Timer {
    at: Instant,
    connection: usize,
    serial: u64,
    purpose: Purpose,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Purpose {
    /// A delayed response is due.
    Resume,
    /// The connection is closed if it is idle.
    IdleClose,
}

impl Server {
    /// Waits once and does all there is to do.
    fn turn(&mut self, events: &mut Events) -> io::Result<()> {
        let timeout = self.timers.peek().map(|Reverse(timer)| timer.at.saturating_duration_since(now()));
        match self.poll.poll(events, timeout) {
            Err(error) if error.kind() == ErrorKind::Interrupted => return Ok(()),
            other => other?,
        }
        self.scratch.date.update(SystemTime::UNIX_EPOCH.elapsed().map_or(0, |age| age.as_secs()));
        for event in &*events {
            match event.token() {
                LISTENER => self.accept()?,
                Token(id) => self.on_event(id, event),
            }
        }
        self.run_timers();
        Ok(())
    }

    fn accept(&mut self) -> io::Result<()> {
        loop {
            let mut stream = match self.listener.accept() {
                Ok((stream, _)) => stream,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == ErrorKind::ConnectionAborted => continue,
                Err(error) => return Err(error),
            };
            stream.set_nodelay(true)?;
            let entry = self.connections.vacant_entry();
            let interest = Interest::READABLE | Interest::WRITABLE;
            self.poll.registry().register(&mut stream, Token(entry.key()), interest)?;
            self.serial += 1;
            entry.insert(Connection::new(stream, self.serial));
        }
    }

    fn on_event(&mut self, id: usize, event: &Event) {
        // A connection closed earlier in this turn may still have an event in the batch.
        let Some(connection) = self.connections.get_mut(id) else { return };
        connection.readable |= event.is_readable() || event.is_read_closed() || event.is_error();
        connection.is_ending |= event.is_read_closed() || event.is_error();
        self.drive(id);
    }

    /// Lets a connection go as far as it can.
    fn drive(&mut self, id: usize) {
        let Some(connection) = self.connections.get_mut(id) else { return };
        let serial = connection.serial;
        let timer = |purpose, time| Reverse(Timer { at: now() + time, connection: id, serial, purpose });
        let resume_after = match connection.drive(&mut self.scratch) {
            Ok(Outcome::Parked) => None,
            Ok(Outcome::Wait(time)) => Some(time),
            // A client that went away is no concern of a load test's upstream.
            Ok(Outcome::Over) | Err(_) => {
                self.connections.remove(id);
                return;
            }
        };
        if let Some(time) = resume_after {
            self.timers.push(timer(Purpose::Resume, time));
        } else if self.idle_close == IdleClose::Random && connection.has_served && !connection.close_is_armed
        {
            connection.close_is_armed = true;
            let time = Duration::from_millis(fastrand::u64(IDLE_CLOSE_MS));
            self.timers.push(timer(Purpose::IdleClose, time));
        }
    }

    fn run_timers(&mut self) {
        while let Some(Reverse(timer)) = self.timers.peek().copied() {
            if timer.at > now() {
                return;
            }
            self.timers.pop();
            match self.connections.get_mut(timer.connection) {
                Some(connection) if connection.serial == timer.serial => match timer.purpose {
                    Purpose::Resume => {
                        connection.is_due = true;
                        self.drive(timer.connection);
                    }
                    Purpose::IdleClose if connection.is_idle() => {
                        self.connections.remove(timer.connection);
                    }
                    Purpose::IdleClose => connection.close_is_armed = false,
                },
                _ => {}
            }
        }
    }
}

/// A socket and what has been received or is to be sent.
struct Connection {
    stream: TcpStream,
    exchange: Exchange,
    serial: u64,
    /// Input that could not be used yet.
    unread: Vec<u8>,
    /// Output that the socket did not take.
    unsent: Vec<u8>,
    /// Whether the exchange can do nothing without more input.
    is_hungry: bool,
    /// Whether a read may find something.
    readable: bool,
    /// Whether the end of input, or an error, is behind what can be read.
    is_ending: bool,
    /// Whether a delayed response waits for its timer.
    is_waiting: bool,
    /// Whether that timer has fired.
    is_due: bool,
    /// Whether anything was ever sent.
    has_served: bool,
    close_is_armed: bool,
}

/// How a connection's drive ended.
enum Outcome {
    /// It waits for its socket.
    Parked,
    /// It waits for this long.
    Wait(Duration),
    /// It is to be closed.
    Over,
}

impl Connection {
    fn new(stream: TcpStream, serial: u64) -> Self {
        Self {
            stream,
            exchange: Exchange::new(),
            serial,
            unread: Vec::new(),
            unsent: Vec::new(),
            is_hungry: true,
            readable: false,
            is_ending: false,
            is_waiting: false,
            is_due: false,
            has_served: false,
            close_is_armed: false,
        }
    }

    fn is_idle(&self) -> bool {
        self.exchange.is_idle() && self.unread.is_empty() && self.unsent.is_empty()
    }

    fn drive(&mut self, scratch: &mut Scratch) -> io::Result<Outcome> {
        scratch.out.clear();
        scratch.out.append(&mut self.unsent);
        if self.is_due {
            (self.is_due, self.is_waiting, self.is_hungry) = (false, false, false);
            self.exchange.resume(&scratch.date, &mut scratch.out);
        }
        loop {
            if !self.flush(&mut scratch.out)? || self.is_waiting {
                return Ok(Outcome::Parked);
            }
            let step = if self.is_hungry {
                let Some(bytes) = self.read(&mut scratch.input)? else { return Ok(Outcome::Parked) };
                if bytes == 0 {
                    return Ok(Outcome::Over);
                }
                self.advance_with(bytes, scratch)
            } else {
                self.advance_unread(scratch)
            };
            self.is_hungry = step == Step::Read;
            match step {
                Step::Read | Step::Send => {}
                Step::Wait(time) if self.flush(&mut scratch.out)? => {
                    self.is_waiting = true;
                    return Ok(Outcome::Wait(time));
                }
                Step::Close if self.flush(&mut scratch.out)? => {
                    // The response must not be lost to the reset that unread input would cause.
                    let _ = self.stream.shutdown(Shutdown::Write);
                    return Ok(Outcome::Over);
                }
                // The socket is full: the exchange says the same again when that is sent.
                Step::Wait(_) | Step::Close => return Ok(Outcome::Parked),
            }
        }
    }

    /// `None`: nothing there now. 0: the end.
    fn read(&mut self, input: &mut [u8]) -> io::Result<Option<usize>> {
        if !self.readable {
            return Ok(None);
        }
        match self.stream.read(input) {
            Ok(bytes) => {
                // After a short read the socket is empty, and epoll will tell of more. See epoll(7).
                self.readable = bytes == input.len() || self.is_ending;
                Ok(Some(bytes))
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                self.readable = false;
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    /// Gives the exchange what was just read, behind what was left over.
    fn advance_with(&mut self, bytes: usize, scratch: &mut Scratch) -> Step {
        let input = &scratch.input[..bytes];
        if self.unread.is_empty() {
            let (used, step) = self.exchange.advance(input, &scratch.date, &mut scratch.out);
            self.unread.extend_from_slice(&input[used..]);
            step
        } else {
            self.unread.extend_from_slice(input);
            self.advance_unread(scratch)
        }
    }

    fn advance_unread(&mut self, scratch: &mut Scratch) -> Step {
        let (used, step) = self.exchange.advance(&self.unread, &scratch.date, &mut scratch.out);
        if used == self.unread.len() {
            self.unread = Vec::new();
        } else {
            self.unread.drain(..used);
        }
        step
    }

    /// Sends `out` and then the exchange's generated body. `false`: the socket is full, and what is left of `out` is
    /// kept.
    fn flush(&mut self, out: &mut Vec<u8>) -> io::Result<bool> {
        let mut sent = 0;
        loop {
            if sent == out.len() {
                out.clear();
                sent = 0;
                self.exchange.body.fill(out);
            }
            let body = self.exchange.body.slice();
            let head = &out[sent..];
            let result = match (head, body) {
                ([], []) => return Ok(true),
                (only, []) | ([], only) => self.stream.write(only),
                (head, body) => self.stream.write_vectored(&[IoSlice::new(head), IoSlice::new(body)]),
            };
            match result {
                Ok(bytes) => {
                    let of_head = bytes.min(head.len());
                    sent += of_head;
                    self.exchange.body.advance(bytes - of_head);
                    self.has_served = true;
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    self.unsent.extend_from_slice(&out[sent..]);
                    return Ok(false);
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }
}

/// The time, for timers. Here is no data plane whose clock it would bypass.
#[expect(clippy::disallowed_methods, reason = "a load test's upstream has no cached clock")]
fn now() -> Instant {
    Instant::now()
}
