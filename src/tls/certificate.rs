//! A certificate with its chain and its key, read from files and checked once: whoever holds a [`Certificate`] can serve
//! with it. What only time makes wrong (expired, not yet valid) is no error but a concern: a gateway that starts at night
//! must not stay down for one name of many.

use std::{fmt, net::IpAddr, path::Path, sync::Arc};

use aws_lc_rs::digest;
use rustls::{
    crypto::aws_lc_rs::sign::any_supported_type,
    sign::{CertifiedKey, SigningKey},
};
use rustls_pki_types::{CertificateDer, UnixTime};
use x509_parser::{
    certificate::X509Certificate,
    error::X509Error,
    extensions::GeneralName,
    oid_registry::{OID_EC_P256, OID_NIST_EC_P384, OID_NIST_EC_P521, OID_SIG_ED25519},
    prelude::FromDer,
    public_key::PublicKey,
    x509::SubjectPublicKeyInfo,
};

use super::{
    pem::{self, Fault, FileError, Part, PrivateKey},
    subject,
};
use crate::clock::http_date;

/// Bits of an RSA key.
const RSA_BITS: std::ops::RangeInclusive<usize> = 2048..=8192;

/// A certificate that can be served: its chain is in order and its key is its own.
#[derive(Debug)]
pub struct Certificate {
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKey,
    facts: Facts,
    /// When each of the chain is valid.
    validity: Vec<Validity>,
}

/// What is known about a certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Facts {
    /// Its subject, as RFC 4514 writes it.
    pub subject: String,
    /// The DNS names it is for, in lower case, some perhaps with `*.` in front.
    pub names: Vec<Box<str>>,
    /// The addresses it is for.
    pub addresses: Vec<IpAddr>,
    /// When it begins to be valid, in Unix seconds.
    pub not_before: i64,
    /// The last second in which it is valid.
    pub not_after: i64,
    /// Its key's type.
    pub key: KeyType,
    /// The SHA-256 of its DER.
    pub fingerprint: [u8; 32],
    /// The same in hexadecimal digits.
    pub fingerprint_hex: Box<str>,
    /// The names and addresses that it is for, with commas between.
    pub all_names: Box<str>,
}

/// The type of a key. In order of preference: what costs the server least and what all can use first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum KeyType {
    /// ECDSA on P-256.
    EcdsaP256,
    /// ECDSA on P-384.
    EcdsaP384,
    /// ECDSA on P-521.
    EcdsaP521,
    /// Ed25519.
    Ed25519,
    /// RSA.
    Rsa,
}

impl fmt::Display for KeyType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::EcdsaP256 => "ECDSA P-256",
            Self::EcdsaP384 => "ECDSA P-384",
            Self::EcdsaP521 => "ECDSA P-521",
            Self::Ed25519 => "Ed25519",
            Self::Rsa => "RSA",
        })
    }
}

/// Why a pair of files is no certificate.
#[derive(Debug, thiserror::Error)]
#[error("{error}")]
pub struct PairError {
    /// The file and its fault.
    pub error: FileError,
    /// Which of the two it is.
    pub part: Part,
}

/// What is not wrong with a certificate but with the day, or with those who wanted it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Concern {
    /// It is no longer valid.
    Expired {
        /// Which one of the file, from 1.
        place: usize,
        /// Its last second.
        not_after: i64,
    },
    /// It is not yet valid.
    NotYetValid {
        /// Which one of the file, from 1.
        place: usize,
        /// Its first second.
        not_before: i64,
    },
    /// It names no host: clients have long ceased to look at the subject (RFC 9525 §2).
    Nameless,
}

impl fmt::Display for Concern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let which = |place: usize| match place {
            1 => "the certificate".to_owned(),
            place => format!("certificate {place} in the file"),
        };
        match self {
            Self::Expired { place, not_after } => {
                write!(f, "{} expired on {}", which(*place), date(*not_after))
            }
            Self::NotYetValid { place, not_before } => {
                write!(f, "{} is not valid before {}", which(*place), date(*not_before))
            }
            Self::Nameless => {
                f.write_str("the certificate is for no name: it has no subject alternative name")
            }
        }
    }
}

fn date(unix_secs: i64) -> String {
    String::from_utf8_lossy(&http_date(unix_secs.max(0) as u64)).into_owned()
}

impl Certificate {
    /// Reads and checks a certificate's file and its key's. `cert` holds the certificate and its chain in order; both may
    /// be the same file.
    ///
    /// # Errors
    /// All that is wrong; at most one error for each file.
    pub fn read(cert: &Path, key: &Path) -> Result<Self, Vec<PairError>> {
        let chain = pem::read(cert);
        let secret = pem::read(key);
        Self::checked(
            chain.and_then(|text| Chain::parse(pem::certificates(&text)?)),
            secret.and_then(|text| pem::key(&text)),
        )
        .map_err(|faults| {
            let of = |(part, fault): (Part, Fault)| {
                let file = if part == Part::Certificate { cert } else { key };
                PairError { error: FileError::new(file, fault), part }
            };
            faults.into_iter().map(of).collect()
        })
    }

