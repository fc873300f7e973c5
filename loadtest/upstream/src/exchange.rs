//! One connection's requests and responses, in order, as a state machine over bytes: what was received goes in, what
//! is to be sent comes out. It knows neither sockets nor clocks, so the tests cut its input wherever they like.

use std::time::Duration;

use crate::reply::{self, Body, Date, LAST_CHUNK, Manner, Plan, Reply};
use crate::request::{self, Head, Incoming, Refused};

/// Bytes of output after which no further request is taken until they are sent.
const OUTPUT_BYTES_MAX: usize = 256 * 1024;

/// What an exchange needs next. In every case the output so far is to be sent first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Step {
    /// More input.
    Read,
    /// The output and [`Exchange::body`] sent; then to be called again with what input is left.
    Send,
    /// This much time, then [`Exchange::resume`].
    Wait(Duration),
    /// The connection closed.
    Close,
}

/// Where a connection stands.
#[derive(Debug)]
pub(crate) struct Exchange {
    stage: Stage,
    manner: Manner,
    /// The generated body behind the output.
    pub(crate) body: Body,
}

#[derive(Debug)]
enum Stage {
    /// Before or inside a request's head.
    Head,
    /// Inside a request's body.
    Incoming { body: Incoming, received: u64, plan: Plan },
    /// The response is due later.
    Delayed(Duration, Reply),
    /// The response is written; its generated body may still have to be sent.
    Sending,
    /// Nothing more happens here.
    Over,
}

impl Exchange {
    /// A fresh connection.
    pub(crate) fn new() -> Self {
        let manner = Manner { keep_alive: true, is_1_1: true, is_head: false };
        Self { stage: Stage::Head, manner, body: Body::NONE }
    }

    /// Whether it stands between two requests.
    pub(crate) fn is_idle(&self) -> bool {
        matches!(self.stage, Stage::Head) && self.body.is_sent()
    }

    /// Takes what it can from the front of `input` and appends responses to `out`. Returns how many bytes of `input`
    /// are done with, and what is needed next.
    pub(crate) fn advance(&mut self, input: &[u8], date: &Date, out: &mut Vec<u8>) -> (usize, Step) {
        let mut used = 0;
        loop {
            match self.advance_once(&input[used..], date, out) {
                Ok(Progress::Took(bytes)) => used += bytes,
                Ok(Progress::Needs(step)) => return (used, step),
                Err(Refused(status)) => self.refuse(status, date, out),
            }
            if out.len() > OUTPUT_BYTES_MAX {
                return (used, Step::Send);
            }
        }
    }

    /// The wait is over: writes the response that was due later.
    pub(crate) fn resume(&mut self, date: &Date, out: &mut Vec<u8>) {
        if let Stage::Delayed(_, reply) = std::mem::replace(&mut self.stage, Stage::Sending) {
            self.body = reply.write(self.manner, date, out);
        }
    }

    fn advance_once(&mut self, input: &[u8], date: &Date, out: &mut Vec<u8>) -> Result<Progress, Refused> {
        match &mut self.stage {
            Stage::Head => {
                if input.is_empty() {
                    return Ok(Progress::Needs(Step::Read));
                }
                let Some(head) = request::parse(input)? else { return Ok(Progress::Needs(Step::Read)) };
                let bytes = head.bytes;
                self.begin(&head, &input[..bytes], input.len() == bytes, date, out);
                Ok(Progress::Took(bytes))
            }
            Stage::Incoming { body, received, plan } => {
                let echo = (*plan == Plan::Echo).then_some(*body);
                let used = body.take(input, |piece| {
                    *received += piece.len() as u64;
                    match echo {
                        Some(Incoming::Chunked(_)) => reply::write_chunk(piece, out),
                        Some(_) => out.extend_from_slice(piece),
                        None => {}
                    }
                })?;
                if !body.is_complete() {
                    // What `take` left over is an incomplete line.
                    return Ok(if used == 0 { Progress::Needs(Step::Read) } else { Progress::Took(used) });
                }
                if matches!(echo, Some(Incoming::Chunked(_))) {
                    out.extend_from_slice(LAST_CHUNK);
                }
                self.answer(date, out);
                Ok(Progress::Took(used))
            }
            Stage::Delayed(time, _) => Ok(Progress::Needs(Step::Wait(*time))),
            Stage::Sending if !self.body.is_sent() => Ok(Progress::Needs(Step::Send)),
            Stage::Sending => {
                self.stage = if self.manner.keep_alive { Stage::Head } else { Stage::Over };
                Ok(Progress::Took(0))
            }
            Stage::Over => Ok(Progress::Needs(Step::Close)),
        }
    }

