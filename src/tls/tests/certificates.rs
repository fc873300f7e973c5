//! What is said about files of certificates and keys.

use std::{fs, path::PathBuf};

use proptest::prelude::*;
use rcgen::{
    CertificateParams, PKCS_ECDSA_P256_SHA256, PKCS_ECDSA_P384_SHA384, PKCS_ECDSA_P521_SHA512, PKCS_ED25519,
    date_time_ymd,
};
use rustls_pki_types::UnixTime;

use super::mint::{Mint, Pair, RSA, key, pem};
use crate::tls::{Authorities, Certificate, Concern, FILE_BYTES_MAX, Fault, KeyType, Part};

/// The one thing that is wrong with a pair.
fn fault(pair: &Pair) -> (Part, String) {
    let faults = Certificate::from_pem(pair.cert.as_bytes(), pair.key.as_bytes()).unwrap_err();
    let [(part, fault)] = &faults[..] else { panic!("{faults:?}") };
    (*part, fault.to_string())
}

#[test]
fn facts() {
    let root = Mint::root("root");
    let pair = root.pair(&["Example.COM", "*.example.com", "10.0.0.1", "::1"]);
    let certificate = pair.read();
    let facts = certificate.facts();
    assert_eq!(facts.names, ["example.com".into(), Box::<str>::from("*.example.com")]);
    assert_eq!(facts.addresses, ["10.0.0.1".parse::<std::net::IpAddr>().unwrap(), "::1".parse().unwrap()]);
    assert!(facts.subject.contains("CN=leaf"), "{}", facts.subject);
    assert_eq!((facts.not_before, facts.not_after), (157_766_400, 67_090_118_400));
    assert_eq!(facts.fingerprint_hex.len(), 64);
    assert_eq!(certificate.concerns(UnixTime::since_unix_epoch(std::time::Duration::from_secs(1 << 31))), []);
}

#[test]
fn every_type_of_key_is_recognised() {
    let root = Mint::root("root");
    for (algorithm, expected) in [
        (&PKCS_ECDSA_P256_SHA256, KeyType::EcdsaP256),
        (&PKCS_ECDSA_P384_SHA384, KeyType::EcdsaP384),
        (&PKCS_ECDSA_P521_SHA512, KeyType::EcdsaP521),
        (&PKCS_ED25519, KeyType::Ed25519),
    ] {
        assert_eq!(root.pair_of(&["a"], &key(algorithm), |_| {}).read().facts().key, expected);
    }
    assert_eq!(root.rsa(&["a"]).read().facts().key, KeyType::Rsa);
}

#[test]
fn keys_in_their_older_forms() {
    let root = Mint::root("root");
    // Where PKCS#8 holds them.
    let ec = key(&PKCS_ECDSA_P256_SHA256);
    let ec_pair = root.pair_of(&["a"], &ec, |_| {});
    let sec1 = pem("EC PRIVATE KEY", &ec.serialized_der()[29..]);
    Pair { key: sec1.clone(), ..ec_pair.clone() }.read();
    let pkcs1 = pem("RSA PRIVATE KEY", &RSA.serialized_der()[26..]);
    Pair { key: pkcs1, ..root.rsa(&["a"]) }.read();
    // `openssl ecparam -genkey` puts the curve in front.
    let parameters = pem("EC PARAMETERS", &[6, 8, 0x2a, 0x86, 0x48, 0xce, 0x3d, 3, 1, 7]);
    Pair { key: parameters + &sec1, ..ec_pair }.read();
}

#[test]
fn one_file_may_hold_both() {
    let pair = Mint::root("root").below("between").pair(&["a"]);
    for both in [format!("{}{}", pair.cert, pair.key), format!("text\n{}\n{}", pair.key, pair.cert)] {
        Pair { cert: both.clone(), key: both }.read();
    }
}

#[test]
fn chains_are_in_order() {
    let root = Mint::root("root");
    let between = root.below("between");
    let lower = between.below("lower");
    let pair = lower.pair(&["a"]);
    pair.read();
    // With the root or without.
    Pair { cert: format!("{}{}", pair.cert, root.cert), ..pair.clone() }.read();

    let sections: Vec<String> =
        pair.cert.split_inclusive("-----END CERTIFICATE-----\n").map(str::to_owned).collect();
    let [leaf, lower, between] = &sections[..] else { panic!("{}", sections.len()) };
    let with = |cert: String| fault(&Pair { cert, ..pair.clone() });
    assert_eq!(
        with(format!("{leaf}{between}{lower}")),
        (Part::Certificate, "certificate 1 in the file was not signed by certificate 2".into())
    );
    assert_eq!(
        with(format!("{leaf}{lower}{}", root.cert)),
        (Part::Certificate, "certificate 2 in the file was not signed by certificate 3".into())
    );
    assert_eq!(
        with(format!("{between}{lower}{leaf}")),
        (
            Part::Certificate,
            "the private key belongs to certificate 3 in the file, which must be the first".into()
        )
    );
    // The right name, but another key.
    let impostor = Mint::root("root").below("between").below("lower");
    assert_eq!(
        with(format!("{leaf}{}", impostor.cert)),
        (Part::Certificate, "certificate 1 in the file was not signed by certificate 2".into())
    );
}

