//! TLS for the tests' peers: rustls by hand, so that a test says where records begin and end and sees how a connection
//! ended; and records of any kind, of which rustls would send none ([`Raw`]).

use std::{
    io::{ErrorKind, Read, Write},
    net::TcpStream,
    sync::{Arc, Mutex, MutexGuard},
};

use aws_lc_rs::aead::{AES_128_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use rustls::{
    ClientConfig, ClientConnection, Connection, ConnectionTrafficSecrets, DigitallySignedStruct,
    ProtocolVersion, RootCertStore, ServerConfig, ServerConnection, SignatureScheme,
    SupportedProtocolVersion,
    client::{
        WebPkiServerVerifier,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    },
    crypto::{CryptoProvider, aws_lc_rs::default_provider, verify_tls12_signature, verify_tls13_signature},
    server::WebPkiClientVerifier,
    version::{TLS12, TLS13},
};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};

use super::{
    Peer, all_received,
    mint::{Mint, Pair},
};

pub type Versions = &'static [&'static SupportedProtocolVersion];

/// The versions by themselves.
pub const EACH_VERSION: [Versions; 2] = [&[&TLS12], &[&TLS13]];
/// Either.
pub const BOTH_VERSIONS: Versions = &[&TLS13, &TLS12];

/// What a client of the tests speaks TLS with.
pub struct Client {
    provider: CryptoProvider,
    versions: Versions,
    roots: Option<Arc<RootCertStore>>,
    schemes: Vec<SignatureScheme>,
    identity: Option<Pair>,
}

impl Client {
    /// Believes this authority only.
    pub fn of(root: &Mint) -> Self {
        Self { roots: Some(root.roots()), ..Self::curious() }
    }

    /// Believes everyone.
    pub fn curious() -> Self {
        let provider = default_provider();
        let schemes = provider.signature_verification_algorithms.supported_schemes();
        Self { provider, versions: BOTH_VERSIONS, roots: None, schemes, identity: None }
    }

    pub fn versions(mut self, versions: Versions) -> Self {
        self.versions = versions;
        self
    }

    /// Says that it can verify these signatures only.
    pub fn schemes(mut self, schemes: &[SignatureScheme]) -> Self {
        self.schemes = schemes.into();
        self
    }

    /// Only the suites whose names have this in them.
    pub fn suites(mut self, part: &str) -> Self {
        self.provider.cipher_suites.retain(|suite| format!("{:?}", suite.suite()).contains(part));
        assert!(!self.provider.cipher_suites.is_empty(), "{part}");
        self
    }

    /// Shows this certificate when it is asked for one.
    pub fn shows(mut self, pair: &Pair) -> Self {
        self.identity = Some(pair.clone());
        self
    }

    pub fn config(self) -> Arc<ClientConfig> {
        Arc::new(self.plain_config())
    }

    pub fn plain_config(self) -> ClientConfig {
        let provider = Arc::new(self.provider);
        let believes = self.roots.map(|roots| {
            WebPkiServerVerifier::builder_with_provider(roots, Arc::clone(&provider)).build().unwrap()
        });
        let verifier = Arc::new(Verifier { believes, schemes: self.schemes });
        let builder = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(self.versions)
            .unwrap()
            .dangerous()
            .with_custom_certificate_verifier(verifier);
        let mut config = match self.identity {
            Some(pair) => builder.with_client_auth_cert(pair.chain(), pair.private_key()).unwrap(),
            None => builder.with_no_client_auth(),
        };
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        config.enable_secret_extraction = true;
        config
    }
}

