//! Authorities and certificates for tests.

use std::sync::LazyLock;

use rcgen::{
    BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, PKCS_ECDSA_P256_SHA256,
    PKCS_RSA_SHA256, RsaKeySize, SignatureAlgorithm,
};

use crate::tls::{Authorities, Certificate};

/// A certificate's chain and its key, as PEM.
#[derive(Clone)]
pub(super) struct Pair {
    pub(super) cert: String,
    pub(super) key: String,
}

impl Pair {
    pub(super) fn read(&self) -> Certificate {
        Certificate::from_pem(self.cert.as_bytes(), self.key.as_bytes()).unwrap()
    }
}

/// An authority.
pub(super) struct Mint {
    issuer: Issuer<'static, KeyPair>,
    /// Its own certificate.
    pub(super) cert: String,
    /// Those between it and the root, the root left out.
    chain: String,
}

impl Mint {
    pub(super) fn root(name: &str) -> Self {
        let (params, key) = (authority(name), KeyPair::generate().unwrap());
        let cert = params.self_signed(&key).unwrap().pem();
        Self { issuer: Issuer::new(params, key), cert, chain: String::new() }
    }

    /// An authority below this one.
    pub(super) fn below(&self, name: &str) -> Self {
        let (params, key) = (authority(name), KeyPair::generate().unwrap());
        let cert = params.signed_by(&key, &self.issuer).unwrap().pem();
        let chain = format!("{cert}{}", self.chain);
        Self { issuer: Issuer::new(params, key), cert, chain }
    }

    pub(super) fn authorities(&self) -> Authorities {
        Authorities::from_pem(self.cert.as_bytes()).unwrap()
    }

    /// A certificate for names and addresses, with a key on P-256.
    pub(super) fn pair(&self, names: &[&str]) -> Pair {
        self.pair_of(names, &key(&PKCS_ECDSA_P256_SHA256), |_| {})
    }

    /// The same with an RSA key.
    pub(super) fn rsa(&self, names: &[&str]) -> Pair {
        self.pair_of(names, &RSA, |_| {})
    }

    pub(super) fn pair_of(
        &self,
        names: &[&str],
        key: &KeyPair,
        edit: impl FnOnce(&mut CertificateParams),
    ) -> Pair {
        let names: Vec<String> = names.iter().map(|name| (*name).into()).collect();
        let mut params = CertificateParams::new(names).unwrap();
        params.distinguished_name.push(DnType::CommonName, "leaf");
        edit(&mut params);
        let cert = params.signed_by(key, &self.issuer).unwrap().pem();
        Pair { cert: format!("{cert}{}", self.chain), key: key.serialize_pem() }
    }
}

fn authority(name: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params
}

pub(super) fn key(algorithm: &'static SignatureAlgorithm) -> KeyPair {
    KeyPair::generate_for(algorithm).unwrap()
}

/// One for all tests: they take long to make.
pub(super) static RSA: LazyLock<KeyPair> =
    LazyLock::new(|| KeyPair::generate_rsa_for(&PKCS_RSA_SHA256, RsaKeySize::_2048).unwrap());

/// A section of PEM.
pub(super) fn pem(label: &str, der: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut out = format!("-----BEGIN {label}-----\n");
    for bytes in der.chunks(3) {
        let group =
            bytes.iter().fold(0u32, |group, byte| group << 8 | u32::from(*byte)) << (8 * (3 - bytes.len()));
        let digits = (0..4).map(|at| char::from(DIGITS[(group >> (18 - 6 * at) & 63) as usize]));
        out.extend(digits.take(bytes.len() + 1));
        out.push_str(&"=".repeat(3 - bytes.len()));
    }
    out + &format!("\n-----END {label}-----\n")
}
