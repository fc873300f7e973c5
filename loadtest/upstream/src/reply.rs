//! What this upstream answers: which path means what, the bytes of each response head, and bodies that are
//! generated as they are sent, so that a body of any length costs no memory. Knows neither sockets nor how requests
//! are framed.

use std::io::Write as _;
use std::time::Duration;

use crate::request::Head;

/// The body of `GET /`: 100 bytes.
pub(crate) const SMALL: &[u8; 100] =
    b"The quick brown fox jumps over the lazy dog, and the lazy dog does not mind; one hundred bytes, all.";

/// Response fields that `/headers/N` gives at most.
const FIELDS_MAX: u64 = 10_000;

/// The longest `/delay/MS`.
const DELAY_MS_MAX: u64 = 600_000;

/// Bytes of one chunk of a generated chunked body.
const CHUNK_BYTES: usize = 16 * 1024;

/// A response that needs nothing more from the client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Reply {
    /// 200 with [`SMALL`].
    Small,
    /// 200 with so many bytes of [`PATTERN`], behind a Content-Length or in chunks.
    Pattern { bytes: u64, chunked: bool },
    /// 200 with [`SMALL`] and so many fields beside the usual.
    Fields(u64),
    /// 200 with this text.
    Text(Vec<u8>),
    /// A refusal, with an empty body.
    Status(u16),
}

/// What a request is to be answered with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Plan {
    /// This, once its body has been read.
    Reply(Reply),
    /// This, after a while.
    Delay(Duration, Reply),
    /// The length of its body.
    Length,
    /// Its body, while it still comes.
    Echo,
}

/// Which path means what.
pub(crate) fn plan(head: &Head<'_>, wire: &[u8]) -> Plan {
    if head.path == "/echo" {
        return Plan::Echo;
    }
    if head.method != "GET" && head.method != "HEAD" {
        return Plan::Length;
    }
    let Some((first, rest)) =
        head.path.strip_prefix('/').map(|path| path.split_once('/').unwrap_or((path, "")))
    else {
        return Plan::Reply(Reply::Status(404));
    };
    match (first, rest.parse::<u64>()) {
        ("", _) if rest.is_empty() => Plan::Reply(Reply::Small),
        ("any", _) => Plan::Reply(Reply::Small),
        ("head", _) if rest.is_empty() => Plan::Reply(Reply::Text(wire.to_vec())),
        ("bytes", Ok(bytes)) => Plan::Reply(Reply::Pattern { bytes, chunked: false }),
        ("chunked", Ok(bytes)) => Plan::Reply(Reply::Pattern { bytes, chunked: head.is_1_1 }),
        ("headers", Ok(fields)) if fields <= FIELDS_MAX => Plan::Reply(Reply::Fields(fields)),
        ("delay", Ok(ms)) if ms <= DELAY_MS_MAX => Plan::Delay(Duration::from_millis(ms), Reply::Small),
        _ => Plan::Reply(Reply::Status(404)),
    }
}

/// How a response meets its request: what of it depends on the client rather than on the plan.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Manner {
    /// Whether the connection outlives this exchange.
    pub(crate) keep_alive: bool,
    /// Whether the client is of HTTP/1.1.
    pub(crate) is_1_1: bool,
    /// Whether the request was HEAD, whose response has no body.
    pub(crate) is_head: bool,
}

impl Reply {
    /// Appends the response to `out`. A generated body is not written but returned, to be sent behind `out`.
    pub(crate) fn write(&self, manner: Manner, date: &Date, out: &mut Vec<u8>) -> Body {
        match self {
            Self::Small => {
                start(200, manner, date, out);
                out.extend_from_slice(b"content-length: 100\r\n\r\n");
                body(SMALL, manner, out);
            }
            Self::Text(text) => {
                start(200, manner, date, out);
                sized(text.len() as u64, out);
                body(text, manner, out);
            }
            Self::Fields(count) => {
                start(200, manner, date, out);
                for index in 0..*count {
                    line(out, format_args!("x-field-{index}: value-{index}-of-a-plausible-length\r\n"));
                }
                sized(SMALL.len() as u64, out);
                body(SMALL, manner, out);
            }
            Self::Status(status) => {
                start(*status, manner, date, out);
                sized(0, out);
            }
            Self::Pattern { bytes, chunked } => {
                start(200, manner, date, out);
                if *chunked {
                    coded(out)
                } else {
                    sized(*bytes, out)
                }
                if !manner.is_head {
                    return Body { at: 0, left: *bytes, is_chunked: *chunked, is_over: !*chunked };
                }
            }
        }
        Body::NONE
    }
}

