//! Authorities: whose signature under a certificate is believed. From a file, or those that the system trusts.

use std::{path::Path, sync::Arc};

use aws_lc_rs::digest;
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::{CertificateDer, UnixTime};

use super::{
    certificate::{Concern, Validity, concerns_of, parse},
    pem::{self, Fault, FileError},
    provider,
};

/// Authorities from a file.
#[derive(Debug, Clone)]
pub struct Authorities {
    roots: Arc<RootCertStore>,
    validity: Vec<Validity>,
    digest: [u8; 32],
}

impl Authorities {
    /// Reads a file with the authorities' certificates.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn read(file: &Path) -> Result<Self, FileError> {
        let read = pem::read(file).and_then(|text| Self::from_pem(&text));
        read.map_err(|fault| FileError::new(file, fault))
    }

    /// The same from a text.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn from_pem(text: &[u8]) -> Result<Self, Fault> {
        let ders = pem::certificates(text)?;
        let mut roots = RootCertStore::empty();
        let mut validity = Vec::with_capacity(ders.len());
        let mut digest = digest::Context::new(&digest::SHA256);
        for (der, place) in ders.into_iter().zip(1..) {
            validity.push(Validity::of(&parse(&der, place)?));
            digest.update(&(der.len() as u64).to_be_bytes());
            digest.update(&der);
            roots.add(der).map_err(|_| Fault::NotAnAuthority { place })?;
        }
        let digest = digest.finish().as_ref().try_into().unwrap_or([0; 32]);
        Ok(Self { roots: Arc::new(roots), validity, digest })
    }

    /// For rustls to verify with.
    pub fn roots(&self) -> &Arc<RootCertStore> {
        &self.roots
    }

    /// Those that are not valid at the time `now`.
    pub fn concerns(&self, now: UnixTime) -> Vec<Concern> {
        concerns_of(&self.validity, now)
    }

    /// What tells these authorities from others.
    pub(super) fn digest(&self) -> &[u8; 32] {
        &self.digest
    }
}

/// The authorities that the system trusts, read when first asked for: where OpenSSL looks for them, `SSL_CERT_FILE` and
/// `SSL_CERT_DIR` included.
#[derive(Debug, Default)]
pub struct SystemRoots(Option<Result<Arc<RootCertStore>, String>>);

impl SystemRoots {
    /// # Errors
    /// Why there are none.
    pub fn get(&mut self) -> Result<Arc<RootCertStore>, String> {
        self.0.get_or_insert_with(Self::load).clone()
    }

    fn load() -> Result<Arc<RootCertStore>, String> {
        let found = rustls_native_certs::load_native_certs();
        let mut roots = RootCertStore::empty();
        // Old and odd ones are passed over, as everyone does.
        roots.add_parsable_certificates(found.certs.into_iter().map(CertificateDer::into_owned));
        match found.errors.first() {
            _ if !roots.is_empty() => Ok(Arc::new(roots)),
            Some(error) => Err(format!("the system's authorities cannot be read: {error}")),
            None => Err("the system has no authorities".into()),
        }
    }
}

/// What something is fetched with over TLS by the control plane, from whom these authorities, or the system's, vouch for.
///
/// # Errors
/// Why that cannot be.
pub fn fetching(ca: Option<&Path>) -> Result<ClientConfig, String> {
    let roots = match ca {
        Some(file) => Arc::clone(Authorities::read(file).map_err(|error| error.to_string())?.roots()),
        None => SystemRoots::default().get()?,
    };
    let config = ClientConfig::builder_with_provider(provider());
    let config = config.with_safe_default_protocol_versions().map_err(|error| error.to_string())?;
    Ok(config.with_root_certificates(roots).with_no_client_auth())
}
