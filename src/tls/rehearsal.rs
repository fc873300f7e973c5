//! Secured connections without sockets: both state machines of an end, and handshakes, fed with bytes by tests and fuzz
//! targets. Nothing of the gateway uses it.

use std::{io, sync::Arc};

use rustls::{
    ClientConfig, ConnectionTrafficSecrets, ContentType, ProtocolVersion, ServerConfig,
    client::UnbufferedClientConnection, server::UnbufferedServerConnection,
};
use rustls_pki_types::ServerName;

use super::{
    handshake::{Handshake, HandshakeError, Shaken, Step},
    inbound::{Direction, Inbound, Role, Room, Secrets, State, copy_of},
    record::Protection,
    send::Outbound,
};
use crate::buf::{Buf, FRAMING_BYTES, Size};

/// Ciphers with which ends can be [made](End::made).
pub const CIPHERS: usize = 4;

/// One end of a secured connection.
pub struct End {
    outbound: Outbound,
    inbound: Inbound,
    secrets: Box<dyn Secrets>,
    /// Whether what comes is received into large buffers.
    pub is_streaming: bool,
}

impl End {
    /// An end whose keys are always the same: what one says the other, of the same cipher, understands.
    ///
    /// # Errors
    /// None, as long as ciphers take their keys.
    pub fn made(cipher: usize, is_client: bool) -> Result<Self, rustls::Error> {
        let mut keys = Made { cipher: cipher % CIPHERS, is_client, renewals: [0; 2] };
        let (open, seal) = (keys.next(Direction::Receive)?, keys.next(Direction::Send)?);
        let role = Role { version: keys.version(), is_client };
        Ok(Self {
            outbound: Outbound::new(seal, role.version),
            inbound: Inbound::new(open, role, None),
            secrets: Box::new(keys),
            is_streaming: false,
        })
    }

    /// The end that a handshake came to.
    fn shaken(shaken: Shaken) -> Result<Self, HandshakeError> {
        let Shaken { kernel, secrets, session: _, rest } = shaken;
        let role = kernel.role();
        let rest = Some(rest).filter(|rest| !rest.is_empty());
        let rest = rest.map(|rest| copy_of(&rest).ok_or(io::ErrorKind::OutOfMemory)).transpose();
        Ok(Self {
            outbound: Outbound::new(
                Protection::new(role.version, secrets.tx, kernel.sequence_max())?,
                role.version,
            ),
            inbound: Inbound::new(
                Protection::new(role.version, secrets.rx, u64::MAX)?,
                role,
                rest.map_err(io::Error::from)?,
            ),
            secrets: Box::new(kernel),
            is_streaming: false,
        })
    }

    /// A record of this type (RFC 8446 §B.1); `None` when there is none with so much in it, or no key for it any more.
    pub fn record(&mut self, kind: u8, content: &[u8]) -> Option<Vec<u8>> {
        let mut buf = Buf::take(Size::Large)?;
        self.outbound.protection().seal_behind(ContentType::from(kind), content, &mut buf).ok()?;
        Some(buf.filled().to_vec())
    }

    /// The same with so many zeros behind its type, which TLS 1.3 allows (RFC 8446 §5.4).
    pub fn padded(&mut self, kind: u8, content: &[u8], padding: usize) -> Option<Vec<u8>> {
        match padding.checked_sub(1) {
            None => self.record(kind, content),
            // Its real type is a zero more.
            Some(zeros) => self.record(0, &[content, &[kind], &vec![0; zeros]].concat()),
        }
    }

    /// Records of application data, as they are sent when they are not one record in the buffer that they are in; with
    /// renewed keys first when `renews`.
    pub fn records(&mut self, content: &[u8], renews: bool) -> Option<Vec<u8>> {
        let mut rest = copy_of(content)?;
        let mut all = Vec::new();
        let mut renews = renews;
        loop {
            let owes_update = std::mem::take(&mut renews);
            let records = self.outbound.records_of(&mut rest, owes_update, &mut *self.secrets).ok()?;
            all.extend_from_slice(records.filled());
            if rest.is_empty() {
                return Some(all);
            }
        }
    }

    /// A record that renews its keys, and maybe wants the other side's renewed (RFC 8446 §4.6.3).
    pub fn renew(&mut self, wants_update: bool) -> Option<Vec<u8>> {
        let record = self.record(22, &[24, 0, 0, 1, wants_update.into()])?;
        *self.outbound.protection() = self.secrets.renewed(Direction::Send).ok()?;
        Some(record)
    }

    /// Takes bytes as a socket would bring them, and gives what plaintext there is then.
    ///
    /// # Panics
    /// The plaintext lies in its buffer in a way that is not promised.
    pub fn hear(&mut self, mut bytes: &[u8]) -> Vec<u8> {
        let mut heard = Vec::new();
        loop {
            while let Some(plaintext) = self.inbound.next(&mut *self.secrets) {
                assert!(!plaintext.is_empty(), "it would look like the end");
                assert!(plaintext.has_room(FRAMING_BYTES, FRAMING_BYTES), "it is framed where it lies");
                heard.extend_from_slice(plaintext.filled());
            }
            if bytes.is_empty() || self.inbound.state() != State::Open {
                return heard;
            }
            let Some(mut buf) = self.room() else { return heard };
            assert!(buf.spare_len() > 0, "nothing could be received");
            let (now, later) = bytes.split_at(bytes.len().min(buf.spare_len()));
            buf.spare_mut()[..now.len()].copy_from_slice(now);
            buf.commit(now.len());
            bytes = later;
            self.inbound.on_received(buf);
        }
    }