/// Appends the head of an echo: of a body of known length, or else in chunks.
pub(crate) fn write_echo_head(bytes: Option<u64>, manner: Manner, date: &Date, out: &mut Vec<u8>) {
    start(200, manner, date, out);
    match bytes {
        Some(bytes) => sized(bytes, out),
        None => coded(out),
    }
}

/// Appends one chunk. An empty piece would end the body, so it writes nothing.
pub(crate) fn write_chunk(piece: &[u8], out: &mut Vec<u8>) {
    if !piece.is_empty() {
        line(out, format_args!("{:x}\r\n", piece.len()));
        out.extend_from_slice(piece);
        out.extend_from_slice(b"\r\n");
    }
}

/// The end of a chunked body without trailers.
pub(crate) const LAST_CHUNK: &[u8] = b"0\r\n\r\n";

/// Appends the status line and the fields that every response has.
fn start(status: u16, manner: Manner, date: &Date, out: &mut Vec<u8>) {
    match status {
        200 => out.extend_from_slice(b"HTTP/1.1 200 OK\r\n"),
        _ => line(out, format_args!("HTTP/1.1 {status} {}\r\n", reason(status))),
    }
    out.extend_from_slice(b"server: loadtest-upstream\r\ndate: ");
    out.extend_from_slice(&date.text);
    out.extend_from_slice(b"\r\ncontent-type: text/plain\r\n");
    match manner {
        Manner { keep_alive: false, .. } => out.extend_from_slice(b"connection: close\r\n"),
        Manner { is_1_1: false, .. } => out.extend_from_slice(b"connection: keep-alive\r\n"),
        Manner { .. } => {}
    }
}

/// Ends a head whose body has this length.
fn sized(bytes: u64, out: &mut Vec<u8>) {
    line(out, format_args!("content-length: {bytes}\r\n\r\n"));
}

/// Ends a head whose body comes in chunks.
fn coded(out: &mut Vec<u8>) {
    out.extend_from_slice(b"transfer-encoding: chunked\r\n\r\n");
}

fn body(bytes: &[u8], manner: Manner, out: &mut Vec<u8>) {
    if !manner.is_head {
        out.extend_from_slice(bytes);
    }
}

fn line(out: &mut Vec<u8>, text: std::fmt::Arguments<'_>) {
    // Writing to a Vec cannot fail.
    let _ = out.write_fmt(text);
}

fn reason(status: u16) -> &'static str {
    match status {
        400 => "Bad Request",
        404 => "Not Found",
        431 => "Request Header Fields Too Large",
        _ => "Refused",
    }
}

/// The period of generated bodies: byte `i` is `i % 251`. A prime, so that a block lost, doubled or misplaced at
/// any power of two shows.
const PERIOD: usize = 251;

/// Bytes of a generated body given to one send.
const PATTERN_BYTES: usize = 256 * 1024;

/// The bytes that generated bodies are slices of.
static PATTERN: [u8; PATTERN_BYTES + PERIOD] = {
    let mut bytes = [0; PATTERN_BYTES + PERIOD];
    let mut at = 0;
    while at < bytes.len() {
        bytes[at] = (at % PERIOD) as u8;
        at += 1;
    }
    bytes
};

/// What is still to be sent of a generated body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Body {
    at: u64,
    left: u64,
    is_chunked: bool,
    /// Whether the last chunk has been written, or none is needed.
    is_over: bool,
}

impl Body {
    /// Nothing to send.
    pub(crate) const NONE: Self = Self { at: 0, left: 0, is_chunked: false, is_over: true };

    /// Whether all of it has been sent.
    pub(crate) fn is_sent(&self) -> bool {
        self.left == 0 && self.is_over
    }