/// Believes whom `believes` does, or everyone, if it can verify the signature.
#[derive(Debug)]
struct Verifier {
    believes: Option<Arc<WebPkiServerVerifier>>,
    schemes: Vec<SignatureScheme>,
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        leaf: &CertificateDer<'_>,
        rest: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        match &self.believes {
            Some(verifier) => verifier.verify_server_cert(leaf, rest, name, ocsp, now),
            None => Ok(ServerCertVerified::assertion()),
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = default_provider().signature_verification_algorithms;
        verify_tls12_signature(message, certificate, signature, &algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = default_provider().signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signature, &algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.schemes.clone()
    }
}

/// What an upstream of the tests speaks TLS with. `clients`: it demands certificates of them.
pub fn server(pair: &Pair, versions: Versions, clients: Option<&Mint>) -> Arc<ServerConfig> {
    let provider = Arc::new(default_provider());
    let verifier = match clients {
        Some(mint) => {
            WebPkiClientVerifier::builder_with_provider(mint.roots(), Arc::clone(&provider)).build().unwrap()
        }
        None => WebPkiClientVerifier::no_client_auth(),
    };
    let config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(versions)
        .unwrap()
        .with_client_cert_verifier(verifier)
        .with_single_cert(pair.chain(), pair.private_key())
        .unwrap();
    Arc::new(config)
}

/// How a secured connection ended.
#[derive(Debug, Clone, PartialEq)]
pub enum Ending {
    /// The other side said that it sends no more (close_notify).
    Said,
    /// The stream ended, or was reset, without that.
    Cut,
    /// What came was no good, or it said that what we sent was not.
    Failed(rustls::Error),
}

/// A connection's side of TLS.
pub(super) struct Session {
    connection: Connection,
    ending: Option<Ending>,
    /// What came of a record that is not whole.
    partial: Vec<u8>,
    /// The kinds and lengths of the records that came.
    records: Vec<(u8, usize)>,
}

impl Session {
    fn new(mut connection: Connection) -> Self {
        connection.set_buffer_limit(None);
        Self { connection, ending: None, partial: Vec::new(), records: Vec::new() }
    }

    /// What rustls has to send.
    fn outgoing(&mut self) -> Vec<u8> {
        let mut wire = Vec::new();
        while self.connection.wants_write() {
            self.connection.write_tls(&mut wire).unwrap();
        }
        wire
    }

    /// Takes what came; nothing means the end.
    fn take(&mut self, bytes: &[u8], inbox: &mut Vec<u8>) {
        if bytes.is_empty() {
            self.ending.get_or_insert(Ending::Cut);
            return;
        }
        self.partial.extend_from_slice(bytes);
        while let Some(length) = record_len(&self.partial) {
            self.records.push((self.partial[0], length - 5));
            self.partial.drain(..length);
        }
        let mut bytes = bytes;
        while !bytes.is_empty() && self.ending.is_none() {
            self.connection.read_tls(&mut bytes).unwrap();
            match self.connection.process_new_packets() {
                Ok(state) if state.peer_has_closed() => self.ending = Some(Ending::Said),
                Ok(_) => {}
                Err(error) => self.ending = Some(Ending::Failed(error)),
            }
            // Fails with what it has when no more is there.
            let _ = self.connection.reader().read_to_end(inbox);
        }
    }
}

/// The length of the record that these bytes begin with, when it is whole.
fn record_len(bytes: &[u8]) -> Option<usize> {
    let length = 5 + usize::from(u16::from_be_bytes([*bytes.get(3)?, *bytes.get(4)?]));
    (length <= bytes.len()).then_some(length)
}

fn name(name: &str) -> ServerName<'static> {
    ServerName::try_from(name.to_owned()).unwrap()
}

/// The first flight of a client's handshake.
pub fn hello(config: &Arc<ClientConfig>, server: &str) -> Vec<u8> {
    Session::new(ClientConnection::new(Arc::clone(config), name(server)).unwrap().into()).outgoing()
}

impl Peer {
    /// Shakes hands with a server as its client.
    pub fn secured(self, config: &Arc<ClientConfig>, server: &str) -> Result<Self, Ending> {
        self.secured_with(config, server, b"", usize::MAX)
    }