#[test]
fn what_is_wrong_is_named() {
    let root = Mint::root("root");
    let pair = root.pair(&["a"]);
    let other = root.pair(&["a"]);
    let with_cert = |cert: &str| fault(&Pair { cert: cert.into(), ..pair.clone() });
    let with_key = |key: &str| fault(&Pair { key: key.into(), ..pair.clone() });
    let of_cert = |text: &str| (Part::Certificate, text.to_owned());
    let of_key = |text: &str| (Part::Key, text.to_owned());

    assert_eq!(with_cert(""), of_cert("there is no certificate in the file"));
    assert_eq!(with_cert(&pair.key), of_cert("there is no certificate in the file"));
    assert_eq!(
        with_cert("-----BEGIN CERTIFICATE-----\nAAAA\n"),
        of_cert("the file is not well-formed PEM: a section has no end")
    );
    assert_eq!(
        with_cert("-----BEGIN CERTIFICATE-----\n!!!!\n-----END CERTIFICATE-----\n"),
        of_cert("the file is not well-formed PEM: a section is not base64")
    );
    assert_eq!(
        with_cert(&pem("CERTIFICATE", b"no certificate")),
        of_cert("certificate 1 in the file cannot be parsed")
    );
    assert_eq!(
        with_cert(&format!("{}{}", pair.cert, pem("CERTIFICATE", &[0x30, 0]))),
        of_cert("certificate 2 in the file cannot be parsed")
    );

    assert_eq!(with_key(""), of_key("there is no private key in the file"));
    assert_eq!(with_key(&pair.cert), of_key("there is no private key in the file"));
    assert_eq!(
        with_key(&format!("{}{}", pair.key, other.key)),
        of_key("there are 2 private keys in the file")
    );
    assert_eq!(with_key(&other.key), of_key("the private key does not belong to the certificate"));
    assert_eq!(
        with_key(&pem("PRIVATE KEY", b"no key")),
        of_key("the private key is damaged, or of a type that cannot be used")
    );
    let encrypted = "the private key is encrypted";
    assert_eq!(with_key(&pem("ENCRYPTED PRIVATE KEY", &[0x30, 0])), of_key(encrypted));
    assert_eq!(
        with_key(
            "-----BEGIN RSA PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\nDEK-Info: AES-128-CBC,00\n\nAAAA\n\
             -----END RSA PRIVATE KEY-----\n"
        ),
        of_key(encrypted)
    );

    // Both at once.
    let faults = Certificate::from_pem(b"", b"").unwrap_err();
    assert_eq!(faults.iter().map(|(part, _)| *part).collect::<Vec<_>>(), [Part::Certificate, Part::Key]);
}

#[test]
fn der_is_recognised() {
    let pair = Mint::root("root").pair(&["a"]);
    let key = key(&PKCS_ECDSA_P256_SHA256);
    let faults = Certificate::from_pem(pair.cert.as_bytes(), key.serialized_der()).unwrap_err();
    assert!(matches!(faults[..], [(Part::Key, Fault::Der)]), "{faults:?}");
    // Not a text that begins with the same byte.
    let cert = format!("0 s:CN=a\n{}", pair.cert);
    Pair { cert, ..pair }.read();
}

/// RSA with 1024 bits, by openssl: nothing else here makes such keys.
const RSA_1024: &str = include_str!("rsa-1024.pem");

#[test]
fn keys_that_are_too_short() {
    let fault = fault(&Pair { cert: RSA_1024.into(), key: RSA.serialize_pem() });
    assert_eq!(fault, (Part::Certificate, "the certificate is for an RSA key of 1024 bits".into()));
}

#[test]
fn time_and_a_missing_name_are_concerns() {
    let root = Mint::root("root");
    let limited = |params: &mut CertificateParams| {
        params.not_before = date_time_ymd(2020, 1, 1);
        params.not_after = date_time_ymd(2021, 1, 1);
    };
    let certificate = root.pair_of(&[], &key(&PKCS_ECDSA_P256_SHA256), limited).read();
    let concerns = |now: i64| {
        let now = UnixTime::since_unix_epoch(std::time::Duration::from_secs(now as u64));
        certificate.concerns(now).iter().map(ToString::to_string).collect::<Vec<_>>()
    };
    let facts = certificate.facts();
    let nameless = Concern::Nameless.to_string();
    assert_eq!(concerns(facts.not_before), [nameless.as_str()]);
    assert_eq!(concerns(facts.not_after), [nameless.as_str()]);
    assert_eq!(
        concerns(facts.not_before - 1),
        ["the certificate is not valid before Wed, 01 Jan 2020 00:00:00 GMT", &nameless]
    );
    assert_eq!(
        concerns(facts.not_after + 1),
        ["the certificate expired on Fri, 01 Jan 2021 00:00:00 GMT", &nameless]
    );
}