    /// A head is complete. `is_all`: nothing of the body came with it.
    fn begin(&mut self, head: &Head<'_>, wire: &[u8], is_all: bool, date: &Date, out: &mut Vec<u8>) {
        let plan = reply::plan(head, wire);
        self.manner =
            Manner { keep_alive: head.keep_alive, is_1_1: head.is_1_1, is_head: head.method == "HEAD" };
        if !head.body.is_complete() && is_all && head.expects_continue {
            out.extend_from_slice(b"HTTP/1.1 100 Continue\r\n\r\n");
        }
        if plan == Plan::Echo {
            let bytes = match head.body {
                Incoming::Empty => Some(0),
                Incoming::Sized(bytes) => Some(bytes),
                Incoming::Chunked(_) => None,
            };
            reply::write_echo_head(bytes, self.manner, date, out);
        }
        self.stage = Stage::Incoming { body: head.body, received: 0, plan };
        if head.body.is_complete() {
            self.answer(date, out);
        }
    }

    /// The request is broken. An echo under way is cut, so that it cannot look complete.
    fn refuse(&mut self, status: u16, date: &Date, out: &mut Vec<u8>) {
        if !matches!(self.stage, Stage::Incoming { plan: Plan::Echo, .. }) {
            let manner = Manner { keep_alive: false, is_1_1: true, is_head: false };
            self.body = Reply::Status(status).write(manner, date, out);
        }
        self.stage = Stage::Over;
    }

    /// The request is complete: writes its response.
    fn answer(&mut self, date: &Date, out: &mut Vec<u8>) {
        let Stage::Incoming { received, plan, .. } = std::mem::replace(&mut self.stage, Stage::Sending)
        else {
            return;
        };
        match plan {
            Plan::Reply(reply) => self.body = reply.write(self.manner, date, out),
            Plan::Length => {
                let text = Reply::Text(received.to_string().into_bytes());
                self.body = text.write(self.manner, date, out);
            }
            Plan::Delay(time, reply) => self.stage = Stage::Delayed(time, reply),
            Plan::Echo => {}
        }
    }
}

/// What one step of the state machine did.
enum Progress {
    /// Took so many bytes; there may be more to do.
    Took(usize),
    /// Can do no more without this.
    Needs(Step),
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Feeds `wire` in two pieces, sends everything at once, and returns what was sent.
    fn serve(wire: &[u8], cut: usize) -> (String, Step) {
        let (mut exchange, mut sent, date) = (Exchange::new(), Vec::new(), Date::at(0));
        let (mut used, mut step) = (0, Step::Read);
        for end in [cut, wire.len()] {
            loop {
                let (took, next) = exchange.advance(&wire[used..end], &date, &mut sent);
                used += took;
                step = next;
                while !exchange.body.is_sent() {
                    let piece = exchange.body.slice();
                    sent.extend_from_slice(piece);
                    exchange.body.advance(piece.len());
                    exchange.body.fill(&mut sent);
                }
                match step {
                    Step::Send => {}
                    Step::Wait(_) => exchange.resume(&date, &mut sent),
                    Step::Read | Step::Close => break,
                }
            }
        }
        if step == Step::Read {
            assert_eq!(used, wire.len(), "cut at {cut}");
        }
        (String::from_utf8(sent).unwrap(), step)
    }

    /// The statuses and bodies of responses that all have a Content-Length.
    fn bodies(mut sent: &str) -> Vec<(&str, &str)> {
        let mut all = Vec::new();
        while !sent.is_empty() {
            let (head, rest) = sent.split_once("\r\n\r\n").unwrap();
            let bytes: usize =
                head.split_once("content-length: ").unwrap().1.lines().next().unwrap().parse().unwrap();
            let (body, next) = rest.split_at(bytes);
            all.push((&head[9..12], body));
            sent = next;
        }
        all
    }

