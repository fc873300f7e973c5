//! HTTP/2 frame by frame: a peer that does what no library would let it do. Of HPACK it knows what it needs: it writes
//! literals, and reads statuses.

use crate::support::Peer;

pub const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

pub const DATA: u8 = 0;
pub const HEADERS: u8 = 1;
pub const PRIORITY: u8 = 2;
pub const RST_STREAM: u8 = 3;
pub const SETTINGS: u8 = 4;
pub const PING: u8 = 6;
pub const GOAWAY: u8 = 7;
pub const WINDOW_UPDATE: u8 = 8;
pub const CONTINUATION: u8 = 9;

pub const END_STREAM: u8 = 1;
pub const ACK: u8 = 1;
pub const END_HEADERS: u8 = 4;

/// Settings.
pub const HEADER_TABLE_SIZE: u16 = 1;
pub const INITIAL_WINDOW_SIZE: u16 = 4;

/// Error codes.
pub const NO_ERROR: u32 = 0;
pub const PROTOCOL_ERROR: u32 = 1;
pub const FLOW_CONTROL_ERROR: u32 = 3;
pub const REFUSED_STREAM: u32 = 7;
pub const CANCEL: u32 = 8;

/// A frame as received.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    pub kind: u8,
    pub flags: u8,
    pub stream: u32,
    pub payload: Vec<u8>,
}

impl Frame {
    pub fn is(&self, kind: u8, stream: u32) -> bool {
        (self.kind, self.stream) == (kind, stream)
    }

    pub fn has(&self, flag: u8) -> bool {
        self.flags & flag != 0
    }

    /// The number that the payload has there.
    pub fn number(&self, at: usize) -> u32 {
        u32::from_be_bytes(*self.payload[at..].first_chunk().unwrap())
    }
}

/// A frame's bytes.
pub fn frame(kind: u8, flags: u8, stream: u32, payload: impl AsRef<[u8]>) -> Vec<u8> {
    let payload = payload.as_ref();
    let mut bytes = (payload.len() as u32).to_be_bytes()[1..].to_vec();
    bytes.extend([kind, flags]);
    bytes.extend(stream.to_be_bytes());
    bytes.extend_from_slice(payload);
    bytes
}

pub fn settings(settings: &[(u16, u32)]) -> Vec<u8> {
    let payload =
        settings.iter().flat_map(|(name, value)| [&name.to_be_bytes()[..], &value.to_be_bytes()].concat());
    frame(SETTINGS, 0, 0, payload.collect::<Vec<_>>())
}

pub fn reset(stream: u32, code: u32) -> Vec<u8> {
    frame(RST_STREAM, 0, stream, code.to_be_bytes())
}

pub fn window(stream: u32, more: u32) -> Vec<u8> {
    frame(WINDOW_UPDATE, 0, stream, more.to_be_bytes())
}

pub fn goaway(last: u32, code: u32) -> Vec<u8> {
    frame(GOAWAY, 0, 0, [last.to_be_bytes(), code.to_be_bytes()].concat())
}

/// Fields as literals that no one need remember.
pub fn block(fields: &[(&str, &str)]) -> Vec<u8> {
    let mut block = Vec::new();
    for (name, value) in fields {
        block.push(0);
        text(name, &mut block);
        text(value, &mut block);
    }
    block
}

/// A text as it is, its length before it (RFC 7541 §5.2).
fn text(text: &str, into: &mut Vec<u8>) {
    let mut length = text.len();
    if length < 127 {
        into.push(length as u8);
    } else {
        into.push(127);
        length -= 127;
        while length >= 128 {
            into.push((length % 128) as u8 | 128);
            length /= 128;
        }
        into.push(length as u8);
    }
    into.extend_from_slice(text.as_bytes());
}

/// The pseudo fields of a request, for the host `a`.
pub fn pseudo<'f>(method: &'f str, path: &'f str) -> Vec<(&'f str, &'f str)> {
    vec![(":method", method), (":scheme", "http"), (":path", path), (":authority", "a")]
}

/// HEADERS with these fields, which may end the stream.
pub fn headers(stream: u32, fields: &[(&str, &str)], ends: bool) -> Vec<u8> {
    frame(HEADERS, END_HEADERS | u8::from(ends), stream, block(fields))
}

/// A GET.
pub fn get(stream: u32, path: &str) -> Vec<u8> {
    headers(stream, &pseudo("GET", path), true)
}

/// What became of a stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fate {
    Answered {
        status: u16,
        body: Vec<u8>,
    },
    /// With this code.
    Reset(u32),
    /// The connection went, with the code of its last GOAWAY if there was one.
    Gone(Option<u32>),
}

/// One end of a connection of HTTP/2.
pub struct Frames {
    pub peer: Peer,
    /// The code of the last GOAWAY.
    goaway: Option<u32>,
    /// Whether SETTINGS and PINGs are left unanswered.
    pub is_mute: bool,
}

impl Frames {
    /// A client that has said who it is.
    pub fn client(peer: Peer) -> Self {
        Self::client_with(peer, &[])
    }

    pub fn client_with(mut peer: Peer, more: &[(u16, u32)]) -> Self {
        // Without a table no field refers to one before.
        let ours = [&[(HEADER_TABLE_SIZE, 0)], more].concat();
        peer.send([PREFACE.as_slice(), &settings(&ours)].concat());
        Self::beside(peer)
    }

