//! What comes over a secured connection: bytes in, plaintext out, opened in the buffers in which it came. It puts together
//! what came in pieces, and acts on what is not application data. It sees no socket; what keys are renewed from it is lent.

use std::{io, ops::Range};

use rustls::{AlertDescription, ContentType, HandshakeType, ProtocolVersion};

use super::record::{HEADER_BYTES, Opened, Protection, RECORD_BYTES_MAX, RecordError, record_len};
use crate::buf::{Buf, FRAMING_BYTES, SMALL_BYTES, Size};

/// Records in a row that carry nothing: tickets, renewed keys, and empty ones. Who sends more does nothing else.
const IDLE_RECORDS_MAX: u32 = 32;

/// Bytes of a ticket, at most: those in use have a few hundred, or a chain of certificates.
const TICKET_BYTES_MAX: usize = 64 * 1024;

/// Room that takes what came of a record and the rest of it.
pub(super) const ROOM_BYTES: usize = 2 * RECORD_BYTES_MAX;

/// Whose keys are renewed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Direction {
    Receive,
    Send,
}

/// What keys are renewed from.
pub(super) trait Secrets {
    /// The next keys of a direction (RFC 8446 §7.2).
    fn renewed(&mut self, direction: Direction) -> Result<Protection, rustls::Error>;

    /// Keeps a ticket for a later connection.
    fn on_ticket(&mut self, ticket: &[u8]) -> Result<(), rustls::Error>;
}

/// Whose end of a connection it is, and what is spoken there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Role {
    pub(super) version: ProtocolVersion,
    pub(super) is_client: bool,
}

/// How far the peer has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum State {
    Open,
    /// It said that it sends no more.
    Ended,
    Broken(Break),
}

/// Why nothing more comes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Break {
    /// What came is not understood, and this is what to say to it.
    Misunderstood(AlertDescription),
    /// The peer said that something is wrong.
    Alerted,
    /// The connection ended, and the peer has not said so: anyone on the way can do that.
    Cut,
    /// There was no buffer for what came.
    NoBuffer,
}

impl Break {
    pub(super) fn kind(self) -> io::ErrorKind {
        match self {
            Self::Misunderstood(_) => io::ErrorKind::InvalidData,
            Self::Alerted => io::ErrorKind::ConnectionReset,
            Self::Cut => io::ErrorKind::UnexpectedEof,
            Self::NoBuffer => io::ErrorKind::OutOfMemory,
        }
    }

    /// What the peer is to be told.
    pub(super) fn alert(self) -> Option<AlertDescription> {
        match self {
            Self::Misunderstood(alert) => Some(alert),
            Self::Alerted | Self::Cut | Self::NoBuffer => None,
        }
    }
}

impl From<AlertDescription> for Break {
    fn from(alert: AlertDescription) -> Self {
        Self::Misunderstood(alert)
    }
}

impl From<RecordError> for Break {
    fn from(error: RecordError) -> Self {
        Self::Misunderstood(match error {
            RecordError::Malformed => AlertDescription::UnexpectedMessage,
            RecordError::TooLong => AlertDescription::RecordOverflow,
            RecordError::BadMac => AlertDescription::BadRecordMac,
            RecordError::Exhausted => AlertDescription::InternalError,
        })
    }
}

/// Where to receive.
#[derive(Debug)]
pub(super) enum Room {
    /// Into whatever buffer there is.
    Any,
    /// Into this one's spare room, behind what came of a record.
    Behind(Buf),
}

/// The receiving half of a secured connection without its socket.
pub(super) struct Inbound {
    open: Protection,
    role: Role,
    /// What came and is not opened. Unless its first record is whole, that is all there is.
    partial: Option<Buf>,
    /// Plaintext that found no room.
    held: Option<Buf>,
    state: State,
    /// Records in a row that carried nothing.
    idle_records: u32,
    /// What came of a handshake message that is not whole.
    message: Vec<u8>,
    /// The peer wants our keys renewed.
    wants_update: bool,
}

impl Inbound {
    /// `rest` is what came behind the handshake.
    pub(super) fn new(open: Protection, role: Role, rest: Option<Buf>) -> Self {
        Self {
            open,
            role,
            partial: rest,
            held: None,
            state: State::Open,
            idle_records: 0,
            message: Vec::new(),
            wants_update: false,
        }
    }

    pub(super) fn state(&self) -> State {
        self.state
    }

    /// Whether the peer wants our keys renewed (RFC 8446 §4.6.3); it is said once.
    pub(super) fn take_wants_update(&mut self) -> bool {
        std::mem::take(&mut self.wants_update)
    }

    /// Whether the next plaintext may be here, or the end: nothing need be received for it.
    pub(super) fn is_ready(&self) -> bool {
        self.held.is_some() || self.state != State::Open || self.partial.as_ref().is_some_and(has_record)
    }

