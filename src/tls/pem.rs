//! Files of certificates and keys: read with a bound, taken apart, and what is wrong with them in words. Nothing that is in
//! a file of keys gets into an error.

use std::{
    fs::File,
    io::{self, Read},
    path::{Path, PathBuf},
};

use memchr::memmem;
use rustls_pki_types::{
    CertificateDer, PrivateKeyDer, PrivatePkcs1KeyDer, PrivatePkcs8KeyDer, PrivateSec1KeyDer,
    pem::{self, SectionKind},
};
use zeroize::{Zeroize, Zeroizing};

/// Bytes of a file of certificates or keys. The largest bundles of authorities have a quarter of it.
pub const FILE_BYTES_MAX: usize = 1024 * 1024;

/// Which file of a pair is meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// The one with certificates.
    Certificate,
    /// The one with the key.
    Key,
}

/// Why a file cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("{}: {fault}", .file.display())]
pub struct FileError {
    /// The file.
    pub file: PathBuf,
    /// What is wrong with it.
    #[source]
    pub fault: Fault,
}

impl FileError {
    pub(super) fn new(file: &Path, fault: Fault) -> Self {
        Self { file: file.into(), fault }
    }
}

/// What is wrong with a file. Certificates are counted from 1.
#[derive(Debug, thiserror::Error)]
pub enum Fault {
    /// The system does not give it.
    #[error("the file cannot be read: {0}")]
    Unreadable(io::Error),
    /// A directory, a pipe or a device.
    #[error("this is not a regular file")]
    NotAFile,
    /// Beyond [`FILE_BYTES_MAX`].
    #[error("the file has more than {} KiB", FILE_BYTES_MAX / 1024)]
    TooLarge,
    /// Bytes where text should be.
    #[error("the file is DER, not PEM")]
    Der,
    /// PEM that is not well-formed.
    #[error("the file is not well-formed PEM: {0}")]
    Pem(&'static str),
    /// No certificate.
    #[error("there is no certificate in the file")]
    NoCertificate,
    /// No key.
    #[error("there is no private key in the file")]
    NoKey,
    /// More than one key.
    #[error("there are {0} private keys in the file")]
    SeveralKeys(usize),
    /// A key behind a password.
    #[error("the private key is encrypted")]
    EncryptedKey,
    /// A certificate that is none.
    #[error("certificate {place} in the file cannot be parsed")]
    Malformed {
        /// Which one.
        place: usize,
    },
    /// A certificate for a key that nothing here can use.
    #[error("the certificate is for {0}")]
    UnsupportedKey(String),
    /// A key that is damaged or of another type than the certificate's.
    #[error("the private key is damaged, or of a type that cannot be used")]
    UnusableKey,
    /// Another certificate's key.
    #[error("the private key does not belong to the certificate")]
    ForeignKey,
    /// The key's certificate is not the first.
    #[error("the private key belongs to certificate {place} in the file, which must be the first")]
    LeafNotFirst {
        /// Which one.
        place: usize,
    },
    /// A certificate that was not signed by the next one.
    #[error("certificate {place} in the file was not signed by certificate {}", .place + 1)]
    Unchained {
        /// The former of the two.
        place: usize,
    },
    /// An authority that cannot be one.
    #[error("certificate {place} in the file cannot be an authority")]
    NotAnAuthority {
        /// Which one.
        place: usize,
    },
}

impl Fault {
    /// What to do about it.
    pub fn hint(&self) -> Option<&'static str> {
        Some(match self {
            Self::Der => {
                "convert it: `openssl x509 -inform der -in FILE` or `openssl pkey -inform der -in FILE`"
            }
            Self::NoCertificate => "it holds text between `-----BEGIN CERTIFICATE-----` and its end",
            Self::NoKey => "it holds text between `-----BEGIN PRIVATE KEY-----` and its end",
            Self::SeveralKeys(_) => "leave the one that belongs to the certificate",
            Self::EncryptedKey => {
                "decrypt it with `openssl pkey -in FILE -out NEW`, and let no one else read the new file"
            }
            Self::UnsupportedKey(_) | Self::UnusableKey => {
                "what can be used is ECDSA on P-256, P-384 or P-521, Ed25519, and RSA of 2048 to 8192 bits"
            }
            Self::ForeignKey => {
                "`openssl x509 -pubkey -noout` and `openssl pkey -pubout` show the two public keys"
            }
            Self::LeafNotFirst { .. } | Self::Unchained { .. } => {
                "the certificate itself comes first, then each one that signed the one before it"
            }
            Self::Unreadable(_)
            | Self::NotAFile
            | Self::TooLarge
            | Self::Pem(_)
            | Self::Malformed { .. }
            | Self::NotAnAuthority { .. } => return None,
        })
    }
}

