//! Keys and algorithms of JSON Object Signing (RFC 7518): which there are, how they are written, and which goes with which.

use rustls_pki_types::{SubjectPublicKeyInfoDer, pem::PemObject};
use x509_parser::{prelude::FromDer, public_key::PublicKey, x509::SubjectPublicKeyInfo};
use zeroize::Zeroizing;

/// How tokens are signed. `none` is no algorithm.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Algorithm {
    /// HMAC with SHA-256.
    Hs256,
    /// HMAC with SHA-384.
    Hs384,
    /// HMAC with SHA-512.
    Hs512,
    /// RSASSA-PKCS1-v1_5 with SHA-256.
    Rs256,
    /// RSASSA-PKCS1-v1_5 with SHA-384.
    Rs384,
    /// RSASSA-PKCS1-v1_5 with SHA-512.
    Rs512,
    /// RSASSA-PSS with SHA-256.
    Ps256,
    /// RSASSA-PSS with SHA-384.
    Ps384,
    /// RSASSA-PSS with SHA-512.
    Ps512,
    /// ECDSA over P-256 with SHA-256.
    Es256,
    /// ECDSA over P-384 with SHA-384.
    Es384,
    /// Ed25519 (RFC 8037).
    EdDsa,
}

impl Algorithm {
    /// All, with their names.
    pub const ALL: [(&str, Self); 12] = [
        ("HS256", Self::Hs256),
        ("HS384", Self::Hs384),
        ("HS512", Self::Hs512),
        ("RS256", Self::Rs256),
        ("RS384", Self::Rs384),
        ("RS512", Self::Rs512),
        ("PS256", Self::Ps256),
        ("PS384", Self::Ps384),
        ("PS512", Self::Ps512),
        ("ES256", Self::Es256),
        ("ES384", Self::Es384),
        ("EdDSA", Self::EdDsa),
    ];

    /// The one of this name.
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.iter().find(|(known, _)| *known == name).map(|(_, algorithm)| *algorithm)
    }

    /// Whether keys like this one are for it. A key of one family is never used for another.
    pub fn is_of(self, key: &Material) -> bool {
        match self {
            Self::Hs256 | Self::Hs384 | Self::Hs512 => matches!(key, Material::Secret(_)),
            Self::Rs256 | Self::Rs384 | Self::Rs512 | Self::Ps256 | Self::Ps384 | Self::Ps512 => {
                matches!(key, Material::Rsa(_))
            }
            Self::Es256 => matches!(key, Material::P256(_)),
            Self::Es384 => matches!(key, Material::P384(_)),
            Self::EdDsa => matches!(key, Material::Ed25519(_)),
        }
    }
}

/// A secret that two sides share. Not in `Debug`, and wiped when it goes.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(Zeroizing<Box<[u8]>>);

impl Secret {
    /// Its bytes.
    pub fn bytes(&self) -> &[u8] {
        &self.0
    }
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Secret(..)")
    }
}

/// What signatures are verified with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Material {
    /// For HMAC.
    Secret(Secret),
    /// An RSA key (RFC 8017 §A.1.1).
    Rsa(Box<[u8]>),
    /// A point on P-256, uncompressed.
    P256(Box<[u8]>),
    /// A point on P-384, uncompressed.
    P384(Box<[u8]>),
    /// The 32 bytes of RFC 8032.
    Ed25519(Box<[u8]>),
}

/// Bytes of a secret, at least: no shorter than what the weakest HMAC puts out (RFC 7518 §3.2).
pub const SECRET_BYTES_MIN: usize = 32;

/// Bits of an RSA key.
const RSA_BITS: std::ops::RangeInclusive<usize> = 2048..=8192;