    /// Whether something came that is not taken.
    pub(super) fn has_any(&self) -> bool {
        self.held.is_some() || self.partial.is_some()
    }

    /// Where to receive more; `None` when there is no buffer for it, and nothing is lost.
    pub(super) fn room(&mut self) -> Option<Room> {
        match self.partial.take().map(with_room) {
            None => Some(Room::Any),
            Some(Ok(partial)) => Some(Room::Behind(partial)),
            Some(Err(partial)) => {
                self.partial = Some(partial);
                None
            }
        }
    }

    /// Puts what came of a record into an empty buffer with [`ROOM_BYTES`] of spare room, to receive there.
    pub(super) fn room_in(&mut self, buf: &mut Buf) {
        if let Some(partial) = self.partial.take() {
            let fits = buf.push(partial.filled());
            debug_assert!(fits, "it is less than a record");
        }
    }

    /// What was received, with what was there before.
    pub(super) fn on_received(&mut self, buf: Buf) {
        debug_assert!(self.partial.is_none(), "it is in the buffer");
        self.partial = Some(buf);
    }

    /// The connection has ended.
    pub(super) fn on_end(&mut self) {
        if self.state == State::Open {
            self.state = State::Broken(Break::Cut);
        }
    }

    /// Keeps plaintext that found no room, to be the next.
    pub(super) fn hold(&mut self, rest: Buf) {
        self.held = Some(rest).filter(|rest| !rest.is_empty());
    }

    /// The next plaintext, never empty; `None` when more must be received, or none will come.
    pub(super) fn next(&mut self, secrets: &mut dyn Secrets) -> Option<Buf> {
        if let Some(held) = self.held.take() {
            return Some(held);
        }
        if self.state != State::Open {
            return None;
        }
        let came = self.partial.take_if(|partial| has_record(partial))?;
        self.open_all(came, secrets)
    }

    /// Opens the whole records in `buf`. Their plaintext stays in it, moved together; a record that is not whole is kept.
    /// What was good before something that is not is plaintext all the same.
    fn open_all(&mut self, mut buf: Buf, secrets: &mut dyn Secrets) -> Option<Buf> {
        // The buffer begins with so much plaintext, and the next record is there.
        let (mut written, mut read) = (0, 0);
        while self.state == State::Open {
            let Some(length) = record_len(&buf.filled()[read..]).transpose() else { break };
            let opened = match length.map(|length| buf.filled_mut().get_mut(read..read + length)) {
                Ok(Some(record)) => self.open_one(record, secrets).map(|plaintext| (plaintext, record.len())),
                Ok(None) => break,
                Err(error) => Err(error.into()),
            };
            match opened {
                Ok((plaintext, length)) if plaintext.is_empty() => read += length,
                // The first one is not moved, and mostly it is the only one.
                Ok((plaintext, length)) if written == 0 => {
                    buf.consume(read + plaintext.start);
                    written = plaintext.len();
                    read = length - plaintext.start;
                }
                Ok((plaintext, length)) => {
                    buf.filled_mut().copy_within(read + plaintext.start..read + plaintext.end, written);
                    written += plaintext.len();
                    read += length;
                }
                Err(reason) => self.state = State::Broken(reason),
            }
        }
        if self.state == State::Open && read < buf.len() {
            if written == 0 {
                buf.consume(read);
                self.partial = Some(buf);
                return None;
            }
            self.partial = copy_of(&buf.filled()[read..]);
            if self.partial.is_none() {
                self.state = State::Broken(Break::NoBuffer);
            }
        }
        buf.truncate(written);
        Some(buf).filter(|buf| !buf.is_empty())
    }

    /// Opens a record: where its application data are. Of another one nothing is left to be taken.
    fn open_one(&mut self, record: &mut [u8], secrets: &mut dyn Secrets) -> Result<Range<usize>, Break> {
        let Opened { kind, plaintext } = self.open.open(record)?;
        // Nothing comes between the pieces of a message (RFC 8446 §5.1).
        if !self.message.is_empty() && kind != ContentType::Handshake {
            return Err(AlertDescription::UnexpectedMessage.into());
        }
        if kind == ContentType::ApplicationData && !plaintext.is_empty() {
            self.idle_records = 0;
            return Ok(plaintext);
        }
        self.idle_records += 1;
        if self.idle_records > IDLE_RECORDS_MAX {
            return Err(AlertDescription::UnexpectedMessage.into());
        }
        let content = &record[plaintext];
        match kind {
            ContentType::ApplicationData => {}
            ContentType::Alert => self.on_alert(content)?,
            ContentType::Handshake if self.role.version == ProtocolVersion::TLSv1_3 => {
                self.on_handshake(content, secrets)?;
            }
            // No renegotiation (RFC 9325 §3.5), and no change of ciphers behind the handshake.
            _ => return Err(AlertDescription::UnexpectedMessage.into()),
        }
        Ok(0..0)
    }