    /// One end of a connection on which the preface is sent.
    pub fn beside(peer: Peer) -> Self {
        Self { peer, goaway: None, is_mute: false }
    }

    /// A server that has heard who is there.
    pub fn server(mut peer: Peer, ours: &[(u16, u32)]) -> Self {
        assert_eq!(peer.exactly(PREFACE.len()), PREFACE);
        peer.send(settings(ours));
        Self::beside(peer)
    }

    pub fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.peer.send(bytes);
    }

    /// The next frame, or `None` when the connection is over. SETTINGS and PINGs are answered on the way.
    pub fn next(&mut self) -> Option<Frame> {
        let head: [u8; 9] = self.take(9)?.try_into().unwrap();
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
        let stream = u32::from_be_bytes(*head[5..].first_chunk().unwrap());
        let frame = Frame { kind: head[3], flags: head[4], stream, payload: self.take(length)? };
        match frame.kind {
            SETTINGS if !frame.has(ACK) => self.answer(SETTINGS, &[]),
            PING if !frame.has(ACK) => self.answer(PING, &frame.payload),
            GOAWAY => self.goaway = Some(frame.number(4)),
            _ => {}
        }
        Some(frame)
    }

    fn answer(&mut self, kind: u8, payload: &[u8]) {
        if !self.is_mute {
            self.peer.try_send(frame(kind, ACK, 0, payload));
        }
    }

    fn take(&mut self, count: usize) -> Option<Vec<u8>> {
        while self.peer.inbox.len() < count {
            if self.peer.more() == 0 {
                return None;
            }
        }
        let rest = self.peer.inbox.split_off(count);
        Some(std::mem::replace(&mut self.peer.inbox, rest))
    }

    /// The next frame that is like this. Panics when the connection ends before.
    pub fn until(&mut self, is_it: impl Fn(&Frame) -> bool) -> Frame {
        self.try_until(is_it).expect("the connection goes on")
    }

    pub fn try_until(&mut self, is_it: impl Fn(&Frame) -> bool) -> Option<Frame> {
        loop {
            let frame = self.next()?;
            if is_it(&frame) {
                return Some(frame);
            }
        }
    }

    /// What becomes of a stream.
    pub fn fate(&mut self, stream: u32) -> Fate {
        let mut answered = None;
        let mut body = Vec::new();
        while let Some(frame) = self.next() {
            if frame.stream != stream {
                continue;
            }
            match frame.kind {
                HEADERS if answered.is_none() => {
                    answered = Some(status(&frame.payload)).filter(|status| *status >= 200)
                }
                DATA => body.extend_from_slice(&frame.payload),
                RST_STREAM => return Fate::Reset(frame.number(0)),
                _ => {}
            }
            if let (Some(status), true) =
                (answered, matches!(frame.kind, HEADERS | DATA) && frame.has(END_STREAM))
            {
                return Fate::Answered { status, body };
            }
        }
        Fate::Gone(self.goaway)
    }

    /// What comes of a body whose head came already.
    pub fn body(&mut self, stream: u32) -> Vec<u8> {
        let mut body = Vec::new();
        loop {
            let frame = self.until(|frame| frame.is(DATA, stream));
            body.extend_from_slice(&frame.payload);
            if frame.has(END_STREAM) {
                return body;
            }
        }
    }

    /// Asks for a path and expects the answer to it.
    pub fn serves(&mut self, stream: u32, path: &str) {
        self.send(get(stream, path));
        let fate = self.fate(stream);
        assert!(matches!(fate, Fate::Answered { status: 200, .. }), "{path}: {fate:?}");
    }

    /// Waits for the connection's end and gives the code of the last GOAWAY.
    pub fn ended(&mut self) -> Option<u32> {
        while self.next().is_some() {}
        self.goaway
    }
}

/// The status that a block begins with.
pub fn status(block: &[u8]) -> u16 {
    let mut block = block;
    // Changes of the table's size.
    while let [0x20..0x3f, rest @ ..] = block {
        block = rest;
    }
    match block {
        [indexed @ 0x88..=0x8e, ..] => [200, 204, 206, 304, 400, 404, 500][usize::from(indexed - 0x88)],
        // A literal whose name is the static table's `:status`.
        [0x08..=0x0e | 0x18..=0x1e | 0x48..=0x4e, length, rest @ ..] => {
            let value = &rest[..usize::from(length & 127)];
            if length & 128 == 0 {
                std::str::from_utf8(value).unwrap().parse().unwrap()
            } else {
                digits(value)
            }
        }
        _ => panic!("no status: {block:x?}"),
    }
}

/// Three digits in the code of RFC 7541, Appendix B: `0` to `2` have five bits, the others six.
fn digits(coded: &[u8]) -> u16 {
    let all = coded.iter().chain(&[0; 4]).take(4).fold(0_u32, |all, byte| all << 8 | u32::from(*byte));
    let mut at = 0;
    let mut bits = |count: u32| {
        at += count;
        (all >> (32 - at)) & ((1 << count) - 1)
    };
    (0..3).fold(0, |number, _| {
        let five = bits(5);
        let digit = if five < 3 { five } else { (five << 1 | bits(1)) - 0b01_1001 + 3 };
        number * 10 + digit as u16
    })
}