/// An element of DER (X.690 §8.1).
fn element(tag: u8, content: &[u8]) -> Vec<u8> {
    let len = content.len() as u32;
    let digits = len.to_be_bytes();
    let digits = &digits[len.leading_zeros() as usize / 8..];
    let mut element = vec![tag];
    if len < 0x80 {
        element.push(len as u8);
    } else {
        element.push(0x80 | digits.len() as u8);
        element.extend_from_slice(digits);
    }
    element.extend_from_slice(content);
    element
}

/// A whole number, above 0, in DER: its first bit is its sign.
fn integer(number: &[u8]) -> Vec<u8> {
    let sign: &[u8] = if number[0] & 0x80 != 0 { &[0] } else { &[] };
    element(2, &[sign, number].concat())
}

const OID_ED25519: &str = "1.3.101.112";
const OID_P256: &str = "1.2.840.10045.3.1.7";
const OID_P384: &str = "1.3.132.0.34";

impl Material {
    /// A secret, if it is long enough.
    pub fn secret(bytes: &[u8]) -> Option<Self> {
        (bytes.len() >= SECRET_BYTES_MIN).then(|| Self::Secret(Secret(Zeroizing::new(bytes.into()))))
    }

    /// An RSA key by its modulus and its exponent, both without a sign (RFC 7518 §6.3.1).
    pub fn rsa(modulus: &[u8], exponent: &[u8]) -> Option<Self> {
        let trimmed =
            |number: &[u8]| number.iter().position(|byte| *byte != 0).map(|at| number[at..].to_vec());
        let (modulus, exponent) = (trimmed(modulus)?, trimmed(exponent)?);
        let bits = modulus.len() * 8 - modulus[0].leading_zeros() as usize;
        if !RSA_BITS.contains(&bits) || exponent.len() > 8 {
            return None;
        }
        let integers = [integer(&modulus), integer(&exponent)].concat();
        Some(Self::Rsa(element(0x30, &integers).into()))
    }

    /// A public key in PEM (`BEGIN PUBLIC KEY`).
    ///
    /// # Errors
    /// What is wrong with it, to be shown behind the key's name.
    pub fn public(pem: &str) -> Result<Self, &'static str> {
        let der = SubjectPublicKeyInfoDer::from_pem_slice(pem.as_bytes())
            .map_err(|_| "is no public key in PEM (`-----BEGIN PUBLIC KEY-----`)")?;
        let (rest, info) =
            SubjectPublicKeyInfo::from_der(&der).map_err(|_| "cannot be read: its DER is broken")?;
        if !rest.is_empty() {
            return Err("cannot be read: its DER is broken");
        }
        let bytes: Box<[u8]> = info.subject_public_key.data.as_ref().into();
        if info.algorithm.algorithm.to_id_string() == OID_ED25519 {
            return Ok(Self::Ed25519(bytes));
        }
        match info.parsed() {
            Ok(PublicKey::RSA(key)) if RSA_BITS.contains(&key.key_size()) => Ok(Self::Rsa(bytes)),
            Ok(PublicKey::RSA(_)) => Err("is an RSA key of fewer than 2048 or more than 8192 bits"),
            Ok(PublicKey::EC(_)) => {
                let curve = info.algorithm.parameters.as_ref().and_then(|curve| curve.as_oid().ok());
                match curve.map(|curve| curve.to_id_string()).as_deref() {
                    Some(OID_P256) => Ok(Self::P256(bytes)),
                    Some(OID_P384) => Ok(Self::P384(bytes)),
                    _ => Err("is on a curve that is neither P-256 nor P-384"),
                }
            }
            _ => Err("is of a kind that is not known: there are RSA, P-256, P-384 and Ed25519"),
        }
    }
}

/// A key, and the name that tokens have for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Key {
    /// `kid`; `None`: it is tried for every token.
    pub id: Option<Box<str>>,
    /// The one algorithm that it is for, if that is said.
    pub algorithm: Option<Algorithm>,
    /// What signatures are verified with.
    pub material: Material,
}