    fn room(&mut self) -> Option<Buf> {
        let size = if self.is_streaming { Size::Large } else { Size::Small };
        let mut buf = Buf::take(size)?;
        buf.reset(FRAMING_BYTES, FRAMING_BYTES);
        if self.is_streaming {
            self.inbound.room_in(&mut buf);
            return Some(buf);
        }
        match self.inbound.room()? {
            Room::Any => Some(buf),
            Room::Behind(partial) => Some(partial),
        }
    }

    /// Tells it that the connection has ended.
    pub fn hang_up(&mut self) {
        self.inbound.on_end();
    }

    /// Whether the peer has ended, and how.
    pub fn ending(&self) -> Option<Result<(), io::ErrorKind>> {
        match self.inbound.state() {
            State::Open => None,
            State::Ended => Some(Ok(())),
            State::Broken(reason) => Some(Err(reason.kind())),
        }
    }

    /// What the peer is told is wrong (RFC 8446 §6), if anything.
    pub fn complaint(&self) -> Option<u8> {
        match self.inbound.state() {
            State::Broken(reason) => reason.alert().map(u8::from),
            State::Open | State::Ended => None,
        }
    }

    /// Whether the peer wants the keys renewed that it is answered with.
    pub fn take_wants_update(&mut self) -> bool {
        self.inbound.take_wants_update()
    }
}

/// Keys that are made and not agreed on.
struct Made {
    cipher: usize,
    is_client: bool,
    /// How often each was renewed.
    renewals: [u8; 2],
}

impl Made {
    fn version(&self) -> ProtocolVersion {
        if self.cipher < 2 { ProtocolVersion::TLSv1_3 } else { ProtocolVersion::TLSv1_2 }
    }

    fn next(&mut self, direction: Direction) -> Result<Protection, rustls::Error> {
        let is_clients = self.is_client == (direction == Direction::Send);
        let renewal = &mut self.renewals[usize::from(is_clients)];
        let (key, iv) = ([*renewal | u8::from(is_clients) << 7; 32].into(), [*renewal; 12].into());
        *renewal = (*renewal + 1) % 128;
        let secrets = match self.cipher % 2 {
            0 => ConnectionTrafficSecrets::Aes256Gcm { key, iv },
            _ => ConnectionTrafficSecrets::Chacha20Poly1305 { key, iv },
        };
        Protection::new(self.version(), (0, secrets), u64::MAX)
    }
}

impl Secrets for Made {
    fn renewed(&mut self, direction: Direction) -> Result<Protection, rustls::Error> {
        self.next(direction)
    }

    fn on_ticket(&mut self, _: &[u8]) -> Result<(), rustls::Error> {
        Ok(())
    }
}

/// A handshake.
pub struct Shaking(Side);

enum Side {
    Client(Handshake<UnbufferedClientConnection>),
    Server(Handshake<UnbufferedServerConnection>),
}

impl Shaking {
    /// A client's.
    ///
    /// # Errors
    /// What rustls has against the configuration.
    pub fn client(config: Arc<ClientConfig>, name: ServerName<'static>) -> Result<Self, HandshakeError> {
        Ok(Self(Side::Client(Handshake::new(UnbufferedClientConnection::new(config, name)?))))
    }

    /// A server's.
    ///
    /// # Errors
    /// What rustls has against the configuration.
    pub fn server(config: Arc<ServerConfig>) -> Result<Self, HandshakeError> {
        Ok(Self(Side::Server(Handshake::new(UnbufferedServerConnection::new(config)?))))
    }

    /// Takes bytes and does what can be done; whether it is done.
    ///
    /// # Errors
    /// As of a handshake over a socket; there may be something to [say](Self::take_flight) about it.
    pub fn hear(&mut self, bytes: &[u8]) -> Result<bool, HandshakeError> {
        let step = match &mut self.0 {
            Side::Client(side) => side.on_received(bytes).and_then(|()| side.advance()),
            Side::Server(side) => side.on_received(bytes).and_then(|()| side.advance()),
        };
        Ok(step? == Step::Done)
    }

    /// What is to be sent.
    pub fn take_flight(&mut self) -> Vec<u8> {
        match &mut self.0 {
            Side::Client(side) => side.take_flight(),
            Side::Server(side) => side.take_flight(),
        }
    }

    /// The end of the connection that it came to.
    ///
    /// # Errors
    /// It is not done.
    pub fn finish(self) -> Result<End, HandshakeError> {
        End::shaken(match self.0 {
            Side::Client(side) => side.finish()?,
            Side::Server(side) => side.finish()?,
        })
    }
}