    /// The next bytes of a body of known length; empty for a chunked one.
    pub(crate) fn slice(&self) -> &'static [u8] {
        if self.is_chunked { &[] } else { self.pattern(PATTERN_BYTES) }
    }

    /// Notes that so many bytes of [`Self::slice`] were sent.
    pub(crate) fn advance(&mut self, bytes: usize) {
        self.at += bytes as u64;
        self.left -= bytes as u64;
    }

    /// Appends the next chunks of a chunked body, as much as is worth one send.
    pub(crate) fn fill(&mut self, out: &mut Vec<u8>) {
        while self.is_chunked && !self.is_sent() && out.len() < PATTERN_BYTES {
            let piece = self.pattern(CHUNK_BYTES);
            write_chunk(piece, out);
            self.advance(piece.len());
            if self.left == 0 {
                out.extend_from_slice(LAST_CHUNK);
                self.is_over = true;
            }
        }
    }

    fn pattern(&self, bytes_max: usize) -> &'static [u8] {
        let from = (self.at % PERIOD as u64) as usize;
        let bytes = usize::try_from(self.left).map_or(bytes_max, |left| left.min(bytes_max));
        &PATTERN[from..from + bytes]
    }
}

/// The `Date` field's value (RFC 9110 §5.6.7), written again only when the second changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Date {
    unix_seconds: u64,
    text: [u8; 29],
}

impl Date {
    /// The date of this second since 1970.
    pub(crate) fn at(unix_seconds: u64) -> Self {
        const DAYS: [&str; 7] = ["Thu", "Fri", "Sat", "Sun", "Mon", "Tue", "Wed"];
        const MONTHS: [&str; 12] =
            ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
        let (days, second) = (unix_seconds / 86_400, unix_seconds % 86_400);
        let (year, month, day) = civil(days);
        let mut text = [b' '; 29];
        // The format has 29 bytes for every year of four digits, and a longer one is cut.
        let _ = write!(
            &mut text[..],
            "{}, {day:02} {} {year:04} {:02}:{:02}:{:02} GMT",
            DAYS[(days % 7) as usize],
            MONTHS[month as usize],
            second / 3600,
            second / 60 % 60,
            second % 60,
        );
        Self { unix_seconds, text }
    }

    /// Brings it to this second.
    pub(crate) fn update(&mut self, unix_seconds: u64) {
        if unix_seconds != self.unix_seconds {
            *self = Self::at(unix_seconds);
        }
    }
}

/// Year, month (0 to 11) and day (from 1) of a number of days since 1970, in the Gregorian calendar.
fn civil(mut days: u64) -> (u64, u64, u64) {
    let mut year = 1970;
    loop {
        let leap = u64::from(year % 4 == 0 && (year % 100 != 0 || year % 400 == 0));
        if days < 365 + leap {
            let lengths = [31, 28 + leap, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];
            for (month, length) in (0..).zip(lengths) {
                if days < length {
                    return (year, month, days + 1);
                }
                days -= length;
            }
        }
        days -= 365 + leap;
        year += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_those_of_the_rfc() {
        for (seconds, text) in [
            (0, "Thu, 01 Jan 1970 00:00:00 GMT"),
            (784_111_777, "Sun, 06 Nov 1994 08:49:37 GMT"),
            (951_782_400, "Tue, 29 Feb 2000 00:00:00 GMT"),
            (4_107_542_399, "Sun, 28 Feb 2100 23:59:59 GMT"),
            (4_107_542_400, "Mon, 01 Mar 2100 00:00:00 GMT"),
        ] {
            assert_eq!(str::from_utf8(&Date::at(seconds).text).unwrap(), text);
        }
    }

    #[test]
    fn generated_bodies_have_their_length_and_pattern() {
        for bytes in [0, 1, 250, 251, 252, 262_144, 700_001] {
            let mut body = Body { at: 0, left: bytes, is_chunked: false, is_over: true };
            let mut got = Vec::new();
            while !body.is_sent() {
                // A socket takes what it likes.
                let piece = &body.slice()[..body.slice().len().min(100_003)];
                got.extend_from_slice(piece);
                body.advance(piece.len());
            }
            assert_eq!(got.len() as u64, bytes);
            assert!(got.iter().enumerate().all(|(at, byte)| *byte == (at % 251) as u8));
        }
    }
}