    #[test]
    fn pipelined_requests_are_answered_in_order_at_every_split() {
        let wire = b"GET / HTTP/1.1\r\nhost: a\r\n\r\nPOST /any HTTP/1.1\r\ncontent-length: 3\r\n\r\nabc\
            GET /delay/5 HTTP/1.1\r\n\r\nPOST /x HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n2\r\nxy\r\n0\r\n\r\n\
            POST /echo HTTP/1.1\r\ncontent-length: 4\r\n\r\nping\
            GET /bytes/3 HTTP/1.1\r\n\r\nGET /nowhere HTTP/1.1\r\nconnection: close\r\n\r\n";
        let small = str::from_utf8(reply::SMALL).unwrap();
        for cut in 0..=wire.len() {
            let (sent, step) = serve(wire, cut);
            let expected = [
                ("200", small),
                ("200", "3"),
                ("200", small),
                ("200", "2"),
                ("200", "ping"),
                ("200", "\0\u{1}\u{2}"),
                ("404", ""),
            ];
            assert_eq!(bodies(&sent), expected, "cut at {cut}");
            assert_eq!(step, Step::Close);
        }
    }

    #[test]
    fn a_chunked_echo_comes_back_in_chunks() {
        let wire = b"POST /echo HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n";
        let (sent, step) = serve(wire, wire.len());
        assert!(sent.contains("transfer-encoding: chunked\r\n"), "{sent}");
        assert!(sent.ends_with("\r\n\r\n2\r\nhi\r\n0\r\n\r\n"), "{sent}");
        assert_eq!(step, Step::Read);
    }

    #[test]
    fn a_chunked_body_is_generated_for_1_1_only() {
        let (sent, _) = serve(b"GET /chunked/2 HTTP/1.1\r\n\r\n", 0);
        assert!(sent.ends_with("\r\n\r\n2\r\n\0\u{1}\r\n0\r\n\r\n"), "{sent:?}");
        let (sent, step) = serve(b"GET /chunked/2 HTTP/1.0\r\n\r\n", 0);
        assert!(sent.ends_with("content-length: 2\r\n\r\n\0\u{1}"), "{sent:?}");
        assert_eq!(step, Step::Close);
    }

    #[test]
    fn head_requests_get_no_body() {
        for path in ["/", "/bytes/7", "/chunked/7", "/headers/2"] {
            let (sent, step) = serve(format!("HEAD {path} HTTP/1.1\r\n\r\n").as_bytes(), 0);
            assert!(sent.ends_with("\r\n\r\n"), "{sent}");
            assert_eq!(step, Step::Read);
        }
    }

    #[test]
    fn fields_are_counted() {
        let (sent, _) = serve(b"GET /headers/50 HTTP/1.1\r\n\r\n", 0);
        assert_eq!(sent.matches("x-field-").count(), 50);
    }

    #[test]
    fn a_waiting_client_is_told_to_continue() {
        let wire = b"PUT /x HTTP/1.1\r\ncontent-length: 2\r\nexpect: 100-continue\r\n\r\nok";
        let (sent, _) = serve(wire, wire.len() - 2);
        assert!(sent.starts_with("HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 "), "{sent}");
        let (sent, _) = serve(wire, wire.len());
        assert!(sent.starts_with("HTTP/1.1 200 "), "{sent}");
    }

    #[test]
    fn a_broken_request_is_refused_and_closes() {
        let (sent, step) = serve(b"GET / HTTP/1.1\r\nbad field: 1\r\n\r\n", 0);
        assert!(sent.starts_with("HTTP/1.1 400 "), "{sent}");
        assert_eq!(step, Step::Close);
    }

    #[test]
    fn a_broken_body_cuts_its_echo() {
        let wire = b"POST /echo HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n2\r\nhi\r\nx\r\n";
        let (sent, step) = serve(wire, wire.len());
        assert!(sent.ends_with("\r\n\r\n2\r\nhi\r\n"), "{sent}");
        assert_eq!(step, Step::Close);
    }

    #[test]
    fn much_output_is_sent_before_more_is_taken() {
        let wire = b"GET /headers/2000 HTTP/1.1\r\n\r\n".repeat(10);
        let mut out = Vec::new();
        let (used, step) = Exchange::new().advance(&wire, &Date::at(0), &mut out);
        assert_eq!(step, Step::Send);
        assert!(used < wire.len());
    }
}