    /// The same; what is to be sent `first` goes out with the end of the handshake, and everything in segments of so many
    /// bytes.
    pub fn secured_with(
        self,
        config: &Arc<ClientConfig>,
        server: &str,
        first: &[u8],
        segment_max: usize,
    ) -> Result<Self, Ending> {
        let connection = ClientConnection::new(Arc::clone(config), name(server)).unwrap();
        self.shaken(connection.into(), first, segment_max)
    }

    /// Shakes hands with a client.
    pub fn serving(self, config: &Arc<ServerConfig>) -> Result<Self, Ending> {
        self.shaken(ServerConnection::new(Arc::clone(config)).unwrap().into(), b"", usize::MAX)
    }

    fn shaken(mut self, connection: Connection, first: &[u8], segment_max: usize) -> Result<Self, Ending> {
        let mut session = Session::new(connection);
        session.connection.writer().write_all(first).unwrap();
        loop {
            let mut is_sent = true;
            for segment in session.outgoing().chunks(segment_max) {
                is_sent &= self.stream.write_all(segment).is_ok();
                if segment_max != usize::MAX {
                    all_received([&self.stream]);
                }
            }
            if let Some(ending) = session.ending.take() {
                return Err(ending);
            }
            if !session.connection.is_handshaking() {
                break;
            }
            // Who does not listen may have said why.
            let mut chunk = [0; 65536];
            let count = receive(&mut self.stream, &mut chunk);
            session.take(&chunk[..count], &mut self.inbox);
            if !is_sent && count == 0 {
                return Err(Ending::Cut);
            }
        }
        self.tls = Some(Arc::new(Mutex::new(session)));
        Ok(self)
    }

    fn session(&self) -> MutexGuard<'_, Session> {
        self.tls.as_ref().expect("a secured connection").lock().unwrap()
    }

    pub(super) fn more_secured(&mut self) -> usize {
        let before = self.inbox.len();
        while self.inbox.len() == before {
            if self.session().ending.is_some() {
                return 0;
            }
            let mut chunk = [0; 65536];
            let count = receive(&mut self.stream, &mut chunk);
            let tls = Arc::clone(self.tls.as_ref().unwrap());
            tls.lock().unwrap().take(&chunk[..count], &mut self.inbox);
        }
        self.inbox.len() - before
    }

    /// These bytes as records, one for each piece, with what else was to be sent before.
    pub fn records(&self, pieces: &[&[u8]]) -> Vec<u8> {
        let mut session = self.session();
        for piece in pieces {
            session.connection.writer().write_all(piece).unwrap();
        }
        session.outgoing()
    }

    /// Sends bytes as they are.
    pub fn send_wire(&mut self, wire: impl AsRef<[u8]>) {
        self.stream.write_all(wire.as_ref()).unwrap();
    }

    /// New keys for what is sent, and asks the other side for new ones. Goes out with what is sent next.
    pub fn renew_keys(&self) {
        self.session().connection.refresh_traffic_keys().unwrap();
    }

    /// Says that no more is sent. The stream stays open.
    pub fn say_close(&mut self) {
        let wire = {
            let mut session = self.session();
            session.connection.send_close_notify();
            session.outgoing()
        };
        self.send_wire(wire);
    }

    /// Waits for the end, and how it came. What was received before is in the inbox.
    pub fn ending(&mut self) -> Ending {
        while self.more() > 0 {}
        self.session().ending.clone().unwrap()
    }

    /// The kinds and lengths of the records that came, since the last look.
    pub fn received_records(&self) -> Vec<(u8, usize)> {
        std::mem::take(&mut self.session().records)
    }

    /// The same connection for another thread: one of both may receive.
    pub fn twin(&self) -> Self {
        Self { stream: self.stream.try_clone().unwrap(), inbox: Vec::new(), tls: self.tls.clone() }
    }

    pub fn is_secured(&self) -> bool {
        self.tls.is_some()
    }

    pub fn is_resumed(&self) -> bool {
        self.session().connection.handshake_kind() == Some(rustls::HandshakeKind::Resumed)
    }

    pub fn version(&self) -> ProtocolVersion {
        self.session().connection.protocol_version().unwrap()
    }

    pub fn alpn(&self) -> Option<Vec<u8>> {
        self.session().connection.alpn_protocol().map(Into::into)
    }

    /// The other side's certificate.
    pub fn certificate(&self) -> Option<CertificateDer<'static>> {
        let session = self.session();
        session.connection.peer_certificates().map(|chain| chain[0].clone().into_owned())
    }

    /// The name that the client asked for.
    pub fn asked_name(&self) -> Option<String> {
        match &self.session().connection {
            Connection::Client(_) => None,
            Connection::Server(connection) => connection.server_name().map(str::to_owned),
        }
    }

    /// Whether the server would take early data.
    pub fn may_send_early(&self) -> bool {
        match &mut self.session().connection {
            Connection::Client(connection) => {
                connection.is_early_data_accepted() || connection.early_data().is_some()
            }
            Connection::Server(_) => false,
        }
    }

    /// Takes the keys from rustls. Everything that was sent to it must have been received.
    pub fn into_raw(self) -> Raw {
        assert!(self.inbox.is_empty());
        let session = Arc::into_inner(self.tls.unwrap()).unwrap().into_inner().unwrap();
        assert!(session.partial.is_empty());
        let is_newer = session.connection.protocol_version() == Some(ProtocolVersion::TLSv1_3);
        let secrets = session.connection.dangerous_extract_secrets().unwrap();
        let [seal, open] = [secrets.tx, secrets.rx].map(|secrets| Protection::new(secrets, is_newer));
        Raw { stream: self.stream, seal, open, wire: Vec::new(), plaintext: Vec::new() }
    }
}

