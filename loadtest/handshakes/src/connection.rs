//! One connection: connects, shakes hands, sends the request with the last of its handshake, and reads until the server
//! closes. Only a whole response counts. It never closes first: the port would stay taken for a while on this side.

use std::fmt;
use std::io::{self, ErrorKind, Read as _};
use std::net::SocketAddr;
use std::time::Instant;

use mio::net::TcpStream;
use mio::{Interest, Registry, Token};
use rustls::HandshakeKind;
use rustls::client::ClientConnection;

use crate::client::Client;
use crate::response;

pub(crate) struct Connection {
    stream: TcpStream,
    tls: ClientConnection,
    response: Vec<u8>,
    begun: Instant,
}

/// A connection that was answered.
#[derive(Debug)]
pub(crate) struct Answered {
    pub(crate) begun: Instant,
    pub(crate) kind: HandshakeKind,
    /// Cipher and group, as rustls calls them.
    pub(crate) agreed: (&'static str, &'static str),
}

/// Why a connection was not answered.
#[derive(Debug)]
pub(crate) enum Problem {
    /// The socket could not be had, or not connect.
    Connect(io::Error),
    Read(io::Error),
    Write(io::Error),
    Tls(rustls::Error),
    /// What came before the end was no whole response.
    Response,
}

impl Problem {
    /// Its name in the report.
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Self::Connect(_) => "connect",
            Self::Read(_) => "read",
            Self::Write(_) => "write",
            Self::Tls(_) => "tls",
            Self::Response => "response",
        }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Connect(error) | Self::Read(error) | Self::Write(error) => {
                write!(f, "{}: {error}", self.name())
            }
            Self::Tls(error) => write!(f, "tls: {error}"),
            Self::Response => write!(f, "a connection ended without a whole response"),
        }
    }
}

impl Connection {
    /// Begins to connect. `token` is what the socket's events come with.
    pub(crate) fn open(
        address: SocketAddr,
        client: &Client,
        request: &[u8],
        registry: &Registry,
        token: Token,
        now: Instant,
    ) -> Result<Self, Problem> {
        let mut stream = TcpStream::connect(address).map_err(Problem::Connect)?;
        stream.set_nodelay(true).map_err(Problem::Connect)?;
        registry
            .register(&mut stream, token, Interest::READABLE | Interest::WRITABLE)
            .map_err(Problem::Connect)?;
        let mut tls = client.connection().map_err(Problem::Tls)?;
        // It is kept until it can be encrypted.
        io::Write::write_all(&mut tls.writer(), request).map_err(Problem::Write)?;
        Ok(Self { stream, tls, response: Vec::with_capacity(512), begun: now })
    }

    /// Goes on as far as the socket allows. `None`: it waits for an event.
    pub(crate) fn drive(&mut self) -> Result<Option<Answered>, Problem> {
        loop {
            self.write()?;
            let is_over = match self.tls.read_tls(&mut self.stream) {
                Ok(bytes) => bytes == 0,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(None),
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) => return Err(Problem::Read(error)),
            };
            let state = self.tls.process_new_packets().map_err(Problem::Tls)?;
            if state.plaintext_bytes_to_read() > 0 {
                self.read(state.plaintext_bytes_to_read())?;
            }
            if is_over || state.peer_has_closed() {
                return self.end().map(Some);
            }
        }
    }

    /// Sends what there is; what the socket does not take is sent after its next event.
    fn write(&mut self) -> Result<(), Problem> {
        while self.tls.wants_write() {
            match self.tls.write_tls(&mut self.stream) {
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(Problem::Write(error)),
            }
        }
        Ok(())
    }

    fn read(&mut self, bytes: usize) -> Result<(), Problem> {
        let start = self.response.len();
        self.response.resize(start + bytes, 0);
        self.tls.reader().read_exact(&mut self.response[start..]).map_err(Problem::Read)
    }

    fn end(&self) -> Result<Answered, Problem> {
        let kind = self.tls.handshake_kind();
        let suite = self.tls.negotiated_cipher_suite().and_then(|it| it.suite().as_str());
        let group = self.tls.negotiated_key_exchange_group().and_then(|it| it.name().as_str());
        match (kind, suite, group) {
            (Some(kind), Some(suite), Some(group)) if response::is_whole(&self.response) => {
                Ok(Answered { begun: self.begun, kind, agreed: (suite, group) })
            }
            _ => Err(Problem::Response),
        }
    }
}