    /// The same from texts instead of files.
    ///
    /// # Errors
    /// What is wrong with which of them.
    pub fn from_pem(cert: &[u8], key: &[u8]) -> Result<Self, Vec<(Part, Fault)>> {
        Self::checked(pem::certificates(cert).and_then(Chain::parse), pem::key(key))
    }

    fn checked(
        chain: Result<Chain, Fault>,
        key: Result<PrivateKey, Fault>,
    ) -> Result<Self, Vec<(Part, Fault)>> {
        let (Chain { ders, facts, validity }, key) = match (chain, key) {
            (Ok(chain), Ok(key)) => (chain, key),
            (chain, key) => {
                let of_chain = chain.err().map(|fault| (Part::Certificate, fault));
                return Err(of_chain.into_iter().chain(key.err().map(|fault| (Part::Key, fault))).collect());
            }
        };
        check_key(&ders, &key)?;
        in_order(&ders).map_err(|fault| vec![(Part::Certificate, fault)])?;
        Ok(Self { chain: ders, key, facts, validity })
    }

    /// What is known about it.
    pub fn facts(&self) -> &Facts {
        &self.facts
    }

    /// What is to say about it at the time `now`.
    pub fn concerns(&self, now: UnixTime) -> Vec<Concern> {
        let mut concerns = concerns_of(&self.validity, now);
        if self.facts.names.is_empty() && self.facts.addresses.is_empty() {
            concerns.push(Concern::Nameless);
        }
        concerns
    }

    /// For rustls to sign with: a copy with nothing shared. Keys of RSA have a lock inside, which cores must not share.
    pub(super) fn certified_key(&self) -> Result<Arc<CertifiedKey>, rustls::Error> {
        Ok(Arc::new(CertifiedKey::new(self.chain.clone(), any_supported_type(self.key.der())?)))
    }
}

/// When a certificate is valid, in Unix seconds, both ends included.
#[derive(Debug, Clone, Copy)]
pub(super) struct Validity {
    not_before: i64,
    not_after: i64,
}

impl Validity {
    pub(super) fn of(certificate: &X509Certificate<'_>) -> Self {
        let validity = certificate.validity();
        Self { not_before: validity.not_before.timestamp(), not_after: validity.not_after.timestamp() }
    }
}

/// Those of a file's certificates that are not valid at the time `now`.
pub(super) fn concerns_of(validity: &[Validity], now: UnixTime) -> Vec<Concern> {
    let now = i64::try_from(now.as_secs()).unwrap_or(i64::MAX);
    let concern = |(at, Validity { not_before, not_after }): (usize, &Validity)| match at + 1 {
        place if *not_after < now => Some(Concern::Expired { place, not_after: *not_after }),
        place if *not_before > now => Some(Concern::NotYetValid { place, not_before: *not_before }),
        _ => None,
    };
    validity.iter().enumerate().filter_map(concern).collect()
}

/// A certificate parsed; nothing may stand behind it.
pub(super) fn parse<'d>(der: &'d CertificateDer<'_>, place: usize) -> Result<X509Certificate<'d>, Fault> {
    match X509Certificate::from_der(der) {
        Ok(([], certificate)) => Ok(certificate),
        _ => Err(Fault::Malformed { place }),
    }
}

/// A chain whose first certificate is one that can be served, in whatever order the rest is.
struct Chain {
    ders: Vec<CertificateDer<'static>>,
    facts: Facts,
    validity: Vec<Validity>,
}

impl Chain {
    fn parse(ders: Vec<CertificateDer<'static>>) -> Result<Self, Fault> {
        let parsed = ders.iter().zip(1..).map(|(der, place)| parse(der, place));
        let parsed = parsed.collect::<Result<Vec<_>, _>>()?;
        let facts = Facts::of(&parsed[0], &ders[0])?;
        let validity = parsed.iter().map(Validity::of).collect();
        Ok(Self { ders, facts, validity })
    }
}

impl Facts {
    /// What is known about a certificate that a peer has shown.
    ///
    /// # Errors
    /// It cannot be parsed, or its key is of a type that is not known here.
    pub fn parse(der: &CertificateDer<'_>) -> Result<Self, Fault> {
        Self::of(&parse(der, 1)?, der)
    }