#[test]
fn authorities() {
    let (one, two) = (Mint::root("one"), Mint::root("two"));
    let both = Authorities::from_pem(format!("{}{}", one.cert, two.cert).as_bytes()).unwrap();
    assert_eq!(both.roots().len(), 2);
    assert!(matches!(Authorities::from_pem(b""), Err(Fault::NoCertificate)));
    let broken = format!("{}{}", one.cert, pem("CERTIFICATE", &[0x30, 0]));
    assert!(matches!(Authorities::from_pem(broken.as_bytes()), Err(Fault::Malformed { place: 2 })));
}

/// A directory that goes when the test does.
struct Directory(PathBuf);

impl Directory {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("ringgate-tls-{name}-{}", std::process::id()));
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

#[test]
fn files_are_named_and_bounded() {
    let directory = Directory::new("files");
    let file = |name: &str| directory.0.join(name);
    let pair = Mint::root("root").pair(&["a"]);
    fs::write(file("a.pem"), &pair.cert).unwrap();
    fs::write(file("a.key"), &pair.key).unwrap();
    fs::write(file("large"), vec![b'\n'; FILE_BYTES_MAX + 1]).unwrap();
    Certificate::read(&file("a.pem"), &file("a.key")).unwrap();

    let said = |cert: &str, key: &str| {
        let errors = Certificate::read(&file(cert), &file(key)).unwrap_err();
        errors.iter().map(ToString::to_string).collect::<Vec<_>>()
    };
    let at = |name: &str, text: &str| format!("{}: {text}", file(name).display());
    assert_eq!(
        said("none", "large"),
        [
            at("none", "the file cannot be read: No such file or directory (os error 2)"),
            at("large", "the file has more than 1024 KiB")
        ]
    );
    assert_eq!(said("a.pem", "."), [at(".", "this is not a regular file")]);
    // It would be read for ever.
    assert_eq!(said("a.pem", "/dev/zero"), ["/dev/zero: this is not a regular file"]);
    assert_eq!(said("a.key", "a.key"), [at("a.key", "there is no certificate in the file")]);
}

#[test]
fn keys_are_not_shown() {
    let pair = Mint::root("root").pair(&["a"]);
    let secret: Vec<&str> = pair.key.lines().filter(|line| !line.starts_with('-')).collect();
    let shown = format!("{:?}", pair.read());
    assert!(shown.contains("PrivateKey(…)"), "{shown}");
    assert!(secret.iter().all(|line| !shown.contains(line)));
    // A key cut off after each of its lines: what is said does not repeat it.
    let lines: Vec<&str> = pair.key.lines().collect();
    for end in 1..lines.len() {
        let faults = Certificate::from_pem(pair.cert.as_bytes(), lines[..end].join("\n").as_bytes());
        let said = format!("{:?}", faults.unwrap_err());
        assert!(secret.iter().all(|line| !said.contains(line)), "{said}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_bytes_are_survived(cert in any::<Vec<u8>>(), key in any::<Vec<u8>>(), label in "[A-Z ]{0,12}") {
        prop_assert!(Certificate::from_pem(&cert, &key).is_err());
        let (wrapped, of_key) = (pem("CERTIFICATE", &cert), pem(&label, &key));
        prop_assert!(Certificate::from_pem(wrapped.as_bytes(), of_key.as_bytes()).is_err());
        prop_assert!(Authorities::from_pem(wrapped.as_bytes()).is_err());
    }

    #[test]
    fn any_change_of_a_certificate_is_survived(at in any::<prop::sample::Index>(), byte in any::<u8>()) {
        static PAIR: std::sync::LazyLock<(Pair, Vec<u8>)> = std::sync::LazyLock::new(|| {
            let pair = Mint::root("root").below("between").pair(&["a.example.com", "10.0.0.1"]);
            let mut text = pair.cert.as_bytes();
            let (_, der) = rustls_pki_types::pem::from_buf(&mut text).unwrap().unwrap();
            (pair, der)
        });
        let (pair, der) = &*PAIR;
        let mut der = der.clone();
        let at = at.index(der.len());
        der[at] = byte;
        let _ = Certificate::from_pem(pem("CERTIFICATE", &der).as_bytes(), pair.key.as_bytes());
        let _ = Authorities::from_pem(pem("CERTIFICATE", &der).as_bytes());
    }
}