/// What came; 0 at the end, a reset included.
pub(super) fn receive(stream: &mut TcpStream, into: &mut [u8]) -> usize {
    match stream.read(into) {
        Ok(count) => count,
        Err(error) if matches!(error.kind(), ErrorKind::ConnectionReset | ErrorKind::BrokenPipe) => 0,
        Err(error) => panic!("nothing came: {error}"),
    }
}

/// A connection whose records the test makes itself. Its cipher is AES-128-GCM.
pub struct Raw {
    pub stream: TcpStream,
    seal: Protection,
    open: Protection,
    wire: Vec<u8>,
    /// Application data that came.
    pub plaintext: Vec<u8>,
}

pub const CHANGE_CIPHER_SPEC: u8 = 20;
pub const ALERT: u8 = 21;
pub const HANDSHAKE: u8 = 22;
pub const DATA: u8 = 23;

impl Raw {
    /// A record of this kind. In TLS 1.3 with so many bytes of padding.
    pub fn record(&mut self, kind: u8, payload: &[u8], padding: usize) -> Vec<u8> {
        self.seal.seal(kind, payload, padding)
    }

    /// Sends bytes as they are; whether all of it is taken is the other side's business.
    pub fn send_wire(&mut self, wire: impl AsRef<[u8]>) {
        let _ = self.stream.write_all(wire.as_ref());
    }

    /// The next record, or `None` at the end.
    pub fn next(&mut self) -> Option<(u8, Vec<u8>)> {
        loop {
            if let Some(length) = record_len(&self.wire) {
                let record: Vec<u8> = self.wire.drain(..length).collect();
                return Some(self.open.open(&record));
            }
            let mut chunk = [0; 65536];
            let count = receive(&mut self.stream, &mut chunk);
            if count == 0 {
                return None;
            }
            self.wire.extend_from_slice(&chunk[..count]);
        }
    }

    /// Receives application data until this has come.
    pub fn until(&mut self, mark: &[u8]) -> Vec<u8> {
        loop {
            if let Some(at) = self.plaintext.windows(mark.len()).position(|window| window == mark) {
                let rest = self.plaintext.split_off(at + mark.len());
                return std::mem::replace(&mut self.plaintext, rest);
            }
            match self.next() {
                Some((DATA, bytes)) => self.plaintext.extend(bytes),
                other => panic!("instead of application data: {other:?}"),
            }
        }
    }

