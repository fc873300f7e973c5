//! Files of certificates and keys: any bytes are taken or refused, and what is taken can be asked about.

#![no_main]

use std::time::Duration;

use libfuzzer_sys::fuzz_target;
use ringgate::tls::{Authorities, Certificate};
use rustls_pki_types::UnixTime;

fuzz_target!(|files: (&[u8], &[u8])| {
    let (cert, key) = files;
    let now = UnixTime::since_unix_epoch(Duration::from_secs(1 << 31));
    match Certificate::from_pem(cert, key) {
        Ok(certificate) => {
            certificate.concerns(now).iter().for_each(|concern| drop(concern.to_string()));
        }
        Err(faults) => assert!(!faults.is_empty()),
    }
    if let Ok(authorities) = Authorities::from_pem(cert) {
        assert!(!authorities.roots().is_empty());
        authorities.concerns(now).iter().for_each(|concern| drop(concern.to_string()));
    }
});