    /// An alert (RFC 8446 §6): whole, in a record of its own.
    fn on_alert(&mut self, alert: &[u8]) -> Result<(), Break> {
        let (level, description) = match *alert {
            [level, description] => (level, description),
            [] => return Err(AlertDescription::UnexpectedMessage.into()),
            _ => return Err(AlertDescription::DecodeError.into()),
        };
        match AlertDescription::from(description) {
            AlertDescription::CloseNotify => self.state = State::Ended,
            // It is followed by the end (RFC 8446 §6.1).
            AlertDescription::UserCanceled => {}
            // TLS 1.2 has warnings.
            _ if level == 1 && self.role.version == ProtocolVersion::TLSv1_2 => {}
            _ => return Err(Break::Alerted),
        }
        Ok(())
    }

    /// Handshake messages, or pieces of them, of which there are two kinds behind a handshake.
    fn on_handshake(&mut self, content: &[u8], secrets: &mut dyn Secrets) -> Result<(), Break> {
        if content.is_empty() {
            return Err(AlertDescription::UnexpectedMessage.into());
        }
        self.message.extend_from_slice(content);
        let messages = std::mem::take(&mut self.message);
        let mut rest = &messages[..];
        // Judged by their headers, so that nobody has us keep what is refused in the end.
        while let &[kind, high, middle, low, ref behind @ ..] = rest {
            let kind = HandshakeType::from(kind);
            let length = u32::from_be_bytes([0, high, middle, low]) as usize;
            let length_max = match kind {
                HandshakeType::KeyUpdate => 1,
                HandshakeType::NewSessionTicket if self.role.is_client => TICKET_BYTES_MAX,
                _ => return Err(AlertDescription::UnexpectedMessage.into()),
            };
            if length > length_max {
                return Err(AlertDescription::DecodeError.into());
            }
            let Some((body, behind)) = behind.split_at_checked(length) else { break };
            rest = behind;
            if kind == HandshakeType::KeyUpdate {
                self.on_key_update(body, rest.is_empty(), secrets)?;
            } else {
                secrets.on_ticket(body).map_err(|_| AlertDescription::DecodeError)?;
            }
        }
        // Without room, mostly: a connection that waits has no use for it.
        self.message = rest.to_vec();
        Ok(())
    }

    /// The peer has renewed its keys (RFC 8446 §4.6.3).
    fn on_key_update(&mut self, body: &[u8], is_last: bool, secrets: &mut dyn Secrets) -> Result<(), Break> {
        // What follows is under the new keys, so nothing under the old ones may follow (RFC 8446 §5.1).
        if !is_last {
            return Err(AlertDescription::UnexpectedMessage.into());
        }
        match body {
            [0] => {}
            [1] => self.wants_update = true,
            [_] => return Err(AlertDescription::IllegalParameter.into()),
            _ => return Err(AlertDescription::DecodeError.into()),
        }
        let renewed = secrets.renewed(Direction::Receive);
        self.open = renewed.map_err(|_| AlertDescription::InternalError)?;
        Ok(())
    }
}

/// Whether a buffer begins with a whole record, or with something that will never be one.
fn has_record(buf: &Buf) -> bool {
    match record_len(buf.filled()) {
        Ok(Some(length)) => length <= buf.len(),
        Ok(None) => false,
        Err(_) => true,
    }
}

/// The same bytes with room for more of the record that they begin, and for framing around it. A large buffer is taken when
/// a small one is full, not when a record says that it is long. Without one the bytes come back as they are.
fn with_room(mut buf: Buf) -> Result<Buf, Buf> {
    let whole = record_len(buf.filled()).ok().flatten().unwrap_or(HEADER_BYTES);
    if buf.len() + buf.spare_len() >= whole {
        return Ok(buf);
    }
    if whole + 2 * FRAMING_BYTES <= buf.capacity() {
        buf.move_to(FRAMING_BYTES, FRAMING_BYTES);
        return Ok(buf);
    }
    if buf.spare_len() > 0 {
        return Ok(buf);
    }
    let Some(mut large) = Buf::take(Size::Large) else { return Err(buf) };
    large.reset(FRAMING_BYTES, FRAMING_BYTES);
    if large.push(buf.filled()) { Ok(large) } else { Err(buf) }
}

/// A buffer of its own for what came of records, with room for framing around it.
pub(super) fn copy_of(bytes: &[u8]) -> Option<Buf> {
    let size = if bytes.len() + 2 * FRAMING_BYTES <= SMALL_BYTES { Size::Small } else { Size::Large };
    let mut buf = Buf::take(size)?;
    buf.reset(FRAMING_BYTES, FRAMING_BYTES);
    buf.push(bytes).then_some(buf)
}
