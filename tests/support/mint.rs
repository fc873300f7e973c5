//! Authorities and certificates for tests, and the files that a gateway reads them from.

use std::{
    net::IpAddr,
    sync::{Arc, LazyLock},
    time::{Duration, SystemTime},
};

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, PKCS_ECDSA_P256_SHA256, PKCS_RSA_SHA256, RsaKeySize, SanType, date_time_ymd,
};
use rustls::RootCertStore;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};

use super::tempdir::TempDir;

/// An authority.
pub struct Mint {
    issuer: Issuer<'static, KeyPair>,
    /// Its own certificate, as PEM.
    pub cert: String,
}

/// A certificate and its key, as PEM.
#[derive(Clone)]
pub struct Pair {
    pub cert: String,
    pub key: String,
}

impl Mint {
    pub fn new(name: &str) -> Self {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let key = KeyPair::generate().unwrap();
        let cert = params.self_signed(&key).unwrap().pem();
        Self { issuer: Issuer::new(params, key), cert }
    }

    /// A certificate for names and addresses, with a key on P-256.
    pub fn pair(&self, names: &[&str]) -> Pair {
        self.pair_of(names, &KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap(), |_| {})
    }

    /// The same with an RSA key.
    pub fn rsa(&self, names: &[&str]) -> Pair {
        self.pair_of(names, &RSA, |_| {})
    }

    /// The same, which nobody should believe any more.
    pub fn expired(&self, names: &[&str]) -> Pair {
        self.pair_of(names, &KeyPair::generate().unwrap(), |params| {
            params.not_before = date_time_ymd(2001, 1, 1);
            params.not_after = date_time_ymd(2002, 1, 1);
        })
    }

    /// The same as public authorities give them: for a few weeks, and for servers only.
    pub fn short_lived(&self, names: &[&str]) -> Pair {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
        let day = Duration::from_secs(24 * 3600);
        self.pair_of(names, &KeyPair::generate().unwrap(), |params| {
            params.not_before = date_time_ymd(1970, 1, 1) + (now - day);
            params.not_after = date_time_ymd(1970, 1, 1) + (now + 60 * day);
            params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
            params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
            params.use_authority_key_identifier_extension = true;
        })
    }

    /// For someone of this common name, which is also in a field of its own.
    pub fn person(&self, common_name: &str, names: &[&str]) -> Pair {
        self.pair_of(names, &KeyPair::generate().unwrap(), |params| {
            params.distinguished_name.push(DnType::OrganizationName, "people");
            params.distinguished_name.push(DnType::CommonName, common_name);
        })
    }

    fn pair_of(&self, names: &[&str], key: &KeyPair, edit: impl FnOnce(&mut CertificateParams)) -> Pair {
        let mut params = CertificateParams::default();
        params.subject_alt_names = names
            .iter()
            .map(|name| match name.parse::<IpAddr>() {
                Ok(address) => SanType::IpAddress(address),
                Err(_) => SanType::DnsName((*name).try_into().unwrap()),
            })
            .collect();
        params.distinguished_name.push(DnType::CommonName, "leaf");
        edit(&mut params);
        Pair { cert: params.signed_by(key, &self.issuer).unwrap().pem(), key: key.serialize_pem() }
    }

    /// What believes it, and no one else.
    pub fn roots(&self) -> Arc<RootCertStore> {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(self.cert.as_bytes()).unwrap()).unwrap();
        Arc::new(roots)
    }
}

impl Pair {
    pub fn chain(&self) -> Vec<CertificateDer<'static>> {
        CertificateDer::pem_slice_iter(self.cert.as_bytes()).map(Result::unwrap).collect()
    }

    /// The certificate itself.
    pub fn leaf(&self) -> CertificateDer<'static> {
        self.chain().remove(0)
    }

    pub fn private_key(&self) -> PrivateKeyDer<'static> {
        PrivateKeyDer::from_pem_slice(self.key.as_bytes()).unwrap()
    }
}

/// One for all tests: they take long to make.
static RSA: LazyLock<KeyPair> =
    LazyLock::new(|| KeyPair::generate_rsa_for(&PKCS_RSA_SHA256, RsaKeySize::_2048).unwrap());

/// A directory with what a gateway reads.
pub struct Files(TempDir);

impl Files {
    pub fn new() -> Self {
        Self(TempDir::new())
    }

    /// Writes a file as a whole, in place of what is there, and gives its path.
    pub fn write(&self, name: &str, text: &str) -> String {
        let path = self.0.path().join(name);
        let new = self.0.path().join(format!("{name}.new"));
        std::fs::write(&new, text).unwrap();
        std::fs::rename(&new, &path).unwrap();
        path.to_str().unwrap().to_owned()
    }

    /// Writes a certificate and its key, and gives what the configuration says of them: `{ cert = "…", key = "…" }`.
    pub fn pair(&self, name: &str, pair: &Pair) -> String {
        let cert = self.write(&format!("{name}.crt"), &pair.cert);
        let key = self.write(&format!("{name}.key"), &pair.key);
        format!("{{ cert = \"{cert}\", key = \"{key}\" }}")
    }
}