    fn of(certificate: &X509Certificate<'_>, der: &[u8]) -> Result<Self, Fault> {
        let malformed = |_| Fault::Malformed { place: 1 };
        let (mut names, mut addresses) = (Vec::new(), Vec::new());
        let others = certificate.subject_alternative_name().map_err(malformed)?;
        for name in others.iter().flat_map(|others| &others.value.general_names) {
            match name {
                GeneralName::DNSName(name) if is_name(name) => names.push(name.to_ascii_lowercase().into()),
                GeneralName::IPAddress(bytes) => addresses.extend(address(bytes)),
                _ => {}
            }
        }
        let Validity { not_before, not_after } = Validity::of(certificate);
        let digest = digest::digest(&digest::SHA256, der);
        let all_names = names.iter().map(ToString::to_string).chain(addresses.iter().map(IpAddr::to_string));
        Ok(Self {
            fingerprint_hex: digest.as_ref().iter().map(|byte| format!("{byte:02x}")).collect(),
            all_names: all_names.collect::<Vec<_>>().join(",").into(),
            subject: subject::text(certificate.subject()),
            names,
            addresses,
            not_before,
            not_after,
            key: key_type(certificate.public_key())?,
            fingerprint: digest.as_ref().try_into().unwrap_or([0; 32]),
        })
    }
}

/// Whether it can be the name of a host, and one name only wherever names stand in a list.
fn is_name(name: &str) -> bool {
    name.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'*'))
}

fn address(bytes: &[u8]) -> Option<IpAddr> {
    <[u8; 4]>::try_from(bytes)
        .map(IpAddr::from)
        .or_else(|_| <[u8; 16]>::try_from(bytes).map(IpAddr::from))
        .ok()
}

fn key_type(key: &SubjectPublicKeyInfo<'_>) -> Result<KeyType, Fault> {
    let unsupported = |what: &str| Err(Fault::UnsupportedKey(what.into()));
    if key.algorithm.algorithm == OID_SIG_ED25519 {
        return Ok(KeyType::Ed25519);
    }
    match key.parsed() {
        Ok(PublicKey::RSA(rsa)) => {
            let zeros = rsa.modulus.iter().take_while(|byte| **byte == 0).count();
            let high = rsa.modulus.get(zeros).map_or(0, |byte| byte.leading_zeros() as usize);
            match ((rsa.modulus.len() - zeros) * 8).saturating_sub(high) {
                bits if RSA_BITS.contains(&bits) => Ok(KeyType::Rsa),
                bits => unsupported(&format!("an RSA key of {bits} bits")),
            }
        }
        Ok(PublicKey::EC(_)) => match key.algorithm.parameters.as_ref().and_then(|curve| curve.as_oid().ok())
        {
            Some(curve) if curve == OID_EC_P256 => Ok(KeyType::EcdsaP256),
            Some(curve) if curve == OID_NIST_EC_P384 => Ok(KeyType::EcdsaP384),
            Some(curve) if curve == OID_NIST_EC_P521 => Ok(KeyType::EcdsaP521),
            _ => unsupported("a key on a curve that cannot be used"),
        },
        Ok(PublicKey::DSA(_)) => unsupported("a DSA key"),
        _ => unsupported("a key of a type that cannot be used"),
    }
}

/// Whether the key is the first certificate's.
fn check_key(chain: &[CertificateDer<'_>], key: &PrivateKey) -> Result<(), Vec<(Part, Fault)>> {
    let unusable = || vec![(Part::Key, Fault::UnusableKey)];
    let key: Arc<dyn SigningKey> = any_supported_type(key.der()).map_err(|_| unusable())?;
    let public = key.public_key().ok_or_else(unusable)?;
    let (_, public) = SubjectPublicKeyInfo::from_der(&public).map_err(|_| unusable())?;
    // The keys' bits alone: what is around them may be written in more than one way.
    let is_own = |(der, place): (&CertificateDer<'_>, usize)| {
        parse(der, place)
            .is_ok_and(|one| one.public_key().subject_public_key.data == public.subject_public_key.data)
    };
    match chain.iter().zip(1..).position(is_own) {
        Some(0) => Ok(()),
        Some(at) => Err(vec![(Part::Certificate, Fault::LeafNotFirst { place: at + 1 })]),
        None => Err(vec![(Part::Key, Fault::ForeignKey)]),
    }
}

/// Whether each certificate was signed by the next one.
fn in_order(chain: &[CertificateDer<'_>]) -> Result<(), Fault> {
    for (at, pair) in chain.windows(2).enumerate() {
        let (one, next) = (parse(&pair[0], at + 1)?, parse(&pair[1], at + 2)?);
        let is_named = one.issuer().as_raw() == next.subject().as_raw();
        // What cannot be verified here (SHA-512 with P-521) is left to the clients.
        let is_signed = || match one.verify_signature(Some(next.public_key())) {
            Ok(()) | Err(X509Error::SignatureUnsupportedAlgorithm) => true,
            Err(_) => false,
        };
        if !is_named || !is_signed() {
            return Err(Fault::Unchained { place: at + 1 });
        }
    }
    Ok(())
}