/// The bytes of a file, wiped when dropped.
pub(super) fn read(path: &Path) -> Result<Zeroizing<Vec<u8>>, Fault> {
    // Asked first: to open a pipe would wait for its other end.
    let about = std::fs::metadata(path).map_err(Fault::Unreadable)?;
    if !about.is_file() {
        return Err(Fault::NotAFile);
    }
    if about.len() > FILE_BYTES_MAX as u64 {
        return Err(Fault::TooLarge);
    }
    let file = File::open(path).map_err(Fault::Unreadable)?;
    // Large enough from the beginning, so that no copy is left behind when it grows.
    let mut bytes = Zeroizing::new(Vec::with_capacity(about.len() as usize + 64));
    file.take(FILE_BYTES_MAX as u64 + 1).read_to_end(&mut bytes).map_err(Fault::Unreadable)?;
    if bytes.len() > FILE_BYTES_MAX { Err(Fault::TooLarge) } else { Ok(bytes) }
}

/// All certificates in a text. At least one.
pub(super) fn certificates(text: &[u8]) -> Result<Vec<CertificateDer<'static>>, Fault> {
    let mut found = Vec::new();
    sections(text, |kind, der| {
        if kind == SectionKind::Certificate {
            found.push(CertificateDer::from(std::mem::take(der)));
        }
    })?;
    if found.is_empty() { Err(Fault::NoCertificate) } else { Ok(found) }
}

/// The one private key in a text.
pub(super) fn key(text: &[u8]) -> Result<PrivateKey, Fault> {
    let encrypted = [&b"-----BEGIN ENCRYPTED PRIVATE KEY-----"[..], b"Proc-Type: 4,ENCRYPTED"];
    if encrypted.iter().any(|mark| memmem::find(text, mark).is_some()) {
        return Err(Fault::EncryptedKey);
    }
    let mut found = Vec::new();
    sections(text, |kind, der| {
        let key = match kind {
            SectionKind::PrivateKey => PrivatePkcs8KeyDer::from(std::mem::take(der)).into(),
            SectionKind::RsaPrivateKey => PrivatePkcs1KeyDer::from(std::mem::take(der)).into(),
            SectionKind::EcPrivateKey => PrivateSec1KeyDer::from(std::mem::take(der)).into(),
            _ => return,
        };
        found.push(PrivateKey(key));
    })?;
    let count = found.len();
    match found.pop() {
        Some(key) if count == 1 => Ok(key),
        Some(_) => Err(Fault::SeveralKeys(count)),
        None => Err(Fault::NoKey),
    }
}

/// Hands each known section of a text to `take`; what is left of it is wiped.
fn sections(mut text: &[u8], mut take: impl FnMut(SectionKind, &mut Vec<u8>)) -> Result<(), Fault> {
    if matches!(text, [0x30, 0x80..=0x84, ..]) {
        return Err(Fault::Der);
    }
    loop {
        match pem::from_buf(&mut text) {
            Ok(Some((kind, mut der))) => {
                take(kind, &mut der);
                der.zeroize();
            }
            Ok(None) => return Ok(()),
            // The library's words may repeat what is in the file.
            Err(pem::Error::MissingSectionEnd { .. }) => return Err(Fault::Pem("a section has no end")),
            Err(pem::Error::IllegalSectionStart { .. }) => {
                return Err(Fault::Pem("a section has no beginning"));
            }
            Err(pem::Error::Base64Decode(_)) => return Err(Fault::Pem("a section is not base64")),
            Err(_) => return Err(Fault::Pem("a section cannot be read")),
        }
    }
}

/// A private key: never shown, and wiped when dropped.
pub(super) struct PrivateKey(PrivateKeyDer<'static>);

impl PrivateKey {
    pub(super) fn der(&self) -> &PrivateKeyDer<'static> {
        &self.0
    }
}

impl Drop for PrivateKey {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

impl std::fmt::Debug for PrivateKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("PrivateKey(…)")
    }
}