#[cfg(test)]
mod tests {
    use rcgen::{
        KeyPair, PKCS_ECDSA_P256_SHA256, PKCS_ECDSA_P384_SHA384, PKCS_ECDSA_P521_SHA512, PKCS_ED25519,
        PKCS_RSA_SHA256, PublicKeyData,
    };

    use super::*;

    fn pem(algorithm: &'static rcgen::SignatureAlgorithm) -> String {
        KeyPair::generate_for(algorithm).unwrap().public_key_pem()
    }

    #[test]
    fn public_keys_are_of_one_family() {
        for (algorithm, ours) in [
            (&PKCS_ECDSA_P256_SHA256, &[Algorithm::Es256][..]),
            (&PKCS_ECDSA_P384_SHA384, &[Algorithm::Es384]),
            (&PKCS_ED25519, &[Algorithm::EdDsa]),
            (
                &PKCS_RSA_SHA256,
                &[
                    Algorithm::Rs256,
                    Algorithm::Rs384,
                    Algorithm::Rs512,
                    Algorithm::Ps256,
                    Algorithm::Ps384,
                    Algorithm::Ps512,
                ],
            ),
        ] {
            let key = Material::public(&pem(algorithm)).unwrap();
            let found: Vec<_> =
                Algorithm::ALL.iter().map(|(_, one)| *one).filter(|one| one.is_of(&key)).collect();
            assert_eq!(found, ours);
        }
        assert!(
            Material::public(&pem(&PKCS_ECDSA_P521_SHA512)).unwrap_err().contains("neither P-256 nor P-384")
        );
    }

    /// The same key, as PEM and by its numbers.
    #[test]
    fn rsa_by_its_numbers() {
        let pair = KeyPair::generate_for(&PKCS_RSA_SHA256).unwrap();
        let spki = pair.subject_public_key_info();
        let (_, info) = SubjectPublicKeyInfo::from_der(&spki).unwrap();
        let Ok(PublicKey::RSA(key)) = info.parsed() else { panic!("it is RSA") };
        let by_pem = Material::public(&pair.public_key_pem()).unwrap();
        assert_eq!(Material::rsa(key.modulus, key.exponent), Some(by_pem));
        assert_eq!(Material::rsa(&key.modulus[..200], key.exponent), None);
        assert_eq!(Material::rsa(key.modulus, &[]), None);
        assert_eq!(Material::rsa(key.modulus, &[1; 9]), None);
    }

    #[test]
    fn what_is_no_public_key_is_refused() {
        let pair = KeyPair::generate_for(&PKCS_ED25519).unwrap();
        let public = pair.public_key_pem();
        for wrong in ["", "text", &pair.serialize_pem(), &public.replace("PUBLIC", "RSA PUBLIC")] {
            assert!(Material::public(wrong).unwrap_err().starts_with("is no public key in PEM"), "{wrong}");
        }
        let cut = &pair.subject_public_key_info()[..20];
        let base64 = base64::Engine::encode(&base64::engine::general_purpose::STANDARD, cut);
        let broken = format!("-----BEGIN PUBLIC KEY-----\n{base64}\n-----END PUBLIC KEY-----\n");
        assert!(Material::public(&broken).unwrap_err().contains("DER is broken"));
    }

    #[test]
    fn secrets_are_long_and_not_shown() {
        assert_eq!(Material::secret(&[1; SECRET_BYTES_MIN - 1]), None);
        let secret = Material::secret(&[b'x'; SECRET_BYTES_MIN]).unwrap();
        assert_eq!(format!("{secret:?}"), "Secret(Secret(..))");
    }

    #[test]
    fn algorithms_have_names() {
        for (name, algorithm) in Algorithm::ALL {
            assert_eq!(Algorithm::parse(name), Some(algorithm));
        }
        for name in ["", "none", "None", "es256", "ES512", "HS256 "] {
            assert_eq!(Algorithm::parse(name), None, "{name}");
        }
    }
}
