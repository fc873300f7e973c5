//! Session tickets (RFC 5077, RFC 8446 §4.6.1): what a server would have to remember about a session, encrypted and left
//! with the client. Every core has the same keys, so a client may come back to any of them, and none asks another.
//!
//! The control plane makes the keys, and every [`TICKET_SECONDS`] the next generation ([`TicketKeys::rotated`]), from which
//! each core gets a new configuration. Nothing changes in place, so nothing is locked. A key opens tickets for two
//! generations and is then gone, which bounds what a stolen one can read.

use std::fmt;

use aws_lc_rs::{
    aead::{AES_256_GCM_SIV, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey},
    rand,
};
use rustls::server::ProducesTickets;
use zeroize::{Zeroize, Zeroizing};

/// Seconds that a ticket is good for, and after which keys are to be rotated: the ticket that was the last of its key is
/// then opened by the previous one for just as long.
pub const TICKET_SECONDS: u32 = 6 * 3600;

/// Bytes of a ticket. It holds the client's certificates, if it has shown some; who has so many gets no ticket.
pub const TICKET_BYTES_MAX: usize = 16 * 1024;

const NAME_BYTES: usize = 16;
const SECRET_BYTES: usize = 32;
const TAG_BYTES: usize = 16;

/// The keys of two generations. It goes from the control plane to every core.
#[derive(Debug, Clone)]
pub struct TicketKeys {
    current: TicketKey,
    previous: Option<TicketKey>,
}

#[derive(Clone)]
struct TicketKey {
    /// Goes in front of each of its tickets.
    name: [u8; NAME_BYTES],
    secret: Zeroizing<[u8; SECRET_BYTES]>,
}

impl TicketKeys {
    /// A first generation.
    ///
    /// # Errors
    /// The system gives no random bytes.
    pub fn generate() -> Result<Self, rustls::Error> {
        Ok(Self { current: TicketKey::generate()?, previous: None })
    }

    /// The next generation. Tickets of this one are still opened, those of the one before are not.
    ///
    /// # Errors
    /// The system gives no random bytes.
    pub fn rotated(&self) -> Result<Self, rustls::Error> {
        Ok(Self { current: TicketKey::generate()?, previous: Some(self.current.clone()) })
    }
}

impl TicketKey {
    fn generate() -> Result<Self, rustls::Error> {
        let mut key = Self { name: [0; NAME_BYTES], secret: Zeroizing::new([0; SECRET_BYTES]) };
        let filled = rand::fill(&mut key.name).and_then(|()| rand::fill(&mut *key.secret));
        filled.map(|()| key).map_err(|_| rustls::Error::FailedToGetRandomBytes)
    }
}

impl fmt::Debug for TicketKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TicketKey(…)")
    }
}

/// Seals and opens tickets. One for each core.
///
/// A ticket is its key's name, a nonce, and the session encrypted with AES-256-GCM-SIV (RFC 8452). Plain GCM would break if
/// a random nonce ever came twice, and all cores draw from the same 96 bits for hours; GCM-SIV would at worst show that two
/// tickets are the same.
pub struct Ticketer {
    /// The current one first.
    keys: Vec<([u8; NAME_BYTES], LessSafeKey)>,
    scope: [u8; 32],
}

impl Ticketer {
    /// Tickets for listeners of one `scope`: others' are not opened. Who resumes a session is not asked for a certificate
    /// again, so what a listener demands of its clients is part of its scope.
    ///
    /// # Errors
    /// The cipher is not to be had.
    pub fn new(keys: &TicketKeys, scope: [u8; 32]) -> Result<Self, rustls::Error> {
        let cipher = |key: &TicketKey| match UnboundKey::new(&AES_256_GCM_SIV, &*key.secret) {
            Ok(cipher) => Ok((key.name, LessSafeKey::new(cipher))),
            Err(_) => Err(rustls::Error::General("the cipher of tickets is not to be had".into())),
        };
        let keys =
            std::iter::once(&keys.current).chain(&keys.previous).map(cipher).collect::<Result<_, _>>()?;
        Ok(Self { keys, scope })
    }

    /// A session as a ticket. `None`: it is too large, or there is no randomness.
    pub fn seal(&self, session: &[u8]) -> Option<Vec<u8>> {
        let length = NAME_BYTES + NONCE_LEN + session.len() + TAG_BYTES;
        let (name, key) = self.keys.first().filter(|_| length <= TICKET_BYTES_MAX)?;
        let mut nonce = [0; NONCE_LEN];
        rand::fill(&mut nonce).ok()?;
        let mut ticket = Vec::with_capacity(length);
        ticket.extend_from_slice(name);
        ticket.extend_from_slice(&nonce);
        ticket.extend_from_slice(session);
        let (_, sealed) = ticket.split_at_mut(NAME_BYTES + NONCE_LEN);
        let sealing =
            key.seal_in_place_separate_tag(Nonce::assume_unique_for_key(nonce), self.about(name), sealed);
        let Ok(tag) = sealing else {
            ticket.zeroize();
            return None;
        };
        ticket.extend_from_slice(tag.as_ref());
        Some(ticket)
    }

    /// The session in a ticket. `None`: it is none of ours, or no longer.
    pub fn open(&self, ticket: &[u8]) -> Option<Vec<u8>> {
        if ticket.len() > TICKET_BYTES_MAX {
            return None;
        }
        let (name, rest) = ticket.split_first_chunk::<NAME_BYTES>()?;
        let (nonce, sealed) = rest.split_first_chunk::<NONCE_LEN>()?;
        let (_, key) = self.keys.iter().find(|(own, _)| own == name)?;
        let mut session = sealed.to_vec();
        let opened =
            key.open_in_place(Nonce::assume_unique_for_key(*nonce), self.about(name), &mut session).ok()?;
        let length = opened.len();
        session.truncate(length);
        Some(session)
    }

    /// What a ticket is bound to besides its key.
    fn about(&self, name: &[u8; NAME_BYTES]) -> Aad<[u8; NAME_BYTES + 32]> {
        let mut about = [0; NAME_BYTES + 32];
        about[..NAME_BYTES].copy_from_slice(name);
        about[NAME_BYTES..].copy_from_slice(&self.scope);
        Aad::from(about)
    }
}

impl ProducesTickets for Ticketer {
    fn enabled(&self) -> bool {
        true
    }

    fn lifetime(&self) -> u32 {
        TICKET_SECONDS
    }

    fn encrypt(&self, plain: &[u8]) -> Option<Vec<u8>> {
        self.seal(plain)
    }

    fn decrypt(&self, cipher: &[u8]) -> Option<Vec<u8>> {
        self.open(cipher)
    }
}

impl fmt::Debug for Ticketer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Ticketer(…)")
    }
}