    /// Waits for the end: the description of the alert before it, if there was one.
    pub fn last_alert(&mut self) -> Option<u8> {
        let mut alert = None;
        while let Some((kind, bytes)) = self.next() {
            match kind {
                ALERT => alert = Some(bytes[1]),
                DATA => self.plaintext.extend(bytes),
                _ => panic!("neither data nor an alert: {kind} {bytes:?}"),
            }
        }
        alert
    }
}

/// One direction's keys.
struct Protection {
    key: LessSafeKey,
    iv: [u8; 12],
    sequence: u64,
    is_newer: bool,
}

impl Protection {
    fn new((sequence, secrets): (u64, ConnectionTrafficSecrets), is_newer: bool) -> Self {
        let ConnectionTrafficSecrets::Aes128Gcm { key, iv } = secrets else { panic!("another cipher") };
        let key = LessSafeKey::new(UnboundKey::new(&AES_128_GCM, key.as_ref()).unwrap());
        Self { key, iv: iv.as_ref().try_into().unwrap(), sequence, is_newer }
    }

    fn seal(&mut self, kind: u8, payload: &[u8], padding: usize) -> Vec<u8> {
        let mut sealed = payload.to_vec();
        let record = if self.is_newer {
            sealed.push(kind);
            sealed.resize(sealed.len() + padding, 0);
            let head = head(DATA, sealed.len() + 16);
            self.key.seal_in_place_append_tag(self.nonce(), Aad::from(head), &mut sealed).unwrap();
            [&head[..], &sealed].concat()
        } else {
            let explicit = self.sequence.to_be_bytes();
            let about = self.about(kind, payload.len());
            self.key
                .seal_in_place_append_tag(self.explicit(explicit), Aad::from(about), &mut sealed)
                .unwrap();
            [&head(kind, 8 + sealed.len())[..], &explicit, &sealed].concat()
        };
        self.sequence += 1;
        record
    }

    fn open(&mut self, record: &[u8]) -> (u8, Vec<u8>) {
        let (head, sealed) = record.split_first_chunk::<5>().unwrap();
        let opened = if self.is_newer {
            let mut sealed = sealed.to_vec();
            let inner = self.key.open_in_place(self.nonce(), Aad::from(*head), &mut sealed).unwrap();
            let at = inner.iter().rposition(|byte| *byte != 0).unwrap();
            (inner[at], inner[..at].to_vec())
        } else {
            let (explicit, sealed) = sealed.split_first_chunk::<8>().unwrap();
            let about = self.about(head[0], sealed.len() - 16);
            let mut sealed = sealed.to_vec();
            let inner =
                self.key.open_in_place(self.explicit(*explicit), Aad::from(about), &mut sealed).unwrap();
            (head[0], inner.to_vec())
        };
        self.sequence += 1;
        opened
    }

    fn nonce(&self) -> Nonce {
        let mut nonce = self.iv;
        nonce[4..].iter_mut().zip(self.sequence.to_be_bytes()).for_each(|(byte, mixed)| *byte ^= mixed);
        Nonce::assume_unique_for_key(nonce)
    }

    fn explicit(&self, explicit: [u8; 8]) -> Nonce {
        let mut nonce = self.iv;
        nonce[4..].copy_from_slice(&explicit);
        Nonce::assume_unique_for_key(nonce)
    }

    fn about(&self, kind: u8, length: usize) -> [u8; 13] {
        let mut about = [0; 13];
        about[..8].copy_from_slice(&self.sequence.to_be_bytes());
        about[8..].copy_from_slice(&head(kind, length));
        about
    }
}

fn head(kind: u8, length: usize) -> [u8; 5] {
    let [high, low] = u16::try_from(length).unwrap().to_be_bytes();
    [kind, 3, 3, high, low]
}
